"""Which arrays in a file of named arrays are the images and which are their labels."""

from collections.abc import Collection
from dataclasses import dataclass

from vaeaug.data._images import DataError
from vaeaug.data._request import Request
from vaeaug.data._splits import canonical, require_split, without_splits

# Images and labels of a file without splits, in the order in which they are looked for.
_FLAT = (
    ("images", "labels"),
    ("x", "y"),
    ("X", "y"),
    ("X", "Y"),
    ("data", "targets"),
    ("data", "labels"),
)
# The same for one split of several; MedMNIST's, Keras's and nested HDF5 groups.
_BY_SPLIT = (
    ("{}_images", "{}_labels"),
    ("{}/images", "{}/labels"),
    ("x_{}", "y_{}"),
    ("X_{}", "y_{}"),
)
# A pool of images without labels.
_POOLS = ("unlabelled_images", "unlabelled", "unlabeled_images", "unlabeled")
_SPELLINGS = ("train", "val", "valid", "validation", "test")


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
    for spelling in _SPELLINGS:
        for images, labels in _BY_SPLIT:
            pair = images.format(spelling), labels.format(spelling)
            split = canonical(spelling)
            if split is not None and pair[0] in names and pair[1] in names:
                pairs.setdefault(split, pair)
    if pairs:
        split = require_split(request.split, pairs, where)
        reference = pairs["train"][1] if split != "train" and "train" in pairs else None
        return Pair(*pairs[split], reference, split)
    for images, labels in _FLAT:
        if images in names and labels in names:
            return Pair(images, labels, None, request.split, without_splits(request.split, where))
    looked = [f"{a}/{b}".format("train", "train") for a, b in (_BY_SPLIT[0], _BY_SPLIT[2])]
    raise DataError(
        f"{where}: expected arrays named {', '.join(looked)} (or val, test), "
        f"{', '.join(f'{a}/{b}' for a, b in _FLAT)}; got {_listed(names)}; "
        f"pass keys={{'images': ..., 'labels': ...}} to name them"
    )


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
    by_split: dict[str, str] = {}
    for spelling in _SPELLINGS:
        for pattern, _ in _BY_SPLIT:
            split, key = canonical(spelling), pattern.format(spelling)
            if split is not None and key in names:
                by_split.setdefault(split, key)
    if by_split:
        return by_split[require_split(request.split, by_split, where)]
    flat = dict.fromkeys(images for images, _ in _FLAT)
    for key in (*flat, *(names if len(names) == 1 else ())):
        if key in names:
            without_splits(request.split, where)
            return key
    raise DataError(
        f"{where}: expected images in an array named {', '.join((*_POOLS, *flat))}, "
        f"{_BY_SPLIT[0][0].format('train')} or {_BY_SPLIT[2][0].format('train')}, got "
        f"{_listed(names)}; pass keys={{'images': ...}} to name it"
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
