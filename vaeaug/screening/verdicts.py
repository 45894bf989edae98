"""The verdicts of screening: of one batch, and counted over a class."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

# In the order they are judged; a sample carries the first that applies.
REASONS = ("not finite", "out of range", "near-copy", "duplicate", "other class", "too near")


@dataclass(frozen=True)
class Screened:
    """The verdicts on one batch.

    Attributes:
        reason: Why each sample was rejected, "" where it was accepted, (n,).
        p_label: Probability of its label by the classifiers of real images, (n,).
        nn_distance: Root mean square difference to the nearest training image, labelled or not,
            in units of the value range, (n,).
        nn_index: Row of that image, (n,); of an unlabelled one, len(data) + its row in the pool.
        probabilities: Class probabilities by the classifiers of real images, (n, k).
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
        """Pick the verdicts at some rows.

        Args:
            rows: Indices or a mask.

        Returns:
            Their verdicts, in this order.
        """
        return Screened(*(values[rows] for values in vars(self).values()))


@dataclass
class ScreeningReport:
    """Counts of one class.

    Attributes:
        candidates: Samples that were judged.
        accepted: Those that passed.
        near: Accepted samples that lie near to a training image.
        rejected: Rejected samples by reason.
    """

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
        """Give plain JSON types.

        Returns:
            Counts, the reasons in the order they are judged.
        """
        return {
            "candidates": self.candidates,
            "accepted": self.accepted,
            "rejected": {reason: self.rejected[reason] for reason in REASONS},
        }
