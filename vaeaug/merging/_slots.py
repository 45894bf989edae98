"""Numbers of real and synthetic images per class, and the images that fill an epoch."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Share = float | Mapping[int | str, float] | Literal["all"]
Balance = Literal["plan", "classes"] | None
# The share if the run has no plan.
DEFAULT_SHARE = 0.3


class MergeError(ValueError):
    """A real dataset and a run folder do not match, or a share is impossible."""


class Slots(NamedTuple):
    """Numbers of real and synthetic slots of a class."""

    real: int
    synthetic: int


class Planned(NamedTuple):
    """The part of a class plan that merging needs; see `vaeaug.plan.ClassPlan`."""

    real: int
    size: int
    share: float
    target_count: int

    def slots(self, has_synthetic: bool) -> Slots:
        """Return the planned slots; a class without samples is filled by its real images.

        Args:
            has_synthetic: Whether the class has synthetic samples.

        Returns:
            The slots.
        """
        n_synthetic = round(self.share * self.target_count) if has_synthetic else 0
        return Slots(self.target_count - n_synthetic, n_synthetic)


def planned_of(
    plan: Sequence[Mapping[str, Any]] | None, class_names: Sequence[str]
) -> list[Planned] | None:
    """Return the plan of a manifest in the order of these classes.

    Args:
        plan: ``extra["plan"]`` of a manifest.
        class_names: Classes of the merged dataset.

    Returns:
        The plan by class; None if the manifest has none.
    """
    if not plan:
        return None
    try:
        rows = {row["name"]: Planned(*(row[name] for name in Planned._fields)) for row in plan}
        return [rows[name] for name in class_names]
    except (KeyError, TypeError):
        return None  # the manifest is older than the planning of class sizes


def slot_counts(
    n_real: Sequence[int],
    n_synthetic: Sequence[int],
    *,
    share: Share | None,
    balance: Balance,
    planned: Sequence[Planned] | None,
    class_names: Sequence[str],
) -> list[Slots]:
    """Compute the numbers of real and synthetic slots of every class.

    Args:
        n_real: Real images by class.
        n_synthetic: Synthetic samples by class.
        share: As for `merge`; None: that of the plan.
        balance: As for `merge`.
        planned: The plan by class; None if the run has none.
        class_names: Names by class.

    Returns:
        Slots by class.

    Raises:
        MergeError: If share and balance contradict each other or a class has no real images.
    """
    if share == "all":
        if balance == "classes":
            raise MergeError("share 'all' uses every image once: expected balance None with it")
        return [Slots(*counts) for counts in zip(n_real, n_synthetic, strict=True)]
    if share is None:
        if planned is None:
            share = DEFAULT_SHARE
        elif balance == "plan" and [row.real for row in planned] == list(n_real):
            return [row.slots(n > 0) for row, n in zip(planned, n_synthetic, strict=True)]
        else:
            share = _common_share(planned)
    shares = shares_of(share, class_names)
    largest_share = max(shares)
    shares = [s if n > 0 else 0.0 for s, n in zip(shares, n_synthetic, strict=True)]
    if balance == "classes":
        counts = list(zip(class_names, n_real, n_synthetic, strict=True))
        if empty := [name for name, real, synthetic in counts if synthetic and not real]:
            raise MergeError(
                f"balance 'classes': expected real images of every class, got none of {empty}"
            )
        n_slots = max(n + companions(n, s) for n, s in zip(n_real, shares, strict=True))
        # A class of which there is nothing at all has nothing to fill slots with.
        return [
            Slots(n_slots - round(s * n_slots), round(s * n_slots)) if n else Slots(0, 0)
            for n, s in zip(n_real, shares, strict=True)
        ]
    if balance is None or planned is None:
        return [Slots(n, companions(n, s)) for n, s in zip(n_real, shares, strict=True)]
    # All classes get the size that the plan implies for the largest share; if a class lacks
    # synthetic samples, its real images fill the slots.
    slots = []
    for n, s, row in zip(n_real, shares, planned, strict=True):
        size = max(n, row.size) if n else 0
        total = size + companions(size, largest_share)
        synthetic = round(s * total)
        slots.append(Slots(total - synthetic, synthetic))
    return slots


def companions(size: int, share: float) -> int:
    """Return the number of synthetic slots that make up a share beside `size` real ones.

    With m = round(s n / (1 - s)), m is within 1/2 of s n / (1 - s), and within (1 - s) / 2 < 1/2 of
    s (n + m). Hence it equals round(s (n + m)).

    Args:
        size: Number n of real slots.
        share: Synthetic share s, in [0, 1).

    Returns:
        Number m of synthetic slots.
    """
    return round(size * share / (1 - share))


def _common_share(planned: Sequence[Planned]) -> float:
    """Return the share of all classes that get samples; the default if the plan has several."""
    shares = {row.share for row in planned if row.share}
    return shares.pop() if len(shares) == 1 else DEFAULT_SHARE


def shares_of(share: Any, class_names: Sequence[str]) -> list[float]:
    """Return the share of every class.

    Args:
        share: A number in [0, 1) or a mapping from class name or index to such numbers.
        class_names: Names by class.

    Returns:
        Shares by class; 0 for classes that a mapping does not name.

    Raises:
        MergeError: If a number or a class is invalid.
    """
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


def warn_without_synthetic(
    n_real: Sequence[int],
    n_synthetic: Sequence[int],
    share: Share | None,
    class_names: Sequence[str],
) -> None:
    """Warn about classes that should have a synthetic share but have no samples.

    Args:
        n_real: Real images by class.
        n_synthetic: Synthetic samples by class.
        share: As for `merge`.
        class_names: Names by class.
    """
    everywhere = share is None or share == "all"
    shares = [1.0] * len(class_names) if everywhere else shares_of(share, class_names)
    counts = zip(class_names, n_real, n_synthetic, shares, strict=True)
    missing = [name for name, real, n, s in counts if real > 0 and n == 0 and s > 0]
    if missing:
        warnings.warn(
            f"no synthetic samples of the classes {missing}: their synthetic share is 0. Unequal "
            f"shares were measured to hurt the rare classes, because blur becomes a cue for the "
            f"class. Generate for every class (plan.share in the configuration), or use "
            f"share=0 to train on real images only.",
            UserWarning,
            stacklevel=4,
        )


class ClassCounts(NamedTuple):
    """One class of a merged dataset, in images.

    Attributes:
        name: Name of the class.
        real: Distinct real images in an epoch.
        synthetic: Distinct synthetic samples in an epoch.
        repeated: Slots that repeat one of these.
        together: All slots.
    """

    name: str
    real: int
    synthetic: int
    repeated: int
    together: int


def class_counts(
    class_names: Sequence[str],
    n_real: Sequence[int],
    n_synthetic: Sequence[int],
    slots: Sequence[Slots],
) -> list[ClassCounts]:
    """Count the distinct images in the slots of each class, and the slots that repeat one.

    Args:
        class_names: Names by class.
        n_real: Real images by class.
        n_synthetic: Synthetic samples by class.
        slots: Slots by class.

    Returns:
        Counts by class.
    """
    counts = []
    for name, real, synthetic, filled in zip(class_names, n_real, n_synthetic, slots, strict=True):
        real, synthetic = min(real, filled.real), min(synthetic, filled.synthetic)
        together = sum(filled)
        counts.append(ClassCounts(name, real, synthetic, together - real - synthetic, together))
    return counts


def fill(n_pool: int, n: int, epoch: int, key: tuple[int, int, int]) -> np.ndarray:
    """Choose the ``n`` rows of a pool that fill the slots of an epoch.

    The whole pool is taken ``n // n_pool`` times. The remaining r = n mod n_pool slots are a window
    that moves over one permutation for ceil(n_pool / r) epochs and wraps at its end, so that it
    never holds a sample twice and leaves none out.

    Args:
        n_pool: Number of rows in the pool.
        n: Number of slots.
        epoch: Number of the epoch, from 0.
        key: Seed, class and kind of the permutation.

    Returns:
        Rows of the pool, (n,).
    """
    if n == 0:
        return np.empty(0, dtype=np.int64)
    turns, remainder = divmod(n, n_pool)
    parts = [np.arange(n_pool)] * turns
    if remainder:
        round_, step = divmod(epoch, -(-n_pool // remainder))
        seed, label, kind = key
        generator = np.random.Generator(
            np.random.Philox(
                np.random.SeedSequence([abs(seed), int(seed < 0), label, kind, round_])
            )
        )
        order = generator.permutation(n_pool)
        parts.append(order[(step * remainder + np.arange(remainder)) % n_pool])
    return np.concatenate(parts)


def rows_by_class(labels: np.ndarray, n_classes: int) -> list[np.ndarray]:
    """Group row numbers by class.

    Args:
        labels: Class indices, (n,).
        n_classes: Number of classes.

    Returns:
        Row numbers of each class.
    """
    return [np.flatnonzero(labels == label) for label in range(n_classes)]
