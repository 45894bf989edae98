"""Decode one image file to one array, without a silent loss of precision.

This file imports nothing from the package, because decoding workers run it as a script
(`python -P decode.py`): a worker then loads numpy and Pillow only, neither torch nor the user's
main program, whether or not that is guarded by `if __name__ == "__main__"`.
"""

import io
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

ALPHA = ("composite", "drop", "keep")
NOTE_ALPHA = {
    "composite": "transparency composited on white (alpha='composite')",
    "drop": "alpha channel dropped (alpha='drop')",
    "keep": "alpha channel kept as the fourth channel (alpha='keep')",
}
RESIZE = ("crop", "pad", "stretch")
MODES = ("RGB", "L")
_FITTED = {
    "crop": ", edges cut to keep the aspect (resize='crop')",
    "pad": ", padded to keep the aspect (resize='pad')",
    "stretch": ", aspect not kept (resize='stretch')",
}
# The formats that are read, whatever the names of files end in. Formats that can start another
# program (EPS starts Ghostscript), refer to other files, or have no signature are missing.
_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TIFF"),
    "WEBP",
)
# Image files by the endings of their names, in lower case.
ENDINGS = (
    *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif", ".jfif"),
    *(".jpe", ".avif", ".apng", ".pbm", ".pnm", ".pfm", ".dib", ".jp2", ".j2k", ".jpx", ".jpf"),
    *(".pcx", ".qoi", ".sgi"),
)
_EXIF_ORIENTATION = 0x0112
# Frames of an animation that are looked through at most.
_MOST_FRAMES = 10_000
# Frames that an animation may stand for, by their durations.
_MOST_TIMES = 1_000_000
# What viewers take a missing duration for, milliseconds.
_DURATION = 100
_SIXTEEN_BIT_GRAY = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class BadImageError(ValueError):
    """An image cannot be used; the message is complete and names it."""


@dataclass(frozen=True)
class DecodeOptions:
    """How an image is decoded.

    Attributes:
        size: (H, W) in pixels to resize to, or None.
        resize: How another aspect ratio is fitted: "crop", "pad" or "stretch".
        alpha: How transparency is handled: "composite", "drop" or "keep".
        mode: "RGB" or "L", whatever the files are, or None.
        frames: How many frames to read of an animation, which is then a clip; None: the first
            frame alone, as an image.
        frame_step: Every how many frames one is read.
    """

    size: tuple[int, int] | None = None
    resize: str = "crop"
    alpha: str = "composite"
    mode: str | None = None
    frames: int | None = None
    frame_step: int = 1


def decode_file(path: str, options: DecodeOptions) -> tuple[np.ndarray, list[str]]:
    """Decode one image file.

    Args:
        path: The file.
        options: Size, aspect ratio, transparency and mode.

    Returns:
        The image, shape (H, W, C), or clip, shape (T, H, W, C), uint8, uint16 or float32; and the
        notes for the user.

    Raises:
        BadImageError: Naming the file and the reason.
    """
    try:
        n_bytes = Path(path).stat().st_size
    except OSError as error:
        raise BadImageError(f"{path}: expected an image file, got: {error.strerror}") from error
    return _decode(path, path, n_bytes, options)


def decode_bytes(data: bytes, name: str, options: DecodeOptions) -> tuple[np.ndarray, list[str]]:
    """Decode one image file held in memory.

    Args:
        data: The content of the file.
        name: For messages.
        options: As for `decode_file`.

    Returns:
        As `decode_file`.

    Raises:
        BadImageError: As `decode_file`.
    """
    return _decode(io.BytesIO(data), name, len(data), options)


def _decode(
    file: str | io.BytesIO, name: str, n_bytes: int, options: DecodeOptions
) -> tuple[np.ndarray, list[str]]:
    from PIL import Image, UnidentifiedImageError

    if n_bytes == 0:
        raise BadImageError(f"{name}: expected an image file, got an empty file (0 bytes)")
    try:
        with Image.open(file, formats=known_formats()) as image:
            return decode_image(image, name, options)
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError(
            f"{name}: expected a readable image file, got {n_bytes} bytes which cannot be "
            f"decoded: they are none of {', '.join(known_formats())}"
        ) from error
    # Pillow's plug-ins raise whatever their parser ran into (OSError, SyntaxError, struct.error,
    # zlib.error, ...); all of it means that this file is no usable image.
    except Exception as error:
        raise BadImageError(
            f"{name}: expected a readable image file, got {n_bytes} bytes which cannot be "
            f"decoded: {error}"
        ) from error


