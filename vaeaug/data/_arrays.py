"""Arrays as people store them become pixels and labels as `LabelledImages` wants them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from vaeaug.data._decode import NOTE_ALPHA, apply_alpha, resize
from vaeaug.data._images import DataError, check_finite, extent

_CHANNELS = (1, 3, 4)
_LISTED = 10


def to_nhwc(
    array: Shaped[np.ndarray, "..."], where: str
) -> tuple[Shaped[np.ndarray, "n h w c"], tuple[str, ...]]:
    """Bring (N, H, W), (N, H, W, C) or (N, C, H, W) to (N, H, W, C); returns notes with it.

    Raises:
        DataError: if the shape is none of these with C of 1, 3 or 4.
    """
    notes: tuple[str, ...] = ()
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and array.shape[3] not in _CHANNELS and array.shape[1] in _CHANNELS:
        notes = (f"shape {array.shape} taken as (N, C, H, W) and turned to (N, H, W, C)",)
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[3] not in _CHANNELS:
        raise DataError(
            f"{where}: expected images of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C of "
            f"1, 3 or 4, got shape {array.shape}"
        )
    if 0 in array.shape:
        raise DataError(
            f"{where}: expected at least one image of at least 1x1 pixel, got shape {array.shape}"
        )
    return np.ascontiguousarray(array), notes


def normalise_pixels(
    images: Shaped[np.ndarray, "n h w c"], where: str
) -> tuple[Shaped[np.ndarray, "n h w c"], tuple[float, float], tuple[str, ...]]:
    """Bring the values to uint8 or float32 and say their range.

    Returns:
        The images; (lowest, highest) value by convention; notes.

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
    if images.dtype == np.uint16:
        note = "16-bit images kept exactly, as float32 with value range (0, 65535)"
        return images.astype(np.float32), (0.0, 65535.0), (note,)
    if kind in "iu":
        return _from_integers(images, where)
    if kind != "f":
        raise DataError(f"{where}: expected integer, bool or float images, got {images.dtype}")
    check_finite(images, where)
    low, high = extent(images)
    ranges = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
    fitting = [(a, b) for a, b in ranges if a <= low and high <= b]
    if not fitting:
        raise DataError(
            f"{where}: float images must be scaled to [0, 1], [-1, 1], [0, 255] or [0, 65535], "
            f"got values from {low:g} to {high:g}; if a transform such as Normalize made them, "
            f"read without it"
        )
    return np.asarray(images, dtype=np.float32), fitting[0], ()


def _from_integers(
    images: Shaped[np.ndarray, "n h w c"], where: str
) -> tuple[Shaped[np.ndarray, "n h w c"], tuple[float, float], tuple[str, ...]]:
    low, high = int(images.min()), int(images.max())
    seen = f"{images.dtype} images with values {low} to {high}"
    if low < 0 or high > 65535:
        raise DataError(
            f"{where}: expected integer images with values in 0..255 or 0..65535, got {seen}"
        )
    if high <= 255:
        return images.astype(np.uint8), (0.0, 255.0), (f"{seen} stored as uint8",)
    note = f"{seen} kept exactly, as float32 with value range (0, 65535)"
    return images.astype(np.float32), (0.0, 65535.0), (note,)


def finish_pixels(
    array: Shaped[np.ndarray, "..."],
    where: str,
    *,
    size: tuple[int, int] | None,
    alpha: str,
) -> tuple[Shaped[np.ndarray, "n h w c"], tuple[float, float], tuple[str, ...]]:
    """Shape, values, alpha and size of a whole array, for sources that hold one.

    Returns:
        The images, shape (N, H, W, C), uint8 or float32; their value range; notes.

    Raises:
        DataError: if they are not usable as images.
    """
    images, shape_notes = to_nhwc(array, where)
    images, value_range, value_notes = normalise_pixels(images, where)
    notes = [*shape_notes, *value_notes]
    if images.shape[3] == 4:
        low, high = value_range
        images = apply_alpha(images, alpha, low=low, high=high)
        notes.append(f"four channels taken as RGBA: {NOTE_ALPHA[alpha]}")
    if size is not None and images.shape[1:3] != size:
        notes.append(f"resized from {images.shape[1]}x{images.shape[2]} to {size[0]}x{size[1]}")
        images = _resize_all(images, size, value_range)
    return images, value_range, tuple(notes)


def _resize_all(
    images: Shaped[np.ndarray, "n h w c"], size: tuple[int, int], value_range: tuple[float, float]
) -> Shaped[np.ndarray, "n h2 w2 c"]:
    out = np.empty((len(images), *size, images.shape[3]), dtype=images.dtype)
    for i, image in enumerate(images):
        out[i] = resize(image, size)
    # Rounding in the filter may leave the range by one unit in the last place.
    return np.clip(out, *value_range, out=out) if out.dtype == np.float32 else out


