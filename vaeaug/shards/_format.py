"""The content of a version 1 shard: names, types and ranks, and the hash of decoded arrays."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

SHARD_FORMAT = "vaeaug-shard"
MANIFEST_FORMAT = "vaeaug-manifest"
FORMAT_VERSION = 1
# Of a manifest with a history or with samples that are left out: readers of version 1 know neither.
SECOND_VERSION = 2
MANIFEST_NAME = "manifest.json"
SHARDS_FOLDER = "shards"
# Where the next generation of a dataset is made, until it takes the place of the present one.
NEXT_FOLDER = "adding"
TMP_SUFFIX = ".tmp"
BLOCK_BYTES = 8 * 2**20  # maximum number of bytes to read and hash at a time
# Tolerance of the sum of k rounded float32 numbers.
SUM_TOLERANCE = 1e-4

Layout = Literal["NHWC", "NLC", "NDHWC"]
DType = Literal["uint8", "float32"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
DTYPES: tuple[str, ...] = get_args(DType)

IMAGES = "images"
# Arrays with one value per sample, in the order in which they are hashed and written.
COLUMNS: Mapping[str, str] = {
    "labels": "<i8",
    "source_index": "<i8",
    "seed": "<u8",
    "weight": "<f4",
    "quality/p_label": "<f4",
    "quality/nn_distance": "<f4",
    "quality/nn_index": "<i8",
}
# Arrays with one vector per sample.
VECTORS: Mapping[str, str] = {"latents": "<f4", "soft_labels": "<f4"}
OPTIONAL = frozenset({"soft_labels"})


class ShardError(ValueError):
    """A shard, manifest or run folder cannot be written, read or trusted.

    Attributes:
        errno: Error number of the system if the cause was an ``OSError``, else None.
    """

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class FormatVersionError(ShardError):
    """A file has a major version that this reader does not support."""


@dataclass(frozen=True, kw_only=True)
class ShardProvenance:
    """The origin of the samples of a shard, stored in its attributes.

    Attributes:
        model_sha256: Hash of the generator's weights, lower-case hexadecimal.
        config_sha256: Hash of the configuration of the run.
        data_fingerprint: Fingerprint of the training split of the generator.
        run_seed: Seed of the run, 0 <= run_seed < 2**64.
        vaeaug_version: Version of the writing library.
        sample_rate: Of sounds, Hz; None where there is none, or it is not known.
    """

    model_sha256: str
    config_sha256: str
    data_fingerprint: str
    run_seed: int
    vaeaug_version: str = "unknown"
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        for name in ("model_sha256", "config_sha256", "data_fingerprint", "vaeaug_version"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value or "\0" in value:
                raise ShardError(f"provenance {name}: expected a non-empty string, got {value!r}")
        if not is_int(self.run_seed) or not 0 <= self.run_seed < 2**64:
            raise ShardError(
                f"provenance run_seed: expected an integer in [0, 2**64), got {self.run_seed!r}"
            )
        rate = self.sample_rate
        if rate is not None and not (is_int(rate) and rate >= 1):
            raise ShardError(f"provenance sample_rate: expected an integer >= 1, got {rate!r}")


def is_int(value: Any) -> bool:
    """Check whether a value is an integer of Python or numpy that is not a bool.

    Args:
        value: The value.

    Returns:
        Whether it is.
    """
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_soft_labels(soft_labels: np.ndarray, label: int, where: str) -> None:
    """Reject rows that are no class probabilities, or that are largest for another class.

    Args:
        soft_labels: Class probabilities, (n, k) float32.
        label: The class of all n samples.
        where: Name of the array, for the message.

    Raises:
        ShardError: If a row is wrong; the message names the first one.
    """
    in_range = ((soft_labels >= 0) & (soft_labels <= 1)).all(axis=1)  # False for NaN
    sums_to_one = np.abs(soft_labels.sum(axis=1, dtype=np.float64) - 1) <= SUM_TOLERANCE
    bad = np.flatnonzero(~(in_range & sums_to_one))
    if bad.size:
        row = soft_labels[bad[0]]
        raise ShardError(
            f"{where}: expected rows of numbers in [0, 1] with sum 1, got {_numbers(row)} with sum "
            f"{row.sum(dtype=np.float64):g} in row {bad[0]} ({bad.size} such rows)"
        )
    mislabelled = np.flatnonzero(soft_labels[:, label] < soft_labels.max(axis=1, initial=0))
    if mislabelled.size:
        raise ShardError(
            f"{where}: expected none larger than that of the label {label}, got "
            f"{_numbers(soft_labels[mislabelled[0]])} in row {mislabelled[0]} "
            f"({mislabelled.size} such rows)"
        )


def _numbers(row: np.ndarray) -> str:
    shown = ", ".join(f"{value:g}" for value in row[:8])
    return f"({shown}, ...)" if len(row) > 8 else f"({shown})"


def one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Convert labels to one-hot class probabilities.

    Args:
        labels: Class indices, (n,).
        n_classes: Number of classes k.

    Returns:
        (n, k) float32.
    """
    rows = np.zeros((len(labels), n_classes), dtype=np.float32)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def stored_dtype(name: str) -> np.dtype[Any]:
    """Return the little-endian type in which images are stored.

    Args:
        name: Name of the type, "uint8" or "float32".

    Returns:
        The type.
    """
    return np.dtype(name).newbyteorder("<")


