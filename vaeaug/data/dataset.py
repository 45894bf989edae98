"""`LabelledImages`: the one type in which a labelled image dataset travels through the library."""

import hashlib
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

# Whole-array checks and hashes go in slices of about this many bytes, so that they need no second
# copy of a large dataset.
_SLICE_BYTES = 64 * 2**20
# By the rank of the array: signals, images, volumes or short video.
LAYOUTS = {3: "NLC", 4: "NHWC", 5: "NDHWC"}
NOUNS = {"NLC": "signals", "NHWC": "images", "NDHWC": "volumes"}


class DataError(ValueError):
    """The input data is not usable; the message says which file, what was expected and got."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Labelled images, signals or volumes in memory, validated once when constructed.

    Attributes:
        images: values, C-contiguous, shape (N, L, C) for signals, (N, H, W, C) for images or
            (N, D, H, W, C) for volumes and short video; uint8, or float32 where the input was
            float or 16 bit.
        labels: class indices 0..K-1, shape (N,), int64.
        class_names: the K class names; index c is the class with label c.
        value_range: (lowest, highest) pixel value by convention, in the units of `images`:
            (0, 255) for uint8; (0, 1), (-1, 1), (0, 255) or (0, 65535) for float32, or a signal's
            or volume's own lowest and highest value.
        split: "train", "val", "test" or "all", where known.
        source: where the data came from, for messages; not part of the fingerprint.
        notes: what was done on purpose while reading that the user should know.
        unlabelled: a pool of images without labels, shape (M, *image_shape), of the type and value
            range of `images`; None where there is none. An empty pool becomes None.

    Raises:
        DataError: if the parts do not fit together.
    """

    images: Shaped[np.ndarray, "n *space c"]
    labels: Int64[np.ndarray, " n"]
    class_names: tuple[str, ...]
    value_range: tuple[float, float]
    split: str | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    unlabelled: Shaped[np.ndarray, "m *space c"] | None = None

    def __post_init__(self) -> None:
        where = self.source or "LabelledImages"
        images = np.ascontiguousarray(self.images)
        labels = np.ascontiguousarray(self.labels)
        low, high = (float(v) for v in self.value_range)
        # Frozen for users; lists and strided views are put into their canonical form here, once.
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "value_range", (low, high))
        # A path that is no UTF-8 is shown with its bytes escaped: nothing else could write it down.
        object.__setattr__(self, "source", _encodable(self.source))
        object.__setattr__(self, "notes", tuple(map(_encodable, self.notes)))

        if images.ndim not in LAYOUTS:
            raise DataError(
                f"{where}: expected signals of shape (N, L, C), images (N, H, W, C) or volumes "
                f"(N, D, H, W, C), got shape {images.shape}"
            )
        if images.dtype not in (np.uint8, np.float32):
            raise DataError(f"{where}: expected uint8 or float32 images, got {images.dtype}")
        if len(images) == 0:
            raise DataError(f"{where}: expected at least one image, got none")
        if 0 in images.shape:
            axes = ", ".join(LAYOUTS[images.ndim][1:-1])
            raise DataError(
                f"{where}: expected {axes} and C of at least 1, got image shape {images.shape[1:]}"
            )
        if labels.dtype != np.int64 or labels.shape != (len(images),):
            raise DataError(
                f"{where}: expected int64 labels of shape ({len(images)},), one for each image, "
                f"got {labels.dtype} labels of shape {labels.shape}"
            )
        _check_names(self.class_names, where)
        n_classes = len(self.class_names)
        bad = np.flatnonzero((labels < 0) | (labels >= n_classes))
        if bad.size:
            raise DataError(
                f"{where}: expected labels in 0..{n_classes - 1} ({n_classes} class names), "
                f"got {labels[bad[0]]} at index {bad[0]} ({bad.size} labels out of range)"
            )
        if not low < high:
            raise DataError(
                f"{where}: expected value_range (low, high), low < high, got ({low}, {high})"
            )
        if images.dtype == np.uint8 and (low, high) != (0.0, 255.0):
            raise DataError(
                f"{where}: expected value_range (0, 255) for uint8 images, got ({low}, {high})"
            )
        if images.dtype == np.float32:
            _check_inside(images, (low, high), where)
        if self.unlabelled is not None:
            self._set_pool(np.ascontiguousarray(self.unlabelled), f"{where}: unlabelled")

    def _set_pool(self, pool: Shaped[np.ndarray, "m *space c"], where: str) -> None:
        if pool.shape[1:] != self.image_shape or pool.dtype != self.images.dtype:
            want = ", ".join(map(str, self.image_shape))
            raise DataError(
                f"{where}: expected {self.images.dtype} images of shape (M, {want}), as the "
                f"labelled ones, got {pool.dtype} of shape {pool.shape}"
            )
        if len(pool) and pool.dtype == np.float32:
            _check_inside(pool, self.value_range, where)
        object.__setattr__(self, "unlabelled", pool if len(pool) else None)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        pool = "" if self.unlabelled is None else f"{len(self.unlabelled)} unlabelled, "
        notes = f", {len(self.notes)} notes" if self.notes else ""
        return (
            f"LabelledImages({len(self)} {NOUNS[self.layout]} of "
            f"{'x'.join(map(str, self.image_shape))} {self.images.dtype}, {pool}"
            f"{self.n_classes} classes, split={self.split!r}, source={self.source!r}{notes})"
        )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image: its one to three axes in space (and time), then its channels."""
        return self.images.shape[1:]

    @property
    def layout(self) -> str:
        """The axes of `images`: "NLC" (signals), "NHWC" (images) or "NDHWC" (volumes, video)."""
        return LAYOUTS[self.images.ndim]

    @property
    def n_classes(self) -> int:
        """Number of class names, K; a class may have no image in a subset."""
        return len(self.class_names)

    @property
    def counts(self) -> Int64[np.ndarray, " k"]:
        """Number of images of each class, shape (K,)."""
        return np.bincount(self.labels, minlength=self.n_classes).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the data is: pixels, labels, names and range; not of where it lay.

        It covers the pool where there is one. Computed once; do not write into the arrays
        afterwards.
        """
        head: dict[str, Any] = {
            "dtype": self.images.dtype.str,
            "shape": list(self.images.shape),
            "class_names": list(self.class_names),
            "value_range": list(self.value_range),
        }
        parts = [self.images, self.labels]
        if self.unlabelled is not None:
            head["unlabelled"] = len(self.unlabelled)
            parts.append(self.unlabelled)
        digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        for part in parts:
            for piece in _slices(part):
                digest.update(piece.data.cast("B"))
        return digest.hexdigest()

    def with_unlabelled(self, images: Shaped[np.ndarray, "m *space c"]) -> "LabelledImages":
        """A copy with these images without labels, after those that it has already.

        Args:
            images: shape (M, *image_shape), of the type and in the value range of `self.images`;
                `read_pool` gives them so.

        Raises:
            DataError: if they do not fit.
        """
        added = replace(self, unlabelled=np.asarray(images))
        if self.unlabelled is None or added.unlabelled is None:
            return self if added.unlabelled is None else added
        return replace(self, unlabelled=np.concatenate([self.unlabelled, added.unlabelled]))

    def images_at(self, rows: Int64[np.ndarray, " m"]) -> Shaped[np.ndarray, "m *space c"]:
        """Copies of the images in `rows`; row N + i is row i of the pool.

        Raises:
            IndexError: if a row is negative or past the end.
        """
        rows = np.asarray(rows, dtype=np.int64)
        n_pool = 0 if self.unlabelled is None else len(self.unlabelled)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self) + n_pool:
            raise IndexError(
                f"images_at: expected rows in 0..{len(self) + n_pool - 1} ({len(self)} labelled "
                f"and {n_pool} unlabelled images), got {rows.min()} to {rows.max()}"
            )
        out = np.empty((len(rows), *self.image_shape), dtype=self.images.dtype)
        own = rows < len(self)
        out[own] = self.images[rows[own]]
        if self.unlabelled is not None:
            out[~own] = self.unlabelled[rows[~own] - len(self)]
        return out

    def subset(self, indices: Shaped[np.ndarray, " m"] | Sequence[int]) -> "LabelledImages":
        """The images at `indices`, in that order, with all class names and the pool kept.

        Args:
            indices: shape (M,), integers in 0..N-1 (no negative ones), or a boolean mask of
                shape (N,).

        Raises:
            DataError: if an index is out of range, or nothing is left.
        """
        index = np.asarray(indices)
        if index.dtype == np.bool_ and index.shape == (len(self),):
            index = np.flatnonzero(index)
        if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
            raise DataError(
                f"subset: expected a vector of integers or a boolean mask of shape "
                f"({len(self)},), got {index.dtype} of shape {index.shape}"
            )
        if index.size == 0:
            raise DataError("subset: expected at least one index, got none")
        index = index.astype(np.int64)
        if index.min() < 0 or index.max() >= len(self):
            raise DataError(
                f"subset: expected indices in 0..{len(self) - 1}, "
                f"got {index.min()} to {index.max()}"
            )
        return replace(self, images=self.images[index], labels=self.labels[index])

    def imbalanced(
        self, counts: Sequence[int] | Mapping[int, int], *, seed: int
    ) -> "LabelledImages":
        """Keep so many images of each class, chosen at random, in their first order.

        With the same seed a smaller count keeps a part of what a larger one keeps, and the choice
        in one class does not depend on the counts of the others.

        Args:
            counts: K counts, one a class; or a mapping from label to count, which leaves the
                classes it does not name whole.
            seed: for `numpy.random.default_rng`.

        Raises:
            DataError: if a class has fewer images than asked for.
            TypeError: if a count is not an integer.
        """
        have = self.counts
        if isinstance(counts, Mapping):
            unknown = sorted(set(counts) - set(range(self.n_classes)))
            if unknown:
                raise DataError(
                    f"imbalanced: expected labels in 0..{self.n_classes - 1}, got {unknown}"
                )
            want = [operator.index(counts.get(c, have[c])) for c in range(self.n_classes)]
        else:
            want = [operator.index(n) for n in counts]
            if len(want) != self.n_classes:
                raise DataError(
                    f"imbalanced: expected {self.n_classes} counts, one for each class, "
                    f"got {len(want)}"
                )
        for c, n in enumerate(want):
            if not 0 <= n <= have[c]:
                raise DataError(
                    f"imbalanced: class {c} ({self.class_names[c]!r}) has {have[c]} images, "
                    f"asked for {n}"
                )
        shuffled = self._shuffled_by_class(seed)
        kept = np.concatenate([index[:n] for index, n in zip(shuffled, want, strict=True)])
        return self.subset(np.sort(kept))

    def split_off(self, fraction: float, *, seed: int) -> tuple["LabelledImages", "LabelledImages"]:
        """Split at random, stratified by class, into (rest, held_out).

        Each class gives the floor or the ceiling of its share, so that the held-out part has
        round(fraction * N) images where possible; every class keeps at least one image in rest,
        so a class of one image gives none. The pool stays with rest.

        Args:
            fraction: the part to hold out, 0 < fraction < 1.
            seed: for `numpy.random.default_rng`.

        Raises:
            DataError: if fraction is out of range or nothing can be held out.
        """
        if not 0.0 < fraction < 1.0:
            raise DataError(f"split_off: expected 0 < fraction < 1, got {fraction}")
        have = self.counts
        most = np.maximum(have - 1, 0)
        share = have * fraction
        take = np.minimum(np.floor(share).astype(np.int64), most)
        # Largest remainders first; a stable sort, so that equal ones go by label.
        short = max(1, round(len(self) * fraction)) - int(take.sum())
        for c in np.argsort(-(share - take), kind="stable"):
            if short > 0 and take[c] < most[c] and take[c] < share[c]:
                take[c] += 1
                short -= 1
        if take.sum() == 0:
            raise DataError(
                f"split_off: nothing to hold out: every class keeps one image, and the largest "
                f"has {have.max()}"
            )
        shuffled = self._shuffled_by_class(seed)
        held = np.concatenate([index[:n] for index, n in zip(shuffled, take, strict=True)])
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[held] = True
        return self.subset(~mask), replace(self, unlabelled=None).subset(mask)

    def _shuffled_by_class(self, seed: int) -> list[Int64[np.ndarray, " n_c"]]:
        # One generator, and every class shuffled whole: what a class draws depends on the class
        # sizes only, never on how many are asked for.
        rng = np.random.default_rng(seed)
        return [rng.permutation(np.flatnonzero(self.labels == c)) for c in range(self.n_classes)]


