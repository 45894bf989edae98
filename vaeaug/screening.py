"""Accept or reject each synthetic sample, with the reason and the values it was judged by.

Thresholds are loose: a filter that keeps only what a classifier is sure of was measured to shrink
rare classes to their easy middle. What must not pass is what is broken, what copies a training
image, what copies a sibling, and what plainly shows another class.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, Shaped

from vaeaug.config import AugmentConfig, ScreeningConfig
from vaeaug.data import LabelledImages
from vaeaug.models import SmallClassifier
from vaeaug.progress import Progress, from_two_arguments, one_part
from vaeaug.strata import stratified_folds
from vaeaug.training.classifier import (
    BLOCK,
    class_probabilities,
    outputs_by_block,
    train_classifier,
)

# In the order they are judged; a sample carries the first that applies.
REASONS = ("not finite", "out of range", "near-copy", "duplicate", "other class", "too near")

# Distances are taken in the space of so many principal components; see `SampleSpace`.
COMPONENTS = 64
# Candidates from that space whose distance is then computed in pixels.
SHORTLIST = 4
# Real images whose own neighbours calibrate the near-copy distance of a class.
CALIBRATION_IMAGES = 2_000
# Real images lie nearer to another one than this quantile of their distances this often; what lies
# nearer than it is "near". Classes of fewer images have too little room for a bound on that.
NEAR_QUANTILE, NEAR_CLASS = 0.05, 50
# Values held as floats at a time, where images are projected, compared or classified in blocks.
BLOCK_VALUES = 2**24
# Values that the principal components are fitted on, at most; of large samples fewer do.
PCA_VALUES, LARGE_PCA_VALUES = 2**28, 2**26
LARGE_SAMPLE = 2**16
# A class with fewer images is calibrated on the pooled distances of all.
MIN_CALIBRATION = 20


@dataclass(frozen=True)
class Screened:
    """The verdict on one batch.

    Attributes:
        reason: Why each sample was rejected, "" where it was accepted, (n,).
        p_label: Probability that the real-only classifier gives its label, (n,).
        nn_distance: Root mean square difference to the nearest training image, labelled or not,
            in units of the value range, (n,).
        nn_index: Row of that image, (n,); of an unlabelled one, len(data) + its row in the pool.
        probabilities: Of every class, by the real-only classifiers, (n, k).
        near: Whether it is nearer to a training image than 95 % of real images are to one another,
            (n,).
    """

    reason: np.ndarray
    p_label: Float32[np.ndarray, " n"]
    nn_distance: Float32[np.ndarray, " n"]
    nn_index: Int64[np.ndarray, " n"]
    probabilities: Float32[np.ndarray, "n k"]
    near: Bool[np.ndarray, " n"]

    @property
    def accepted(self) -> Bool[np.ndarray, " n"]:
        """Which samples pass."""
        return self.reason == ""

    def select(self, rows: Shaped[np.ndarray, " m"]) -> "Screened":
        """The verdicts at these rows.

        Args:
            rows: Indices or a mask.

        Returns:
            Their verdicts, in this order.
        """
        return Screened(
            self.reason[rows],
            self.p_label[rows],
            self.nn_distance[rows],
            self.nn_index[rows],
            self.probabilities[rows],
            self.near[rows],
        )


@dataclass
class ScreeningReport:
    """Counts of one class."""

    candidates: int = 0
    accepted: int = 0
    near: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, reasons: np.ndarray) -> None:
        """Count a batch of verdicts.

        Args:
            reasons: Why each sample was rejected, "" where it was accepted.
        """
        self.candidates += len(reasons)
        self.accepted += int((reasons == "").sum())
        self.rejected.update(str(reason) for reason in reasons if reason)

    def to_json(self) -> dict[str, Any]:
        """The counts as plain JSON types.

        Returns:
            Candidates, accepted, and rejected by reason in the order in which they are judged.
        """
        return {
            "candidates": self.candidates,
            "accepted": self.accepted,
            "rejected": {reason: self.rejected[reason] for reason in REASONS},
        }


class Screener:
    """Judges samples against the training images. Fitted once per run.

    Images without labels taught the generator too: copies of them are near-copies like others.

    Args:
        data: The training split, with its pool if it has one.
        config: Thresholds.
        seed: Of the classifier's folds and training.
        min_label_probability: A sample is rejected below this p(label) of the classifiers.
        device: Where the classifier runs.
        progress: Called after every step of the classifiers; the stage is "classifier".
    """

    def __init__(
        self,
        data: LabelledImages,
        config: ScreeningConfig,
        *,
        seed: int,
        min_label_probability: float = 0.02,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> None:
        self.config = config
        self.min_label_probability = min_label_probability
        self.value_range = data.value_range
        self.device = torch.device(device)
        self._space = SampleSpace(data, seed)
        copies, self.near_distance = self._space.calibrate(config.near_copy_quantile, NEAR_QUANTILE)
        self.near_copy_distance = config.near_copy_factor * copies
        self.counts = data.counts
        self._classifiers, self.real_p_label = _cross_fit(
            data,
            config,
            seed=seed,
            device=self.device,
            progress=from_two_arguments(progress),
        )

    @classmethod
    def for_job(
        cls,
        data: LabelledImages,
        config: AugmentConfig,
        *,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> "Screener":
        """The screener of a job, by its thresholds and its seed.

        Args:
            data: The training split, with its pool if it has one.
            config: The job.
            device: Where the classifier runs.
            progress: Called after every step of the classifiers; the stage is "classifier".

        Returns:
            A fitted screener.
        """
        return cls(
            data,
            config.screening,
            seed=config.seed,
            min_label_probability=config.recipe.min_label_probability,
            device=device,
            progress=progress,
        )

    def new_class(self, label: int, *, bounded: bool = False) -> "ClassScreening":
        """Start on the samples of one class, which are then judged in order.

        Args:
            label: The class.
            bounded: Reject samples that would bring the share of near ones above
                `max_near_share`.

        Returns:
            What judges them.
        """
        return ClassScreening(self, label, bounded=bounded)

    def is_near(self, label: int, nn_distance: Float32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which samples lie nearer to a training image than 95 % of real images to another one.

        Args:
            label: Their class.
            nn_distance: Distance of each to its nearest training image; see `Screened`.

        Returns:
            A mask.
        """
        return np.asarray(nn_distance < self.near_distance[label])

    def with_label_threshold(self, min_label_probability: float) -> "Screener":
        """The same classifiers and distances with another bound on p(label).

        Args:
            min_label_probability: A sample is rejected below this p(label), in [0, 1).

        Returns:
            A screener that shares everything else with this one.
        """
        other = copy.copy(self)
        other.min_label_probability = min_label_probability
        return other

    def probabilities(self, images: Shaped[np.ndarray, "n *space c"]) -> Float32[np.ndarray, "n k"]:
        """Probability of every class, averaged over the classifiers of the folds.

        Args:
            images: As in the training data.

        Returns:
            A row for each image.
        """
        total = np.zeros((len(images), self._space.n_classes), np.float32)
        for classifier in self._classifiers:
            total += class_probabilities(
                classifier,
                images,
                self.value_range,
                device=self.device,
                parts=_blocks(images, BLOCK),
            )
        return total / len(self._classifiers)

    def p_label(
        self, images: Shaped[np.ndarray, "n *space c"], labels: Int64[np.ndarray, " n"]
    ) -> Float32[np.ndarray, " n"]:
        """Probability of the label, averaged over the classifiers of the folds.

        Args:
            images: As in the training data.
            labels: Their classes.

        Returns:
            A probability for each image.
        """
        return self.probabilities(images)[np.arange(len(images)), labels]

    def features(self, images: Shaped[np.ndarray, "n *space c"]) -> Float32[np.ndarray, "n f"]:
        """Features of the first fold's classifier, in which images of a class are near.

        Args:
            images: As in the training data.

        Returns:
            A row for each image.
        """
        return outputs_by_block(
            self._classifiers[0].features,
            images,
            self.value_range,
            device=self.device,
            parts=_blocks(images, BLOCK),
        )


