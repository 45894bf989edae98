"""NumPy `.npz` archives and `.npy` arrays, never unpickled."""

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.formats.named_arrays import choose, choose_images
from vaeaug.data.labels import labelled, normalise_labels
from vaeaug.data.metadata import Stated, stated
from vaeaug.data.request import STORED_LAYOUTS, Request
from vaeaug.memory import array_bytes, require_memory

# NumPy's own limit, and what a header of any array of numbers stays below.
_MOST_HEADER = 10_000


def read_npz(path: Path, request: Request) -> LabelledImages:
    """Read an `.npz` file; see `read` for the names that its arrays may have."""
    where = str(path)
    with _archive(path) as archive:
        pair = choose(_names(archive), request, where)
        raw_images = _member(archive, pair.images, where)
        raw_labels = _member(archive, pair.labels, where)
        reference = None if pair.reference is None else _member(archive, pair.reference, where)
        said = _stated(archive, where)
    if raw_images.ndim and raw_labels.ndim and len(raw_images) != len(raw_labels):
        raise DataError(
            f"{where}: expected one label for each image, got {len(raw_images)} images in "
            f"{pair.images!r} and {len(raw_labels)} labels in {pair.labels!r}"
        )
    images, value_range, notes = said.finish(raw_images, f"{where}[{pair.images}]", request)
    labels, class_names, label_notes = normalise_labels(
        raw_labels,
        f"{where}[{pair.labels}]",
        request,
        stated=said.class_names,
        reference=reference,
    )
    return labelled(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=pair.split,
        source=where,
        notes=(*pair.notes, *label_notes, *notes),
    )


def _stated(archive: zipfile.ZipFile, where: str) -> Stated:
    """The arrays `class_names`, `layout` and `image_value_range`, which `vaeaug export` writes.

    In the archives of others these names may mean anything: what does not look like ours is left.
    """
    document = {}
    for key, kind, rank in (
        ("class_names", "U", 1),
        ("layout", "U", 0),
        ("image_value_range", "f", 1),
    ):
        if f"{key}.npy" not in archive.namelist():
            continue
        try:
            array = _member(archive, key, where)
        except DataError:
            continue
        if array.dtype.kind == kind and array.ndim == rank:
            document[key] = array.tolist()
    if document.get("layout") not in STORED_LAYOUTS:
        document.pop("layout", None)
    return stated(document, where)


def load_npz_images(path: Path, request: Request) -> tuple[Shaped[np.ndarray, "..."], str]:
    """The images alone, as stored, and where they were, for messages."""
    with _archive(path) as archive:
        key = choose_images(_names(archive), request, str(path))
        return _member(archive, key, str(path)), f"{path}[{key}]"


def load_npy(path: Path) -> Shaped[np.ndarray, "..."]:
    """The array of an `.npy` file, never unpickled."""
    where = str(path)
    with _array_errors(where), open(path, "rb") as file:
        return _array(file, path.stat().st_size, where)


def npy_array(data: bytes, where: str) -> Shaped[np.ndarray, "..."]:
    """The array of an `.npy` file held in memory, never unpickled."""
    with _array_errors(where):
        return _array(io.BytesIO(data), len(data), where)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: expected an .npz file (a zip archive of arrays), got {path.stat().st_size} "
            f"bytes that cannot be read: {error}"
        ) from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]


def _member(archive: zipfile.ZipFile, key: str, where: str) -> Shaped[np.ndarray, "..."]:
    info = archive.getinfo(f"{key}.npy")
    with _array_errors(f"{where}[{key}]"), archive.open(info) as file:
        return _array(file, info.file_size, f"{where}[{key}]")


@contextmanager
def _array_errors(where: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of NumPy's parser of headers, of zip, of zlib
        raise DataError(f"{where}: expected a NumPy array, got: {error}") from error


def _array(file: IO[bytes], n_bytes: int, where: str) -> Shaped[np.ndarray, "..."]:
    """One array; its header is checked before any data is read."""
    version = np.lib.format.read_magic(file)
    _check_header(file, version, where)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
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
            f"its header says {expected} bytes ({dtype}, shape {shape}), it has {n_bytes}"
        )
    what = f"an array of {dtype} of shape {shape}"
    require_memory(array_bytes(shape, dtype), where, what, DataError)
    file.seek(0)
    array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _check_header(file: IO[bytes], version: tuple[int, int], where: str) -> None:
    """Refuse a header that NumPy would read whole, however long it says it is, to refuse it."""
    width = 2 if version == (1, 0) else 4
    at = file.tell()
    length = int.from_bytes(file.read(width), "little")
    file.seek(at)
    if length > _MOST_HEADER:
        raise DataError(
            f"{where}: expected an array with a header of at most {_MOST_HEADER} bytes, got "
            f"{length:,}"
        )
