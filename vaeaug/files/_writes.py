"""Every write of this package: files and folders that appear under their name whole or not at all.

A temporary file has a name that nobody can foresee, is made new (`O_EXCL`, `O_NOFOLLOW`) in a
folder that is opened once, and takes its name by a rename: a link that somebody planted is neither
followed nor written through. Errors are those of the system, with the file that was wanted.
"""

import contextlib
import ctypes
import errno
import fcntl
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

# Of a manifest with hundreds of thousands of shards.
MOST_BYTES = 2**28
_DIGITS = 16
_TEMPORARY = re.compile(rf"\.(?P<name>.+)\.[0-9a-f]{{{_DIGITS}}}\.(?P<kind>tmp|old)", re.DOTALL)
_IN_USE = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_TRIES = 20
# Of renameat2, which swaps two names at once.
_EXCHANGE = 2
_AT_FDCWD = -100
# The longest that a name may be on all systems in use, less what is added to it.
_MOST_NAME = 255 - _DIGITS - len("..") - len(".tmp")


class InUseError(OSError):
    """Another process has claimed it."""


class NoLocksError(OSError):
    """The file system cannot tell whether another process has claimed it."""


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to fill, which takes the name ``path`` when the block ends well.

    It is synced and renamed, and its folder is synced. If anything fails it is removed, and what
    is at ``path`` is as it was. A link there is replaced, not followed.

    Args:
        path: The name that it gets.

    Raises:
        OSError: Of the system, naming ``path``.
    """
    with _opened_folder(path) as folder:
        temporary = temporary_name(path.name)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with named(path):
                fd = os.open(temporary, flags, 0o666, dir_fd=folder)
            with open(fd, "w+b") as file:
                yield file
                with named(path):
                    file.flush()
                    os.fsync(file.fileno())
            with named(path):
                os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
        except BaseException:
            with contextlib.suppress(OSError):  # never made, or published already
                os.unlink(temporary, dir_fd=folder)
            raise


def publish(path: Path, data: bytes) -> None:
    """Write ``data`` under the name ``path``, whole or not at all.

    Raises:
        OSError: Of the system, naming ``path``.
    """
    with new_file(path) as file, named(path):
        file.write(data)


def open_regular(path: Path) -> io.BufferedReader:
    """A file to read, if it is one: opening a pipe would wait for ever for its other end.

    Raises:
        OSError: Of the system, naming ``path``.
    """
    with named(path):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return open(fd, "rb")
        os.close(fd)
        raise OSError(errno.EINVAL, "expected a file, got something else")


def read_whole(path: Path) -> bytes:
    """The bytes of a file of our own, none of which is larger than `MOST_BYTES`.

    Raises:
        OSError: Of the system, naming ``path``.
    """
    with open_regular(path) as file, named(path):
        data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise OSError(errno.EFBIG, f"expected at most {MOST_BYTES:,} bytes")
        return data


def append(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Add ``data`` at the end of a file, which is made where it is missing; no link is followed.

    Raises:
        OSError: Of the system, naming ``path``.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with named(path), open(os.open(path, flags, 0o666), "ab") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the name ``path`` when the block ends well.

    A folder that is there is swapped with the new one at once where the system can, and deleted
    after that. Where it cannot, the old one is moved aside first, and `recover` brings it back if
    the process ends between the two renames.

    Raises:
        OSError: Of the system, naming ``path``.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        with named(path):
            temporary.mkdir()
        yield temporary
        with named(path):
            # Of many small files: syncing all at once takes a fraction of the time of one by one.
            os.sync()
            _swap_in(temporary, path)
            fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap_in(new: Path, path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        new.rename(path)
    elif not _exchange(new, path):
        aside = path.with_name(temporary_name(path.name, "old"))
        path.rename(aside)
        try:
            new.rename(path)
        except OSError:
            aside.rename(path)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names at once; whether the system can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    done = rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _EXCHANGE)
    return bool(done == 0)


def recover(path: Path) -> None:
    """Put right what a killed process left of writing ``path``; to be called by who claimed it.

    An old folder that was moved aside takes its name again if nothing has it; temporary files and
    folders are deleted.
    """
    for leftover, kind in leftovers(path.parent, path.name):
        if kind == "old" and not os.path.lexists(path):
            leftover.rename(path)
        elif leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def leftovers(folder: Path, name: str | None = None) -> list[tuple[Path, str]]:
    """What killed writers left in a folder, of one name or of any, each with "tmp" or "old"."""
    remains = []
    wanted = None if name is None else _shortened(name)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if match is not None and wanted in (None, match["name"]):
            remains.append((path, match["kind"]))
    return remains


class Claim:
    """A name that is this process's alone, until it is released or the process ends.

    Args:
        lock: The file that stands for it; made where it is missing, deleted in the end.

    Raises:
        InUseError: If another process has it.
        NoLocksError: If the file system has no locks.
        OSError: If the file cannot be made, or is a link or no file.
    """

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        for _ in range(_TRIES):
            fd = self._open()
            try:
                self._take(fd)
                # Whoever had it may have ended, and deleted the file, since it was opened.
                if os.path.samestat(os.fstat(fd), lock.lstat()):
                    self._fd = fd
                    return
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise InUseError(errno.EWOULDBLOCK, "it is claimed again and again", str(lock))

    def release(self) -> None:
        """Give the name back."""
        self._lock.unlink(missing_ok=True)
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with named(self._lock):
            fd = os.open(self._lock, flags, 0o644)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
            raise OSError(errno.EEXIST, "expected no file or a lock, got something else")

    def _take(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            path = str(self._lock)
            if error.errno in _IN_USE:
                raise InUseError(error.errno, "another process has it", path) from error
            if error.errno in _NO_LOCKS:
                raise NoLocksError(error.errno, os.strerror(error.errno), path) from error
            raise


def claim_target(path: Path) -> Claim:
    """Claim the name of a file or folder that is to be written, and clean up what was left of it.

    Raises:
        InUseError: If another process writes it.
        OSError: As for `Claim`.
    """
    claim = Claim(path.with_name(f".{_shortened(path.name)}.lock"))
    recover(path)
    return claim


def temporary_name(name: str, kind: str = "tmp") -> str:
    """A name beside ``name`` that nobody can foresee, and that `leftovers` knows."""
    return f".{_shortened(name)}.{secrets.token_hex(_DIGITS // 2)}.{kind}"


def fsync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` last through a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def cannot_write(path: Path, error: OSError, needed: int, kept: str) -> str:
    """The sentence that says which file, what it needed, and what there is."""
    try:
        free = f"{shutil.disk_usage(path.parent).free:,} bytes are free there"
    except OSError:
        free = "the free space there is unknown"
    reason = error.strerror or str(error)
    return f"{path}: cannot be written: {reason}. It needs {needed:,} bytes and {free}; {kept}."


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Errors of the system inside the block name ``path``, and no temporary file."""
    try:
        yield
    except OSError as error:
        if type(error).__module__ == __name__:
            raise
        number = error.errno or errno.EIO
        raise OSError(number, error.strerror or str(error), str(path)) from error


@contextlib.contextmanager
def _opened_folder(path: Path) -> Iterator[int]:
    with named(path):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _shortened(name: str) -> str:
    """As much of a name as leaves room for what is added to it."""
    while len(os.fsencode(name)) > _MOST_NAME:
        name = name[:-1]
    return name
