"""NumPy `.npz` archives and `.npy` arrays, never unpickled."""

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.checks import DataError, data_errors
from vaeaug.data.finish import RawData, RawImages
from vaeaug.data.formats.named_arrays import choose_arrays, choose_images, load_arrays
from vaeaug.data.metadata import SourceMetadata, parse_metadata
from vaeaug.data.request import STORED_LAYOUTS, Request
from vaeaug.mapping import MOST_PACKED, exceeds_room, room_for
from vaeaug.memory import array_bytes, require_memory

# Errors come from NumPy's parser of headers, from zip and from zlib.
_ARRAY = "a NumPy array"
_Binary = io.BufferedIOBase | IO[bytes]
# NumPy's own limit; the header of an array of numbers is always shorter.
_MOST_HEADER = 10_000
# Bytes that are unpacked at a time.
_PIECE = 2**24
# Arrays that `vaeaug export` writes beside images and labels: their kind of type and their rank.
_STATED = {"class_names": ("U", 1), "layout": ("U", 0), "image_value_range": ("f", 1)}


def read_npz(path: Path, request: Request) -> RawData:
    """Read an `.npz` file; see `read` for the names that its arrays may have.

    Args:
        path: The file.
        request: The options of `read`.

    Returns:
        The images of the requested split with their labels.

    Raises:
        DataError: If no names are known, or an array is damaged or needs pickle.
    """
    where = str(path)
    with _open_archive(path) as archive:
        names = choose_arrays(_names(archive), request, where)
        load = partial(_load_member, archive, where)
        return load_arrays(names, where, load, _metadata(archive, where))


def read_npz_images(path: Path, request: Request) -> RawImages:
    """Read the images of an `.npz` file alone.

    Args:
        path: The file.
        request: The options of `read_pool`.

    Returns:
        The images as stored.

    Raises:
        DataError: As `read_npz`.
    """
    where = str(path)
    with _open_archive(path) as archive:
        name = choose_images(_names(archive), request, where)
        images = _load_member(archive, where, name)
    return RawImages(source=where, images=images, images_at=f"{where}[{name}]")


def load_npy(path: Path) -> Shaped[np.ndarray, "..."]:
    """Load the array of an `.npy` file, never unpickled.

    Args:
        path: The file.

    Returns:
        The array.

    Raises:
        DataError: If it is damaged, needs pickle, or memory cannot hold it.
    """
    where = str(path)
    with data_errors(where, _ARRAY), open(path, "rb") as file:
        n_bytes = path.stat().st_size
        return _load_array(file, n_bytes, n_bytes, where)


def parse_npy(data: bytes, where: str) -> Shaped[np.ndarray, "..."]:
    """Load the array of an `.npy` file held in memory.

    Args:
        data: The content of the file.
        where: Its place, for messages.

    Returns:
        The array.

    Raises:
        DataError: As `load_npy`.
    """
    with data_errors(where, _ARRAY):
        return _load_array(io.BytesIO(data), len(data), len(data), where)


def _metadata(archive: zipfile.ZipFile, where: str) -> SourceMetadata:
    """What the arrays state that `vaeaug export` writes.

    In the archives of others these names may mean anything: what does not look like ours is left.
    """
    document = {}
    for name, (kind, rank) in _STATED.items():
        if f"{name}.npy" not in archive.namelist():
            continue
        try:
            array = _load_member(archive, where, name)
        except DataError:
            continue
        if array.dtype.kind == kind and array.ndim == rank:
            document[name] = array.tolist()
    if document.get("layout") not in STORED_LAYOUTS:
        document.pop("layout", None)
    return parse_metadata(document, where)


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DataError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path}: expected an .npz file (a zip archive of arrays), got {path.stat().st_size} "
            f"bytes that cannot be read: {error}"
        ) from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _load_member(archive: zipfile.ZipFile, where: str, name: str) -> Shaped[np.ndarray, "..."]:
    info = archive.getinfo(f"{name}.npy")
    with data_errors(f"{where}[{name}]", _ARRAY), archive.open(info) as file:
        return _load_array(file, info.file_size, info.compress_size, f"{where}[{name}]")


def _load_array(
    file: _Binary, n_bytes: int, n_packed: int, where: str
) -> Shaped[np.ndarray, "..."]:
    """One array; its header is checked before any data is read. On disk it takes `n_packed`."""
    version = np.lib.format.read_magic(file)
    _check_header(file, version, where)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"array format version {version} is for structured arrays")
    if dtype.hasobject:
        raise DataError(
            f"{where}: expected numbers or text, but it is an object array, which needs pickle; "
            f"never loaded, because a pickle can run any code; save it again with a numeric dtype"
        )
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    if n_bytes != expected:
        raise ValueError(
            f"its header declares {expected} bytes ({dtype}, shape {shape}), it has {n_bytes}"
        )
    what = f"an array of {dtype} of shape {shape}"
    n_values_bytes = math.prod(shape) * dtype.itemsize
    if is_fortran or dtype.kind in "SU" or not exceeds_room(n_values_bytes):
        require_memory(array_bytes(shape, dtype), where, what, DataError)
        file.seek(0)
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return array
    # A small file may expand to terabytes; only one that holds them is given a file of its own.
    if n_values_bytes > MOST_PACKED * n_packed:
        require_memory(array_bytes(shape, dtype), where, what, DataError)
    array = room_for(shape, dtype, where, what, DataError)
    view, n_read = array.reshape(-1).view(np.uint8), 0
    while piece := file.read(_PIECE):
        view[n_read : n_read + len(piece)] = np.frombuffer(piece, np.uint8)
        n_read += len(piece)
    if n_read != len(view):
        raise ValueError(f"its values are {n_values_bytes:,} bytes, it has {n_read:,} of them")
    return array


def _check_header(file: _Binary, version: tuple[int, int], where: str) -> None:
    """Refuse a long header, which NumPy would read whole before it refuses it."""
    width = 2 if version == (1, 0) else 4
    start = file.tell()
    length = int.from_bytes(file.read(width), "little")
    file.seek(start)
    if length > _MOST_HEADER:
        raise DataError(
            f"{where}: expected an array with a header of at most {_MOST_HEADER} bytes, got "
            f"{length:,}"
        )
