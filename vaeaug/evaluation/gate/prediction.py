"""A cheap look ahead: what synthetic data changes on the first split of the gate, with no verdict.

The split, its generator and its trainings are those of the gate, which reads them instead of doing
them again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from vaeaug.config import Recipe
from vaeaug.data import LabelledImages
from vaeaug.evaluation.gate.arms import Arm, quick_arms
from vaeaug.evaluation.gate.bench import Bench
from vaeaug.evaluation.gate.result import in_percent, mean_and_ends, signed_points
from vaeaug.evaluation.matching import shared_images
from vaeaug.evaluation.metrics import UNEQUAL, class_groups
from vaeaug.evaluation.statistics import Interval, paired_gain_interval, wilson_interval
from vaeaug.notebook import Card, Shown, Table
from vaeaug.progress import Progress

INTERVAL = "paired by held-out image (Agresti & Min 2005)"
LIMITS = (
    "A prediction from one split, no verdict: its interval does not contain the variation between "
    "splits and trainings, only two trainings without synthetic data were tried, and whether they "
    "had converged was not checked."
)


@dataclass(frozen=True)
class PredictedClass:
    """Recall of one class on the split.

    Attributes:
        name: Name of the class.
        rare: Whether it is one of the rare classes.
        n: Held-out images.
        baseline: Recall without synthetic data, with Wilson's interval; None: none held out.
        merged: Recall with it.
    """

    name: str
    rare: bool
    n: int
    baseline: Interval | None
    merged: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            One object.
        """
        return {
            "class": self.name,
            "rare": self.rare,
            "n": self.n,
            "baseline": self.baseline and mean_and_ends(self.baseline),
            "merged": self.merged and mean_and_ends(self.merged),
        }


