"""Labels as people store them become indices 0..K-1, with -1 for an image without one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from vaeaug.data._images import DataError, LabelledImages

UNLABELLED = -1
_LISTED = 10


def labelled(
    *,
    images: Shaped[np.ndarray, "n *space c"],
    labels: Int64[np.ndarray, " n"],
    class_names: tuple[str, ...],
    value_range: tuple[float, float],
    split: str,
    source: str,
    notes: tuple[str, ...],
) -> LabelledImages:
    """`LabelledImages` of what was read, the images of label -1 moved to its pool with a note.

    Raises:
        DataError: if the parts do not fit together.
    """
    pool = None
    without = labels == UNLABELLED
    # Numbers that do not match are for LabelledImages to refuse.
    if without.any() and len(labels) == len(images):
        pool, images, labels = images[without], images[~without], labels[~without]
        notes = (*notes, f"{len(pool)} images of label -1 are unlabelled")
    return LabelledImages(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=split,
        source=source,
        notes=notes,
        unlabelled=pool,
    )


def normalise_labels(
    raw: Shaped[np.ndarray, "..."],
    where: str,
    *,
    class_names: Sequence[str] | None = None,
    reference: Shaped[np.ndarray, "..."] | None = None,
) -> tuple[Int64[np.ndarray, " n"], tuple[str, ...]]:
    """Bring labels to indices 0..K-1 with names.

    Args:
        raw: shape (N,) or (N, 1): integers, bools, floats that are whole numbers, or strings.
        where: the source, for messages.
        class_names: the names, if known; classes without an image are then fine.
        reference: the training split's labels where `raw` is another split's: they say which
            classes there are.

    Returns:
        Labels, shape (N,), int64, -1 (only from numbers) for an image without one; the K class
        names.

    Raises:
        DataError: if they are multi-label, out of range, or leave a gap.
    """
    values = _vector(raw, where)
    known = None if reference is None else _vector(reference, f"{where} (training split)")
    if values.dtype.kind in "SUO":
        return _from_names(_texts(values, where), where, class_names, known)
    labels = _whole(values, where)
    if labels.size and labels.min() < UNLABELLED:
        i = int(np.argmax(labels < UNLABELLED))
        raise DataError(
            f"{where}: expected labels of at least 0, or -1 for unlabelled, got {labels[i]} at "
            f"index {i}"
        )
    if labels.size and (labels == UNLABELLED).all():
        raise DataError(
            f"{where}: expected at least one image with a label, got label -1 (unlabelled) for all "
            f"{len(labels)}"
        )
    if class_names is not None:
        n_classes = len(class_names)
        _check_top(labels, n_classes, where, f"{n_classes} class names")
        return labels, tuple(class_names)
    if known is None:
        present = np.unique(labels[labels != UNLABELLED])
        n_classes = int(labels.max(initial=-1)) + 1
    else:
        present = np.unique(_whole(known, f"{where} (training split)"))
        present = present[present != UNLABELLED]
        n_classes = int(present.max(initial=-1)) + 1
        _check_top(labels, n_classes, where, "the labels of the training split")
    if len(present) != n_classes:
        _raise_gap(present, n_classes, where)
    return labels, tuple(str(c) for c in range(n_classes))


def _vector(raw: Shaped[np.ndarray, "..."], where: str) -> Shaped[np.ndarray, " n"]:
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim != 1:
        raise DataError(
            f"{where}: expected one label for each image, shape (N,) or (N, 1), got shape "
            f"{raw.shape}; multi-label and one-hot labels are not read"
        )
    return raw


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


def _raise_gap(present: Int64[np.ndarray, " p"], n_classes: int, where: str) -> None:
    missing: list[int] = []
    expected = 0
    for label in present.tolist():
        # A label may be huge by mistake: list the first missing ones, never the whole range.
        missing.extend(range(expected, min(label, expected + _LISTED + 1)))
        expected = label + 1
    raise DataError(
        f"{where}: expected labels 0..{n_classes - 1} without gaps, got no image with label "
        f"{_listed(missing)}; number the classes from 0 without gaps, or pass class_names= with "
        f"all {n_classes} names if a class may be empty"
    )


def _listed(items: Sequence[object]) -> str:
    shown = ", ".join(repr(item) for item in items[:_LISTED])
    return shown + (", ..." if len(items) > _LISTED else "")
