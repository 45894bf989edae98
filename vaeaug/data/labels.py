"""Labels as people store them become indices 0..K-1, with -1 for an image without a label."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from vaeaug.data.checks import DataError
from vaeaug.data.request import Request

UNLABELLED = -1
# All numbers of so many digits fit 64 bits.
_MOST_DIGITS = 18
_LISTED = 10

_Labels = Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class _Site:
    """Where labels come from, for messages."""

    where: str
    place: Callable[[int], str] = "at index {}".format

    def error(self, expected: str) -> DataError:
        return DataError(f"{self.where}: expected {expected}")


def normalise_labels(
    raw: Shaped[np.ndarray, "..."],
    where: str,
    request: Request,
    *,
    stated: Sequence[str] | None = None,
    reference: Shaped[np.ndarray, "..."] | None = None,
    place: Callable[[int], str] | None = None,
) -> tuple[_Labels, tuple[str, ...], tuple[str, ...]]:
    """Bring labels to indices 0..K-1 with names.

    Numbers that are not 0..K-1 without gaps become so in their order, and are the names.

    Args:
        raw: Shape (N,) or (N, 1): integers, bools, floats that are whole numbers, or strings.
        where: The source, for messages.
        request: The options of `read`; with its class names, a class without an image is fine.
        stated: The class names by the source, where none were requested.
        reference: The labels of the training split where `raw` are those of another split: they
            determine which classes there are.
        place: Where label i is, for messages; None for its index.

    Returns:
        Labels, shape (N,), int64, -1 (only from numbers) for an image without one; the K class
        names; notes.

    Raises:
        DataError: If they are multi-label, out of range, or of an unknown class.
    """
    site = _Site(where) if place is None else _Site(where, place)
    training_site = _Site(f"{where} (training split)")
    values = _vector(raw, site)
    known = None if reference is None else _vector(reference, training_site)
    class_names = request.class_names or (None if stated is None else tuple(stated))
    if values.dtype.kind in "SUT":
        texts = _texts(values, site)
        if class_names is None:
            names = texts if known is None else _texts(known, training_site)
            class_names = tuple(sorted(set(names)))
        return _from_names(texts, class_names, site), class_names, ()
    labels = _whole(values, site)
    # What numbers mean is one thing for all splits, of which the training split has all classes.
    basis = labels if known is None else _whole(known, training_site)
    has_two = len(request.class_names) == 2 if request.class_names else stated is None
    if has_two and _is_sign(basis):
        classes = np.array([-1, 1])
    else:
        _check_not_negative(labels, site)
        _check_not_negative(basis, training_site)
        if labels.size and (labels == UNLABELLED).all():
            raise site.error(
                f"at least one image with a label, got label -1 (unlabelled) for all {len(labels)}"
            )
        classes = np.unique(basis[basis != UNLABELLED])
    if class_names is not None:
        is_requested = request.class_names is not None
        return _named(labels, classes, class_names, site, is_requested=is_requested)
    _check_known(labels, classes, site)
    indices = np.searchsorted(classes, labels)
    if UNLABELLED not in classes:
        indices[labels == UNLABELLED] = UNLABELLED
    return indices.astype(np.int64), tuple(map(str, classes.tolist())), _renumber_note(classes)


def is_whole(text: str) -> bool:
    """Whether a text is a whole number that can number a class.

    Args:
        text: A label. Numbers of more than 18 digits are names.

    Returns:
        True where it is.
    """
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS


def _is_sign(labels: _Labels) -> bool:
    """Whether the labels are -1 and 1 alone: two classes, and no image without a label."""
    return bool(labels.size) and set(np.unique(labels).tolist()) == {-1, 1}


def _renumber_note(classes: Int64[np.ndarray, " k"]) -> tuple[str, ...]:
    """The note that numbers have become others."""
    if np.array_equal(classes, np.arange(len(classes))):
        return ()
    return (
        f"integer labels {_listed(classes.tolist())} renumbered 0..{len(classes) - 1} in their "
        f"order; the class names are the original ones",
    )


def _check_not_negative(labels: _Labels, site: _Site) -> None:
    bad = np.flatnonzero(labels < UNLABELLED)
    if bad.size:
        raise site.error(
            f"labels of at least 0, or -1 for unlabelled, got {labels[bad[0]]} {site.place(bad[0])}"
        )


def _named(
    labels: _Labels,
    classes: Int64[np.ndarray, " k"],
    class_names: tuple[str, ...],
    site: _Site,
    *,
    is_requested: bool,
) -> tuple[_Labels, tuple[str, ...], tuple[str, ...]]:
    """Labels are indices of the names, unless the names are themselves numbers that fit.

    Names that the source states are of indices, whatever they look like, as long as these fit.
    """
    n_classes = len(class_names)
    numbers = classes.tolist()
    # -1 and 1, or 1 to K: as many as there are names, so that there is one way to number them.
    if numbers == [-1, 1]:
        _check_known(labels, classes, site)
        return (labels > 0).astype(np.int64), class_names, _renumber_note(classes)
    if numbers == list(range(1, n_classes + 1)) and not set(map(str, numbers)) <= {*class_names}:
        _check_known(labels, classes, site)
        shifted = np.where(labels == UNLABELLED, UNLABELLED, labels - 1)
        return shifted, class_names, (f"integer labels 1..{n_classes} renumbered from 0",)
    index = {name: label for label, name in enumerate(class_names)}
    known = {*numbers, *np.unique(labels).tolist()} - {UNLABELLED}
    is_by_name = all(str(number) in index for number in known)
    if is_by_name and (is_requested or max(known, default=-1) >= n_classes):
        table = {number: index[str(number)] for number in known} | {UNLABELLED: UNLABELLED}
        return np.array([table[int(v)] for v in labels], dtype=np.int64), class_names, ()
    bad = np.flatnonzero(labels >= n_classes)
    if bad.size:
        raise site.error(
            f"labels in 0..{n_classes - 1} (by {n_classes} class names), got "
            f"{labels[bad[0]]} {site.place(bad[0])} ({bad.size} labels out of range)"
        )
    return labels, class_names, ()


def _check_known(labels: _Labels, classes: Int64[np.ndarray, " k"], site: _Site) -> None:
    bad = np.flatnonzero(~np.isin(labels, [UNLABELLED, *classes.tolist()]))
    if bad.size:
        known = classes.tolist()
        is_gapless = known == list(range(len(known)))
        expected = f"in 0..{len(known) - 1}" if is_gapless else f"of {_listed(known)}"
        raise site.error(
            f"labels {expected} (by the labels of the training split), got "
            f"{labels[bad[0]]} {site.place(bad[0])} ({bad.size} labels are none of them)"
        )


def _vector(raw: Shaped[np.ndarray, "..."], site: _Site) -> Shaped[np.ndarray, " n"]:
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim != 1:
        raise site.error(
            f"one label for each image, shape (N,) or (N, 1), got shape {raw.shape}; multi-label "
            f"and one-hot labels are not read"
        )
    return _plain(raw, site) if raw.dtype == object else raw


def _plain(raw: Shaped[np.ndarray, " n"], site: _Site) -> Shaped[np.ndarray, " n"]:
    """Python objects, such as a table's column has them, as texts or numbers."""
    items = raw.tolist()
    kinds = {type(item) for item in items}
    if any(kinds <= alike for alike in ({str}, {bytes}, {bool, int}, {int, float})):
        return np.array(items)
    first = type(items[0])
    i = next((k for k, item in enumerate(items) if type(item) is not first), 0)
    raise site.error(
        f"integer or string labels, of one kind, got {items[i]!r} ({type(items[i]).__name__}) "
        f"{site.place(i)}" + (f" after {first.__name__}" if i else "")
    )


