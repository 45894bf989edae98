"""The screener: classifiers and distances of real images, by which samples are judged."""

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, Shaped
from torch import Tensor

from vaeaug.config import AugmentConfig, ScreeningConfig
from vaeaug.data import LabelledImages
from vaeaug.models import SmallClassifier
from vaeaug.progress import Progress, from_two_arguments, one_part
from vaeaug.screening.accepted_points import AcceptedPoints
from vaeaug.screening.sample_space import SampleSpace, image_blocks
from vaeaug.screening.verdicts import Screened
from vaeaug.strata import stratified_folds
from vaeaug.training.classifier import (
    block_size,
    class_probabilities,
    outputs_by_block,
    train_classifier,
)

# A sample is "near" that lies nearer to a training image than this quantile of the distances of
# real images to one another. Classes of fewer images have too little room for a bound on that.
NEAR_QUANTILE, NEAR_CLASS = 0.05, 50
# Channels of the first convolution of the classifiers, and images per step of their training.
# Larger ones take twice the time and catch no more wrong labels (`benchmarks/README.md`).
WIDTH, BATCH = 24, 64
# Their steps, and the bound on p(label), are those of so many classes.
CLASSES = 10


class Screener:
    """Judges samples against the training images. Fitted once per run.

    Images without labels taught the generator too: copies of them are near-copies like others.

    Args:
        data: The training split, with its pool if it has one.
        config: Thresholds.
        seed: Seed of the classifier's folds and training.
        min_label_probability: A sample is rejected below this p(label) of the classifiers, or with
            more than ten classes below `least_p_label`.
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
        self._space = SampleSpace(data, seed, device=self.device)
        copies, self.near_distance = self._space.calibrate(config.near_copy_quantile, NEAR_QUANTILE)
        self.near_copy_distance = config.near_copy_factor * copies
        self._space.reach(float(self.near_copy_distance.max()))
        self.counts = data.counts
        self._classifiers, self.real_p_label, self.real_hit = _cross_fit(
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
        """Fit the screener of a job, by its thresholds and its seed.

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

    @property
    def least_p_label(self) -> float:
        """p(label) below which a sample is rejected: among 1000 classes, 0.02 is much."""
        return self.min_label_probability * min(1.0, CLASSES / self._space.n_classes)

    def new_class(
        self, label: int, *, bounded: bool = False, brief: bool = False
    ) -> "ClassScreening":
        """Start on the samples of one class, which are then judged in order.

        Args:
            label: The class.
            bounded: Whether to reject samples that would bring the share of near ones above
                `max_near_share`.
            brief: Whether to ask the classifiers of the other folds only where the first one does
                not decide the verdict; probabilities are then those of the ones asked.

        Returns:
            What judges them.
        """
        return ClassScreening(self, label, bounded=bounded, brief=brief)

    def is_near(self, label: int, nn_distance: Float32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Tell which samples are nearer to a training image than 95 % of real images to another.

        Args:
            label: Their class.
            nn_distance: Their distance to the nearest training image, in units of the value range.

        Returns:
            True for the near ones.
        """
        return np.asarray(nn_distance < self.near_distance[label])

    def with_label_threshold(self, min_label_probability: float) -> "Screener":
        """Keep the classifiers and distances, with another bound on p(label).

        Args:
            min_label_probability: A sample is rejected below this p(label), in [0, 1).

        Returns:
            A screener that shares everything else with this one.
        """
        other = copy.copy(self)
        other.min_label_probability = min_label_probability
        return other

    def probabilities(self, images: Shaped[np.ndarray, "n *space c"]) -> Float32[np.ndarray, "n k"]:
        """Compute class probabilities, averaged over the folds' classifiers.

        Args:
            images: Samples.

        Returns:
            Probability of every class.
        """
        if not len(images):
            return np.empty((0, self._space.n_classes), np.float32)

        def mean(x: Tensor) -> Tensor:
            return torch.stack([torch.softmax(c(x), dim=1) for c in self._classifiers]).mean(dim=0)

        # Each block is scaled and moved to the device once for all classifiers.
        return self._outputs(mean, images)

    def brief_probabilities(
        self, images: Shaped[np.ndarray, "n *space c"], label: int
    ) -> Float32[np.ndarray, "n k"]:
        """Compute class probabilities of as many folds' classifiers as the verdict takes.

        A mean of probabilities is at least its first one divided by their number: where that is
        enough for the label, the others cannot change the verdict.

        Args:
            images: Samples, at least one.
            label: Their class.

        Returns:
            Probability of every class by the first classifier, or the mean of all.
        """
        first, *others = self._classifiers
        enough = self.least_p_label * len(self._classifiers)

        def judged(x: Tensor) -> Tensor:
            p = torch.softmax(first(x), dim=1)
            rows = torch.nonzero(p[:, label] < enough)[:, 0]
            if len(rows):
                doubtful = [p[rows], *(torch.softmax(c(x[rows]), dim=1) for c in others)]
                p[rows] = torch.stack(doubtful).mean(dim=0)
            return p

        return self._outputs(judged, images)

    def p_label(
        self, images: Shaped[np.ndarray, "n *space c"], labels: Int64[np.ndarray, " n"]
    ) -> Float32[np.ndarray, " n"]:
        """Compute the probability of the labels, averaged over the folds' classifiers.

        Args:
            images: Samples.
            labels: Their labels.

        Returns:
            p(label) of each sample.
        """
        return self.probabilities(images)[np.arange(len(images)), labels]

    def features(self, images: Shaped[np.ndarray, "n *space c"]) -> Float32[np.ndarray, "n f"]:
        """Compute features of the first fold's classifier: a space in which likeness means class.

        Args:
            images: Samples.

        Returns:
            Its penultimate layer.
        """
        return self._outputs(self._classifiers[0].features, images)

    def _outputs(
        self, network: Callable[[Tensor], Tensor], images: Shaped[np.ndarray, "n *space c"]
    ) -> Float32[np.ndarray, "n ..."]:
        return outputs_by_block(
            network,
            images,
            self.value_range,
            device=self.device,
            parts=image_blocks(images, block_size(self.device)),
        )


class ClassScreening:
    """The samples of one class, judged in order; it remembers what it has accepted.

    Args:
        screener: The screener.
        label: The class.
        bounded: Whether to reject samples that would bring the share of near ones above
            `max_near_share`.
        brief: Whether to ask no more classifiers than decide the verdict.
    """

    def __init__(
        self, screener: Screener, label: int, *, bounded: bool = False, brief: bool = False
    ) -> None:
        self._screener = screener
        self._label, self._brief = label, brief
        self._accepted = AcceptedPoints()
        bounded = bounded and screener.counts[label] >= NEAR_CLASS
        self._most_near = screener.config.max_near_share if bounded else 1.0
        self._n = self._n_near = 0

    def remember(self, images: Shaped[np.ndarray, "n *space c"]) -> None:
        """Take samples as accepted that were accepted before, by an earlier job.

        Args:
            images: Samples.
        """
        if not len(images):
            return
        projected = self._screener._space.project(images)
        self._accepted.add(projected)
        if self._most_near < 1:
            distance, _ = self._screener._space.nearest(images, projected)
            self._n_near += int(self._screener.is_near(self._label, distance).sum())
        self._n += len(images)

    def screen(self, images: Shaped[np.ndarray, "n *space c"]) -> Screened:
        """Judge the next samples of the class.

        A sample's verdict depends on the samples accepted before it, not on how they were batched.

        Args:
            images: Samples.

        Returns:
            Their verdicts.
        """
        screener, n = self._screener, len(images)
        if not n:
            return _no_verdicts(screener._space.n_classes)
        reason = np.full(n, "", dtype=object)
        safe = images
        if images.dtype != np.uint8:  # bytes are finite and in range
            safe = self._checked(images, reason)
        projected = screener._space.project(safe)
        nn_distance, nn_index = screener._space.nearest(safe, projected)
        limit = screener.near_copy_distance[self._label]
        _mark(reason, np.asarray(nn_distance <= limit), "near-copy")
        if self._brief:
            probabilities = screener.brief_probabilities(safe, self._label)
        else:
            probabilities = screener.probabilities(safe)
        p_label = probabilities[:, self._label].copy()
        too_unlikely = np.asarray(p_label < screener.least_p_label)
        near = screener.is_near(self._label, nn_distance)
        self._judge_beside_siblings(
            reason, projected=projected, unlikely=too_unlikely, near=near, limit=limit
        )
        _mark(reason, too_unlikely, "other class")
        self._accepted.add(projected[reason == ""])
        return Screened(
            reason=reason,
            p_label=p_label,
            nn_distance=nn_distance,
            nn_index=nn_index,
            probabilities=probabilities,
            near=near,
        )

    def _checked(
        self, images: Shaped[np.ndarray, "n *space c"], reason: np.ndarray
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Reject values that no image has, and give images that can be measured."""
        low, high = self._screener.value_range
        flat = images.reshape(len(images), -1)
        finite = np.isfinite(flat).all(axis=1)
        safe = np.where(finite[:, None], flat, flat.dtype.type(low))
        reason[~finite] = "not finite"
        outside = ((safe < low) | (safe > high)).any(axis=1)
        _mark(reason, np.asarray(outside), "out of range")
        return safe.reshape(images.shape)

    def _judge_beside_siblings(
        self,
        reason: np.ndarray,
        *,
        projected: np.ndarray,
        unlikely: np.ndarray,
        near: np.ndarray,
        limit: np.float32,
    ) -> None:
        """Judge what depends on the samples accepted before, in this batch or earlier.

        Rejects a sample that nearly equals one of them, and one with which too many would be near
        to training images.
        """
        from sklearn.neighbors import radius_neighbors_graph

        radius = float(self._screener.config.duplicate_factor * limit)
        _mark(reason, self._accepted.within(projected, radius), "duplicate")
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
                continue  # it will be rejected as another class: no sibling to copy
            elif near[candidate] and self._n_near + 1 > self._most_near * (self._n + 1):
                reason[candidate] = "too near"
            else:
                kept[row] = True
                self._n += 1
                self._n_near += int(near[candidate])


def screen(images: Shaped[np.ndarray, "n *space c"], label: int, screener: Screener) -> Screened:
    """Judge samples of one class by themselves.

    Args:
        images: Samples.
        label: Their class.
        screener: The screener.

    Returns:
        Their verdicts.
    """
    return screener.new_class(label).screen(images)


def _no_verdicts(n_classes: int) -> Screened:
    """The verdicts on an empty batch."""
    return Screened(
        reason=np.empty(0, dtype=object),
        p_label=np.empty(0, np.float32),
        nn_distance=np.empty(0, np.float32),
        nn_index=np.empty(0, np.int64),
        probabilities=np.empty((0, n_classes), np.float32),
        near=np.empty(0, np.bool_),
    )


def _mark(reason: np.ndarray, where: np.ndarray, why: str) -> None:
    reason[where & (reason == "")] = why


def _cross_fit(
    data: LabelledImages,
    config: ScreeningConfig,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None,
) -> tuple[list[SmallClassifier], Float32[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """One classifier per fold.

    Returns:
        The classifiers; for each real image its p(label) by the one that never saw it, and whether
        that one gives it its label.
    """
    folds = stratified_folds(data.labels, config.folds, seed=[seed, 2], groups=data.groups)
    classifiers = []
    out_of_fold = np.zeros(len(data), np.float32)
    hit = np.zeros(len(data), np.bool_)
    steps = round(config.classifier_steps * math.sqrt(max(1.0, data.n_classes / CLASSES)))
    for fold in range(config.folds):
        classifier = train_classifier(
            data,
            steps=steps,
            seed=seed + fold,
            device=device,
            rows=np.flatnonzero(folds != fold),
            width=WIDTH,
            batch_size=BATCH,
            progress=one_part(progress, fold, config.folds),
        )
        held_out = np.flatnonzero(folds == fold)
        # A block at a time: a copy of a third of the images is not held.
        for block in image_blocks(data.images, block_size(device), n=len(held_out)):
            rows = held_out[block]
            probability = class_probabilities(
                classifier, data.images[rows], data.value_range, device=device
            )
            out_of_fold[rows] = probability[np.arange(len(rows)), data.labels[rows]]
            hit[rows] = probability.argmax(axis=1) == data.labels[rows]
        classifiers.append(classifier)
    return classifiers, out_of_fold, hit
