"""Files that hold one sample each, images or sounds, become one array."""

from collections.abc import Sequence

from vaeaug.data.checks import DataError
from vaeaug.data.decode import ENDINGS as IMAGE_ENDINGS
from vaeaug.data.formats.audio import ENDINGS as SOUND_ENDINGS
from vaeaug.data.formats.audio import decode_sounds
from vaeaug.data.formats.image_files import decode_images
from vaeaug.data.formats.walk import ending_of
from vaeaug.data.request import Request
from vaeaug.data.stack import Decoded

MEDIA_ENDINGS = (*IMAGE_ENDINGS, *SOUND_ENDINGS)


def decode_media(paths: Sequence[str], where: str, request: Request) -> Decoded:
    """Decode files that are all images or all sounds.

    Args:
        paths: The M files, at least one.
        where: The source, for messages.
        request: The options of `read`.

    Returns:
        Images or signals, and which of the paths they are (all, unless damaged ones are skipped).

    Raises:
        DataError: Naming all bad files, or two that do not fit together.
    """
    sounds = [path for path in paths if ending_of(path) in SOUND_ENDINGS]
    if not sounds:
        return decode_images(paths, where, request)
    if len(sounds) < len(paths):
        image = next(path for path in paths if ending_of(path) not in SOUND_ENDINGS)
        raise DataError(
            f"{where}: expected images or sounds, got both: {image} and {sounds[0]}, "
            f"{len(sounds)} sounds of {len(paths)} files"
        )
    return decode_sounds(paths, where, request)
