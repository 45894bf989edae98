"""Arrays as people store them become pixels as `LabelledImages` wants them."""

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import LAYOUTS, NOUNS, DataError
from vaeaug.data.decode import NOTE_ALPHA, apply_alpha, resize, resize_note, to_mode
from vaeaug.data.foreign_arrays import refuse_table
from vaeaug.data.layout import channels_last
from vaeaug.data.request import Request
from vaeaug.data.values import Range, normalise_pixels


def finish_pixels(
    array: Shaped[np.ndarray, "..."],
    where: str,
    request: Request,
    *,
    layout: str | None = None,
    value_range: Range | None = None,
) -> tuple[Shaped[np.ndarray, "n *space c"], Range, tuple[str, ...]]:
    """Shape, values, alpha, mode and size of a whole array, for sources that hold one.

    Args:
        array: as stored.
        where: the source, for messages.
        request: what was asked for.
        layout: the axes of `array` as the source states them, where it was not asked for others;
            or None for what `channels_last` takes them for.
        value_range: as the source states it.

    Returns:
        The images, shape (N, space..., C), uint8 or float32; their value range; notes.

    Raises:
        DataError: if they are not usable as images.
    """
    layout = request.layout or layout
    if layout is None and array.ndim == 2:
        refuse_table(array, where)
    images, shape_notes = channels_last(array, where, layout)
    if request.size is not None:
        check_resizable(images, where)
    images, value_range, value_notes = normalise_pixels(
        images, where, request.value_range, value_range
    )
    notes = [*shape_notes, *value_notes]
    if images.ndim != 4:
        return images, value_range, tuple(notes)
    images = finish_channels(images, request, value_range, layout, notes)
    if request.size is not None and images.shape[1:3] != request.size:
        old = images.shape[1:3]
        done = resize_note(old, request.size, request.resize)
        notes.append(done.replace("resized", f"resized from {old[0]}x{old[1]}", 1))
        bands = layout is not None and request.alpha != "keep"
        images = resize_all(images, request.size, value_range, request.resize, bands=bands)
    return images, value_range, tuple(notes)


def finish_channels(
    images: Shaped[np.ndarray, "n h w c"],
    request: Request,
    value_range: Range,
    layout: str | None,
    notes: list[str],
) -> Shaped[np.ndarray, "n h w c2"]:
    """Alpha and mode of images that come as numbers.

    Four channels are RGBA, unless somebody has said what their axes are.

    Args:
        images: uint8 or float32.
        request: what was asked for.
        value_range: of the images.
        layout: the axes, where they were asked for or stated.
        notes: what was done is added here.
    """
    if images.shape[3] == 4 and layout is not None and request.alpha == "composite":
        notes.append(
            f"four channels kept as they are, because layout={layout!r} is stated; alpha='drop' "
            f"drops the fourth"
        )
    elif images.shape[3] == 4:
        note = f"four channels taken as RGBA: {NOTE_ALPHA[request.alpha]}"
        if request.alpha == "composite":
            note += "; if the fourth is a band of its own, say layout='NHWC' or alpha='keep'"
        notes.append(note)
        low, high = value_range
        images = apply_alpha(images, request.alpha, low=low, high=high)
    return to_mode(images, request.mode, notes)


def check_resizable(images: Shaped[np.ndarray, "n *space c"], where: str) -> None:
    """Raise where a size was asked for and these are no images."""
    layout = LAYOUTS[images.ndim]
    if layout != "NHWC":
        raise DataError(
            f"{where}: size= resizes images only, expected shape (N, H, W, C), got {NOUNS[layout]} "
            f"of shape {images.shape}; read them without it"
        )


def resize_all(
    images: Shaped[np.ndarray, "n h w c"],
    size: tuple[int, int],
    value_range: Range,
    fit: str,
    *,
    bands: bool = False,
) -> Shaped[np.ndarray, "n h2 w2 c"]:
    """Resize images to (H, W), one by one, within their value range; see `resize`."""
    out = np.empty((len(images), *size, images.shape[3]), dtype=images.dtype)
    for i, image in enumerate(images):
        out[i] = resize(image, size, fit, bands=bands)
    # Rounding in the filter may leave the range by one unit in the last place.
    return np.clip(out, *value_range, out=out) if out.dtype == np.float32 else out
