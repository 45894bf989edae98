"""Arrays that are mapped from files: room for samples that memory does not hold.

What of a mapped file was touched counts as memory of the process until the system wants it back.
`release` gives it back at once, and `will_need` has the system read ahead what comes next; both do
nothing for arrays in memory.
"""

import logging
import math
import mmap
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64, Shaped

from vaeaug.memory import array_bytes, available_memory, require_memory, sized

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("vaeaug")

# The environment variable that names the folder for samples that do not fit into memory.
CACHE = "VAEAUG_CACHE"
# Part of the available memory that samples may take; more of them are mapped from a file.
RESIDENT_SHARE = 0.5
# How much more than on disk an array may take to be given a file: a small file may declare, or
# expand to, terabytes.
MOST_PACKED = 20
# Rows of a mapped array that are read here and there before they are given back: the system maps up
# to a megabyte around each of them.
TOUCHED = 512


def room_for(
    shape: Sequence[int],
    dtype: np.dtype[Any],
    where: str,
    what: str,
    error: type[Exception],
    *,
    folder: Path | None = None,
) -> np.ndarray[Any, Any]:
    """Allocate an array of samples: in memory, or where they are many in a file that is mapped.

    The file has no name, so that nothing is left when the process ends, however it ends. The system
    keeps in memory what of it is used and there is room for.

    Args:
        shape: Shape of the array.
        dtype: Its type.
        where: The source, for messages.
        what: What takes the room, such as "1,000 images of uint8 and shape (64, 64, 3)".
        error: Type of the error.
        folder: Where the file lies; None: in the folder that the environment variable VAEAUG_CACHE
            names, or in the one for temporary files.

    Returns:
        The array; its values are not defined.

    Raises:
        Exception: Of type `error`, if neither memory nor disk can hold it.
    """
    n_bytes = math.prod(int(n) for n in shape) * dtype.itemsize
    if not exceeds_room(n_bytes):
        require_memory(array_bytes(shape, dtype), where, what, error)
        return np.empty(shape, dtype)
    available = sized(available_memory() or 0)
    folder = folder or temporary_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Now rather than when a page is written, which would end the process.
            os.posix_fallocate(file.fileno(), 0, n_bytes)
            mapped = np.memmap(file, dtype, "r+", shape=tuple(int(n) for n in shape))
    except OSError as cause:
        raise error(
            f"{where}: expected what memory can hold, or a file in {folder}, got {what}, which "
            f"take {sized(n_bytes)}; {available} are available, and the file ends with: "
            f"{cause.strerror}; the environment variable {CACHE} names another folder"
        ) from cause
    log.info(
        "%s: %s take %s of %s available: they are kept in a file in %s, which is mapped",
        where,
        what,
        sized(n_bytes),
        available,
        folder,
    )
    return np.asarray(mapped)


def temporary_folder() -> Path:
    """Where large temporary files lie.

    Returns:
        The folder that the environment variable VAEAUG_CACHE names, which may not be there yet; or
        the one for temporary files.
    """
    return Path(os.environ.get(CACHE) or tempfile.gettempdir())


def exceeds_room(n_bytes: int) -> bool:
    """Whether samples take more than half of the memory that is available, and are better mapped.

    Args:
        n_bytes: What they take.

    Returns:
        True where they do.
    """
    available = available_memory()
    return available is not None and n_bytes > available * RESIDENT_SHARE


def mapped(
    file: Path, shape: Sequence[int], dtype: np.dtype[Any], *, offset: int = 0
) -> np.ndarray[Any, Any]:
    """Map a file for reading.

    Args:
        file: The file.
        shape: Shape of the array.
        dtype: Its type.
        offset: Where in the file the values begin, bytes.

    Returns:
        The array, which cannot be written to.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If the file is shorter than the array.
    """
    return np.asarray(np.memmap(file, dtype, "r", offset, shape=tuple(int(n) for n in shape)))


def is_mapped(array: Shaped[np.ndarray, "..."]) -> bool:
    """Whether an array, or what it is a view of, is mapped from a file.

    Args:
        array: The array.

    Returns:
        True where it is.
    """
    return _mapping(array) is not None


def place_of(array: Any) -> tuple[str, int] | None:
    """Where the values of an array lie on the disk, for another process to map them.

    Args:
        array: C-contiguous.

    Returns:
        (the file, the offset of the first byte); None for an array in memory, or whose file has no
        name, or may be changed by whoever has it.
    """
    base = array
    while isinstance(getattr(base, "base", None), np.ndarray):
        base = base.base
    if not isinstance(base, np.memmap) or base.mode != "r" or base.filename is None:
        return None
    if not Path(base.filename).exists():
        return None
    return str(base.filename), int(base.offset + array.ctypes.data - base.ctypes.data)


def will_need(array: Shaped[np.ndarray, "n ..."], rows: Int64[np.ndarray, " m"]) -> None:
    """Have the system read rows of a mapped array ahead, while this process goes on.

    Args:
        array: The array; nothing is done where it is in memory.
        rows: Row numbers.
    """
    mapping = _mapping(array)
    if mapping is None or not array.flags.c_contiguous:
        return
    base = np.frombuffer(mapping, np.uint8).ctypes.data
    first, n_bytes = array.ctypes.data - base, array.strides[0]
    for row in rows.tolist():
        begin = first + row * n_bytes
        page = begin - begin % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_WILLNEED, page, begin + n_bytes - page)


def release(array: Shaped[np.ndarray, "..."]) -> None:
    """Give back the memory that a mapped array's touched pages take; its values stay.

    Args:
        array: The array; nothing is done where it is in memory.
    """
    mapping = _mapping(array)
    if mapping is not None:
        # Of a shared mapping of a file, changed pages included, this loses nothing.
        mapping.madvise(mmap.MADV_DONTNEED)


def taken(
    array: Shaped[np.ndarray, "n ..."], rows: Int64[np.ndarray, " m"], where: str = "rows"
) -> Shaped[np.ndarray, "m ..."]:
    """Copy rows of an array; a mapped one takes little memory meanwhile.

    Args:
        array: The array.
        rows: Row numbers.
        where: Where the array is from, for messages.

    Returns:
        The rows; see `room_for`.

    Raises:
        OSError: If neither memory nor disk can hold them.
    """
    if not is_mapped(array):
        return array[rows]
    what = f"{len(rows):,} samples of {array.dtype} and shape {array.shape[1:]}"
    copy = room_for((len(rows), *array.shape[1:]), array.dtype, where, what, OSError)
    for begin in range(0, len(rows), TOUCHED):
        copy[begin : begin + TOUCHED] = array[rows[begin : begin + TOUCHED]]
        release(array)
        release(copy)
    return copy


class Touched:
    """Gives back what rows of an array take that are read here and there.

    Args:
        array: The array.
    """

    def __init__(self, array: Shaped[np.ndarray, "..."]) -> None:
        self._array, self._n_rows = array, 0

    def add(self, n_rows: int) -> None:
        """Count rows that were read, and give them back where they have become many.

        Args:
            n_rows: How many were read since.
        """
        self._n_rows += n_rows
        if self._n_rows >= TOUCHED:
            release(self._array)
            self._n_rows = 0


def as_tensor(array: Shaped[np.ndarray, "..."]) -> "Tensor":
    """Take an array as a tensor without a copy, though it may not be written to.

    Args:
        array: The array.

    Returns:
        The tensor, which shares its memory: nothing may be written to it.
    """
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _mapping(array: Any) -> mmap.mmap | None:
    while array is not None:
        if isinstance(array, mmap.mmap):
            return array if hasattr(array, "madvise") else None
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return None
