"""Arrays as people store them become pixels as `LabelledImages` wants them."""

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.checks import DataError, Range
from vaeaug.data.dataset import LAYOUTS, NOUNS
from vaeaug.data.decode import NOTE_ALPHA, apply_alpha, resize, resize_note, to_mode
from vaeaug.data.foreign_arrays import refuse_table
from vaeaug.data.layout import channels_last
from vaeaug.data.request import Request
from vaeaug.data.values import Pixels, normalise_pixels


def finish_pixels(
    array: Shaped[np.ndarray, "..."],
    where: str,
    request: Request,
    *,
    layout: str | None = None,
    value_range: Range | None = None,
) -> Pixels:
    """Settle the axes, values, alpha, mode and size of a whole array.

    Args:
        array: As stored.
        where: The source, for messages.
        request: The options of `read`.
        layout: The axes of `array` by the source, where the request states none; None leaves them
            to `channels_last`.
        value_range: The range by the source.

    Returns:
        The images, shape (N, space..., C), uint8 or float32; their value range; notes.

    Raises:
        DataError: If they are not usable as images.
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
    if images.ndim == 4:
        images = finish_channels(images, request, value_range, layout, notes)
        is_bands = layout is not None and request.alpha != "keep"
        images = resize_all(images, request, value_range, notes, bands=is_bands)
    return images, value_range, tuple(notes)


def finish_channels(
    images: Shaped[np.ndarray, "n h w c"],
    request: Request,
    value_range: Range,
    layout: str | None,
    notes: list[str],
) -> Shaped[np.ndarray, "n h w c2"]:
    """Settle alpha and mode of images that are stored as numbers.

    Four channels are RGBA, unless the axes were stated.

    Args:
        images: uint8 or float32.
        request: The options of `read`.
        value_range: That of the images.
        layout: The axes, where the request or the source states them.
        notes: Notes are appended.

    Returns:
        The images with the channels that were asked for.
    """
    if images.shape[3] == 4 and layout is not None and request.alpha == "composite":
        notes.append(
            f"four channels kept as they are, because layout={layout!r} is stated; alpha='drop' "
            f"drops the fourth"
        )
    elif images.shape[3] == 4:
        note = f"four channels taken as RGBA: {NOTE_ALPHA[request.alpha]}"
        if request.alpha == "composite":
            note += "; if the fourth is a band like the others, pass layout='NHWC' or alpha='keep'"
        notes.append(note)
        low, high = value_range
        images = apply_alpha(images, request.alpha, low=low, high=high)
    return to_mode(images, request.mode, notes)


def check_resizable(samples: Shaped[np.ndarray, "n *space c"], where: str) -> None:
    """Refuse to resize what is not an image.

    Args:
        samples: Shape (N, space..., C).
        where: The source, for the message.

    Raises:
        DataError: If they are signals or volumes.
    """
    layout = LAYOUTS[samples.ndim]
    if layout != "NHWC":
        raise DataError(
            f"{where}: size= resizes images only, expected shape (N, H, W, C), got {NOUNS[layout]} "
            f"of shape {samples.shape}; read them without it"
        )


def check_frames(samples: Shaped[np.ndarray, "n *space c"], where: str, request: Request) -> None:
    """Refuse to cut what is no video or animation to a number of frames.

    Args:
        samples: Shape (N, space..., C).
        where: The source, for the message.
        request: The options of `read`.

    Raises:
        DataError: If frames were asked for and the samples do not have as many.
    """
    if request.frames is not None and (samples.ndim != 5 or samples.shape[1] != request.frames):
        raise DataError(
            f"{where}: frames= (--frames) is for files of video and animations, expected none here "
            f"or samples of {request.frames} frames, got {NOUNS[LAYOUTS[samples.ndim]]} of shape "
            f"{samples.shape[1:]}"
        )


def resize_all(
    images: Shaped[np.ndarray, "n h w c"],
    request: Request,
    value_range: Range,
    notes: list[str],
    *,
    bands: bool,
) -> Shaped[np.ndarray, "n h2 w2 c"]:
    """Resize images of one size, one by one, within their value range, where a size was asked for.

    Args:
        images: uint8 or float32.
        request: The options of `read`.
        value_range: That of the images.
        notes: A note is appended where they were resized.
        bands: As for `decode.resize`.

    Returns:
        The images, of the requested size.
    """
    old, size = images.shape[1:3], request.size
    if size is None or old == size:
        return images
    note = resize_note(old, size, request.resize)
    notes.append(note.replace("resized", f"resized from {old[0]}x{old[1]}", 1))
    resized = np.empty((len(images), *size, images.shape[3]), dtype=images.dtype)
    for i, image in enumerate(images):
        resized[i] = resize(image, size, request.resize, bands=bands)
    if resized.dtype != np.float32:
        return resized
    # Rounding in the filter may leave the range by one unit in the last place.
    return np.clip(resized, *value_range, out=resized)
