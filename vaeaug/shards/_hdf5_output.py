"""Files that appear whole or not at all."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vaeaug.files import cannot_write, new_file, open_regular, publish
from vaeaug.shards._format import ShardError


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Sink:
    """The file object that HDF5 writes through; it remembers the first error of the system.

    HDF5 cannot close a file that it could not write: on a full disk ``close`` fails as well, the
    handle stays open and the error number is lost. So after the first error the sink swallows what
    follows, the close succeeds, and the error is raised from here with its number.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = 0
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = (0, self._position, os.fstat(self._fd).st_size)[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, n: int = -1) -> bytes:  # h5py takes an object for a file if it has this name
        raise NotImplementedError("the sink of a shard is read with readinto")

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = os.pread(self._fd, len(view), self._position)
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))
        self._position += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while self.error is None and done < len(view):
                done += os.pwrite(self._fd, view[done:], self._position + done)
        except OSError as error:
            self.error = error
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self._fd, size)
        except OSError as error:
            self.error = error
        return size

    def flush(self) -> None:
        """Nothing is buffered here."""


@contextlib.contextmanager
def published_hdf5(path: Path, *, needed: int, kept: str) -> Iterator[Any]:
    """An ``h5py.File`` to fill, which takes the name ``path`` when the block ends well.

    If anything fails, ``path`` is as it was: see `vaeaug.files.new_file`.

    Args:
        path: The name that the file gets.
        needed: Bytes that the file takes, for the message when there is no room.
        kept: What is safe whatever happens, for the same message.

    Raises:
        ShardError: From the ``OSError`` of the system, with its ``errno``.
    """
    import h5py

    try:
        with new_file(path) as out:
            sink = _Sink(out.fileno())
            try:
                # v108: checksums on the metadata, and every HDF5 since 1.8 reads it. Arrays start
                # at a multiple of 64 bytes, so that a map of the file gives aligned values.
                with h5py.File(
                    sink,
                    "w",
                    libver=("v108", "v110"),
                    track_order=False,
                    alignment_threshold=1,
                    alignment_interval=64,
                ) as file:
                    yield file
            except Exception:
                if sink.error is None:
                    raise
            if sink.error is not None:
                raise sink.error
    except OSError as error:
        raise write_error(path, error, needed, kept) from error


def publish_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` under the name ``path``, whole or not at all.

    Raises:
        ShardError: From the ``OSError`` of the system, with its ``errno``.
    """
    try:
        publish(path, data)
    except OSError as error:
        raise write_error(path, error, len(data), "finished shards are kept") from error


def write_error(path: Path, error: OSError, needed: int, kept: str) -> ShardError:
    """The error that says which file, what it needed, and what there is."""
    return ShardError(cannot_write(path, error, needed, kept), errno=error.errno)
