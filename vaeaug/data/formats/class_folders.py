"""ImageFolder trees: one folder for each class, with split folders above them or not."""

import os
from pathlib import Path

import numpy as np

from vaeaug.data.checks import DataError, encodable
from vaeaug.data.decode import ENDINGS as IMAGE_ENDINGS
from vaeaug.data.finish import RawData
from vaeaug.data.formats.audio import ENDINGS as SOUND_ENDINGS
from vaeaug.data.formats.media import MEDIA_ENDINGS, decode_media
from vaeaug.data.formats.video import ENDINGS as VIDEO_ENDINGS
from vaeaug.data.formats.walk import ending_of, walk, walk_notes
from vaeaug.data.request import Request
from vaeaug.data.split_names import begins, canonical, mentioned, require_split, without_splits
from vaeaug.data.stack import Decoded

_SHOWN = 5
# What archives and file servers leave beside folders of pictures.
_LITTER = ("__MACOSX", "@eaDir")


def read_folder(root: Path, request: Request) -> RawData:
    """Read `root/<class>/*.png` or `root/<split>/<class>/*.png`, in torchvision's order.

    Args:
        root: The folder of class folders or of split folders.
        request: The options of `read`.

    Returns:
        The files of the requested split, which are decoded later, with their classes.

    Raises:
        DataError: If the folders are neither classes nor splits, or a class has no files.
    """
    base, named_by, split, notes = _base(root, request)
    folders = _folders(base)
    class_names = request.class_names or tuple(_folders(named_by))
    _check_classes(base, folders, class_names)
    paths, labels, file_notes = _files(base, class_names, folders)
    if not paths:
        raise _nothing(base, folders)
    # A class that another split names may be absent from this one; the naming split is complete.
    is_complete = request.class_names is None and named_by == base
    if is_complete:
        _refuse_empty(labels, class_names, base, "remove the folder")

    def decode() -> Decoded:
        decoded = decode_media(paths, str(base), request)
        if is_complete:
            kept = labels[decoded.kept]
            _refuse_empty(kept, class_names, base, "none of its files can be read")
        return decoded

    return RawData(
        source=str(root),
        split=split,
        images=decode,
        images_at=str(base),
        labels=labels,
        class_names=class_names,
        notes=(*notes, *file_notes),
        names=[encodable(os.path.relpath(path, root)) for path in paths],
    )


def _base(root: Path, request: Request) -> tuple[Path, Path, str, tuple[str, ...]]:
    """The folder of class folders to read; the one that names the classes; the split; notes."""
    where = str(root)
    below = _folders(root)
    splits = _split_folders(root, below)
    notes: tuple[str, ...] = ()
    inner = _inner(root)
    if not splits and inner != root and _split_folders(inner, _folders(inner)):
        notes = (
            f"read from the only folder in it, {encodable(inner.name)}, which holds the splits",
        )
        root, below = inner, _folders(inner)
        splits = _split_folders(root, below)
    if not splits:
        if request.class_names is None:
            _refuse_unknown_splits(root, below)
        return root, root, request.split, without_splits(request.split, where)
    split = require_split(request.split, splits, where)
    if len(splits[split]) > 1:
        names = " and ".join(map(repr, splits[split]))
        raise DataError(f"{root}: expected one folder for the split {split!r}, got {names}")
    split_names = {name for names in splits.values() for name in names}
    others = [name for name in below if name not in split_names]
    if others:
        notes += (f"skipped folders beside the splits: {', '.join(map(encodable, others))}",)
    if any(canonical(name) is None for name in split_names):
        pairs = ", ".join(f"{names[0]!r} as {split}" for split, names in splits.items())
        notes += (f"folders taken as splits by a word of their names: {pairs}",)
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
        ending_of(name) in MEDIA_ENDINGS and not name.startswith(".")
        for name in os.listdir(folder)  # noqa: PTH208 - a name may be no valid Unicode
    )


