"""The axes of an array as stored become (N, space..., C)."""

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.checks import DataError
from vaeaug.data.dataset import LAYOUTS, NOUNS

IMAGE_CHANNELS = (1, 3, 4)
_ELONGATED = 16


def channels_last(
    array: Shaped[np.ndarray, "n *axes"], where: str, layout: str | None = None
) -> tuple[Shaped[np.ndarray, "n *space c"], tuple[str, ...]]:
    """Bring an array to (N, L, C), (N, H, W, C) or (N, D, H, W, C).

    Without a layout the rank decides: (N, L) is signals of one channel, (N, H, W) gray images,
    (N, H, W, C) or (N, C, H, W) images with C of 1, 3 or 4, (N, D, H, W, C) or (N, C, D, H, W)
    volumes. Channels are taken to be first only where the last axis cannot be theirs.

    Args:
        array: Values of any type, shape (N, ...).
        where: The source, for messages.
        layout: The axes of `array`, one of `STORED_LAYOUTS`, with any number of channels; or None.

    Returns:
        The array, C-contiguous; notes on how the axes were interpreted.

    Raises:
        DataError: If the shape does not fit the layout, or no layout fits the shape.
    """
    axes, notes = (layout, ()) if layout else _guess(array, where)
    if array.ndim != len(axes):
        names = ", ".join(axes)
        raise DataError(
            f"{where}: expected shape ({names}) by layout={axes!r}, got shape {array.shape}"
        )
    array = move_channels(array, axes)
    if not layout and array.ndim == 4 and array.shape[3] not in IMAGE_CHANNELS:
        raise _no_layout(array, where)
    if 0 in array.shape:
        noun = NOUNS[LAYOUTS[array.ndim]].removesuffix("s")
        least = "x".join("1" * (array.ndim - 2))
        raise DataError(
            f"{where}: expected at least one {noun} of at least {least} pixel, got shape "
            f"{array.shape}"
        )
    return np.ascontiguousarray(array), notes


def move_channels(
    array: Shaped[np.ndarray, "n *axes"], layout: str
) -> Shaped[np.ndarray, "n *space c"]:
    """Move the channels to the last axis.

    Args:
        array: Values of any type.
        layout: Its axes, one of `STORED_LAYOUTS`.

    Returns:
        A view, with an axis of one channel where the layout has none.
    """
    if layout == "NF":
        return array[:, None, :]
    if layout.startswith("NC"):
        return np.moveaxis(array, 1, -1)
    return array if layout.endswith("C") else array[..., None]


def _guess(array: Shaped[np.ndarray, "n *axes"], where: str) -> tuple[str, tuple[str, ...]]:
    shape = array.shape
    if array.ndim == 2:
        return "NL", (
            f"shape {shape} taken as (N, L), signals of one channel; rows of a table, whose "
            f"columns have no order, are for vaeaug.VAEOverSampler; pass layout='NF' for the "
            f"features of a network",
        )
    if array.ndim == 3 and 1 in shape[1:]:
        # Nobody has images of one row or column; (N, 1, L) is how torch keeps signals.
        axes = "NCL" if shape[1] == 1 else "NLC"
        return axes, (f"shape {shape} taken as ({', '.join(axes)}), signals of one channel",)
    if array.ndim == 3:
        return "NHW", _note_elongated(shape)
    if array.ndim not in (4, 5):
        raise _no_layout(array, where)
    axes = LAYOUTS[array.ndim]
    likely_last = IMAGE_CHANNELS if array.ndim == 4 else (1, 2, 3, 4)
    if shape[-1] in likely_last or shape[1] not in IMAGE_CHANNELS:
        return axes, ()
    channels_first = "NC" + axes[1:-1]
    old, new = ", ".join(channels_first), ", ".join(axes)
    return channels_first, (f"shape {shape} taken as ({old}) and turned to ({new})",)


def _note_elongated(shape: tuple[int, ...]) -> tuple[str, ...]:
    if max(shape[1:]) < _ELONGATED * min(shape[1:]):
        return ()
    return (
        f"shape {shape} taken as (N, H, W), gray images; pass layout='NCL' or 'NLC' for signals of "
        f"several channels",
    )


def _no_layout(array: Shaped[np.ndarray, "..."], where: str) -> DataError:
    hint = ""
    if array.ndim == 4:
        hint = "; pass layout='NDHW' for volumes of one channel, 'NHWC' for images of any channels"
    return DataError(
        f"{where}: expected images of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1, 3 "
        f"or 4, signals (N, L) or volumes (N, D, H, W, C), got shape {array.shape}{hint}"
    )
