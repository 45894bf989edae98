"""Labels as people store them become indices 0..K-1, with -1 for an image without one."""

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.request import Request

UNLABELLED = -1
# All numbers of so many digits fit 64 bits.
_MOST_DIGITS = 18
_LISTED = 10
_PAIRS_LISTED = 5


def labelled(
    *,
    images: Shaped[np.ndarray, "n *space c"],
    labels: Int64[np.ndarray, " n"],
    class_names: tuple[str, ...],
    value_range: tuple[float, float],
    split: str,
    source: str,
    notes: tuple[str, ...],
    names: Sequence[str] | None = None,
) -> LabelledImages:
    """`LabelledImages` of what was read, the images of label -1 moved to its pool with a note.

    Args:
        images: as `LabelledImages` has them.
        labels: -1 for an image without one.
        class_names: of the labels.
        value_range: of the images.
        split: that they are of.
        source: where they are from.
        notes: what the user should know.
        names: of the images, for notes; their index without it.

    Raises:
        DataError: if the parts do not fit together.
    """
    pool = None
    without = labels == UNLABELLED
    # Numbers that do not match are for LabelledImages to refuse.
    if without.any() and len(labels) == len(images):
        pool, images, labels = images[without], images[~without], labels[~without]
        notes = (*notes, f"{len(pool)} images of label -1 are unlabelled")
        names = None if names is None else [n for n, w in zip(names, without, strict=True) if not w]
    return LabelledImages(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=split,
        source=source,
        notes=(*notes, *_alike(class_names), *_repeated(images, labels, class_names, names)),
        unlabelled=pool,
    )


def _alike(class_names: tuple[str, ...]) -> tuple[str, ...]:
    """A note on names that look the same and are likely meant to be."""
    by_look: dict[str, list[str]] = {}
    for name in class_names:
        look = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        by_look.setdefault(look, []).append(name)
    same = [" and ".join(map(ascii, names)) for names in by_look.values() if len(names) > 1]
    if not same:
        return ()
    return (f"classes whose names differ by case, spaces or accents' encoding: {', '.join(same)}",)


def _repeated(
    images: Shaped[np.ndarray, "n *space c"],
    labels: Int64[np.ndarray, " n"],
    class_names: tuple[str, ...],
    names: Sequence[str] | None,
) -> tuple[str, ...]:
    """A note on images that are there under several labels, which no generator can tell apart."""
    first: dict[bytes, int] = {}
    pairs: list[tuple[int, int]] = []
    for i, image in enumerate(images[: len(labels)]):
        digest = hashlib.blake2b(np.ascontiguousarray(image).data.cast("B"), digest_size=16)
        before = first.setdefault(digest.digest(), i)
        if labels[before] != labels[i]:
            pairs.append((before, i))
    if not pairs:
        return ()
    shown = [
        " and ".join(
            f"{i if names is None else names[i]} ({class_names[labels[i]]!r})" for i in pair
        )
        for pair in pairs[:_PAIRS_LISTED]
    ]
    more = f", and {len(pairs) - _PAIRS_LISTED} more" if len(pairs) > _PAIRS_LISTED else ""
    return (
        f"{len(pairs)} images are the same, pixel for pixel, as one of another class: "
        f"{', '.join(shown)}{more}",
    )


