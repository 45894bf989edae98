"""Choosing images by content, not by position, with equal numbers of each class."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Shaped

from vaeaug.data import LabelledImages

_DIGEST_BYTES = 16


def digests(images: Shaped[np.ndarray, "n *space c"], *, seed: int = 0) -> list[bytes]:
    """Hash every image's values; equal images have equal hashes, and zeros have no sign.

    Args:
        images: Images.
        seed: Key of the hash.

    Returns:
        16 bytes per image.
    """
    key = int(seed).to_bytes(16, "little", signed=True)
    return [
        hashlib.blake2b(
            np.ascontiguousarray(image + image.dtype.type(0)).tobytes(),
            digest_size=_DIGEST_BYTES,
            key=key,
        ).digest()
        for image in images
    ]


def random_order(images: Shaped[np.ndarray, "n *space c"], *, seed: int) -> Int64[np.ndarray, " n"]:
    """Shuffle images by what they show, not by where they lie.

    Args:
        images: Images.
        seed: Seed of the order.

    Returns:
        Rows in the order.
    """
    keys = digests(images, seed=seed)
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def matched_counts(
    counts: Sequence[Int64[np.ndarray, " k"]], most: int | None = None
) -> Int64[np.ndarray, " k"]:
    """Count the images of each class that all sets have.

    Args:
        counts: Images of each class in every set.
        most: Scale the counts down to about this many images in all; a class that all sets have
            keeps at least one.

    Returns:
        Images of each class.
    """
    common = np.minimum.reduce([np.asarray(of_set, np.int64) for of_set in counts])
    total = int(common.sum())
    if most is None or total <= most:
        return common
    return np.maximum(common * most // total, (common > 0).astype(np.int64))


def first_of_each(
    labels: Int64[np.ndarray, " n"],
    order: Int64[np.ndarray, " n"],
    counts: Int64[np.ndarray, " k"],
) -> Int64[np.ndarray, " m"]:
    """Choose the first rows of each class in an order.

    Args:
        labels: Class of each row.
        order: Rows in an order.
        counts: Rows of each class to choose.

    Returns:
        The rows, in that order.
    """
    ordered = labels[order]
    kept = np.zeros(len(order), bool)
    for label, count in enumerate(counts):
        kept[np.flatnonzero(ordered == label)[:count]] = True
    return order[kept]


def shared_images(train: LabelledImages, held_out: LabelledImages) -> Int64[np.ndarray, " s"]:
    """Find held-out images that are also among the training images or their pool.

    Images are compared by a 128-bit hash of their values, labels aside.

    Args:
        train: Training images, with their pool if they have one.
        held_out: Held-out images.

    Returns:
        Rows of `held_out`.

    Raises:
        ValueError: If the two differ in image shape or type.
    """
    check_like(train, held_out.images, "shared_images: held_out")
    seen = set(digests(train.images))
    if train.unlabelled is not None:
        seen |= set(digests(train.unlabelled))
    return np.array(
        [row for row, digest in enumerate(digests(held_out.images)) if digest in seen], np.int64
    )


def without_shared(
    train: LabelledImages, held_out: LabelledImages, where: str
) -> tuple[LabelledImages, list[str]]:
    """Leave out held-out images that are training images.

    Args:
        train: Training images, with their pool if they have one.
        held_out: Held-out images.
        where: The caller, for messages.

    Returns:
        (the other held-out images, a note on those left out or nothing).

    Raises:
        ValueError: If there are no others, or the two do not belong together.
    """
    if train.class_names != held_out.class_names or train.value_range != held_out.value_range:
        raise ValueError(
            f"{where}: expected held-out images with the classes and value range of the training "
            f"images, {train.class_names} in {train.value_range}, got {held_out.class_names} in "
            f"{held_out.value_range}"
        )
    shared = shared_images(train, held_out)
    if not len(shared):
        return held_out, []
    if len(shared) == len(held_out):
        raise ValueError(
            f"{where}: expected held-out images that are not in the training split, but all "
            f"{len(shared)} are"
        )
    note = (
        f"Leak: {len(shared)} of {len(held_out)} held-out images are also in the training split; "
        "they are left out here."
    )
    return held_out.subset(np.delete(np.arange(len(held_out)), shared)), [note]


def check_like(train: LabelledImages, images: Shaped[np.ndarray, "n *space c"], what: str) -> None:
    """Check that there are images, of the shape and type of the training images.

    Args:
        train: Training images.
        images: Other images.
        what: The other images, for the message.

    Raises:
        ValueError: Naming both shapes and types.
    """
    if images.shape[1:] != train.image_shape or images.dtype != train.images.dtype:
        raise ValueError(
            f"{what}: expected images like the training ones, {train.images.dtype} of shape "
            f"{train.image_shape}, got {images.dtype} of shape {images.shape[1:]}"
        )
    if not len(images):
        raise ValueError(f"{what}: expected at least one image, got none")


def check_labels(labels: np.ndarray, n: int, n_classes: int, what: str) -> Int64[np.ndarray, " n"]:
    """Check class indices.

    Args:
        labels: One per image.
        n: Number of images.
        n_classes: Number of classes.
        what: The labels, for the message.

    Returns:
        The labels as int64.

    Raises:
        ValueError: If there is not one for each image, or one is out of range.
    """
    labels = np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{what}: expected one integer label per image, shape ({n},), got {labels.dtype} of "
            f"shape {labels.shape}"
        )
    if n and not 0 <= labels.min() <= labels.max() < n_classes:
        raise ValueError(
            f"{what}: expected labels in 0..{n_classes - 1}, got {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int64)


def listed(labels: np.ndarray | Sequence[int], class_names: Sequence[str], most: int = 8) -> str:
    """Name classes for a message.

    Args:
        labels: Class indices.
        class_names: Names of the classes.
        most: Names that are written out; of more the number is given.

    Returns:
        The names, quoted, with commas.
    """
    names = [repr(class_names[int(label)]) for label in labels]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
