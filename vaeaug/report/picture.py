"""``samples.png``: of each class real images, synthetic ones, and the nearest real to each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

COLUMNS = 12
MAX_CLASSES = 20
_ROWS = ("real", "synthetic", "nearest real")
_GAP = 2
_INK, _PAPER, _QUIET = (20, 20, 20), (255, 255, 255), (110, 110, 110)


@dataclass(frozen=True)
class ClassPanel:
    """What is shown of one class. Images (n, H, W, C) in `value_range`; n may be 0.

    Attributes:
        name: Class name.
        note: A few words beside it, such as its counts.
        real: Real images.
        synthetic: Synthetic images.
        nearest: To each synthetic image, the nearest real one.
    """

    name: str
    note: str
    real: Shaped[np.ndarray, "n height width c"]
    synthetic: Shaped[np.ndarray, "m height width c"]
    nearest: Shaped[np.ndarray, "m height width c"]


def write_samples(
    path: str | Path, panels: Sequence[ClassPanel], *, value_range: tuple[float, float]
) -> None:
    """Draw at most `MAX_CLASSES` panels below one another and publish the file whole.

    Args:
        path: A ``.png``.
        panels: One per class, the ones to keep first where there are too many.
        value_range: Of the images.
    """
    from PIL import Image, ImageDraw, ImageFont

    shown = panels[:MAX_CLASSES]
    height, width = shown[0].real.shape[1:3]
    zoom = max(1, round(48 / max(height, width)))
    cell_h, cell_w = height * zoom + _GAP, width * zoom + _GAP
    font = ImageFont.load_default(13)
    title = 22
    left = 100
    panel_h = title + len(_ROWS) * cell_h + 8
    footer = 24 if len(panels) > len(shown) else 4
    sheet = Image.new(
        "RGB", (left + max(COLUMNS * cell_w, 320) + 8, panel_h * len(shown) + footer), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for number, panel in enumerate(shown):
        top = number * panel_h
        draw.text((8, top + 4), panel.name, _INK, font)
        after = 8 + draw.textlength(panel.name, font) + 12
        draw.text((max(after, left), top + 4), panel.note, _QUIET, font)
        for row, (name, images) in enumerate(
            zip(_ROWS, (panel.real, panel.synthetic, panel.nearest), strict=True)
        ):
            y = top + title + row * cell_h
            draw.text((8, y + cell_h / 2 - 9), name, _QUIET, font)
            for column, image in enumerate(images[:COLUMNS]):
                tile = Image.fromarray(_rgb(image, value_range))
                tile = tile.resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
                sheet.paste(tile, (left + column * cell_w, y))
            if not len(images):
                draw.text((left, y + cell_h / 2 - 9), "none", _QUIET, font)
    if len(panels) > len(shown):
        text = f"{len(panels) - len(shown)} larger classes are not shown"
        draw.text((8, panel_h * len(shown) + 4), text, _QUIET, font)
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    sheet.save(temporary, format="PNG")
    temporary.replace(path)


def _rgb(
    image: Shaped[np.ndarray, "height width c"], value_range: tuple[float, float]
) -> Shaped[np.ndarray, "height width 3"]:
    low, high = value_range
    scaled = (image.astype(np.float64) - low) / (high - low) * 255
    pixels = scaled.clip(0, 255).round().astype(np.uint8)
    # Gray to three channels; of more than three, the first three (alpha is left out).
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] < 3 else pixels[:, :, :3]
