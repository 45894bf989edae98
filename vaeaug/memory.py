"""How much memory there is, asked before anything is allocated for a size that a file declares.

A file of a few kilobytes can declare, or expand to, terabytes. Linux grants such memory and ends
the process when it is touched, so the size is compared with what there is before it is asked for.
"""

import ctypes
import math
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

_MEMINFO = Path("/proc/meminfo")
_GROUPS = Path("/sys/fs/cgroup")
_KIB = 1024
# Values that go through a network at a time, at most, where no gradient is wanted; and how many do
# where that is exceeded: several arrays of doubles of that size may be needed.
VALUES_AT_ONCE, FEWER_VALUES = 2**25, 2**23
# Parameters of glibc's `mallopt`, and its bounds for freed memory that is kept by default.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MMAP_DEFAULT, _MOST_KEPT = 2**25, 2**31 - 1
# A text file of short lines takes about so many times its size as Python's objects.
TEXT_FACTOR = 8


def available_memory() -> int | None:
    """Bytes that this process can still take, or None where the system does not say.

    The least of what the machine has left, what the control groups of the process leave (a
    container's limit is one) and what the limit on its address space leaves.
    """
    limits = [*_machine(), *_control_groups(), *_address_space()]
    return max(0, min(limits)) if limits else None


def require_memory(n_bytes: int, where: str, what: str, error: type[Exception]) -> None:
    """Refuse what memory cannot hold.

    Args:
        n_bytes: Bytes that are about to be allocated.
        where: The file, for the message.
        what: What takes them, such as "images of shape (10, 8, 8)".
        error: Raised with the message.
    """
    there = available_memory()
    if there is not None and n_bytes > there:
        raise error(
            f"{where}: expected what memory can hold, got {what}, which take {sized(n_bytes)}; "
            f"{sized(there)} are available"
        )


@contextmanager
def memory_errors(source: object, error: type[Exception]) -> Iterator[None]:
    """What memory could not hold although nothing declared it becomes an error that says where."""
    try:
        yield
    except MemoryError as cause:
        where = source if isinstance(source, str | os.PathLike) else type(source).__name__
        raise error(
            f"{where}: expected what memory can hold, got more: {cause or 'no memory is left'}"
        ) from cause


def blocks(n: int, n_values: int, most: int) -> Iterator[slice]:
    """The rows of n samples of so many values in blocks of `most`, or smaller where they are large.

    What is drawn for a block depends on where it begins: for samples of up to
    ``VALUES_AT_ONCE / most`` values these places are multiples of `most`.
    """
    fits = most * n_values <= VALUES_AT_ONCE
    step = most if fits else max(1, min(most, FEWER_VALUES // n_values))
    for begin in range(0, n, step):
        yield slice(begin, min(begin + step, n))


@contextmanager
def kept_memory(array_bytes: int) -> Iterator[None]:
    """Freed memory is used again inside, instead of going back to the system each time.

    By default glibc returns every array of more than 32 MiB when it is freed, and the system clears
    each page of the next one: with large samples that takes longer than what is computed. Nothing
    happens for smaller arrays, or where the C library is another one.

    Args:
        array_bytes: Size of the arrays that each step makes.
    """
    change = _mallopt() if array_bytes >= _MMAP_DEFAULT else None
    if change is None:
        yield
        return
    change(_MMAP_THRESHOLD, min(4 * array_bytes, _MOST_KEPT))
    change(_TRIM_THRESHOLD, _MOST_KEPT)
    try:
        yield
    finally:
        change(_MMAP_THRESHOLD, _MMAP_DEFAULT)
        change(_TRIM_THRESHOLD, 2 * _MMAP_DEFAULT)
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt() -> Callable[[int, int], int] | None:
    try:
        library = ctypes.CDLL(None)
        return library.mallopt if hasattr(library, "malloc_trim") else None
    except OSError:
        return None


def array_bytes(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    """Bytes of an array as it is read: itself, and its copy as float32 or int64 where it gets one.

    In whole numbers of Python: a declared shape may not fit any integer of the machine.
    """
    per_value = dtype.itemsize + (0 if dtype == np.uint8 else 4)
    return math.prod(int(n) for n in shape) * per_value


def sized(n_bytes: float) -> str:
    """Bytes as people say them: "3.1 GiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if n_bytes < _KIB or unit == "TiB":
            break
        n_bytes /= _KIB
    return f"{n_bytes:,.0f} {unit}" if unit == "bytes" else f"{n_bytes:,.1f} {unit}"


def _machine() -> Iterator[int]:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * _KIB
            return
    if "SC_PHYS_PAGES" in os.sysconf_names and "SC_PAGE_SIZE" in os.sysconf_names:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_groups() -> Iterator[int]:
    """What each group of the process, up to the outermost, leaves: versions 2 and 1 of Linux."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            root, names = _GROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            root = _GROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / path.lstrip("/")
        # Inside a container the path may be that of the host, where only the root is to be seen.
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield from _left(folder, *names)


def _left(group: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    try:
        most = (group / limit).read_text(encoding="ascii").strip()
        if most == "max":
            return
        used = int((group / usage).read_text(encoding="ascii"))
        stat = (group / "memory.stat").read_text(encoding="ascii").split()
        # Pages of files that can be dropped at once count as used.
        used -= int(stat[stat.index(cache) + 1]) if cache in stat else 0
        yield int(most) - used
    except (OSError, ValueError):
        return


def _address_space() -> Iterator[int]:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        pages = 0
    yield limit - pages * resource.getpagesize()
