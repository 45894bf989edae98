"""Split names: one spelling inside, and one message when the asked split is not there."""

import re
from collections.abc import Collection
from pathlib import PurePath

from vaeaug.data.dataset import DataError

SPLITS = ("train", "val", "test")
_SPELLINGS = {
    "train": "train",
    "training": "train",
    "trainset": "train",
    "trn": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "valset": "val",
    "dev": "val",
    "devel": "val",
    "development": "val",
    "devset": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
    "testset": "test",
    "tst": "test",
    "t10k": "test",
    "holdout": "test",
    "heldout": "test",
}
# Words beside the one that says it: training_set, test-images, "Valid data".
_FILLERS = frozenset(
    {"set", "data", "dataset", "image", "images", "img", "imgs", "split", "folder", "files"}
)
# trainA and test1, but not trainer.
_BEGINNING = re.compile(r"([Tt]rain|[Vv]al|[Vv]alid|[Tt]est)(?=[A-Z0-9])")
_YEAR = re.compile(r"(19|20)\d\d$")


def canonical(name: str) -> str | None:
    """The split that a folder, key or cell names, or None."""
    words = [word for word in _words(name) if word not in _FILLERS]
    # train2017; and hold_out is one word.
    return _SPELLINGS.get(_YEAR.sub("", "".join(words)))


def mentioned(name: str) -> str | None:
    """The split that one of the words of a name says, such as alphabet_train, or None."""
    said = {_SPELLINGS[word] for word in _words(name) if word in _SPELLINGS}
    return said.pop() if len(said) == 1 else None


def begins(name: str) -> str | None:
    """The split that a name begins or mentions, such as trainA or cat_test, or None."""
    start = _BEGINNING.match(name.strip())
    return mentioned(name) or (canonical(start[1]) if start else None)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.strip().lower()) if word]


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
        said = canonical(PurePath(where).stem)
        odd = f", although it is called {said}" if said in ("val", "test") else ""
        return (f"no splits found: all images are taken as the training split{odd}",)
    raise DataError(
        f"{where}: expected split {split!r}, got data without splits; "
        f"only 'train' or 'all' can be read from it"
    )