def normalise_labels(
    raw: Shaped[np.ndarray, "..."],
    where: str,
    request: Request,
    *,
    stated: Sequence[str] | None = None,
    reference: Shaped[np.ndarray, "..."] | None = None,
) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...], tuple[str, ...]]:
    """Bring labels to indices 0..K-1 with names.

    Numbers that are not 0..K-1 without gaps become so in their order, and are the names.

    Args:
        raw: shape (N,) or (N, 1): integers, bools, floats that are whole numbers, or strings.
        where: the source, for messages.
        request: what was asked for; with its class names, a class without an image is fine.
        stated: the class names by the source, where none were asked for.
        reference: the training split's labels where `raw` is another split's: they say which
            classes there are.

    Returns:
        Labels, shape (N,), int64, -1 (only from numbers) for an image without one; the K class
        names; notes.

    Raises:
        DataError: if they are multi-label, out of range, or of no class that is known.
    """
    values = _vector(raw, where)
    known = None if reference is None else _vector(reference, f"{where} (training split)")
    class_names = request.class_names or stated
    # Of a damaged file.
    odd = [name for name in stated or () if not isinstance(name, str)]
    if odd:
        raise DataError(f"{where}: expected class names as texts, got {odd[0]!r} among them")
    if values.dtype.kind in "SUT":
        return *_from_names(_texts(values, where), where, class_names, known), ()
    labels = _whole(values, where)
    training = None if known is None else _whole(known, f"{where} (training split)")
    # What numbers mean is one thing for all splits, of which the training split has all classes.
    basis = labels if training is None else training
    asked = request.class_names is not None
    if is_sign(basis) and (len(class_names) == 2 if asked and class_names else stated is None):
        classes = np.array([-1, 1])
    else:
        _check_unlabelled(labels, where)
        classes = np.unique(basis[basis != UNLABELLED])
    if class_names is not None:
        return _named(labels, classes, where, tuple(class_names), asked)
    _check_known(labels, classes, where)
    indices = np.searchsorted(classes, labels)
    if -1 not in classes:
        indices[labels == UNLABELLED] = UNLABELLED
    return indices.astype(np.int64), tuple(map(str, classes.tolist())), renumbered(classes.tolist())


def is_whole(text: str) -> bool:
    """Whether a text is a whole number that can number a class; longer ones are names."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS


def is_sign(labels: Int64[np.ndarray, " n"]) -> bool:
    """Whether the labels are -1 and 1 and nothing else: two classes, and no image without one."""
    return bool(labels.size) and set(np.unique(labels).tolist()) == {-1, 1}


def renumbered(classes: Sequence[int]) -> tuple[str, ...]:
    """The note that numbers have become others."""
    if list(classes) == list(range(len(classes))):
        return ()
    return (
        f"integer labels {_listed(classes)} renumbered 0..{len(classes) - 1} in their order; the "
        f"class names are the original ones",
    )


def _check_unlabelled(labels: Int64[np.ndarray, " n"], where: str) -> None:
    if labels.size and labels.min() < UNLABELLED:
        i = int(np.argmax(labels < UNLABELLED))
        raise DataError(
            f"{where}: expected labels of at least 0, or -1 for unlabelled, got "
            f"{labels[i]} at index {i}"
        )
    if labels.size and (labels == UNLABELLED).all():
        raise DataError(
            f"{where}: expected at least one image with a label, got label -1 (unlabelled) for all "
            f"{len(labels)}"
        )


def _named(
    labels: Int64[np.ndarray, " n"],
    classes: Int64[np.ndarray, " k"],
    where: str,
    class_names: tuple[str, ...],
    asked: bool,
) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...], tuple[str, ...]]:
    """Labels are indices of the names, unless the names are themselves numbers that fit.

    Names that the source states are of indices, whatever they look like, as long as these fit.
    """
    n_classes = len(class_names)
    numbers = classes.tolist()
    # -1 and 1, or 1 to K: as many as there are names, so that there is one way to number them.
    if numbers == [-1, 1]:
        _check_known(labels, classes, where)
        return (labels > 0).astype(np.int64), class_names, renumbered(numbers)
    if numbers == list(range(1, n_classes + 1)) and not set(map(str, numbers)) <= {*class_names}:
        _check_known(labels, classes, where)
        shifted = np.where(labels == UNLABELLED, UNLABELLED, labels - 1)
        return shifted, class_names, (f"integer labels 1..{n_classes} renumbered from 0",)
    index = {name: c for c, name in enumerate(class_names)}
    known = {*numbers, *np.unique(labels).tolist()} - {UNLABELLED}
    by_name = all(str(number) in index for number in known)
    if by_name and (asked or max(known, default=-1) >= n_classes):
        table = {number: index[str(number)] for number in known} | {UNLABELLED: UNLABELLED}
        return np.array([table[int(v)] for v in labels], dtype=np.int64), class_names, ()
    _check_top(labels, n_classes, where, f"{n_classes} class names")
    return labels, class_names, ()


def _check_known(
    labels: Int64[np.ndarray, " n"], classes: Int64[np.ndarray, " k"], where: str
) -> None:
    bad = np.flatnonzero(~np.isin(labels, [UNLABELLED, *classes.tolist()]))
    if bad.size:
        known = classes.tolist()
        gapless = known == list(range(len(known)))
        wanted = f"in 0..{len(known) - 1}" if gapless else f"of {_listed(known)}"
        raise DataError(
            f"{where}: expected labels {wanted} (by the labels of the "
            f"training split), got {labels[bad[0]]} at index {bad[0]} ({bad.size} labels are none "
            f"of them)"
        )


def _vector(raw: Shaped[np.ndarray, "..."], where: str) -> Shaped[np.ndarray, " n"]:
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.dtype == object and raw.ndim == 1:
        raw = _plain(raw, where)
    if raw.ndim != 1:
        raise DataError(
            f"{where}: expected one label for each image, shape (N,) or (N, 1), got shape "
            f"{raw.shape}; multi-label and one-hot labels are not read"
        )
    return raw


def _plain(raw: Shaped[np.ndarray, " n"], where: str) -> Shaped[np.ndarray, " n"]:
    """Python objects, such as a table's column has them, as texts or numbers."""
    items = raw.tolist()
    kinds = {type(item) for item in items}
    if kinds <= {str} or kinds <= {bytes} or kinds <= {bool, int} or kinds <= {int, float}:
        return np.array(items)
    first = type(items[0])
    i = next((k for k, item in enumerate(items) if type(item) is not first), 0)
    got = f"{items[i]!r} ({type(items[i]).__name__}) at index {i}"
    raise DataError(
        f"{where}: expected integer or string labels, of one kind, got {got}"
        + (f" after {first.__name__}" if i else "")
    )