def check_layout(layout: str, image_shape: Sequence[int], dtype: str, where: str) -> None:
    """Reject an image description that version 1 does not allow.

    Args:
        layout: "NHWC", "NLC" or "NDHWC".
        image_shape: Shape of one image.
        dtype: "uint8" or "float32".
        where: Source of the description, named in errors.

    Raises:
        ShardError: If the description is wrong.
    """
    if layout not in LAYOUTS:
        raise ShardError(f"{where}: expected a layout of {LAYOUTS}, got {layout!r}")
    if dtype not in DTYPES:
        raise ShardError(f"{where}: expected a dtype of {DTYPES}, got {dtype!r}")
    if len(image_shape) != len(layout) - 1 or any(n < 1 for n in image_shape):
        raise ShardError(
            f"{where}: expected {len(layout) - 1} positive image dimensions for layout {layout}, "
            f"got {tuple(image_shape)}"
        )


def check_class_names(class_names: Sequence[str], where: str) -> tuple[str, ...]:
    """Check that class names are unique, non-empty strings.

    Args:
        class_names: The names.
        where: Their source, named in errors.

    Returns:
        The names as a tuple.

    Raises:
        ShardError: If a name is empty, repeated or no string.
    """
    names = tuple(class_names)
    if isinstance(class_names, str) or not names:
        raise ShardError(f"{where}: expected a sequence of class names, got {class_names!r}")
    for name in names:
        if not isinstance(name, str) or not name or "\0" in name:
            raise ShardError(f"{where}: expected class names as non-empty strings, got {name!r}")
    if len(set(names)) != len(names):
        doubled = sorted({n for n in names if names.count(n) > 1})
        raise ShardError(f"{where}: expected each class name once, got {doubled} more than once")
    return names


def decoded_sha256(
    arrays: Mapping[str, np.ndarray], images: Iterable[np.ndarray], shape: Sequence[int]
) -> str:
    """Hash the content of a shard independently of compression, alignment and HDF5 version.

    For ``images``, then every other array of the format in its fixed order, the hash covers the
    line ``name|dtype|shape`` and the values, little-endian, in C order.

    Args:
        arrays: All arrays except the images, by their name in the file; optional ones may be
            missing.
        images: The images in consecutive blocks, so that a large shard is never entirely in memory.
        shape: Shape of all images together, (n, ...).

    Returns:
        SHA-256 in lower-case hexadecimal digits.
    """
    digest = hashlib.sha256(b"vaeaug-shard-decoded-1\n")
    first = True
    for block in images:
        if first:
            digest.update(_header(IMAGES, stored_dtype(block.dtype.name), shape))
            first = False
        digest.update(_bytes(block, stored_dtype(block.dtype.name)))
    for name, code in {**COLUMNS, **VECTORS}.items():
        if name not in arrays:
            continue
        digest.update(_header(name, np.dtype(code), arrays[name].shape))
        digest.update(_bytes(arrays[name], np.dtype(code)))
    return digest.hexdigest()


def blocks(n: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Divide rows into consecutive blocks of about ``BLOCK_BYTES``.

    Args:
        n: Number of rows.
        row_bytes: Bytes per row.

    Yields:
        Ranges [start, stop).
    """
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, n, step):
        yield start, min(n, start + step)


def write_attributes(file: Any, attributes: Mapping[str, Any]) -> None:
    """Write attributes of the root group, with strings of fixed length.

    Strings of variable length are stored in a heap without a checksum, where one damaged byte can
    make HDF5 loop forever.

    Args:
        file: The open ``h5py.File``.
        attributes: Values by name.
    """
    import h5py

    for name, value in attributes.items():
        if isinstance(value, (str, list)):
            encoded = np.char.encode(np.array(value), "utf-8")
            text = h5py.string_dtype("utf-8", encoded.dtype.itemsize)
            file.attrs.create(name, encoded, dtype=text)
        else:
            file.attrs[name] = value


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that write a shard.

    Returns:
        Version of h5py, hdf5 and numpy by name.
    """
    import h5py

    return {
        "h5py": str(h5py.version.version),
        "hdf5": str(h5py.version.hdf5_version),
        "numpy": np.__version__,
    }


def _header(name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> bytes:
    return f"{name}|{dtype.str}|{','.join(str(int(n)) for n in shape)}\n".encode()


def _bytes(array: np.ndarray, dtype: np.dtype[Any]) -> memoryview:
    values = np.ascontiguousarray(array, dtype=dtype)
    return values.reshape(-1).view(np.uint8).data
