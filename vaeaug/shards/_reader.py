"""Reads one shard. The file is distrusted: every size and link is checked before it is followed."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np

from vaeaug.shards._format import (
    COLUMNS,
    FORMAT_VERSION,
    IMAGES,
    OPTIONAL,
    SHARD_FORMAT,
    VECTORS,
    FormatVersionError,
    ShardError,
    blocks,
    check_class_names,
    check_layout,
    decoded_sha256,
    is_int,
    one_hot,
)

_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32"}  # HDF5's own; none loads a plug-in


class ImageStore:
    """The images of one shard, opened when first used and again in every process.

    Args:
        path: The file.
        shape: Shape of all images, (n, ...).
        dtype: Stored type.
        offset: Byte in the file where contiguous images begin, or None where they are in chunks.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int | None
    ) -> None:
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.offset = offset
        self._mapped: np.memmap | None = None
        self._plain: np.ndarray | None = None
        self._file: Any = None
        self._pid = -1

    @property
    def mapped(self) -> bool:
        """True where the images are mapped from the file, False where they are decompressed."""
        return self.offset is not None

    def array(self) -> Any:
        """A read-only ``numpy.memmap``, or an ``h5py.Dataset`` where the images are in chunks.

        Raises:
            ShardError: If the file is gone or has become shorter.
        """
        if self.offset is not None:
            if self._mapped is None:
                self._mapped = self._map(self.offset)
                # Each slice of the subclass costs microseconds.
                self._plain = self._mapped.view(np.ndarray)
            return self._mapped
        if self._file is None or self._pid != os.getpid():  # a handle does not survive a fork
            self._file, self._pid = _open(self.path), os.getpid()
        return self._file[IMAGES]

    def take(self, rows: np.ndarray, out: np.ndarray, at: np.ndarray) -> None:
        """Copy images ``rows`` to ``out[at]``."""
        source = self.array()
        if self.mapped:
            out[at] = source[rows]
            return
        for row, position in zip(rows.tolist(), at.tolist(), strict=True):
            try:
                out[position] = source[row]
            except OSError as error:
                raise ShardError(
                    f"{self.path}: image {row} cannot be decompressed: {error}"
                ) from error

    def image(self, row: int) -> np.ndarray:
        """A copy of one image."""
        if self._plain is None:
            self.array()
        if self._plain is not None:
            return self._plain[row].copy()
        out = np.empty((1, *self.shape[1:]), dtype=self.dtype)
        self.take(np.array([row]), out, np.array([0]))
        return cast(np.ndarray, out[0])

    def blocks(self) -> Iterator[np.ndarray]:
        """All images in order, a few megabytes at a time."""
        source = self.array()
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        for start, stop in blocks(self.shape[0], row_bytes):
            yield source[start:stop]

    def close(self) -> None:
        """Give the file handles back; the next use opens them again."""
        self._mapped = self._plain = None
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None, "_plain": None, "_file": None, "_pid": -1}

    def _map(self, offset: int) -> np.memmap:
        needed = offset + math.prod(self.shape) * self.dtype.itemsize
        try:
            size = self.path.stat().st_size
            if size < needed:  # a map past the end would kill the process
                raise ShardError(
                    f"{self.path}: truncated: expected at least {needed} bytes, got {size}"
                )
            return np.memmap(
                self.path, dtype=self.dtype, mode="r", offset=offset, shape=self.shape, order="C"
            )
        except OSError as error:
            raise ShardError(f"{self.path}: cannot be read: {error}", errno=error.errno) from error


