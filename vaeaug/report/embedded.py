"""Pictures inside the page, as many and as large as it has room for."""

import base64
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeaug.report.picture import _GAP, MAX_CLASSES, ClassPanel, bounded_tile_size, sheet

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger("vaeaug")

# Bytes of base64.
_TRAVERSAL_BYTES = 700_000
_MOST_COLUMNS = 8
# Pixels: the longest side of a tile, and the width of a panel, two of which lie beside each other.
_SIDE = 64
_WIDTH = 420


def panel_pictures(
    panels: Sequence[ClassPanel], value_range: tuple[float, float], *, room: int
) -> list[dict[str, Any]]:
    """Panels as images in the page, with as many columns as there is room for.

    Args:
        panels: What is shown; at most `MAX_CLASSES` of them are.
        value_range: Of their images.
        room: Bytes that all of them may take.

    Returns:
        Of each panel that has an image: its name, its note, and the image.
    """
    shown = panels[:MAX_CLASSES]
    if not shown:
        return []
    width = bounded_tile_size(shown[0].real.shape[1:], _SIDE)[0] + _GAP
    columns = max(1, min(_MOST_COLUMNS, _WIDTH // width))
    while True:
        drawn = [
            picture
            for panel in shown
            if (picture := _panel(panel, columns, value_range)) is not None
        ]
        size = sum(len(picture["source"]) for picture in drawn)
        if size <= room or columns == 1:
            return drawn
        columns = max(1, min(columns - 1, columns * room // size))


def _panel(
    panel: ClassPanel, columns: int, value_range: tuple[float, float]
) -> dict[str, Any] | None:
    picture = sheet(panel, columns, value_range=value_range, side=_SIDE)
    if picture is None:
        return None
    n_real, n_synthetic = (min(columns, len(images)) for images in (panel.real, panel.synthetic))
    return {
        "name": panel.name,
        "note": panel.note,
        "source": _data_uri(picture),
        "width": picture.width,
        "height": picture.height,
        # Where pixels were enlarged, a browser that scales further must not blur them.
        "enlarged": panel.real.ndim > 3 and max(panel.real.shape[-3:-1]) * 2 <= _SIDE,
        "alt": f"Class {panel.name}, three rows: {n_real} real, {n_synthetic} synthetic, and the "
        "nearest real image to each synthetic one",
    }


def _data_uri(picture: "Image.Image", kind: str = "png") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **({"quality": 85} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def traversal_picture(path: Path | None) -> dict[str, Any] | None:
    """The picture as it is where there is room, or as a JPEG, at last a smaller one."""
    if path is None:
        return None
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as file:
            picture = file.convert("RGB")
    except Exception as error:  # what Pillow's parsers make of damage is many things
        log.warning("%s: cannot be read (%s); left out of the report", path, error)
        return None
    width, height = picture.size
    source = _data_uri(picture)
    while len(source) > _TRAVERSAL_BYTES:
        source = _data_uri(picture, "jpeg")
        picture = picture.resize((max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)))
    return {"source": source, "width": width, "height": height}
