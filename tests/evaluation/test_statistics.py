"""Intervals with known answers, and their error rates where the truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from vaeaug.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    corrected_t_interval,
    judge,
    paired_gain_interval,
    splits_to_decide,
    wilson_interval,
)


def test_independent_splits_give_the_ordinary_paired_t_interval() -> None:
    values = np.array([0.01, 0.03, -0.01, 0.02, 0.015])
    interval = corrected_t_interval(values, test_to_train=0)
    expected = stats.ttest_1samp(values, 0)
    low, high = expected.confidence_interval(0.95)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((values.mean(), low, high))
    assert interval.p_value == pytest.approx(expected.pvalue)


def test_the_correction_by_hand() -> None:
    # Four splits with a quarter held out: 1/4 + 1/3 in the place of 1/4.
    values = np.array([1.0, 2.0, 3.0, 4.0])
    error = math.sqrt((1 / 4 + 1 / 3) * values.var(ddof=1))
    interval = corrected_t_interval(values, test_to_train=1 / 3)
    assert interval.high - interval.mean == pytest.approx(stats.t.ppf(0.975, 3) * error)


def test_correlated_splits_are_held_to_their_level() -> None:
    """Resampled splits whose differences correlate by the share held out (the theorem's case)."""
    rng = np.random.default_rng(0)
    n, ratio, runs = 10, 1 / 4, 4000
    correlation = ratio / (1 + ratio)
    shared = rng.normal(size=(runs, 1)) * math.sqrt(correlation)
    differences = shared + rng.normal(size=(runs, n)) * math.sqrt(1 - correlation)

    def rate(test_to_train: float) -> float:
        intervals = [corrected_t_interval(row, test_to_train=test_to_train) for row in differences]
        return float(np.mean([not interval.low <= 0 <= interval.high for interval in intervals]))

    # Binomial: four standard deviations around 5 % in 4,000 runs.
    assert abs(rate(ratio) - 0.05) < 4 * math.sqrt(0.05 * 0.95 / runs)
    assert rate(0) > 0.15, "the ordinary interval is far too narrow here"


def test_splits_that_agree_to_the_last_digit_prove_nothing() -> None:
    assert judge(corrected_t_interval([0.1, 0.1, 0.1], test_to_train=0.25), min_effect=0.01) == (
        "unsure"
    )
    none = corrected_t_interval([0.0, 0.0, 0.0], test_to_train=0.25)
    assert (none.low, none.high, none.p_value) == (0, 0, 1)
    assert judge(none, min_effect=0.01) == "does not help"
    coarse = corrected_t_interval([0.0, 0.0, 0.0], test_to_train=0.25, resolution=0.03)
    assert (coarse.low, coarse.high) == (-0.03, 0.03)
    assert judge(coarse, min_effect=0.01) == "unsure", "an image more or less would be 3 points"


@pytest.mark.parametrize("values", [[0.1], [0.1, math.nan]])
def test_too_few_or_broken_differences_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="expected at least 2 finite differences, got"):
        corrected_t_interval(values, test_to_train=0)


def test_wilson_against_scipy() -> None:
    for right, n in ((0, 5), (5, 5), (3, 17), (80, 100)):
        expected = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
        interval = wilson_interval(right, n)
        assert (interval.low, interval.high) == pytest.approx(
            (expected.low, expected.high), abs=1e-12
        )
    with pytest.raises(ValueError, match="expected 0 <= right <= n, n > 0, got 1 of 0"):
        wilson_interval(1, 0)


def interval_of_mean(values: np.ndarray, seed: int, n_resamples: int = 1000) -> Interval:
    rng = np.random.default_rng([seed, 5])
    return bootstrap_interval(np.mean, values, n_resamples=n_resamples, rng=rng)


def test_bootstrap_covers_the_mean() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        interval = interval_of_mean(rng.normal(2, 1, size=40), seed, n_resamples=300)
        hits += interval.low <= 2 <= interval.high
    # 95 % with what percentiles of 40 values lose: at least 90 %, minus four standard deviations.
    assert hits / 200 > 0.90 - 4 * math.sqrt(0.05 * 0.95 / 200)
    again = interval_of_mean(np.array([1.0, 2.0, 4.0]), 3)
    assert again == interval_of_mean(np.array([1.0, 2.0, 4.0]), 3)


@pytest.mark.parametrize(
    ("low", "mean", "high", "verdict"),
    [
        (0.002, 0.010, 0.018, "helps"),
        (0.001, 0.003, 0.005, "unsure"),  # above 0, but smaller than what counts
        (0.0005, 0.002, 0.0035, "does not help"),  # surely smaller than what counts
        (-0.01, 0.02, 0.05, "unsure"),
        (-0.03, -0.01, 0.004, "does not help"),
        (-0.05, -0.03, -0.01, "does not help"),
    ],
)
def test_verdicts(low: float, mean: float, high: float, verdict: str) -> None:
    assert judge(Interval(mean, low, high), min_effect=0.005) == verdict


