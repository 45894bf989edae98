"""How many real and synthetic images a class gets, and which of them fill an epoch."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

Share = float | Mapping[int | str, float] | Literal["all"]


class MergeError(ValueError):
    """A real dataset and a run folder that do not belong together, or an impossible share."""


class Slots(NamedTuple):
    real: int
    synthetic: int


def slot_counts(
    n_real: Sequence[int],
    n_synthetic: Sequence[int],
    share: Share,
    balance: str | None,
    class_names: Sequence[str],
) -> list[Slots]:
    """Real and synthetic slots of every class."""
    if share == "all":
        if balance is not None:
            raise MergeError("share 'all' uses every image once: expected balance None with it")
        _warn_without_synthetic(n_real, n_synthetic, class_names)
        return [Slots(*counts) for counts in zip(n_real, n_synthetic, strict=True)]
    shares = shares_of(share, class_names)
    without = [0 if s > 0 else 1 for s in shares]
    _warn_without_synthetic(n_real, np.maximum(n_synthetic, without).tolist(), class_names)
    shares = [s if n > 0 else 0.0 for s, n in zip(shares, n_synthetic, strict=True)]
    # m = round(n s / (1 - s)) is within (1 - s) / 2 < 1/2 of s (n + m): it is round(s (n + m)).
    slots = [Slots(n, round(n * s / (1 - s))) for n, s in zip(n_real, shares, strict=True)]
    if balance is None:
        return slots
    most = max(sum(counts) for counts in slots)
    if 0 in n_real:
        empty = [name for name, n in zip(class_names, n_real, strict=True) if n == 0]
        raise MergeError(
            f"balance 'classes': expected real images of every class, got none of {empty}"
        )
    return [Slots(most - round(s * most), round(s * most)) for s in shares]


def shares_of(share: Any, class_names: Sequence[str]) -> list[float]:
    if not isinstance(share, Mapping):
        return [_fraction(share, "share")] * len(class_names)
    shares = [0.0] * len(class_names)
    named: set[int] = set()
    for key, value in share.items():
        label = class_names.index(key) if key in class_names else key
        known = isinstance(label, (int, np.integer)) and 0 <= label < len(class_names)
        if not known or int(label) in named:
            raise MergeError(
                f"share: expected each class once, by a name or index of {tuple(class_names)}, "
                f"got {key!r}"
            )
        named.add(int(label))
        shares[int(label)] = _fraction(value, f"share[{key!r}]")
    return shares


def _fraction(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < 1:
        raise MergeError(f"{what}: expected a number in [0, 1), or 'all', got {value!r}")
    return number


def _warn_without_synthetic(
    n_real: Sequence[int], n_synthetic: Sequence[int], class_names: Sequence[str]
) -> None:
    counts = zip(class_names, n_real, n_synthetic, strict=True)
    missing = [name for name, real, made in counts if real > 0 and made == 0]
    if missing:
        warnings.warn(
            f"no synthetic samples of the classes {missing}: their synthetic share is 0. Unequal "
            f"shares were measured to hurt the rare classes, because blur becomes a cue for the "
            f"class. Generate for every class (plan.min_share in the configuration), or use "
            f"share=0 to train on real images only.",
            UserWarning,
            stacklevel=5,
        )


def fill(n_pool: int, n: int, epoch: int, key: tuple[int, int, int]) -> np.ndarray:
    """Which ``n`` of a pool fill the slots of an epoch: whole turns, then a moving window.

    The window of r = n mod n_pool slots moves over one permutation for ceil(n_pool / r) epochs and
    wraps at its end, so it never holds a sample twice and leaves none out.
    """
    if n == 0:
        return np.empty(0, dtype=np.int64)
    turns, rest = divmod(n, n_pool)
    parts = [np.arange(n_pool)] * turns
    if rest:
        round_, step = divmod(epoch, -(-n_pool // rest))
        seed, label, kind = key
        generator = np.random.Generator(
            np.random.Philox(
                np.random.SeedSequence([abs(seed), int(seed < 0), label, kind, round_])
            )
        )
        order = generator.permutation(n_pool)
        parts.append(order[(step * rest + np.arange(rest)) % n_pool])
    return np.concatenate(parts)


def rows_by_class(labels: np.ndarray, n_classes: int) -> list[np.ndarray]:
    return [np.flatnonzero(labels == label) for label in range(n_classes)]


def rare_classes(counts: Int64[np.ndarray, " k"]) -> Bool[np.ndarray, " k"]:
    """Classes with fewer images than the mean of those that have any."""
    return (counts > 0) & (counts < counts[counts > 0].mean())
