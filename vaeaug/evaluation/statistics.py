"""Is a difference real? Intervals for means, differences and shares, and the verdict from them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Verdict = Literal["helps", "does not help", "unsure"]


@dataclass(frozen=True)
class Interval:
    """An estimate with the range that holds the truth at the confidence asked for.

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
    confidence: float = 0.95,
    resolution: float = 0.0,
) -> Interval:
    """Corrected resampled t interval of the mean of paired differences over resampled splits.

    Training sets of cross-validation overlap, so differences of splits are not independent, and
    the ordinary t interval is too narrow. Nadeau & Bengio 2003 (doi:10.1023/A:1024068626366) put
    ``1 / J + n_test / n_train`` in the place of ``1 / J``; Bouckaert & Frank 2004 show it holds its
    level for repeated cross-validation.

    Args:
        differences: One per split, in any unit.
        test_to_train: Held-out images per training image of a split, 1 / (k - 1) for k folds;
            0 where splits are independent, which gives the ordinary paired t interval.
        confidence: Of the interval.
        resolution: Smallest change that the measurement can show; the interval of splits that
            agree to the last digit, which says nothing of their spread, reaches so far.

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
    error = math.sqrt((1 / n + test_to_train) * float(values.var(ddof=1)))
    if np.ptp(values) < 1e-12:
        reach = max(abs(mean), resolution)
        return Interval(mean, mean - reach, mean + reach, 1.0)
    reach = float(t.ppf(0.5 + confidence / 2, n - 1)) * error
    p_value = 2 * float(t.sf(abs(mean) / error, n - 1))
    return Interval(mean, mean - reach, mean + reach, p_value)


def wilson_interval(right: float, n: float, *, confidence: float = 0.95) -> Interval:
    """Share with Wilson's score interval (1927): sound for few trials and shares near 0 or 1.

    Args:
        right: Successes; not whole where trials are counted by their worth.
        n: Trials.
        confidence: Of the interval.

    Raises:
        ValueError: If not 0 <= right <= n with n above 0.
    """
    from scipy.stats import norm

    if not 0 <= right <= n or n <= 0:
        raise ValueError(f"wilson_interval: expected 0 <= right <= n, n > 0, got {right} of {n}")
    z = float(norm.ppf(0.5 + confidence / 2))
    share, slack = right / n, z * z / n
    centre = (share + slack / 2) / (1 + slack)
    reach = z * math.sqrt(share * (1 - share) / n + slack / (4 * n)) / (1 + slack)
    return Interval(share, max(0.0, centre - reach), min(1.0, centre + reach))


def bootstrap_interval(
    values: Float[np.ndarray, " n"] | Sequence[float],
    statistic: Callable[[np.ndarray], float] | None = None,
    *,
    seed: int,
    n_resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval (Efron 1979) of a statistic of independent values.

    Args:
        values: Independent values.
        statistic: Of a resample; None is the mean.
        seed: Of the resamples.
        n_resamples: Resamples.
        confidence: Of the interval.

    Raises:
        ValueError: If there are no values.
    """
    found = np.asarray(values, np.float64)
    if not len(found):
        raise ValueError("bootstrap_interval: expected at least one value, got none")
    statistic = statistic or (lambda sample: float(sample.mean()))
    rng = np.random.default_rng([seed, 5])
    drawn = [
        statistic(found[rng.integers(len(found), size=len(found))]) for _ in range(n_resamples)
    ]
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(statistic(found), float(low), float(high))


def judge(difference: Interval, *, min_effect: float) -> Verdict:
    """What an interval of (with synthetic data - without) says.

    - *helps*: the interval lies above 0 and the gain is at least the smallest that counts;
    - *does not help*: the interval excludes a gain as large as that;
    - *unsure*: the measurement cannot tell.
    """
    if difference.low > 0 and difference.mean >= min_effect:
        return "helps"
    return "does not help" if difference.high < min_effect else "unsure"
