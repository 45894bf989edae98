"""WebDataset: samples as files of one stem in tar archives; needs the extra ``vaeaug[webdataset]``.

The library groups the members of local archives, which are opened here: an address is never given
to it, because it would run ``pipe:`` in a shell. Its decoders, which unpickle, are not used, and
members that would need them are not read. Nothing of an archive is written to disk.
"""

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.decode import ENDINGS, BadImageError, decode_bytes
from vaeaug.data.formats.npz import npy_array
from vaeaug.data.labels import UNLABELLED, is_whole, labelled, normalise_labels
from vaeaug.data.metadata import Stated, names_beside, parse_json, stated
from vaeaug.data.request import Request
from vaeaug.data.splits import canonical, mentioned, require_split, without_splits
from vaeaug.data.stack import Faults, Stack
from vaeaug.data.values import normalise_pixels
from vaeaug.data.vocabulary import LABELS, find
from vaeaug.memory import require_memory

# The key of a global PAX header, which readers of samples do not see.
PAX_KEY = "VAEAUG.dataset"
_IMAGES = (*(ending.removeprefix(".") for ending in ENDINGS), "npy")
_PICKLES = ("pyd", "pickle", "pkl", "pth", "pt")
_CLASS, _JSON = "cls", "json"
_BLOCK = 512


@dataclass(frozen=True)
class _Index:
    """What the headers of an archive say, read before its samples."""

    path: Path
    n_samples: int
    pickles: tuple[str, ...]
    said: Stated


def is_tar(path: Path) -> bool:
    """Whether a path, which may have braces, is named as a tar archive."""
    return path.suffix.lower() == ".tar"


def has_shards(folder: Path) -> bool:
    """Whether a folder holds tar archives and no folders, or split folders which do.

    An archive beside class folders is likely what those were unpacked from.
    """
    folders = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    if not folders:
        return bool(_tars(folder))
    return all(
        canonical(each.name) is not None
        and bool(_tars(each))
        and not any(p.is_dir() for p in each.iterdir())
        for each in folders
    )


def read_webdataset(path: Path, request: Request) -> LabelledImages:
    """Read an archive, "name-{000..003}.tar" or a folder of archives; see `read`."""
    where = str(path)
    library = _library(where)
    files, split, notes = _chosen(_files(path), request, where)
    indices = [_index(file) for file in files]
    n = sum(index.n_samples for index in indices)
    if n == 0:
        raise DataError(
            f"{where}: expected samples such as 000.png with 000.cls, got {len(files)} archives "
            f"without any"
        )
    said = _agreed(indices)
    if refused := [name for index in indices for name in index.pickles]:
        notes = (
            *notes,
            f"{len(refused)} pickled members left out, the first {refused[0]!r}: unpickling can "
            f"run any code",
        )
    reader = _Samples(n, where, request)
    for index in indices:
        for sample in _samples(library, index.path):
            reader.add(sample, f"{index.path}[{sample['__key__']}]")
    images, value_range, image_notes = reader.images(said)
    labels, class_names, label_notes = normalise_labels(
        np.array(reader.labels),
        where,
        request,
        stated=None
        if request.class_names
        else said.class_names or names_beside(files[0].parent) or reader.names(),
    )
    return labelled(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=split,
        source=where,
        notes=(*notes, *label_notes, *image_notes),
    )


def _library(where: str) -> Any:
    try:
        import webdataset
    except ImportError:
        raise DataError(
            f"{where}: tar archives of samples need the library webdataset: "
            f"pip install 'vaeaug[webdataset]'"
        ) from None
    return webdataset


def _tars(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if is_tar(p) and p.is_file() and not p.name.startswith(".")
    )


def _files(path: Path) -> list[tuple[str | None, Path]]:
    """The archives, each with the split that its folder or the start of its name says."""
    if path.is_dir():
        if own := _tars(path):
            return [(_split_of(file), file) for file in own]
        return [
            (canonical(folder.name), file)
            for folder in sorted(p for p in path.iterdir() if p.is_dir())
            for file in _tars(folder)
        ]
    files = [path] if path.is_file() else [Path(name) for name in _expanded(str(path))]
    for file in files:
        if not file.is_file():
            raise DataError(f"{path}: expected a tar archive, got no file {file}")
    return [(_split_of(file), file) for file in files]


