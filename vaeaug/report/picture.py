"""``samples.png``, of clips ``samples.gif``: real, synthetic and nearest real images by class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from vaeaug.files import new_file
from vaeaug.files.names import printable
from vaeaug.report.clips import shown_frames, write_gif
from vaeaug.tiles import bounded_tile_size, draw_tile, tile_size

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = 12
MAX_CLASSES = 20
_ROWS = ("real", "synthetic", "nearest real")
_GAP = 2
_INK, _PAPER, _QUIET = (20, 20, 20), (255, 255, 255), (110, 110, 110)


@dataclass(frozen=True)
class ClassPanel:
    """The samples of one class to show, (n, space..., C) each; n may be 0.

    Attributes:
        name: Class name.
        note: A short note beside it, such as its counts.
        real: Real images.
        synthetic: Synthetic images.
        nearest: The nearest real image to each synthetic one.
    """

    name: str
    note: str
    real: Shaped[np.ndarray, "n *space c"]
    synthetic: Shaped[np.ndarray, "m *space c"]
    nearest: Shaped[np.ndarray, "m *space c"]

    def at(self, frame: int) -> "ClassPanel":
        """The panel of one frame of clips, or slice of volumes.

        Args:
            frame: Its index.

        Returns:
            A panel of images.
        """
        parts = {name: getattr(self, name)[:, frame] for name in ("real", "synthetic", "nearest")}
        return replace(self, **parts)


def write_samples(
    path: str | Path, panels: Sequence[ClassPanel], *, value_range: tuple[float, float]
) -> None:
    """Draw at most `MAX_CLASSES` panels below one another, and write the file atomically.

    Images are shown unchanged. Signals are shown as line plots, with overlaid channels in shades of
    gray and `value_range` from bottom to top. Volumes are shown by their middle slice, or slice by
    slice in an animation.

    Args:
        path: A ``.png`` file; for volumes and clips a ``.gif`` as well.
        panels: One panel per class; if there are too many, the first ones are shown.
        value_range: Lowest and highest value of the images.
    """
    path = Path(path)
    if path.suffix == ".gif":
        frames = shown_frames(panels[0].real.shape[1])
        write_gif(path, [_drawn([each.at(t) for each in panels], value_range) for t in frames])
        return
    sheet = _drawn(panels, value_range)
    with new_file(path) as file:
        sheet.save(file, format="PNG")


def _drawn(panels: Sequence[ClassPanel], value_range: tuple[float, float]) -> "Image.Image":
    from PIL import Image, ImageDraw, ImageFont

    shown = panels[:MAX_CLASSES]
    width, height = tile_size(shown[0].real.shape[1:])
    cell_h, cell_w = height + _GAP, width + _GAP
    font = ImageFont.load_default(13)
    title = 22
    images_left = 100
    panel_h = title + len(_ROWS) * cell_h + 8
    footer = 24 if len(panels) > len(shown) else 4
    sheet = Image.new(
        "RGB", (images_left + max(COLUMNS * cell_w, 320) + 8, panel_h * len(shown) + footer), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for number, panel in enumerate(shown):
        top = number * panel_h
        name = printable(panel.name)
        draw.text((8, top + 4), name, _INK, font)
        note_left = 8 + draw.textlength(name, font) + 12
        draw.text((max(note_left, images_left), top + 4), printable(panel.note), _QUIET, font)
        for row, (name, images) in enumerate(
            zip(_ROWS, (panel.real, panel.synthetic, panel.nearest), strict=True)
        ):
            y = top + title + row * cell_h
            draw.text((8, y + cell_h / 2 - 9), name, _QUIET, font)
            for column, image in enumerate(images[:COLUMNS]):
                tile = draw_tile(image, value_range, (width, height))
                sheet.paste(tile, (images_left + column * cell_w, y))
            if not len(images):
                draw.text((images_left, y + cell_h / 2 - 9), "none", _QUIET, font)
    if len(panels) > len(shown):
        text = f"{len(panels) - len(shown)} larger classes are not shown"
        draw.text((8, panel_h * len(shown) + 4), text, _QUIET, font)
    return sheet


def sheet(
    panel: ClassPanel, columns: int, *, value_range: tuple[float, float], side: int
) -> "Image.Image | None":
    """Draw the three rows of a panel without text, transparent between the tiles.

    Args:
        panel: The class.
        columns: Maximum number of images of each kind.
        value_range: Lowest and highest value of the images.
        side: Maximum side of the tile of an image, pixels.

    Returns:
        The picture, or None if the panel has no images.
    """
    from PIL import Image

    rows = [images[:columns] for images in (panel.real, panel.synthetic, panel.nearest)]
    if not any(len(images) for images in rows):
        return None
    size = tile_size(panel.real.shape[1:])
    width, height = bounded_tile_size(panel.real.shape[1:], side)
    picture = Image.new(
        "RGBA",
        (columns * (width + _GAP) - _GAP, len(rows) * (height + _GAP) - _GAP),
        (0, 0, 0, 0),
    )
    for row, images in enumerate(rows):
        for column, sample in enumerate(images):
            tile = draw_tile(sample, value_range, size)
            if tile.size != (width, height):
                tile = tile.resize((width, height), Image.Resampling.BOX)
            picture.paste(tile, (column * (width + _GAP), row * (height + _GAP)))
    red, green, blue, _ = picture.split()
    is_gray = red.tobytes() == green.tobytes() == blue.tobytes()
    return picture.convert("LA") if is_gray else picture
