"""Figures of fidelity against known answers."""

import numpy as np
import pytest

import vaeaug
from vaeaug.evaluation import (
    coverage,
    density,
    precision,
    real_features,
    real_or_synthetic_auc,
    recall,
    train_on_synthetic,
)
from vaeaug.screening import train_classifier


@pytest.fixture(scope="module")
def train():
    return vaeaug.read("digits", split="train")


@pytest.fixture(scope="module")
def test():
    return vaeaug.read("digits", split="test")


def two_normals(n, m, f=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, f)), rng.normal(size=(m, f))


# -- Told from real --------------------------------------------------------------------------------


def auc(real, synthetic, **keys):
    keys = {"value_range": (0, 255), "seed": 0, "steps": 60, **keys}
    return real_or_synthetic_auc(real, synthetic, **keys)


def test_real_against_real_cannot_be_told_apart(train):
    rows = np.random.default_rng(0).permutation(len(train))
    n = len(rows) // 2
    value = auc(train.images[rows[:n]], train.images[rows[n : 2 * n]])
    # Under the null one fold's AUC has variance (n1 + n2 + 1) / (12 n1 n2) with n1 = n2 = n / 2
    # held images, about 1 / (3 n); the mean of two folds half of that. Four standard deviations.
    assert abs(value - 0.5) < 4 / np.sqrt(6 * n)


def test_noise_is_told_from_real(train):
    noise = np.random.default_rng(0).integers(0, 256, train.images.shape, dtype=np.uint8)
    assert auc(train.images, noise) > 0.99


@pytest.mark.parametrize("space", [(16,), (8, 10), (8, 8, 8)])
def test_any_spatial_rank(space):
    rng = np.random.default_rng(0)
    shape = (40, *space, 2)
    dark, bright, as_bright = (
        rng.uniform(low, low + 1, shape).astype(np.float32) for low in (-1, 0, 0)
    )
    keys = {"value_range": (-1, 1), "steps": 15}
    assert auc(dark, bright, **keys) > 0.99
    # 40 images of each kind; see above.
    assert abs(auc(bright, as_bright, **keys) - 0.5) < 4 / np.sqrt(6 * 40)
    labels = np.repeat([0, 1], 40)
    test = vaeaug.LabelledImages(
        np.concatenate([dark, bright]), labels, ("dark", "bright"), (-1, 1)
    )
    images = np.concatenate([dark, as_bright])
    assert train_on_synthetic(images, labels, test, seed=0, steps=10) > 0.95
    features = real_features(train_classifier(test, steps=1, seed=0), images, (-1, 1))
    assert features.ndim == 2
    assert len(features) == 80


def test_auc_is_fixed_by_the_seed_and_ignores_units(train):
    real, other = train.images[:100], train.images[100:200] // 2
    value = auc(real, other, steps=10)
    assert value == auc(real, other, steps=10)
    floats = [(images / 255).astype(np.float32) for images in (real, other)]
    assert auc(*floats, value_range=(0, 1), steps=10) == pytest.approx(value, abs=1e-3)


