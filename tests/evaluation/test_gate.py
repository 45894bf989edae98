"""The gate's error rates on data whose truth is known, and that nothing held out is ever seen.

The probe is cheap here, linear discriminants on two-dimensional classes, so that the whole gate
runs hundreds of times.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.evaluation import (
    Arm,
    Bench,
    EvaluationError,
    GateResult,
    SyntheticSet,
    run_gate,
)

CENTRES = np.array([[0.35, 0.5], [0.65, 0.5], [0.5, 0.72]])
SPREAD = 0.08
FEW, MANY = 12, 300  # dimensions, all but two of them noise; many, and samples hardly suffice
CONFIG = EvaluationConfig(min_splits=5, max_splits=5, steps=1)
BASELINES = [Arm(), Arm("oversampling")]


def draw(
    counts: Sequence[int], rng: np.random.Generator, dimensions: int = FEW
) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(counts)), counts)
    points = rng.normal(0.5, SPREAD, size=(len(labels), dimensions))
    points[:, :2] = CENTRES[labels] + rng.normal(0, SPREAD, size=(len(labels), 2))
    return points.clip(0, 1).astype(np.float32)[:, :, None], labels


def data_of(counts: Sequence[int], seed: int, dimensions: int = FEW) -> LabelledImages:
    points, labels = draw(counts, np.random.default_rng([seed, 0]), dimensions)
    names = tuple("abc"[: len(counts)])
    return LabelledImages(points, labels, names, (0, 1), split="train", source="simulated")


def discriminants(
    train: LabelledImages,
    synthetic: SyntheticSet | None,
    held_out: LabelledImages,
    arm: Arm,
    *,
    seed: int,
    steps: int,
) -> np.ndarray:
    """Shrunk covariance; the seed draws what is learnt from, which is what training noise is."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.tile(np.arange(len(train)), 4))
    x, y = train.images[rows, :, 0], train.labels[rows]
    if synthetic is not None and arm.recipe is not None:
        extra = len(rows) if arm.beside else round(arm.recipe.share * len(rows))
        picked = rng.integers(len(synthetic.labels), size=extra)
        kept = rows if arm.beside else rows[extra:]
        x = np.concatenate([train.images[kept, :, 0], synthetic.images[picked, :, 0]])
        y = np.concatenate([train.labels[kept], synthetic.labels[picked]])
    priors = None if arm.balance == "none" else np.full(3, 1 / 3)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1, priors=priors).fit(x, y)
    return model.predict_proba(held_out.images[:, :, 0])


def measured(
    data: LabelledImages,
    recipe: Recipe,
    synthesise,
    config: EvaluationConfig,
    *,
    learner,
    baselines: Sequence[Arm] = BASELINES,
    folder: Path | None = None,
    pseudo_labels=lambda train, folder: train,
) -> GateResult:
    stages = SimpleNamespace(samples=synthesise, with_pseudo_labels=pseudo_labels)
    with Bench(data, stages, config, learner=learner, folder=folder) as bench:
        return run_gate(bench, recipe, baselines=baselines)


def duplicates(
    train: LabelledImages, folder: Path, recipes: Sequence[Recipe]
) -> list[SyntheticSet]:
    """Useless: shuffled copies of what the classifier has anyway."""
    rng = np.random.default_rng(len(train))
    rows = rng.permutation(np.tile(np.arange(len(train)), 2))
    return [SyntheticSet(train.images[rows], train.labels[rows]) for _ in recipes]


def the_truth(train: LabelledImages, folder: Path, recipes: Sequence[Recipe]) -> list[SyntheticSet]:
    """Truly helpful: fresh draws from the distribution itself."""
    rng = np.random.default_rng([len(train), int(1e6 * train.images[0, 0, 0])])
    points, labels = draw([800, 800, 800], rng, train.images.shape[1])
    return [SyntheticSet(points, labels) for _ in recipes]


def wrong_labels(
    train: LabelledImages, folder: Path, recipes: Sequence[Recipe]
) -> list[SyntheticSet]:
    """Harmful: every second label is another class's."""
    labels = train.labels.copy()
    labels[::2] = (labels[::2] + 1) % 3
    return [SyntheticSet(train.images, labels) for _ in recipes]


def gate(
    seed: int,
    synthesise,
    counts: Sequence[int] = (90, 45, 30),
    dimensions: int = FEW,
    **keys,
) -> GateResult:
    recipe = Recipe(share=0.8)
    config = CONFIG.model_copy(update={"seed": seed, **keys})
    return measured(
        data_of(counts, seed, dimensions),
        recipe,
        synthesise,
        config,
        learner=discriminants,
    )


@pytest.mark.slow
def test_useless_data_is_called_helpful_in_at_most_one_run_of_twenty() -> None:
    verdicts = [gate(seed, duplicates).verdict for seed in range(60)]
    assert verdicts.count("helps") <= 3


