"""Figures of fidelity against known answers."""

import numpy as np
import pytest
from typechecked import unchecked

import vaeaug
from vaeaug import LabelledImages
from vaeaug.evaluation import (
    coverage,
    density,
    kernel_distance,
    measure_fidelity,
    precision,
    real_features,
    real_or_synthetic_auc,
    recall,
    train_on_synthetic,
)
from vaeaug.evaluation.statistics import half_of, halves_interval
from vaeaug.stages.neighbours import Kernel, Neighbourhoods
from vaeaug.training.classifier import train_classifier


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
    # Its own refusals are tested too.
    return unchecked(real_or_synthetic_auc)(real, synthetic, **keys)


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
    for metric in (coverage, density, precision, recall):
        with pytest.raises(ValueError, match=r"expected real \(n, f\)"):
            unchecked(metric)(real, other[:, :3])
        with pytest.raises(ValueError, match="got 20"):
            metric(real, other, k=20)


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


# -- Distances of distributions --------------------------------------------------------------------


def test_kernel_distance_by_hand():
    real, other = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    # (ab + 1)**3: within real 1, within other 27; across 1, 1, 8, 27.
    assert kernel_distance(real, other) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


def test_equal_distributions_have_no_kernel_distance():
    n, trials = 100, 40
    values, variances = [], []
    for seed in range(trials):
        real, other = two_normals(n, n, seed=seed)
        values.append(kernel_distance(real, other))
        both = np.concatenate([real, other])
        gram = (both @ both.T / both.shape[1] + 1) ** 3
        centred = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
        # Under the null Var = 2 / (n (n - 1)) E[h**2] with h of two pairs, 4 centred kernels.
        variances.append(8 * (centred**2).mean() / (n * (n - 1)))
    deviation = np.sqrt(np.mean(variances))
    assert abs(np.mean(values)) < 4 * deviation / np.sqrt(trials)
    real, other = two_normals(n, n)
    assert kernel_distance(real, other + 0.5) > 4 * deviation
    assert kernel_distance(real, 2 * other) > 4 * deviation


def test_strata_of_equal_size_do_not_bias_the_kernel_distance():
    strata = np.repeat(np.arange(5), 8)
    plain, by_strata = [], []
    for seed in range(60):
        noise = two_normals(40, 40, seed=seed)
        real, other = (5 * np.eye(8)[strata] + points for points in noise)
        plain.append(kernel_distance(real, other))
        by_strata.append(Kernel(real, other, strata, strata).distance())
    error = np.std(by_strata) / np.sqrt(60)
    assert abs(np.mean(by_strata)) < 4 * error
    assert np.mean(plain) < -4 * error


def test_parts_of_sets_have_the_figures_of_those_parts():
    real, other = two_normals(90, 70)
    rows = half_of(np.zeros(90, np.int64), np.random.default_rng(0))
    others = np.arange(0, 70, 3)
    metrics = Neighbourhoods(real, other, k=4).metrics(rows, others)
    part, other_part = real[rows], other[others]
    for judge in (precision, recall, density, coverage):
        assert metrics[judge.__name__] == pytest.approx(judge(part, other_part, k=4))
    kernel = Kernel(real, other, np.zeros(90, np.int64), np.zeros(70, np.int64))
    assert kernel.distance(rows, others) == pytest.approx(kernel_distance(part, other_part))


def test_neighbours_are_found_when_a_part_leaves_the_near_ones_out():
    real = np.arange(200.0)[:, None]
    # Of the 24 neighbours kept of point 100, none is in this part.
    rows = np.array([0, 1, 100, 198, 199])
    metrics = Neighbourhoods(real, real, k=2).metrics(rows, rows)
    assert metrics["density"] == density(real[rows], real[rows], k=2)


def test_halves_are_of_each_stratum_and_scatter_like_the_mean():
    strata = np.repeat([0, 1, 2], [5, 8, 3])
    rows = half_of(strata, np.random.default_rng(0))
    assert np.bincount(strata[rows]).tolist() == [2, 4, 1]
    # The mean of n values of variance 1: 95 % of it within 1.96 / sqrt(n).
    rng = np.random.default_rng(1)
    values = rng.normal(size=1_000)
    one = np.zeros(1_000, np.int64)
    halves = np.array([values[half_of(one, rng)].mean() for _ in range(2_000)])
    interval = halves_interval(float(values.mean()), halves)
    wanted = 2 * 1.96 * values.std() / np.sqrt(1_000)
    # A quantile of 2,000 draws at 2.5 % is off by about 4 %.
    assert interval.high - interval.low == pytest.approx(wanted, rel=0.16)
    assert interval.low < values.mean() < interval.high


