"""Files that hold one sample each, images or sounds, become one array."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped

from vaeaug.data.dataset import DataError
from vaeaug.data.formats.audio import ENDINGS, VALUE_RANGE, read_sounds
from vaeaug.data.formats.image_files import read_files
from vaeaug.data.formats.walk import ending_of
from vaeaug.data.request import Request
from vaeaug.data.values import Range, normalise_pixels


def read_media(
    paths: Sequence[str], where: str, request: Request
) -> tuple[Shaped[np.ndarray, "n *space c"], Range, Bool[np.ndarray, " m"], tuple[str, ...]]:
    """Decode files that are all images or all sounds.

    Args:
        paths: the M files, at least one.
        where: the source, for messages.
        request: what was asked for.

    Returns:
        Images or signals, uint8 or float32; their value range; which of the paths they are (all,
        unless damaged ones are skipped); notes.

    Raises:
        DataError: naming all bad files, or two that do not fit together.
    """
    sounds = [path for path in paths if ending_of(path) in ENDINGS]
    if not sounds:
        images, kept, notes = read_files(paths, where, request)
        value_range = request.value_range
    elif len(sounds) == len(paths):
        images, kept, notes = read_sounds(paths, where, request)
        value_range = request.value_range or VALUE_RANGE
    else:
        other = next(path for path in paths if ending_of(path) not in ENDINGS)
        raise DataError(
            f"{where}: expected images or sounds, got both: {other} and {sounds[0]}, "
            f"{len(sounds)} sounds of {len(paths)} files"
        )
    pixels, found_range, value_notes = normalise_pixels(images, where, value_range)
    return pixels, found_range, kept, (*notes, *value_notes)