@lru_cache(maxsize=1)
def known_formats() -> tuple[str, ...]:
    """The formats that are read and that the installed Pillow knows.

    Returns:
        Their names.
    """
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def decode_image(
    image: "Image.Image", name: str, options: DecodeOptions
) -> tuple[np.ndarray, list[str]]:
    """Convert a Pillow image to an array.

    Args:
        image: An image, open or in memory.
        name: For messages.
        options: As for `decode_file`.

    Returns:
        As `decode_file`.

    Raises:
        BadImageError: If Pillow would lose bits or bands, or the values are not gray values.
    """
    if options.frames is not None:
        return _decode_frames(image, name, options, options.frames)
    notes: list[str] = []
    if getattr(image, "is_animated", False):
        notes.append(
            "without frames= (--frames) only the first frame of multi-frame images is read"
        )
    return _decode_frame(image, name, options, notes), notes


def _decode_frames(
    image: "Image.Image", name: str, options: DecodeOptions, frames: int
) -> tuple[np.ndarray, list[str]]:
    """The frames of an animation at equal times, or the pages of a TIFF."""
    durations: list[float] = []
    for index in range(getattr(image, "n_frames", 1)):
        if index >= _MOST_FRAMES:
            raise BadImageError(f"{name}: expected at most {_MOST_FRAMES:,} frames, got more")
        image.seek(index)
        durations.append(float(image.info.get("duration") or _DURATION))
    # Writers join frames that are alike: a frame twice as long stands for two.
    ends, shortest = np.cumsum(durations), min(durations)
    n = round(ends[-1] / shortest)
    notes = []
    if n > _MOST_TIMES:
        ends, shortest, n = np.arange(1.0, len(ends) + 1), 1.0, len(ends)
        notes.append("durations of frames, which differ too much, not used")
    indices, note = frame_indices(n, frames, options.resize, name, options.frame_step)
    notes += [note] if note else []
    times = (np.array(indices) + 0.5) * shortest
    clip: list[np.ndarray] = []
    before = -1
    for index in np.minimum(np.searchsorted(ends, times), len(ends) - 1).tolist():
        if index == before:
            clip.append(clip[-1])
            continue
        image.seek(index)
        clip.append(_decode_frame(image, name, options, notes))
        before = index
    # Pillow gives the first frame of a gray GIF in gray, and later ones in colour.
    widest = max(frame.shape[2] for frame in clip)
    clip = [np.repeat(f, widest, axis=2) if f.shape[2] == 1 else f for f in clip]
    return np.stack(clip), list(dict.fromkeys(notes))


def frame_indices(n: int, frames: int, fit: str, name: str, step: int = 1) -> tuple[list[int], str]:
    """Choose the frames of a clip.

    Args:
        n: Frames that there are, at least 1.
        frames: Frames of the clip.
        fit: "crop" takes those in the middle, "stretch" as many at equal distances from the first
            to the last, "pad" refuses longer ones. After the end the last frame is held.
        name: For the message.
        step: Every how many frames one is taken; 1 with "stretch".

    Returns:
        Their indices in ascending order; and a note for the user, empty where all are taken.

    Raises:
        BadImageError: If the video is longer than "pad" allows.
    """
    taken = list(range(0, n, step))
    if len(taken) == frames:
        return taken, ""
    if fit == "stretch":
        indices = np.rint(np.linspace(0, n - 1, frames)).astype(int).tolist()
        return indices, f"{frames} frames at equal distances (resize='stretch')"
    if len(taken) < frames:
        held = taken + [taken[-1]] * (frames - len(taken))
        return held, f"last frame held up to {frames} frames"
    if fit == "pad":
        raise BadImageError(
            f"{name}: expected at most {frames} frames, because resize='pad' cuts nothing, got "
            f"{len(taken)}; take more frames, or resize='crop' or 'stretch'"
        )
    start = (n - (frames - 1) * step - 1) // 2
    note = f"cut at both ends to {frames} frames (resize='crop')"
    return [start + index * step for index in range(frames)], note


def _decode_frame(
    image: "Image.Image", name: str, options: DecodeOptions, notes: list[str]
) -> np.ndarray:
    from PIL import ImageOps

    _refuse_reduced_depth(image, name)
    _refuse_lost_band(image, name, options.alpha)
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
        notes.append("EXIF orientation applied")
    array = _pixels(image, name, notes)
    if array.shape[2] in (2, 4):
        array = apply_alpha(array, options.alpha, high=255.0)
        notes.append(NOTE_ALPHA[options.alpha])
    return fitted(array, options, notes)


def fitted(array: np.ndarray, options: DecodeOptions, notes: list[str]) -> np.ndarray:
    """Bring one image to the mode and size that the options ask for.

    Args:
        array: Shape (H, W, C).
        options: As for `decode_file`.
        notes: Notes are appended.

    Returns:
        The image, shape (H, W, C).
    """
    array = to_mode(array, options.mode, notes)
    if options.size is not None and array.shape[:2] != options.size:
        notes.append(resize_note(array.shape[:2], options.size, options.resize))
        array = resize(array, options.size, options.resize)
    return array


