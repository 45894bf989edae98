"""Does it help? Classifiers with and without synthetic data, paired by split, and a verdict.

The baseline is the best of many ways to train without synthetic data, chosen on the same splits:
that choice can only raise the bar. Merged training uses the same techniques, so that synthetic data
is all that differs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vaeaug.config import Recipe
from vaeaug.evaluation.gate.arms import Arm, fixed_arms
from vaeaug.evaluation.gate.bench import Bench
from vaeaug.evaluation.gate.result import (
    ArmResult,
    Comparison,
    GateResult,
    mean_and_ends,
    signed_points,
)
from vaeaug.evaluation.gate.splits import Split
from vaeaug.evaluation.matching import shared_images
from vaeaug.evaluation.metrics import Scores
from vaeaug.evaluation.statistics import (
    Interval,
    Verdict,
    corrected_t_interval,
    judge,
    splits_to_decide,
    wilson_interval,
)
from vaeaug.progress import Progress
from vaeaug.report import Outlook, headline

EQUAL_STEPS, EQUAL_REAL = "equal steps", "equal real draws"
# The best baseline is trained for this many times the steps, to see whether it had converged.
LONGER = 2.0
# Splits up to which it is said how many would decide: ten times ten folds (Bouckaert & Frank 2004).
MOST_SPLITS = 100


def run_gate(
    bench: Bench,
    recipe: Recipe,
    *,
    baselines: Sequence[Arm] | None = None,
    progress: Progress | None = None,
) -> GateResult:
    """Measure whether a recipe helps.

    Args:
        bench: The data, its splits and what is trained on them.
        recipe: The recipe that is measured.
        baselines: Take the place of the usual baselines.
        progress: Called after every training.

    Returns:
        The verdict and what it rests on.
    """
    if recipe.is_none:
        return _nothing_to_measure(bench, recipe)
    baselines = list(baselines or fixed_arms(bench.data))
    with bench:
        splits = bench.splits_in_budget(baselines, recipe, progress)
        scores = bench.scores(splits, baselines, progress=progress)
        scores |= bench.scores(splits, [_combination(scores)], progress=progress)
        if bench.data.unlabelled is not None:
            # What a pool gives without a generator is not the merit of the samples.
            pooled = replace(_best(scores), pool=True)
            scores |= bench.scores(splits, [pooled], progress=progress)
        best = _best(scores)
        longer = replace(best, length=LONGER)
        merged = (best.with_recipe(recipe), best.with_recipe(recipe, beside=True))
        scores |= bench.scores(splits, [longer, *merged], progress=progress)
    measurement = _Measurement(bench, splits, scores, best=best, longer=longer, merged=merged)
    return measurement.judged(recipe)


def _mean(scores: Sequence[Scores]) -> float:
    return float(np.mean([split_scores.balanced_accuracy for split_scores in scores]))


def _best(scores: Mapping[Arm, Sequence[Scores]]) -> Arm:
    """The arm of the highest mean; a tie goes to the first, the simplest."""
    return max(scores, key=lambda arm: _mean(scores[arm]))


def _combination(scores: Mapping[Arm, Sequence[Scores]]) -> Arm:
    """The best technique of each kind, together: balance, flips, mixing."""

    def best_of(arms: list[Arm]) -> Arm:
        return max(arms, key=lambda arm: _mean(scores[arm]))

    plain = best_of([arm for arm in scores if arm.mix is None and not arm.flip])
    classic = [arm for arm in scores if arm.classic and arm.balance == "oversampling"]
    if not plain.classic or not classic:
        return plain
    flip = best_of([arm for arm in classic if arm.mix is None]).flip
    mix = best_of([arm for arm in classic if not arm.flip]).mix
    return replace(plain, flip=flip, mix=mix)


@dataclass(frozen=True)
class _Measurement:
    """The measurements of one recipe on the bench.

    Attributes:
        bench: The bench.
        splits: The splits.
        scores: Scores of every arm on the splits.
        best: The best arm without synthetic data.
        longer: The same with more steps.
        merged: The same with synthetic data in place of real draws, and beside them.
    """

    bench: Bench
    splits: Sequence[Split]
    scores: Mapping[Arm, Sequence[Scores]]
    best: Arm
    longer: Arm
    merged: tuple[Arm, Arm]

    def judged(self, recipe: Recipe) -> GateResult:
        """The verdict and what it rests on."""
        bench = self.bench
        comparisons = tuple(
            Comparison(name, arm.name, self.best.name, *self._difference(arm))
            for name, arm in zip((EQUAL_STEPS, EQUAL_REAL), self.merged, strict=True)
        )
        longer, longer_helps = self._difference(self.longer)
        converged = longer_helps != "helps"
        n_leaks = self._n_leaks()
        verdict, reason = self._verdict(comparisons[0], converged=converged, n_leaks=n_leaks)
        difference = comparisons[0].difference
        outlook = self._outlook(recipe) if verdict == "unsure" and not reason else None
        kinds = {self.longer: "check", **dict.fromkeys(self.merged, "merged")}
        return GateResult(
            verdict=verdict,
            sentence=str(
                headline(
                    verdict,
                    difference=(difference.mean, difference.low, difference.high),
                    baseline=self.best.name,
                    n_splits=len(self.splits),
                    reason=reason,
                    outlook=outlook,
                )
            ),
            comparisons=comparisons,
            arms=tuple(self._arm_result(arm, kinds.get(arm, "baseline")) for arm in self.scores),
            recipe=recipe,
            settings={
                **_settings(bench, len(self.splits)),
                "converged": converged,
                "longer": mean_and_ends(longer),
                "min_held_out": self._fewest_held_out,
                "seed": bench.config.seed,
                "baseline": self.best.name,
                "reason": reason,
                "outlook": outlook and asdict(outlook),
            },
            warnings=self._warnings(comparisons, longer, converged=converged, n_leaks=n_leaks),
            class_names=bench.data.class_names,
        )

    @property
    def _test_to_train(self) -> float:
        return len(self.splits[0].held_out) / len(self.splits[0].train)

    @property
    def _fewest_held_out(self) -> int:
        """Held-out images of the smallest class in a split, of the classes that have images."""
        data = self.bench.data
        return min(
            int(np.bincount(held, minlength=data.n_classes)[data.counts > 0].min())
            for held in (data.labels[split.held_out] for split in self.splits)
        )

    def _difference(self, arm: Arm) -> tuple[Interval, Verdict]:
        """Balanced accuracy of an arm less that of the best baseline, and what it says."""
        config, n_present = self.bench.config, int((self.bench.data.counts > 0).sum())
        difference = corrected_t_interval(
            self._by_split(arm),
            test_to_train=self._test_to_train,
            confidence=config.confidence,
            # What a single held-out image of the smallest class changes.
            resolution=1 / (max(1, self._fewest_held_out) * n_present),
        )
        return difference, judge(difference, min_effect=config.min_effect)

    def _by_split(self, arm: Arm) -> list[float]:
        """Balanced accuracy of an arm less that of the best baseline, on each split."""
        pairs = zip(self.scores[arm], self.scores[self.best], strict=True)
        return [ours.balanced_accuracy - theirs.balanced_accuracy for ours, theirs in pairs]

    def _outlook(self, recipe: Recipe) -> Outlook | None:
        """How many splits would decide, and in what time; None where these do not say."""
        config, differences = self.bench.config, self._by_split(self.merged[0])
        if np.ptp(differences) < 1e-12:
            return None
        limit = max(MOST_SPLITS, config.max_splits)
        wanted = splits_to_decide(
            differences,
            test_to_train=self._test_to_train,
            min_effect=config.min_effect,
            limit=limit,
            confidence=config.confidence,
        )
        if wanted is None:
            return Outlook(None, limit)
        each = self.bench.split_seconds(self.splits, list(self.scores), recipe)
        return Outlook(wanted, limit, each * (wanted - len(self.splits)))

    def _n_leaks(self) -> int:
        """Held-out images in the pool; copies among labelled images stay on one side of a split."""
        data = self.bench.data
        return sum(
            len(shared_images(data.subset(split.train), data.subset(split.held_out)))
            for split in self.splits
        )

    def _verdict(
        self, comparison: Comparison, *, converged: bool, n_leaks: int
    ) -> tuple[Verdict, str]:
        """The verdict, and why it is not simply that of the comparison."""
        fewest = self._fewest_held_out
        if fewest < self.bench.config.min_held_out:
            return "unsure", (
                f"too few: a class has {fewest} held-out images in a split, and "
                f"{self.bench.config.min_held_out} are needed"
            )
        if comparison.verdict == "helps" and n_leaks:
            return "unsure", (
                "held-out images are in the pool that the generators learn from; take them out"
            )
        if comparison.verdict == "helps" and not converged:
            steps = round(LONGER * self.bench.steps)
            return "unsure", f"the baselines had not converged; raise the steps (--steps {steps})"
        return comparison.verdict, ""

    def _warnings(
        self,
        comparisons: Sequence[Comparison],
        longer: Interval,
        *,
        converged: bool,
        n_leaks: int,
    ) -> tuple[str, ...]:
        warnings = []
        if n_leaks:
            warnings.append(
                f"leak: {n_leaks} held-out images are also in the pool of unlabelled images, which "
                "the generators learn from; take them out of the pool"
            )
        if not converged:
            warnings.append(
                f"the baselines had not converged: {LONGER:g} times the steps gave the best one "
                f"{100 * longer.mean:+.1f} points; raise the steps"
            )
        first, beside = comparisons
        if beside.verdict != first.verdict:
            warnings.append(
                f"with synthetic samples beside all real draws ({EQUAL_REAL}), at more computing: "
                f"{signed_points(beside.difference)}, {beside.verdict}"
            )
        fewest, wanted = self._fewest_held_out, self.bench.config.min_held_out
        if fewest < wanted:
            warnings.append(
                f"a class has {fewest} held-out images, fewer than {wanted}: its recall says little"
            )
        return tuple(warnings)

    def _arm_result(self, arm: Arm, kind: str) -> ArmResult:
        confidence, scores = self.bench.config.confidence, self.scores[arm]
        by_split = [split_scores.metrics() for split_scores in scores]
        metrics = {
            name: _as_share(
                corrected_t_interval(
                    [values[name] for values in by_split],
                    test_to_train=self._test_to_train,
                    confidence=confidence,
                )
            )
            for name in by_split[0]
            if all(math.isfinite(values.get(name, math.nan)) for values in by_split)
        }
        right = np.sum([split_scores.right for split_scores in scores], axis=0)
        held_out = np.sum([split_scores.held_out for split_scores in scores], axis=0)
        # An image that another repetition holds out again counts once.
        worth = np.minimum(1.0, self.bench.held_counts / np.maximum(held_out, 1))
        return ArmResult(
            name=arm.name,
            kind=kind,
            metrics=metrics,
            recall=tuple(
                wilson_interval(n_right * weight, n * weight, confidence=confidence) if n else None
                for n_right, n, weight in zip(right, held_out, worth, strict=True)
            ),
            held_out=tuple(int(n) for n in held_out),
            by_split=tuple(split_scores.balanced_accuracy for split_scores in scores),
        )


def _as_share(interval: Interval) -> Interval:
    """The interval of a share, clipped to [0, 1], without a p-value."""
    return Interval(interval.mean, max(0.0, interval.low), min(1.0, interval.high))


def _nothing_to_measure(bench: Bench, recipe: Recipe) -> GateResult:
    """Where the recipe is "none" the answer is known."""
    reason = "of all recipes tried, training without it was the best"
    return GateResult(
        verdict="does not help",
        sentence=str(headline("does not help", reason=reason)),
        comparisons=(),
        arms=(),
        recipe=recipe,
        settings={**_settings(bench, 0), "reason": reason},
        class_names=bench.data.class_names,
    )


def _settings(bench: Bench, n_splits: int) -> dict[str, Any]:
    return {
        "n_splits": n_splits,
        "folds": bench.folds,
        "steps": bench.steps,
        "probe": bench.probe,
        "min_effect": bench.config.min_effect,
        "confidence": bench.config.confidence,
    }
