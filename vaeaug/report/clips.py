"""Animated GIFs of clips and volumes, limited in bytes: frames, or slices, one after the other."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeaug.files import publish

if TYPE_CHECKING:
    from PIL import Image

# How long a frame is shown, milliseconds. GIF counts in hundredths of a second.
DURATION = 80
MAX_BYTES = 4 * 2**20
_MAX_FRAMES = 32
_MAX_PIXELS = 16 * 2**20  # of all frames together
_COLOURS = 256


def are_clips(image_shape: Sequence[int]) -> bool:
    """Tell whether samples have a first axis that can be shown as time.

    Args:
        image_shape: Shape of one sample, (space..., channels).

    Returns:
        True for three axes and channels.
    """
    return len(image_shape) == 4


def shown_frames(n: int) -> list[int]:
    """Choose the frames or slices of a picture.

    Args:
        n: Frames of a sample.

    Returns:
        All of them, or some at equal distances.
    """
    return np.unique(np.linspace(0, n - 1, min(n, _MAX_FRAMES)).round().astype(int)).tolist()


def gif_bytes(
    frames: Sequence["Image.Image"], *, max_bytes: int | None = None, duration: int = DURATION
) -> bytes:
    """Encode pictures of one size as an animation that repeats for ever.

    Gray pictures are kept exactly, as long as they are not reduced. Those in colour share 256
    colours, without dithering, which would flicker.

    Args:
        frames: At least one picture, in gray (L) or colour (RGB).
        max_bytes: Pictures are reduced until the file is no larger; None: no limit.
        duration: How long each is shown, milliseconds.

    Returns:
        Content of the file.
    """
    if max_bytes is not None:
        pixels = len(frames) * frames[0].width * frames[0].height
        if pixels > _MAX_PIXELS:
            frames = _reduced(frames, (_MAX_PIXELS / pixels) ** 0.5)
    while True:
        first, *others = _in_one_palette(frames)
        file = io.BytesIO()
        first.save(
            file,
            "GIF",
            save_all=True,
            append_images=others,
            duration=duration,
            loop=0,
            optimize=False,
        )
        content = file.getvalue()
        if max_bytes is None or len(content) <= max_bytes or max(frames[0].size) <= 1:
            return content
        frames = _reduced(frames, 0.75)


def write_gif(path: Path, frames: Sequence["Image.Image"]) -> None:
    """Write `gif_bytes` of at most `MAX_BYTES`, whole or not at all.

    Args:
        path: The file.
        frames: As for `gif_bytes`.
    """
    publish(path, gif_bytes(frames, max_bytes=MAX_BYTES))


def _reduced(frames: Sequence["Image.Image"], factor: float) -> list["Image.Image"]:
    from PIL import Image

    width, height = (max(1, int(n * factor)) for n in frames[0].size)
    return [frame.resize((width, height), Image.Resampling.BOX) for frame in frames]


def _in_one_palette(frames: Sequence["Image.Image"]) -> list["Image.Image"]:
    from PIL import Image

    if frames[0].mode == "L":
        return list(frames)
    width, height = frames[0].size
    column = Image.new("RGB", (width, height * len(frames)))
    for number, frame in enumerate(frames):
        column.paste(frame, (0, number * height))
    column = column.quantize(_COLOURS, dither=Image.Dither.NONE)
    return [
        column.crop((0, number * height, width, (number + 1) * height))
        for number in range(len(frames))
    ]
