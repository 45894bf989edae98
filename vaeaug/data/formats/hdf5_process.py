"""An HDF5 file of somebody else, read by another process that may hang or end without harm."""

import contextlib
import json
import math
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import DataError
from vaeaug.data.formats import hdf5_child
from vaeaug.memory import array_bytes, available_memory, require_memory

# For each answer, and for each part of an array of some megabytes.
SECONDS = 8.0
# For a part besides: the slowest disk and decompression, bytes a second.
_SLOWEST = 2**24
# For Python and the library to be loaded, which may lie on a slow disk too.
_START_SECONDS = 120.0
# Register filters for HDF5 where they are imported.
_PLUGINS = ("hdf5plugin",)
_PIPE_BYTES = 2**20


class ForeignHDF5:
    """One HDF5 file; a context manager, to be entered before anything is asked.

    Args:
        path: The file.

    Raises:
        DataError: From every method: naming the file, where it is damaged, or has what is not
            read, or keeps the library busy for more than `SECONDS`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._where = str(path)

    def __enter__(self) -> Self:
        if not sys.executable:
            raise DataError(
                f"{self._where}: an HDF5 file is read by a process of its own, but there is no "
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
            self._answer("starting", _START_SECONDS)
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
        """The name of every link, and "group", "dataset" or "other" (no hard link to either)."""
        return dict(self._ask("names"))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a dataset, all of which lies in this file."""
        return tuple(self._ask("describe", name)["shape"])

    def attribute(self, name: str | None, attribute: str) -> list[Any] | None:
        """An attribute of a dataset, or of the file, as a list; None where it has none."""
        found: list[Any] | None = self._ask("attribute", name, attribute)
        return found

    def load(self, name: str) -> Shaped[np.ndarray, "..."]:
        """The values of a dataset: numbers, or texts."""
        where = f"{self._where}[{name}]"
        said = self._ask("describe", name)
        shape = tuple(said["shape"])
        dtype = np.dtype(said["dtype"] or f"V{max(1, said['itemsize'])}")
        what = f"{said['dtype'] or 'text'} of shape {shape}"
        require_memory(array_bytes(shape, dtype), where, what, DataError)
        seconds = SECONDS + said["part"] / _SLOWEST
        self._say(seconds, "load", name)
        if said["dtype"] is None:
            texts = self._texts_of(where, what, seconds)
            longest = max(map(len, texts), default=0)
            # NumPy gives every text the room of the longest one.
            room = 4 * longest * len(texts)
            require_memory(room, where, f"{len(texts)} texts, the longest of {longest}", DataError)
            return np.array(texts, dtype=str).reshape(shape)
        out = np.empty(shape, dtype=dtype)
        self._fill(out, where, what, seconds)
        return out

    def _texts_of(self, where: str, what: str, seconds: float) -> list[str]:
        texts: list[str] = []
        while True:
            answer = self._line(f"reading {where}", seconds)
            if "texts" not in answer:
                self._checked(answer, where, f"{what}, got an error while reading")
                return texts
            texts += answer["texts"]

    def _fill(self, out: Shaped[np.ndarray, "..."], where: str, what: str, seconds: float) -> None:
        view = out.reshape(-1).view(np.uint8).data if out.size else memoryview(b"")
        done = 0
        while True:
            answer = self._line(f"reading {where}", seconds)
            if "bytes" not in answer:
                self._checked(answer, where, f"{what}, got an error while reading")
                break
            part = view[done : done + answer["bytes"]]
            self._read_into(part, f"reading {where}", seconds)
            done += len(part)
        if done != out.nbytes:
            raise DataError(f"{where}: expected {out.nbytes:,} bytes of values, got {done:,}")

    # -- The other process ---------------------------------------------------------------------

    def _ask(self, question: str, *arguments: Any) -> Any:
        self._say(SECONDS, question, *arguments)
        what = f"reading {arguments[0] or '/'!r}" if arguments else "reading its names"
        return self._answer(what, SECONDS)

    def _answer(self, what: str, seconds: float) -> Any:
        size = self.path.stat().st_size if self.path.exists() else 0
        said = f"an HDF5 file, got {size} bytes that cannot be read"
        return self._checked(self._line(what, seconds), self._where, said)

    def _checked(self, answer: dict[str, Any], where: str, expected: str) -> Any:
        if "refused" in answer:
            raise DataError(answer["refused"])
        if "damaged" in answer:
            raise DataError(f"{where}: expected {expected}: {answer['damaged']}")
        return answer["value"]

    @property
    def _out(self) -> Any:
        assert self._process.stdout is not None
        return self._process.stdout

    def _say(self, seconds: float, question: str, *arguments: Any) -> None:
        # The alarm of the other process comes after our patience has ended.
        self._send([math.ceil(seconds) + 2, question, *arguments])

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        # Where it has ended already, reading its answer says so, with its exit code.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def _line(self, what: str, seconds: float) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while (end := self._buffer.find(b"\n")) < 0:
            self._buffer += self._some(2**16, until, what, seconds)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read_into(self, view: memoryview, what: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        done = min(len(view), len(self._buffer))
        view[:done] = self._buffer[:done]
        del self._buffer[:done]
        while done < len(view):
            data = self._some(min(len(view) - done, _PIPE_BYTES), until, what, seconds)
            view[done : done + len(data)] = data
            done += len(data)

    def _some(self, most: int, until: float, what: str, seconds: float) -> bytes:
        """Bytes that have come, at least one."""
        if not self._selector.select(max(0.0, until - time.monotonic())):
            raise DataError(
                f"{self._where}: expected an HDF5 file that can be read, got no answer within "
                f"{seconds:.0f} seconds of {what}: it is damaged, or its disk does not answer"
            )
        data = os.read(self._out.fileno(), most)
        if not data:
            raise DataError(
                f"{self._where}: expected an HDF5 file that can be read, got one that ended the "
                f"process reading it (exit code {self._process.wait()}) when {what}"
            )
        return data

    def _end(self) -> None:
        self._selector.close()
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