def test_useless_data_is_told_where_there_is_enough_to_tell_by() -> None:
    verdicts = [gate(seed, duplicates, (6000, 4000, 3000)).verdict for seed in range(3)]
    assert verdicts == ["does not help"] * 3


def test_helpful_data_is_found() -> None:
    verdicts = [gate(seed, the_truth, (240, 200, 200), MANY).verdict for seed in range(10)]
    # Its power here is about 0.8: fewer than 5 of 10 would come once in 150 such tests.
    assert verdicts.count("helps") >= 5
    assert "does not help" not in verdicts


def test_harmful_data_is_never_called_helpful() -> None:
    verdicts = [gate(seed, wrong_labels).verdict for seed in range(20)]
    assert "helps" not in verdicts
    assert verdicts.count("does not help") >= 14


def test_arms_are_paired_and_the_answer_is_the_same_again() -> None:
    first, again = gate(3, the_truth), gate(3, the_truth)
    assert first.to_json() == again.to_json()
    (equal_steps, beside) = first.comparisons
    assert (equal_steps.name, beside.name) == ("equal steps", "equal real draws")
    by_name = {arm.name: arm for arm in first.arms}
    merged, best = by_name[equal_steps.arm], by_name[equal_steps.baseline]
    differences = np.subtract(merged.by_split, best.by_split)
    assert equal_steps.difference.mean == pytest.approx(differences.mean())
    assert best.metrics["balanced_accuracy"].mean == max(
        arm.metrics["balanced_accuracy"].mean for arm in first.arms if arm.kind == "baseline"
    )


def test_the_old_name_of_the_metrics_still_works() -> None:
    arm = gate(3, duplicates).arms[0]
    with pytest.warns(DeprecationWarning, match="ArmResult.figures was renamed: read .metrics"):
        assert arm.figures == arm.metrics


def test_no_generator_and_no_probe_sees_what_is_held_out() -> None:
    data = data_of([40, 30, 20], 0)
    seen: list[tuple[set[bytes], set[bytes]]] = []
    learnt: list[set[bytes]] = []

    def bytes_of(images: np.ndarray) -> set[bytes]:
        return {image.tobytes() for image in images}

    def watched(train: LabelledImages, folder: Path, recipes: Sequence[Recipe]):
        learnt.append(bytes_of(train.images))
        return duplicates(train, folder, recipes)

    def learner(train, synthetic, held_out, arm, *, seed, steps):
        seen.append((bytes_of(train.images), bytes_of(held_out.images)))
        return discriminants(train, synthetic, held_out, arm, seed=seed, steps=steps)

    measured(data, Recipe(), watched, CONFIG, learner=learner)
    assert len(learnt) >= 5
    held = {frozenset(part) for _, part in seen}
    assert all(not train & part for train, part in seen)
    assert set().union(*held) == bytes_of(data.images), "five folds hold out every image once"
    assert all(any(not learning & part for part in held) for learning in learnt)


def test_a_copy_of_a_held_out_image_is_never_in_the_training_part() -> None:
    points, labels = draw([40, 30, 20], np.random.default_rng(0))
    # Copies within a class, and one under another label, which is a leak just as well.
    points[1], points[35], points[85] = points[0], points[0], points[60]
    data = LabelledImages(points, labels, tuple("abc"), (0, 1), split="train", source="copies")

    def learner(train, synthetic, held_out, arm, *, seed, steps):
        images = {image.tobytes() for image in train.images}
        assert not images & {image.tobytes() for image in held_out.images}
        return discriminants(train, synthetic, held_out, arm, seed=seed, steps=steps)

    measured(data, Recipe(), duplicates, CONFIG, learner=learner)


def test_a_held_out_image_in_the_pool_is_told_and_nothing_then_helps() -> None:
    data = data_of((240, 200, 200), 0, MANY)
    clean = measured(
        data, Recipe(share=0.8), the_truth, CONFIG, learner=discriminants, baselines=BASELINES
    )
    assert clean.verdict == "helps"
    planted = data.with_unlabelled(data.images[:3])
    result = measured(
        planted, Recipe(share=0.8), the_truth, CONFIG, learner=discriminants, baselines=BASELINES
    )
    assert any(
        "leak: 3 held-out images are also in the pool" in warning for warning in result.warnings
    )
    assert result.verdict != "helps"


def test_what_a_pool_gives_without_a_generator_is_not_the_merit_of_its_samples() -> None:
    data = data_of((240, 200, 200), 0, MANY)
    points, labels = draw((1500, 1500, 1500), np.random.default_rng(5), MANY)

    def pool_as_samples(train, folder, recipes):
        return [SyntheticSet(points, labels) for _ in recipes]

    def labelled(train, folder):
        assert len(train.unlabelled) == len(points)
        return LabelledImages(
            np.concatenate([train.images, points]),
            np.concatenate([train.labels, labels]),
            train.class_names,
            train.value_range,
        )

    keys = {"learner": discriminants, "baselines": BASELINES, "pseudo_labels": labelled}
    alone = measured(data, Recipe(share=0.8), pool_as_samples, CONFIG, **keys)
    assert alone.verdict == "helps"
    pooled = measured(
        data.with_unlabelled(points), Recipe(share=0.8), pool_as_samples, CONFIG, **keys
    )
    assert pooled.settings["baseline"].endswith("pseudo-labels")
    assert pooled.verdict != "helps"
    merged = [arm.name for arm in pooled.arms if arm.kind == "merged"]
    assert all("pseudo-labels + synthetic" in name for name in merged)


