"""Atomic writes: files and folders appear under their name completely or not at all.

A temporary file has an unpredictable name, is created exclusively (`O_EXCL`, `O_NOFOLLOW`) in a
folder that is opened once, and is renamed at the end. Links that somebody planted are neither
followed nor written through. Errors are those of the system and name the intended file.
"""

import contextlib
import ctypes
import errno
import fcntl
import io
import logging
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

log = logging.getLogger("vaeaug")

# Size of a manifest with hundreds of thousands of shards.
MOST_BYTES = 2**28
_DIGITS = 16
_TEMPORARY = re.compile(rf"\.(?P<name>.+)\.[0-9a-f]{{{_DIGITS}}}\.(?P<kind>tmp|old)", re.DOTALL)
_IN_USE = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_TRIES = 20
# End of the name of the file that stands for a lock on a file system without locks.
HELD = ".held"
# Flag of renameat2 that swaps two names atomically.
_EXCHANGE = 2
_AT_FDCWD = -100
# The maximum length of a name on all systems in use, minus what is added to it.
_MOST_NAME = 255 - _DIGITS - len("..") - len(".tmp")


class InUseError(OSError):
    """Another process has claimed the name."""


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to fill; it is renamed to ``path`` when the block succeeds.

    The file is synced and renamed, and its folder is synced. If anything fails, the file is removed
    and ``path`` is unchanged. A link at ``path`` is replaced, not followed.

    Args:
        path: The final name.

    Yields:
        The open file.

    Raises:
        OSError: Error of the system, naming ``path``.
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
            with contextlib.suppress(OSError):  # never created, or already published
                os.unlink(temporary, dir_fd=folder)
            raise


def publish(path: Path, data: bytes) -> None:
    """Write a file atomically.

    Args:
        path: The file.
        data: Its content.

    Raises:
        OSError: Error of the system, naming ``path``.
    """
    with new_file(path) as file, named(path):
        file.write(data)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading; opening a pipe would wait forever for its other end.

    Args:
        path: The file.

    Returns:
        The open file.

    Raises:
        OSError: Error of the system, naming ``path``, or if it is not a regular file.
    """
    with named(path):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return open(fd, "rb")
        os.close(fd)
        raise OSError(errno.EINVAL, "expected a file, got something else")


def read_whole(path: Path) -> bytes:
    """Read a file that this package wrote; none is larger than `MOST_BYTES`.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        OSError: Error of the system, naming ``path``, or if the file is too large.
    """
    with open_regular(path) as file, named(path):
        data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise OSError(errno.EFBIG, f"expected at most {MOST_BYTES:,} bytes")
        return data


def append(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Append to a file, which is created if missing; links are not followed.

    Args:
        path: The file.
        data: Bytes to append.
        sync: Whether to sync the file to disk.

    Raises:
        OSError: Error of the system, naming ``path``.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with named(path), open(os.open(path, flags, 0o666), "ab") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Create a folder to fill; it is renamed to ``path`` when the block succeeds.

    An existing folder is swapped with the new one atomically, if the system supports it, and then
    deleted. Otherwise, the old one is moved aside first, and `recover` restores it if the process
    ends between the two renames.

    Args:
        path: The final name.

    Yields:
        The empty folder.

    Raises:
        OSError: Error of the system, naming ``path``.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        with named(path):
            temporary.mkdir()
        yield temporary
        with named(path):
            # For many small files, one sync takes a fraction of the time of one per file.
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
    """Swap two names atomically; returns False if the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    done = rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _EXCHANGE)
    return bool(done == 0)


def recover(path: Path) -> None:
    """Clean up after a killed writer of ``path``; only the owner of the claim may call it.

    An old folder that was moved aside gets its name back unless the name is taken. Temporary files
    and folders are deleted.

    Args:
        path: The file or folder.
    """
    for leftover, kind in leftovers(path.parent, path.name):
        if kind == "old" and not os.path.lexists(path):
            leftover.rename(path)
        elif leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def leftovers(folder: Path, name: str | None = None) -> list[tuple[Path, str]]:
    """Find what killed writers left in a folder.

    Args:
        folder: The folder.
        name: Name of the file or folder that was written; None: any.

    Returns:
        Paths, each with its kind, "tmp" or "old".
    """
    found_leftovers = []
    stem = None if name is None else _shortened(name)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if match is not None and stem in (None, match["name"]):
            found_leftovers.append((path, match["kind"]))
    return found_leftovers


