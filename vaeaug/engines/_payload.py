"""What every worker needs, sent once: large arrays as files that all of them map."""

import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaeaug.mapping import place_of, temporary_folder

# Smaller arrays are not worth a page of their own.
_LARGE = 2**16
_PAGE = 4096


def pickled(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle a value, its large arrays apart.

    Args:
        value: Anything that can be pickled.

    Returns:
        (the pickle without its large arrays; their bytes, in the order of the pickle).
    """
    buffers: list[memoryview] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _LARGE:
            return True
        buffers.append(raw)
        return False

    return pickle.dumps(value, protocol=5, buffer_callback=is_small), buffers


def unpickled(data: bytes, buffers: Sequence[Any]) -> Any:
    """Give back what was pickled by the process that started this one.

    Args:
        data: The pickle.
        buffers: The bytes of its large arrays.

    Returns:
        The value.
    """
    return pickle.loads(data, buffers=buffers)  # noqa: S301  # from the driver, never from a file


@dataclass(frozen=True)
class Payload:
    """A value on its way to processes of this machine.

    Attributes:
        data: The pickle.
        path: File of the large arrays that were in memory.
        spans: (file, first byte, bytes) of each large array.
    """

    data: bytes
    path: str
    spans: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, value: Any) -> "Payload":
        """Write the large arrays of a value that are in memory; `discard` deletes the file.

        Those that are mapped from a file are mapped from there again.

        Args:
            value: Anything that can be pickled.

        Returns:
            The payload.

        Raises:
            OSError: If the disk cannot hold them.
        """
        data, buffers = pickled(value)
        folder = temporary_folder()
        folder.mkdir(parents=True, exist_ok=True)
        fd, path = tempfile.mkstemp(prefix="vaeaug-task-", dir=folder)
        spans = []
        try:
            with open(fd, "wb") as file:
                for buffer in buffers:
                    if (place := place_of(buffer.obj)) is not None:
                        spans.append((*place, buffer.nbytes))
                        continue
                    file.write(bytes(-file.tell() % _PAGE))
                    spans.append((path, file.tell(), buffer.nbytes))
                    file.write(buffer)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
        return cls(data, path, tuple(spans))

    def load(self) -> Any:
        """Give the value back; its large arrays are pages of files, until they are changed.

        Returns:
            The value.
        """
        buffers = [
            np.memmap(path, np.uint8, "c", offset=offset, shape=(n,)) if n else b""
            for path, offset, n in self.spans
        ]
        return unpickled(self.data, buffers)

    def discard(self) -> None:
        """Delete the file; who has mapped it keeps its pages."""
        Path(self.path).unlink(missing_ok=True)