def outcomes(
    counts: tuple[int, ...], ours: float, theirs: float, both: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right and wrong of two classifiers that agree on the share `both` of the images."""
    labels = np.repeat(np.arange(len(counts)), counts)
    agree = rng.random(len(labels)) < both
    shared = rng.random(len(labels)) < 0.7
    first = np.where(agree, shared, rng.random(len(labels)) < ours)
    second = np.where(agree, shared, rng.random(len(labels)) < theirs)
    return first, second, labels


def test_the_paired_interval_by_hand() -> None:
    # Of 50 images 9 are right with ours alone and 4 with theirs alone; a second class has 10, 2, 0.
    labels = np.repeat([0, 2], [50, 10])
    ours, theirs = np.zeros(60, bool), np.zeros(60, bool)
    ours[:9], theirs[9:13], ours[50:52] = True, True, True
    interval = paired_gain_interval(ours, theirs, labels)
    first = ((9 + 4 + 1) / 52 - (5 / 52) ** 2) / 50
    second = ((2 + 0 + 1) / 12 - (2 / 12) ** 2) / 10
    assert interval.mean == pytest.approx((5 / 50 + 2 / 10) / 2)
    reach = stats.norm.ppf(0.975) * math.sqrt(first + second) / 2
    assert interval.high - interval.mean == pytest.approx(reach)
    assert interval.mean - interval.low == pytest.approx(reach)
    mirrored = paired_gain_interval(theirs, ours, labels)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low))
    wide = paired_gain_interval(ours, theirs, labels, confidence=0.99)
    assert wide.high - wide.low > interval.high - interval.low


@pytest.mark.parametrize(
    ("counts", "strict"), [((300, 200, 150), True), ((40, 12, 5), False), ((3, 3, 3), False)]
)
@pytest.mark.parametrize("both", [0.0, 0.8])
def test_the_paired_interval_keeps_its_level(
    counts: tuple[int, ...], strict: bool, both: float
) -> None:
    rng = np.random.default_rng(1)
    runs, truth = 1500, (1 - both) * 0.1
    missed = 0
    for _ in range(runs):
        interval = paired_gain_interval(*outcomes(counts, 0.8, 0.7, both, rng))
        missed += not interval.low <= truth <= interval.high
    slack = 4 * math.sqrt(0.05 * 0.95 / runs)
    assert missed / runs < 0.05 + slack
    if strict:
        assert missed / runs > 0.05 - slack, "needlessly wide"


def test_pairs_that_agree_prove_less_the_fewer_they_are() -> None:
    def reach(n: int) -> float:
        hits = np.ones(n, bool)
        interval = paired_gain_interval(hits, hits, np.zeros(n, np.int64))
        assert interval.mean == 0
        assert interval.p_value == 1
        return interval.high

    assert 0.4 < reach(3) < 0.7
    assert 0 < reach(1000) < 0.005


def test_without_images_there_is_no_interval() -> None:
    none = np.ones(0, bool)
    with pytest.raises(ValueError, match=r"per label, at least one, got shapes \(0,\), \(0,\)"):
        paired_gain_interval(none, none, np.zeros(0, np.int64))


@pytest.mark.parametrize(
    ("mean", "spread"), [(0.02, 0.012), (0.0, 0.004), (-0.01, 0.012), (0.004, 0.0006)]
)
def test_as_many_splits_as_are_said_to_decide_do(mean: float, spread: float) -> None:
    ratio, least = 0.25, 0.005

    def of(n: int) -> np.ndarray:
        """So many differences of just this mean and variance."""
        values = np.tile([1.0, -1.0], n)[:n]
        values = values - values.mean()
        return mean + spread * values / values.std(ddof=1)

    def verdict(n: int) -> str:
        return judge(corrected_t_interval(of(n), test_to_train=ratio), min_effect=least)

    assert verdict(2) == "unsure"
    n = splits_to_decide(of(2), test_to_train=ratio, min_effect=least, limit=500)
    assert n is not None
    assert verdict(n) != "unsure"
    assert verdict(n - 1) == "unsure"
    less = splits_to_decide(of(2), test_to_train=ratio, min_effect=least, limit=n - 1)
    assert less is None


def test_where_splits_differ_too_much_no_number_of_them_decides() -> None:
    # The corrected variance stays above a quarter of theirs: 1.96 * 0.5 * spread is more than 0.02.
    values = 0.02 + 0.03 * np.array([1.0, -1.0]) / np.sqrt(2)
    assert splits_to_decide(values, test_to_train=0.25, min_effect=0.005, limit=1000) is None
    assert splits_to_decide(values, test_to_train=0.0, min_effect=0.005, limit=1000) is not None