class Shard:
    """One shard file: its arrays and what it says about itself.

    All arrays but the images are in memory; the images are mapped from the file, or decompressed
    one by one where they are in chunks. Pickles without its file handles.

    Args:
        path: The ``.h5`` file.

    Attributes:
        attributes: The file's attributes by name, as plain Python.
        class_names: Names of all classes, in the order of the labels.
        layout: "NHWC", "NLC" or "NDHWC".
        dtype: "uint8" or "float32".
        image_shape: Shape of one image.
        value_range: Smallest and largest value that an image may have.

    Raises:
        ShardError: If the file is missing, damaged, no shard, or links outside itself.
        FormatVersionError: If it is of another major version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = _open(self.path)
        try:
            with file:
                self._read(file)
        except ShardError:
            raise
        except Exception as error:  # what HDF5 makes of damage is many things
            raise ShardError(
                f"{self.path}: expected a shard, got a damaged file: {type(error).__name__}: "
                f"{error}"
            ) from error

    def __len__(self) -> int:
        return self.store.shape[0]

    @property
    def label(self) -> int:
        """The class of every sample in it."""
        return int(self.attributes["label"])

    @property
    def images(self) -> Any:
        """(n, ...): a read-only ``numpy.memmap``, or an ``h5py.Dataset`` for compressed images."""
        return self.store.array()

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64."""
        return self.arrays["labels"]

    @property
    def latents(self) -> np.ndarray:
        """(n, z) float32."""
        return self.arrays["latents"]

    @property
    def soft_labels(self) -> np.ndarray | None:
        """(n, k) float32 class probabilities, or None."""
        return self.arrays.get("soft_labels")

    @property
    def source_index(self) -> np.ndarray:
        """(n,) int64: row of the real image behind each sample, -1 for none."""
        return self.arrays["source_index"]

    @property
    def seed(self) -> np.ndarray:
        """(n,) uint64."""
        return self.arrays["seed"]

    @property
    def weight(self) -> np.ndarray:
        """(n,) float32 loss weights."""
        return self.arrays["weight"]

    @property
    def p_label(self) -> np.ndarray:
        """(n,) float32: probability of the label by a real-only classifier."""
        return self.arrays["quality/p_label"]

    @property
    def nn_distance(self) -> np.ndarray:
        """(n,) float32: distance to the nearest real image."""
        return self.arrays["quality/nn_distance"]

    @property
    def nn_index(self) -> np.ndarray:
        """(n,) int64: row of the nearest real image."""
        return self.arrays["quality/nn_index"]

    def images_at(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Copies of the images in ``rows``, in that order."""
        index = np.asarray(rows, dtype=np.int64)
        out = np.empty((len(index), *self.image_shape), dtype=self.store.dtype)
        self.store.take(index, out, np.arange(len(index)))
        return out

    def soft_labels_at(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Class probabilities of ``rows``, (n, k) float32; one-hot where the shard has none."""
        index = np.asarray(rows, dtype=np.int64)
        if self.soft_labels is None:
            return one_hot(self.labels[index], len(self.class_names))
        return self.soft_labels[index].astype(np.float32, copy=False)

    def sha256_decoded(self) -> str:
        """Hash of all arrays, the same for every compression.

        Raises:
            ShardError: If an image cannot be decompressed.
        """
        try:
            return decoded_sha256(self.arrays, self.store.blocks(), self.store.shape)
        except ShardError:
            raise
        except Exception as error:
            raise ShardError(f"{self.path}: images cannot be read: {error}") from error

    def close(self) -> None:
        """Give the file handles back; the next use of ``images`` opens them again."""
        self.store.close()

    def __enter__(self) -> "Shard":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, file: Any) -> None:
        path = self.path
        self.attributes: dict[str, Any] = {}
        for name in ("format", "format_version"):  # before anything that a later version may move
            self.attributes[name] = _attribute(file, name, path)
        if self.attributes["format"] != SHARD_FORMAT:
            raise ShardError(
                f"{path}: expected format {SHARD_FORMAT!r}, got {self.attributes['format']!r}"
            )
        version = self.attributes["format_version"]
        if not is_int(version) or version != FORMAT_VERSION:
            raise FormatVersionError(
                f"{path}: expected format_version {FORMAT_VERSION}, got {version!r}; a newer "
                f"vaeaug may read it"
            )
        for name, kind in _ATTRIBUTES.items():
            value = _attribute(file, name, path)
            if not isinstance(value, kind):
                raise ShardError(
                    f"{path}: attribute {name}: expected {kind.__name__}, got {value!r}"
                )
            self.attributes[name] = value
        self.class_names = check_class_names(
            self.attributes["class_names"], f"{path}: attribute class_names"
        )
        self.layout: str = self.attributes["layout"]
        low, high = self.attributes["image_value_range"]
        self.value_range = (float(low), float(high))

        images = _dataset(file, IMAGES, path)
        shape = tuple(int(n) for n in images.shape)
        self.dtype: str = images.dtype.name
        self.image_shape = shape[1:]
        check_layout(self.layout, self.image_shape, self.dtype, f"{path}: images")
        if shape[0] < 1:
            raise ShardError(f"{path}: images: expected at least one sample, got none")
        self.store = ImageStore(path, shape, images.dtype, _offset(images, path))
        self.arrays = _read_arrays(file, shape[0], len(self.class_names), path)
        if not 0 <= self.label < len(self.class_names):
            raise ShardError(
                f"{path}: attribute label: expected an index in [0, {len(self.class_names)}), "
                f"got {self.label}"
            )


_ATTRIBUTES: dict[str, type] = {
    "synthetic": bool,
    "layout": str,
    "label": int,
    "class_names": list,
    "image_value_range": list,
    "sampler": str,
    "model_sha256": str,
    "config_sha256": str,
    "data_fingerprint": str,
    "run_seed": int,
    "shard_index": int,
    "vaeaug_version": str,
    "h5py_version": str,
    "hdf5_version": str,
    "numpy_version": str,
}


