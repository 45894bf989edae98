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

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = 12
MAX_CLASSES = 20
_ROWS = ("real", "synthetic", "nearest real")
_GAP = 2
_SIDE = 48  # side to which small images are enlarged, pixels
_MAX_SIDE = 128  # side to which large images are reduced, pixels
_PLOT = (88, 48)  # width and height of the plot of a signal, pixels
_SUPERSAMPLING = 4  # plots are drawn larger by this factor and averaged, for smooth lines
_LINE = 6  # width of a line before averaging, pixels
_LIGHTEST = 190  # gray level of the last channel of a signal; the first is black
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
    width, height = _tile_size(shown[0].real.shape[1:])
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
                tile = _tile(image, value_range, (width, height))
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
    size = _tile_size(panel.real.shape[1:])
    width, height = bounded_tile_size(panel.real.shape[1:], side)
    picture = Image.new(
        "RGBA",
        (columns * (width + _GAP) - _GAP, len(rows) * (height + _GAP) - _GAP),
        (0, 0, 0, 0),
    )
    for row, images in enumerate(rows):
        for column, sample in enumerate(images):
            tile = _tile(sample, value_range, size)
            if tile.size != (width, height):
                tile = tile.resize((width, height), Image.Resampling.BOX)
            picture.paste(tile, (column * (width + _GAP), row * (height + _GAP)))
    red, green, blue, _ = picture.split()
    is_gray = red.tobytes() == green.tobytes() == blue.tobytes()
    return picture.convert("LA") if is_gray else picture


def bounded_tile_size(image_shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the size of a tile of at most `side` pixels; plots of signals have a fixed size.

    Args:
        image_shape: Shape of one sample, (space..., c).
        side: Maximum side, pixels.

    Returns:
        Width and height, pixels.
    """
    size = _tile_size(image_shape)
    if len(image_shape) == 2 or max(size) <= side:
        return size
    width, height = (max(1, round(n * side / max(size))) for n in size)
    return width, height


def draw_sample(
    sample: Shaped[np.ndarray, "*space c"], value_range: tuple[float, float]
) -> "Image.Image":
    """Draw one sample, pixel by pixel; a signal as a plot, a volume or clip by its middle slice.

    Args:
        sample: The sample.
        value_range: Lowest and highest value.

    Returns:
        A picture in RGB; of an image of its own size.
    """
    from PIL import Image

    if sample.ndim == 2:
        return _plot(sample, value_range, (2 * _PLOT[0], 2 * _PLOT[1]))
    if sample.ndim == 4:
        sample = sample[len(sample) // 2]
    return Image.fromarray(_rgb(sample, value_range))


def _tile_size(image_shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height in pixels of the picture of one sample."""
    if len(image_shape) == 2:
        return _PLOT
    height, width = image_shape[-3:-1]
    if max(height, width) > _MAX_SIDE:
        factor = _MAX_SIDE / max(height, width)
        return max(1, round(width * factor)), max(1, round(height * factor))
    zoom = max(1, round(_SIDE / max(height, width)))
    return width * zoom, height * zoom


def _tile(
    sample: Shaped[np.ndarray, "*space c"],
    value_range: tuple[float, float],
    size: tuple[int, int],
) -> "Image.Image":
    from PIL import Image

    if sample.ndim == 2:
        return _plot(sample, value_range, size)
    if sample.ndim == 4:
        sample = sample[len(sample) // 2]
    picture = Image.fromarray(_rgb(sample, value_range))
    reduced = picture.width > size[0]
    return picture.resize(size, Image.Resampling.BOX if reduced else Image.Resampling.NEAREST)


def _plot(
    signal: Shaped[np.ndarray, "length c"],
    value_range: tuple[float, float],
    size: tuple[int, int],
) -> "Image.Image":
    from PIL import Image, ImageDraw

    width, height = (n * _SUPERSAMPLING for n in size)
    low, high = value_range
    signal = _outline(signal, 2 * width)
    length, channels = signal.shape
    plot = Image.new("RGB", (width, height), (244, 244, 244))
    draw = ImageDraw.Draw(plot)
    x = (np.arange(length) + 0.5) / length * (width - 1)
    share = ((signal.astype(np.float64) - low) / (high - low)).clip(0, 1)
    # The margin keeps the line visible at both ends of the range.
    y = _SUPERSAMPLING + (1 - share) * (height - 1 - 2 * _SUPERSAMPLING)
    # The first channel is drawn last, on top.
    for c in reversed(range(channels)):
        gray = round(_LIGHTEST * c / max(1, channels - 1))
        points = list(zip(x.tolist(), y[:, c].tolist(), strict=True))
        if length == 1:
            points = [(0.0, points[0][1]), (width - 1.0, points[0][1])]
        draw.line(points, (gray, gray, gray), width=_LINE, joint="curve")
    return plot.resize(size, Image.Resampling.BOX)


def _outline(
    signal: Shaped[np.ndarray, "length c"], max_points: int
) -> Shaped[np.ndarray, "short c"]:
    """Reduce a long signal to the lowest and highest value of each stretch."""
    if len(signal) <= 4 * max_points:
        return signal
    stretches = np.array_split(signal, max_points // 2)
    return np.stack(
        [end for stretch in stretches for end in (stretch.min(axis=0), stretch.max(axis=0))]
    )


def _rgb(
    image: Shaped[np.ndarray, "height width c"], value_range: tuple[float, float]
) -> Shaped[np.ndarray, "height width 3"]:
    low, high = value_range
    scaled = (image.astype(np.float64) - low) / (high - low) * 255
    pixels = scaled.clip(0, 255).round().astype(np.uint8)
    # With fewer than three channels, the first one is shown as gray; otherwise the first three are
    # shown, without alpha.
    return np.repeat(pixels[:, :, :1], 3, axis=2) if pixels.shape[2] < 3 else pixels[:, :, :3]
