"""Video files become clips of one length; OpenCV decodes them in a separate process."""

import contextlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import UInt8

from vaeaug.data.checks import DataError
from vaeaug.data.decode import BadImageError, DecodeOptions, fitted, frame_indices
from vaeaug.data.formats import video_child
from vaeaug.data.request import Request
from vaeaug.data.stack import Decoded, Stack
from vaeaug.memory import array_bytes, require_memory

ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
# A clip whose length is not stated has at most as many frames as a volume may have slices.
MAX_FRAMES = 128
# Time limit of decoding one file.
SECONDS = 120.0
# By the first bytes of a file: playlists, which name other files, are none of these.
_SIGNATURES = "MP4, MOV, AVI, Matroska or WebM"
# A file that has so much less than it declares is cut short; less is rounding of its writer.
_MISSING_SHARE, _MISSING_FRAMES = 0.05, 2


def decode_videos(paths: Sequence[str], where: str, request: Request) -> Decoded:
    """Decode video files to clips of one length and size.

    Args:
        paths: The M files, at least one.
        where: The source, for messages.
        request: `frames` of each file are read, all where it is None; frames are resized as images
            are.

    Returns:
        The clips, shape (N, T, H, W, C), uint8.

    Raises:
        DataError: Naming all bad files, or two of different lengths or sizes.
    """
    stack = Stack(len(paths), where, request.on_error, "clip", folder=request.room)
    rates: Counter[float] = Counter()
    with _Decoder() as decoder:
        for path in paths:
            try:
                clip, rate, notes = decoder.clip(path, request.decoding)
            except BadImageError as error:
                stack.leave_out(error)
                continue
            rates[round(rate, 2)] += 1
            stack.add(clip, path, notes)
    decoded = stack.finish()
    note = "clips of " + ", ".join(f"{rate:g} ({n})" for rate, n in sorted(rates.items()))
    note += " frames per second"
    if len(rates) > 1:
        note += ": the same motion differs between them; convert them to one rate if it matters"
    return replace(decoded, notes=(note, *decoded.notes))


class _Decoder:
    """The process that decodes, which is started anew after a file that ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "_Decoder":
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def clip(
        self, path: str, options: DecodeOptions
    ) -> tuple[UInt8[np.ndarray, "t h w c"], float, list[str]]:
        """The clip of a file, its frames per second, and notes."""
        _check_signature(path)
        try:
            with self._time_limit():
                return self._clip(path, options)
        except BaseException:
            self._end()  # it may not have said all that it was asked for
            raise

    def _clip(
        self, path: str, options: DecodeOptions
    ) -> tuple[UInt8[np.ndarray, "t h w c"], float, list[str]]:
        head = self._ask(path, open=str(Path(path).absolute()))
        declared = n = int(head["frames"])
        # Some containers do not say how many frames there are.
        clip, notes = (None, []) if n == 0 else self._taken(path, n, options)
        if clip is None:
            n = self._counted(path)
            missing = declared - n
            if n == 0 or missing > max(_MISSING_FRAMES, _MISSING_SHARE * declared):
                raise BadImageError(
                    f"{path}: expected a video of {declared or 'some'} frames, as it declares, "
                    f"got {n} that can be decoded; it is cut short or damaged"
                )
            self._ask(path, open=str(Path(path).absolute()))
            clip, notes = self._taken(path, n, options)
        if clip is None:
            raise BadImageError(f"{path}: expected {n} frames, got fewer when read again")
        return clip, float(head["rate"]), notes

    def _taken(
        self, path: str, n: int, options: DecodeOptions
    ) -> tuple[UInt8[np.ndarray, "t h w c"] | None, list[str]]:
        """The clip of a file of n frames, None where it ends before; and notes."""
        if options.frames is None and n > MAX_FRAMES:
            raise BadImageError(
                f"{path}: expected at most {MAX_FRAMES} frames, got {n}; frames= (--frames), for "
                f"example 16, reads as many of each video, and resize= says which"
            )
        frames = options.frames or n
        indices, note = frame_indices(n, frames, options.resize, path, options.frame_step)
        notes = [note] if note else []
        self._send(take=indices)
        taken: dict[int, np.ndarray] = {}
        for index in dict.fromkeys(indices):
            head = self._receive(path)
            if "ended" in head:
                return None, []
            frame = np.empty(head["shape"], np.uint8)
            if self._out.readinto(frame.reshape(-1).data) != frame.nbytes:
                raise self._ended(path)
            taken[index] = fitted(frame, options, notes)
            if len(taken) == 1:
                shape = (len(indices), *taken[index].shape)
                require_memory(
                    array_bytes(shape, np.dtype(np.uint8)), path, f"a clip of {shape}", DataError
                )
            if taken[index].shape != next(iter(taken.values())).shape:
                raise BadImageError(f"{path}: expected frames of one size, got several")
        return np.stack([taken[index] for index in indices]), list(dict.fromkeys(notes))

    def _counted(self, path: str) -> int:
        """How many frames can be decoded."""
        self._ask(path, open=str(Path(path).absolute()))
        return int(self._ask(path, take=[2**62])["ended"])

    # -- The other process ---------------------------------------------------------------------

    @property
    def _out(self) -> Any:
        assert self._process is not None
        return self._process.stdout

    def _ask(self, path: str, **question: Any) -> dict[str, Any]:
        self._send(**question)
        return self._receive(path)

    def _send(self, **question: Any) -> None:
        if self._process is None:
            if not sys.executable:
                raise DataError(
                    "video files are read by a separate process, but there is no Python program to "
                    "start (sys.executable is empty)"
                )
            # -P keeps this package's folder off the import path of the script.
            command = [sys.executable, "-P", str(Path(video_child.__file__))]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._write(sys.path)
        self._write(question)

    def _write(self, content: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # Where it has ended already, reading its answer says so.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(content).encode() + b"\n")
            self._process.stdin.flush()

    def _receive(self, path: str) -> dict[str, Any]:
        line = self._out.readline()
        if not line.endswith(b"\n"):
            raise self._ended(path)
        answer = cast(dict[str, Any], json.loads(line))
        if "missing" in answer:
            raise DataError(
                f"{path}: video files need OpenCV: pip install opencv-python-headless "
                f"({answer['missing']})"
            )
        if "error" in answer:
            raise BadImageError(f"{path}: expected a readable video, got: {answer['error']}")
        return answer

    def _ended(self, path: str) -> BadImageError:
        assert self._process is not None
        code = self._process.wait()
        self._end()
        return BadImageError(
            f"{path}: expected a readable video, got one that ended the process reading it, or "
            f"kept it busy for {SECONDS:.0f} seconds (exit code {code})"
        )

    @contextmanager
    def _time_limit(self) -> Iterator[None]:
        def end() -> None:
            if self._process is not None:
                self._process.kill()

        timer = threading.Timer(SECONDS, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()
        self._process = None


def _check_signature(path: str) -> None:
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise BadImageError(f"{path}: expected a video file, got: {error.strerror}") from error
    is_known = (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head[:4] == b"\x1a\x45\xdf\xa3"
    )
    if not is_known:
        raise BadImageError(
            f"{path}: expected a video file of {_SIGNATURES}, got "
            f"{Path(path).stat().st_size} bytes that are none of these"
        )