def test_too_few_held_out_images_of_a_class_make_it_unsure() -> None:
    result = gate(0, the_truth, counts=(90, 45, 4))
    assert result.verdict == "unsure"
    assert "too few: a class has 2 held-out images" in result.sentence
    assert any("its recall says little" in warning for warning in result.warnings)


def test_a_class_of_one_image_cannot_be_evaluated() -> None:
    with pytest.raises(EvaluationError, match="at least 2 classes and 2 images of each"):
        gate(0, the_truth, counts=(90, 45, 1))


def test_no_recipe_needs_no_measurement() -> None:
    def none(*_: object) -> list[SyntheticSet]:
        raise AssertionError("nothing is to be made")

    result = measured(data_of([9, 9, 9], 0), Recipe(share=0), none, CONFIG, learner=discriminants)
    assert result.verdict == "does not help"
    assert "training without it was the best" in result.sentence


def test_outcomes_are_kept_and_a_longer_evaluation_adds_to_them(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []

    def counting(train, synthetic, held_out, arm, *, seed, steps):
        calls.append((arm.name, seed))
        return discriminants(train, synthetic, held_out, arm, seed=seed, steps=steps)

    def run(n: int) -> GateResult:
        config = CONFIG.model_copy(update={"min_splits": n, "max_splits": n})
        return measured(
            data_of([60, 40, 30], 1),
            Recipe(share=0.5),
            the_truth,
            config,
            folder=tmp_path,
            learner=counting,
        )

    first = run(3)
    assert len(calls) == len(set(calls))
    n_first = len(calls)
    assert run(3).to_json() == first.to_json()
    assert len(calls) == n_first, "all of it was remembered"
    run(5)
    assert len(calls) == len(set(calls)), "no training was run twice"
    # A process killed while it wrote leaves half a line, which is made again.
    results = tmp_path / "results.jsonl"
    lines = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    assert run(5).settings["n_splits"] == 5
    assert all(json.loads(line) for line in results.read_bytes().splitlines() if len(line) > 40)


def test_the_budget_decides_how_many_splits() -> None:
    few = gate(0, duplicates, min_splits=3, max_splits=8, budget=1e-6)
    many = gate(0, duplicates, min_splits=3, max_splits=8, budget=1e6)
    assert (few.settings["n_splits"], many.settings["n_splits"]) == (3, 8)


def test_what_cannot_be_told_yet_says_what_it_takes() -> None:
    unsure = [
        result
        for seed in range(12)
        if (result := gate(seed, duplicates, min_splits=2, max_splits=2)).verdict == "unsure"
    ]
    assert unsure
    timed = 0
    for result in unsure:
        outlook = result.settings["outlook"]
        if outlook is None:  # another reason, or splits that agree
            continue
        line = result.sentence.split(". ")[0]
        assert line.startswith("Cannot tell yet: ")
        if outlook["splits"] is None:
            assert "no number of splits up to 100 would do" in line
            continue
        timed += 1
        assert "2 splits are too few; less than a minute more would do" in line
        assert f"With --splits {outlook['splits']} " in result.sentence
        # Splits of the simulation take milliseconds.
        assert 0 < outlook["seconds"] < 60
    assert timed


def test_baselines_that_have_not_converged_are_told() -> None:
    def slow(train, synthetic, held_out, arm, *, seed, steps):
        # Knows more the longer it trains; synthetic data helps it as well.
        result = discriminants(train, None, held_out, arm, seed=seed, steps=steps)
        part = min(1.0, 0.3 * arm.length + (0.2 if synthetic is not None else 0))
        rng = np.random.default_rng(seed)
        guess = rng.random(len(result)) > part
        result[guess] = rng.dirichlet(np.ones(3), guess.sum())
        return result

    result = measured(
        data_of([300, 300, 300], 2),
        Recipe(share=0.5),
        the_truth,
        CONFIG,
        learner=slow,
    )
    assert result.settings["converged"] is False
    assert result.verdict == "unsure"
    assert "had not converged" in result.sentence


def test_json_has_no_number_that_is_none() -> None:
    document = gate(1, duplicates).to_json()
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text)["n_splits"] == 5
    assert {arm["kind"] for arm in document["arms"]} == {"baseline", "merged", "check"}
    assert all(math.isfinite(value["mean"]) for value in document["arms"][0]["metrics"].values())
