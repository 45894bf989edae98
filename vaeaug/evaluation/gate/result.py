"""The result of the gate: typed values, words and JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vaeaug._moved import renamed_attribute
from vaeaug.config import Recipe
from vaeaug.evaluation.statistics import Interval, Verdict
from vaeaug.notebook import Card, Shown, Table
from vaeaug.report import in_points

INTERVAL = "corrected resampled t (Nadeau & Bengio 2003)"


@dataclass(frozen=True)
class Comparison:
    """Merged training against the best training without synthetic data.

    Attributes:
        name: "equal steps" (synthetic draws take the place of real ones) or "equal real draws"
            (they stand beside them).
        arm: Name of the merged arm.
        baseline: Name of the best baseline.
        difference: Balanced accuracy, merged - baseline, with the interval named `INTERVAL`.
        verdict: Verdict of the difference.
    """

    name: str
    arm: str
    baseline: str
    difference: Interval
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            One object.
        """
        difference = self.difference
        return {
            "name": self.name,
            "arm": self.arm,
            "baseline": self.baseline,
            "difference": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "p_value": difference.p_value,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class ArmResult:
    """One way to train, over all splits.

    Attributes:
        name: Name of the arm.
        kind: "baseline", "merged", or "check" (the best baseline with more steps).
        metrics: Mean over the splits of every metric, with its interval, by name.
        recall: Per class, pooled over the splits, with Wilson's interval; None: never held out.
        held_out: Held-out images of each class, over all splits.
        by_split: Balanced accuracy of each split.
    """

    name: str
    kind: str
    metrics: Mapping[str, Interval]
    recall: tuple[Interval | None, ...]
    held_out: tuple[int, ...]
    by_split: tuple[float, ...]

    figures = renamed_attribute("figures", "metrics")

    def to_json(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Give plain JSON types.

        Args:
            class_names: Names of the classes.

        Returns:
            One object.
        """
        return {
            "name": self.name,
            "kind": self.kind,
            "metrics": {name: mean_and_ends(value) for name, value in self.metrics.items()},
            "recall": [
                {
                    "class": name,
                    "value": recall and recall.mean,
                    "low": recall and recall.low,
                    "high": recall and recall.high,
                    "n": n,
                }
                for name, recall, n in zip(class_names, self.recall, self.held_out, strict=True)
            ],
            "by_split": list(self.by_split),
        }


@dataclass(frozen=True)
class GateResult(Shown):
    """Whether synthetic data helps on this data.

    Attributes:
        verdict: "helps", "does not help" or "unsure".
        sentence: The verdict in words, with its numbers.
        comparisons: Both ways to compare; the first decides.
        arms: Every way to train.
        recipe: The recipe that was measured.
        settings: How it was measured.
        warnings: Sentences that the reader should know.
        class_names: Names of the classes.
    """

    verdict: Verdict
    sentence: str
    comparisons: tuple[Comparison, ...]
    arms: tuple[ArmResult, ...]
    recipe: Recipe
    settings: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"GateResult({self.sentence!r}, {len(self.arms)} trainings)"

    def __str__(self) -> str:
        return self.sentence

    def _card(self) -> Card:
        arms = [
            (arm.name, arm.kind, in_percent(arm.metrics.get("balanced_accuracy")))
            for arm in self.arms
        ]
        tables = [Table(("training", "kind", "balanced accuracy"), arms)]
        by_name = {arm.name: arm for arm in self.arms}
        first = self.comparisons[0] if self.comparisons else None
        if first is not None and {first.arm, first.baseline} <= by_name.keys():
            merged, baseline = by_name[first.arm], by_name[first.baseline]
            recalls = [
                (name, n, in_percent(before), in_percent(after))
                for name, n, before, after in zip(
                    self.class_names, merged.held_out, baseline.recall, merged.recall, strict=True
                )
            ]
            headers = ("recall of class", "held out", first.baseline, first.arm)
            tables.append(Table(headers, recalls))
        return Card(f"Verdict: {self.verdict}", [self.sentence], tables, notes=self.warnings)

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON types; metrics that cannot be computed are left out.

        Returns:
            The gate of manifest.json and report.json.
        """
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "metric": "balanced accuracy",
            "interval": INTERVAL,
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "arms": [arm.to_json(self.class_names) for arm in self.arms],
            "recipe": self.recipe.model_dump(mode="json"),
            "warnings": list(self.warnings),
            **self.settings,
        }


def in_percent(interval: Interval | None) -> str:
    """Write an interval for a table.

    Args:
        interval: Of a fraction; None: of a class of which no image was held out.

    Returns:
        Such as "80.0 % (70.0 to 90.0)".
    """
    if interval is None:
        return "never held out"
    mean, low, high = (100 * value for value in (interval.mean, interval.low, interval.high))
    return f"{mean:.1f} % ({low:.1f} to {high:.1f})"


def mean_and_ends(interval: Interval) -> dict[str, float]:
    """Give an interval as JSON, without its p-value.

    Args:
        interval: The interval.

    Returns:
        Its mean, low and high end.
    """
    return {name: value for name, value in asdict(interval).items() if name != "p_value"}


def signed_points(interval: Interval) -> str:
    """Write a difference of shares in points.

    Args:
        interval: The difference, -1 to 1.

    Returns:
        Such as "+1.2 points (-0.3 to 2.7)".
    """
    return in_points(interval.mean, interval.low, interval.high)
