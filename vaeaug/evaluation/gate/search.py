"""Which recipe, if any: successive halving over candidates, by cross-validation.

"None" is a candidate that is never dropped, and wins ties. The images that the search looks at are
never held out by the gate that follows it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vaeaug.config import CODE_SAMPLERS, Recipe
from vaeaug.evaluation.gate.arms import Arm, fixed_arms
from vaeaug.evaluation.gate.bench import Bench
from vaeaug.evaluation.metrics import Scores
from vaeaug.evaluation.statistics import Interval, corrected_t_interval
from vaeaug.progress import Progress

NONE = Recipe(share=0.0)

# Recipes for feature vectors.
_FOR_FEATURES: tuple[dict[str, Any], ...] = (
    {},
    {"sampler": "interpolate", "share": 0.5},
    {"sampler": "gmm", "share": 0.5},
    {"sampler": "delta", "share": 0.5},
    {"sampler": "delta", "share": 0.7},
    {"sampler": "delta", "share": 0.5, "temperature": 0.7},
    {"sampler": "delta", "share": 0.5, "real_only_last": 0.4},
    {"sampler": "calibrated", "share": 0.3},
    {"sampler": "calibrated", "share": 0.5},
    {"sampler": "calibrated", "share": 0.7},
)

# Each rung: part of the probe's steps, splits, and candidates that are kept for the next one.
RUNGS = ((1 / 3, 2, 5), (1.0, 2, 2), (1.0, 4, 1))


def default_candidates(
    base: Recipe, *, features: bool = False, codes: bool = False
) -> list[Recipe]:
    """List recipes around the one of a job: one or two settings of each differ from it.

    They differ in shares, in who gets synthetic samples, in labels, weights, batch norm, an ending
    on real images, sampler, temperature and screening. What was measured to harm most (the prior)
    is left out.

    Args:
        base: The recipe of the job.
        features: Whether the data are feature vectors, for which differences and calibrated normals
            cost nothing and a head has no batch norm.
        codes: Whether latents are discrete, so that some samplers do not apply.

    Returns:
        The recipes, that of the job first.
    """
    if features:
        return list(dict.fromkeys(base.model_copy(update=change) for change in _FOR_FEATURES))
    changes: list[dict[str, Any]] = [
        {},
        {"share": 0.15},
        {"real_only_last": 0.0},
        {"real_only_last": 0.4},
        {"share": 0.5},
        {"share": 0.5, "real_only_last": 0.4},
        {"soft": True},
        {"soft": True, "real_only_last": 0.4},
        {"weight": 0.5},
        {"separate_batch_norm": True},
        {"classes": "rare"},
        {"sampler": "gmm"},
        {"sampler": "gmm", "temperature": 0.8, "real_only_last": 0.4},
        {"sampler": "transfer"},
        {"sampler": "transfer", "share": 0.5},
        {"sampler": "interpolate"},
        {"min_label_probability": 0.3},
        {"sampler": "delta", "real_only_last": 0.2},
    ]
    if codes:
        known = (None, "auto", *CODE_SAMPLERS)
        changes = [change for change in changes if change.get("sampler") in known]
        changes += [{"sampler": "prior"}, {"sampler": "posterior"}]
    return list(dict.fromkeys(base.model_copy(update=change) for change in changes))


@dataclass(frozen=True)
class Candidate:
    """One recipe in one rung.

    Attributes:
        recipe: The recipe.
        score: Mean balanced accuracy over the splits.
        gain: Gain over "none", paired by split.
        kept: Whether it is in the next rung too.
    """

    recipe: Recipe
    score: float
    gain: Interval
    kept: bool

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON types; the ends are those of the score.

        Returns:
            One object.
        """
        none = self.score - self.gain.mean
        return {
            "name": str(self.recipe),
            "recipe": self.recipe.model_dump(mode="json"),
            "score": self.score,
            "gain": self.gain.mean,
            "low": max(0.0, none + self.gain.low),
            "high": min(1.0, none + self.gain.high),
            "kept": self.kept,
        }


