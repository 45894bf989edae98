"""Properties of samples that can be measured: of images their thickness, slant, size and colour."""

import numpy as np
from jaxtyping import Float64, Shaped

from vaeaug.shapes import are_features

# Differences from the background below this fraction of the value range are not ink.
_FAINT = 0.1
_TINY = 1e-9

Attributes = dict[str, Float64[np.ndarray, " n"]]


def attributes_of(
    samples: Shaped[np.ndarray, "n *space c"], value_range: tuple[float, float]
) -> Attributes:
    """Measure samples.

    Args:
        samples: Signals, images or volumes.
        value_range: Lowest and highest value.

    Returns:
        Name to value of each sample; nothing for feature vectors. Of images: ``brightness`` and
        ``contrast`` (mean and standard deviation, as fractions of the value range), ``redness``
        and ``blueness`` of coloured ones; and of what differs from the background, the median of
        the border: ``size`` (root mean square distance from its centre, as a fraction of the
        longer side), ``thickness`` (twice the area by the perimeter, pixels), ``slant`` (shear to
        the right, pixels per pixel), ``stretch`` (log ratio of width to height), and ``right`` and
        ``down`` (its centre, as fractions of the longer side). Of signals: ``level``,
        ``amplitude``, ``trend`` (per length) and ``frequency`` (spectral centroid, as a fraction
        of the highest). Of volumes: ``brightness``, ``contrast`` and ``size``.
    """
    if are_features(samples.shape[1:]):
        return {}
    low, high = value_range
    x = (samples.astype(np.float64) - low) / (high - low)
    if x.ndim == 3:
        return _of_signals(x)
    found = {
        "brightness": x.reshape(len(x), -1).mean(axis=1),
        "contrast": x.mean(axis=-1).reshape(len(x), -1).std(axis=1),
    }
    if x.ndim == 5:
        return found | {"size": _size(_ink(x.mean(axis=-1)))}
    if x.shape[-1] == 3:
        red, green, blue = np.moveaxis(x.mean(axis=(1, 2)), -1, 0)
        found |= {"redness": red - (green + blue) / 2, "blueness": blue - (red + green) / 2}
    return found | _of_ink(_ink(x.mean(axis=-1)))


def _ink(grey: Float64[np.ndarray, "n *space"]) -> Float64[np.ndarray, "n *space"]:
    """How much each value differs from the background, the median of the border."""
    inner = np.zeros(grey.shape[1:], bool)
    inner[tuple(slice(1, -1) for _ in grey.shape[1:])] = True
    border = np.median(grey[:, ~inner], axis=1)
    ink = np.abs(grey - border.reshape(-1, *(1,) * (grey.ndim - 1)))
    return np.where(ink < _FAINT, 0.0, ink)


def _size(ink: Float64[np.ndarray, "n *space"]) -> Float64[np.ndarray, " n"]:
    """Root mean square distance of ink from its centre, as a fraction of the longest side."""
    mass = ink.reshape(len(ink), -1).sum(axis=1) + _TINY
    total = np.zeros(len(ink))
    for axis in range(ink.ndim - 1):
        of_axis = np.moveaxis(ink, axis + 1, -1).reshape(len(ink), -1, ink.shape[axis + 1])
        profile = of_axis.sum(axis=1)
        place = np.arange(ink.shape[axis + 1])
        centre = profile @ place / mass
        total += (profile * (place - centre[:, None]) ** 2).sum(axis=1) / mass
    return np.sqrt(total) / max(ink.shape[1:])


def _of_ink(ink: Float64[np.ndarray, "n h w"]) -> Attributes:
    """Moments of the ink, after Hu (1962), and the thickness of its strokes."""
    height, width = ink.shape[1:]
    mass = ink.sum(axis=(1, 2)) + _TINY
    down, right = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
    rows, columns = ink.sum(axis=2), ink.sum(axis=1)
    y, x = rows @ down / mass, columns @ right / mass
    dy, dx = down - y[:, None], right - x[:, None]
    yy, xx = (rows * dy**2).sum(axis=1) / mass, (columns * dx**2).sum(axis=1) / mass
    xy = np.einsum("nhw,nh,nw->n", ink, dy, dx) / mass
    full = ink / (ink.max(axis=(1, 2), keepdims=True) + _TINY)
    edges = np.abs(np.diff(np.pad(full, ((0, 0), (1, 1), (0, 0))), axis=1)).sum(axis=(1, 2))
    edges += np.abs(np.diff(np.pad(full, ((0, 0), (0, 0), (1, 1))), axis=2)).sum(axis=(1, 2))
    side = max(height, width)
    return {
        "size": np.sqrt(yy + xx) / side,
        "thickness": 2 * full.sum(axis=(1, 2)) / (edges + _TINY),
        "slant": -xy / (yy + _TINY),
        "stretch": 0.5 * np.log((xx + _TINY) / (yy + _TINY)),
        "right": x / side,
        "down": y / side,
    }


def _of_signals(x: Float64[np.ndarray, "n l c"]) -> Attributes:
    mean = x.mean(axis=2)
    length = mean.shape[1]
    time = np.linspace(-0.5, 0.5, length)
    centred = mean - mean.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, axis=1)) ** 2
    frequencies = np.linspace(0, 1, power.shape[1])
    return {
        "level": mean.mean(axis=1),
        "amplitude": centred.std(axis=1),
        "trend": centred @ time / (time @ time),
        "frequency": power @ frequencies / (power.sum(axis=1) + _TINY),
    }
