"""A foreign HDF5 file, read by another process that may hang or crash without harm."""

import contextlib
import json
import logging
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.checks import DataError, data_errors
from vaeaug.data.formats import hdf5_child
from vaeaug.mapping import MOST_PACKED, exceeds_room, mapped, room_for
from vaeaug.memory import array_bytes, available_memory, require_memory

log = logging.getLogger("vaeaug")

# Seconds of the processor that each answer may take, and each part of an array of some megabytes,
# and how many times as long it may take in all, on a busy machine or from a slow disk.
SECONDS = 8.0
PATIENCE = 8
# Added for a part: bytes per second of the slowest disk and decompression.
_SLOWEST = 2**24
# Time limit of loading Python and the library, which may lie on a slow disk too.
_START_SECONDS = 120.0
# Importing one of these registers its filters for HDF5.
_PLUGINS = ("hdf5plugin",)
_PIPE_BYTES = 2**20


class ForeignHDF5:
    """One HDF5 file; a context manager, to be entered before anything is asked.

    Args:
        path: The file.

    Raises:
        DataError: From every method: naming the file, where it is damaged, or holds something that
            is not read, or keeps the library busy for more than `SECONDS`, or lies on a disk that
            does not answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._where = str(path)

    def __enter__(self) -> "ForeignHDF5":
        if not sys.executable:
            raise DataError(
                f"{self._where}: an HDF5 file is read by a separate process, but there is no "
                f"Python program to start (sys.executable is empty)"
            )
        # -P keeps this package's folder off the import path of the script.
        command = [sys.executable, "-P", str(Path(hdf5_child.__file__))]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            bufsize=0,
            pipesize=_PIPE_BYTES,
        )
        self._buffer = bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        job = {
            "path": self._where,
            "sys_path": sys.path,
            "memory": available_memory(),
            "plugins": [name for name in _PLUGINS if name in sys.modules],
        }
        try:
            self._send(job)
            self._receive("starting", _START_SECONDS)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def names(self) -> dict[str, str]:
        """List the file.

        Returns:
            For the name of every link "group", "dataset" or "other" (no hard link to either).
        """
        return dict(self._ask("names"))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a dataset, all of which lies in this file.

        Args:
            name: Its name.

        Returns:
            The length of each axis.
        """
        return tuple(self._ask("describe", name)["shape"])

    def attribute(self, name: str | None, attribute: str) -> list[Any] | None:
        """Read an attribute.

        Args:
            name: The dataset that has it; None for the file.
            attribute: The name of the attribute.

        Returns:
            Its values as a list; None where there is no such attribute.
        """
        values: list[Any] | None = self._ask("attribute", name, attribute)
        return values

    def load(self, name: str) -> Shaped[np.ndarray, "..."]:
        """Read a dataset.

        Args:
            name: Its name.

        Returns:
            Its values: numbers, or texts.
        """
        where = f"{self._where}[{name}]"
        about = self._ask("describe", name)
        shape = tuple(about["shape"])
        dtype = np.dtype(about["dtype"] or f"V{max(1, about['itemsize'])}")
        what = f"{about['dtype'] or 'text'} of shape {shape}"
        # A small file may declare terabytes; only one that holds them is given a file of its own.
        on_disk = 512 * Path(self._where).stat().st_blocks
        is_held = MOST_PACKED * on_disk >= math.prod(shape) * dtype.itemsize
        if not is_held or about["dtype"] is None:
            require_memory(array_bytes(shape, dtype), where, what, DataError)
        seconds = SECONDS + about["part"] / _SLOWEST
        if about["offset"] is not None and exceeds_room(math.prod(shape) * dtype.itemsize):
            log.info("%s: %s are mapped from the file itself", where, what)
            with data_errors(where, "a whole file", OSError, ValueError):
                return mapped(Path(self._where), shape, dtype, offset=about["offset"])
        self._request(seconds, "load", name)
        if about["dtype"] is None:
            texts = [text for part in self._parts("texts", where, what, seconds) for text in part]
            longest = max(map(len, texts), default=0)
            # NumPy gives every text the room of the longest one.
            room = 4 * longest * len(texts)
            require_memory(room, where, f"{len(texts)} texts, the longest of {longest}", DataError)
            return np.array(texts, dtype=str).reshape(shape)
        array = (
            room_for(shape, dtype, where, what, DataError) if is_held else np.empty(shape, dtype)
        )
        view = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
        n_read = 0
        for n_bytes in self._parts("bytes", where, what, seconds):
            part = view[n_read : n_read + n_bytes]
            self._read_into(part, f"reading {where}", seconds)
            n_read += len(part)
        if n_read != array.nbytes:
            raise DataError(f"{where}: expected {array.nbytes:,} bytes of values, got {n_read:,}")
        return array

    def _parts(self, kind: str, where: str, what: str, seconds: float) -> Iterator[Any]:
        """What the answers to "load" hold of this kind, up to the last one."""
        while kind in (answer := self._read_line(f"reading {where}", seconds)):
            yield answer[kind]
        self._unpack(answer, where, f"{what}, got an error while reading")

    # -- The other process ---------------------------------------------------------------------

    def _ask(self, question: str, *arguments: Any) -> Any:
        self._request(SECONDS, question, *arguments)
        what = f"reading {arguments[0] or '/'!r}" if arguments else "reading its names"
        return self._receive(what, SECONDS)

    def _receive(self, what: str, seconds: float) -> Any:
        size = self.path.stat().st_size if self.path.exists() else 0
        expected = f"an HDF5 file, got {size} bytes that cannot be read"
        return self._unpack(self._read_line(what, seconds), self._where, expected)

    def _unpack(self, answer: dict[str, Any], where: str, expected: str) -> Any:
        if "refused" in answer:
            raise DataError(answer["refused"])
        if "damaged" in answer:
            raise DataError(f"{where}: expected {expected}: {answer['damaged']}")
        return answer["value"]

    @property
    def _out(self) -> Any:
        assert self._process.stdout is not None
        return self._process.stdout

    def _request(self, seconds: float, question: str, *arguments: Any) -> None:
        # The alarm of the other process goes off after our own time limit.
        self._send([seconds, math.ceil(PATIENCE * seconds) + 2, question, *arguments])

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        # Where it has ended already, reading its answer says so, with its exit code.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def _read_line(self, what: str, seconds: float) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE * seconds
        while (end := self._buffer.find(b"\n")) < 0:
            self._buffer += self._read_some(2**16, until, what, seconds)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read_into(self, view: memoryview, what: str, seconds: float) -> None:
        until = time.monotonic() + PATIENCE * seconds
        n_read = min(len(view), len(self._buffer))
        view[:n_read] = self._buffer[:n_read]
        del self._buffer[:n_read]
        while n_read < len(view):
            data = self._read_some(min(len(view) - n_read, _PIPE_BYTES), until, what, seconds)
            view[n_read : n_read + len(data)] = data
            n_read += len(data)

    def _read_some(self, most: int, until: float, what: str, seconds: float) -> bytes:
        """Between one and `most` bytes, as they come."""
        if not self._selector.select(max(0.0, until - time.monotonic())):
            raise DataError(
                f"{self._where}: expected an HDF5 file that can be read, got no answer within "
                f"{PATIENCE * seconds:.0f} seconds of {what}: its disk does not answer"
            )
        data = os.read(self._out.fileno(), most)
        if not data and (code := self._process.wait()) == -signal.SIGPROF:
            raise DataError(
                f"{self._where}: expected an HDF5 file that can be read, got no answer within "
                f"{seconds:.0f} seconds of {what}: it is damaged"
            )
        if not data:
            raise DataError(
                f"{self._where}: expected an HDF5 file that can be read, got one that ended the "
                f"process reading it (exit code {code}) when {what}"
            )
        return data

    def _end(self) -> None:
        self._selector.close()
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