def to_mode(pixels: np.ndarray, mode: str | None, notes: list[str]) -> np.ndarray:
    """Convert gray to RGB or RGB to gray, where the mode asks for it.

    Args:
        pixels: Shape (..., C).
        mode: "RGB", "L" or None.
        notes: A note is appended where something was converted.

    Returns:
        The pixels, shape (..., 3) or (..., 1), or unchanged.
    """
    channels = pixels.shape[-1]
    if mode == "RGB" and channels == 1:
        notes.append("gray images repeated in three channels (mode='RGB')")
        return np.repeat(pixels, 3, axis=-1)
    if mode == "L" and channels == 3:
        notes.append("colour images turned to gray (mode='L')")
        # ITU-R 601-2 luma, as Pillow's convert("L"): for uint8 in the same whole numbers.
        if pixels.dtype == np.uint8:
            whole = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
            return ((whole + 0x8000) >> 16).astype(np.uint8)[..., None]
        luma = pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
        if pixels.dtype.kind in "iu":
            luma = np.rint(luma)
        return luma.astype(pixels.dtype)[..., None]
    return pixels


def apply_alpha(pixels: np.ndarray, alpha: str, *, high: float, low: float = 0.0) -> np.ndarray:
    """Handle the last channel as alpha.

    Args:
        pixels: Shape (..., 2) or (..., 4), the last channel alpha; uint8 or float32.
        alpha: "composite" on white, "drop" or "keep".
        high: The pixel value of white and of full opacity.
        low: The pixel value of black and of full transparency.

    Returns:
        The pixels without alpha; with "keep", four channels.
    """
    colour, opacity = pixels[..., :-1], pixels[..., -1:]
    if alpha == "drop":
        return np.ascontiguousarray(colour)
    if alpha == "keep":
        if pixels.shape[-1] == 4:
            return pixels
        return np.concatenate([np.repeat(colour, 3, axis=-1), opacity], axis=-1)
    if pixels.dtype == np.uint8:
        # Whole numbers, rounded to nearest: the same on every machine.
        weight = opacity.astype(np.uint32)
        return ((colour * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
    opacity = (opacity - low) / (high - low)
    return (colour * opacity + high * (1 - opacity)).astype(pixels.dtype)


def resize(
    pixels: np.ndarray, size: tuple[int, int], fit: str, *, bands: bool = False
) -> np.ndarray:
    """Resize one image: bilinear, antialiased when shrinking.

    Args:
        pixels: Shape (H, W, C).
        size: The new (H, W) in pixels.
        fit: How another aspect ratio is fitted: "crop" cuts the longer side at both edges, "pad"
            fills the shorter side with black (float: the image's lowest value), "stretch" distorts.
        bands: Whether a fourth channel is one like the others; else it is alpha, which weights
            the colours, so that those under transparent pixels do not bleed.

    Returns:
        The image, shape (*size, C), in the same type.
    """
    if pixels.shape[:2] == size:
        return pixels
    if fit == "pad":
        (top, left), inner = _inner(pixels.shape[:2], size)
        lowest = pixels.min() if pixels.dtype.kind == "f" else 0
        canvas = np.full((*size, pixels.shape[2]), lowest, dtype=pixels.dtype)
        canvas[top : top + inner[0], left : left + inner[1]] = _scaled(pixels, inner, None, bands)
        return canvas
    box = _centre(pixels.shape[:2], size) if fit == "crop" else None
    return _scaled(pixels, size, box, bands)


def resize_note(old: tuple[int, ...], size: tuple[int, int], fit: str) -> str:
    """What `resize` does to an image, for the user.

    Args:
        old: (H, W) before.
        size: (H, W) after.
        fit: As for `resize`.

    Returns:
        The note.
    """
    note = f"resized to {size[0]}x{size[1]}"
    left, top, right, bottom = _centre(old, size)
    share = (right - left) * (bottom - top) / (old[0] * old[1])
    # Less than a pixel of the longer side is rounding.
    return note + (_FITTED[fit] if (1 - share) * max(old) >= 1 else "")


def _centre(old: tuple[int, ...], new: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest centred box of the new aspect ratio: left, top, right, bottom."""
    height, width = old[:2]
    scale = min(height / new[0], width / new[1])
    dy, dx = (height - scale * new[0]) / 2, (width - scale * new[1]) / 2
    return max(dx, 0.0), max(dy, 0.0), min(width - dx, width), min(height - dy, height)


def _inner(old: tuple[int, ...], new: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The (top, left) and (height, width) of the whole old image centred in the new size."""
    scale = min(new[0] / old[0], new[1] / old[1])
    height, width = (max(1, min(n, round(o * scale))) for o, n in zip(old, new, strict=False))
    return ((new[0] - height) // 2, (new[1] - width) // 2), (height, width)


def _scaled(
    pixels: np.ndarray,
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None,
    bands: bool,
) -> np.ndarray:
    from PIL import Image

    to = (size[1], size[0])
    bilinear = Image.Resampling.BILINEAR
    if pixels.dtype == np.uint8 and pixels.shape[2] in ((3,) if bands else (3, 4)):
        return np.asarray(Image.fromarray(pixels).resize(to, bilinear, box))
    as_gray = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(as_gray[..., c])).resize(to, bilinear, box))
        for c in range(pixels.shape[2])
    ]
    resized = np.stack(channels, axis=-1)
    return np.rint(resized).astype(np.uint16) if pixels.dtype == np.uint16 else resized


def _refuse_lost_band(image: "Image.Image", name: str, alpha: str) -> None:
    # A TIFF with a fourth band of unspecified meaning: Pillow silently reads three of them. In BMP
    # the same raw mode is padding.
    if image.format != "TIFF" or alpha == "drop":
        return
    for _, arguments in _tiles(image):
        if "X" in str(arguments[0]):
            raise BadImageError(
                f"{name}: expected gray, RGB or RGBA, got a TIFF with another band, which Pillow "
                f"does not read; pass the data as an .npz or HDF5 array with "
                f"layout='NHWC', or drop the band with alpha='drop'"
            )


def _refuse_reduced_depth(image: "Image.Image", name: str) -> None:
    # Pillow has no 16-bit colour: it would silently read the high bytes.
    if image.mode in (*_SIXTEEN_BIT_GRAY, "F"):
        return
    for codec, arguments in _tiles(image):
        is_deep_ppm = codec == "ppm" and len(arguments) > 1 and int(arguments[1]) > 255
        if ";16" in str(arguments[0]) or is_deep_ppm:
            raise BadImageError(
                f"{name}: expected 8-bit colour or 8- or 16-bit gray, got 16-bit colour, of which "
                f"Pillow reads 8 bits only; convert it to 8 bit, or pass the data as an .npz or "
                f"HDF5 array of uint16"
            )


def _tiles(image: "Image.Image") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The codec of each part of an open image, and its arguments, the first of which is a mode."""
    for tile in getattr(image, "tile", ()):
        yield tile[0], tile[3] if isinstance(tile[3], tuple) else (tile[3],)


def _pixels(image: "Image.Image", name: str, notes: list[str]) -> np.ndarray:
    mode = image.mode
    if mode in _SIXTEEN_BIT_GRAY:
        wide = np.asarray(image)[..., None]
        if wide.min(initial=0) < 0 or wide.max(initial=0) > 65535:
            raise BadImageError(
                f"{name}: expected gray values in 0..65535, got {wide.min()} to {wide.max()} "
                f"(mode {mode})"
            )
        return wide.astype(np.uint16)
    if mode == "F":
        return np.asarray(image, dtype=np.float32)[..., None]
    if mode == "1":
        return np.asarray(image.convert("L"))[..., None]
    if image.has_transparency_data:
        image = image.convert("LA" if mode in ("L", "LA", "La") else "RGBA")
    elif mode == "P":
        image = image.convert("RGB")
    elif mode not in ("L", "RGB"):
        image = image.convert("RGB")
        notes.append(f"{mode} images converted to RGB")
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _serve() -> None:
    """Answer one job read from stdin, writing the images to stdout in the order of its paths.

    Each image is a line of JSON with its shape, dtype and notes, then its bytes; a bad image is a
    line with the error.
    """
    # Ctrl-C reaches the whole process group; the parent alone reports it and ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job: dict[str, Any] = json.load(sys.stdin)
    sys.path[:] = job["sys_path"]
    size = job["options"].pop("size")
    options = DecodeOptions(size=tuple(size) if size else None, **job["options"])
    stdout = sys.stdout.buffer
    for path in job["paths"]:
        try:
            array, notes = decode_file(path, options)
        except BadImageError as error:
            stdout.write(json.dumps({"error": str(error)}).encode() + b"\n")
            continue
        head = {"shape": array.shape, "dtype": array.dtype.str, "notes": notes}
        stdout.write(json.dumps(head).encode() + b"\n" + array.tobytes())
        stdout.flush()
    stdout.flush()


def encode_job(paths: list[str], options: DecodeOptions) -> bytes:
    """The job of a decoding worker.

    Args:
        paths: The files that it decodes.
        options: How.

    Returns:
        What the worker reads from stdin.
    """
    job = {"paths": paths, "options": asdict(options), "sys_path": sys.path}
    return json.dumps(job).encode()


if __name__ == "__main__":
    _serve()