@dataclass(frozen=True)
class Prediction(Shown):
    """Whether synthetic data is likely to help, from one split.

    Attributes:
        sentence: The prediction in words, with its numbers.
        recipe: The recipe.
        gain: Balanced accuracy, merged - baseline, with the interval named `INTERVAL`; None where
            the recipe is "none".
        rare_gain: The same of the mean recall of the rare classes; None where no class is rare.
        balanced_accuracy: Balanced accuracy by name of the training.
        baseline: The better training without synthetic data.
        classes: Recall of each class.
        settings: How it was measured.
        warnings: Sentences that the reader should know.
    """

    sentence: str
    recipe: Recipe
    gain: Interval | None = None
    rare_gain: Interval | None = None
    balanced_accuracy: Mapping[str, float] = field(default_factory=dict)
    baseline: str = ""
    classes: tuple[PredictedClass, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Prediction({self.sentence!r})"

    def __str__(self) -> str:
        return self.sentence

    def _card(self) -> Card:
        tables = []
        if self.gain is not None:
            rows = [
                (name, f"{100 * value:.1f} %") for name, value in self.balanced_accuracy.items()
            ]
            tables.append(Table(("training", "balanced accuracy"), rows))
            recalls = [
                (
                    row.name,
                    "rare" if row.rare else "",
                    row.n,
                    in_percent(row.baseline),
                    in_percent(row.merged),
                )
                for row in self.classes
            ]
            headers = ("recall of class", "", "held out", "without", "with")
            tables.append(Table(headers, recalls))
        return Card(
            "Prediction, no verdict", [self.sentence], tables, notes=(*self.warnings, LIMITS)
        )

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            The prediction of report.json.
        """
        return {
            "sentence": self.sentence,
            "limits": LIMITS,
            "metric": "balanced accuracy",
            "interval": INTERVAL,
            "gain": self.gain and mean_and_ends(self.gain),
            "rare_gain": self.rare_gain and mean_and_ends(self.rare_gain),
            "baseline": self.baseline,
            "balanced_accuracy": dict(self.balanced_accuracy),
            "classes": [row.to_json() for row in self.classes],
            "recipe": self.recipe.model_dump(mode="json"),
            "warnings": list(self.warnings),
            **self.settings,
        }


def predict(bench: Bench, recipe: Recipe, *, progress: Progress | None = None) -> Prediction:
    """Predict from the first split whether a recipe helps.

    Args:
        bench: The bench of the gate; of its settings those of splits and budget do not count.
        recipe: The recipe.
        progress: Called after every training.

    Returns:
        The prediction.
    """
    if recipe.is_none:
        return Prediction(
            "Nothing to predict: of all recipes tried, training without synthetic data was the "
            "best.",
            recipe,
        )
    arms = quick_arms(bench.data)
    with bench:
        (split,) = bench.splits(1)
        bench.prepare([split], arms, recipe, progress)
        scores = bench.scores([split], arms, progress=progress)
        if bench.data.unlabelled is not None:
            pooled = replace(max(arms, key=lambda arm: scores[arm][0].balanced_accuracy), pool=True)
            scores |= bench.scores([split], [pooled], progress=progress)
            arms.append(pooled)
        # A tie goes to the first, the simpler one.
        best = max(arms, key=lambda arm: scores[arm][0].balanced_accuracy)
        merged = best.with_recipe(recipe)
        hits = bench.hits(split, [*arms, merged], progress=progress)
    train = bench.data.subset(split.train)
    held_out = bench.data.subset(split.held_out)
    n_leaks = len(shared_images(train, held_out))
    pairs = _Pairs(bench.data, held_out.labels, hits[merged], hits[best], bench.config.confidence)
    gain, rare_gain = pairs.gain(pairs.everything), pairs.rare_gain
    return Prediction(
        sentence=_sentence(gain, rare_gain, merged, best, n_arms=len(arms), n_rare=len(pairs.rare)),
        recipe=recipe,
        gain=gain,
        rare_gain=rare_gain,
        balanced_accuracy={
            arm.name: _mean_recall(hit, held_out.labels) for arm, hit in hits.items()
        },
        baseline=best.name,
        classes=pairs.classes(),
        settings={
            "n_splits": 1,
            "n_held_out": len(split.held_out),
            "folds": bench.folds,
            "steps": bench.steps,
            "probe": bench.probe,
            "confidence": bench.config.confidence,
            "seed": bench.config.seed,
        },
        warnings=_warnings(pairs, bench.config.min_held_out, n_leaks),
    )


@dataclass(frozen=True)
class _Pairs:
    """Outcomes of two classifiers on the same held-out images.

    Attributes:
        data: The training split.
        labels: Classes of the held-out images.
        ours: Which of them are right with synthetic data.
        theirs: Which are right without it.
        confidence: Confidence of the intervals.
    """

    data: LabelledImages
    labels: Int64[np.ndarray, " m"]
    ours: Bool[np.ndarray, " m"]
    theirs: Bool[np.ndarray, " m"]
    confidence: float

    @property
    def everything(self) -> tuple[int, ...]:
        """All classes."""
        return tuple(range(self.data.n_classes))

    @property
    def rare(self) -> tuple[int, ...]:
        """The rarest third, or the smallest class of two; none where classes are about equal."""
        counts = self.data.counts
        if few := class_groups(counts).get("few"):
            return few
        present = np.flatnonzero(counts)
        smallest = int(present[counts[present].argmin()])
        return (smallest,) if counts.max() > UNEQUAL * counts[smallest] else ()

    @property
    def held_counts(self) -> Int64[np.ndarray, " k"]:
        """Held-out images of each class."""
        return np.bincount(self.labels, minlength=self.data.n_classes)

    @property
    def rare_gain(self) -> Interval | None:
        """Gain in mean recall of the rare classes; None where none is held out."""
        held_out = np.isin(self.labels, self.rare).any()
        return self.gain(self.rare) if held_out else None

    def gain(self, classes: tuple[int, ...]) -> Interval:
        """Gain in mean recall of classes, of which some are held out."""
        rows = np.isin(self.labels, classes)
        return paired_gain_interval(
            self.ours[rows], self.theirs[rows], self.labels[rows], confidence=self.confidence
        )

    def classes(self) -> tuple[PredictedClass, ...]:
        """Recall of each class both ways."""

        def recall(hits: np.ndarray, label: int) -> Interval | None:
            of_class = hits[self.labels == label]
            if not len(of_class):
                return None
            return wilson_interval(int(of_class.sum()), len(of_class), confidence=self.confidence)

        rare = set(self.rare)
        return tuple(
            PredictedClass(
                name,
                label in rare,
                int(self.held_counts[label]),
                recall(self.theirs, label),
                recall(self.ours, label),
            )
            for label, name in enumerate(self.data.class_names)
        )


def _mean_recall(hits: Bool[np.ndarray, " m"], labels: Int64[np.ndarray, " m"]) -> float:
    return float(np.mean([hits[labels == label].mean() for label in np.unique(labels)]))


def _sentence(
    gain: Interval, rare_gain: Interval | None, merged: Arm, best: Arm, *, n_arms: int, n_rare: int
) -> str:
    text = (
        f"Prediction from one split, no verdict: balanced accuracy {signed_points(gain)} with "
        f"synthetic data ({merged.recipe}) against {best.name}, the best of {n_arms} trainings "
        "without it"
    )
    if rare_gain is not None:
        which = "the rarest class" if n_rare == 1 else f"the {n_rare} rarest classes"
        text += f"; recall of {which} {signed_points(rare_gain)}"
    return f"{text}."


def _warnings(pairs: _Pairs, min_held_out: int, n_leaks: int) -> tuple[str, ...]:
    warnings = []
    if n_leaks:
        warnings.append(
            f"leak: {n_leaks} held-out images are also in the pool of unlabelled images, which the "
            "generator learns from; take them out of the pool"
        )
    fewest = int(pairs.held_counts[pairs.data.counts > 0].min())
    if fewest < min_held_out:
        warnings.append(
            f"a class has {fewest} held-out images, fewer than {min_held_out}: its recall says "
            "little"
        )
    return tuple(warnings)