# -- All together ----------------------------------------------------------------------------------

QUICK = {"n_bootstrap": 40, "steps": 60}


def by_name(fidelity):
    return {metric.name: metric for metric in fidelity.metrics}


@pytest.fixture(scope="module")
def halves(train):
    """Training images, and as many that stand for perfect synthetic ones."""
    return train.split_off(0.5, seed=0)


@pytest.fixture(scope="module")
def perfect(halves, test):
    real, other = halves
    return measure_fidelity(real, test, other.images, other.labels, n_bootstrap=100, steps=100)


def test_real_images_in_the_place_of_synthetic_ones_are_faithful(perfect):
    metrics = by_name(perfect)
    assert list(metrics) == [
        "precision",
        "recall",
        "density",
        "coverage",
        "kernel_distance",
        "train_on_synthetic",
        "real_or_synthetic_auc",
    ]
    for metric in metrics.values():
        assert metric.low <= metric.value <= metric.high
        assert metric.real_low <= metric.real <= metric.real_high
        # Both columns are of real images.
        assert metric.low <= metric.real_high
        assert metric.real_low <= metric.high
    # 355 images of each kind, all classes alike: the known answers, see above.
    for value in (metrics["coverage"].value, metrics["coverage"].real):
        assert value > 0.93
    for value in (metrics["real_or_synthetic_auc"].value, metrics["real_or_synthetic_auc"].real):
        assert abs(value - 0.5) < 4 / np.sqrt(6 * 355)
    assert abs(metrics["kernel_distance"].real) < 0.05
    assert perfect.to_json()["n_held_out"] == 355
    assert "classifier of" in perfect.features


def test_collapsed_classes_are_precise_and_cover_little(halves, test):
    real, other = halves
    rows = np.concatenate([np.flatnonzero(other.labels == c)[:2] for c in range(10)])
    rows = np.tile(rows, 18)
    rng = np.random.default_rng(0)
    noise = rng.integers(-3, 4, (len(rows), *real.image_shape))
    images = np.clip(other.images[rows] + noise, 0, 255).astype(np.uint8)
    metrics = by_name(measure_fidelity(real, test, images, other.labels[rows], **QUICK))
    assert metrics["precision"].value > 0.8
    assert metrics["coverage"].high < 0.5
    assert metrics["recall"].high < metrics["recall"].real_low
    assert metrics["kernel_distance"].low > metrics["kernel_distance"].real_high


def test_blurred_images_are_worse_in_every_way(halves, test):
    real, other = halves
    blurred = np.stack([np.roll(other.images, by, axis=2) for by in (-1, 0, 1)]).mean(axis=0)
    fidelity = measure_fidelity(real, test, blurred.astype(np.uint8), other.labels, **QUICK)
    metrics = by_name(fidelity)
    assert metrics["real_or_synthetic_auc"].low > 0.9
    for name in ("precision", "recall", "density", "coverage"):
        assert metrics[name].high < metrics[name].real_low, name


def test_order_makes_no_difference(halves, test):
    real, other = halves
    rng, keys = np.random.default_rng(0), {"n_bootstrap": 10, "steps": 10}
    first = measure_fidelity(real, test, other.images, other.labels, **keys)
    rows = rng.permutation(len(other))
    again = measure_fidelity(
        real.subset(rng.permutation(len(real))),
        test.subset(rng.permutation(len(test))),
        other.images[rows],
        other.labels[rows],
        **keys,
    )
    assert first.to_json() == again.to_json()


def test_an_extractor_takes_the_classifiers_place(halves, test):
    real, other = halves
    seen = []

    def extractor(x):
        seen.append((x.shape[1:], float(x.min()), float(x.max())))
        return x.flatten(1)

    keys = {"extractor": extractor, "extractor_name": "pixels", **QUICK}
    fidelity = measure_fidelity(real, test, other.images, other.labels, **keys)
    assert fidelity.features == "pixels"
    assert all(shape == (1, 8, 8) and low >= 0 and high <= 1 for shape, low, high in seen)
    assert max(high for *_, high in seen) == 1
    keys["extractor"] = lambda x: x
    with pytest.raises(ValueError, match=r"features of shape \(355, f\).*\(355, 1, 8, 8\)"):
        measure_fidelity(real, test, other.images, other.labels, **keys)


