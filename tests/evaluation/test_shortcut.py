"""The shortcut is found where there is one, and not where classes merely differ."""

import numpy as np
import pytest
from typechecked import unchecked

import vaeaug
from vaeaug.evaluation import check_shortcut
from vaeaug.evaluation.shortcut import _entropy, _permuted, _Table

RARE = [7, 8, 9]


@pytest.fixture(scope="module")
def halves():
    return vaeaug.read("digits", split="train").split_off(0.5, seed=0)


@pytest.fixture(scope="module")
def real(halves):
    return halves[0].imbalanced([70] * 7 + [20] * 3, seed=0)


def blur(images):
    total = images.astype(float)
    for axis in (1, 2):
        total = total + np.roll(total, 1, axis=axis)
    return (total / 4).astype(np.uint8)


def check(real, synthetic, classes, **keys):
    chosen = np.isin(synthetic[1], classes)
    images = np.concatenate([real.images, synthetic[0][chosen]])
    labels = np.concatenate([real.labels, synthetic[1][chosen]])
    is_synthetic = np.repeat([False, True], [len(real), chosen.sum()])
    keys = {"value_range": (0, 255), "class_names": real.class_names, "steps": 150, **keys}
    return check_shortcut(images, labels, is_synthetic, **keys)


def test_blurred_images_of_rare_classes_alone_are_a_shortcut(halves, real):
    shortcut = check(real, (blur(halves[1].images), halves[1].labels), RARE)
    assert shortcut.detector_auc > 0.95
    assert shortcut.p_value < 0.01
    # At most what "synthetic or not" can tell of the label, with what real images tell.
    assert 0.1 < shortcut.excess < shortcut.label_entropy
    assert shortcut.low < shortcut.mutual_information < shortcut.high
    assert shortcut.low > shortcut.real_only
    assert "Most synthetic: '7', '8', '9'." in shortcut.warning
    assert "merge(share=0.3)" in shortcut.remedy
    assert "plan.share" in shortcut.remedy
    assert "sampling.residual" in shortcut.remedy
    assert shortcut.synthetic_share["7"] > 0.7
    assert shortcut.synthetic_share["0"] == 0


def test_blurred_images_of_all_classes_alike_are_none(halves, real):
    blurred = blur(halves[1].images)
    # As many synthetic as real images of every class.
    rows = np.concatenate(
        [np.flatnonzero(halves[1].labels == c)[:n] for c, n in enumerate(real.counts)]
    )
    shortcut = check(real, (blurred[rows], halves[1].labels[rows]), range(10))
    assert set(shortcut.synthetic_share.values()) == {0.5}
    assert shortcut.detector_auc > 0.95
    assert abs(shortcut.excess) < 0.02 * shortcut.label_entropy
    assert shortcut.warning is None
    assert shortcut.remedy is None


def test_unequal_shares_of_what_looks_real_are_none(halves, real):
    shortcut = check(real, (halves[1].images, halves[1].labels), RARE)
    assert shortcut.p_value > 0.01
    assert shortcut.warning is None


def test_unequal_shares_of_visible_images_are_a_shortcut(halves, real):
    synthetic = blur(halves[1].images), halves[1].labels
    rows = np.concatenate(
        [np.flatnonzero(synthetic[1] == c)[: (60 if c in RARE else 10)] for c in range(10)]
    )
    shortcut = check(real, (synthetic[0][rows], synthetic[1][rows]), range(10))
    assert "'7', '8', '9'" in shortcut.warning


def test_the_p_value_is_uniform_where_kinds_are_alike():
    rng = np.random.default_rng(0)
    n, values = 300, []
    labels = np.repeat(np.arange(3), 100)
    halves = np.arange(n) % 2
    for _ in range(60):
        # Scores differ by class, not by kind.
        bins = np.clip(rng.poisson(2 + labels), 0, 7)
        synthetic = rng.random(n) < np.array([0.1, 0.3, 0.7])[labels]
        table = _Table(bins, labels, halves, 3)
        values.append(table.p_value(synthetic, 99, rng))
    values = np.sort(values)
    # Kolmogorov-Smirnov at 1 in 1,000 for 60 values: 1.95 / sqrt(60).
    grid = np.arange(1, 61) / 60
    assert np.abs(values - grid).max() < 1.95 / np.sqrt(60) + 0.02


def test_information_by_hand():
    rng = np.random.default_rng(0)
    n = 4_000
    labels = rng.integers(2, size=n)
    halves = np.zeros(n, np.int64)
    told = _Table(7 * labels, labels, halves, 2).information(np.arange(n), 50, rng)
    assert told == pytest.approx(np.log(2), abs=0.01)
    nothing = _Table(rng.integers(8, size=n), labels, halves, 2)
    # 2 n times the plug-in is chi-square with 7 degrees of freedom; its mean is taken off.
    bound = 4 * np.sqrt(2 * 7) / (2 * n) * np.sqrt(1 + 1 / 50)
    assert abs(nothing.information(np.arange(n), 50, rng)) < bound
    # Flipped in 1 of 4 cases: ln 2 - H(1/4).
    noisy = np.where(rng.random(n) < 0.25, 1 - labels, labels)
    wanted = np.log(2) - _entropy(np.array([0.25, 0.75]))
    information = _Table(noisy, labels, halves, 2).information(np.arange(n), 50, rng)
    assert information == pytest.approx(wanted, abs=0.04)


def test_real_images_are_weighted_to_the_classes_of_all():
    rng = np.random.default_rng(0)
    n = 6_000
    labels = rng.integers(3, size=n)
    bins = np.clip(rng.poisson(1 + 2 * labels), 0, 7)
    table = _Table(bins, labels, np.zeros(n, np.int64), 3)
    every = table.information(np.arange(n), 30, rng)
    rows = np.flatnonzero(rng.random(n) < np.array([0.9, 0.4, 0.15])[labels])
    # The smallest class keeps 300 images; without the weights this differs by more than 0.1.
    assert table.information(rows, 30, rng) == pytest.approx(every, abs=0.05)


def test_permuted_places_stay_in_their_group():
    groups = np.array([2, 0, 2, 1, 0, 2, 1])
    places = _permuted(groups, np.random.default_rng(0))
    assert (groups[places] == groups).all()
    assert sorted(places) == list(range(7))


def test_fixed_by_the_seed_and_leaves_the_global_generators_alone(halves, real):
    import torch

    before = torch.random.get_rng_state()
    synthetic = blur(halves[1].images), halves[1].labels
    first = check(real, synthetic, RARE, steps=5, seed=3)
    assert first.to_json() == check(real, synthetic, RARE, steps=5, seed=3).to_json()
    assert torch.equal(before, torch.random.get_rng_state())


def test_too_few_images_are_refused(halves, real):
    synthetic = halves[1].images[:25], halves[1].labels[:25]
    with pytest.raises(ValueError, match="at least 20 real and 20 synthetic images in classes"):
        check(real, (synthetic[0][:19], synthetic[1][:19]), range(10))
    # No class has both kinds.
    with pytest.raises(ValueError, match="got 0 and 0"):
        check(real.subset(real.labels < 5), (halves[1].images, halves[1].labels), [6, 7])
    with pytest.raises(ValueError, match="at least 100, got 50"):
        check(real, (halves[1].images, halves[1].labels), RARE, n_permutations=50)
    with pytest.raises(ValueError, match="is_synthetic as bool"):
        unchecked(check_shortcut)(
            real.images,
            real.labels,
            np.zeros(len(real)),
            value_range=(0, 255),
            class_names=real.class_names,
        )
