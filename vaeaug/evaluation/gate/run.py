"""Does it help? Classifiers with and without synthetic data, paired by split, and a verdict.

The opponent is the best of many ways to train without synthetic data, found on the same splits:
that choice can only raise the bar. Merged training uses the same techniques, so that synthetic data
is all that differs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vaeaug.config import Recipe
from vaeaug.data import LabelledImages
from vaeaug.evaluation.gate.bench import Bench, Progress
from vaeaug.evaluation.gate.probe import Arm, fixed_arms
from vaeaug.evaluation.gate.splits import Split
from vaeaug.evaluation.matching import shared_images
from vaeaug.evaluation.metrics import Scores
from vaeaug.evaluation.statistics import (
    Interval,
    Verdict,
    corrected_t_interval,
    judge,
    wilson_interval,
)

INTERVAL = "corrected resampled t (Nadeau & Bengio 2003)"
EQUAL_STEPS, EQUAL_REAL = "equal steps", "equal real draws"
# The best baseline is trained for so many times the steps, to see whether it had converged.
LONGER = 2.0


@dataclass(frozen=True)
class Comparison:
    """Merged training against the best without synthetic data.

    Attributes:
        name: "equal steps" (synthetic draws take the place of real ones) or "equal real draws"
            (they stand beside them).
        arm: Name of the merged arm.
        baseline: Name of the best baseline.
        difference: Of balanced accuracy, merged - baseline, by `INTERVAL`.
        verdict: What it says.
    """

    name: str
    arm: str
    baseline: str
    difference: Interval
    verdict: Verdict


@dataclass(frozen=True)
class ArmResult:
    """One way to train, over all splits.

    Attributes:
        name: Of the arm.
        kind: "baseline", "merged", or "check" (the best baseline with more steps).
        figures: By name, the mean over splits with its interval.
        recall: Per class, pooled over the splits, with Wilson's interval; None: never held out.
        held_out: Held-out images of each class, over all splits.
        by_split: Balanced accuracy of each split.
    """

    name: str
    kind: str
    figures: Mapping[str, Interval]
    recall: tuple[Interval | None, ...]
    held_out: tuple[int, ...]
    by_split: tuple[float, ...]


@dataclass(frozen=True)
class GateResult:
    """Whether synthetic data helps on this data.

    Attributes:
        verdict: "helps", "does not help" or "unsure".
        sentence: The verdict in words, with its figures.
        comparisons: Both ways to compare; the first decides.
        arms: Every way to train.
        recipe: What was measured.
        settings: How it was measured.
        warnings: What the reader has to know.
        class_names: Names of the classes.
    """

    verdict: Verdict
    sentence: str
    comparisons: tuple[Comparison, ...]
    arms: tuple[ArmResult, ...]
    recipe: Recipe
    settings: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    class_names: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return self.sentence

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; figures that cannot be computed are null."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "metric": "balanced accuracy",
            "interval": INTERVAL,
            "comparisons": [
                {
                    "name": each.name,
                    "arm": each.arm,
                    "baseline": each.baseline,
                    "difference": each.difference.mean,
                    "low": each.difference.low,
                    "high": each.difference.high,
                    "p_value": each.difference.p_value,
                    "verdict": each.verdict,
                }
                for each in self.comparisons
            ],
            "arms": [
                {
                    "name": each.name,
                    "kind": each.kind,
                    "metrics": {name: _interval(value) for name, value in each.figures.items()},
                    "recall": [
                        {
                            "class": name,
                            "value": recall and recall.mean,
                            "low": recall and recall.low,
                            "high": recall and recall.high,
                            "n": n,
                        }
                        for name, recall, n in zip(
                            self.class_names, each.recall, each.held_out, strict=True
                        )
                    ],
                    "by_split": list(each.by_split),
                }
                for each in self.arms
            ],
            "recipe": self.recipe.model_dump(mode="json"),
            "warnings": list(self.warnings),
            **self.settings,
        }


def run_gate(
    bench: Bench,
    recipe: Recipe,
    *,
    baselines: Sequence[Arm] | None = None,
    progress: Progress | None = None,
) -> GateResult:
    """Measure a recipe.

    Args:
        bench: The data, its splits and what is trained on them.
        recipe: What is measured.
        baselines: Takes the place of the usual baselines.
        progress: Called as ``progress(what, done, total)``.
    """
    if recipe.is_none:
        return _nothing_to_measure(bench, recipe)
    baselines = list(baselines or fixed_arms(bench.data))
    with bench:
        splits = bench.splits_in_budget(baselines, recipe, progress)
        scores = bench.scores(splits, baselines, progress=progress)
        combined = _combination(scores)
        scores |= bench.scores(splits, [combined], progress=progress)
        best = _best(scores)
        longer = replace(best, length=LONGER)
        merged = [best.with_recipe(recipe), best.with_recipe(recipe, beside=True)]
        scores |= bench.scores(splits, [longer, *merged], progress=progress)
    return _result(bench, splits, scores, best, longer, merged, recipe)


def _mean(scores: Sequence[Scores]) -> float:
    return float(np.mean([each.balanced_accuracy for each in scores]))


def _best(scores: Mapping[Arm, Sequence[Scores]]) -> Arm:
    """The arm of the highest mean; of equals the first, which is the simpler one."""
    return max(scores, key=lambda arm: _mean(scores[arm]))


def _combination(scores: Mapping[Arm, Sequence[Scores]]) -> Arm:
    """The best technique of each kind, together: balance, flips, mixing."""

    def best_of(arms: list[Arm]) -> Arm:
        return max(arms, key=lambda arm: _mean(scores[arm]))

    plain = [arm for arm in scores if arm.mix is None and not arm.flip]
    first = best_of(plain)
    if not first.classic:
        return first
    among = [arm for arm in scores if arm.classic and arm.balance == "oversampling"]
    if not among:
        return first
    flip = best_of([arm for arm in among if arm.mix is None]).flip
    mix = best_of([arm for arm in among if not arm.flip]).mix
    return replace(first, flip=flip, mix=mix)


def _result(
    bench: Bench,
    splits: Sequence[Split],
    scores: Mapping[Arm, list[Scores]],
    best: Arm,
    longer: Arm,
    merged: Sequence[Arm],
    recipe: Recipe,
) -> GateResult:
    config, data = bench.config, bench.data
    ratio = len(splits[0].held_out) / len(splits[0].train)
    fewest = int(min(_fewest_held_out(data, each) for each in splits))
    # What a single held-out image of the smallest class changes.
    resolution = 1 / (max(1, fewest) * int((data.counts > 0).sum()))

    def difference(arm: Arm, other: Arm) -> Interval:
        pairs = zip(scores[arm], scores[other], strict=True)
        return corrected_t_interval(
            [a.balanced_accuracy - b.balanced_accuracy for a, b in pairs],
            test_to_train=ratio,
            confidence=config.confidence,
            resolution=resolution,
        )

    comparisons = []
    for name, arm in zip((EQUAL_STEPS, EQUAL_REAL), merged, strict=True):
        found = difference(arm, best)
        verdict = judge(found, min_effect=config.min_effect)
        comparisons.append(Comparison(name, arm.name, best.name, found, verdict))
    more = difference(longer, best)
    converged = judge(more, min_effect=config.min_effect) != "helps"
    verdict = comparisons[0].verdict
    warnings = []
    # Copies among the labelled images stay on one side of a split; those in a pool do not.
    leaks = sum(
        len(shared_images(data.subset(split.train), data.subset(split.held_out)))
        for split in splits
    )
    if leaks:
        warnings.append(
            f"leak: {leaks} held-out images are also in the pool of unlabelled images, which the "
            "generators learn from; take them out of the pool"
        )
    if not converged:
        warnings.append(
            f"the baselines had not converged: {LONGER:g} times the steps gave the best one "
            f"{100 * more.mean:+.1f} points; raise the steps"
        )
    if comparisons[1].verdict != verdict:
        warnings.append(
            f"with synthetic samples beside all real draws ({EQUAL_REAL}), at more computing: "
            f"{_signed(comparisons[1].difference)}, {comparisons[1].verdict}"
        )
    why = ""
    if fewest < config.min_held_out:
        verdict, why = "unsure", f"too few: a class has {fewest} held-out images in a split"
        warnings.append(
            f"a class has {fewest} held-out images, fewer than {config.min_held_out}: its recall "
            "says little"
        )
    elif verdict == "helps" and leaks:
        verdict, why = "unsure", "held-out images are in the pool that the generators learn from"
    elif verdict == "helps" and not converged:
        verdict, why = "unsure", "the baselines had not converged"
    elif verdict == "unsure":
        why = "more splits would narrow it: a larger budget"
    kinds = {longer: "check", **dict.fromkeys(merged, "merged")}
    arms = tuple(
        _arm_result(arm, kinds.get(arm, "baseline"), found, ratio, bench)
        for arm, found in scores.items()
    )
    settings = {
        "n_splits": len(splits),
        "folds": bench.folds,
        "steps": bench.steps,
        "probe": bench.probe,
        "min_effect": config.min_effect,
        "confidence": config.confidence,
        "converged": converged,
        "longer": _interval(more),
        "min_held_out": fewest,
        "seed": config.seed,
        "baseline": best.name,
    }
    return GateResult(
        verdict,
        _sentence(verdict, comparisons[0], len(splits), why),
        tuple(comparisons),
        arms,
        recipe,
        settings,
        tuple(warnings),
        data.class_names,
    )


def _sentence(verdict: Verdict, first: Comparison, n_splits: int, why: str) -> str:
    begin = {
        "helps": "Synthetic data helps",
        "does not help": "Synthetic data does not help",
        "unsure": "Unsure whether synthetic data helps",
    }[verdict]
    return (
        f"{begin}: balanced accuracy {_signed(first.difference)} against {first.baseline}, the "
        f"best training without it, over {n_splits} splits{'; ' + why if why else ''}."
    )


def _signed(interval: Interval) -> str:
    return (
        f"{100 * interval.mean:+.1f} points ({100 * interval.low:+.1f} to "
        f"{100 * interval.high:+.1f})"
    )


def _arm_result(
    arm: Arm, kind: str, scores: Sequence[Scores], ratio: float, bench: Bench
) -> ArmResult:
    confidence = bench.config.confidence
    figures = {
        name: _share(
            corrected_t_interval(
                [each.figures()[name] for each in scores],
                test_to_train=ratio,
                confidence=confidence,
            )
        )
        for name in scores[0].figures()
        if all(math.isfinite(each.figures().get(name, math.nan)) for each in scores)
    }
    right = np.sum([each.right for each in scores], axis=0)
    held_out = np.sum([each.held_out for each in scores], axis=0)
    # An image that repetitions hold out again is no further image.
    worth = np.minimum(1.0, bench.held_counts / np.maximum(held_out, 1))
    return ArmResult(
        name=arm.name,
        kind=kind,
        figures=figures,
        recall=tuple(
            wilson_interval(hits * each, n * each, confidence=confidence) if n else None
            for hits, n, each in zip(right, held_out, worth, strict=True)
        ),
        held_out=tuple(int(n) for n in held_out),
        by_split=tuple(each.balanced_accuracy for each in scores),
    )


def _share(interval: Interval) -> Interval:
    """The interval of what is a share, without what cannot be; its p-value says nothing here."""
    return Interval(interval.mean, max(0.0, interval.low), min(1.0, interval.high))


def _nothing_to_measure(bench: Bench, recipe: Recipe) -> GateResult:
    """Where the recipe is "none" the answer is known."""
    return GateResult(
        "does not help",
        "Synthetic data does not help: of all recipes tried, training without it was the best.",
        (),
        (),
        recipe,
        {
            "n_splits": 0,
            "folds": bench.folds,
            "steps": bench.steps,
            "probe": bench.probe,
            "min_effect": bench.config.min_effect,
            "confidence": bench.config.confidence,
        },
        (),
        bench.data.class_names,
    )


def _fewest_held_out(data: LabelledImages, split: Split) -> int:
    """Held-out images of the class that has fewest, of those that have images at all."""
    held = np.bincount(data.labels[split.held_out], minlength=data.n_classes)
    return int(held[data.counts > 0].min())


def _interval(value: Interval) -> dict[str, float]:
    return {"mean": value.mean, "low": value.low, "high": value.high}
