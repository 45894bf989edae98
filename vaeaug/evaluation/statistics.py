"""Is a difference real? Intervals for means, differences and shares, and the verdict from them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

Verdict = Literal["helps", "does not help", "unsure"]

CONFIDENCE = 0.95
_TAILS = (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2)


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        mean: The estimate.
        low: Lower end.
        high: Upper end.
        p_value: Two-sided, of the truth being 0; None where none was computed.
    """

    mean: float
    low: float
    high: float
    p_value: float | None = None


def corrected_t_interval(
    differences: Float[np.ndarray, " j"] | Sequence[float],
    *,
    test_to_train: float,
    confidence: float = CONFIDENCE,
    resolution: float = 0.0,
) -> Interval:
    """Corrected resampled t interval of the mean of paired differences over resampled splits.

    Training sets of cross-validation overlap, so differences of splits are not independent, and
    the ordinary t interval is too narrow. Bouckaert & Frank 2004 show that the corrected one keeps
    its level for repeated cross-validation.

    Args:
        differences: One per split, in any unit.
        test_to_train: Held-out images per training image of a split, 1 / (k - 1) for k folds;
            0 where splits are independent, which gives the ordinary paired t interval.
        confidence: Confidence of the interval, 0 to 1.
        resolution: Smallest change that the measurement can show; the interval of splits that
            agree to the last digit, which say nothing of their spread, reaches this far.

    Returns:
        The mean with its interval and p-value, in the unit of the differences.

    Raises:
        ValueError: If there are fewer than 2 differences, or one is not finite.
    """
    from scipy.stats import t

    values = np.asarray(differences, np.float64)
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"corrected_t_interval: expected at least 2 finite differences, got {values.tolist()}"
        )
    mean = float(values.mean())
    if np.ptp(values) < 1e-12:
        reach = max(abs(mean), resolution)
        return Interval(mean, mean - reach, mean + reach, 1.0)
    # Nadeau & Bengio 2003 (doi:10.1023/A:1024068626366): 1 / J + n_test / n_train in place of the
    # ordinary 1 / J.
    error = math.sqrt((1 / n + test_to_train) * float(values.var(ddof=1)))
    reach = float(t.ppf(0.5 + confidence / 2, n - 1)) * error
    p_value = 2 * float(t.sf(abs(mean) / error, n - 1))
    return Interval(mean, mean - reach, mean + reach, p_value)