class ClassScreening:
    """The samples of one class, judged in order; it remembers what it has accepted."""

    def __init__(self, screener: Screener, label: int, *, bounded: bool = False) -> None:
        self._screener = screener
        self._label = label
        self._accepted: list[np.ndarray] = []
        bounded = bounded and screener.counts[label] >= NEAR_CLASS
        self._most_near = screener.config.max_near_share if bounded else 1.0
        self._n = self._n_near = 0

    def screen(self, images: Shaped[np.ndarray, "n *space c"]) -> Screened:
        """Judge the next samples of the class.

        A sample's verdict depends on the samples accepted before it, not on how they were batched.
        """
        screener, n = self._screener, len(images)
        reason = np.full(n, "", dtype=object)
        if not n:
            nothing = np.empty(0, np.float32)
            none = np.empty((0, screener._space.n_classes), np.float32)
            no_one = np.empty(0, np.bool_)
            return Screened(reason, nothing, nothing, np.empty(0, np.int64), none, no_one)
        low, high = screener.value_range
        flat = images.reshape(n, -1)
        finite = np.isfinite(flat).all(axis=1)
        safe = np.where(finite[:, None], flat, low).reshape(images.shape)
        reason[~finite] = "not finite"
        outside = ((safe < low) | (safe > high)).reshape(n, -1).any(axis=1)
        _mark(reason, np.asarray(outside), "out of range")

        projected = screener._space.project(safe)
        nn_distance, nn_index = screener._space.nearest(safe, projected)
        limit = screener.near_copy_distance[self._label]
        _mark(reason, np.asarray(nn_distance <= limit), "near-copy")
        probabilities = screener.probabilities(safe)
        p_label = probabilities[:, self._label].copy()
        too_unlikely = np.asarray(p_label < screener.min_label_probability)
        near = screener.is_near(self._label, nn_distance)
        self._judge_beside_siblings(reason, projected, too_unlikely, near, limit)
        _mark(reason, too_unlikely, "other class")
        self._accepted.append(projected[reason == ""])
        return Screened(reason, p_label, nn_distance, nn_index, probabilities, near)

    def _judge_beside_siblings(
        self,
        reason: np.ndarray,
        projected: np.ndarray,
        unlikely: np.ndarray,
        near: np.ndarray,
        limit: float,
    ) -> None:
        """What depends on the samples accepted before, in this batch or earlier.

        Rejects a sample that nearly equals one of them, and one with which too many would be near
        to training images.
        """
        from sklearn.neighbors import radius_neighbors_graph

        radius = self._screener.config.duplicate_factor * limit
        earlier = np.concatenate(self._accepted) if self._accepted else projected[:0]
        if len(earlier):
            _mark(reason, _nearest_distance(projected, earlier) <= radius, "duplicate")
        candidates = np.flatnonzero(reason == "")
        if not len(candidates):
            return
        graph = radius_neighbors_graph(projected[candidates], radius, include_self=False)
        kept = np.zeros(len(candidates), bool)
        for row, candidate in enumerate(candidates):
            siblings = graph.indices[graph.indptr[row] : graph.indptr[row + 1]]
            if kept[siblings].any():
                reason[candidate] = "duplicate"
            elif unlikely[candidate]:
                continue  # what will be rejected as another class is no sibling to copy
            elif near[candidate] and self._n_near + 1 > self._most_near * (self._n + 1):
                reason[candidate] = "too near"
            else:
                kept[row] = True
                self._n += 1
                self._n_near += int(near[candidate])