def _split_folders(root: Path, below: list[str]) -> dict[str, list[str]]:
    """The folders of each split: named like one, with folders below.

    A class "train" may be real. Names with a split among other words count where all folders have
    such names, none has images directly in it, and the training split is among them.
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
    by_word = {name: mentioned(name) for name in below}
    if splits or len(below) < 2 or "train" not in by_word.values():
        return splits
    for name, split in by_word.items():
        if split is None or not _folders(root / name) or _has_files(root / name):
            return {}
        splits.setdefault(split, []).append(name)
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
    """Folders without images in them, but with the same folders, are splits or the like.

    So are folders of images that all have a split in their names, and several: trainA, testA, ...
    """
    splits = [begins(name) for name in below]
    example = f"(--set 'data.class_names=[{', '.join(below[:2])}, ...]')"
    if None not in splits and len(set(splits)) > 1:
        raise DataError(
            f"{root}: expected folders of classes, or of splits with those of classes in them, got "
            f"folders named by splits and by something else: "
            f"{', '.join(map(repr, below[:_SHOWN]))}; move each into a folder of its split, such "
            f"as {splits[0]}/{below[0]}; if they are classes, name them by class_names= {example}"
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
        f"them by class_names= {example}"
    )


def _check_classes(base: Path, folders: list[str], class_names: tuple[str, ...]) -> None:
    for name in folders:
        if name != encodable(name):
            raise DataError(
                f"{base}: expected folders named in UTF-8, whose names become those of the "
                f"classes, got {name!r}; rename it"
            )
    unknown = [name for name in folders if name not in class_names]
    if unknown:
        raise DataError(
            f"{base}: expected the class folders {', '.join(class_names)}, got also "
            f"{', '.join(unknown)}"
        )


def _files(
    base: Path, class_names: tuple[str, ...], folders: list[str]
) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """The files, their labels, and notes on what was left out."""
    starts = {label: str(base / name) for label, name in enumerate(class_names) if name in folders}
    walks = {
        label: walk(
            start, MEDIA_ENDINGS, [str(base), *(path for path in starts.values() if path != start)]
        )
        for label, start in starts.items()
    }
    paths = [path for result in walks.values() for path in result.paths]
    labels = [label for label, result in walks.items() for _ in result.paths]
    notes = walk_notes(walks.values(), str(base))
    beside = [entry for entry in _file_names(base) if ending_of(entry) in IMAGE_ENDINGS]
    if beside and paths:
        notes += (f"skipped {len(beside)} images beside the class folders, which have no class",)
    return paths, np.array(labels, dtype=np.int64), notes


def _file_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_file())


def _refuse_empty(
    labels: np.ndarray, class_names: tuple[str, ...], base: Path, advice: str
) -> None:
    counts = np.bincount(labels, minlength=len(class_names))
    empty = [name for name, n in zip(class_names, counts, strict=True) if n == 0]
    if empty:
        raise DataError(
            f"{base}: expected images in every class folder, got none in {', '.join(empty)}; "
            f"{advice}, or pass class_names= to allow empty classes"
        )


def _nothing(base: Path, folders: list[str]) -> DataError:
    """The error that there is no file to read, and what there is."""
    files = _file_names(base)
    content = "an empty folder"
    if folders:
        content = f"{len(folders)} folders without such files"
    elif files:
        content = f"no folders and {len(files)} files ({', '.join(files[:_SHOWN])})"
    tables = [name for name in files if ending_of(name) in (".csv", ".tsv")]
    advice = (
        f"; to read the images that a table lists, give it: {base / tables[0]}" if tables else ""
    )
    return DataError(
        f"{base}: expected images in one folder for each class (<class>/*.png; endings "
        f"{' '.join(IMAGE_ENDINGS)}, or {' '.join(SOUND_ENDINGS)}, or "
        f"{' '.join(VIDEO_ENDINGS)}), or IDX files such as "
        f"train-images-idx3-ubyte.gz, got {content}{advice}"
    )
