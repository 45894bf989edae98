"""The prediction from one split: its numbers, and that the gate takes its trainings over."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.evaluation import Arm, Bench, SyntheticSet, make_splits, predict, run_gate
from vaeaug.evaluation.gate.arms import fixed_arms, quick_arms

CONFIG = EvaluationConfig(min_splits=2, max_splits=2, steps=1, workers=1)
RECIPE = Recipe(share=0.5)
COUNTS = (60, 40, 15)


def data_of(counts: Sequence[int] = COUNTS, shape: tuple[int, ...] = (4, 4, 1)) -> LabelledImages:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    images = rng.random((len(labels), *shape)).astype(np.float32)
    names = tuple("abcd"[: len(counts)])
    return LabelledImages(images, labels, names, (0, 1), split="train", source="noise")


class Learner:
    """Knows every label, and gets wrong as many of each class as its arm is told to, else three."""

    def __init__(self, wrong: dict[str, tuple[int, ...]]) -> None:
        self.wrong, self.arms = wrong, []

    def __call__(
        self,
        train: LabelledImages,
        synthetic: SyntheticSet | None,
        held_out: LabelledImages,
        arm: Arm,
        *,
        seed: int,
        steps: int,
    ) -> np.ndarray:
        assert (synthetic is None) == (arm.recipe is None)
        self.arms.append((arm, held_out.fingerprint))
        kind = "merged" if arm.recipe is not None else arm.balance
        answers = held_out.labels.copy()
        for label, n in enumerate(self.wrong.get(kind, (3,) * held_out.n_classes)):
            rows = np.flatnonzero(held_out.labels == label)[:n]
            answers[rows] = (label + 1) % held_out.n_classes
        return np.eye(held_out.n_classes, dtype=np.float32)[answers]


class Generators:
    """Draws copies, and notes what each generator learnt from."""

    def __init__(self) -> None:
        self.learnt: list[str] = []

    def samples(
        self, train: LabelledImages, folder: Path, recipes: Sequence[Recipe]
    ) -> list[SyntheticSet]:
        self.learnt.append(train.fingerprint)
        return [SyntheticSet(train.images, train.labels) for _ in recipes]

    def with_pseudo_labels(self, train: LabelledImages, folder: Path) -> LabelledImages:
        return replace(train, unlabelled=None)


WRONG = {"oversampling": (0, 2, 3), "logit adjustment": (0, 2, 2), "merged": (1, 1, 0)}


def bench_of(
    learner: Learner,
    stages: object = None,
    *,
    folder: Path | None = None,
    data: LabelledImages | None = None,
    **keys: object,
) -> Bench:
    return Bench(
        data or data_of(),
        stages or Generators(),
        CONFIG.model_copy(update=keys),
        folder=folder,
        learner=learner,
    )


def test_the_gain_is_that_of_the_better_arm_and_the_rare_class_stands_alone() -> None:
    learner, generators = Learner(WRONG), Generators()
    bench = bench_of(learner, generators)
    assert bench.folds == 5
    prediction = predict(bench, RECIPE)
    # 12, 8 and 3 images are held out.
    assert [row.n for row in prediction.classes] == [12, 8, 3]
    assert prediction.baseline == "logit adjustment + classic"
    assert prediction.gain is not None
    assert prediction.rare_gain is not None
    assert prediction.gain.mean == pytest.approx((-1 / 12 + 1 / 8 + 2 / 3) / 3)
    assert prediction.rare_gain.mean == pytest.approx(2 / 3)
    assert prediction.gain.low < prediction.gain.mean < prediction.gain.high
    assert [row.rare for row in prediction.classes] == [False, False, True]
    rare = prediction.classes[2]
    assert rare.baseline is not None
    assert rare.merged is not None
    assert (rare.baseline.mean, rare.merged.mean) == pytest.approx((1 / 3, 1))
    values = list(prediction.balanced_accuracy.values())
    assert values == pytest.approx(
        [(1 + 6 / 8 + 0) / 3, (1 + 6 / 8 + 1 / 3) / 3, (11 / 12 + 7 / 8 + 1) / 3]
    )
    assert "Prediction from one split, no verdict" in prediction.sentence
    assert "with synthetic data (50% of all classes) against" in prediction.sentence
    assert "recall of the rarest class +66.7 points" in prediction.sentence
    assert json.loads(json.dumps(prediction.to_json()))["n_held_out"] == 23


def test_one_generator_and_three_classifiers_on_the_first_split_of_the_gate() -> None:
    learner, generators, data = Learner(WRONG), Generators(), data_of()
    predict(bench_of(learner, generators, data=data), RECIPE)
    (split,) = make_splits(data, 1, folds=5, seed=0)
    assert set(generators.learnt) == {data.subset(split.train).fingerprint}
    assert {held_out for _, held_out in learner.arms} == {data.subset(split.held_out).fingerprint}
    assert [arm.recipe for arm, _ in learner.arms] == [None, None, RECIPE]


def test_the_gate_reads_what_was_trained_and_says_what_it_says_without(tmp_path: Path) -> None:
    fresh = Learner(WRONG)
    alone = run_gate(bench_of(fresh, folder=tmp_path / "alone"), RECIPE)
    first, later = Learner(WRONG), Learner(WRONG)
    prediction = predict(bench_of(first, folder=tmp_path / "both"), RECIPE)
    after = run_gate(bench_of(later, folder=tmp_path / "both"), RECIPE)
    assert after.to_json() == alone.to_json()
    assert len(later.arms) == len(fresh.arms) - 3
    assert not set(first.arms) & set(later.arms)
    # And the other way round: nothing is left to train.
    last = Learner(WRONG)
    again = predict(bench_of(last, folder=tmp_path / "alone"), RECIPE)
    assert last.arms == []
    assert again == prediction


def test_scores_of_an_earlier_version_are_measured_again(tmp_path: Path) -> None:
    expected = predict(bench_of(Learner(WRONG), folder=tmp_path), RECIPE)
    path = tmp_path / "results.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record.pop("hits", None)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    learner = Learner(WRONG)
    assert predict(bench_of(learner, folder=tmp_path), RECIPE) == expected
    assert len(learner.arms) == 3
    learner = Learner(WRONG)
    assert predict(bench_of(learner, folder=tmp_path), RECIPE) == expected
    assert learner.arms == [], "what was measured again is kept"


def test_a_tie_goes_to_oversampling_and_equal_classes_have_no_rare_one() -> None:
    prediction = predict(bench_of(Learner({}), data=data_of((20, 20, 20))), RECIPE)
    assert prediction.baseline == "oversampling + classic"
    assert prediction.rare_gain is None
    assert not any(row.rare for row in prediction.classes)
    assert prediction.gain is not None
    assert prediction.gain.mean == 0
    assert prediction.gain.low < 0 < prediction.gain.high
    assert "rarest" not in prediction.sentence


def test_too_few_and_leaking_images_are_told() -> None:
    few = predict(bench_of(Learner({}), data=data_of((30, 4))), RECIPE)
    assert few.warnings == ("a class has 2 held-out images, fewer than 3: its recall says little",)
    assert [row.rare for row in few.classes] == [False, True]
    data = data_of()
    leaking = LabelledImages(
        data.images,
        data.labels,
        data.class_names,
        (0, 1),
        split="train",
        source="noise",
        unlabelled=data.images[:60],
    )
    (warning,) = predict(bench_of(Learner({}), data=leaking), RECIPE).warnings
    assert warning.startswith("leak: 12 held-out images are also in the pool")


def test_where_the_recipe_is_none_nothing_is_trained() -> None:
    learner = Learner(WRONG)
    prediction = predict(bench_of(learner), Recipe(share=0))
    assert learner.arms == []
    assert prediction.gain is None
    assert "Nothing to predict" in str(prediction)
    assert prediction.to_json()["gain"] is None


@pytest.mark.parametrize("shape", [(4, 4, 1), (16, 1), (4, 4, 4, 1), (5,)])
def test_its_baselines_are_those_of_the_gate(shape: tuple[int, ...]) -> None:
    data = data_of(shape=shape) if len(shape) > 1 else data_of(shape=(1, 5))
    arms = quick_arms(data)
    assert len(arms) == 2
    assert set(arms) <= set(fixed_arms(data))