class Claim:
    """An exclusive claim to a name, held until it is released or the process ends.

    On a file system without locks a second file, `HELD`, names the process; it is taken for left
    over where that process has ended, which can be told on the same machine only.

    Args:
        lock: The lock file; it is created if missing, and deleted at the end.

    Raises:
        InUseError: If another process holds the claim.
        OSError: If the lock file cannot be created, or is a link or not a regular file.
    """

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self._held: Path | None = None
        for _ in range(_TRIES):
            fd = self._open()
            try:
                self._take(fd)
                # The previous owner may have deleted the file after it was opened here.
                if os.path.samestat(os.fstat(fd), lock.lstat()):
                    self._fd = fd
                    return
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        raise InUseError(errno.EWOULDBLOCK, "other processes keep claiming it", str(lock))

    def release(self) -> None:
        """Release the claim."""
        self._lock.unlink(missing_ok=True)
        os.close(self._fd)
        if self._held is not None:
            self._held.unlink(missing_ok=True)

    def __enter__(self) -> "Claim":
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
        if self._held is not None:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _IN_USE:
                path = str(self._lock)
                raise InUseError(error.errno, "another process has claimed it", path) from error
            if error.errno not in _NO_LOCKS:
                raise
            self._held = self._hold()

    def _hold(self) -> Path:
        """Make the file that stands for a lock where there are none."""
        path = self._lock.with_name(f"{self._lock.name}{HELD}")
        owner = f"{os.getpid()} {socket.gethostname()}"
        for _ in range(_TRIES):
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with named(path), open(os.open(path, flags, 0o644), "wb") as file:
                    file.write(owner.encode())
            except FileExistsError:
                holder = _holder(path)
                if holder is None or _has_ended(holder):
                    path.unlink(missing_ok=True)
                    continue
                process, _, machine = holder.partition(" ")
                raise InUseError(
                    errno.EWOULDBLOCK,
                    f"process {process} of {machine} has claimed it; if that has ended, delete "
                    f"{path}",
                    str(self._lock),
                ) from None
            log.warning(
                "%s: this disk has no file locks; %s keeps other processes away. If one is killed "
                "on another machine, delete that file",
                self._lock.parent,
                path.name,
            )
            return path
        raise InUseError(errno.EWOULDBLOCK, "other processes keep claiming it", str(self._lock))


def is_claimed(lock: Path) -> bool:
    """Whether a process holds a claim.

    Args:
        lock: The lock file of a `Claim`.

    Returns:
        True if there is a process that has not released it.
    """
    holder = _holder(lock.with_name(f"{lock.name}{HELD}"))
    if holder is not None:
        return not _has_ended(holder)
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _IN_USE
    finally:
        os.close(fd)
    return False


def _holder(path: Path) -> str | None:
    """The process and the machine that a file of `HELD` names; None: there is no such file."""
    try:
        return read_whole(path).decode(errors="replace")
    except OSError:
        return None


def _has_ended(holder: str) -> bool:
    process, _, machine = holder.partition(" ")
    if machine != socket.gethostname() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def claim_target(path: Path) -> Claim:
    """Claim the name of a file or folder to write, and clean up leftovers of it.

    Args:
        path: The file or folder.

    Returns:
        The claim.

    Raises:
        InUseError: If another process is writing it.
        OSError: As for `Claim`.
    """
    claim = Claim(path.with_name(f".{_shortened(path.name)}.lock"))
    recover(path)
    return claim


def temporary_name(name: str, kind: str = "tmp") -> str:
    """Create an unpredictable name that `leftovers` recognises.

    Args:
        name: The final name.
        kind: "tmp" or "old".

    Returns:
        The temporary name, for the same folder.
    """
    return f".{_shortened(name)}.{secrets.token_hex(_DIGITS // 2)}.{kind}"


def fsync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename inside it survives a power failure.

    Args:
        folder: The folder.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def cannot_write(path: Path, error: OSError, needed: int, kept: str) -> str:
    """Describe a failed write: the file, the space that it needs and the free space.

    Args:
        path: The file or folder.
        error: The error of the system.
        needed: Bytes that it needs.
        kept: Statement of what remains intact.

    Returns:
        One or two sentences.
    """
    try:
        free = f"{shutil.disk_usage(path.parent).free:,} bytes are free there"
    except OSError:
        free = "the free space there is unknown"
    reason = error.strerror or str(error)
    return f"{path}: cannot be written: {reason}. It needs {needed:,} bytes and {free}; {kept}."


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Let errors of the system inside the block name ``path`` instead of a temporary file.

    Args:
        path: The file or folder.

    Raises:
        OSError: The error of the system, naming ``path``.
    """
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
    """Shorten a name to leave room for what is added to it."""
    while len(os.fsencode(name)) > _MOST_NAME:
        name = name[:-1]
    return name
