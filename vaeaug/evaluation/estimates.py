"""One figure with its interval, the same for real images beside it; and how intervals are made."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int64

Better = Literal["higher", "lower", "half"]

CONFIDENCE = 0.95
_TAILS = (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2)


@dataclass(frozen=True)
class Figure:
    """One figure of synthetic images, beside the same of real images.

    Attributes:
        name: Key.
        title: Words for a table.
        meaning: One sentence on what it says.
        better: "higher", "lower", or "half" where 0.5 is best.
        value: Of the synthetic images.
        low: Lower end of its interval, at most `value`.
        high: Upper end, at least `value`.
        real: The same figure of real images in the place of the synthetic ones.
        real_low: Lower end of its interval.
        real_high: Upper end.
    """

    name: str
    title: str
    meaning: str
    better: Better
    value: float
    low: float
    high: float
    real: float
    real_low: float
    real_high: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    high: float


def figure(
    name: str, title: str, meaning: str, better: Better, own: Estimate, real: Estimate
) -> Figure:
    """A figure from the estimates of both kinds of images."""
    return Figure(
        name,
        title,
        meaning,
        better,
        value=own.value,
        low=own.low,
        high=own.high,
        real=real.value,
        real_low=real.low,
        real_high=real.high,
    )


def half_of(strata: Int64[np.ndarray, " n"], rng: np.random.Generator) -> Int64[np.ndarray, " h"]:
    """Rows of a random half of each stratum, without replacement; of an odd one the smaller."""
    shuffled = rng.permutation(len(strata))
    # Stable, so that rows of a stratum stay in the random order.
    ordered = shuffled[np.argsort(strata[shuffled], kind="stable")]
    sizes = np.bincount(strata)
    place = np.arange(len(strata)) - np.repeat(sizes.cumsum() - sizes, sizes)
    return np.sort(ordered[place < np.repeat(sizes // 2, sizes)])


def from_halves(
    value: float,
    halves: Float[np.ndarray, " b"],
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """Interval of a figure from the same figure of random halves of its images.

    Images drawn with replacement repeat. A repeated image is its own nearest neighbour, and its
    kernel with itself counts as one of two images, so the ordinary bootstrap is wrong for figures
    of neighbours, of kernels and of binned scores. Subsamples of m of n images without replacement
    are right (Politis & Romano 1994, doi:10.1214/aos/1176325770). For a figure whose variance goes
    as s / n, they scatter around the figure of all with variance s (1 / m - 1 / n), which for
    m = n / 2 is s / n itself: halves need no rescaling. As such figures depend on the number of
    images, the halves' deviations are taken from their own mean. A figure whose variance falls
    faster, such as a kernel distance of equal distributions, gets an interval that is too wide
    rather than too narrow.

    Args:
        value: Figure of all images.
        halves: Figure of each half.
        bounds: Of the figure.
    """
    if not len(halves):
        return Estimate(value, value, value)
    low, high = value + np.quantile(halves - halves.mean(), _TAILS)
    low, high = np.clip([low, high], *bounds)
    return Estimate(value, min(float(low), value), max(float(high), value))


def from_resamples(value: float, resamples: Float[np.ndarray, " b"]) -> Estimate:
    """Percentile interval from a figure's bootstrap resamples (Efron 1979), widened to hold it."""
    if not len(resamples):
        return Estimate(value, value, value)
    low, high = np.quantile(resamples, _TAILS)
    return Estimate(value, min(float(low), value), max(float(high), value))


def bootstrapped(
    statistic: Callable[..., float],
    *parts: np.ndarray,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> Estimate:
    """Percentile bootstrap of a statistic of independent samples; each is resampled by itself."""
    drawn = [
        statistic(*(part[rng.integers(len(part), size=len(part))] for part in parts))
        for _ in range(n_bootstrap)
    ]
    return from_resamples(statistic(*parts), np.array(drawn))


def area(low: Float[np.ndarray, " n"], high: Float[np.ndarray, " m"]) -> float:
    """Area under the ROC curve: chance that one of `high` exceeds one of `low`, ties by half."""
    from scipy.stats import rankdata

    n, m = len(low), len(high)
    ranks = rankdata(np.concatenate([low, high]))
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))
