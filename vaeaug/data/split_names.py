"""Split names: one spelling inside, and one message when the requested split is not there."""

import re
from collections.abc import Collection
from pathlib import PurePath

from vaeaug.data.checks import DataError

SPLITS = ("train", "val", "test")
_SPELLINGS = {
    "train": "train training trainset trn",
    "val": "val valid validate validation valset dev devel development devset eval evaluation",
    "test": "test testing testset tst t10k holdout heldout",
}
_SPLIT_OF = {word: split for split, words in _SPELLINGS.items() for word in words.split()}
# Words beside the one that names the split: training_set, test-images, "Valid data".
_FILLERS = frozenset(
    ["set", "data", "dataset", "image", "images", "img", "imgs", "split", "folder", "files"]
)
# trainA and test1, but not trainer.
_BEGINNING = re.compile(r"([Tt]rain|[Vv]al|[Vv]alid|[Tt]est)(?=[A-Z0-9])")
_YEAR = re.compile(r"(19|20)\d\d$")


def canonical(name: str) -> str | None:
    """The split that a name stands for.

    Args:
        name: The name of a folder, file or array, or a cell, such as "Training_set".

    Returns:
        "train", "val" or "test", or None where the name stands for something else.
    """
    words = [word for word in _words(name) if word not in _FILLERS]
    # train2017; and hold_out is one word.
    return _SPLIT_OF.get(_YEAR.sub("", "".join(words)))


def mentioned(name: str) -> str | None:
    """The split that one of the words of a name states.

    Args:
        name: Such as "alphabet_train".

    Returns:
        The split, or None where no word states one, or several state different ones.
    """
    splits = {_SPLIT_OF[word] for word in _words(name) if word in _SPLIT_OF}
    return splits.pop() if len(splits) == 1 else None


def begins(name: str) -> str | None:
    """The split that a name begins with or mentions.

    Args:
        name: Such as "trainA" or "cat_test".

    Returns:
        The split, or None.
    """
    start = _BEGINNING.match(name.strip())
    return mentioned(name) or (canonical(start[1]) if start else None)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.strip().lower()) if word]


def check_split(split: object) -> str:
    """Bring a requested split to its canonical spelling.

    Args:
        split: A split name in any spelling, or "all".

    Returns:
        "train", "val", "test" or "all".

    Raises:
        DataError: If it is no split name.
    """
    known = "all" if split == "all" else canonical(split) if isinstance(split, str) else None
    if known is None:
        raise DataError(f"split: expected one of {', '.join(SPLITS)} or all, got {split!r}")
    return known


def require_split(split: str, existing: Collection[str | None], where: str) -> str:
    """Check that the requested split is among those that exist.

    "all" is refused: it would show test images to the generator.

    Args:
        split: The requested split.
        existing: The splits of the source.
        where: The source, for messages.

    Returns:
        The requested split.

    Raises:
        DataError: Naming the splits that exist.
    """
    if split in existing:
        return split
    names = ", ".join(name for name in SPLITS if name in existing)
    if split == "all":
        raise DataError(
            f"{where}: split 'all' is only for data without splits, and this has splits: {names}"
        )
    raise DataError(f"{where}: expected split {split!r}, got only the splits: {names}")


def without_splits(split: str, where: str) -> tuple[str, ...]:
    """Check the requested split of a source that has no splits.

    Args:
        split: The requested split.
        where: The source: its name may state a split.

    Returns:
        Notes for the user.

    Raises:
        DataError: If validation or test images are asked for.
    """
    if split == "all":
        return ()
    if split == "train":
        named = canonical(PurePath(where).stem)
        odd = f", although it is called {named}" if named in ("val", "test") else ""
        return (f"no splits found: all images are taken as the training split{odd}",)
    raise DataError(
        f"{where}: expected split {split!r}, got data without splits; "
        f"only 'train' or 'all' can be read from it"
    )


def select_split(
    split: str, existing: Collection[str | None], where: str
) -> tuple[str, tuple[str, ...]]:
    """Check the requested split of a source that may have splits.

    Args:
        split: The requested split.
        existing: The splits of the source; empty where it has none.
        where: The source.

    Returns:
        The requested split; notes.

    Raises:
        DataError: If it cannot be read.
    """
    if existing:
        return require_split(split, existing, where), ()
    return split, without_splits(split, where)