def _open(path: Path) -> Any:
    import h5py

    try:
        # A published shard is never written again, so it needs no lock, and some file systems have
        # none.
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        raise ShardError(
            f"{path}: expected a shard, got no such file", errno=error.errno
        ) from error
    except OSError as error:
        raise ShardError(
            f"{path}: expected an HDF5 file, got a damaged or other file: {error}",
            errno=error.errno,
        ) from error


def _attribute(file: Any, name: str, path: Path) -> Any:
    """An attribute as plain Python.

    Types that are kept in HDF5's global heap are refused unread: it has no checksum, and a damaged
    one can keep HDF5 busy for ever.
    """
    import h5py

    if name not in file.attrs:
        raise ShardError(f"{path}: expected the attribute {name!r}, which is missing")
    stored = file.attrs.get_id(name).get_type()
    plain = (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID, h5py.h5t.TypeEnumID)
    fixed = isinstance(stored, h5py.h5t.TypeStringID) and not stored.is_variable_str()
    if not fixed and not isinstance(stored, plain):
        raise ShardError(
            f"{path}: attribute {name}: expected numbers or strings of fixed length, got "
            f"{type(stored).__name__.removeprefix('Type').removesuffix('ID').lower()} of another "
            f"kind"
        )
    value = np.asarray(file.attrs[name])
    if fixed:
        value = np.char.decode(value, "utf-8")
    return value.tolist()


def _dataset(file: Any, name: str, path: Path) -> Any:
    """The dataset ``name``, if it lies in this file itself."""
    import h5py

    group = file
    for part in name.split("/"):
        if not isinstance(group, h5py.Group):
            raise ShardError(f"{path}: {name}: expected a group on the way, got a dataset")
        link = group.get(part, getlink=True, default=None)
        if link is None:
            raise ShardError(f"{path}: expected the dataset {name!r}, which is missing")
        if type(link) is not h5py.HardLink:
            raise ShardError(
                f"{path}: {name}: expected data in this file, got {type(link).__name__}, which is "
                f"not followed"
            )
        group = group[part]
    if not isinstance(group, h5py.Dataset):
        raise ShardError(f"{path}: {name}: expected a dataset, got {type(group).__name__}")
    if group.is_virtual or group.external:
        raise ShardError(
            f"{path}: {name}: expected data in this file, got a virtual or external dataset, which "
            f"is not followed"
        )
    return group


def _offset(dataset: Any, path: Path) -> int | None:
    """Where contiguous data begins, None for chunks; refuses data that is not all there.

    HDF5 gives zeros for storage that was never written, without a word.
    """
    plan = dataset.id.get_create_plist()
    filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
    if not filters <= _FILTERS.keys():
        raise ShardError(
            f"{path}: {dataset.name}: expected no filters but {sorted(_FILTERS.values())}, got "
            f"numbers {sorted(filters - _FILTERS.keys())}"
        )
    if dataset.chunks is not None:
        expected = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        if dataset.id.get_num_chunks() != expected:
            raise ShardError(
                f"{path}: {dataset.name}: expected {expected} chunks, got "
                f"{dataset.id.get_num_chunks()}"
            )
        return None
    offset = dataset.id.get_offset()
    if offset is None:
        if dataset.size == 0 and dataset.name != "/" + IMAGES:
            return None
        raise ShardError(f"{path}: {dataset.name}: expected contiguous or chunked data, got none")
    end = int(offset) + dataset.size * dataset.dtype.itemsize
    size = path.stat().st_size
    if end > size:
        raise ShardError(
            f"{path}: truncated: {dataset.name}: expected at least {end} bytes, got {size}"
        )
    return int(offset)


def _read_arrays(file: Any, n: int, n_classes: int, path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for name, code in {**COLUMNS, **VECTORS}.items():
        if name in OPTIONAL and name not in file:
            continue
        dataset = _dataset(file, name, path)
        expected: tuple[int | str, ...] = (n,)
        if name in VECTORS:
            expected = (n, n_classes) if name == "soft_labels" else (n, "z")
        fits = len(dataset.shape) == len(expected) and all(
            have == want or want == "z" for have, want in zip(dataset.shape, expected, strict=True)
        )
        if dataset.dtype != np.dtype(code) or not fits:
            raise ShardError(
                f"{path}: {name}: expected {np.dtype(code).name} {expected}, got {dataset.dtype} "
                f"{dataset.shape}"
            )
        _offset(dataset, path)
        arrays[name] = np.asarray(dataset[...])
    return arrays
