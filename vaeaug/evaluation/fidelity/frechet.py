"""The Fréchet distance, through torchmetrics."""

import importlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64

from vaeaug.evaluation.statistics import Interval, half_of

# Each needs the eigenvalues of an f x f matrix, so few are computed and a normal spread is assumed.
_HALVES = 20


def frechet_interval(
    real: Float[np.ndarray, "n f"],
    other: Float[np.ndarray, "m f"],
    strata: tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " m"]],
    *,
    n_resamples: int,
    rng: np.random.Generator,
) -> Interval:
    """Measure the Fréchet distance (Heusel et al. 2017, arXiv:1706.08500) of two sets of features.

    Its interval is that of a normal distribution with the standard deviation of up to 20 random
    halves of the strata.

    Args:
        real: Features of real images.
        other: Features of the images that are compared with them.
        strata: Stratum of each image of either kind.
        n_resamples: Number of halves, at most 20; fewer than 2 give no interval.
        rng: Draws them.

    Returns:
        The distance with its interval.

    Raises:
        ImportError: If torchmetrics is not installed.
    """
    metric = _metric(real.shape[1])
    value = _distance(metric, real, other)
    halves = [
        _distance(metric, real[half_of(strata[0], rng)], other[half_of(strata[1], rng)])
        for _ in range(min(n_resamples, _HALVES))
    ]
    reach = 1.96 * float(np.std(halves, ddof=1)) if len(halves) > 1 else 0.0
    return Interval(value, min(value, max(0.0, value - reach)), value + reach)


def _metric(n_features: int) -> Any:
    try:
        module = importlib.import_module("torchmetrics.image.fid")
    except ImportError as error:
        raise ImportError(
            "the Fréchet distance needs torchmetrics: pip install 'vaeaug[fid]'"
        ) from error
    # The features are computed already; torchmetrics would else ask a network for them.
    identity = torch.nn.Identity()
    identity.num_features = n_features  # type: ignore[assignment]
    return module.FrechetInceptionDistance(feature=identity).set_dtype(torch.float64)


def _distance(metric: Any, real: np.ndarray, other: np.ndarray) -> float:
    metric.reset()
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(other), real=False)
    return float(metric.compute())