@dataclass(frozen=True)
class SearchResult:
    """The recipes that the search tried, and its choice.

    Attributes:
        recipe: The choice; `NONE` where nothing beat training without synthetic data.
        technique: The training without synthetic data that all candidates were added to.
        rungs: Candidates of each rung, the best first.
        steps: Steps of the probes in each rung.
        splits: Number of splits of each rung.
        seed: Seed of the splits; what the search looked at follows from it.
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
        best = _best(self.rungs[-1])
        gain = f"{100 * best.gain.mean:+.1f} points over none on {self.splits[-1]} splits"
        n = len(self.rungs[0]) - 1
        if self.recipe.is_none:
            return (
                f"Of {n} recipes none was better than training without synthetic data by more "
                f"than its error; the nearest, {best.recipe}: {gain}."
            )
        return f"Of {n} recipes the best was {self.recipe}: {gain}."

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            The search of report.json.
        """
        rounds = zip(self.steps, self.splits, self.rungs, strict=True)
        return {
            "chosen": str(self.recipe),
            "recipe": self.recipe.model_dump(mode="json"),
            "sentence": self.sentence,
            "technique": self.technique.name,
            "rounds": [
                {
                    "round": number,
                    "steps": steps,
                    "splits": n_splits,
                    "candidates": [candidate.to_json() for candidate in rung],
                }
                for number, (steps, n_splits, rung) in enumerate(rounds)
            ],
        }


def search_recipe(
    bench: Bench, candidates: Sequence[Recipe], *, progress: Progress | None = None
) -> SearchResult:
    """Find the recipe that does best on the bench's splits.

    Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943) with the rungs of `RUNGS`. The
    best recipe is chosen only if its gain exceeds its standard error.

    Args:
        bench: The bench over the part of the data that the gate will not hold out; entered.
        candidates: Recipes; "none" need not be among them.
        progress: Called after every training.

    Returns:
        The choice and what it rests on.
    """
    recipes = [recipe for recipe in candidates if not recipe.is_none]
    technique = _technique(bench, progress)
    none = technique.with_recipe(NONE)
    rungs, steps, numbers = [], [], []
    for part, n_splits, n_kept in RUNGS:
        splits = bench.splits(n_splits)
        bench.draw_samples(splits, recipes, progress)
        arms = [none, *(technique.with_recipe(recipe) for recipe in recipes)]
        n_steps = max(1, round(part * bench.steps))
        scores = bench.scores(splits, arms, steps=n_steps, progress=progress)
        rung = _ranked(
            scores,
            none,
            n_kept=n_kept,
            test_to_train=len(splits[0].held_out) / len(splits[0].train),
            confidence=bench.config.confidence,
        )
        rungs.append(rung)
        steps.append(n_steps)
        numbers.append(n_splits)
        recipes = [item.recipe for item in rung if item.kept and not item.recipe.is_none]
    best = _best(rungs[-1])
    is_better = best.gain.mean > _standard_error(best.gain, numbers[-1], bench.config.confidence)
    return SearchResult(
        recipe=best.recipe if is_better else NONE,
        technique=technique,
        rungs=tuple(rungs),
        steps=tuple(steps),
        splits=tuple(numbers),
        seed=bench.config.seed,
    )


def _technique(bench: Bench, progress: Progress | None) -> Arm:
    """The best training without synthetic data, on the first splits."""
    splits = bench.splits(RUNGS[0][1])
    scores = bench.scores(splits, list(fixed_arms(bench.data)), progress=progress)
    return max(scores, key=lambda arm: _balanced(scores[arm]).mean())


def _ranked(
    scores: Mapping[Arm, list[Scores]],
    none: Arm,
    *,
    n_kept: int,
    test_to_train: float,
    confidence: float,
) -> tuple[Candidate, ...]:
    """The candidates of a rung, the best first."""
    order = sorted(scores, key=lambda arm: -_balanced(scores[arm]).mean())
    kept = [none, *[arm for arm in order if arm is not none][:n_kept]]
    candidates = []
    for arm in order:
        assert arm.recipe is not None
        gain = corrected_t_interval(
            _balanced(scores[arm]) - _balanced(scores[none]),
            test_to_train=test_to_train,
            confidence=confidence,
        )
        score = float(_balanced(scores[arm]).mean())
        candidates.append(Candidate(arm.recipe, score, gain, arm in kept))
    return tuple(candidates)


def _best(rung: Sequence[Candidate]) -> Candidate:
    """The best recipe of a rung that uses synthetic data."""
    return next(candidate for candidate in rung if not candidate.recipe.is_none)


def _standard_error(gain: Interval, n_splits: int, confidence: float) -> float:
    """The interval's half width in units of t."""
    from scipy.stats import t

    quantile = float(t.ppf(0.5 + confidence / 2, n_splits - 1))
    return (gain.high - gain.mean) / quantile if math.isfinite(quantile) else math.inf


def _balanced(scores: Sequence[Scores]) -> np.ndarray:
    return np.array([split_scores.balanced_accuracy for split_scores in scores])
