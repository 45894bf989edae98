"""Pictures of single samples: images as they are, signals as plots, volumes by a slice."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

if TYPE_CHECKING:
    from PIL import Image

_SIDE = 48  # side to which small images are enlarged, pixels
_MAX_SIDE = 128  # side to which large images are reduced, pixels
_PLOT = (88, 48)  # width and height of the plot of a signal, pixels
_SUPERSAMPLING = 4  # plots are drawn larger by this factor and averaged, for smooth lines
_LINE = 6  # width of a line before averaging, pixels
_LIGHTEST = 190  # gray level of the last channel of a signal; the first is black


def bounded_tile_size(image_shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the size of a tile of at most `side` pixels; plots of signals have a fixed size.

    Args:
        image_shape: Shape of one sample, (space..., c).
        side: Maximum side, pixels.

    Returns:
        Width and height, pixels.
    """
    size = tile_size(image_shape)
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


def tile_size(image_shape: tuple[int, ...]) -> tuple[int, int]:
    """Choose the size of the picture of one sample.

    Args:
        image_shape: Shape of one sample, (space..., c).

    Returns:
        Width and height, pixels.
    """
    if len(image_shape) == 2:
        return _PLOT
    height, width = image_shape[-3:-1]
    if max(height, width) > _MAX_SIDE:
        factor = _MAX_SIDE / max(height, width)
        return max(1, round(width * factor)), max(1, round(height * factor))
    zoom = max(1, round(_SIDE / max(height, width)))
    return width * zoom, height * zoom


def draw_tile(
    sample: Shaped[np.ndarray, "*space c"],
    value_range: tuple[float, float],
    size: tuple[int, int],
) -> "Image.Image":
    """Draw one sample in a given size.

    Args:
        sample: The sample.
        value_range: Lowest and highest value.
        size: Width and height, pixels.

    Returns:
        A picture in RGB: an image as it is, a signal as a plot, a volume or clip by its middle
        slice.
    """
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
