"""Which arrays in a file of named arrays are the images and which are their labels."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64, Shaped

from vaeaug.data.checks import DataError
from vaeaug.data.finish import RawData
from vaeaug.data.metadata import SourceMetadata
from vaeaug.data.request import Request
from vaeaug.data.split_names import canonical, require_split, without_splits
from vaeaug.data.vocabulary import FEATURES, IMAGES, LABELS, plain

# A pool of images without labels.
_POOLS = ("unlabelled_images", "unlabelled", "unlabeled_images", "unlabeled")
# The names that messages suggest.
_EXAMPLES = (
    "images/labels, x/y, X/y, data/targets, image/label and the like, alone or of a split: "
    "train_images/train_labels, x_train/y_train, train/images, ... (or val, test)"
)


@dataclass(frozen=True)
class ArrayNames:
    """The names of the arrays to read.

    Attributes:
        images: Where the images are.
        labels: Where their labels are.
        split: The split that is read.
        reference: Where the labels of the training split are, if another split is read.
        notes: For the user.
    """

    images: str
    labels: str
    split: str
    reference: str | None = None
    notes: tuple[str, ...] = ()


def choose_arrays(names: Collection[str], request: Request, where: str) -> ArrayNames:
    """Choose the arrays of the requested split among those of a file.

    Args:
        names: The names of all arrays.
        request: The options of `read`.
        where: The source, for messages.

    Returns:
        The names of images and labels.

    Raises:
        DataError: Stating which names are known and which there are.
    """
    if request.keys is not None:
        for name in (request.keys["images"], request.keys["labels"]):
            _check_key(name, names, where)
        # Whoever names the arrays names the split with them; nothing in the file can confirm it.
        return ArrayNames(request.keys["images"], request.keys["labels"], request.split)
    images, labels = _by_split(names, IMAGES), _by_split(names, LABELS)
    splits = {split for split in images if split is not None and split in labels}
    if splits:
        split = require_split(request.split, splits, where)
        reference = labels["train"] if split != "train" and "train" in splits else None
        return ArrayNames(images[split], labels[split], split, reference)
    if None in images and None in labels:
        notes = without_splits(request.split, where)
        return ArrayNames(images[None], labels[None], request.split, notes=notes)
    raise DataError(
        f"{where}: expected arrays named {_EXAMPLES}; got {_listed(names)}; "
        f"pass keys={{'images': ..., 'labels': ...}} to name them"
    )


def load_arrays(
    names: ArrayNames,
    where: str,
    load: Callable[[str], Shaped[np.ndarray, "..."]],
    metadata: SourceMetadata,
    *,
    groups: Int64[np.ndarray, " n"] | None = None,
) -> RawData:
    """Load the arrays that were chosen.

    Args:
        names: Their names.
        where: The source, for messages.
        load: Loads one array by its name.
        metadata: What the source states of itself.
        groups: A number for each image, alike for views of one.

    Returns:
        The images with their labels.
    """
    images = load(names.images)
    if metadata.layout is None and are_named_features(names.images, images):
        metadata = replace(metadata, layout="NF")
    return RawData(
        source=where,
        split=names.split,
        labels=load(names.labels),
        labels_at=f"{where}[{names.labels}]",
        reference=load(names.reference) if names.reference else None,
        images=images,
        images_at=f"{where}[{names.images}]",
        metadata=metadata,
        notes=names.notes,
        groups=groups,
    )


def choose_images(names: Collection[str], request: Request, where: str) -> str:
    """Choose the images alone, whether or not labels are beside them.

    They are the array named by the caller; else a pool by its name; else the images of the
    requested split; else those of a file without splits; else the only array there is.

    Args:
        names: The names of all arrays.
        request: The options of `read_pool`.
        where: The source, for messages.

    Returns:
        The name of the images.

    Raises:
        DataError: Stating which names are known and which there are.
    """
    if request.keys is not None:
        _check_key(request.keys["images"], names, where)
        return request.keys["images"]
    for pool in _POOLS:
        if pool in names:
            return pool
    images = _by_split(names, IMAGES)
    without_split = images.pop(None, None)
    if images:
        return images[require_split(request.split, images, where)]
    only = without_split or (next(iter(names)) if len(names) == 1 else None)
    if only is not None:
        without_splits(request.split, where)
        return only
    raise DataError(
        f"{where}: expected images in an array named {', '.join((*_POOLS, *IMAGES[:6]))}, "
        f"train_images or x_train, got {_listed(names)}; pass keys={{'images': ...}} to name it"
    )


def are_named_features(name: str, array: Shaped[np.ndarray, "..."]) -> bool:
    """Whether an array is called features: rows of floats of that name are no signals.

    Args:
        name: Its name.
        array: The array.

    Returns:
        True for floats of shape (N, F) with such a name.
    """
    return array.ndim == 2 and array.dtype.kind == "f" and _parse(name, FEATURES)[1] is not None


def _by_split(names: Collection[str], wanted: Collection[str]) -> dict[str | None, str]:
    """For each split, and under None for none, the array that is surest to be of this kind.

    A name is a word alone (images), or with a split before or after it (train_images, x_train,
    train/images, train_set_x).
    """
    by_split: dict[str | None, dict[str, str]] = {}
    for name in sorted(names):
        split, word = _parse(name, wanted)
        if word is not None:
            by_split.setdefault(split, {}).setdefault(word, name)
    ranks: Mapping[str, int] = {word: rank for rank, word in enumerate(wanted)}
    return {split: words[min(words, key=ranks.__getitem__)] for split, words in by_split.items()}


def _parse(name: str, wanted: Collection[str]) -> tuple[str | None, str | None]:
    """The split and the wanted word that a name is made of; None for what is missing."""
    if plain(name) in wanted:
        return None, plain(name)
    for separator in ("/", "_"):
        head, _, tail = name.rpartition(separator)
        first, _, rest = name.partition(separator)
        for split, word in ((head, tail), (rest, first), (first, rest)):
            if split and plain(word) in wanted and canonical(split) is not None:
                return canonical(split), plain(word)
    return None, None


def _check_key(name: str, names: Collection[str], where: str) -> None:
    if name not in names:
        raise DataError(f"{where}: expected an array {name!r} (from keys), got {_listed(names)}")


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)
    if not shown:
        return "no arrays"
    return ", ".join(shown[:20]) + (f", ... ({len(shown)} in all)" if len(shown) > 20 else "")
