"""ImageFolder trees: one folder for each class, with split folders above them or not."""

import os
from pathlib import Path

import numpy as np

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.decode import ENDINGS as PICTURES
from vaeaug.data.formats.audio import ENDINGS as SOUNDS
from vaeaug.data.formats.media import read_media
from vaeaug.data.formats.walk import ending_of, notes_on, safe, walk
from vaeaug.data.labels import labelled
from vaeaug.data.request import Request
from vaeaug.data.splits import begins, canonical, mentioned, require_split, without_splits

_SHOWN = 5
# What archives and file servers leave beside folders of pictures.
_LITTER = ("__MACOSX", "@eaDir")


def read_folder(root: Path, request: Request) -> LabelledImages:
    """Read `root/<class>/*.png` or `root/<split>/<class>/*.png`, in torchvision's order."""
    where = str(root)
    base, named_by, split, notes = _base(root, request)
    found = _folders(base)
    class_names = request.class_names or tuple(_folders(named_by))
    _check_classes(base, found, class_names)
    paths, labels, more = _samples(base, class_names, found)
    counts = np.bincount(labels, minlength=len(class_names))
    if not paths:
        raise _nothing(base, found)
    # A class that another split names may be absent from this one; the naming split is complete.
    complete = request.class_names is None and named_by == base
    if complete:
        _refuse_empty(counts, class_names, base, "remove the folder")
    images, value_range, kept, media_notes = read_media(paths, str(base), request)
    if complete:
        counts = np.bincount(labels[kept], minlength=len(class_names))
        _refuse_empty(counts, class_names, base, "none of its files can be read")
    return labelled(
        images=images,
        labels=labels[kept],
        class_names=class_names,
        value_range=value_range,
        split=split,
        source=where,
        notes=(*notes, *more, *media_notes),
        names=[safe(os.path.relpath(path, root)) for path, k in zip(paths, kept, strict=True) if k],
    )


def _base(root: Path, request: Request) -> tuple[Path, Path, str, tuple[str, ...]]:
    """The folder of class folders to read; the one that names the classes; the split; notes."""
    where = str(root)
    below = _folders(root)
    splits = _split_folders(root, below)
    notes: tuple[str, ...] = ()
    inner = _inner(root)
    if not splits and inner != root and _split_folders(inner, _folders(inner)):
        notes = (f"read from the only folder in it, {safe(inner.name)}, which holds the splits",)
        root, below = inner, _folders(inner)
        splits = _split_folders(root, below)
    if not splits:
        if request.class_names is None:
            _refuse_unknown_splits(root, below)
        return root, root, request.split, without_splits(request.split, where)
    split = require_split(request.split, splits, where)
    if len(splits[split]) > 1:
        names = " and ".join(repr(name) for name in splits[split])
        raise DataError(f"{root}: expected one folder for the split {split!r}, got {names}")
    taken = {name for names in splits.values() for name in names}
    others = [name for name in below if name not in taken]
    if others:
        notes += (f"folders beside the splits left out: {', '.join(map(safe, others))}",)
    if any(canonical(name) is None for name in taken):
        said = ", ".join(f"{names[0]!r} as {split}" for split, names in splits.items())
        notes += (f"folders taken as splits by a word of their names: {said}",)
    base = _inner(root / splits[split][0])
    train = splits.get("train", splits[split])
    return base, _inner(root / train[0]) if len(train) == 1 else base, split, notes


def _folders(root: Path) -> list[str]:
    # As torchvision's find_classes, but .git, .ipynb_checkpoints and their like are no classes.
    with os.scandir(root) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".") and entry.name not in _LITTER
        )


def _has_files(folder: Path) -> bool:
    """Whether a folder has images or sounds directly in it."""
    return any(
        ending_of(name) in (*PICTURES, *SOUNDS) and not name.startswith(".")
        for name in sorted(os.listdir(folder))  # noqa: PTH208 - a name may be no valid Unicode
    )


def _split_folders(root: Path, below: list[str]) -> dict[str, list[str]]:
    """The folders of each split: named like one, with folders below.

    A class "train" may be real. Names with a split among other words count where all folders have
    such names, no images of their own, and the training split is among them.
    """
    named = [name for name in below if canonical(name) is not None]
    splits: dict[str, list[str]] = {}
    for name in named:
        split = canonical(name)
        if split is not None and _folders(root / name):
            splits.setdefault(split, []).append(name)
    if not splits and named and named == below:
        raise DataError(
            f"{root}: expected class folders inside the split folders {', '.join(named)}, got none"
        )
    loose = {name: mentioned(name) for name in below}
    if splits or len(below) < 2 or "train" not in loose.values():
        return splits
    if all(loose[name] and _folders(root / name) and not _has_files(root / name) for name in below):
        for name, split in loose.items():
            splits.setdefault(str(split), []).append(name)
    return splits


