"""Sound files become signals of one length; needs the extra ``vaeaug[audio]``."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from vaeaug.data.dataset import DataError
from vaeaug.data.request import Request
from vaeaug.data.stack import Faults, Stack

ENDINGS = (".wav", ".flac", ".ogg", ".aif", ".aiff", ".mp3")
_BLOCK = 2**16
# Twenty minutes of 48 kHz; far more than is learned from, and what memory surely holds.
_MOST = 2**26
# In the library's log of a WAV or AIFF file; a stream has not known how long it would be.
_CUT_SHORT = re.compile(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", re.M)
_UNKNOWN = 2**32 - 1
# Full scale of the samples, whatever their bits.
VALUE_RANGE = (-1.0, 1.0)


def read_sounds(
    paths: Sequence[str], where: str, request: Request
) -> tuple[Float32[np.ndarray, "n l c"], Bool[np.ndarray, " m"], tuple[str, ...]]:
    """Decode sound files of one sample rate; shorter and longer ones fitted to `request.size`.

    Args:
        paths: the M files, at least one.
        where: the source, for messages.
        request: a size is a number of samples. Longer files are cut at both ends (resize="crop")
            or refused ("pad"), shorter ones filled up with silence at their end.

    Returns:
        The signals, shape (N, L, C), full scale -1 to 1; which of the paths they are; notes.

    Raises:
        DataError: naming all bad files, or two of different sample rates, channels or lengths.
    """
    library = _library(where)
    length = _length(request, where)
    stack, faults = Stack(len(paths), where, "signal"), Faults(where, request.on_error)
    kept = np.ones(len(paths), dtype=np.bool_)
    first: tuple[int, str] | None = None
    for i, path in enumerate(paths):
        try:
            signal, rate = _decoded(library, path)
        # The library's own errors, and what its callbacks run into.
        except (library.SoundFileError, OSError, EOFError, RuntimeError) as error:
            faults.add(f"{path}: expected a readable sound file, got: {error}")
            stack.leave_out()
            kept[i] = False
            continue
        first = first or (rate, path)
        if rate != first[0]:
            raise DataError(
                f"{where}: expected sounds of one sample rate, got {first[0]} Hz of {first[1]} and "
                f"{rate} Hz of {path}; resample them to one first"
            )
        if not len(faults) or request.on_error == "skip":
            notes: list[str] = []
            stack.add(_fitted(signal, length, request.resize, path, notes), path, notes)
    left_out = faults.settle(len(paths))
    signals, notes_of_all = stack.finish()
    rate = 0 if first is None else first[0]
    return signals, kept, (f"sounds of {rate} Hz", *left_out, *notes_of_all)


def _decoded(library: Any, path: str) -> tuple[Float32[np.ndarray, "l c"], int]:
    """The samples of a file and their rate.

    Raises:
        EOFError: if there are none, fewer than the file says, or more than a sound has.
    """
    blocks: list[np.ndarray] = []
    n = 0
    with open(path, "rb") as file, library.SoundFile(file) as sound:
        # In blocks: what a damaged file says of its length may be more than any memory.
        while not blocks or len(blocks[-1]) == _BLOCK:
            blocks.append(sound.read(_BLOCK, dtype="float32", always_2d=True))
            n += len(blocks[-1])
            if n * sound.channels > _MOST:
                raise EOFError(f"more than {_MOST} values in one sound; cut it first")
        expected, rate = sound.frames, sound.samplerate
        cut = _CUT_SHORT.search(sound.extra_info)
    if n != expected or n == 0:
        raise EOFError(f"{n} samples where the file says {expected}; it is cut short or damaged")
    # The library takes what is there for what there was.
    if cut and int(cut[1]) > int(cut[2]) and int(cut[1]) != _UNKNOWN:
        raise EOFError(f"{cut[2]} bytes of sound where the file says {cut[1]}; it is cut short")
    return np.concatenate(blocks), rate


def _library(where: str) -> Any:
    try:
        import soundfile
    except ImportError:
        raise DataError(
            f"{where}: sound files need the library soundfile: pip install 'vaeaug[audio]'"
        ) from None
    return soundfile


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


def _fitted(
    signal: Float32[np.ndarray, "l c"], length: int | None, fit: str, path: str, notes: list[str]
) -> Float32[np.ndarray, "l2 c"]:
    if length is None or len(signal) == length:
        return signal
    if len(signal) < length:
        notes.append(f"filled up with silence to {length} samples")
        return np.pad(signal, ((0, length - len(signal)), (0, 0)))
    if fit == "pad":
        raise DataError(
            f"{path}: expected at most {length} samples, because resize='pad' cuts nothing, got "
            f"{len(signal)}; take a larger size, or resize='crop'"
        )
    notes.append(f"cut at both ends to {length} samples (resize='crop')")
    start = (len(signal) - length) // 2
    return signal[start : start + length]
