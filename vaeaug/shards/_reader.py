"""Reading of one shard. The file is not trusted: sizes and links are checked before use."""

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

_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32"}  # built into HDF5; none loads a plug-in


class ImageStore:
    """The images of one shard; the file is opened on first use in each process.

    Args:
        path: The file.
        shape: Shape of all images, (n, ...).
        dtype: Stored type.
        offset: Byte offset of contiguous images in the file, or None if they are chunked.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int | None
    ) -> None:
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.offset = offset
        self._mapped: np.memmap | None = None
        self._mapped_array: np.ndarray | None = None
        self._file: Any = None
        self._pid = -1

    @property
    def mapped(self) -> bool:
        """Whether the images are memory-mapped rather than decompressed."""
        return self.offset is not None

    def array(self) -> Any:
        """Return the images: a read-only ``numpy.memmap`` or, if chunked, an ``h5py.Dataset``.

        Returns:
            All images, (n, ...).

        Raises:
            ShardError: If the file has disappeared or become shorter.
        """
        if self.offset is not None:
            if self._mapped is None:
                self._mapped = self._map(self.offset)
                # Slicing the subclass takes microseconds each time.
                self._mapped_array = self._mapped.view(np.ndarray)
            return self._mapped
        if self._file is None or self._pid != os.getpid():  # a handle does not survive a fork
            self._file, self._pid = _open(self.path), os.getpid()
        return self._file[IMAGES]

    def take(self, rows: np.ndarray, out: np.ndarray, positions: np.ndarray) -> None:
        """Copy images into an array.

        Args:
            rows: Row numbers in the shard.
            out: Destination array.
            positions: Their positions in ``out``.

        Raises:
            ShardError: If an image cannot be decompressed.
        """
        source = self.array()
        if self.mapped:
            out[positions] = source[rows]
            return
        for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
            try:
                out[position] = source[row]
            except OSError as error:
                raise ShardError(
                    f"{self.path}: image {row} cannot be decompressed: {error}"
                ) from error

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Copy images.

        Args:
            rows: Row numbers in the shard.

        Returns:
            The images, in this order, (n, ...).

        Raises:
            ShardError: If an image cannot be decompressed.
        """
        if self.mapped and self._mapped_array is None:
            self.array()
        if self._mapped_array is not None:
            return self._mapped_array.take(rows, axis=0)
        out = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        self.take(rows, out, np.arange(len(rows)))
        return out

    def image(self, row: int) -> np.ndarray:
        """Copy one image.

        Args:
            row: Row number in the shard.

        Returns:
            The image.

        Raises:
            ShardError: If the image cannot be decompressed.
        """
        if self._mapped_array is None:
            self.array()
        if self._mapped_array is not None:
            return self._mapped_array[row].copy()
        out = np.empty((1, *self.shape[1:]), dtype=self.dtype)
        self.take(np.array([row]), out, np.array([0]))
        return cast(np.ndarray, out[0])

    def blocks(self) -> Iterator[np.ndarray]:
        """Read all images in order, a few megabytes at a time.

        Yields:
            Blocks of images, (m, ...).
        """
        source = self.array()
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        for start, stop in blocks(self.shape[0], row_bytes):
            yield source[start:stop]

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._mapped = self._mapped_array = None
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None, "_plain": None, "_file": None, "_pid": -1}

    def _map(self, offset: int) -> np.memmap:
        needed = offset + math.prod(self.shape) * self.dtype.itemsize
        try:
            size = self.path.stat().st_size
            if size < needed:  # accessing a map beyond the end would kill the process
                raise ShardError(
                    f"{self.path}: truncated: expected at least {needed} bytes, got {size}"
                )
            return np.memmap(
                self.path, dtype=self.dtype, mode="r", offset=offset, shape=self.shape, order="C"
            )
        except OSError as error:
            raise ShardError(f"{self.path}: cannot be read: {error}", errno=error.errno) from error


