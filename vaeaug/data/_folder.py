"""ImageFolder trees: one folder for each class, with split folders above them or not."""

import os
from pathlib import Path

import numpy as np

from vaeaug.data._arrays import normalise_pixels
from vaeaug.data._files import read_files
from vaeaug.data._images import DataError, LabelledImages
from vaeaug.data._request import Request
from vaeaug.data._splits import canonical, require_split, without_splits


def read_folder(root: Path, request: Request) -> LabelledImages:
    """Read `root/<class>/*.png` or `root/<split>/<class>/*.png`, in torchvision's order."""
    where = str(root)
    below = _folders(root)
    splits = _split_folders(root, below)
    notes: tuple[str, ...]
    if splits:
        split = require_split(request.split, splits, where)
        base = splits[split]
        named_by = splits.get("train", base)
        others = [name for name in below if canonical(name) is None]
        notes = (f"folders beside the splits left out: {', '.join(others)}",) if others else ()
    else:
        split, base, named_by = request.split, root, root
        notes = without_splits(split, where)

    found = _folders(base)
    class_names = request.class_names or tuple(_folders(named_by))
    _check_classes(base, found, class_names)
    samples = _samples(base, class_names, found)
    counts = np.bincount([label for _, label in samples], minlength=len(class_names))
    if not samples:
        raise _nothing(base, found)
    # A class that another split names may be absent from this one; the naming split is complete.
    if request.class_names is None and named_by == base and (counts == 0).any():
        empty = [name for name, n in zip(class_names, counts, strict=True) if n == 0]
        raise DataError(
            f"{base}: expected images in every class folder, got none in {', '.join(empty)}; "
            f"remove the folder, or pass class_names= to allow empty classes"
        )
    images, decode_notes = read_files(
        [path for path, _ in samples],
        str(base),
        size=request.size,
        alpha=request.alpha,
        workers=request.workers,
        progress=request.progress,
    )
    images, value_range, value_notes = normalise_pixels(images, str(base))
    return LabelledImages(
        images=images,
        labels=np.array([label for _, label in samples], dtype=np.int64),
        class_names=class_names,
        value_range=value_range,
        split=split,
        source=where,
        notes=(*notes, *decode_notes, *value_notes),
    )


def _folders(root: Path) -> list[str]:
    # As torchvision's find_classes, but .git, .ipynb_checkpoints and their like are no classes.
    return sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))


def _split_folders(root: Path, below: list[str]) -> dict[str, Path]:
    """Folders that are splits: named like one, with folders below; a class "train" may be real."""
    named = [name for name in below if canonical(name) is not None]
    splits: dict[str, Path] = {}
    for name in named:
        split = canonical(name)
        if split is None or not _folders(root / name):
            continue
        if split in splits:
            raise DataError(
                f"{root}: expected one folder for the split {split!r}, got "
                f"{splits[split].name!r} and {name!r}"
            )
        splits[split] = root / name
    if not splits and named and named == below:
        raise DataError(
            f"{root}: expected class folders inside the split folders {', '.join(named)}, got none"
        )
    return splits


def _check_classes(base: Path, found: list[str], class_names: tuple[str, ...]) -> None:
    unknown = [name for name in found if name not in class_names]
    if unknown:
        raise DataError(
            f"{base}: expected the class folders {', '.join(class_names)}, got also "
            f"{', '.join(unknown)}"
        )


def _samples(base: Path, class_names: tuple[str, ...], found: list[str]) -> list[tuple[str, int]]:
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    present = {name: c for c, name in enumerate(class_names) if name in found}
    if not present:
        return []
    samples = make_dataset(str(base), present, extensions=IMG_EXTENSIONS, allow_empty=True)
    return [
        (path, label)
        for path, label in samples
        if not any(part.startswith(".") for part in Path(path).relative_to(base).parts)
    ]


def _nothing(base: Path, found: list[str]) -> DataError:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    here = sorted(e.name for e in os.scandir(base) if e.is_file())
    seen = (
        f"{len(found)} folders without such files"
        if found
        else f"no folders and {len(here)} files ({', '.join(here[:5])})"
        if here
        else "an empty folder"
    )
    return DataError(
        f"{base}: expected images in one folder for each class (<class>/*.png; endings "
        f"{' '.join(IMG_EXTENSIONS)}), or IDX files such as train-images-idx3-ubyte.gz, got {seen}"
    )
