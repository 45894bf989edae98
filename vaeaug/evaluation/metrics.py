"""What is measured: how well a classifier does, and metrics of synthetic images beside real ones.

Metrics of a classifier are fractions, 0 to 1. Recall of a class is the share of its held-out images
that get its label; balanced accuracy is the mean of the recalls, so that a rare class counts like a
frequent one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int64

from vaeaug.evaluation.statistics import Interval

# Bins of confidence for the calibration error (Guo et al. 2017, arXiv:1706.04599).
CALIBRATION_BINS = 15
# Classes are grouped only where the largest has more than this many times the images of the
# smallest.
UNEQUAL = 1.5


@dataclass(frozen=True)
class Description:
    """A metric of synthetic images in words, for a table.

    Attributes:
        title: Words for a table.
        meaning: One sentence on what it says.
        better: "higher", "lower", or "half" where 0.5 is best.
    """

    title: str
    meaning: str
    better: Literal["higher", "lower", "half"]


@dataclass(frozen=True)
class Metric:
    """One metric of synthetic images, beside the same of real images.

    Attributes:
        name: Key.
        title: Words for a table.
        meaning: One sentence on what it says.
        better: "higher", "lower", or "half" where 0.5 is best.
        value: Value for the synthetic images.
        low: Lower end of its interval, at most `value`.
        high: Upper end, at least `value`.
        real: The same metric of real images in the place of the synthetic ones.
        real_low: Lower end of its interval.
        real_high: Upper end.
    """

    name: str
    title: str
    meaning: str
    better: Literal["higher", "lower", "half"]
    value: float
    low: float
    high: float
    real: float
    real_low: float
    real_high: float

    @classmethod
    def of(
        cls, name: str, description: Description, synthetic: Interval, real: Interval
    ) -> "Metric":
        """Put a metric of both kinds of images together.

        Args:
            name: Key.
            description: Title, meaning and direction.
            synthetic: The metric of the synthetic images.
            real: The metric of real images in their place.

        Returns:
            The metric.
        """
        return cls(
            name,
            **asdict(description),
            value=synthetic.mean,
            low=synthetic.low,
            high=synthetic.high,
            real=real.mean,
            real_low=real.low,
            real_high=real.high,
        )

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            One object, a key per attribute.
        """
        return asdict(self)


@dataclass(frozen=True)
class Scores:
    """The scores of one classifier on one held-out set.

    Attributes:
        balanced_accuracy: Mean recall of the classes that are held out.
        macro_f1: Mean F1 of these classes.
        geometric_mean: Geometric mean of the recalls; 0 where no image of a class is recognised.
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

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Scores":
        """Read what ``dataclasses.asdict`` gave, after a round trip through JSON.

        Args:
            record: One value per attribute.

        Returns:
            The scores.
        """
        counts = {name: tuple(record[name]) for name in ("right", "held_out")}
        return cls(**{**record, **counts})

    def metrics(self) -> dict[str, float]:
        """List the metrics by name.

        Returns:
            The metrics; those of groups are called ``recall_few`` and so on.
        """
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
    """Score one classifier on one held-out set.

    Args:
        probabilities: Class probabilities of the held-out images; rows sum to 1.
        labels: True labels.
        groups: Classes of each group, by name; see `class_groups`.

    Returns:
        Every metric.

    Raises:
        ValueError: If the shapes do not fit, or there is nothing to judge by.
    """
    from scipy.stats import gmean
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
    recall = np.divide(right, held_out, out=np.full(k, np.nan), where=present)
    f1 = 2 * right[present] / (held_out[present] + predicted[present])
    return Scores(
        balanced_accuracy=float(recall[present].mean()),
        macro_f1=float(f1.mean()),
        geometric_mean=float(gmean(recall[present])),
        calibration_error=calibration_error(probabilities, labels),
        groups={
            name: float(np.nanmean(recall[list(classes)]))
            for name, classes in (groups or {}).items()
            if present[list(classes)].any()
        },
        right=tuple(right.tolist()),
        held_out=tuple(held_out.tolist()),
    )


def calibration_error(
    probabilities: Float[np.ndarray, "n k"], labels: Int64[np.ndarray, " n"]
) -> float:
    """Expected calibration error: |confidence - accuracy|, weighted over equal bins of confidence.

    Naeini et al. 2015; with 15 bins as in Guo et al. 2017 (arXiv:1706.04599), eq. 3.

    Args:
        probabilities: Class probabilities of the images; rows sum to 1.
        labels: True labels.

    Returns:
        The error, 0 to 1.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def roc_auc(lower: Float[np.ndarray, " n"], higher: Float[np.ndarray, " m"]) -> float:
    """Area under the ROC curve: the chance that one of `higher` exceeds one of `lower`.

    Args:
        lower: Scores of the kind that should score low.
        higher: Scores of the other kind.

    Returns:
        The area, 0 to 1; ties count half.
    """
    from scipy.stats import mannwhitneyu

    # Mann-Whitney's U over n m; scikit-learn's `roc_auc_score` takes several times as long.
    u = mannwhitneyu(np.float64(higher), np.float64(lower), method="asymptotic").statistic
    return float(u / (len(lower) * len(higher)))


def class_groups(counts: Int64[np.ndarray, " k"]) -> dict[str, tuple[int, ...]]:
    """Group the classes in thirds by their number of training images.

    Where thirds are uneven the middle takes the rest of ten classes: 3, 4, 3. Nothing is grouped
    where there are fewer than 3 classes or they are about equal.

    Args:
        counts: Training images of each class.

    Returns:
        Classes of the groups "many", "medium" and "few".
    """
    present = np.flatnonzero(counts)
    if len(present) < 3 or counts[present].max() <= UNEQUAL * counts[present].min():
        return {}
    order = present[np.argsort(counts[present], kind="stable")]
    third = len(order) // 3
    groups = {
        "many": order[len(order) - third :],
        "medium": order[third : len(order) - third],
        "few": order[:third],
    }
    return {name: tuple(sorted(classes.tolist())) for name, classes in groups.items()}
