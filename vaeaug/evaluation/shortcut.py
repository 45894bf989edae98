"""Is "looks synthetic" a cue for the label? The shortcut that unequal shares of blur teach.

Where rare classes get synthetic images and frequent ones do not, a classifier can learn "looks
synthetic, so it is rare" in place of what the classes look like: measured to cost 3 to 4 points of
balanced accuracy. This looks for the cue before anything is trained on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped

from vaeaug.evaluation.discriminator import looks_synthetic
from vaeaug.evaluation.estimates import area, from_halves, half_of
from vaeaug.evaluation.matching import check_labels, listed

__all__ = ["Shortcut", "check_shortcut"]

# Bins of the detector's score, of equal numbers of images in either half.
BINS = 8
# A warning needs an excess over this part of the label's entropy, and a p-value below this.
EXCESS_SHARE, P_VALUE = 0.02, 0.01
# Fewer cannot give a p-value below that.
FEWEST_PERMUTATIONS = 100
# Images of each kind, in classes that have both.
FEWEST = 20
_REMEDY = (
    "Give every class the same synthetic share: merge(share=0.3) in place of a mapping or of rare "
    "classes only, with plan.share: 0.3 so that every class has the samples for it. Or make "
    "synthetic images harder to tell from real ones (sampling.residual: true, model.latent: "
    "spatial), or train the last epochs on real images alone."
)


@dataclass(frozen=True)
class Shortcut:
    """How much "looks synthetic" tells of the label.

    Attributes:
        mutual_information: Of the detector's score and the label over all images, nats.
        low: Lower end of its 95 % interval.
        high: Upper end.
        real_only: The same among real images, weighted to the class shares of all: what classes
            look like, rather than what is synthetic about them.
        excess: `mutual_information` - `real_only`: what the synthetic images add.
        p_value: Of the excess being no more than if real and synthetic images of a class looked
            alike.
        label_entropy: Of the label, nats: the most there is to tell.
        detector_auc: How well the detector tells real from synthetic images within a class.
        synthetic_share: By class name, the share of its images that is synthetic.
        warning: What was found, naming the classes; None where there is no shortcut.
        remedy: What to change.
    """

    mutual_information: float
    low: float
    high: float
    real_only: float
    excess: float
    p_value: float
    label_entropy: float
    detector_auc: float
    synthetic_share: Mapping[str, float]
    warning: str | None = None
    remedy: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "mutual_information": self.mutual_information,
            "low": self.low,
            "high": self.high,
            "real_only": self.real_only,
            "excess": self.excess,
            "p_value": self.p_value,
            "label_entropy": self.label_entropy,
            "detector_auc": self.detector_auc,
            "synthetic_share": dict(self.synthetic_share),
            "warning": self.warning,
            "remedy": self.remedy,
        }


def check_shortcut(
    images: Shaped[np.ndarray, "n *space c"],
    labels: Int64[np.ndarray, " n"],
    is_synthetic: Bool[np.ndarray, " n"],
    *,
    value_range: tuple[float, float],
    class_names: Sequence[str],
    seed: int = 0,
    steps: int = 300,
    device: torch.device | str = "cpu",
    n_permutations: int = 200,
) -> Shortcut:
    """Estimate the mutual information of "looks synthetic" and the label in merged data.

    A detector of synthetic images is trained on either half of the data and scores the other. It
    sees as many real as synthetic images of each class it is trained on, so a class is no cue for
    it. Its score is put into 8 bins of equal numbers of images, by half, since the two detectors'
    scores are not on one scale; bins rather than a yes or no, because where few images are
    synthetic a border at one half tells little, and ranks rather than probabilities, because small
    networks are not calibrated. The plug-in estimate of mutual information is biased upwards by
    about (bins - 1) (classes - 1) / 2 n (Miller 1955); the mean over permutations of the scores is
    taken off, which is right for weighted images too.

    Classes also differ in score for what they show. The same estimate among real images alone,
    weighted to the class shares of all images, is what is left without synthetic ones, and the
    `excess` over it is what they add. Its p-value is from permuting which images of a class and
    half are synthetic: if real and synthetic images of a class look alike, that changes nothing.

    Equal shares of every class give little excess even where the detector is always right, for the
    label is no likelier then.

    Args:
        images: Real and synthetic images, in the numbers that a trainer draws them in.
        labels: Their classes.
        is_synthetic: Which are synthetic.
        value_range: (lowest, highest) value.
        class_names: Names of the classes.
        seed: Of halves, networks, permutations and the interval.
        steps: Optimiser steps of each detector.
        device: Where it is trained.
        n_permutations: Permutations; also the random halves behind the interval.

    Raises:
        ValueError: If the parts do not fit together, or too few images of either kind are in
            classes that have both.
    """
    labels = check_labels(labels, len(images), len(class_names), "check_shortcut: labels")
    synthetic = np.asarray(is_synthetic)
    if synthetic.shape != labels.shape or synthetic.dtype != np.bool_:
        raise ValueError(
            f"check_shortcut: expected is_synthetic as bool of shape {labels.shape}, got "
            f"{synthetic.dtype} of shape {synthetic.shape}"
        )
    if n_permutations < FEWEST_PERMUTATIONS:
        raise ValueError(
            f"check_shortcut: expected n_permutations of at least "
            f"{FEWEST_PERMUTATIONS}, got {n_permutations}"
        )
    k = len(class_names)
    counts = [np.bincount(labels[synthetic == kind], minlength=k) for kind in (False, True)]
    both = np.minimum(*counts) >= 2
    n_both = [int(each[both].sum()) for each in counts]
    if min(n_both) < FEWEST:
        raise ValueError(
            f"check_shortcut: expected at least {FEWEST} real and {FEWEST} synthetic images in "
            f"classes with 2 or more of either kind, got {n_both[0]} and {n_both[1]}"
        )
    scores, halves = looks_synthetic(
        images, labels, synthetic, value_range=value_range, seed=seed, steps=steps, device=device
    )
    rng = np.random.default_rng([seed, 13])
    table = _Table(_binned(scores, halves), labels, halves, k)
    total = table.information(np.arange(len(labels)), n_permutations, rng)
    real_only = table.information(np.flatnonzero(~synthetic), n_permutations, rng)
    excess = total - real_only
    p_value = table.p_value(synthetic, n_permutations, rng)
    parts = [table.plug_in(half_of(labels, rng)) for _ in range(n_permutations)]
    interval = from_halves(total, np.array(parts))
    share = counts[1] / np.maximum(1, counts[0] + counts[1])
    entropy = _entropy(np.bincount(labels, minlength=k) / len(labels))
    names = [str(name) for name in class_names]
    warning = None
    if p_value < P_VALUE and excess > EXCESS_SHARE * entropy:
        above = np.flatnonzero(share > synthetic.mean())
        warning = (
            f"Looking synthetic tells {excess:.2f} of {entropy:.2f} nats of the label: a "
            "classifier can learn it in place of the class. Most synthetic: "
            f"{listed(above, names)}."
        )
    return Shortcut(
        mutual_information=total,
        low=interval.low,
        high=interval.high,
        real_only=real_only,
        excess=excess,
        p_value=p_value,
        label_entropy=entropy,
        detector_auc=_auc_within_classes(scores, labels, synthetic, halves),
        synthetic_share={name: float(each) for name, each in zip(names, share, strict=True)},
        warning=warning,
        remedy=_REMEDY if warning else None,
    )


def _binned(scores: Float[np.ndarray, " n"], halves: np.ndarray) -> Int64[np.ndarray, " n"]:
    """Bin of each score among those of its half."""
    from scipy.stats import rankdata

    bins = np.empty(len(scores), np.int64)
    for half in np.unique(halves):
        own = halves == half
        ranks = rankdata(scores[own], method="average")
        bins[own] = np.minimum((ranks - 0.5) / own.sum() * BINS, BINS - 1)
    return bins


@dataclass(frozen=True)
class _Table:
    """Bins and labels, and what they tell of each other.

    Attributes:
        bins: Bin of each image's score.
        labels: Its class.
        halves: Its half; bins of two halves are not exchanged.
        n_classes: Classes.
    """

    bins: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    halves: Int64[np.ndarray, " n"]
    n_classes: int

    def plug_in(self, rows: np.ndarray, bins: np.ndarray | None = None) -> float:
        """Mutual information of bin and label of these rows, nats, at the class shares of all."""
        own = self.bins[rows] if bins is None else bins
        joint = np.zeros((BINS, self.n_classes))
        np.add.at(joint, (own, self.labels[rows]), 1.0)
        share = np.bincount(self.labels, minlength=self.n_classes) / len(self.labels)
        n = joint.sum(axis=0)
        joint *= np.divide(share, n, out=np.zeros_like(share), where=n > 0)
        joint /= joint.sum()
        return _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1)) - _entropy(joint.ravel())

    def information(self, rows: np.ndarray, n_permutations: int, rng: np.random.Generator) -> float:
        """`plug_in` without its bias: less the mean over scores permuted within the halves."""
        chance = [
            self.plug_in(rows, self.bins[rows[_permuted(self.halves[rows], rng)]])
            for _ in range(n_permutations)
        ]
        return self.plug_in(rows) - float(np.mean(chance))

    def p_value(
        self, synthetic: np.ndarray, n_permutations: int, rng: np.random.Generator
    ) -> float:
        """Of the excess, if which images of a class and half are synthetic made no difference.

        The information over all images does not change with it, nor do numbers and with them the
        bias: what is left to compare is how little the real images' scores tell of the class.
        """
        real = self.plug_in(np.flatnonzero(~synthetic))
        groups = 2 * self.labels + self.halves
        found = [
            self.plug_in(np.flatnonzero(~synthetic[_permuted(groups, rng)]))
            for _ in range(n_permutations)
        ]
        return float((1 + np.sum(np.array(found) <= real)) / (1 + n_permutations))


def _permuted(groups: Int64[np.ndarray, " n"], rng: np.random.Generator) -> np.ndarray:
    """Places in an order that is random within each group."""
    shuffled = rng.permutation(len(groups))
    places = np.empty(len(groups), np.int64)
    places[np.argsort(groups, kind="stable")] = shuffled[
        np.argsort(groups[shuffled], kind="stable")
    ]
    return places


def _entropy(shares: np.ndarray) -> float:
    """Nats."""
    found = shares[shares > 0]
    return float(-(found * np.log(found)).sum())


def _auc_within_classes(
    scores: np.ndarray, labels: np.ndarray, synthetic: np.ndarray, halves: np.ndarray
) -> float:
    """Mean area of classes and halves, weighted by the harmonic mean of real and synthetic ones."""
    areas, weights = [], []
    for group in np.unique(2 * labels + halves):
        own = 2 * labels + halves == group
        real, made = scores[own & ~synthetic], scores[own & synthetic]
        if len(real) and len(made):
            areas.append(area(real, made))
            weights.append(len(real) * len(made) / (len(real) + len(made)))
    return float(np.average(areas, weights=weights))