def screen(images: Shaped[np.ndarray, "n *space c"], label: int, screener: Screener) -> Screened:
    """Judge samples of one class by themselves.

    Args:
        images: As in the training data.
        label: Their class.
        screener: Judges them.

    Returns:
        A verdict for each.
    """
    return screener.new_class(label).screen(images)


class SampleSpace:
    """Principal components of the training images and the pool, for fast nearest neighbours.

    Lengths in it never exceed lengths in pixels, so a copy is always near; the shortlist it gives
    is then measured in pixels. Coordinates are divided so that a distance is a root mean square
    difference per value, as a fraction of the value range.
    """

    def __init__(self, data: LabelledImages, seed: int) -> None:
        from sklearn.decomposition import PCA
        from sklearn.neighbors import NearestNeighbors

        self.data = data
        self.labels = data.labels
        self.n_classes = data.n_classes
        low, high = data.value_range
        self.low, self.range = low, high - low
        rng = np.random.default_rng(seed)
        pool = data.images[:0] if data.unlabelled is None else data.unlabelled
        n_values = data.images[0].size
        all_values = PCA_VALUES if n_values <= LARGE_SAMPLE else LARGE_PCA_VALUES
        most = max(COMPONENTS, min(5_000, all_values // n_values))
        rows = rng.permutation(len(data) + len(pool))[:most]
        sample = self._flat(data.images_at(np.sort(rows)))
        components = min(COMPONENTS, *sample.shape)
        self._pca = PCA(components, svd_solver="randomized", random_state=seed % 2**32).fit(sample)
        # The rows of the pool follow those of the labelled images, as in `images_at`.
        self.projected = np.concatenate([self.project(data.images), self.project(pool)])
        self._search = NearestNeighbors(algorithm="brute").fit(self.projected)

    def project(self, images: np.ndarray) -> Float32[np.ndarray, "n p"]:
        """Coordinates, in blocks, so that a large set is never held as floats."""
        blocks = [
            self._pca.transform(self._flat(images[rows])).astype(np.float32)
            for rows in _blocks(images, 4096)
        ]
        return (
            np.concatenate(blocks) if blocks else np.empty((0, self._pca.n_components_), np.float32)
        )

    def nearest(
        self, images: np.ndarray, projected: np.ndarray, *, other: bool = False
    ) -> tuple[Float32[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Distance in pixels to the nearest training image, and its row.

        Where the images are training images themselves, `other` finds each one's nearest other
        image. Exact twins count as the same: they say nothing of how near two images come.
        """
        k = min(SHORTLIST + other, len(self.projected))
        shortlist = self._search.kneighbors(projected, k, return_distance=False)
        distances = np.empty(shortlist.shape, np.float32)
        for block in _blocks(images, len(images)):
            flat = self._flat(images[block])
            for column in range(shortlist.shape[1]):
                others = self._flat(self.data.images_at(shortlist[block, column]))
                distances[block, column] = np.linalg.norm(flat - others, axis=1)
        if other:
            distances[distances == 0] = np.inf
        best = distances.argmin(axis=1)
        rows = np.arange(len(images))
        return distances[rows, best], shortlist[rows, best].astype(np.int64)

    def calibrate(self, *quantiles: float) -> list[Float32[np.ndarray, " k"]]:
        """By class: quantiles of real images' distances to their nearest other real image."""
        rng = np.random.default_rng(len(self.labels))
        rows = np.concatenate(
            [
                np.sort(rng.permutation(np.flatnonzero(self.labels == label))[:CALIBRATION_IMAGES])
                for label in range(self.n_classes)
            ]
        )
        distances, _ = self.nearest(self.data.images[rows], self.projected[rows], other=True)
        apart = np.isfinite(distances)
        limits_by_quantile = []
        for quantile in quantiles:
            pooled = float(np.quantile(distances[apart], quantile)) if apart.any() else 0.0
            limits = np.full(self.n_classes, pooled, np.float32)
            for label in range(self.n_classes):
                of_class = distances[apart & (self.labels[rows] == label)]
                if len(of_class) >= MIN_CALIBRATION:
                    limits[label] = np.quantile(of_class, quantile)
            limits_by_quantile.append(limits)
        return limits_by_quantile

    def _flat(self, images: np.ndarray) -> Float32[np.ndarray, "n d"]:
        flat = images.reshape(len(images), -1).astype(np.float32)
        scale = self.range * np.sqrt(flat.shape[1], dtype=np.float32)
        return (flat - np.float32(self.low)) / np.float32(scale)


def _blocks(images: np.ndarray, most: int) -> Iterator[slice]:
    """Slices of at most so many images that a large set is never held as floats."""
    step = max(1, min(most, BLOCK_VALUES // max(1, images[:1].size)))
    for begin in range(0, len(images), step):
        yield slice(begin, begin + step)


def _mark(reason: np.ndarray, where: np.ndarray, why: str) -> None:
    reason[where & (reason == "")] = why


def _nearest_distance(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    from sklearn.metrics import pairwise_distances_argmin_min

    return pairwise_distances_argmin_min(points, others)[1]


def _cross_fit(
    data: LabelledImages,
    config: ScreeningConfig,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None,
) -> tuple[list[SmallClassifier], Float32[np.ndarray, " n"]]:
    """One classifier per fold, and each real image's p(label) by the one that never saw it."""
    folds = stratified_folds(data.labels, config.folds, seed=[seed, 2])
    classifiers = []
    out_of_fold = np.zeros(len(data), np.float32)
    for fold in range(config.folds):
        held_out = folds == fold
        classifier = train_classifier(
            data.subset(np.flatnonzero(~held_out)),
            steps=config.classifier_steps,
            seed=seed + fold,
            device=device,
            progress=one_part(progress, fold, config.folds),
        )
        if held_out.any():
            images = data.images[held_out]
            probability = class_probabilities(
                classifier, images, data.value_range, device=device, parts=_blocks(images, BLOCK)
            )
            out_of_fold[held_out] = probability[np.arange(len(images)), data.labels[held_out]]
        classifiers.append(classifier)
    return classifiers, out_of_fold
