"""How well a classifier does where classes are unequal, and with what certainty.

Every figure is a fraction, 0 to 1. Recall of a class is the share of its held-out images that get
its label; balanced accuracy is the mean of the recalls, so that a rare class counts like a frequent
one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

# Bins of confidence for the calibration error (Guo et al. 2017, arXiv:1706.04599).
CALIBRATION_BINS = 15
# Classes are grouped only where the largest has more than so many times the images of the smallest.
UNEQUAL = 1.5


@dataclass(frozen=True)
class Scores:
    """What one classifier did on one held-out set.

    Attributes:
        balanced_accuracy: Mean recall of the classes that are held out.
        macro_f1: Mean F1 of these classes.
        geometric_mean: Geometric mean of the recalls; 0 where a class is never found.
        calibration_error: Mean gap between confidence and accuracy, over bins of confidence.
        groups: Mean recall of the groups of classes: "many", "medium", "few".
        right: Held-out images of each class with the right label, (k,).
        held_out: Held-out images of each class, (k,).
    """

    balanced_accuracy: float
    macro_f1: float
    geometric_mean: float
    calibration_error: float
    groups: Mapping[str, float]
    right: tuple[int, ...]
    held_out: tuple[int, ...]

    @property
    def recall(self) -> tuple[float, ...]:
        """Recall of each class; NaN where none of it is held out."""
        return tuple(
            right / n if n else math.nan for right, n in zip(self.right, self.held_out, strict=True)
        )

    def metrics(self) -> dict[str, float]:
        """The figures by name, those of groups as ``recall_few`` and so on."""
        return {
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "geometric_mean": self.geometric_mean,
            "calibration_error": self.calibration_error,
            **{f"recall_{name}": value for name, value in self.groups.items()},
        }


def score(
    probabilities: Float[np.ndarray, "n k"],
    labels: Int64[np.ndarray, " n"],
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> Scores:
    """Every figure of one classifier on one held-out set.

    Args:
        probabilities: Of every class for every held-out image; rows sum to 1.
        labels: True labels.
        groups: Classes of each group, by name; see `class_groups`.

    Raises:
        ValueError: If the shapes do not fit, or there is nothing to judge by.
    """
    from sklearn.metrics import confusion_matrix

    n, k = probabilities.shape if probabilities.ndim == 2 else (0, 0)
    if not n or labels.shape != (n,):
        raise ValueError(
            f"score: expected probabilities (n, k) and labels (n,), n of at least 1, got shapes "
            f"{probabilities.shape} and {labels.shape}"
        )
    table = confusion_matrix(labels, probabilities.argmax(axis=1), labels=np.arange(k))
    right, held_out, predicted = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    present = held_out > 0
    recall = right[present] / held_out[present]
    f1 = 2 * right[present] / (held_out[present] + predicted[present])
    by_class = np.full(k, np.nan)
    by_class[present] = recall
    return Scores(
        balanced_accuracy=float(recall.mean()),
        macro_f1=float(f1.mean()),
        geometric_mean=float(np.exp(np.log(recall).mean())) if recall.all() else 0.0,
        calibration_error=calibration_error(probabilities, labels),
        groups={
            name: float(np.nanmean(by_class[list(classes)]))
            for name, classes in (groups or {}).items()
            if present[list(classes)].any()
        },
        right=tuple(int(each) for each in right),
        held_out=tuple(int(each) for each in held_out),
    )


def calibration_error(
    probabilities: Float[np.ndarray, "n k"], labels: Int64[np.ndarray, " n"]
) -> float:
    """Expected calibration error: |confidence - accuracy|, weighted over equal bins of confidence.

    Naeini et al. 2015; with 15 bins as in Guo et al. 2017 (arXiv:1706.04599).
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def class_groups(counts: Int64[np.ndarray, " k"]) -> dict[str, tuple[int, ...]]:
    """The classes in thirds by their number of training images: "many", "medium" and "few".

    Where thirds are uneven the middle takes the rest of ten classes: 3, 4, 3. Nothing is grouped
    where there are fewer than 3 classes or they are about equal.
    """
    found = np.flatnonzero(counts)
    if len(found) < 3 or counts[found].max() <= UNEQUAL * counts[found].min():
        return {}
    order = found[np.argsort(counts[found], kind="stable")]
    third = len(order) // 3
    parts = {
        "many": order[len(order) - third :],
        "medium": order[third : len(order) - third],
        "few": order[:third],
    }
    return {name: tuple(sorted(int(each) for each in part)) for name, part in parts.items()}
