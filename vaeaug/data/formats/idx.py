"""MNIST's IDX files, gzipped or not, with magic number and length checked."""

import gzip
import io
import math
import re
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vaeaug.data.checks import DataError
from vaeaug.data.finish import RawData, RawImages
from vaeaug.data.metadata import SourceMetadata
from vaeaug.data.request import Request
from vaeaug.data.split_names import canonical, require_split
from vaeaug.memory import require_memory

FASHION_MNIST = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag"),
    "Ankle boot",
)
# train-images-idx3-ubyte.gz, t10k-labels.idx1-ubyte, emnist-letters-train-images-idx3-ubyte, ...
_NAME = re.compile(r"(?:.*[-_])?(?P<split>[a-z0-9]+)-(?P<kind>images|labels)[-.]idx\d-ubyte(\.gz)?")

# Read in blocks: memory is not taken for what a damaged file declares before it has come.
_BLOCK = 2**24


def has_idx(folder: Path) -> bool:
    """Whether a folder holds a file named as IDX files are.

    Args:
        folder: The folder.

    Returns:
        True where it does.
    """
    return bool(_files(folder))


def is_idx(path: Path) -> bool:
    """Whether a file is named as IDX images are.

    Args:
        path: The file.

    Returns:
        True where it is.
    """
    match = _NAME.fullmatch(path.name)
    return match is not None and match["kind"] == "images"


def read_idx(folder: Path, request: Request) -> RawData:
    """Read `<split>-images-idx3-ubyte` and its labels, with or without `.gz`.

    Args:
        folder: Where the files lie.
        request: The options of `read`.

    Returns:
        The images, uint8, shape (N, H, W), with their labels.

    Raises:
        DataError: If the split is not there, or a file is damaged.
    """
    where = str(folder)
    files = _files(folder)
    split = require_split(request.split, {split for split, _ in files}, where)
    for kind in ("images", "labels"):
        if (split, kind) not in files:
            raise DataError(
                f"{where}: expected a file of {kind} for the split {split!r}, got only "
                f"{', '.join(path.name for path in files.values())}"
            )
    has_reference = split != "train" and ("train", "labels") in files
    is_fashion = "fashion" in str(folder.resolve()).lower()
    return RawData(
        source=where,
        split=split,
        images=_load(files[split, "images"], rank=3),
        images_at=str(files[split, "images"]),
        labels=_load(files[split, "labels"], rank=1),
        labels_at=str(files[split, "labels"]),
        reference=_load(files["train", "labels"], rank=1) if has_reference else None,
        metadata=SourceMetadata(class_names=FASHION_MNIST if is_fashion else None),
    )


def read_idx_images(path: Path, request: Request) -> RawImages:
    """Read images alone.

    Args:
        path: A folder of IDX files, or one file.
        request: The options of `read`; the split is for a folder.

    Returns:
        The images, uint8, shape (N, H, W).

    Raises:
        DataError: If the split is not there, or the file is damaged.
    """
    if path.is_dir():
        files = {split: file for (split, kind), file in _files(path).items() if kind == "images"}
        path = files[require_split(request.split, files, str(path))]
    return RawImages(source=str(path), images=_load(path, rank=3))


def _files(folder: Path) -> dict[tuple[str, str], Path]:
    """The files by their split and kind."""
    files: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        split = canonical(match["split"]) if match else None
        if match is None or split is None or not path.is_file():
            continue
        key = split, match["kind"]
        # Both x and x.gz: the sorted order has put the plain one first, and it is the same data.
        if key in files and files[key].name != path.name.removesuffix(".gz"):
            raise DataError(
                f"{folder}: expected one file of {key[1]} for the split {split!r}, got "
                f"{files[key].name} and {path.name}"
            )
        files.setdefault(key, path)
    return files


def _load(path: Path, *, rank: int) -> UInt8[np.ndarray, "..."]:
    """An IDX file of bytes: 4 bytes magic, big-endian sizes, then the data."""
    # A zipped file of megabytes may expand to terabytes: no more is read than its head declares.
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            return _parse(file, path, rank)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: expected a gzipped IDX file, got {path.stat().st_size} bytes that cannot "
            f"be read: {error}"
        ) from error


def _parse(file: io.BufferedIOBase, path: Path, rank: int) -> UInt8[np.ndarray, "..."]:
    # 0x08 is "unsigned byte", the only type of the MNIST family.
    expected_magic = 0x0800 + rank
    n_head = 4 + 4 * rank
    head = file.read(n_head)
    magic = int.from_bytes(head[:4], "big")
    if len(head) < n_head or magic != expected_magic:
        raise DataError(
            f"{path}: expected an IDX file with magic number {expected_magic} and a head of "
            f"{n_head} bytes, got magic number {magic} in {_size(path, len(head))} bytes"
        )
    shape = tuple(int(n) for n in np.frombuffer(head, dtype=">u4", offset=4))
    n_values = math.prod(shape)
    expected = f"{path}: expected {n_head + n_values} bytes for shape {shape}"
    n_bytes = _size(path, n_head + n_values)
    if n_bytes != n_head + n_values:
        raise DataError(f"{expected}, got {n_bytes}")
    require_memory(n_values, str(path), f"bytes of shape {shape}", DataError)
    data = bytearray()
    while len(data) < n_values and (part := file.read(min(_BLOCK, n_values - len(data)))):
        data += part
    if file.read(1):
        raise DataError(f"{expected}, got more than {n_head + n_values}")
    if len(data) != n_values:
        raise DataError(f"{expected}, got {n_head + len(data)}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _size(path: Path, if_zipped: int) -> int:
    """The size of a plain file; that of a zipped one, which nothing states, is given."""
    return if_zipped if path.suffix == ".gz" else path.stat().st_size
