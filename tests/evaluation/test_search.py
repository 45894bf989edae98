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
    stages = SimpleNamespace(samples=nothing_made)
    with Bench(data_of(), stages, config, folder=None, identity="", learner=oracle) as bench:
        return search_recipe(bench, candidates)


def test_a_better_recipe_is_found():
    candidates = default_candidates(Recipe())
    good = Recipe(share=0.5)
    found = run(Oracle(lambda recipe: 0.25 if recipe == good else 0.0), candidates)
    assert found.recipe == good
    assert "50% of all classes" in found.sentence


def test_harmful_recipes_lose_to_none():
    found = run(Oracle(lambda recipe: -0.2), default_candidates(Recipe()))
    assert found.recipe == NONE
    assert found.recipe.is_none
    assert "none was better" in found.sentence
    assert found.to_json()["chosen"] == "none"


def test_ties_go_to_none():
    found = run(Oracle(lambda recipe: 0.0, noise=0.0), [Recipe(), Recipe(share=0.5)])
    # Equal recipes differ by chance alone; at most the error of the difference.
    best = next(each for each in found.rungs[-1] if not each.recipe.is_none)
    assert found.recipe.is_none or best.gain.low > -best.gain.mean


def test_each_rung_keeps_fewer_and_none_is_in_all():
    oracle = Oracle(lambda recipe: 0.1 * recipe.share)
    found = run(oracle, default_candidates(Recipe()))
    sizes = [len(rung) for rung in found.rungs]
    assert sizes == [15, 1 + RUNGS[0][2], 1 + RUNGS[1][2]]
    for rung in found.rungs:
        assert any(each.recipe.is_none and each.kept for each in rung)
        scores = [each.score for each in rung]
        assert scores == sorted(scores, reverse=True)
    assert found.steps == (30, 90, 90)
    document = found.to_json()
    assert [each["splits"] for each in document["rounds"]] == [each[1] for each in RUNGS]
    assert all(
        row["low"] <= row["score"] <= row["high"]
        for each in document["rounds"]
        for row in each["candidates"]
    )


def test_candidates_are_around_the_jobs_own_recipe():
    found = default_candidates(Recipe(sampler="gmm", temperature=0.9))
    assert found[0] == Recipe(sampler="gmm", temperature=0.9)
    assert len(set(found)) == len(found) >= 10
    kinds = [
        any(each.share != 0.3 for each in found),
        any(each.sampler == "transfer" for each in found),
        any(each.soft for each in found),
        any(each.weight < 1 for each in found),
        any(each.classes == "rare" for each in found),
        any(each.separate_batch_norm for each in found),
        any(each.real_only_last for each in found),
        any(each.min_label_probability > 0.02 for each in found),
    ]
    assert all(kinds)
