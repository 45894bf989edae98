"""Sound files become signals of one length; needs the extra ``vaeaug[audio]``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from vaeaug.data._images import DataError
from vaeaug.data._request import Request
from vaeaug.data._stack import Faults, Stack
from vaeaug.memory import require_memory

ENDINGS = (".wav", ".flac", ".ogg", ".aif", ".aiff", ".mp3")
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
            with open(path, "rb") as file:
                # A damaged head may declare hours, for which the library would take the memory.
                about = library.info(file)
                n_bytes = 4 * about.frames * about.channels
                what = f"{about.frames:,} samples of {about.channels} channels"
                require_memory(n_bytes, str(path), what, DataError)
                file.seek(0)
                signal, rate = library.read(file, dtype="float32", always_2d=True)
            if not len(signal):
                raise EOFError("no samples in it")  # noqa: TRY301 - told as the library's errors
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