def _whole(values: Shaped[np.ndarray, " n"], site: _Site) -> _Labels:
    if values.dtype.kind == "f":
        # Above 2**53 every float is whole, and above 2**63 none fits an index.
        bad = np.flatnonzero((values != np.rint(values)) | ~(np.abs(values) < 2**53))
        if bad.size:
            raise site.error(
                f"whole numbers as labels, got {values[bad[0]]} {site.place(bad[0])} "
                f"({bad.size} labels are not whole)"
            )
    elif values.dtype.kind not in "iub":
        raise site.error(f"integer or string labels, got {values.dtype}")
    elif values.dtype == np.uint64 and values.max(initial=0) > np.iinfo(np.int64).max:
        raise site.error(f"labels that number the classes, got {values.max()}")
    return values.astype(np.int64)


def _texts(values: Shaped[np.ndarray, " n"], site: _Site) -> list[str]:
    items: list[Any] = values.tolist()
    try:
        texts = [item.decode() if isinstance(item, bytes) else item for item in items]
    except UnicodeDecodeError as error:
        raise site.error(f"labels as UTF-8 text, got {error.object!r}") from error
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise site.error(f"integer or string labels, got {type(text).__name__} {site.place(i)}")
    return texts


def _from_names(texts: list[str], class_names: tuple[str, ...], site: _Site) -> _Labels:
    index = {name: label for label, name in enumerate(class_names)}
    for i, text in enumerate(texts):
        if text not in index:
            raise site.error(
                f"one of the class names {_listed(class_names)}, got {text!r} {site.place(i)}"
            )
    return np.array([index[text] for text in texts], dtype=np.int64)


def _listed(items: Sequence[object]) -> str:
    shown = ", ".join(repr(item) for item in items[:_LISTED])
    return shown + (", ..." if len(items) > _LISTED else "")