class Shard:
    """One shard file: its arrays and attributes.

    All arrays except the images are in memory. Contiguous images are memory-mapped, chunked ones
    are decompressed one by one. File handles are not pickled.

    Args:
        path: The ``.h5`` file.

    Attributes:
        attributes: Attributes of the file by name, as plain Python types.
        class_names: Names of all classes, in the order of the labels.
        layout: "NHWC", "NLC" or "NDHWC".
        dtype: "uint8" or "float32".
        image_shape: Shape of one image.
        value_range: Smallest and largest value that an image may have.

    Raises:
        ShardError: If the file is missing, damaged, no shard, or links to other files.
        FormatVersionError: If it has an unsupported major version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = _open(self.path)
        try:
            with file:
                self._read(file)
        except ShardError:
            raise
        except Exception as error:  # a damaged file can raise anything
            raise ShardError(
                f"{self.path}: expected a shard, got a damaged file: {type(error).__name__}: "
                f"{error}"
            ) from error

    def __len__(self) -> int:
        return self.store.shape[0]

    @property
    def label(self) -> int:
        """Class index of all its samples."""
        return int(self.attributes["label"])

    @property
    def images(self) -> Any:
        """Images, (n, ...): a read-only ``numpy.memmap`` or, if compressed, an ``h5py.Dataset``."""
        return self.store.array()

    @property
    def labels(self) -> np.ndarray:
        """Class indices, (n,) int64."""
        return self.arrays["labels"]

    @property
    def latents(self) -> np.ndarray:
        """Latents, (n, z) float32."""
        return self.arrays["latents"]

    @property
    def soft_labels(self) -> np.ndarray | None:
        """Class probabilities, (n, k) float32, or None."""
        return self.arrays.get("soft_labels")

    @property
    def source_index(self) -> np.ndarray:
        """Row of the real image from which each sample was made, -1 for none, (n,) int64."""
        return self.arrays["source_index"]

    @property
    def seed(self) -> np.ndarray:
        """Seeds, (n,) uint64."""
        return self.arrays["seed"]

    @property
    def weight(self) -> np.ndarray:
        """Loss weights, (n,) float32."""
        return self.arrays["weight"]

    @property
    def p_label(self) -> np.ndarray:
        """Probability of the label by a classifier of real images, (n,) float32."""
        return self.arrays["quality/p_label"]

    @property
    def nn_distance(self) -> np.ndarray:
        """Distance to the nearest real image, (n,) float32."""
        return self.arrays["quality/nn_distance"]

    @property
    def nn_index(self) -> np.ndarray:
        """Row of the nearest real image, (n,) int64."""
        return self.arrays["quality/nn_index"]

    def images_at(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Copy some images.

        Args:
            rows: Row numbers in the shard.

        Returns:
            The images, in this order, (n, ...).
        """
        return self.store.images(np.asarray(rows, dtype=np.int64))

    def soft_labels_at(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the class probabilities of some samples.

        Args:
            rows: Row numbers in the shard.

        Returns:
            (n, k) float32; one-hot if the shard has no soft labels.
        """
        index = np.asarray(rows, dtype=np.int64)
        if self.soft_labels is None:
            return one_hot(self.labels[index], len(self.class_names))
        return self.soft_labels[index].astype(np.float32, copy=False)

    def sha256_decoded(self) -> str:
        """Hash all arrays, independently of the compression.

        Returns:
            SHA-256 in lower-case hexadecimal digits.

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
        """Close the file; the next use of ``images`` opens it again."""
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
        for name in ("format", "format_version"):  # first, because later versions may move the rest
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
        # A published shard is never written again and needs no lock, which some file systems lack.
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
    """Read an attribute as plain Python types.

    Types that are stored in the global heap of HDF5 are rejected unread: it has no checksum, and a
    damaged one can make HDF5 loop forever.
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
    """Return the dataset ``name``, if it is stored in this file."""
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
    """Return the offset of contiguous data, None for chunks; incomplete data is rejected.

    HDF5 silently returns zeros for storage that was never written.
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
            actual == required or required == "z"
            for actual, required in zip(dataset.shape, expected, strict=True)
        )
        if dataset.dtype != np.dtype(code) or not fits:
            raise ShardError(
                f"{path}: {name}: expected {np.dtype(code).name} {expected}, got {dataset.dtype} "
                f"{dataset.shape}"
            )
        _offset(dataset, path)
        arrays[name] = np.asarray(dataset[...])
    return arrays
