"""Figures of matplotlib as PNG files, with names that came from the user."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from vaeaug.files import publish
from vaeaug.files.names import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_label(name: str) -> str:
    """Make a name safe to draw: nothing invisible, no mathematical notation.

    Args:
        name: Any text.

    Returns:
        The text for matplotlib.
    """
    return printable(name).replace("$", r"\$")


def publish_figure(path: str | Path, figure: "Figure", *, dpi: int) -> Path:
    """Write a figure, whole or not at all.

    Args:
        path: PNG file to write.
        figure: The figure.
        dpi: Dots per inch.

    Returns:
        The path.

    Raises:
        OSError: If it cannot be written.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # matplotlib's font lacks many scripts, and draws boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(buffer, dpi=dpi, format="png", metadata={"Software": None})
    publish(Path(path), buffer.getvalue())
    return Path(path)