def check_finite(images: Shaped[np.ndarray, "n ..."], where: str) -> None:
    """Raise if a float image holds NaN or infinity, naming the first image and how many."""
    bad: list[int] = []
    start = 0
    for piece in _slices(images):
        finite = np.isfinite(piece).reshape(len(piece), -1).all(axis=1)
        bad.extend(start + np.flatnonzero(~finite))
        start += len(piece)
    if bad:
        raise DataError(
            f"{where}: expected finite pixel values, got NaN or infinity in {len(bad)} of "
            f"{len(images)} images, the first at index {bad[0]}"
        )


def extent(images: Shaped[np.ndarray, "n ..."]) -> tuple[float, float]:
    """Lowest and highest pixel value."""
    pieces = [(float(piece.min()), float(piece.max())) for piece in _slices(images)]
    return min(low for low, _ in pieces), max(high for _, high in pieces)


def _check_inside(
    images: Shaped[np.ndarray, "n ..."], value_range: tuple[float, float], where: str
) -> None:
    check_finite(images, where)
    (low, high), (got_low, got_high) = value_range, extent(images)
    if got_low < low or got_high > high:
        raise DataError(
            f"{where}: expected values inside value_range ({low:g}, {high:g}), "
            f"got {got_low:g} to {got_high:g}"
        )


def _check_names(names: tuple[str, ...], where: str) -> None:
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where}: expected class_names as strings, at least one, got {names!r}")
    for name in names:
        # Every name that is taken here has to come out at the end of a run.
        if not name or "\0" in name or name != _encodable(name):
            raise DataError(
                f"{where}: expected class_names as text in UTF-8 without zero bytes, not empty, "
                f"which every file that is written can hold, got {name!r}; rename the class, or "
                f"pass class_names="
            )
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{where}: expected distinct class names, got more than once: {twice}")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _slices(array: Shaped[np.ndarray, "n ..."]) -> Iterator[Shaped[np.ndarray, "m ..."]]:
    step = max(1, _SLICE_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield array[start : start + step]
