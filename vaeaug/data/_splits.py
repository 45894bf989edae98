"""Split names: one spelling inside, and one message when the asked split is not there."""

from collections.abc import Collection

from vaeaug.data._images import DataError

SPLITS = ("train", "val", "test")
_SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "t10k": "test",
}


def canonical(name: str) -> str | None:
    """The split that a folder, key or cell names, or None."""
    return _SPELLINGS.get(name.strip().lower())


def check_split(split: str) -> str:
    """The asked split in its canonical spelling.

    Raises:
        DataError: if it is no split name.
    """
    known = "all" if split == "all" else canonical(split) if isinstance(split, str) else None
    if known is None:
        raise DataError(f"split: expected one of {', '.join(SPLITS)} or all, got {split!r}")
    return known


def require_split(split: str, existing: Collection[str], where: str) -> str:
    """Check that the asked split is among those that exist.

    "all" is refused: it would show test images to the generator.

    Raises:
        DataError: naming the splits that exist.
    """
    if split in existing:
        return split
    names = ", ".join(s for s in SPLITS if s in existing)
    if split == "all":
        raise DataError(
            f"{where}: split 'all' is only for data without splits, and this has splits: {names}"
        )
    raise DataError(f"{where}: expected split {split!r}, got only the splits: {names}")


def without_splits(split: str, where: str) -> tuple[str, ...]:
    """Check the asked split where none exist; returns the notes for the user.

    Raises:
        DataError: if validation or test images are asked for.
    """
    if split == "all":
        return ()
    if split == "train":
        return ("no splits found: all images are taken as the training split",)
    raise DataError(
        f"{where}: expected split {split!r}, got data without splits; "
        f"only 'train' or 'all' can be read from it"
    )
