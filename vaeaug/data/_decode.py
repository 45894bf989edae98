"""One image file becomes one array; nothing of its precision is dropped in silence.

This file imports nothing from the package, because decoding workers run it as a script
(`python -P _decode.py`): a worker then loads numpy and Pillow only, neither torch nor the user's
main program, whether or not that is guarded by `if __name__ == "__main__"`.
"""

import io
import json
import signal
import sys
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
_EXIF_ORIENTATION = 0x0112
_SIXTEEN_BIT_GRAY = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class BadImageError(ValueError):
    """An image cannot be used; the message is complete and names it."""


def decode_file(
    path: str, *, size: tuple[int, int] | None, alpha: str
) -> tuple[np.ndarray, list[str]]:
    """Decode one image file.

    Args:
        path: the file.
        size: (H, W) to resize to, or None.
        alpha: what to do with transparency: "composite", "drop" or "keep".

    Returns:
        The image, shape (H, W, C), uint8, uint16 or float32; and the notes for the user.

    Raises:
        BadImageError: naming the file and the reason.
    """
    try:
        n_bytes = Path(path).stat().st_size
    except OSError as error:
        raise BadImageError(f"{path}: expected an image file, got: {error.strerror}") from error
    return _decoded(path, path, n_bytes, size=size, alpha=alpha)


def decode_bytes(
    data: bytes, name: str, *, size: tuple[int, int] | None, alpha: str
) -> tuple[np.ndarray, list[str]]:
    """Decode one image file held in memory, as `decode_file` does; `name` is for messages."""
    return _decoded(io.BytesIO(data), name, len(data), size=size, alpha=alpha)


def _decoded(
    file: str | io.BytesIO, name: str, n_bytes: int, *, size: tuple[int, int] | None, alpha: str
) -> tuple[np.ndarray, list[str]]:
    from PIL import Image

    if n_bytes == 0:
        raise BadImageError(f"{name}: expected an image file, got an empty file (0 bytes)")
    try:
        with Image.open(file) as image:
            return decode_image(image, name, size=size, alpha=alpha)
    except BadImageError:
        raise
    # Pillow's plug-ins raise whatever their parser ran into (OSError, SyntaxError, struct.error,
    # zlib.error, ...); all of it means that this file is no usable image.
    except Exception as error:
        raise BadImageError(
            f"{name}: expected a readable image file, got {n_bytes} bytes which cannot be "
            f"decoded: {error}"
        ) from error


def decode_image(
    image: "Image.Image", name: str, *, size: tuple[int, int] | None, alpha: str
) -> tuple[np.ndarray, list[str]]:
    """Turn a Pillow image into an array, as `decode_file` does; `name` is for messages."""
    from PIL import ImageOps

    notes: list[str] = []
    _refuse_reduced_depth(image, name)
    if getattr(image, "is_animated", False):
        notes.append("only the first frame of multi-frame images is read")
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
        notes.append("EXIF orientation applied")
    array = _pixels(image, name, notes)
    if array.shape[2] in (2, 4):
        array = apply_alpha(array, alpha, high=255.0)
        notes.append(NOTE_ALPHA[alpha])
    if size is not None:
        array = resize(array, size)
    return array, notes


def apply_alpha(pixels: np.ndarray, alpha: str, *, high: float, low: float = 0.0) -> np.ndarray:
    """Handle the last channel as alpha.

    Args:
        pixels: shape (..., 2) or (..., 4), the last channel alpha; uint8 or float32.
        alpha: "composite" on white, "drop" or "keep".
        high: the pixel value of white and of full opacity.
        low: the pixel value of black and of full transparency.

    Returns:
        The pixels without alpha, or, kept, with four channels.
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
        a = opacity.astype(np.uint32)
        return ((colour * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)
    share = (opacity - low) / (high - low)
    return (colour * share + high * (1 - share)).astype(pixels.dtype)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize one image, shape (H, W, C), to size (H, W); bilinear, antialiased when shrinking."""
    from PIL import Image

    if pixels.shape[:2] == size:
        return pixels
    to = (size[1], size[0])
    bilinear = Image.Resampling.BILINEAR
    if pixels.dtype == np.uint8 and pixels.shape[2] in (3, 4):
        # With four channels Pillow weights colour by alpha, so that the colour under transparent
        # pixels does not bleed.
        return np.asarray(Image.fromarray(pixels).resize(to, bilinear))
    as_gray = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(as_gray[..., c])).resize(to, bilinear))
        for c in range(pixels.shape[2])
    ]
    out = np.stack(channels, axis=-1)
    return np.rint(out).astype(np.uint16) if pixels.dtype == np.uint16 else out


def _refuse_reduced_depth(image: "Image.Image", name: str) -> None:
    # Pillow has no 16-bit colour: it would read the high bytes and say nothing.
    if image.mode in (*_SIXTEEN_BIT_GRAY, "F"):
        return
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        raw_mode = str(arguments[0])
        deep_ppm = tile[0] == "ppm" and len(arguments) > 1 and int(arguments[1]) > 255
        if ";16" in raw_mode or deep_ppm:
            raise BadImageError(
                f"{name}: expected 8-bit colour or 8- or 16-bit gray, got 16-bit colour, of which "
                f"Pillow reads 8 bits only; convert it to 8 bit, or pass the data as an .npz or "
                f"HDF5 array of uint16"
            )


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
    line with the error, and ends the job.
    """
    # Ctrl-C reaches the whole process group; the parent alone reports it and ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job: dict[str, Any] = json.load(sys.stdin)
    sys.path[:] = job["sys_path"]
    size = tuple(job["size"]) if job["size"] else None
    out = sys.stdout.buffer
    for path in job["paths"]:
        try:
            array, notes = decode_file(path, size=size, alpha=job["alpha"])
        except BadImageError as error:
            out.write(json.dumps({"error": str(error)}).encode() + b"\n")
            break
        head = {"shape": array.shape, "dtype": array.dtype.str, "notes": notes}
        out.write(json.dumps(head).encode() + b"\n" + array.tobytes())
        out.flush()
    out.flush()


if __name__ == "__main__":
    _serve()
