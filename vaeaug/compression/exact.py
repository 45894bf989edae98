"""Arithmetic whose results are the same on every machine, in every batch and thread.

A decoder that computes a probability one bit differently from the encoder decodes garbage. So the
networks of a coder run on whole numbers (Ballé et al. 2019, "Integer networks for data compression
with latent-variable models"): weights and activations are integers held in float64, every sum stays
below 2**53 and is exact in whatever order a BLAS adds it up. Exponentials come from tables that are
computed in decimal arithmetic, which rounds the same everywhere.
"""

import decimal
import functools

import numpy as np
from jaxtyping import Float64, Int64

# A real number a is held as round(a * 2**FRACTION), a weight as round(w * 2**WEIGHT).
FRACTION, WEIGHT = 12, 12
# Largest activation, as held; the layers refuse weights with which a sum could reach 2**53.
MOST = 2.0**24
_EXACT = 2.0**53
# Steps of the tables per unit of their argument, as powers of two, and bits of their values.
LOGISTIC_STEP, LOGISTIC_BITS, LOGISTIC_REACH = 13, 24, 16
WEIGHT_STEP, WEIGHT_BITS, WEIGHT_REACH = 8, 20, 16
SCALE_STEP, SCALE_BITS = 6, 16
LOWEST_LOG_SCALE, HIGHEST_LOG_SCALE = -3.0, 5.5


def quantised(weights: np.ndarray) -> np.ndarray:
    """Turn real weights into the whole numbers that stand for them.

    Args:
        weights: Any shape; values beyond 8 are clipped.

    Returns:
        int16, in units of ``2**-WEIGHT``.
    """
    limit = 2**15 - 1
    return np.rint(np.asarray(weights, np.float64) * 2**WEIGHT).clip(-limit, limit).astype(np.int16)


def fits(weights: np.ndarray) -> bool:
    """Whether a layer of these weights can only have exact sums.

    Args:
        weights: (inputs, outputs), as `quantised` gives them.

    Returns:
        True if no input of up to `MOST` makes a partial sum of 2**53.
    """
    reach = np.abs(weights.astype(np.float64)).sum(axis=0).max(initial=0.0)
    return bool(reach * MOST + 2.0**45 < _EXACT)


def rescaled(sums: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Bring products of activations and weights back to the scale of activations.

    Args:
        sums: Whole numbers, changed in place.

    Returns:
        The nearest whole numbers at ``2**-FRACTION``, at most `MOST` in size.
    """
    sums *= 2.0**-WEIGHT
    sums += 0.5
    np.floor(sums, out=sums)
    return np.clip(sums, -MOST, MOST, out=sums)


@functools.cache
def decaying(n: int, step: int) -> Float64[np.ndarray, " n"]:
    """Compute ``exp(-i / 2**step)`` for i < n, with the same bits on every machine.

    Args:
        n: Entries.
        step: Steps per unit, as a power of two.

    Returns:
        The table. Each entry is one product of two correctly rounded numbers.
    """
    fine = min(n, 256)
    with decimal.localcontext(decimal.Context(prec=30)):
        unit = decimal.Decimal(2) ** step
        low = np.array([float((-decimal.Decimal(i) / unit).exp()) for i in range(fine)])
        high = np.array(
            [float((-decimal.Decimal(i * fine) / unit).exp()) for i in range(-(-n // fine))]
        )
    return (high[:, None] * low[None, :]).reshape(-1)[:n]


def exponential(x: float) -> float:
    """Compute exp(x), rounded the same on every machine.

    Args:
        x: Any number.

    Returns:
        Its exponential.
    """
    with decimal.localcontext(decimal.Context(prec=30)):
        return float(decimal.Decimal(x).exp())


@functools.cache
def logistic_table() -> Int64[np.ndarray, " n"]:
    """Tabulate the logistic function from -16 to 16.

    Returns:
        Entry i is the logistic of ``i / 2**LOGISTIC_STEP - 16``, in units of ``2**-LOGISTIC_BITS``;
        0 and 1 at the ends.
    """
    half = LOGISTIC_REACH << LOGISTIC_STEP
    falling = decaying(half + 1, LOGISTIC_STEP)
    upper = np.floor(2.0**LOGISTIC_BITS / (1 + falling) + 0.5).astype(np.int64)
    table = np.concatenate([(1 << LOGISTIC_BITS) - upper[:0:-1], upper])
    table[0], table[-1] = 0, 1 << LOGISTIC_BITS
    return table


@functools.cache
def weight_table() -> Int64[np.ndarray, " n"]:
    """Tabulate exp(-d) for the weights of a mixture.

    Returns:
        Entry i is the exponential of ``-i / 2**WEIGHT_STEP``, in units of ``2**-WEIGHT_BITS``.
    """
    values = decaying((WEIGHT_REACH << WEIGHT_STEP) + 1, WEIGHT_STEP)
    return np.floor(values * 2.0**WEIGHT_BITS + 0.5).astype(np.int64)


@functools.cache
def inverse_scale_table() -> Int64[np.ndarray, " n"]:
    """Tabulate 1 / scale, for log scales from `LOWEST_LOG_SCALE` on.

    Returns:
        Entry i is ``exp(-(LOWEST_LOG_SCALE + i / 2**SCALE_STEP))`` in units of ``2**-SCALE_BITS``.
    """
    steps = int((HIGHEST_LOG_SCALE - LOWEST_LOG_SCALE) * 2**SCALE_STEP)
    values = decaying(steps + 1, SCALE_STEP) * exponential(-LOWEST_LOG_SCALE)
    return np.floor(values * 2.0**SCALE_BITS + 0.5).astype(np.int64)
