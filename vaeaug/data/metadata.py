"""What a source states beside its pixels: class names, axes and value range."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from vaeaug.data.checks import DataError, Range, data_errors
from vaeaug.data.request import STORED_LAYOUTS
from vaeaug.memory import TEXT_FACTOR, require_memory

_NAMES_FILES = ("classes.json", "class_names.json", "classnames.txt")


@dataclass(frozen=True)
class SourceMetadata:
    """What a source states of its images; None where it is silent.

    Attributes:
        class_names: In the order of the labels.
        layout: One of `STORED_LAYOUTS`.
        value_range: The lowest and highest value by convention.
    """

    class_names: tuple[str, ...] | None = None
    layout: str | None = None
    value_range: Range | None = None


NO_METADATA = SourceMetadata()


def parse_metadata(document: Any, where: str) -> SourceMetadata:
    """Read `class_names`, `layout` and `image_value_range` of a document; other keys are ignored.

    Args:
        document: A mapping, as JSON has it.
        where: Its place, for messages.

    Returns:
        What it states.

    Raises:
        DataError: If it is no mapping, or one of the three is malformed.
    """
    if not isinstance(document, Mapping):
        raise DataError(f"{where}: expected an object, got {document!r}")
    layout, value_range = document.get("layout"), document.get("image_value_range")
    if layout is not None and layout not in STORED_LAYOUTS:
        raise DataError(
            f"{where}: expected a layout of {', '.join(STORED_LAYOUTS)}, got {layout!r}"
        )
    if value_range is not None and not is_range(value_range):
        raise DataError(f"{where}: expected image_value_range as (low, high), got {value_range!r}")
    names = document.get("class_names")
    return SourceMetadata(
        class_names=None if names is None else _parse_class_names(names, where),
        layout=layout,
        value_range=None if value_range is None else (float(value_range[0]), float(value_range[1])),
    )


def _parse_class_names(value: Any, where: str) -> tuple[str, ...]:
    """Class names from a list of texts, or from a mapping of each name to its label."""
    names = value
    if isinstance(value, Mapping):
        if sorted(map(str, value.values())) != sorted(map(str, range(len(value)))):
            raise DataError(
                f"{where}: expected class names numbered 0..{len(value) - 1}, got {dict(value)}"
            )
        names = sorted(value, key=lambda name: int(value[name]))
    is_list = isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names)
    if not is_list or len(set(names)) != len(names):
        raise DataError(f"{where}: expected distinct class names, a list of texts, got {value!r}")
    return tuple(names)


def class_names_beside(folder: Path) -> tuple[str, ...] | None:
    """Class names of `classes.json`, `class_names.json` or `classnames.txt` in a folder.

    The JSON is a list, a mapping of name to label, or an object whose `class_names` is either; the
    text has one name a line.

    Args:
        folder: Where the file may be.

    Returns:
        The names in the order of their labels, or None where there is no such file.

    Raises:
        DataError: If such a file is there and holds no class names.
    """
    path = next((folder / name for name in _NAMES_FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    if path.suffix == ".txt":
        return _parse_class_names(_read_text(path).rstrip("\n").split("\n"), str(path))
    document = load_json(path)
    if isinstance(document, Mapping) and isinstance(document.get("class_names"), list | dict):
        document = document["class_names"]
    return _parse_class_names(document, str(path))


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: The file.

    Returns:
        Its value.

    Raises:
        DataError: If it is not JSON in UTF-8, or larger than memory.
    """
    return parse_json(_read_text(path), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse a JSON text.

    Args:
        text: The text.
        where: Its place, for messages.

    Returns:
        Its value.

    Raises:
        DataError: If it is not JSON.
    """
    with data_errors(where, "JSON", ValueError, RecursionError):
        return json.loads(text)


def _read_text(path: Path) -> str:
    with data_errors(str(path), "a text file in UTF-8", OSError, UnicodeDecodeError):
        require_memory(TEXT_FACTOR * path.stat().st_size, str(path), "text", DataError)
        return path.read_text(encoding="utf-8-sig")


def is_range(value: Any) -> TypeGuard[Sequence[float]]:
    """Whether a value is (low, high), two finite numbers in this order.

    Args:
        value: Anything.

    Returns:
        True where it is.
    """
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(end, int | float) and math.isfinite(end) for end in value)
        and value[0] < value[1]
    )
