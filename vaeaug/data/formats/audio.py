"""Sound files become signals of one length and rate; needs the extra ``vaeaug[audio]``."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from vaeaug.data.checks import DataError
from vaeaug.data.formats.extras import import_extra
from vaeaug.data.request import FASTEST, Request
from vaeaug.data.stack import Decoded, Stack

ENDINGS = (".wav", ".flac", ".ogg", ".aif", ".aiff", ".mp3")
_BLOCK = 2**16
# Values of a sound at most: twenty minutes of 48 kHz, which memory surely holds.
_MOST = 2**26
# In the library's log of a WAV or AIFF file; who wrote a stream did not know its length.
_CUT_SHORT = re.compile(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", re.M)
_UNKNOWN = 2**32 - 1
# Of the samples, whatever their bits.
_FULL_SCALE = (-1.0, 1.0)


def decode_sounds(paths: Sequence[str], where: str, request: Request) -> Decoded:
    """Decode sound files, and bring them to one sample rate and length.

    Args:
        paths: The M files, at least one.
        where: The source, for messages.
        request: A size is a number of samples. Longer files are cut at both ends (resize="crop")
            or refused ("pad"), shorter ones are filled up with silence at their end. Files of
            another rate than `sample_rate` are resampled to it first.

    Returns:
        The signals, shape (N, L, C), float32, full scale -1 to 1.

    Raises:
        DataError: Naming all bad files, or two of different sample rates, channels or lengths.
    """
    library = import_extra("soundfile", "audio", where, "sound files")
    length = _length(request, where)
    stack = Stack(len(paths), where, request.on_error, "signal", folder=request.room)
    first: tuple[int, str] | None = None
    for path in paths:
        try:
            signal, rate = _decode(library, path)
            wanted = request.sample_rate or rate
            resampled = wanted != rate
            if resampled:
                signal, rate = _resampled(signal, rate, wanted), wanted
        # The library's own errors, and what its callbacks run into.
        except (library.SoundFileError, OSError, EOFError, RuntimeError) as error:
            stack.leave_out(f"{path}: expected a readable sound file, got: {error}")
            continue
        first = first or (rate, path)
        if rate != first[0]:
            raise DataError(
                f"{where}: expected sounds of one sample rate, got {first[0]} Hz of {first[1]} and "
                f"{rate} Hz of {path}; sample_rate= (--sample-rate {min(rate, first[0])}) "
                "resamples them to one"
            )
        if not stack.is_failing:
            signal, notes = _fit_length(signal, length, request.resize, path)
            stack.add(signal, path, [*([f"resampled to {rate} Hz"] if resampled else []), *notes])
    decoded = stack.finish()
    rate = 0 if first is None else first[0]
    return replace(
        decoded,
        notes=(f"sounds of {rate} Hz", *decoded.notes),
        value_range=_FULL_SCALE,
        sample_rate=rate or None,
    )


def _decode(library: Any, path: str) -> tuple[Float32[np.ndarray, "l c"], int]:
    """The samples of a file and their rate in Hz; EOFError where it is cut short or endless."""
    blocks: list[np.ndarray] = []
    n = 0
    with open(path, "rb") as file, library.SoundFile(file) as sound:
        # In blocks: the length that a damaged file declares may exceed any memory.
        while not blocks or len(blocks[-1]) == _BLOCK:
            blocks.append(sound.read(_BLOCK, dtype="float32", always_2d=True))
            n += len(blocks[-1])
            if n * sound.channels > _MOST:
                raise EOFError(f"more than {_MOST} values in one sound; cut it first")
        expected, rate = sound.frames, sound.samplerate
        cut = _CUT_SHORT.search(sound.extra_info)
    if n != expected or n == 0:
        raise EOFError(f"{n} of {expected} declared samples; it is cut short or damaged")
    # The library takes the remaining bytes for all of them.
    if cut and int(cut[1]) > int(cut[2]) and int(cut[1]) != _UNKNOWN:
        raise EOFError(f"{cut[2]} of {cut[1]} declared bytes of sound; it is cut short")
    return np.concatenate(blocks), rate


def _resampled(
    signal: Float32[np.ndarray, "l c"], rate: int, wanted: int
) -> Float32[np.ndarray, "l2 c"]:
    """The signal at another rate, by a polyphase filter; an overshoot of full scale is clipped."""
    from scipy.signal import resample_poly

    if rate > FASTEST or len(signal) * signal.shape[1] * wanted > _MOST * rate:
        raise EOFError(f"{len(signal)} samples of {rate} Hz, too many at {wanted} Hz; cut it first")
    common = math.gcd(rate, wanted)
    moved = resample_poly(signal, wanted // common, rate // common, axis=0)
    return moved.astype(np.float32).clip(*_FULL_SCALE)


def _length(request: Request, where: str) -> int | None:
    if request.size is None:
        return None
    if request.size[0] != request.size[1] or request.resize == "stretch":
        raise DataError(
            f"{where}: expected size= as one number of samples and resize='crop' or 'pad' for "
            f"sounds, which are not stretched, got size={request.size}, "
            f"resize={request.resize!r}"
        )
    return request.size[0]


def _fit_length(
    signal: Float32[np.ndarray, "l c"], length: int | None, fit: str, path: str
) -> tuple[Float32[np.ndarray, "l2 c"], list[str]]:
    """The signal cut or filled up to the length, and notes."""
    if length is None or len(signal) == length:
        return signal, []
    if len(signal) < length:
        padded = np.pad(signal, ((0, length - len(signal)), (0, 0)))
        return padded, [f"filled up with silence to {length} samples"]
    if fit == "pad":
        raise DataError(
            f"{path}: expected at most {length} samples, because resize='pad' cuts nothing, got "
            f"{len(signal)}; take a larger size, or resize='crop'"
        )
    start = (len(signal) - length) // 2
    note = f"cut at both ends to {length} samples (resize='crop')"
    return signal[start : start + length], [note]