def _whole(values: Shaped[np.ndarray, " n"], where: str) -> Int64[np.ndarray, " n"]:
    if values.dtype.kind == "f":
        # Above 2**53 every float is whole, and above 2**63 none fits an index.
        whole = (values == np.rint(values)) & (np.abs(values) < 2**53)
        bad = np.flatnonzero(~whole)
        if bad.size:
            raise DataError(
                f"{where}: expected whole numbers as labels, got {values[bad[0]]} at index "
                f"{bad[0]} ({bad.size} labels are not whole)"
            )
    elif values.dtype.kind not in "iub":
        raise DataError(f"{where}: expected integer or string labels, got {values.dtype}")
    elif values.dtype == np.uint64 and values.max(initial=0) > np.iinfo(np.int64).max:
        raise DataError(f"{where}: expected labels that number the classes, got {values.max()}")
    return values.astype(np.int64)


def _texts(values: Shaped[np.ndarray, " n"], where: str) -> list[str]:
    items: list[Any] = values.tolist()
    try:
        texts = [item.decode() if isinstance(item, bytes) else item for item in items]
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: expected labels as UTF-8 text, got {error.object!r}") from error
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"{where}: expected integer or string labels, got {type(text).__name__} "
                f"at index {i}"
            )
    return texts


def _from_names(
    texts: list[str],
    where: str,
    class_names: Sequence[str] | None,
    known: Shaped[np.ndarray, " m"] | None,
) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    if class_names is None:
        class_names = sorted(set(texts if known is None else _texts(known, where)))
    index = {name: c for c, name in enumerate(class_names)}
    for i, text in enumerate(texts):
        if text not in index:
            raise DataError(
                f"{where}: expected one of the class names {_listed(class_names)}, got {text!r} "
                f"at index {i}"
            )
    return np.array([index[text] for text in texts], dtype=np.int64), tuple(class_names)


def _check_top(labels: Int64[np.ndarray, " n"], n_classes: int, where: str, by: str) -> None:
    bad = np.flatnonzero(labels >= n_classes)
    if bad.size:
        raise DataError(
            f"{where}: expected labels in 0..{n_classes - 1} (by {by}), got {labels[bad[0]]} at "
            f"index {bad[0]} ({bad.size} labels out of range)"
        )


def _listed(items: Sequence[object]) -> str:
    shown = ", ".join(repr(item) for item in items[:_LISTED])
    return shown + (", ..." if len(items) > _LISTED else "")