def test_auc_leaves_the_global_generators_alone(train):
    import torch

    before = torch.random.get_rng_state()
    auc(train.images[:40], train.images[40:80], steps=2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_auc_refuses_what_it_cannot_compare(train):
    with pytest.raises(ValueError, match=r"uint8 of shape \(8, 8, 1\), got uint8 of shape \(8, 7"):
        auc(train.images, train.images[:, :, :7])
    with pytest.raises(ValueError, match="got float32"):
        auc(train.images, train.images.astype(np.float32))
    with pytest.raises(ValueError, match="at least 4 images of a kind, got 3"):
        auc(train.images, train.images[:3])


# -- Useful ----------------------------------------------------------------------------------------


def test_a_classifier_learns_from_real_images_and_not_from_wrong_labels(train, test):
    real = train_on_synthetic(train.images, train.labels, test, seed=0, steps=120)
    assert real > 0.9
    wrong = (train.labels + 1) % 10
    assert train_on_synthetic(train.images, wrong, test, seed=0, steps=60) < 0.1


def test_dropped_classes_cost_their_recall(train, test):
    kept = train.labels < 5
    value = train_on_synthetic(train.images[kept], train.labels[kept], test, seed=0, steps=120)
    # The other five classes cannot be named: their recall is 0.
    assert 0.4 < value <= 0.5


# -- Where the real ones are -----------------------------------------------------------------------


def test_a_set_covers_itself():
    real, _ = two_normals(200, 1)
    assert coverage(real, real) == 1
    assert precision(real, real) == recall(real, real) == 1


def test_a_set_far_away_covers_nothing():
    real, other = two_normals(200, 200)
    far = other + 1_000
    assert coverage(real, far) == density(real, far) == 0
    assert precision(real, far) == recall(real, far) == 0


def test_two_samples_of_one_distribution_have_the_expected_figures():
    n, k = 600, 5
    real, other = two_normals(n, n)
    # Naeem et al. 2020: a real sample is missed when its k nearest of 2n - 1 others are all real.
    j = np.arange(1, k + 1)
    expected = 1 - np.prod((n - j) / (2 * n - j))
    # Misses of neighbours go together; at most k + 1 of them share a neighbourhood on average, so
    # four binomial standard deviations are widened by sqrt(k + 1).
    bound = 4 * np.sqrt((k + 1) * expected * (1 - expected) / n)
    assert abs(coverage(real, other, k=k) - expected) < bound
    # Each ball holds k of the n - 1 other real samples, hence k n / (n - 1) synthetic ones are
    # expected; the count in a ball given k has variance of about 2 k.
    assert abs(density(real, other, k=k) - n / (n - 1)) < 4 * np.sqrt((k + 1) * 2 / (k * n))


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_dropped_modes_are_not_covered(kept):
    rng = np.random.default_rng(1)
    centres = 100 * np.eye(4)
    modes = np.repeat(np.arange(4), 100)
    real = centres[modes] + rng.normal(size=(400, 4))
    other = centres[modes] + rng.normal(size=(400, 4))
    dropped = other[modes < kept]
    # Modes are far apart, so a dropped one is never covered, and a kept one as it is by itself.
    within = coverage(real[modes < kept], dropped)
    assert within > 0.9
    assert coverage(real, dropped) == pytest.approx(within * kept / 4)
    assert precision(real, dropped) > 0.9
    assert recall(real, dropped) < kept / 4 + 1e-9


def test_repeating_one_sample_is_precise_and_covers_little():
    real, _ = two_normals(200, 1)
    one = np.repeat(real[:1], 200, axis=0) + 1e-9 * np.arange(200)[:, None]
    assert precision(real, one) == 1
    # Only real samples that have this one within their k-th neighbour can be covered.
    assert coverage(real, one) < 0.2


def test_figures_by_hand():
    real = np.array([[0.0], [1.0], [3.0]])
    synthetic = np.array([[0.5], [9.0]])
    # k = 1: radii 1, 1, 2. 0.5 lies in the first two balls, 9 in none.
    assert coverage(real, synthetic, k=1) == pytest.approx(2 / 3)
    assert density(real, synthetic, k=1) == 2 / 2
    assert precision(real, synthetic, k=1) == 1 / 2
    # Radii of the synthetic ones: 8.5 each; all real samples lie in the first.
    assert recall(real, synthetic, k=1) == 1


def test_features_that_do_not_match_are_refused():
    real, other = two_normals(20, 20)
    for figure in (coverage, density, precision, recall):
        with pytest.raises(ValueError, match=r"expected real \(n, f\)"):
            figure(real, other[:, :3])
        with pytest.raises(ValueError, match="got 20"):
            figure(real, other, k=20)


def test_real_test_images_are_covered_by_real_ones_and_not_by_noise(train, test):
    classifier = train_classifier(train, steps=60, seed=0)
    n = len(test)
    noise = np.random.default_rng(0).integers(0, 256, test.images.shape, dtype=np.uint8)
    real, same, other = (
        real_features(classifier, images, (0, 255))
        for images in (test.images, train.images[:n], noise)
    )
    assert real.shape == (n, 512)
    assert coverage(real, same) > 0.85
    assert coverage(real, other) < 0.1
