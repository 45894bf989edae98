"""Files that hold one sample each, images, sounds or videos, become one array."""

from collections.abc import Sequence

from vaeaug.data.checks import DataError
from vaeaug.data.decode import ENDINGS as IMAGE_ENDINGS
from vaeaug.data.decoded_cache import decoded
from vaeaug.data.formats.audio import ENDINGS as SOUND_ENDINGS
from vaeaug.data.formats.audio import decode_sounds
from vaeaug.data.formats.image_files import decode_images
from vaeaug.data.formats.video import ENDINGS as VIDEO_ENDINGS
from vaeaug.data.formats.video import decode_videos
from vaeaug.data.formats.walk import ending_of
from vaeaug.data.request import Request
from vaeaug.data.stack import Decoded

MEDIA_ENDINGS = (*IMAGE_ENDINGS, *SOUND_ENDINGS, *VIDEO_ENDINGS)
_KINDS = {
    **dict.fromkeys(IMAGE_ENDINGS, "images"),
    **dict.fromkeys(SOUND_ENDINGS, "sounds"),
    **dict.fromkeys(VIDEO_ENDINGS, "videos"),
}
_DECODERS = {"images": decode_images, "sounds": decode_sounds, "videos": decode_videos}


def decode_media(paths: Sequence[str], where: str, request: Request) -> Decoded:
    """Decode files that are all images, all sounds or all videos.

    Args:
        paths: The M files, at least one.
        where: The source, for messages.
        request: The options of `read`.

    Returns:
        Images, signals or clips, and which of the paths they are (all, unless damaged ones are
        skipped).

    Raises:
        DataError: Naming all bad files, or two that do not fit together.
    """
    by_kind: dict[str, list[str]] = {kind: [] for kind in _DECODERS}
    for path in paths:
        # A file of another ending that a table names is taken for an image.
        by_kind[_KINDS.get(ending_of(path), "images")].append(path)
    kind, *others = (kind for kind, files in by_kind.items() if files)
    if others:
        raise DataError(
            f"{where}: expected {kind} or {others[0]}, got both: {by_kind[kind][0]} and "
            f"{by_kind[others[0]][0]}, {len(by_kind[others[0]])} {others[0]} of {len(paths)} files"
        )
    return decoded(paths, where, request, _DECODERS[kind])
