"""Pictures embedded in the page, limited by its maximum size."""

import base64
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeaug.report.clips import are_clips, gif_bytes, shown_frames
from vaeaug.report.picture import _GAP, MAX_CLASSES, ClassPanel, sheet
from vaeaug.tiles import bounded_tile_size

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger("vaeaug")

# Maximum number of bytes of a traversal picture in base64.
_TRAVERSAL_BYTES = 700_000
_MAX_COLUMNS = 8
# The longest side of a tile and the width of a panel, in pixels; two panels are side by side.
_SIDE = 64
_WIDTH = 420


def panel_pictures(
    panels: Sequence[ClassPanel], value_range: tuple[float, float], *, max_bytes: int
) -> list[dict[str, Any]]:
    """Embed panels as images, with as many columns as the size limit allows.

    Args:
        panels: The panels; at most `MAX_CLASSES` of them are shown.
        value_range: Lowest and highest value of their images.
        max_bytes: Maximum number of bytes of all images together.

    Returns:
        Name, note and image of each panel that has images.
    """
    shown = panels[:MAX_CLASSES]
    if not shown:
        return []
    width = bounded_tile_size(shown[0].real.shape[1:], _SIDE)[0] + _GAP
    columns = max(1, min(_MAX_COLUMNS, _WIDTH // width))
    while True:
        drawn = [
            picture
            for panel in shown
            if (picture := _panel(panel, columns, value_range)) is not None
        ]
        size = sum(len(picture["source"]) for picture in drawn)
        if size <= max_bytes or columns == 1:
            return drawn
        columns = max(1, min(columns - 1, columns * max_bytes // size))


def _panel(
    panel: ClassPanel, columns: int, value_range: tuple[float, float]
) -> dict[str, Any] | None:
    moves = are_clips(panel.real.shape[1:])
    still = panel.at(panel.real.shape[1] // 2) if moves else panel
    picture = sheet(still, columns, value_range=value_range, side=_SIDE)
    if picture is None:
        return None
    source = _moving(panel, columns, value_range) if moves else _data_uri(picture)
    n_real, n_synthetic = (min(columns, len(images)) for images in (panel.real, panel.synthetic))
    return {
        "name": panel.name,
        "note": panel.note,
        "source": source,
        "width": picture.width,
        "height": picture.height,
        # Browsers must not blur enlarged pixels when they scale them further.
        "enlarged": panel.real.ndim > 3 and max(panel.real.shape[-3:-1]) * 2 <= _SIDE,
        "alt": f"Class {panel.name}, three rows: {n_real} real, {n_synthetic} synthetic, and the "
        "nearest real image to each synthetic one",
    }


def _moving(panel: ClassPanel, columns: int, value_range: tuple[float, float]) -> str:
    """The panel as an animation, on white."""
    from PIL import Image

    frames = []
    for t in shown_frames(panel.real.shape[1]):
        picture = sheet(panel.at(t), columns, value_range=value_range, side=_SIDE)
        assert picture is not None
        paper = Image.new("RGBA", picture.size, "white")
        paper.alpha_composite(picture.convert("RGBA"))
        frames.append(paper.convert("L" if picture.mode == "LA" else "RGB"))
    if len({frame.mode for frame in frames}) > 1:
        frames = [frame.convert("RGB") for frame in frames]
    return _as_uri(gif_bytes(frames), "gif")


def _as_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _data_uri(picture: "Image.Image", kind: str = "png") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **({"quality": 85} if kind == "jpeg" else {}))
    return _as_uri(buffer.getvalue(), kind)


def embedded_picture(path: Path | None) -> dict[str, Any] | None:
    """Embed a picture of the run; a large one becomes a JPEG and is reduced if necessary.

    Args:
        path: The PNG or GIF file; None: there is none.

    Returns:
        Source and size of the image, or None.
    """
    if path is None:
        return None
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG", "GIF"]) as file:
            if getattr(file, "is_animated", False):
                return _embedded_animation(file)
            picture = file.convert("RGB")
    except Exception as error:  # a damaged file can raise anything
        log.warning("%s: cannot be read (%s); left out of the report", path, error)
        return None
    width, height = picture.size
    source = _data_uri(picture)
    while len(source) > _TRAVERSAL_BYTES:
        source = _data_uri(picture, "jpeg")
        picture = picture.resize((max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)))
    return {"source": source, "width": width, "height": height}


def _embedded_animation(file: "Image.Image") -> dict[str, Any]:
    frames = []
    for number in range(getattr(file, "n_frames", 1)):
        file.seek(number)
        frames.append(file.convert("RGB"))
    content = gif_bytes(frames, max_bytes=_TRAVERSAL_BYTES * 3 // 4)
    return {"source": _as_uri(content, "gif"), "width": file.width, "height": file.height}
