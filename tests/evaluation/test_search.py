"""The search: a recipe that is truly better is found, and "none" wins where nothing is."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.evaluation import Bench, SyntheticSet, default_candidates, search_recipe
from vaeaug.evaluation.gate.search import NONE, RUNGS, SearchResult


def data_of(n: int = 120) -> LabelledImages:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], n)
    images = rng.random((3 * n, 4, 1), dtype=np.float32)
    return LabelledImages(images, labels, ("a", "b", "c"), (0, 1), source="noise")


class Oracle:
    """A probe whose accuracy is known: a base, what the recipe gives, and noise of the split."""

    def __init__(self, gain, noise: float = 0.02) -> None:
        self.gain, self.noise = gain, noise
        self.asked: list[tuple[Recipe | None, int]] = []

    def __call__(self, train, synthetic, held_out, arm, *, seed, steps):
        self.asked.append((arm.recipe, steps))
        rng = np.random.default_rng([seed, *arm.name.encode()])
        gain = 0 if arm.recipe is None or arm.recipe.is_none else self.gain(arm.recipe)
        right = rng.random(len(held_out)) < 0.7 + gain + rng.normal(0, self.noise)
        predicted = np.where(right, held_out.labels, (held_out.labels + 1) % 3)
        return np.eye(3)[predicted]


def nothing_made(
    train: LabelledImages, folder: Path, recipes: Sequence[Recipe]
) -> list[SyntheticSet]:
    return [SyntheticSet(train.images[:1], train.labels[:1]) for _ in recipes]


def run(oracle: Oracle, candidates: Sequence[Recipe]) -> SearchResult:
    config = EvaluationConfig(steps=90, folds=4)
    stages = SimpleNamespace(samples=nothing_made, with_pseudo_labels=lambda train, folder: train)
    with Bench(data_of(), stages, config, folder=None, identity="", learner=oracle) as bench:
        return search_recipe(bench, candidates)


def test_a_better_recipe_is_found():
    candidates = default_candidates(Recipe())
    good = Recipe(share=0.5)
    result = run(Oracle(lambda recipe: 0.25 if recipe == good else 0.0), candidates)
    assert result.recipe == good
    assert "50% of all classes" in result.sentence


def test_harmful_recipes_lose_to_none():
    result = run(Oracle(lambda recipe: -0.2), default_candidates(Recipe()))
    assert result.recipe == NONE
    assert result.recipe.is_none
    assert "none was better" in result.sentence
    assert result.to_json()["chosen"] == "none"


def test_ties_go_to_none():
    result = run(Oracle(lambda recipe: 0.0, noise=0.0), [Recipe(), Recipe(share=0.5)])
    # Equal recipes differ by chance alone; at most the error of the difference.
    best = next(candidate for candidate in result.rungs[-1] if not candidate.recipe.is_none)
    assert result.recipe.is_none or best.gain.low > -best.gain.mean


def test_each_rung_keeps_fewer_and_none_is_in_all():
    oracle = Oracle(lambda recipe: 0.1 * recipe.share)
    result = run(oracle, default_candidates(Recipe()))
    sizes = [len(rung) for rung in result.rungs]
    assert sizes == [19, 1 + RUNGS[0][2], 1 + RUNGS[1][2]]
    for rung in result.rungs:
        assert any(candidate.recipe.is_none and candidate.kept for candidate in rung)
        scores = [candidate.score for candidate in rung]
        assert scores == sorted(scores, reverse=True)
    assert result.steps == (30, 90, 90)
    document = result.to_json()
    assert [rung["splits"] for rung in document["rounds"]] == [rung[1] for rung in RUNGS]
    assert all(
        row["low"] <= row["score"] <= row["high"]
        for rung in document["rounds"]
        for row in rung["candidates"]
    )


def test_candidates_are_around_the_jobs_own_recipe():
    candidates = default_candidates(Recipe(sampler="gmm", temperature=0.9))
    assert candidates[0] == Recipe(sampler="gmm", temperature=0.9)
    assert len(set(candidates)) == len(candidates) >= 10
    kinds = [
        any(recipe.share != 0.3 for recipe in candidates),
        any(recipe.sampler == "transfer" for recipe in candidates),
        any(recipe.soft for recipe in candidates),
        any(recipe.weight < 1 for recipe in candidates),
        any(recipe.classes == "rare" for recipe in candidates),
        any(recipe.separate_batch_norm for recipe in candidates),
        any(recipe.real_only_last for recipe in candidates),
        any(recipe.min_label_probability > 0.02 for recipe in candidates),
    ]
    assert all(kinds)
