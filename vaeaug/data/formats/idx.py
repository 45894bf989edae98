"""MNIST's IDX files, gzipped or not, with magic number and length checked."""

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.labels import labelled, normalise_labels
from vaeaug.data.pixels import finish_pixels
from vaeaug.data.request import Request
from vaeaug.data.splits import canonical, require_split
from vaeaug.memory import require_memory

FASHION_MNIST = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# train-images-idx3-ubyte.gz, t10k-labels.idx1-ubyte, emnist-letters-train-images-idx3-ubyte, ...
_NAME = re.compile(r"(?:.*[-_])?(?P<split>[a-z0-9]+)-(?P<kind>images|labels)[-.]idx\d-ubyte(\.gz)?")

# Read at once: what a damaged file declares is not asked for before it has come.
_BLOCK = 2**24


def has_idx(folder: Path) -> bool:
    """Whether the folder holds a file named as IDX files are."""
    return bool(_files(folder))


def read_idx(folder: Path, request: Request) -> LabelledImages:
    """Read `<split>-images-idx3-ubyte` and its labels, with or without `.gz`."""
    where = str(folder)
    files = _files(folder)
    splits = {split for split, _ in files}
    split = require_split(request.split, splits, where)
    for kind in ("images", "labels"):
        if (split, kind) not in files:
            raise DataError(
                f"{where}: expected a file of {kind} for the split {split!r}, got only "
                f"{', '.join(path.name for path in files.values())}"
            )
    raw_images = _load(files[split, "images"], rank=3)
    raw_labels = _load(files[split, "labels"], rank=1)
    if len(raw_images) != len(raw_labels):
        raise DataError(
            f"{where}: expected one label for each image, got {len(raw_images)} images in "
            f"{files[split, 'images'].name} and {len(raw_labels)} labels in "
            f"{files[split, 'labels'].name}"
        )
    reference = None
    if split != "train" and ("train", "labels") in files:
        reference = _load(files["train", "labels"], rank=1)
    names = None
    if "fashion" in str(folder.resolve()).lower():
        names = FASHION_MNIST
    images, value_range, notes = finish_pixels(raw_images, str(files[split, "images"]), request)
    labels, class_names, label_notes = normalise_labels(
        raw_labels, str(files[split, "labels"]), request, stated=names, reference=reference
    )
    return labelled(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=split,
        source=where,
        notes=(*label_notes, *notes),
    )


def is_idx(path: Path) -> bool:
    """Whether a file is named as IDX images are."""
    match = _NAME.fullmatch(path.name)
    return match is not None and match["kind"] == "images"


def load_idx_images(path: Path, split: str) -> tuple[UInt8[np.ndarray, "n h w"], str]:
    """The images alone, of a folder's split or of one file, and where they were."""
    if path.is_dir():
        files = {s: file for (s, kind), file in _files(path).items() if kind == "images"}
        path = files[require_split(split, files, str(path))]
    return _load(path, rank=3), str(path)


def _files(folder: Path) -> dict[tuple[str, str], Path]:
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
            return _read(file, path, rank)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: expected a gzipped IDX file, got {path.stat().st_size} bytes that cannot "
            f"be read: {error}"
        ) from error


def _read(file: IO[bytes] | gzip.GzipFile, path: Path, rank: int) -> UInt8[np.ndarray, "..."]:
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
    expected = math.prod(shape)
    n_bytes = _size(path, n_head + expected)
    if n_bytes != n_head + expected:
        raise DataError(
            f"{path}: expected {n_head + expected} bytes for shape {shape}, got {n_bytes}"
        )
    require_memory(expected, str(path), f"bytes of shape {shape}", DataError)
    data = bytearray()
    while len(data) < expected and (part := file.read(min(_BLOCK, expected - len(data)))):
        data += part
    more = len(file.read(1))
    if len(data) != expected or more:
        got = f"more than {n_head + expected}" if more else n_head + len(data)
        raise DataError(f"{path}: expected {n_head + expected} bytes for shape {shape}, got {got}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _size(path: Path, zipped: int) -> int:
    """The size of a plain file; that of a zipped one, which nothing says, is given."""
    return zipped if path.suffix == ".gz" else path.stat().st_size
