"""WebDataset: tar archives of samples, in splits; needs the extra ``vaeaug[webdataset]``."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from vaeaug.data.checks import DataError, data_errors
from vaeaug.data.decode import ENDINGS, BadImageError, decode_bytes
from vaeaug.data.decoded_cache import decoded
from vaeaug.data.finish import RawData
from vaeaug.data.formats.extras import import_extra
from vaeaug.data.formats.npz import parse_npy
from vaeaug.data.formats.tar import TarIndex, is_tar, read_index, read_samples
from vaeaug.data.labels import UNLABELLED, is_whole
from vaeaug.data.metadata import SourceMetadata, class_names_beside, parse_json
from vaeaug.data.request import Request
from vaeaug.data.split_names import canonical, mentioned, select_split
from vaeaug.data.stack import Decoded, Stack
from vaeaug.data.vocabulary import LABELS, find

_IMAGES = (*(ending.removeprefix(".") for ending in ENDINGS), "npy")
_CLASS, _JSON = "cls", "json"


def has_shards(folder: Path) -> bool:
    """Whether a folder holds tar archives and no folders, or split folders which do.

    An archive beside class folders is likely what those were unpacked from.

    Args:
        folder: The folder.

    Returns:
        True where it does.
    """
    folders = _visible_folders(folder)
    if not folders:
        return bool(_tars(folder))
    return all(
        canonical(inner.name) is not None
        and bool(_tars(inner))
        and not any(path.is_dir() for path in inner.iterdir())
        for inner in folders
    )


def read_webdataset(path: Path, request: Request) -> RawData:
    """Read an archive, "name-{000..003}.tar" or a folder of archives; see `read`.

    Args:
        path: The archive, the pattern or the folder.
        request: The options of `read`.

    Returns:
        The images of the requested split with their labels.

    Raises:
        DataError: If an archive is damaged, or a sample has no image or no label.
    """
    where = str(path)
    files, split, notes = _select(_files(path), request, where)
    indices = [read_index(file) for file in files]
    n = sum(index.n_samples for index in indices)
    if n == 0:
        raise DataError(
            f"{where}: expected samples such as 000.png with 000.cls, got {len(files)} archives "
            f"without any"
        )
    metadata = _common_metadata(indices)
    if pickles := [name for index in indices for name in index.pickles]:
        notes += (
            f"skipped {len(pickles)} pickled members (the first is {pickles[0]!r}): unpickling can "
            f"run any code",
        )
    fresh: list[_Samples] = []

    def decode(_: Sequence[str], where: str, request: Request) -> Decoded:
        stack = Stack(n, where, request.on_error, folder=request.room)
        fresh.append(_Samples(indices, request, stack))
        return stack.finish()

    images = decoded([str(index.path) for index in indices], where, request, decode)
    samples = fresh[0] if fresh else _Samples(indices, request, images.kept)
    class_names = None
    if not request.class_names:
        class_names = metadata.class_names or class_names_beside(files[0].parent) or samples.names()
    if samples.is_arrays:
        # Their axes are settled now that all are there; until now all of them were space.
        content: Any = images.images[..., 0]
    else:
        content = images.all_kept()
    return RawData(
        source=where,
        split=split,
        images=content,
        labels=np.array(samples.labels),
        metadata=replace(metadata, class_names=class_names),
        notes=notes,
    )


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _tars(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if is_tar(p) and p.is_file() and not p.name.startswith(".")
    )


def _files(path: Path) -> list[tuple[str | None, Path]]:
    """The archives, each with the split that its folder or the start of its name states."""
    if path.is_dir() and not _tars(path):
        folders = sorted(inner for inner in path.iterdir() if inner.is_dir())
        return [(canonical(folder.name), file) for folder in folders for file in _tars(folder)]
    if path.is_dir():
        files = _tars(path)
    else:
        files = [path] if path.is_file() else [Path(name) for name in _expand(str(path))]
    for file in files:
        if not file.is_file():
            raise DataError(f"{path}: expected a tar archive, got no file {file}")
    return [(_split_of(file), file) for file in files]


def _expand(pattern: str) -> list[str]:
    # A dependency of webdataset.
    library = import_extra("braceexpand", "webdataset", pattern, "patterns of tar archives")
    with data_errors(pattern, "braces such as {000..003}", ValueError):
        return list(library.braceexpand(pattern))


def _split_of(file: Path) -> str | None:
    """The split that a name such as train-000.tar begins with, or photos-train-000.tar mentions."""
    start = re.match(r"[A-Za-z]+", file.stem)
    return (canonical(start.group()) if start else None) or mentioned(file.stem)


def _select(
    files: list[tuple[str | None, Path]], request: Request, where: str
) -> tuple[list[Path], str, tuple[str, ...]]:
    """The archives of the requested split; the split; notes."""
    splits = {split for split, _ in files if split is not None}
    split, notes = select_split(request.split, splits, where)
    others = [file.name for split, file in files if split is None]
    if splits and others:
        notes += (f"skipped archives whose names state no split: {', '.join(others)}",)
    return [file for name, file in files if not splits or name == split], split, notes


def _common_metadata(indices: Sequence[TarIndex]) -> SourceMetadata:
    first, *others = indices
    for index in others:
        if index.metadata != first.metadata:
            raise DataError(
                f"{index.path}: expected {first.metadata}, as {first.path} says, got "
                f"{index.metadata}"
            )
    return first.metadata


class _Samples:
    """The samples of archives: their images go to a stack, and their labels are kept here.

    Args:
        indices: The archives.
        request: The options of `read`.
        images: The stack; or which samples have images, where they are decoded already.
    """

    def __init__(
        self, indices: Sequence[TarIndex], request: Request, images: Stack | Bool[np.ndarray, " m"]
    ) -> None:
        self.labels: list[int | str] = []
        self.is_arrays: bool | None = None
        self._request = request
        self._names: dict[int, str] = {}
        self._has_renamed = False
        number = 0
        for index in indices:
            for sample in read_samples(index.path):
                self._add(
                    sample,
                    f"{index.path}[{sample['__key__']}]",
                    images if isinstance(images, Stack) else bool(images[number]),
                )
                number += 1

    def _add(self, sample: dict[str, Any], at: str, image: Stack | bool) -> None:
        """Take one sample; its image goes to the stack, or there is one or none."""
        suffix = self._image_member(sample, at)
        is_array = suffix.split(".")[-1] == "npy"
        if self.is_arrays not in (None, is_array):
            raise DataError(f"{at}: expected image files or .npy arrays throughout, got both")
        self.is_arrays = is_array
        has_image = (
            self._decode(sample[suffix], f"{at}.{suffix}", at, image)
            if isinstance(image, Stack)
            else image
        )
        if not has_image:
            return
        label = self._label(sample, at)
        if self.labels and type(label) is not type(self.labels[0]):
            raise DataError(
                f"{at}: expected labels of one kind, got {label!r} after {self.labels[0]!r}"
            )
        self.labels.append(label)

    def _decode(self, content: bytes, name: str, at: str, stack: Stack) -> bool:
        """Add an image to the stack; whether it can be read."""
        notes: list[str] = []
        if self.is_arrays:
            image = parse_npy(content, name)[..., None]
        else:
            try:
                image, notes = decode_bytes(content, name, self._request.decoding)
            except BadImageError as error:
                stack.leave_out(error)
                return False
        stack.add(image, at, notes)
        return True

    def names(self) -> tuple[str, ...] | None:
        """Class names from the samples, where every label has one name, and one name one label."""
        numbers = sorted(self._names)
        first = numbers[0] if numbers else 0
        # From 0, or from 1, as normalise_labels takes as many numbers as there are names.
        if self._has_renamed or first > 1 or numbers != list(range(first, first + len(numbers))):
            return None
        if not {label for label in self.labels if label != UNLABELLED} <= set(numbers):
            return None
        names = tuple(self._names[label] for label in numbers)
        return names if names and len(set(names)) == len(names) else None

    def _image_member(self, sample: dict[str, Any], at: str) -> str:
        keys = self._request.keys
        endings = sorted(name for name in sample if not name.startswith("__"))
        listed = ", ".join(endings)
        if keys is not None:
            if keys["images"] not in endings:
                raise DataError(
                    f"{at}: expected a member .{keys['images']} (from keys), got {listed}"
                )
            return keys["images"]
        images = [ending for ending in endings if ending.split(".")[-1] in _IMAGES]
        plain = [ending for ending in images if ending in _IMAGES]
        for candidates in (images, plain):
            if len(candidates) == 1:
                return candidates[0]
        raise DataError(
            f"{at}: expected one image ({', '.join(_IMAGES)}) in each sample, got "
            f"{listed or 'nothing'}; pass keys={{'images': ending, 'labels': ending}} to "
            f"name one of several"
        )

    def _label(self, sample: dict[str, Any], at: str) -> int | str:
        keys = self._request.keys
        wanted = None if keys is None else keys["labels"]
        document = parse_json(sample[_JSON], f"{at}.json") if _JSON in sample else {}
        fields = document if isinstance(document, dict) else {}
        if wanted is not None:
            value = sample[wanted] if wanted in sample else fields.get(wanted)
        elif _CLASS in sample:
            value = sample[_CLASS]
        else:
            value = fields.get(find(LABELS, fields))
        label = _index_or_name(value)
        if label is None:
            raise DataError(
                f"{at}: expected a label in .{wanted or _CLASS} or as {'|'.join(LABELS[:5])} in "
                f".json, a number or a name, got {value!r}; multi-label samples are not read"
            )
        name = fields.get("class_name")
        if isinstance(label, int) and label >= 0 and isinstance(name, str):
            self._has_renamed |= self._names.setdefault(label, name) != name
        return label


def _index_or_name(value: Any) -> int | str | None:
    if isinstance(value, bytes):
        try:
            value = value.decode().strip()
        except UnicodeDecodeError:
            return None
        return int(value) if is_whole(value) else value or None
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return value
