"""Libraries that only some kinds of sources need."""

import importlib
from typing import Any

from vaeaug.data.checks import DataError


def import_extra(library: str, extra: str, where: str, what: str) -> Any:
    """Import an optional library.

    Args:
        library: Its module.
        extra: The extra of vaeaug that installs it.
        where: The source, for the message.
        what: What needs it, as a plural.

    Returns:
        The module.

    Raises:
        DataError: If it is not installed, naming the extra.
    """
    try:
        return importlib.import_module(library)
    except ImportError:
        raise DataError(
            f"{where}: {what} need the library {library.split('.')[0]}: "
            f"pip install 'vaeaug[{extra}]'"
        ) from None
