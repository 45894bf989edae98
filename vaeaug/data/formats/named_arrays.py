"""Which arrays in a file of named arrays are the images and which are their labels."""

from collections.abc import Collection
from dataclasses import dataclass

from vaeaug.data.dataset import DataError
from vaeaug.data.request import Request
from vaeaug.data.splits import canonical, require_split, without_splits
from vaeaug.data.vocabulary import IMAGES, LABELS, plain

# A pool of images without labels.
_POOLS = ("unlabelled_images", "unlabelled", "unlabeled_images", "unlabeled")
# How messages name what is looked for.
_EXAMPLES = "images/labels, x/y, X/y, data/targets, image/label and the like, alone or of a split: "
_EXAMPLES += "train_images/train_labels, x_train/y_train, train/images, ... (or val, test)"


@dataclass(frozen=True)
class Pair:
    """The names of the arrays to read.

    Attributes:
        images: where the images are.
        labels: where their labels are.
        reference: where the training split's labels are, if these are another split's.
        split: the split that is read.
        notes: for the user.
    """

    images: str
    labels: str
    reference: str | None
    split: str
    notes: tuple[str, ...] = ()


def choose(names: Collection[str], request: Request, where: str) -> Pair:
    """Find the arrays of the asked split among those of a file.

    Raises:
        DataError: saying which names were looked for and which were found.
    """
    if request.keys is not None:
        return _by_keys(names, request, where)
    pairs: dict[str, tuple[str, str]] = {}
    images_of, labels_of = _by_split(names, IMAGES), _by_split(names, LABELS)
    for split, found in images_of.items():
        if split is not None and split in labels_of:
            pairs[split] = found, labels_of[split]
    if pairs:
        split = require_split(request.split, pairs, where)
        reference = pairs["train"][1] if split != "train" and "train" in pairs else None
        return Pair(*pairs[split], reference, split)
    if None in images_of and None in labels_of:
        notes = without_splits(request.split, where)
        return Pair(images_of[None], labels_of[None], None, request.split, notes)
    raise DataError(
        f"{where}: expected arrays named {_EXAMPLES}; got {_listed(names)}; "
        f"pass keys={{'images': ..., 'labels': ...}} to name them"
    )


def _by_split(names: Collection[str], wanted: Collection[str]) -> dict[str | None, str]:
    """Of each split, and under None of none, the array that is surest to be of this kind.

    A name is a word alone (images), or with a split before or after it (train_images, x_train,
    train/images, train_set_x).
    """
    by_split: dict[str | None, dict[str, str]] = {}
    for name in sorted(names):
        split, word = _parts(name, wanted)
        if word is not None:
            by_split.setdefault(split, {}).setdefault(word, name)
    return {split: found[min(found, key=list(wanted).index)] for split, found in by_split.items()}


def _parts(name: str, wanted: Collection[str]) -> tuple[str | None, str | None]:
    """The split and the wanted word that a name is made of; None for what it has not."""
    if plain(name) in wanted:
        return None, plain(name)
    for separator in ("/", "_"):
        head, _, tail = name.rpartition(separator)
        first, _, rest = name.partition(separator)
        for split, word in ((head, tail), (rest, first), (first, rest)):
            if split and plain(word) in wanted and canonical(split) is not None:
                return canonical(split), plain(word)
    return None, None


def choose_images(names: Collection[str], request: Request, where: str) -> str:
    """Find the images alone, whether or not labels are beside them.

    Named by the caller; else a pool by its name; else those of the asked split; else those of a
    file without splits; else the only array there is.

    Raises:
        DataError: saying which names were looked for and which were found.
    """
    if request.keys is not None:
        key = request.keys["images"]
        if key not in names:
            raise DataError(f"{where}: expected an array {key!r} (from keys), got {_listed(names)}")
        return key
    for pool in _POOLS:
        if pool in names:
            return pool
    found = _by_split(names, IMAGES)
    alone = found.pop(None, None)
    by_split = {split: key for split, key in found.items() if split is not None}
    if by_split:
        return by_split[require_split(request.split, by_split, where)]
    only = alone or (next(iter(names)) if len(names) == 1 else None)
    if only is not None:
        without_splits(request.split, where)
        return only
    raise DataError(
        f"{where}: expected images in an array named {', '.join((*_POOLS, *IMAGES[:6]))}, "
        f"train_images or x_train, got {_listed(names)}; pass keys={{'images': ...}} to name it"
    )


def _by_keys(names: Collection[str], request: Request, where: str) -> Pair:
    assert request.keys is not None
    images, labels = (request.keys[k] for k in ("images", "labels"))
    for key in (images, labels):
        if key not in names:
            raise DataError(f"{where}: expected an array {key!r} (from keys), got {_listed(names)}")
    # Whoever names the arrays names the split with them; nothing in the file can confirm it.
    return Pair(images, labels, None, request.split)


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)
    if not shown:
        return "no arrays"
    return ", ".join(shown[:20]) + (f", ... ({len(shown)} in all)" if len(shown) > 20 else "")