def normalise_labels(
    raw: Shaped[np.ndarray, "..."],
    where: str,
    *,
    class_names: Sequence[str] | None = None,
    reference: Shaped[np.ndarray, "..."] | None = None,
) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """Bring labels to indices 0..K-1 with names.

    Args:
        raw: shape (N,) or (N, 1): integers, bools, floats that are whole numbers, or strings.
        where: the source, for messages.
        class_names: the names, if known; classes without an image are then fine.
        reference: the training split's labels where `raw` is another split's: they say which
            classes there are.

    Returns:
        Labels, shape (N,), int64; the K class names.

    Raises:
        DataError: if they are multi-label, out of range, or leave a gap.
    """
    values = _vector(raw, where)
    known = None if reference is None else _vector(reference, f"{where} (training split)")
    if values.dtype.kind in "SUO":
        return _from_names(_texts(values, where), where, class_names, known)
    labels = _whole(values, where)
    if labels.size and labels.min() < 0:
        i = int(np.argmax(labels < 0))
        raise DataError(f"{where}: expected labels of at least 0, got {labels[i]} at index {i}")
    if class_names is not None:
        n_classes = len(class_names)
        _check_top(labels, n_classes, where, f"{n_classes} class names")
        return labels, tuple(class_names)
    if known is None:
        present = np.unique(labels)
        n_classes = int(labels.max(initial=-1)) + 1
    else:
        present = np.unique(_whole(known, f"{where} (training split)"))
        n_classes = int(present.max(initial=-1)) + 1
        _check_top(labels, n_classes, where, "the labels of the training split")
    if len(present) != n_classes:
        _raise_gap(present, n_classes, where)
    return labels, tuple(str(c) for c in range(n_classes))


def _vector(raw: Shaped[np.ndarray, "..."], where: str) -> Shaped[np.ndarray, " n"]:
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim != 1:
        raise DataError(
            f"{where}: expected one label for each image, shape (N,) or (N, 1), got shape "
            f"{raw.shape}; multi-label and one-hot labels are not read"
        )
    return raw


def _whole(values: Shaped[np.ndarray, " n"], where: str) -> Int64[np.ndarray, " n"]:
    if values.dtype.kind == "f":
        # Above 2**53 every float is whole, and above 2**63 none fits an index.
        whole = (values == np.rint(values)) & (np.abs(values) < 2**53)
        bad = np.flatnonzero(~whole)
        if bad.size:
            raise DataError(
                f"{where}: expected whole numbers as labels, got {values[bad[0]]} at index "
                f"{bad[0]} ({bad.size} labels are not whole)"
            )
    elif values.dtype.kind not in "iub":
        raise DataError(f"{where}: expected integer or string labels, got {values.dtype}")
    elif values.dtype == np.uint64 and values.max(initial=0) > np.iinfo(np.int64).max:
        raise DataError(f"{where}: expected labels that number the classes, got {values.max()}")
    return values.astype(np.int64)


def _texts(values: Shaped[np.ndarray, " n"], where: str) -> list[str]:
    items: list[Any] = values.tolist()
    try:
        texts = [item.decode() if isinstance(item, bytes) else item for item in items]
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: expected labels as UTF-8 text, got {error.object!r}") from error
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"{where}: expected integer or string labels, got {type(text).__name__} "
                f"at index {i}"
            )
    return texts


def _from_names(
    texts: list[str],
    where: str,
    class_names: Sequence[str] | None,
    known: Shaped[np.ndarray, " m"] | None,
) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    if class_names is None:
        class_names = sorted(set(texts if known is None else _texts(known, where)))
    index = {name: c for c, name in enumerate(class_names)}
    for i, text in enumerate(texts):
        if text not in index:
            raise DataError(
                f"{where}: expected one of the class names {_listed(class_names)}, got {text!r} "
                f"at index {i}"
            )
    return np.array([index[text] for text in texts], dtype=np.int64), tuple(class_names)


def _check_top(labels: Int64[np.ndarray, " n"], n_classes: int, where: str, by: str) -> None:
    bad = np.flatnonzero(labels >= n_classes)
    if bad.size:
        raise DataError(
            f"{where}: expected labels in 0..{n_classes - 1} (by {by}), got {labels[bad[0]]} at "
            f"index {bad[0]} ({bad.size} labels out of range)"
        )


def _raise_gap(present: Int64[np.ndarray, " p"], n_classes: int, where: str) -> None:
    missing: list[int] = []
    expected = 0
    for label in present.tolist():
        # A label may be huge by mistake: list the first missing ones, never the whole range.
        missing.extend(range(expected, min(label, expected + _LISTED + 1)))
        expected = label + 1
    raise DataError(
        f"{where}: expected labels 0..{n_classes - 1} without gaps, got no image with label "
        f"{_listed(missing)}; number the classes from 0 without gaps, or pass class_names= with "
        f"all {n_classes} names if a class may be empty"
    )


def _listed(items: Sequence[object]) -> str:
    shown = ", ".join(repr(item) for item in items[:_LISTED])
    return shown + (", ..." if len(items) > _LISTED else "")
