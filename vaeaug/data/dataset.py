"""`LabelledImages`: the one type in which a labelled image dataset travels through the library."""

import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from vaeaug.data.checks import DataError, Range, check_class_names, check_inside, encodable, slices
from vaeaug.mapping import taken
from vaeaug.shapes import are_features

if TYPE_CHECKING:
    from vaeaug.notebook import Card
    from vaeaug.spectrogram import Spectrogram

# By the rank of the array: signals, images, volumes or short video.
LAYOUTS = {3: "NLC", 4: "NHWC", 5: "NDHWC"}
# What a generator and the judges of its samples see in place of signals.
FRONT_ENDS = ("stft",)
NOUNS = {"NLC": "signals", "NHWC": "images", "NDHWC": "volumes"}


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Labelled images, signals, volumes or features in memory, validated once when constructed.

    Attributes:
        images: Values, C-contiguous, shape (N, L, C) for signals, (N, H, W, C) for images or
            (N, D, H, W, C) for volumes and short video; (N, 1, F) for feature vectors; uint8, or
            float32 where the input was float or 16 bit.
        labels: Class indices 0..K-1, shape (N,), int64.
        class_names: The K class names; index c is the class with label c.
        value_range: (lowest, highest) pixel value by convention, in the units of `images`:
            (0, 255) for uint8; (0, 1), (-1, 1), (0, 255) or (0, 65535) for float32, or the lowest
            and highest value of a signal or volume itself.
        split: "train", "val", "test" or "all", where known.
        source: Where the data came from, for messages; not part of the fingerprint.
        notes: What was done on purpose while reading that the user should know.
        unlabelled: A pool of images without labels, shape (M, *image_shape), of the type and value
            range of `images`; None where there is none. An empty pool becomes None.
        groups: A number for each image, shape (N,), int64; images with the same number, such as
            views of one photograph, are never divided between training and held-out parts. None:
            every image by itself.
        sample_rate: Of sounds, Hz, where it is known; not part of the fingerprint.
        front_end: "stft": generators learn spectrograms of the signals, and judges see them; None:
            the values themselves. Not part of the fingerprint.

    Raises:
        DataError: If the parts do not fit together.
    """

    images: Shaped[np.ndarray, "n *space c"]
    labels: Int64[np.ndarray, " n"]
    class_names: tuple[str, ...]
    value_range: Range
    split: str | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    unlabelled: Shaped[np.ndarray, "m *space c"] | None = None
    groups: Int64[np.ndarray, " n"] | None = None
    sample_rate: int | None = None
    front_end: str | None = None

    def __post_init__(self) -> None:
        low, high = (float(v) for v in self.value_range)
        canonical = {
            "images": np.ascontiguousarray(self.images),
            "labels": np.ascontiguousarray(self.labels),
            "class_names": tuple(self.class_names),
            "value_range": (low, high),
            # A path that is not UTF-8 is shown escaped: nothing else could write it down.
            "source": encodable(self.source),
            "notes": tuple(map(encodable, self.notes)),
        }
        where = self.source or "LabelledImages"
        # Frozen for users; lists and strided views are put into their canonical form here, once.
        for name, value in canonical.items():
            object.__setattr__(self, name, value)
        self._check_images(where)
        self._check_labels(where)
        self._check_groups(where)
        self._check_sound(where)
        if self.unlabelled is not None:
            pool = np.ascontiguousarray(self.unlabelled)
            self._check_pool(pool, f"{where}: unlabelled")
            object.__setattr__(self, "unlabelled", pool if len(pool) else None)

    def _check_images(self, where: str) -> None:
        images, (low, high) = self.images, self.value_range
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
        if not low < high:
            raise DataError(
                f"{where}: expected value_range (low, high), low < high, got ({low}, {high})"
            )
        if images.dtype == np.float32:
            check_inside(images, self.value_range, where)
        elif (low, high) != (0.0, 255.0):
            raise DataError(
                f"{where}: expected value_range (0, 255) for uint8 images, got ({low}, {high})"
            )

    def _check_labels(self, where: str) -> None:
        labels, n_classes = self.labels, len(self.class_names)
        if labels.dtype != np.int64 or labels.shape != (len(self),):
            raise DataError(
                f"{where}: expected int64 labels of shape ({len(self)},), one for each image, "
                f"got {labels.dtype} labels of shape {labels.shape}"
            )
        check_class_names(self.class_names, where)
        bad = np.flatnonzero((labels < 0) | (labels >= n_classes))
        if bad.size:
            raise DataError(
                f"{where}: expected labels in 0..{n_classes - 1} ({n_classes} class names), "
                f"got {labels[bad[0]]} at index {bad[0]} ({bad.size} labels out of range)"
            )

    def _check_groups(self, where: str) -> None:
        groups = self.groups
        if groups is not None and (groups.dtype != np.int64 or groups.shape != (len(self),)):
            raise DataError(
                f"{where}: expected int64 groups of shape ({len(self)},), one for each image, got "
                f"{groups.dtype} groups of shape {groups.shape}"
            )

    def _check_sound(self, where: str) -> None:
        if self.sample_rate is not None and self.sample_rate < 1:
            raise DataError(
                f"{where}: expected a sample_rate of 1 Hz or more, got {self.sample_rate}"
            )
        if self.front_end is None:
            return
        if self.front_end not in FRONT_ENDS:
            raise DataError(
                f"{where}: front_end: expected one of {', '.join(FRONT_ENDS)}, got "
                f"{self.front_end!r}"
            )
        if self.layout != "NLC" or self.are_features:
            raise DataError(
                f"{where}: expected signals for front_end={self.front_end!r}, got {self.noun}"
            )
        from vaeaug.spectrogram import SpectrogramError

        try:
            self.spectrogram  # noqa: B018 - fails where the signals are too short for one
        except SpectrogramError as error:
            raise DataError(f"{where}: front_end: {error}") from error

    def _check_pool(self, pool: Shaped[np.ndarray, "m *space c"], where: str) -> None:
        if pool.shape[1:] != self.image_shape or pool.dtype != self.images.dtype:
            shape = ", ".join(map(str, self.image_shape))
            raise DataError(
                f"{where}: expected {self.images.dtype} images of shape (M, {shape}), as the "
                f"labelled ones, got {pool.dtype} of shape {pool.shape}"
            )
        if len(pool) and pool.dtype == np.float32:
            check_inside(pool, self.value_range, where)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        pool = "" if self.unlabelled is None else f"{len(self.unlabelled)} unlabelled, "
        notes = f", {len(self.notes)} notes" if self.notes else ""
        return (
            f"LabelledImages({len(self)} {self.noun} of "
            f"{'x'.join(map(str, self.image_shape))} {self.images.dtype}, {pool}"
            f"{self.n_classes} classes, split={self.split!r}, source={self.source!r}{notes})"
        )

    def _repr_html_(self) -> str:
        return self._card().to_html()

    def show(self, n: int = 12) -> Path | None:
        """Show the classes with their counts and some samples of each, the first ones.

        Args:
            n: Samples of each class.

        Returns:
            None in a notebook, which shows it below the cell; elsewhere a page in a temporary
            file, whose name is printed.

        Raises:
            DataError: If n is below 1.
        """
        if n < 1:
            raise DataError(f"show: expected n of at least 1, got {n}")
        return self._card(n).show()

    def _card(self, n: int | None = None) -> "Card":
        from vaeaug.notebook import COLUMNS, MAX_ROWS, Bar, Card, Table, counted, strip

        largest = int(self.counts.max())
        rows = []
        for label, (name, count) in enumerate(
            zip(self.class_names, self.counts.tolist(), strict=True)
        ):
            picture = None
            if label < MAX_ROWS:
                shown = np.flatnonzero(self.labels == label)[: n or COLUMNS]
                images = self.images[shown]
                picture = strip(images, self.value_range, alt=f"Class {name}", columns=12, n=n)
            bar = Bar((count / largest,), f"{count} of {largest}")
            rows.append((name, count, bar, picture))
        low, high = self.value_range
        lines = [
            f"shape {' x '.join(map(str, self.image_shape))}, {self.images.dtype}, values from "
            f"{low:g} to {high:g}; split {self.split or 'unknown'}; "
            f"{self.source or 'from memory'}"
        ]
        if self.unlabelled is not None:
            lines.append(f"{len(self.unlabelled):,} without labels")
        table = Table(("class", "count", "", ""), rows)
        title = f"{counted(len(self), self.noun)} of {counted(self.n_classes, 'classes')}"
        return Card(title, lines, [table], notes=self.notes)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image: its one to three axes in space (and time), then its channels."""
        return self.images.shape[1:]

    @property
    def are_features(self) -> bool:
        """Whether the samples are feature vectors, (N, 1, F): they have no axis in space."""
        return are_features(self.image_shape)

    @property
    def noun(self) -> str:
        """What the samples are: "images", "signals", "volumes" or "feature vectors"."""
        return "feature vectors" if self.are_features else NOUNS[self.layout]

    @property
    def layout(self) -> str:
        """The axes of `images`: "NLC" (signals), "NHWC" (images) or "NDHWC" (volumes, video)."""
        return LAYOUTS[self.images.ndim]

    @property
    def spectrogram(self) -> "Spectrogram | None":
        """The spectrogram by which the signals are learned and judged; None without a front end."""
        if self.front_end is None:
            return None
        from vaeaug.spectrogram import Spectrogram

        return Spectrogram.of(self.image_shape[0], self.sample_rate)

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
        if self.groups is not None:
            head["groups"] = True
            parts.append(self.groups)
        digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        for part in parts:
            for piece in slices(part):
                digest.update(piece.data.cast("B"))
        return digest.hexdigest()

    def as_sounds(
        self, sample_rate: int | None = None, front_end: str | None = None
    ) -> "LabelledImages":
        """State the sample rate and the front end of signals.

        Args:
            sample_rate: Hz; None: what it is now.
            front_end: "stft"; None: what it is now.

        Returns:
            A copy, or the data itself where nothing is new.

        Raises:
            DataError: If the sample rate is known to be another one, or the front end does not fit.
        """
        rate, seen = sample_rate or self.sample_rate, front_end or self.front_end
        if (rate, seen) == (self.sample_rate, self.front_end):
            return self
        if self.sample_rate not in (None, rate):
            raise DataError(
                f"{self.source or 'LabelledImages'}: expected sounds of {rate} Hz, as sample_rate "
                f"says, got {self.sample_rate} Hz"
            )
        return replace(self, sample_rate=rate, front_end=seen)

    def with_unlabelled(self, images: Shaped[np.ndarray, "m *space c"]) -> "LabelledImages":
        """Add images without labels to the pool.

        Args:
            images: Shape (M, *image_shape), of the type and in the value range of `self.images`;
                `read_pool` returns such images.

        Returns:
            A copy whose pool ends with these images.

        Raises:
            DataError: If they do not fit.
        """
        added = replace(self, unlabelled=np.asarray(images))
        if self.unlabelled is None or added.unlabelled is None:
            return self if added.unlabelled is None else added
        return replace(self, unlabelled=np.concatenate([self.unlabelled, added.unlabelled]))

    def images_at(self, rows: Int64[np.ndarray, " m"]) -> Shaped[np.ndarray, "m *space c"]:
        """Copy images by their rows, those of the pool included.

        Args:
            rows: Shape (M,), 0..N-1 for labelled images; row N + i is row i of the pool.

        Returns:
            The images, shape (M, *image_shape), in the order of `rows`.

        Raises:
            IndexError: If a row is negative or past the end.
        """
        rows = np.asarray(rows, dtype=np.int64)
        n_pool = 0 if self.unlabelled is None else len(self.unlabelled)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self) + n_pool:
            raise IndexError(
                f"images_at: expected rows in 0..{len(self) + n_pool - 1} ({len(self)} labelled "
                f"and {n_pool} unlabelled images), got {rows.min()} to {rows.max()}"
            )
        images = np.empty((len(rows), *self.image_shape), dtype=self.images.dtype)
        is_labelled = rows < len(self)
        images[is_labelled] = taken(self.images, rows[is_labelled], self.source)
        if self.unlabelled is not None:
            images[~is_labelled] = self.unlabelled[rows[~is_labelled] - len(self)]
        return images

    def subset(self, indices: Shaped[np.ndarray, " m"] | Sequence[int]) -> "LabelledImages":
        """Select labelled images; all class names and the pool are kept.

        Args:
            indices: Shape (M,), integers in 0..N-1 (no negative ones), or a boolean mask of
                shape (N,).

        Returns:
            The images at `indices`, in that order.

        Raises:
            DataError: If an index is out of range, or nothing is left.
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
        groups = None if self.groups is None else self.groups[index]
        images = taken(self.images, index, self.source)
        return replace(self, images=images, labels=self.labels[index], groups=groups)

    def imbalanced(
        self, counts: Sequence[int] | Mapping[int, int], *, seed: int
    ) -> "LabelledImages":
        """Keep a given number of images of each class, chosen at random, in their order.

        With the same seed a smaller count keeps a part of what a larger one keeps, and the choice
        in one class does not depend on the counts of the others.

        Args:
            counts: K counts, one per class; or a mapping from label to count, which leaves the
                classes that it does not name whole.
            seed: For `numpy.random.default_rng`.

        Returns:
            A copy with these images; the pool is kept.

        Raises:
            DataError: If a class has fewer images than asked for.
            TypeError: If a count is not an integer.
        """
        available = self.counts
        if isinstance(counts, Mapping):
            unknown = sorted(set(counts) - set(range(self.n_classes)))
            if unknown:
                raise DataError(
                    f"imbalanced: expected labels in 0..{self.n_classes - 1}, got {unknown}"
                )
            counts = [counts.get(label, n) for label, n in enumerate(available)]
        requested = [operator.index(n) for n in counts]
        if len(requested) != self.n_classes:
            raise DataError(
                f"imbalanced: expected {self.n_classes} counts, one for each class, "
                f"got {len(requested)}"
            )
        for label, n in enumerate(requested):
            if not 0 <= n <= available[label]:
                raise DataError(
                    f"imbalanced: class {label} ({self.class_names[label]!r}) has "
                    f"{available[label]} images, asked for {n}"
                )
        return self.subset(np.sort(self._drawn(requested, seed)))

    def split_off(self, fraction: float, *, seed: int) -> tuple["LabelledImages", "LabelledImages"]:
        """Split at random, stratified by class; see `split_rows`. The pool stays with the rest.

        Args:
            fraction: The part to hold out, 0 < fraction < 1.
            seed: For `numpy.random.default_rng`.

        Returns:
            (rest, held_out).

        Raises:
            DataError: If fraction is out of range or nothing can be held out.
        """
        rest, held_out = self.split_rows(fraction, seed=seed)
        return self.subset(rest), replace(self, unlabelled=None).subset(held_out)

    def split_rows(
        self, fraction: float, *, seed: int
    ) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " h"]]:
        """Rows of a random split, stratified by class; no image is copied.

        Each class gives the floor or the ceiling of its share, so that the held-out part has
        round(fraction * N) images where possible. Every class keeps at least one image in the
        rest, so a class of one image gives none. Where the data has groups, whole groups are held
        out, and the fraction is that of the groups.

        Args:
            fraction: The part to hold out, 0 < fraction < 1.
            seed: For `numpy.random.default_rng`.

        Returns:
            Rows of (rest, held_out), ascending.

        Raises:
            DataError: If fraction is out of range or nothing can be held out.
        """
        if not 0.0 < fraction < 1.0:
            raise DataError(f"split_off: expected 0 < fraction < 1, got {fraction}")
        if self.groups is not None:
            # One row stands for its group.
            _, first, member = np.unique(self.groups, return_index=True, return_inverse=True)
            of_groups = _held_out(self.labels[first], self.n_classes, fraction, seed)
            is_held_out = of_groups[member]
        else:
            is_held_out = _held_out(self.labels, self.n_classes, fraction, seed)
        return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)

    def _drawn(self, counts: Sequence[int], seed: int) -> Int64[np.ndarray, " m"]:
        """Random indices, `counts[label]` of each label."""
        return _drawn(self.labels, counts, seed)


def _held_out(
    labels: Int64[np.ndarray, " n"], n_classes: int, fraction: float, seed: int
) -> Bool[np.ndarray, " n"]:
    """Which of the rows are held out, by their labels."""
    available = np.bincount(labels, minlength=n_classes).astype(np.int64)
    most = np.maximum(available - 1, 0)
    share = available * fraction
    taken = np.minimum(np.floor(share).astype(np.int64), most)
    # Largest remainders first; a stable sort, so that equal ones go by label.
    missing = max(1, round(len(labels) * fraction)) - int(taken.sum())
    for label in np.argsort(-(share - taken), kind="stable"):
        if missing > 0 and taken[label] < most[label] and taken[label] < share[label]:
            taken[label] += 1
            missing -= 1
    if taken.sum() == 0:
        raise DataError(
            f"split_off: nothing to hold out: every class keeps one image, and the largest "
            f"has {available.max()}"
        )
    is_held_out = np.zeros(len(labels), dtype=np.bool_)
    is_held_out[_drawn(labels, taken.tolist(), seed)] = True
    return is_held_out


def _drawn(
    labels: Int64[np.ndarray, " n"], counts: Sequence[int], seed: int
) -> Int64[np.ndarray, " m"]:
    """Random rows, `counts[label]` of each label."""
    # One generator, and every class shuffled whole: what a class draws depends on the class
    # sizes only, never on how many are asked for.
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in range(len(counts))]
    return np.concatenate([index[:n] for index, n in zip(shuffled, counts, strict=True)])
