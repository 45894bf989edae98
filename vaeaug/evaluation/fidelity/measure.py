"""Figures of how good synthetic samples are.

Images are arrays of shape (n, *space, c), uint8 or float32, with the value range they are in.
Features are arrays of shape (n, f). Nothing is downloaded: the judges are small networks trained
here, so figures compare only where real images, numbers of images and seed are the same.
`measure_fidelity` gives every figure beside the same one of real images, which is the yardstick.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from vaeaug.data import LabelledImages
from vaeaug.evaluation.discriminator import auc_estimate, scores_within_classes
from vaeaug.evaluation.estimates import (
    CONFIDENCE,
    Better,
    Estimate,
    Figure,
    figure,
    from_halves,
    from_resamples,
    half_of,
)
from vaeaug.evaluation.fidelity.frechet import frechet_estimate
from vaeaug.evaluation.fidelity.sets import FEWEST, ComparedSets, strata_of
from vaeaug.evaluation.matching import (
    check_labels,
    check_like,
    without_shared,
)
from vaeaug.models import SmallClassifier
from vaeaug.stages.neighbours import (
    Kernel,
    Neighbourhoods,
)
from vaeaug.training.classifier import outputs_by_block, train_classifier

# Neighbours that a neighbourhood reaches to, where there are enough images.
NEIGHBOURS = 5
_BOUNDS = {
    "precision": (0.0, 1.0),
    "recall": (0.0, 1.0),
    "density": (0.0, np.inf),
    "coverage": (0.0, 1.0),
    "kernel_distance": (-np.inf, np.inf),
}
_MEANINGS: dict[str, tuple[str, str, Better]] = {
    "precision": (
        "Precision",
        "Share of the synthetic images that lie where held-out real images do.",
        "higher",
    ),
    "recall": (
        "Recall",
        "Share of the held-out real images that lie where synthetic images do.",
        "higher",
    ),
    "density": (
        "Density",
        "How many real neighbourhoods a synthetic image lies in; about 1 for real images.",
        "higher",
    ),
    "coverage": (
        "Coverage",
        "Share of the held-out real images that have a synthetic image among their neighbours.",
        "higher",
    ),
    "kernel_distance": (
        "Kernel distance (KID)",
        "Distance of the two distributions of features; about 0 for real images.",
        "lower",
    ),
    "train_on_synthetic": (
        "Trained on synthetic, tested on real",
        "Balanced accuracy on held-out images of a classifier that saw synthetic images alone.",
        "higher",
    ),
    "real_or_synthetic_auc": (
        "Told from real (AUC)",
        "How often a trained judge finds which of two images is synthetic; 0.5 is guessing.",
        "half",
    ),
    "frechet_distance": (
        "Fréchet distance (FID)",
        "Distance of normal distributions fitted to the features; it does not predict usefulness.",
        "lower",
    ),
}


@dataclass(frozen=True)
class Fidelity:
    """How close synthetic images come to real ones that the generator never saw.

    Attributes:
        features: What the features are in which images are neighbours.
        n_synthetic: Synthetic images given.
        n_held_out: Held-out images, without those that are also training images.
        n_train: Training images given.
        figures: In the order of a table.
        notes: How the figures were computed, and what was not possible.
    """

    features: str
    n_synthetic: int
    n_held_out: int
    n_train: int
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "features": self.features,
            "n_synthetic": self.n_synthetic,
            "n_held_out": self.n_held_out,
            "n_train": self.n_train,
            "confidence": CONFIDENCE,
            "figures": [each.to_json() for each in self.figures],
            "notes": list(self.notes),
        }


def measure_fidelity(
    train: LabelledImages,
    held_out: LabelledImages,
    synthetic_images: Shaped[np.ndarray, "m *space c"],
    synthetic_labels: Int64[np.ndarray, " m"],
    *,
    extractor: Callable[[Tensor], Tensor] | None = None,
    extractor_name: str = "the given extractor",
    seed: int = 0,
    n_bootstrap: int = 200,
    device: torch.device | str = "cpu",
    fid: bool = False,
    steps: int = 200,
) -> Fidelity:
    """Every figure of synthetic images against held-out real ones, beside that of training images.

    Of each class the same number of synthetic, held-out and training images is compared, as many
    as all three have (up to about 2,000 in all), so that neither class shares nor numbers of images
    make a difference. The training images take the synthetic ones' place in the "real" column: what
    a perfect generator would get. Features come from a classifier trained on *other* training
    images, at least half of each class, so that no compared real image was seen by it.

    Precision, recall, density, coverage and kernel distance have intervals from random halves of
    both sets without replacement, see `vaeaug.evaluation.estimates.from_halves`; for the kernel
    distance features are divided by their standard deviation over real images first. The classifier
    that learns from synthetic images sees as many of each class as there are training images, at
    most; its interval resamples held-out images within their class. The interval of the area under
    the curve resamples the judged images. Trained networks are taken as they are.

    Which images take part depends on the seed and on what they show, not on their order.

    Args:
        train: Real images that the generator was trained on.
        held_out: Real images that it never saw, of the same classes.
        synthetic_images: Like the real ones.
        synthetic_labels: Their classes.
        extractor: Features of images: (n, c, *space) float in [0, 1] to (n, f), on `device`.
        extractor_name: What it is, for the report.
        seed: Of the choice of images, the networks and the intervals.
        n_bootstrap: Halves or resamples behind each interval; 0 gives none.
        device: Where networks are trained and run.
        fid: Also compute the Fréchet distance (Heusel et al. 2017, arXiv:1706.08500), with the
            extractor; needs torchmetrics. It is shown and never decides (arXiv:1905.10887).
        steps: Optimiser steps of each network.

    Raises:
        ValueError: If the parts do not belong together, no class is in all of them, or `fid` is
            asked for without an extractor.
        ImportError: If `fid` is asked for without torchmetrics.
    """
    if fid and extractor is None:
        raise ValueError("measure_fidelity: expected an extractor for the Fréchet distance (fid)")
    check_like(train, synthetic_images, "measure_fidelity: synthetic_images")
    labels = check_labels(
        synthetic_labels, len(synthetic_images), train.n_classes, "measure_fidelity"
    )
    held_out, notes = without_shared(train, held_out, "measure_fidelity")
    synthetic = LabelledImages(
        synthetic_images, labels, train.class_names, train.value_range, source="synthetic"
    )
    sets = ComparedSets.choose(train, held_out, synthetic, keep_half=extractor is None, seed=seed)
    notes += sets.notes
    work = _Work(steps, seed, n_bootstrap, torch.device(device), np.random.default_rng([seed, 8]))
    space, found = "none", {}
    if sets.compared:
        judge = extractor
        if judge is None:
            others = train.subset(sets.other_rows)
            judge = work.classifier(others).features
            extractor_name = (
                f"penultimate layer of a classifier of {len(others)} other training images"
            )
        space = extractor_name
        features = [
            _features(judge, each.images, train.value_range, work.device) for each in sets.compared
        ]
        k = min(NEIGHBOURS, sets.n_compared // 2 - 1)
        if k < NEIGHBOURS:
            notes.append(f"Neighbourhoods reach to neighbour {k} for want of images.")
        n_features = features[0].shape[1]
        if fid and sets.n_compared <= n_features:
            notes.append(
                f"The Fréchet distance fits {n_features} features to {sets.n_compared} images: "
                "compare it with the real column alone."
            )
        strata = [strata_of(each.labels) for each in sets.compared]
        found = _pairs(
            lambda kind: work.of_features(
                (features[0], features[kind]), (strata[0], strata[kind]), k, fid=fid
            )
        )
        found |= _pairs(lambda kind: work.told_apart(sets.compared[0], sets.compared[kind]))
    else:
        notes.append(
            f"Only {sets.n_compared} images of a kind can be compared: figures of features and of "
            f"telling them apart need {FEWEST}."
        )
    found |= _pairs(lambda kind: work.learned_from(sets.learnt[kind - 1], sets.tested))
    return Fidelity(
        features=space,
        n_synthetic=len(synthetic),
        n_held_out=len(held_out),
        n_train=len(train),
        figures=tuple(
            figure(name, *meaning, *found[name])
            for name, meaning in _MEANINGS.items()
            if name in found
        ),
        notes=tuple(notes),
    )


def _pairs(
    column: Callable[[int], dict[str, Estimate]],
) -> dict[str, tuple[Estimate, Estimate]]:
    """Figures of synthetic images (kind 1) and of training images in their place (kind 2)."""
    own, real = column(1), column(2)
    return {name: (own[name], real[name]) for name in own}


@dataclass(frozen=True)
class _Work:
    """What computes the columns: the same steps, seed and number of resamples for both."""

    steps: int
    seed: int
    n_bootstrap: int
    device: torch.device
    rng: np.random.Generator

    def classifier(self, data: LabelledImages) -> SmallClassifier:
        return train_classifier(data, steps=self.steps, seed=self.seed, device=self.device)

    def of_features(
        self,
        features: tuple[np.ndarray, np.ndarray],
        strata: tuple[np.ndarray, np.ndarray],
        k: int,
        *,
        fid: bool,
    ) -> dict[str, Estimate]:
        """Figures of neighbours and distances of distributions, each with its interval."""
        neighbourhoods = Neighbourhoods(*features, k=k)
        centre, spread = features[0].mean(axis=0), features[0].std(axis=0)
        # What is the same in all real images stays in its own units.
        spread[spread == 0] = 1
        real, other = ((each - centre) / spread for each in features)
        kernel = Kernel(real, other, *strata)

        def all_of(
            real_rows: np.ndarray | None = None, other_rows: np.ndarray | None = None
        ) -> dict[str, float]:
            distance = kernel.distance(real_rows, other_rows)
            return {**neighbourhoods.figures(real_rows, other_rows), "kernel_distance": distance}

        halves = [
            all_of(half_of(strata[0], self.rng), half_of(strata[1], self.rng))
            for _ in range(self.n_bootstrap)
        ]
        found = {
            name: from_halves(value, np.array([half[name] for half in halves]), _BOUNDS[name])
            for name, value in all_of().items()
        }
        if fid:
            found["frechet_distance"] = frechet_estimate(
                *features, strata, n_bootstrap=self.n_bootstrap, rng=self.rng
            )
        return found

    def told_apart(self, real: LabelledImages, other: LabelledImages) -> dict[str, Estimate]:
        scores = scores_within_classes(
            (real, other), seed=self.seed, steps=self.steps, device=self.device
        )
        found = auc_estimate(scores, n_bootstrap=self.n_bootstrap, rng=self.rng)
        return {"real_or_synthetic_auc": found}

    def learned_from(self, learnt: LabelledImages, test: LabelledImages) -> dict[str, Estimate]:
        right, n = _right_by_class(self.classifier(learnt), test, self.device)
        # Right answers among n images drawn again from n images are binomial.
        drawn = self.rng.binomial(n, right / n, size=(self.n_bootstrap, len(n))) / n
        found = from_resamples(float((right / n).mean()), drawn.mean(axis=1))
        return {"train_on_synthetic": found}


# -- Can a classifier learn from them? -------------------------------------------------------------


def train_on_synthetic(
    synthetic_images: Shaped[np.ndarray, "n *space c"],
    synthetic_labels: Int64[np.ndarray, " n"],
    test: LabelledImages,
    *,
    seed: int,
    steps: int = 600,
    device: torch.device | str = "cpu",
) -> float:
    """Balanced accuracy on real images of a classifier that saw synthetic ones alone.

    The classification accuracy score of Ravuri & Vinyals 2019 (arXiv:1905.10887), with batches that
    hold all classes alike. Real training images in place of the synthetic ones give its ceiling.

    Args:
        synthetic_images: Images to learn from, in the value range of `test`.
        synthetic_labels: Their labels.
        test: Real images that no generator saw.
        seed: Of the weights and the batches.
        steps: Optimiser steps.
        device: Where to train.

    Returns:
        Mean recall of the classes in `test`, 0 to 1.

    Raises:
        DataError: If the synthetic images do not fit the value range or classes of `test`.
    """
    learnt = LabelledImages(
        synthetic_images,
        synthetic_labels,
        test.class_names,
        test.value_range,
        source="train_on_synthetic",
    )
    model = train_classifier(learnt, steps=steps, seed=seed, device=device)
    right, n = _right_by_class(model, test, device)
    return float((right / n).mean())


def _right_by_class(
    model: SmallClassifier, test: LabelledImages, device: torch.device | str
) -> tuple[np.ndarray, np.ndarray]:
    """Images of each class in `test` that the classifier gets right, and how many there are."""
    predicted = outputs_by_block(model, test.images, test.value_range, device=device).argmax(axis=1)
    n = test.counts
    right = np.bincount(test.labels[predicted == test.labels], minlength=test.n_classes)
    return right[n > 0], n[n > 0]


# -- Features --------------------------------------------------------------------------------------


def real_features(
    classifier: SmallClassifier,
    images: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
    device: torch.device | str = "cpu",
) -> Float[np.ndarray, "n f"]:
    """Penultimate layer of a classifier that was trained on real images alone.

    Args:
        classifier: See `vaeaug.screening.train_classifier`; on `device`.
        images: Images to describe.
        value_range: (lowest, highest) value of `images`.
        device: Where the classifier is.
    """
    return outputs_by_block(classifier.features, images, value_range, device=device)


def _features(
    extractor: Callable[[Tensor], Tensor],
    images: np.ndarray,
    value_range: tuple[float, float],
    device: torch.device | str,
) -> Float[np.ndarray, "n f"]:
    features = outputs_by_block(extractor, images, value_range, device=device).astype(np.float64)
    if features.ndim != 2 or len(features) != len(images) or not features.shape[1]:
        raise ValueError(
            f"measure_fidelity: expected features of shape ({len(images)}, f) from the extractor, "
            f"got {features.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError("measure_fidelity: expected finite features from the extractor")
    return features
