"""Pictures of latent traversals: named rows of samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from vaeaug.files import new_file
from vaeaug.files.names import printable
from vaeaug.report.clips import are_clips, shown_frames, write_gif
from vaeaug.report.picture import _GAP, _INK, _PAPER, _QUIET
from vaeaug.tiles import draw_tile, tile_size

if TYPE_CHECKING:
    from PIL import Image

_LEFT, _TITLE = 100, 22


def write_strips(
    path: str | Path,
    strips: Sequence[tuple[str, Sequence[str], Shaped[np.ndarray, "_u _t *space c"]]],
    *,
    value_range: tuple[float, float],
) -> Path:
    """Draw titled blocks of named rows, and write the file atomically.

    Args:
        path: A ``.png`` file; for volumes and clips a ``.gif`` as well.
        strips: (title, name of each row, samples by row and column) of each block.
        value_range: Lowest and highest value of the samples.

    Returns:
        The path.

    Raises:
        ValueError: If the file is a ``.gif`` and the samples are neither volumes nor clips.
    """
    path = Path(path)
    shape = strips[0][2].shape[2:]
    if path.suffix.lower() == ".gif":
        if not are_clips(shape):
            raise ValueError(
                f"{path}: expected a .png for samples of shape {shape}; a .gif shows clips"
            )
        drawn = []
        for t in shown_frames(shape[0]):
            at = [(title, names, images[:, :, t]) for title, names, images in strips]
            drawn.append(_drawn(at, value_range))
        write_gif(path, drawn)
        return path
    sheet = _drawn(strips, value_range)
    with new_file(path) as file:
        sheet.save(file, format="PNG")
    return path


def _drawn(
    strips: Sequence[tuple[str, Sequence[str], Shaped[np.ndarray, "_u _t *space c"]]],
    value_range: tuple[float, float],
) -> "Image.Image":
    from PIL import Image, ImageDraw, ImageFont

    width, height = tile_size(strips[0][2].shape[2:])
    columns = max(images.shape[1] for _, _, images in strips)
    rows = sum(len(images) for _, _, images in strips)
    sheet = Image.new(
        "RGB",
        (_LEFT + columns * (width + _GAP) + 8, len(strips) * _TITLE + rows * (height + _GAP) + 8),
        _PAPER,
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    y = 4
    for title, names, images in strips:
        draw.text((8, y), printable(title), _INK, font)
        y += _TITLE
        for name, row in zip(names, images, strict=True):
            draw.text((8, y + height / 2 - 9), printable(name), _QUIET, font)
            for column, sample in enumerate(row):
                tile = draw_tile(sample, value_range, (width, height))
                sheet.paste(tile, (_LEFT + column * (width + _GAP), y))
            y += height + _GAP
    return sheet