def _inner(folder: Path) -> Path:
    """The folder, or the only one in it where that alone holds the class folders."""
    inside = _folders(folder)
    if len(inside) == 1 and not _has_files(folder):
        only = folder / inside[0]
        if len(_folders(only)) > 1 and not _has_files(only):
            return only
    return folder


def _refuse_unknown_splits(root: Path, below: list[str]) -> None:
    """Folders without images of their own, but with the same folders, are splits or the like.

    So are folders of images that all have a split in their names, and several: trainA, testA, ...
    """
    said = [begins(name) for name in below]
    if None not in said and len(set(said)) > 1:
        raise DataError(
            f"{root}: expected folders of classes, or of splits with those of classes in them, got "
            f"folders named by splits and by something else: "
            f"{', '.join(map(repr, below[:_SHOWN]))}; move each into a folder of its split, such "
            f"as {said[0]}/{below[0]}; if they are classes, name them by class_names= (--set "
            f"'data.class_names=[{', '.join(below[:2])}, ...]')"
        )
    if len(below) < 2 or any(_has_files(root / name) for name in below):
        return
    inside = [set(_folders(root / name)) for name in below]
    common = set.intersection(*inside)
    # Every class may well have its "raw" and "cropped": two splits share most of what they have.
    if len(common) < 2 or len(common) < max(map(len, inside)) / 2:
        return
    names, shared = (", ".join(map(repr, sorted(part)[:_SHOWN])) for part in (below, common))
    raise DataError(
        f"{root}: expected class folders with images, or splits named train, val and test, got "
        f"folders {names} without images, all with the folders {shared} in them; if they are "
        f"splits, rename them or read one of them ({root / below[0]}); if they are classes, name "
        f"them by class_names= (--set 'data.class_names=[{', '.join(below[:2])}, ...]')"
    )


def _check_classes(base: Path, found: list[str], class_names: tuple[str, ...]) -> None:
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{base}: expected folders named in UTF-8, whose names become those of the "
                f"classes, got {name!r}; rename it"
            ) from None
    unknown = [name for name in found if name not in class_names]
    if unknown:
        raise DataError(
            f"{base}: expected the class folders {', '.join(class_names)}, got also "
            f"{', '.join(unknown)}"
        )


def _samples(
    base: Path, class_names: tuple[str, ...], found: list[str]
) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """The files, their labels, and notes on what was left out."""
    present = {name: c for c, name in enumerate(class_names) if name in found}
    folders = [str(base / name) for name in present]
    paths: list[str] = []
    labels: list[int] = []
    walks = []
    for label, start in zip(present.values(), folders, strict=True):
        apart = [folder for folder in folders if folder != start]
        walked = walk(start, (*PICTURES, *SOUNDS), [str(base), *apart])
        walks.append(walked)
        paths += walked.paths
        labels += [label] * len(walked.paths)
    notes = notes_on(walks, str(base))
    beside = [e.name for e in os.scandir(base) if e.is_file() and ending_of(e.name) in PICTURES]
    if beside and paths:
        notes += (f"{len(beside)} images beside the class folders left out, of no class",)
    return paths, np.array(labels, dtype=np.int64), notes


def _refuse_empty(
    counts: np.ndarray, class_names: tuple[str, ...], base: Path, advice: str
) -> None:
    empty = [name for name, n in zip(class_names, counts, strict=True) if n == 0]
    if empty:
        raise DataError(
            f"{base}: expected images in every class folder, got none in {', '.join(empty)}; "
            f"{advice}, or pass class_names= to allow empty classes"
        )


def _nothing(base: Path, found: list[str]) -> DataError:
    here = sorted(e.name for e in os.scandir(base) if e.is_file())
    seen = (
        f"{len(found)} folders without such files"
        if found
        else f"no folders and {len(here)} files ({', '.join(here[:_SHOWN])})"
        if here
        else "an empty folder"
    )
    tables = [name for name in here if ending_of(name) in (".csv", ".tsv")]
    advice = (
        f"; to read the images that a table lists, give it: {base / tables[0]}" if tables else ""
    )
    return DataError(
        f"{base}: expected images in one folder for each class (<class>/*.png; endings "
        f"{' '.join(PICTURES)}, or {' '.join(SOUNDS)}), or IDX files such as "
        f"train-images-idx3-ubyte.gz, got {seen}{advice}"
    )
