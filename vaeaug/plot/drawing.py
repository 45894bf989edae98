"""What the displays share: axes, names, sheets of tiles, and the run that a plot is of."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped, UInt8

from vaeaug.files.names import printable
from vaeaug.job.result import AugmentResult
from vaeaug.shards import Manifest
from vaeaug.tiles import draw_tile, tile_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Readable on white and on black, and for the colour-blind: real, repeated, synthetic.
COLOURS = ("#3b7dbd", "#8fb8de", "#e07b39")
_GAP = 2
_MOST_CHARACTERS = 28


def axes_or_new(ax: "Axes | None", size: tuple[float, float]) -> "Axes":
    """Give axes to draw into.

    Args:
        ax: The caller's; None: new ones.
        size: Width and height of a new figure, inches.

    Returns:
        The axes.
    """
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def as_name(name: str) -> str:
    """Make a user's name safe to draw, and short.

    Args:
        name: Of a class.

    Returns:
        The text for matplotlib.
    """
    name = printable(name)
    short = name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 1]}…"
    return short.replace("$", r"\$")


def manifest_of(run: AugmentResult | str | Path) -> tuple[Path, Manifest]:
    """Read the manifest of a run.

    Args:
        run: The result, or the run folder.

    Returns:
        (the folder, its manifest).

    Raises:
        ShardError: If the folder holds no finished run.
    """
    if isinstance(run, AugmentResult):
        return run.out_dir, run.manifest
    return Path(run), Manifest.load(run)


def tiled(
    rows: Sequence[Shaped[np.ndarray, "_n *space c"]], value_range: tuple[float, float]
) -> tuple[UInt8[np.ndarray, "height width 4"], list[float]]:
    """Draw rows of samples as one picture, transparent between the tiles.

    Args:
        rows: Samples of each row.
        value_range: Lowest and highest value.

    Returns:
        (RGBA, the height of the middle of each row, pixels).
    """
    width, height = tile_size(rows[0].shape[1:])
    columns = max(len(row) for row in rows)
    sheet = np.zeros(
        (len(rows) * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 4), np.uint8
    )
    for number, row in enumerate(rows):
        top = number * (height + _GAP)
        for column, sample in enumerate(row):
            left = column * (width + _GAP)
            tile = np.asarray(draw_tile(sample, value_range, (width, height)))
            sheet[top : top + height, left : left + width] = np.dstack(
                [tile, np.full((height, width), 255, np.uint8)]
            )
    return sheet, [number * (height + _GAP) + (height - 1) / 2 for number in range(len(rows))]


def draw_rows(
    ax: "Axes | None",
    names: Sequence[str],
    rows: Sequence[Shaped[np.ndarray, "_n *space c"]],
    value_range: tuple[float, float],
    **image_kw: Any,
) -> "Axes":
    """Draw named rows of samples.

    Args:
        ax: The caller's axes; None: new ones.
        names: Of the rows.
        rows: Samples of each row.
        value_range: Lowest and highest value.
        **image_kw: For matplotlib's ``imshow``.

    Returns:
        The axes.
    """
    sheet, middles = tiled(rows, value_range)
    height, width = sheet.shape[:2]
    ax = axes_or_new(ax, (width / 72 + 1.6, height / 72 + 0.4))
    ax.imshow(sheet, **({"interpolation": "nearest"} | image_kw))
    ax.set_xticks([])
    ax.set_yticks(middles, [as_name(name) for name in names])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax
