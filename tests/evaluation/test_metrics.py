"""Scores of a classifier, against scikit-learn, imbalanced-learn and counts by hand."""

import math

import numpy as np
import pytest
from imblearn.metrics import geometric_mean_score
from sklearn.metrics import balanced_accuracy_score, f1_score
from typechecked import unchecked

from vaeaug.evaluation.metrics import calibration_error, class_groups, score


def some_predictions(seed: int, k: int = 4, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[labels]
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_the_libraries(seed: int) -> None:
    probabilities, labels = some_predictions(seed)
    predicted = probabilities.argmax(axis=1)
    scores = score(probabilities, labels)
    assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert scores.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    expected = geometric_mean_score(labels, predicted, average="multiclass")
    assert scores.geometric_mean == pytest.approx(expected)


def test_a_class_that_is_not_held_out_counts_for_nothing() -> None:
    probabilities, labels = some_predictions(0)
    wide = np.hstack([probabilities, np.zeros((len(labels), 1))])
    scores = score(wide, labels)
    assert scores.balanced_accuracy == score(probabilities, labels).balanced_accuracy
    assert math.isnan(scores.recall[-1])
    assert scores.held_out[-1] == 0


def test_a_class_never_found_makes_the_geometric_mean_zero() -> None:
    probabilities = np.tile([0.9, 0.1], (10, 1))
    scores = score(probabilities, np.repeat([0, 1], 5))
    assert (scores.balanced_accuracy, scores.geometric_mean) == (0.5, 0.0)


def test_calibration_of_a_known_case() -> None:
    # Ten images at confidence 0.8, six of them right; ten at 0.95, all right.
    probabilities = np.array([[0.8, 0.2]] * 10 + [[0.95, 0.05]] * 10)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 10)
    assert calibration_error(probabilities, labels) == pytest.approx(0.5 * 0.2 + 0.5 * 0.05)


def test_calibration_of_predictions_that_mean_what_they_say() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000)
    labels = (rng.random(20_000) > confidence).astype(np.int64)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    # Each bin's gap has a standard deviation of at most 0.5 / sqrt(its images), about 2,500 each.
    assert calibration_error(probabilities, labels) < 4 * 0.5 / math.sqrt(2_000)


def test_groups_are_thirds_by_count() -> None:
    counts = np.array([5, 4000, 60, 2000, 40, 1000, 750, 500, 350, 200])
    groups = class_groups(counts)
    assert groups == {"many": (1, 3, 5), "medium": (6, 7, 8, 9), "few": (0, 2, 4)}
    assert class_groups(np.array([100, 100, 90])) == {}
    assert class_groups(np.array([100, 0, 3])) == {}, "two classes have no thirds"


def test_recall_of_groups() -> None:
    probabilities = np.eye(3)[[0, 0, 1, 2, 0]]
    labels = np.array([0, 0, 1, 2, 2])
    scores = score(probabilities, labels, groups={"many": (0, 1), "few": (2,)})
    assert scores.groups == {"many": 1.0, "few": 0.5}
    assert scores.metrics()["recall_few"] == 0.5


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected probabilities \(n, k\).*got shapes \(3,\)"):
        unchecked(score)(np.ones(3), np.zeros(3, np.int64))
