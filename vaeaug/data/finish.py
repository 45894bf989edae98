"""The one way from what a format reader returns to `LabelledImages`.

A reader of `data.formats` knows where a kind of source keeps its images and labels, and returns
them as they are stored, with what the source states of itself. Everything else is done here, once:
axes, value range, alpha, mode and size; label indices and class names; images without a label; and
notes.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from vaeaug.data.checks import DataError, Range, slices
from vaeaug.data.dataset import LabelledImages
from vaeaug.data.labels import UNLABELLED, normalise_labels
from vaeaug.data.metadata import NO_METADATA, SourceMetadata
from vaeaug.data.pixels import check_frames, finish_channels, finish_pixels
from vaeaug.data.request import Request
from vaeaug.data.stack import Decoded
from vaeaug.data.values import normalise_pixels

_PAIRS_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class RawImages:
    """Images of a source as it stores them.

    Attributes:
        source: The source, for messages.
        images: An array as stored; or samples that were decoded one by one, or a function that
            does so when it is called.
        images_at: The place of the images in the source, for messages; empty for the source.
        metadata: What the source states of itself.
        notes: What the reader did on purpose that the user should know.
    """

    source: str
    images: Shaped[np.ndarray, "..."] | Decoded | Callable[[], Decoded]
    images_at: str = ""
    metadata: SourceMetadata = NO_METADATA
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RawData(RawImages):
    """Labelled images of a source as it stores them.

    Attributes:
        labels: One label for each image, those that cannot be decoded included, as stored; with
            `class_names`, indices of these.
        split: The split that they are.
        labels_at: The place of the labels in the source, for messages; empty for the source.
        reference: The labels of the training split, where `labels` are those of another one.
        class_names: The names of the classes, where the labels are settled already.
        spelling: How the source writes the numbers that name its classes, where it is not as
            usual: {"7": "007"}.
        names: The names of the images, for notes; None for their index.
        place: Where label i is, for messages; None for its index.
        groups: A number for each image, alike for views of one; see `LabelledImages`.
    """

    labels: Shaped[np.ndarray, "..."]
    split: str
    labels_at: str = ""
    reference: Shaped[np.ndarray, "..."] | None = None
    class_names: tuple[str, ...] | None = None
    spelling: Mapping[str, str] | None = None
    names: Sequence[str] | None = None
    place: Callable[[int], str] | None = None
    groups: Int64[np.ndarray, " n"] | None = None


@dataclass(frozen=True)
class FinishedImages:
    """Images as `LabelledImages` holds them.

    Attributes:
        images: uint8 or float32, shape (N, space..., C).
        value_range: (lowest, highest).
        kept: Which of the stored images they are, shape (M,); None for all.
        notes: For the user.
        sample_rate: Of sounds, Hz, where it is known.
    """

    images: Shaped[np.ndarray, "n *space c"]
    value_range: Range
    kept: Bool[np.ndarray, " m"] | None
    notes: tuple[str, ...]
    sample_rate: int | None = None


def finish(raw: RawData, request: Request) -> LabelledImages:
    """Turn what a reader returned into labelled images.

    Args:
        raw: Images and labels as stored.
        request: The options of `read`.

    Returns:
        The labelled images; those of label -1 are its pool, with a note.

    Raises:
        DataError: If they are not usable as images, or the labels are not usable as labels.
    """
    _check_lengths(raw)
    if raw.class_names is None:
        labels, class_names, label_notes = normalise_labels(
            raw.labels,
            raw.labels_at or raw.source,
            request,
            stated=raw.metadata.class_names,
            reference=raw.reference,
            place=raw.place,
        )
        if raw.spelling is not None:
            class_names = tuple(raw.spelling[name] for name in class_names)
    else:
        labels, class_names, label_notes = raw.labels, raw.class_names, ()
    finished = finish_images(raw, request)
    images, names = finished.images, raw.names
    notes = (*raw.notes, *label_notes, *finished.notes)
    if finished.kept is not None:
        labels = labels[finished.kept]
        names = _selected(names, finished.kept)
    pool, groups = None, raw.groups
    is_labelled = labels != UNLABELLED
    if not is_labelled.all():
        pool, images, labels = images[~is_labelled], images[is_labelled], labels[is_labelled]
        names = _selected(names, is_labelled)
        groups = None if groups is None else groups[is_labelled]
        notes += (f"{len(pool)} images of label -1 are unlabelled",)
    notes += (*_note_similar_names(class_names), *_note_repeats(images, labels, class_names, names))
    return LabelledImages(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=finished.value_range,
        split=raw.split,
        source=raw.source,
        notes=notes,
        unlabelled=pool,
        groups=groups,
        sample_rate=finished.sample_rate,
        front_end=request.front_end,
    )


def finish_images(raw: RawImages, request: Request) -> FinishedImages:
    """Settle axes, value range, alpha, mode and size.

    Args:
        raw: Images as stored.
        request: The options of `read`.

    Returns:
        The images with their value range.

    Raises:
        DataError: If they are not usable as images.
    """
    where, stated = raw.images_at or raw.source, raw.metadata
    images = raw.images() if callable(raw.images) else raw.images
    if isinstance(images, Decoded):
        pixels, value_range, value_notes = normalise_pixels(
            images.images, where, request.value_range or images.value_range
        )
        check_frames(pixels, where, request)
        notes = [*images.notes, *value_notes]
        # Pillow images have had their alpha handled; those that keep it are left as they are.
        if images.stored_as_numbers and pixels.ndim == 4 and request.alpha != "keep":
            pixels = finish_channels(pixels, request, value_range, request.layout, notes)
        return FinishedImages(
            pixels, value_range, images.kept, tuple(notes), _rate_of(images, request, where)
        )
    fits = stated.layout is not None and len(stated.layout) == images.ndim
    pixels, value_range, pixel_notes = finish_pixels(
        images,
        where,
        request,
        layout=stated.layout if fits else None,
        value_range=stated.value_range,
    )
    check_frames(pixels, where, request)
    rate = request.sample_rate  # an array does not say its own
    if rate is not None and pixels.ndim != 3:
        raise _no_sounds(where)
    return FinishedImages(pixels, value_range, None, pixel_notes, rate)


def _rate_of(decoded: Decoded, request: Request, where: str) -> int | None:
    if request.sample_rate is not None and decoded.images.ndim != 3:
        raise _no_sounds(where)
    return decoded.sample_rate or request.sample_rate


def _no_sounds(where: str) -> DataError:
    return DataError(f"{where}: sample_rate= is for sounds and other signals, got none")


def _check_lengths(raw: RawData) -> None:
    if isinstance(raw.images, np.ndarray) and raw.images.shape[:1] != raw.labels.shape[:1]:
        raise DataError(
            f"{raw.source}: expected one label for each image, got images of shape "
            f"{raw.images.shape} and labels of shape {raw.labels.shape}"
        )


def _selected(names: Sequence[str] | None, kept: Bool[np.ndarray, " n"]) -> list[str] | None:
    return None if names is None else [name for name, keep in zip(names, kept, strict=True) if keep]


def _note_similar_names(class_names: tuple[str, ...]) -> tuple[str, ...]:
    """A note on names that look the same and are likely meant to be."""
    by_look: dict[str, list[str]] = {}
    for name in class_names:
        look = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        by_look.setdefault(look, []).append(name)
    same = [" and ".join(map(ascii, names)) for names in by_look.values() if len(names) > 1]
    if not same:
        return ()
    return (f"classes whose names differ by case, spaces or accents' encoding: {', '.join(same)}",)


def _note_repeats(
    images: Shaped[np.ndarray, "n *space c"],
    labels: Int64[np.ndarray, " n"],
    class_names: tuple[str, ...],
    names: Sequence[str] | None,
) -> tuple[str, ...]:
    """A note on images that are there under several labels, which no generator can tell apart."""
    first: dict[bytes, int] = {}
    pairs: list[tuple[int, int]] = []
    for i, image in enumerate(image for piece in slices(images) for image in piece):
        digest = hashlib.blake2b(np.ascontiguousarray(image).data.cast("B"), digest_size=16)
        earlier = first.setdefault(digest.digest(), i)
        if labels[earlier] != labels[i]:
            pairs.append((earlier, i))
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
