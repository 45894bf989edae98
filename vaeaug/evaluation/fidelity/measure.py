"""How close synthetic images come to real ones, metric by metric, beside real images' own metrics.

Images are arrays of shape (n, *space, c), uint8 or float32, with the value range they are in.
Features are arrays of shape (n, f). Nothing is downloaded: the judges are small networks trained
here, so metrics compare only where real images, numbers of images and seed are the same.
`measure_fidelity` gives every metric beside the same one of real images, which is the yardstick.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from vaeaug._moved import renamed_attribute
from vaeaug.data import LabelledImages
from vaeaug.evaluation.discriminator import auc_interval, scores_within_classes
from vaeaug.evaluation.fidelity.frechet import frechet_interval
from vaeaug.evaluation.fidelity.judges import extracted_features, right_by_class
from vaeaug.evaluation.fidelity.sets import FEWEST, ComparedSets, strata_of
from vaeaug.evaluation.matching import check_labels, check_like, without_shared
from vaeaug.evaluation.metrics import Description, Metric
from vaeaug.evaluation.statistics import (
    CONFIDENCE,
    Interval,
    half_of,
    halves_interval,
    percentile_interval,
)
from vaeaug.models import SmallClassifier
from vaeaug.stages.neighbours import Kernel, Neighbourhoods
from vaeaug.training.classifier import train_classifier

# Neighbours that a neighbourhood reaches to, where there are enough images.
NEIGHBOURS = 5
_BOUNDS = {
    "precision": (0.0, 1.0),
    "recall": (0.0, 1.0),
    "density": (0.0, np.inf),
    "coverage": (0.0, 1.0),
    "kernel_distance": (-np.inf, np.inf),
}
_DESCRIPTIONS = {
    "precision": Description(
        "Precision",
        "Share of the synthetic images that lie where held-out real images do.",
        "higher",
    ),
    "recall": Description(
        "Recall",
        "Share of the held-out real images that lie where synthetic images do.",
        "higher",
    ),
    "density": Description(
        "Density",
        "How many real neighbourhoods a synthetic image lies in; about 1 for real images.",
        "higher",
    ),
    "coverage": Description(
        "Coverage",
        "Share of the held-out real images that have a synthetic image among their neighbours.",
        "higher",
    ),
    "kernel_distance": Description(
        "Kernel distance (KID)",
        "Distance of the two distributions of features; about 0 for real images.",
        "lower",
    ),
    "train_on_synthetic": Description(
        "Trained on synthetic, tested on real",
        "Balanced accuracy on held-out images of a classifier that saw synthetic images alone.",
        "higher",
    ),
    "real_or_synthetic_auc": Description(
        "Told from real (AUC)",
        "How often a trained judge finds which of two images is synthetic; 0.5 is guessing.",
        "half",
    ),
    "frechet_distance": Description(
        "Fréchet distance (FID)",
        "Distance of normal distributions fitted to the features; it does not predict usefulness.",
        "lower",
    ),
}


@dataclass(frozen=True)
class Fidelity:
    """How close synthetic images come to real ones that the generator never saw.

    Attributes:
        features: The features in which images are compared, in words.
        n_synthetic: Synthetic images given.
        n_held_out: Held-out images, without those that are also training images.
        n_train: Training images given.
        metrics: In the order of a table.
        notes: How the metrics were computed, and what was not possible.
    """

    features: str
    n_synthetic: int
    n_held_out: int
    n_train: int
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()

    figures = renamed_attribute("figures", "metrics")

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            The object of report.json.
        """
        return {
            "features": self.features,
            "n_synthetic": self.n_synthetic,
            "n_held_out": self.n_held_out,
            "n_train": self.n_train,
            "confidence": CONFIDENCE,
            "figures": [metric.to_json() for metric in self.metrics],
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
    """Measure synthetic images against held-out real ones, beside training images.

    Of each class the same number of synthetic, held-out and training images is compared, as many
    as all three have (up to about 2,000 in all), so that neither class shares nor numbers of images
    make a difference. The training images take the synthetic ones' place in the "real" column: what
    a perfect generator would get. Features come from a classifier trained on *other* training
    images, at least half of each class, so that no compared real image was seen by it.

    Precision, recall, density, coverage and kernel distance have intervals from random halves of
    both sets without replacement, see `vaeaug.evaluation.statistics.halves_interval`; for the
    kernel distance features are divided by their standard deviation over real images first. The
    classifier that learns from synthetic images sees as many of each class as there are training
    images, at most; its interval resamples held-out images within their class. The interval of the
    area under the curve resamples the judged images. Trained networks are taken as they are.

    Which images take part depends on the seed and on what they show, not on their order.

    Args:
        train: Real images that the generator was trained on.
        held_out: Real images that it never saw, of the same classes.
        synthetic_images: Images of the shape and type of the real ones.
        synthetic_labels: Their classes.
        extractor: Features of images: (n, c, *space) float in [0, 1] to (n, f), on `device`.
        extractor_name: Name of the extractor for the report.
        seed: Seed of the choice of images, the networks and the intervals.
        n_bootstrap: Halves or resamples behind each interval; 0 gives none.
        device: Where networks are trained and run.
        fid: Also compute the Fréchet distance (Heusel et al. 2017, arXiv:1706.08500), with the
            extractor; needs torchmetrics. It is shown and never decides (arXiv:1905.10887).
        steps: Optimiser steps of each network.

    Returns:
        The metrics.

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
        synthetic_images,
        labels,
        train.class_names,
        train.value_range,
        source="synthetic",
        sample_rate=train.sample_rate,
        front_end=train.front_end,
    )
    sets = ComparedSets.choose(train, held_out, synthetic, keep_half=extractor is None, seed=seed)
    notes += sets.notes
    measure = _Measure(steps, seed, n_bootstrap, torch.device(device))
    features_name = "none"
    columns: dict[str, tuple[Interval, Interval]] = {}
    if sets.compared:
        if extractor is None:
            others = train.subset(sets.other_rows)
            extractor = measure.classifier(others).features
            extractor_name = (
                f"penultimate layer of a classifier of {len(others)} other training images"
            )
        features_name = extractor_name
        columns, more_notes = measure.compared(sets, extractor, fid=fid)
        notes += more_notes
    else:
        notes.append(
            f"Only {sets.n_compared} images of a kind can be compared: metrics of features and of "
            f"telling them apart need {FEWEST}."
        )
    columns |= _both_columns(lambda kind: measure.learned_from(sets.learnt[kind - 1], sets.tested))
    return Fidelity(
        features=features_name,
        n_synthetic=len(synthetic),
        n_held_out=len(held_out),
        n_train=len(train),
        metrics=tuple(
            Metric.of(name, description, *columns[name])
            for name, description in _DESCRIPTIONS.items()
            if name in columns
        ),
        notes=tuple(notes),
    )


def _both_columns(
    column: Callable[[int], dict[str, Interval]],
) -> dict[str, tuple[Interval, Interval]]:
    """Metrics of synthetic images (kind 1) and of training images in their place (kind 2)."""
    synthetic, real = column(1), column(2)
    return {name: (synthetic[name], real[name]) for name in synthetic}


class _Measure:
    """Computes the columns: with the same steps, seed and number of resamples for both."""

    def __init__(self, steps: int, seed: int, n_resamples: int, device: torch.device) -> None:
        self.steps, self.seed = steps, seed
        self.n_resamples, self.device = n_resamples, device
        self.rng = np.random.default_rng([seed, 8])

    def classifier(self, data: LabelledImages) -> SmallClassifier:
        return train_classifier(data, steps=self.steps, seed=self.seed, device=self.device)

    def compared(
        self, sets: ComparedSets, extractor: Callable[[Tensor], Tensor], *, fid: bool
    ) -> tuple[dict[str, tuple[Interval, Interval]], list[str]]:
        """Both columns of the metrics that compare features or train a discriminator, and notes."""
        value_range, notes = sets.tested.value_range, []
        features = [
            extracted_features(extractor, kind.images, value_range, self.device)
            for kind in sets.compared
        ]
        strata = [strata_of(kind.labels) for kind in sets.compared]
        k = min(NEIGHBOURS, sets.n_compared // 2 - 1)
        if k < NEIGHBOURS:
            notes.append(f"Neighbourhoods reach to neighbour {k} for want of images.")
        n_features = features[0].shape[1]
        if fid and sets.n_compared <= n_features:
            notes.append(
                f"The Fréchet distance fits {n_features} features to {sets.n_compared} images: "
                "compare it with the real column alone."
            )
        columns = _both_columns(
            lambda kind: self.of_features(
                (features[0], features[kind]), (strata[0], strata[kind]), k, fid=fid
            )
        )
        columns |= _both_columns(
            lambda kind: self.told_apart(sets.compared[0], sets.compared[kind])
        )
        return columns, notes

    def of_features(
        self,
        features: tuple[np.ndarray, np.ndarray],
        strata: tuple[np.ndarray, np.ndarray],
        k: int,
        *,
        fid: bool,
    ) -> dict[str, Interval]:
        """Compute metrics of neighbours and the distances of distributions."""
        neighbourhoods = Neighbourhoods(*features, k=k)
        centre, spread = features[0].mean(axis=0), features[0].std(axis=0)
        # Features that are constant over the real images keep their units.
        spread[spread == 0] = 1
        real, other = ((kind - centre) / spread for kind in features)
        kernel = Kernel(real, other, *strata)

        def metrics(*rows: np.ndarray) -> dict[str, float]:
            distance = kernel.distance(*rows)
            return {**neighbourhoods.metrics(*rows), "kernel_distance": distance}

        halves = [
            metrics(half_of(strata[0], self.rng), half_of(strata[1], self.rng))
            for _ in range(self.n_resamples)
        ]
        intervals = {
            name: halves_interval(value, np.array([half[name] for half in halves]), _BOUNDS[name])
            for name, value in metrics().items()
        }
        if fid:
            intervals["frechet_distance"] = frechet_interval(
                *features, strata, n_resamples=self.n_resamples, rng=self.rng
            )
        return intervals

    def told_apart(self, real: LabelledImages, other: LabelledImages) -> dict[str, Interval]:
        scores = scores_within_classes(
            (real, other), seed=self.seed, steps=self.steps, device=self.device
        )
        auc = auc_interval(scores, n_resamples=self.n_resamples, rng=self.rng)
        return {"real_or_synthetic_auc": auc}

    def learned_from(self, learnt: LabelledImages, test: LabelledImages) -> dict[str, Interval]:
        right, n = right_by_class(self.classifier(learnt), test, self.device)
        # Right answers among n images drawn again from n images are binomial.
        resamples = self.rng.binomial(n, right / n, size=(self.n_resamples, len(n))) / n
        accuracy = percentile_interval(float((right / n).mean()), resamples.mean(axis=1))
        return {"train_on_synthetic": accuracy}
