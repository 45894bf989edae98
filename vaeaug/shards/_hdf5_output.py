"""Atomic publication of HDF5 files, and hashes of files."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vaeaug.files import cannot_write, new_file, open_regular, publish
from vaeaug.shards._format import ShardError

# v108 has checksums of the metadata, and every HDF5 since 1.8 reads it.
HDF5_VERSIONS = ("v108", "v110")


def sha256_file(path: Path) -> str:
    """Hash the bytes of a file.

    Args:
        path: The file.

    Returns:
        SHA-256 in lower-case hexadecimal digits.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Sink:
    """The file object to which HDF5 writes; it records the first error of the system.

    HDF5 cannot close a file that it could not write: on a full disk, ``close`` fails as well, the
    handle stays open and the error number is lost. Therefore, the sink ignores everything after the
    first error, so that the close succeeds, and the caller raises the recorded error.
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

    def read(self, n: int = -1) -> bytes:  # h5py requires this method of a file object
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
        """Do nothing; there is no buffer."""


@contextlib.contextmanager
def published_hdf5(path: Path, *, needed: int, kept: str) -> Iterator[Any]:
    """Open an ``h5py.File`` to fill; it is renamed to ``path`` when the block succeeds.

    If anything fails, ``path`` is unchanged: see `vaeaug.files.new_file`.

    Args:
        path: The final name of the file.
        needed: Size of the file in bytes, for the message if there is no space.
        kept: Statement of what remains intact after a failure, for the same message.

    Yields:
        The open file.

    Raises:
        ShardError: If the system raises an ``OSError``; it has the same ``errno``.
    """
    import h5py

    with write_errors(path, needed=needed, kept=kept), new_file(path) as out:
        sink = _Sink(out.fileno())
        try:
            # Arrays start at a multiple of 64 bytes, so that memory-mapped values are aligned.
            with h5py.File(
                sink,
                "w",
                libver=HDF5_VERSIONS,
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


def publish_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically.

    Args:
        path: The file.
        data: Its content.

    Raises:
        ShardError: If the system raises an ``OSError``; it has the same ``errno``.
    """
    with write_errors(path, needed=len(data), kept="finished shards are kept"):
        publish(path, data)


@contextlib.contextmanager
def write_errors(path: Path, *, needed: int = 0, kept: str) -> Iterator[None]:
    """Let errors of the system name the file, the space that it needs and the available space.

    Args:
        path: The file.
        needed: Size of the file in bytes; 0 if it is not known.
        kept: Statement of what remains intact.

    Raises:
        ShardError: If the system raises an ``OSError``; it has the same ``errno``.
    """
    try:
        yield
    except OSError as error:
        raise ShardError(cannot_write(path, error, needed, kept), errno=error.errno) from error