def wilson_interval(right: float, n: float, *, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share: sound for few trials and shares near 0 or 1.

    `scipy.stats.binomtest` has it for whole numbers alone.

    Args:
        right: Successes; not whole where trials are counted by their worth.
        n: Trials.
        confidence: Confidence of the interval, 0 to 1.

    Returns:
        The share with its interval, 0 to 1.

    Raises:
        ValueError: If not 0 <= right <= n with n above 0.
    """
    from scipy.stats import norm

    if not 0 <= right <= n or n <= 0:
        raise ValueError(f"wilson_interval: expected 0 <= right <= n, n > 0, got {right} of {n}")
    # Wilson 1927 (doi:10.1080/01621459.1927.10502953).
    z = float(norm.ppf(0.5 + confidence / 2))
    share, slack = right / n, z * z / n
    centre = (share + slack / 2) / (1 + slack)
    reach = z * math.sqrt(share * (1 - share) / n + slack / (4 * n)) / (1 + slack)
    return Interval(share, max(0.0, centre - reach), min(1.0, centre + reach))


def paired_gain_interval(
    ours: Bool[np.ndarray, " n"],
    theirs: Bool[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"],
    *,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Interval of the gain in balanced accuracy of one classifier over another on the same images.

    Images are paired: only those that one of the two gets right and the other wrong say anything.
    The difference of the recalls of a class is one of matched proportions. Its variance is computed
    with half a pair added to each of the four outcomes (Agresti & Min 2005, doi:10.1002/sim.1781),
    so that a class of few images, on which the two agree by chance, is not taken for certain. It is
    divided by the number of pairs without the added ones, because the estimate stays as it is.
    Classes are independent. The two trainings are taken as they are: how another training or
    another split would turn out is not in this interval.

    Args:
        ours: Whether one classifier gets an image right.
        theirs: The same of the other.
        labels: Class of each image.
        confidence: Confidence of the interval, 0 to 1.

    Returns:
        Mean recall of the classes, ours - theirs, -1 to 1, with its interval and p-value.

    Raises:
        ValueError: If there are no images, or not as many outcomes as labels.
    """
    from scipy.stats import norm

    if not len(labels) or not ours.shape == theirs.shape == labels.shape:
        raise ValueError(
            "paired_gain_interval: expected one outcome of both per label, at least one, got "
            f"shapes {ours.shape}, {theirs.shape} and {labels.shape}"
        )
    n = np.bincount(labels)
    present = n > 0
    only_ours = np.bincount(labels, weights=ours & ~theirs)[present]
    only_theirs = np.bincount(labels, weights=theirs & ~ours)[present]
    n = n[present]
    gain = float(((only_ours - only_theirs) / n).mean())
    adjusted = n + 2
    difference = (only_ours - only_theirs) / adjusted
    variances = ((only_ours + only_theirs + 1) / adjusted - difference**2) / n
    error = math.sqrt(float(variances.sum())) / len(n)
    reach = float(norm.ppf(0.5 + confidence / 2)) * error
    p_value = 2 * float(norm.sf(abs(gain) / error))
    return Interval(gain, max(-1.0, gain - reach), min(1.0, gain + reach), p_value)


def bootstrap_interval(
    statistic: Callable[..., float],
    *samples: Shaped[np.ndarray, " _"],
    n_resamples: int,
    rng: np.random.Generator,
) -> Interval:
    """Percentile bootstrap interval (Efron 1979, doi:10.1214/aos/1176344552) of a statistic.

    `scipy.stats.bootstrap` refuses a sample of one value, as a small class may leave it.

    Args:
        statistic: Function of the samples, or of resamples of them.
        samples: Independent samples, resampled independently.
        n_resamples: Number of resamples; 0 gives no interval.
        rng: Draws the resamples.

    Returns:
        The statistic with its 95 % interval.

    Raises:
        ValueError: If a sample is empty.
    """
    if not all(map(len, samples)):
        raise ValueError("bootstrap_interval: expected at least one value, got none")
    resamples = [
        statistic(*(sample[rng.integers(len(sample), size=len(sample))] for sample in samples))
        for _ in range(n_resamples)
    ]
    return percentile_interval(float(statistic(*samples)), np.array(resamples))


def percentile_interval(value: float, resamples: Float[np.ndarray, " b"]) -> Interval:
    """Interval of a statistic from the same statistic of resamples.

    Args:
        value: The statistic.
        resamples: The statistic of every resample; none give no interval.

    Returns:
        The statistic with its 95 % interval, widened to hold it.
    """
    if not len(resamples):
        return Interval(value, value, value)
    low, high = np.quantile(resamples, _TAILS)
    return Interval(value, min(float(low), value), max(float(high), value))


def halves_interval(
    value: float,
    halves: Float[np.ndarray, " b"],
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Interval of a statistic from the same statistic of random halves of its images.

    Images drawn with replacement repeat. A repeated image is its own nearest neighbour, and its
    kernel with itself counts as one of two images, so the ordinary bootstrap is wrong for
    statistics of neighbours, of kernels and of binned scores. Subsamples of m of n images without
    replacement are right (Politis & Romano 1994, doi:10.1214/aos/1176325770). For a statistic whose
    variance goes as s / n, they scatter around that of all images with variance s (1 / m - 1 / n),
    which for m = n / 2 is s / n itself: halves need no rescaling. As such statistics depend on the
    number of images, the halves' deviations are taken from their own mean. A statistic whose
    variance falls faster, such as a kernel distance of equal distributions, gets an interval that
    is too wide rather than too narrow.

    Args:
        value: Statistic of all images.
        halves: Statistic of every half; none give no interval.
        bounds: Least and greatest possible value.

    Returns:
        The statistic with its 95 % interval, widened to hold it.
    """
    if not len(halves):
        return Interval(value, value, value)
    low, high = np.clip(value + np.quantile(halves - halves.mean(), _TAILS), *bounds)
    return Interval(value, min(float(low), value), max(float(high), value))


def half_of(strata: Int64[np.ndarray, " n"], rng: np.random.Generator) -> Int64[np.ndarray, " h"]:
    """Choose a random half of each stratum, without replacement; of an odd one the smaller.

    Args:
        strata: Stratum of each row, 0 up to the number of strata.
        rng: Draws the half.

    Returns:
        The rows chosen, in ascending order.
    """
    shuffled = rng.permutation(len(strata))
    # Stable, so that rows of a stratum stay in the random order.
    ordered = shuffled[np.argsort(strata[shuffled], kind="stable")]
    sizes = np.bincount(strata)
    place = np.arange(len(strata)) - np.repeat(sizes.cumsum() - sizes, sizes)
    return np.sort(ordered[place < np.repeat(sizes // 2, sizes)])


def splits_to_decide(
    differences: Float[np.ndarray, " j"] | Sequence[float],
    *,
    test_to_train: float,
    min_effect: float,
    limit: int,
    confidence: float = CONFIDENCE,
) -> int | None:
    """Count the splits after which `judge` would no longer be unsure.

    It is taken that mean and variance stay what they are. The corrected variance does not fall
    below ``test_to_train`` times that of the splits, so that no number of them may do.

    Args:
        differences: One per split that was measured, at least 2.
        test_to_train: As for `corrected_t_interval`.
        min_effect: Smallest gain that counts, in the unit of the differences.
        limit: Largest number of splits to consider.
        confidence: Confidence of the interval, 0 to 1.

    Returns:
        The number in all, more than were measured; None if none up to `limit` would do.
    """
    from scipy.stats import t

    values = np.asarray(differences, np.float64)
    mean, variance = float(values.mean()), float(values.var(ddof=1))
    # Half of an interval that lies above 0, or below the smallest gain that counts.
    room = mean if mean >= min_effect else min_effect - mean
    n = np.arange(len(values) + 1, limit + 1)
    reach = t.ppf(0.5 + confidence / 2, n - 1) * np.sqrt((1 / n + test_to_train) * variance)
    enough = n[reach < room]
    return int(enough[0]) if len(enough) else None


def judge(difference: Interval, *, min_effect: float) -> Verdict:
    """Judge the difference that synthetic data makes.

    - *helps*: the interval lies above 0 and the gain is at least the smallest that counts;
    - *does not help*: the interval excludes a gain as large as that;
    - *unsure*: the measurement cannot tell.

    Args:
        difference: The difference of a metric of which more is better.
        min_effect: Smallest gain that counts, in the same unit.

    Returns:
        The verdict.
    """
    if difference.low > 0 and difference.mean >= min_effect:
        return "helps"
    return "does not help" if difference.high < min_effect else "unsure"