def test_few_images_and_missing_classes_are_noted(train, test):
    real = train.imbalanced([40, 40, 40, 1, 3, 5, 9, 0, 12, 12], seed=0)
    held = test.imbalanced([20, 20, 20, 5, 1, 2, 0, 5, 5, 5], seed=0)
    synthetic = train.imbalanced([30, 30, 0, 30, 30, 30, 30, 0, 2, 1], seed=1)
    fidelity = measure_fidelity(real, held, synthetic.images, synthetic.labels, **QUICK)
    notes = " ".join(fidelity.notes)
    assert "want of synthetic images: '2'." in notes
    assert "want of held-out images: '6'." in notes
    assert "single training image: '3'." in notes
    # Of classes 0, 1, 4, 5, 8 and 9: the smallest of held-out, synthetic and half the training set.
    assert f"Compared: {20 + 20 + 1 + 2 + 2 + 1} images" in notes


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_images_in_all(train, test, n):
    few = train.imbalanced([2 * n, 2 * n] + [0] * 8, seed=0)
    held = test.imbalanced([n, n] + [0] * 8, seed=0)
    fidelity = measure_fidelity(few, held, few.images, few.labels, n_bootstrap=10, steps=5)
    names = set(by_name(fidelity))
    if n == 1:
        assert names == {"train_on_synthetic"}
        assert "Only 2 images of a kind" in " ".join(fidelity.notes)
    else:
        assert {"coverage", "kernel_distance", "real_or_synthetic_auc"} < names
        assert "Neighbourhoods reach to neighbour" in " ".join(fidelity.notes)


def test_shared_images_are_left_out_of_the_held_out_ones(train, test):
    images = np.concatenate([test.images, train.images[:30]])
    labels = np.concatenate([test.labels, train.labels[:30]])
    leaking = LabelledImages(images, labels, test.class_names, test.value_range)
    fidelity = measure_fidelity(train, leaking, train.images, train.labels, n_bootstrap=5, steps=5)
    assert fidelity.n_held_out == len(test)
    assert fidelity.notes[0].startswith("Leak: 30 of 385 held-out images")
    with pytest.raises(ValueError, match="all 355 are"):
        measure_fidelity(test, test, train.images, train.labels)


def test_parts_that_do_not_belong_together_are_refused(train, test):
    with pytest.raises(ValueError, match=r"uint8 of shape \(8, 8, 1\), got uint8 of shape \(7, 8"):
        measure_fidelity(train, test, train.images[:, :7], train.labels)
    with pytest.raises(ValueError, match="got 0 to 10"):
        measure_fidelity(train, test, train.images, train.labels + (train.labels == 9))
    with pytest.raises(ValueError, match="expected an extractor"):
        measure_fidelity(train, test, train.images, train.labels, fid=True)
    none = train.labels == 3
    with pytest.raises(ValueError, match="expected a class with training, held-out and synthetic"):
        measure_fidelity(train.subset(~none), test, train.images[none], train.labels[none], **QUICK)


def test_the_frechet_distance_is_an_extra(halves, test):
    real, other = halves
    keys = {"extractor": lambda x: x.flatten(1)[:, 20:28], "fid": True, **QUICK}
    try:
        import torchmetrics.image.fid  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"pip install 'vaeaug\[fid\]'"):
            measure_fidelity(real, test, other.images, other.labels, **keys)
        return
    metrics = by_name(measure_fidelity(real, test, other.images, other.labels, **keys))
    darker = by_name(measure_fidelity(real, test, other.images // 2, other.labels, **keys))
    assert metrics["frechet_distance"].value < 0.1
    assert darker["frechet_distance"].low > metrics["frechet_distance"].high


def test_measuring_leaves_the_global_generators_alone(train, test):
    import torch

    before, numbers = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    measure_fidelity(train, test, train.images, train.labels, n_bootstrap=2, steps=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert (numbers == np.random.get_state()[1]).all()  # noqa: NPY002
