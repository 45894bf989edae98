"""Arrays as people store them become pixels as `LabelledImages` wants them."""

import numpy as np
from jaxtyping import Shaped

from vaeaug.data._decode import NOTE_ALPHA, apply_alpha, resize
from vaeaug.data._images import LAYOUTS, NOUNS, DataError, check_finite, extent
from vaeaug.data._layout import channels_last

_EXACT = 2**24
_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))


def normalise_pixels(
    images: Shaped[np.ndarray, "n *space c"], where: str
) -> tuple[Shaped[np.ndarray, "n *space c"], tuple[float, float], tuple[str, ...]]:
    """Bring the values to uint8 or float32 and say their range.

    Returns:
        The images; (lowest, highest) value by convention, or their own for signals and volumes
        that keep to none; notes.

    Raises:
        DataError: if the values are not finite, or fit no known range.
    """
    kind = images.dtype.kind
    # HDF5 and FITS-born arrays are often big-endian, which is not the same dtype.
    images = images.astype(images.dtype.newbyteorder("="), copy=False)
    if images.dtype == np.uint8:
        return images, (0.0, 255.0), ()
    if kind == "b":
        return images * np.uint8(255), (0.0, 255.0), ("bool images stored as uint8, 0 and 255",)
    if kind in "iu":
        return _from_integers(images, where)
    if kind != "f":
        raise DataError(f"{where}: expected integer, bool or float images, got {images.dtype}")
    return _from_floats(images, where)


def _from_floats(
    images: Shaped[np.ndarray, "n *space c"], where: str
) -> tuple[Shaped[np.ndarray, "n *space c"], tuple[float, float], tuple[str, ...]]:
    check_finite(images, where)
    low, high = extent(images)
    fitting = [(a, b) for a, b in _RANGES if a <= low and high <= b]
    layout = LAYOUTS[images.ndim]
    if layout == "NHWC":
        if not fitting:
            raise DataError(
                f"{where}: float images must be scaled to [0, 1], [-1, 1], [0, 255] or [0, 65535], "
                f"got values from {low:g} to {high:g}; if a transform such as Normalize made them, "
                f"read without it"
            )
        return np.asarray(images, dtype=np.float32), fitting[0], ()
    # A recording in volts or a scan in its own units may lie in a corner of a convention, where a
    # model would see next to nothing of it: a convention has to be filled by half.
    if fitting and max(-low, high) >= fitting[0][1] / 2:
        return np.asarray(images, dtype=np.float32), fitting[0], ()
    with np.errstate(over="ignore"):
        images = images.astype(np.float32)
    check_finite(images, f"{where} as float32")
    low, high = extent(images)
    if low == high:
        pad = max(1.0, abs(low)) / 2
        low, high = low - pad, high + pad
    note = f"value range of the {NOUNS[layout]} taken from their values: {low:g} to {high:g}"
    return images, (low, high), (note,)


def _from_integers(
    images: Shaped[np.ndarray, "n *space c"], where: str
) -> tuple[Shaped[np.ndarray, "n *space c"], tuple[float, float], tuple[str, ...]]:
    low, high = int(images.min()), int(images.max())
    seen = f"{images.dtype} {NOUNS[LAYOUTS[images.ndim]]} with values {low} to {high}"
    if low >= 0 and high <= 255 and images.dtype != np.uint16:
        return images.astype(np.uint8), (0.0, 255.0), (f"{seen} stored as uint8",)
    if images.ndim != 4:
        if max(-low, high) > _EXACT:
            raise DataError(
                f"{where}: expected integers of at most 2**24, which float32 holds exactly, got "
                f"{seen}"
            )
        values, value_range, notes = _from_floats(images.astype(np.float32), where)
        return values, value_range, (f"{seen} kept exactly, as float32", *notes)
    if low < 0 or high > 65535:
        raise DataError(
            f"{where}: expected integer images with values in 0..255 or 0..65535, got {seen}"
        )
    if images.dtype == np.uint16:
        seen = "16-bit images"
    note = f"{seen} kept exactly, as float32 with value range (0, 65535)"
    return images.astype(np.float32), (0.0, 65535.0), (note,)


def finish_pixels(
    array: Shaped[np.ndarray, "..."],
    where: str,
    *,
    size: tuple[int, int] | None,
    alpha: str,
    layout: str | None = None,
) -> tuple[Shaped[np.ndarray, "n *space c"], tuple[float, float], tuple[str, ...]]:
    """Shape, values, alpha and size of a whole array, for sources that hold one.

    Args:
        array: as stored.
        where: the source, for messages.
        size: (H, W) to resize images to, or None.
        alpha: "composite", "drop" or "keep", for images of four channels.
        layout: the axes of `array`, or None for what `channels_last` takes them for.

    Returns:
        The images, shape (N, space..., C), uint8 or float32; their value range; notes.

    Raises:
        DataError: if they are not usable as images.
    """
    images, shape_notes = channels_last(array, where, layout)
    if size is not None:
        check_resizable(images, where)
    images, value_range, value_notes = normalise_pixels(images, where)
    notes = [*shape_notes, *value_notes]
    if images.ndim == 4 and images.shape[3] == 4:
        low, high = value_range
        images = apply_alpha(images, alpha, low=low, high=high)
        notes.append(f"four channels taken as RGBA: {NOTE_ALPHA[alpha]}")
    if size is not None and images.shape[1:3] != size:
        notes.append(f"resized from {images.shape[1]}x{images.shape[2]} to {size[0]}x{size[1]}")
        images = resize_all(images, size, value_range)
    return images, value_range, tuple(notes)


def check_resizable(images: Shaped[np.ndarray, "n *space c"], where: str) -> None:
    """Raise where a size was asked for and these are no images."""
    layout = LAYOUTS[images.ndim]
    if layout != "NHWC":
        raise DataError(
            f"{where}: size= resizes images only, expected shape (N, H, W, C), got {NOUNS[layout]} "
            f"of shape {images.shape}; read them without it"
        )


def resize_all(
    images: Shaped[np.ndarray, "n h w c"], size: tuple[int, int], value_range: tuple[float, float]
) -> Shaped[np.ndarray, "n h2 w2 c"]:
    """Resize images to (H, W), one by one, within their value range."""
    out = np.empty((len(images), *size, images.shape[3]), dtype=images.dtype)
    for i, image in enumerate(images):
        out[i] = resize(image, size)
    # Rounding in the filter may leave the range by one unit in the last place.
    return np.clip(out, *value_range, out=out) if out.dtype == np.float32 else out
