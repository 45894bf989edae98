"""Is "looks synthetic" a shortcut to the label? Unequal shares of synthetic images teach one.

Where rare classes get synthetic images and frequent ones do not, a classifier can learn "looks
synthetic, so it is rare" in place of what the classes look like: measured to cost 3 to 4 points of
balanced accuracy. This looks for the shortcut before anything is trained on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped

from vaeaug.evaluation.discriminator import looks_synthetic
from vaeaug.evaluation.matching import check_labels, listed
from vaeaug.evaluation.metrics import roc_auc
from vaeaug.evaluation.statistics import half_of, halves_interval

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
    """How much "looks synthetic" tells about the label.

    Attributes:
        mutual_information: Mutual information of the detector's score and the label over all
            images, nats.
        low: Lower end of its 95 % interval.
        high: Upper end.
        real_only: The same among real images, weighted to the class shares of all: what classes
            look like, rather than what is synthetic about them.
        excess: `mutual_information` - `real_only`: what the synthetic images add.
        p_value: Probability of such an excess if real and synthetic images of a class looked
            alike.
        label_entropy: Entropy of the label, nats: the most there is to tell.
        detector_auc: How well the detector tells real from synthetic images within a class.
        synthetic_share: By class name, the share of its images that is synthetic.
        warning: A sentence naming the classes; None where there is no shortcut.
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
        """Give plain JSON types.

        Returns:
            The object of report.json.
        """
        return asdict(self)


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
    sees as many real as synthetic images of each class it is trained on, so a class tells it
    nothing. Its score is put into 8 bins of equal numbers of images, by half, since the scores of
    the two detectors are not on one scale; bins rather than a yes or no, because where few images
    are synthetic a border at one half tells little, and ranks rather than probabilities, because
    small networks are not calibrated. The plug-in estimate of mutual information is biased upwards
    by about (bins - 1) (classes - 1) / 2 n (Miller 1955); the mean over permutations of the scores
    is taken off, which is right for weighted images too.

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
        seed: Seed of halves, networks, permutations and the interval.
        steps: Optimiser steps of each detector.
        device: Where it is trained.
        n_permutations: Number of permutations, and of the random halves behind the interval.

    Returns:
        The estimate.

    Raises:
        ValueError: If the parts do not fit together, or too few images of either kind are in
            classes that have both.
    """
    labels = check_labels(labels, len(images), len(class_names), "check_shortcut: labels")
    synthetic = np.asarray(is_synthetic)
    _check_arguments(labels, synthetic, n_permutations)
    k = len(class_names)
    counts = [np.bincount(labels[synthetic == kind], minlength=k) for kind in (False, True)]
    _check_counts(*counts)
    scores, halves = looks_synthetic(
        images, labels, synthetic, value_range=value_range, seed=seed, steps=steps, device=device
    )
    rng = np.random.default_rng([seed, 13])
    table = _Table(_binned(scores, halves), labels, halves, k)
    total = table.information(np.arange(len(labels)), n_permutations, rng)
    real_only = table.information(np.flatnonzero(~synthetic), n_permutations, rng)
    excess = total - real_only
    p_value = table.p_value(synthetic, n_permutations, rng)
    of_halves = [table.plug_in(half_of(labels, rng)) for _ in range(n_permutations)]
    interval = halves_interval(total, np.array(of_halves))
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
        synthetic_share=dict(zip(names, share.tolist(), strict=True)),
        warning=warning,
        remedy=_REMEDY if warning else None,
    )


def _check_arguments(labels: np.ndarray, synthetic: np.ndarray, n_permutations: int) -> None:
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


def _check_counts(real: np.ndarray, synthetic: np.ndarray) -> None:
    have_both = np.minimum(real, synthetic) >= 2
    n_real, n_synthetic = int(real[have_both].sum()), int(synthetic[have_both].sum())
    if min(n_real, n_synthetic) < FEWEST:
        raise ValueError(
            f"check_shortcut: expected at least {FEWEST} real and {FEWEST} synthetic images in "
            f"classes with 2 or more of either kind, got {n_real} and {n_synthetic}"
        )


def _binned(scores: Float[np.ndarray, " n"], halves: np.ndarray) -> Int64[np.ndarray, " n"]:
    """Bin of each score among those of its half."""
    from scipy.stats import rankdata

    bins = np.empty(len(scores), np.int64)
    for half in np.unique(halves):
        in_half = halves == half
        ranks = rankdata(scores[in_half], method="average")
        bins[in_half] = np.minimum((ranks - 0.5) / in_half.sum() * BINS, BINS - 1)
    return bins


@dataclass(frozen=True)
class _Table:
    """Bins and labels, and their mutual information.

    Attributes:
        bins: Bin of each image's score.
        labels: Its class.
        halves: Its half; bins of two halves are not exchanged.
        n_classes: Number of classes.
    """

    bins: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    halves: Int64[np.ndarray, " n"]
    n_classes: int

    def plug_in(self, rows: np.ndarray, bins: np.ndarray | None = None) -> float:
        """Mutual information of bin and label of these rows, nats, at the class shares of all."""
        bins = self.bins[rows] if bins is None else bins
        joint = np.zeros((BINS, self.n_classes))
        np.add.at(joint, (bins, self.labels[rows]), 1.0)
        share = np.bincount(self.labels, minlength=self.n_classes) / len(self.labels)
        n = joint.sum(axis=0)
        joint *= np.divide(share, n, out=np.zeros_like(share), where=n > 0)
        joint /= joint.sum()
        # I(B; Y) = H(Y) + H(B) - H(B, Y).
        return _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1)) - _entropy(joint.ravel())

    def information(self, rows: np.ndarray, n_permutations: int, rng: np.random.Generator) -> float:
        """`plug_in` without its bias: less the mean over scores permuted within the halves."""
        by_chance = [
            self.plug_in(rows, self.bins[rows[_permuted(self.halves[rows], rng)]])
            for _ in range(n_permutations)
        ]
        return self.plug_in(rows) - float(np.mean(by_chance))

    def p_value(
        self, synthetic: np.ndarray, n_permutations: int, rng: np.random.Generator
    ) -> float:
        """P-value of the excess, permuting which images of a class and half are synthetic.

        The information over all images does not change with it, nor do numbers and with them the
        bias: what is left to compare is how little the real images' scores tell of the class.
        """
        real = self.plug_in(np.flatnonzero(~synthetic))
        groups = 2 * self.labels + self.halves
        permuted = [
            self.plug_in(np.flatnonzero(~synthetic[_permuted(groups, rng)]))
            for _ in range(n_permutations)
        ]
        return float((1 + np.sum(np.array(permuted) <= real)) / (1 + n_permutations))


def _permuted(groups: Int64[np.ndarray, " n"], rng: np.random.Generator) -> np.ndarray:
    """Positions in an order that is random within each group."""
    shuffled = rng.permutation(len(groups))
    places = np.empty(len(groups), np.int64)
    places[np.argsort(groups, kind="stable")] = shuffled[
        np.argsort(groups[shuffled], kind="stable")
    ]
    return places


def _entropy(shares: np.ndarray) -> float:
    """Entropy of shares that sum to 1, nats."""
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def _auc_within_classes(
    scores: np.ndarray, labels: np.ndarray, synthetic: np.ndarray, halves: np.ndarray
) -> float:
    """Mean area of classes and halves, weighted by the harmonic mean of real and synthetic ones."""
    areas, weights = [], []
    for group in np.unique(2 * labels + halves):
        in_group = 2 * labels + halves == group
        real, fake = scores[in_group & ~synthetic], scores[in_group & synthetic]
        if len(real) and len(fake):
            areas.append(roc_auc(real, fake))
            weights.append(len(real) * len(fake) / (len(real) + len(fake)))
    return float(np.average(areas, weights=weights))