def _expanded(pattern: str) -> list[str]:
    # A dependency of webdataset.
    import braceexpand

    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise DataError(f"{pattern}: expected braces such as {{000..003}}, got: {error}") from error


def _split_of(file: Path) -> str | None:
    """The split that a name such as train-000.tar begins with, or photos-train-000.tar has."""
    start = re.match(r"[A-Za-z]+", file.stem)
    return (canonical(start.group()) if start else None) or mentioned(file.stem)


def _chosen(
    files: list[tuple[str | None, Path]], request: Request, where: str
) -> tuple[list[Path], str, tuple[str, ...]]:
    splits = {split for split, _ in files if split is not None}
    if not splits:
        notes = without_splits(request.split, where)
        return [file for _, file in files], request.split, notes
    odd = [file.name for split, file in files if split is None]
    notes = (f"archives that name no split left out: {', '.join(odd)}",) if odd else ()
    split = require_split(request.split, splits, where)
    return [file for name, file in files if name == split], split, notes


def _index(path: Path) -> _Index:
    """Read all headers, and be sure that they reach the archive's end.

    `tarfile` takes a damaged header for the end and says nothing: samples would be missing.
    """
    from webdataset.tariterators import base_plus_ext

    keys: list[str] = []
    pickles: list[str] = []
    try:
        with _Bounded(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            # Ours is at the start, and so read when the archive is opened.
            said = archive.pax_headers.get(PAX_KEY)
            while (member := archive.next()) is not None:
                # It keeps a description of every member, which nothing needs here.
                archive.members = []  # type: ignore[attr-defined]
                _check_member(member, path)
                key, suffix = base_plus_ext(member.name)
                if not member.isreg() or key is None or _is_meta(member.name):
                    continue
                if _is_pickle(suffix):
                    pickles.append(member.name)
                elif not keys or keys[-1] != key:
                    keys.append(key)
            file.seek(archive.offset)
            end, closing = archive.offset, file.read(_BLOCK)
    except DataError:
        raise
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: expected a tar archive, got: {error}") from error
    if closing != bytes(_BLOCK):
        raise DataError(
            f"{path}: expected an archive that is closed by a block of zeros, got {len(closing)} "
            f"other bytes at {end} after {len(keys)} samples: it is cut short or damaged"
        )
    document = parse_json(said, f"{path}: header {PAX_KEY}") if said else {}
    if not isinstance(document, dict):
        raise DataError(f"{path}: expected the header {PAX_KEY} as an object, got {document!r}")
    return _Index(path, len(keys), tuple(pickles), stated(document, str(path)))


def _check_member(member: tarfile.TarInfo, path: Path) -> None:
    """Refuse what would be more in memory than it is in the archive."""
    if member.issparse():
        raise DataError(
            f"{path}: expected members that are stored whole, got {member.name!r}, a sparse one of "
            f"{member.size:,} bytes"
        )
    require_memory(member.size, str(path), f"a member {member.name!r}", DataError)


class _Bounded(io.BufferedReader):
    """A file that is never asked for more bytes than it has, whatever a damaged header says."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._end = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._end - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _is_meta(name: str) -> bool:
    # What webdataset skips.
    return re.match(r"__[^/]*__($|/)", name) is not None


def _is_pickle(suffix: str) -> bool:
    return any(part in _PICKLES for part in suffix.lower().split("."))


def _agreed(indices: Sequence[_Index]) -> Stated:
    said = indices[0].said
    for index in indices[1:]:
        if index.said != said:
            raise DataError(
                f"{index.path}: expected {said}, as {indices[0].path} says, got {index.said}"
            )
    return said


def _samples(library: Any, path: Path) -> Iterator[dict[str, Any]]:
    """The samples of one archive: their key and, for each ending, the bytes."""
    iterators = library.tariterators

    def readable(name: str) -> bool:
        _, suffix = iterators.base_plus_ext(name)
        return suffix is not None and not _is_pickle(suffix)

    try:
        with _Bounded(path) as file:
            source = iter([{"url": str(path), "stream": file}])
            members = iterators.tar_file_expander(source, select_files=readable)
            yield from iterators.group_by_keys(members)
    except (tarfile.TarError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: expected a tar archive of samples, got: {error}") from error


class _Samples:
    """Collects images and labels, one sample after the other."""

    def __init__(self, n: int, where: str, request: Request) -> None:
        self.labels: list[Any] = []
        self._where = where
        self._request = request
        self._n = n
        self._stack = Stack(n, where)
        self._faults = Faults(where, request.on_error)
        self._arrays: bool | None = None
        self._names: dict[int, str] = {}
        self._renamed = False

    def add(self, sample: dict[str, Any], at: str) -> None:
        """Decode one sample."""
        suffix = self._image_member(sample, at)
        is_array = suffix.split(".")[-1] == "npy"
        if self._arrays not in (None, is_array):
            raise DataError(f"{at}: expected image files or .npy arrays throughout, got both")
        self._arrays = is_array
        notes: list[str] = []
        if is_array:
            # Its axes are settled when all are there; until then all of them are space.
            array = npy_array(sample[suffix], f"{at}.{suffix}")[..., None]
        else:
            try:
                array, notes = decode_bytes(sample[suffix], f"{at}.{suffix}", self._request.how)
            except BadImageError as error:
                self._faults.add(str(error))
                self._stack.leave_out()
                return
        if not len(self._faults) or self._request.on_error == "skip":
            self._stack.add(array, at, notes)
        self.labels.append(self._label(sample, at))
        if len(self.labels) > 1 and type(self.labels[-1]) is not type(self.labels[0]):
            raise DataError(
                f"{at}: expected labels of one kind, got {self.labels[-1]!r} after "
                f"{self.labels[0]!r}"
            )

    def images(self, said: Stated) -> tuple[np.ndarray, tuple[float, float], tuple[str, ...]]:
        """All images, their value range and notes."""
        left_out = self._faults.settle(self._n)
        stacked, notes = self._stack.finish()
        found: Shaped[np.ndarray, "n *space c"]
        if self._arrays:
            found, value_range, more = said.finish(stacked[..., 0], self._where, self._request)
        else:
            found, value_range, more = normalise_pixels(
                stacked, self._where, self._request.value_range
            )
        return found, value_range, (*left_out, *notes, *more)

    def names(self) -> tuple[str, ...] | None:
        """Class names from the samples, where each label had one, and all labels one."""
        numbers = sorted(self._names)
        first = numbers[0] if numbers else 0
        # From 0, or from 1, as normalise_labels takes as many numbers as there are names.
        if self._renamed or first > 1 or numbers != list(range(first, first + len(numbers))):
            return None
        if not {label for label in self.labels if label != UNLABELLED} <= set(numbers):
            return None
        names = tuple(self._names[label] for label in numbers)
        return names if names and len(set(names)) == len(names) else None

    def _image_member(self, sample: dict[str, Any], at: str) -> str:
        keys = self._request.keys
        there = sorted(name for name in sample if not name.startswith("__"))
        if keys is not None:
            if keys["images"] not in there:
                raise DataError(
                    f"{at}: expected a member .{keys['images']} (from keys), got {', '.join(there)}"
                )
            return keys["images"]
        images = [name for name in there if name.split(".")[-1] in _IMAGES]
        plain = [name for name in images if name in _IMAGES]
        for found in (images, plain):
            if len(found) == 1:
                return found[0]
        raise DataError(
            f"{at}: expected one image ({', '.join(_IMAGES)}) in each sample, got "
            f"{', '.join(there) or 'nothing'}; pass keys={{'images': ending, 'labels': ending}} to "
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
            named = find(LABELS, fields)
            value = None if named is None else fields[named]
        label = _index_or_name(value)
        if label is None:
            raise DataError(
                f"{at}: expected a label in .{wanted or _CLASS} or as {'|'.join(LABELS[:5])} in "
                f".json, a number or a name, got {value!r}; multi-label samples are not read"
            )
        name = fields.get("class_name")
        if isinstance(label, int) and label >= 0 and isinstance(name, str):
            self._renamed |= self._names.setdefault(label, name) != name
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
