"""Which recipe, if any: successive halving over candidates, by cross-validation.

"None" is a candidate that is never dropped, and wins ties. The images that the search looks at are
never held out by the gate that follows it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vaeaug.config import Recipe
from vaeaug.evaluation.gate.bench import Bench, Progress
from vaeaug.evaluation.gate.probe import Arm, fixed_arms
from vaeaug.evaluation.gate.splits import Split
from vaeaug.evaluation.metrics import Scores
from vaeaug.evaluation.statistics import Interval, corrected_t_interval

NONE = Recipe(share=0.0)

# Each rung: part of the probe's steps, splits, and candidates that go on from it.
RUNGS = ((1 / 3, 2, 5), (1.0, 2, 2), (1.0, 4, 1))


def default_candidates(base: Recipe) -> list[Recipe]:
    """Recipes around the one that a job stands for: each turns one or two knobs of it.

    Shares, who gets synthetic samples, labels, weights, batch norm, an ending on real images,
    sampler, temperature and screening. What was measured to harm most (the prior) is left out.
    """
    changes: list[dict[str, Any]] = [
        {},
        {"share": 0.15},
        {"share": 0.5},
        {"real_only_last": 0.4},
        {"share": 0.5, "real_only_last": 0.4},
        {"soft": True},
        {"soft": True, "real_only_last": 0.4},
        {"weight": 0.5},
        {"separate_batch_norm": True, "real_only_last": 0.2},
        {"classes": "rare"},
        {"sampler": "gmm"},
        {"sampler": "gmm", "temperature": 0.8, "real_only_last": 0.4},
        {"sampler": "transfer", "real_only_last": 0.4},
        {"min_label_probability": 0.3},
    ]
    found = [base.model_copy(update=change) for change in changes]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Candidate:
    """One recipe in one rung.

    Attributes:
        recipe: The recipe.
        score: Balanced accuracy, its mean over the splits.
        gain: Over "none", paired by split.
        kept: Whether it went on.
    """

    recipe: Recipe
    score: float
    gain: Interval
    kept: bool


@dataclass(frozen=True)
class SearchResult:
    """What the search tried and what it chose.

    Attributes:
        recipe: The choice; `NONE` where nothing beat training without synthetic data.
        technique: The training without synthetic data that all candidates were added to.
        rungs: Candidates of each rung, the best first.
        steps: Steps of the probes in each rung.
        splits: Splits of each rung.
        seed: Of the splits; what the search looked at follows from it.
    """

    recipe: Recipe
    technique: Arm
    rungs: tuple[tuple[Candidate, ...], ...]
    steps: tuple[int, ...]
    splits: tuple[int, ...]
    seed: int = 0

    @property
    def sentence(self) -> str:
        """The choice in words."""
        best = next(each for each in self.rungs[-1] if not each.recipe.is_none)
        gain = f"{100 * best.gain.mean:+.1f} points over none on {self.splits[-1]} splits"
        n = len(self.rungs[0]) - 1
        if self.recipe.is_none:
            return (
                f"Of {n} recipes none was better than training without synthetic data by more "
                f"than its error; the nearest, {best.recipe}: {gain}."
            )
        return f"Of {n} recipes the best was {self.recipe}: {gain}."

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "chosen": str(self.recipe),
            "recipe": self.recipe.model_dump(mode="json"),
            "sentence": self.sentence,
            "technique": self.technique.name,
            "rounds": [
                {
                    "round": number,
                    "steps": self.steps[number],
                    "splits": self.splits[number],
                    "candidates": [
                        {
                            "name": str(each.recipe),
                            "recipe": each.recipe.model_dump(mode="json"),
                            "score": each.score,
                            "gain": each.gain.mean,
                            "low": max(0.0, each.score - each.gain.mean + each.gain.low),
                            "high": min(1.0, each.score - each.gain.mean + each.gain.high),
                            "kept": each.kept,
                        }
                        for each in rung
                    ],
                }
                for number, rung in enumerate(self.rungs)
            ],
        }


def search_recipe(
    bench: Bench, candidates: Sequence[Recipe], *, progress: Progress | None = None
) -> SearchResult:
    """Find the recipe that does best on the bench's splits.

    Args:
        bench: Over the part of the data that the gate will not hold out; entered.
        candidates: Recipes; "none" need not be among them.
        progress: Called as ``progress(what, done, total)``.
    """
    recipes = [each for each in candidates if not each.is_none]
    technique = _technique(bench, progress)
    plain = technique.with_recipe(NONE)
    rungs, steps, numbers = [], [], []
    for part, n_splits, keep in RUNGS:
        splits = bench.splits(n_splits)
        bench.synthesise(splits, recipes, progress)
        arms = [plain, *(technique.with_recipe(each) for each in recipes)]
        length = max(1, round(part * bench.steps))
        scores = bench.scores(splits, arms, steps=length, progress=progress)
        rung = _ranked(scores, plain, splits, keep, bench.config.confidence)
        rungs.append(rung)
        steps.append(length)
        numbers.append(n_splits)
        recipes = [each.recipe for each in rung if each.kept and not each.recipe.is_none]
    best = next(each for each in rungs[-1] if not each.recipe.is_none)
    chosen = best.recipe if best.gain.mean > _error(best.gain, numbers[-1], bench) else NONE
    seed = bench.config.seed
    return SearchResult(chosen, technique, tuple(rungs), tuple(steps), tuple(numbers), seed)


def _technique(bench: Bench, progress: Progress | None) -> Arm:
    """The best training without synthetic data, on the first splits."""
    splits = bench.splits(RUNGS[0][1])
    scores = bench.scores(splits, list(fixed_arms(bench.data)), progress=progress)
    return max(scores, key=lambda arm: _balanced(scores[arm]).mean())


def _ranked(
    scores: Mapping[Arm, list[Scores]],
    plain: Arm,
    splits: Sequence[Split],
    keep: int,
    confidence: float,
) -> tuple[Candidate, ...]:
    ratio = len(splits[0].held_out) / len(splits[0].train)
    reference = _balanced(scores[plain])
    order = sorted(scores, key=lambda arm: -_balanced(scores[arm]).mean())
    going_on = [arm for arm in order if arm is not plain][:keep]
    found = []
    for arm in order:
        gain = corrected_t_interval(
            _balanced(scores[arm]) - reference, test_to_train=ratio, confidence=confidence
        )
        assert arm.recipe is not None
        kept = arm is plain or arm in going_on
        found.append(Candidate(arm.recipe, float(_balanced(scores[arm]).mean()), gain, kept))
    return tuple(found)


def _error(gain: Interval, n_splits: int, bench: Bench) -> float:
    """Standard error of a gain: the interval's reach in units of t."""
    from scipy.stats import t

    quantile = float(t.ppf(0.5 + bench.config.confidence / 2, n_splits - 1))
    return (gain.high - gain.mean) / quantile if math.isfinite(quantile) else math.inf


def _balanced(scores: Sequence[Scores]) -> np.ndarray:
    return np.array([each.balanced_accuracy for each in scores])
