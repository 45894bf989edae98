"""Available memory, which is checked before memory is allocated for a size that a file declares.

A file of a few kilobytes can declare, or expand to, terabytes. Linux grants such memory and kills
the process when it is used. The size is therefore compared with the available memory first.
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
# Maximum number of values that go through a network at a time without gradients, and the number if
# a block would exceed it: several arrays of doubles of that size may be needed.
VALUES_AT_ONCE, FEWER_VALUES = 2**25, 2**23
# Parameters of glibc's `mallopt`, and its default and maximum threshold for keeping freed memory.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MMAP_DEFAULT, _MAX_THRESHOLD = 2**25, 2**31 - 1
# Python objects of a text file of short lines take about this multiple of its size.
TEXT_FACTOR = 8


def available_memory() -> int | None:
    """Return the memory that this process can still allocate.

    It is the minimum of what the machine has left, what the control groups of the process allow
    (such as the limit of a container) and what the limit of its address space allows.

    Returns:
        Bytes, or None if the system does not report them.
    """
    limits = [*_machine(), *_control_groups(), *_address_space()]
    return max(0, min(limits)) if limits else None


def require_memory(n_bytes: int, where: str, what: str, error: type[Exception]) -> None:
    """Raise an error if memory cannot hold an allocation.

    Args:
        n_bytes: Bytes to allocate.
        where: The file, for the message.
        what: What takes them, such as "images of shape (10, 8, 8)".
        error: Type of the error.

    Raises:
        Exception: Of type `error`, if the memory is not available.
    """
    available = available_memory()
    if available is not None and n_bytes > available:
        raise error(
            f"{where}: expected what memory can hold, got {what}, which take {sized(n_bytes)}; "
            f"{sized(available)} are available"
        )


@contextmanager
def memory_errors(source: object, error: type[Exception]) -> Iterator[None]:
    """Convert a `MemoryError` inside the block to an error that names the source.

    Args:
        source: The path or the object that is being read.
        error: Type of the error.

    Raises:
        Exception: Of type `error`, if memory runs out inside the block.
    """
    try:
        yield
    except MemoryError as cause:
        where = source if isinstance(source, str | os.PathLike) else type(source).__name__
        raise error(
            f"{where}: expected what memory can hold, got more: {cause or 'no memory is left'}"
        ) from cause


def blocks(n: int, n_values: int, block_size: int) -> Iterator[slice]:
    """Divide the rows of n samples into blocks of a fixed size, or smaller ones for large samples.

    Random draws of a block depend on its first row: for samples of up to ``VALUES_AT_ONCE / size``
    values, first rows are multiples of it.

    Args:
        n: Number of samples.
        n_values: Values per sample.
        block_size: Number of samples per block.

    Yields:
        Rows of each block.
    """
    fits = block_size * n_values <= VALUES_AT_ONCE
    step = block_size if fits else max(1, min(block_size, FEWER_VALUES // n_values))
    for begin in range(0, n, step):
        yield slice(begin, min(begin + step, n))


@contextmanager
def kept_memory(array_bytes: int) -> Iterator[None]:
    """Reuse freed memory inside the block instead of returning it to the system each time.

    By default, glibc returns every array of more than 32 MiB when it is freed, and the system
    clears each page of the next one, which for large samples takes longer than the computation.
    This has no effect for smaller arrays, or with another C library.

    Args:
        array_bytes: Size of the arrays that each step creates.
    """
    change = _mallopt() if array_bytes >= _MMAP_DEFAULT else None
    if change is None:
        yield
        return
    change(_MMAP_THRESHOLD, min(4 * array_bytes, _MAX_THRESHOLD))
    change(_TRIM_THRESHOLD, _MAX_THRESHOLD)
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
    """Return the bytes of an array and of its copy as float32 or int64, if reading makes one.

    Python integers are used, because a declared shape may exceed any integer of the machine.

    Args:
        shape: Shape of the array.
        dtype: Its stored type.

    Returns:
        Bytes.
    """
    per_value = dtype.itemsize + (0 if dtype == np.uint8 else 4)
    return math.prod(int(n) for n in shape) * per_value


def sized(n_bytes: float) -> str:
    """Format bytes with a unit, as in "3.1 GiB".

    Args:
        n_bytes: Bytes.

    Returns:
        Text.
    """
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
    """Yield the memory that each control group (version 1 or 2) of the process has left."""
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
        # Inside a container, the path may be that of the host; then only the root is visible.
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield from _remaining(folder, *names)


def _remaining(group: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    try:
        max_usage = (group / limit).read_text(encoding="ascii").strip()
        if max_usage == "max":
            return
        used = int((group / usage).read_text(encoding="ascii"))
        stat = (group / "memory.stat").read_text(encoding="ascii").split()
        # File pages that can be dropped immediately are counted as used.
        used -= int(stat[stat.index(cache) + 1]) if cache in stat else 0
        yield int(max_usage) - used
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
