"""How many real and synthetic images a class gets, and which of them fill an epoch."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Share = float | Mapping[int | str, float] | Literal["all"]
Balance = Literal["plan", "classes"] | None
# Where the run has no plan.
DEFAULT_SHARE = 0.3


class MergeError(ValueError):
    """A real dataset and a run folder that do not belong together, or an impossible share."""


class Slots(NamedTuple):
    real: int
    synthetic: int


class Planned(NamedTuple):
    """What a run's plan wants of one class when it is merged; see `vaeaug.plan.ClassPlan`."""

    real: int
    size: int
    share: float
    target_count: int

    def slots(self, has_synthetic: bool) -> Slots:
        """As planned; a class that got no samples is filled by its real images."""
        n_synthetic = round(self.share * self.target_count) if has_synthetic else 0
        return Slots(self.target_count - n_synthetic, n_synthetic)


def planned_of(
    plan: Sequence[Mapping[str, Any]] | None, class_names: Sequence[str]
) -> list[Planned] | None:
    """The plan of a manifest in the order of these classes; None where it has none."""
    if not plan:
        return None
    try:
        rows = {row["name"]: Planned(*(row[name] for name in Planned._fields)) for row in plan}
        return [rows[name] for name in class_names]
    except (KeyError, TypeError):
        return None  # of a version before class sizes were planned


def slot_counts(
    n_real: Sequence[int],
    n_synthetic: Sequence[int],
    *,
    share: Share | None,
    balance: Balance,
    planned: Sequence[Planned] | None,
    class_names: Sequence[str],
) -> list[Slots]:
    """Real and synthetic slots of every class.

    Args:
        n_real: Real images by class.
        n_synthetic: Synthetic samples by class.
        share: As for `merge`; None is the plan's.
        balance: As for `merge`.
        planned: The plan by class; None where the run has none.
        class_names: By class.
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
    wanted = max(shares)
    shares = [s if n > 0 else 0.0 for s, n in zip(shares, n_synthetic, strict=True)]
    if balance == "classes":
        if 0 in n_real:
            empty = [name for name, n in zip(class_names, n_real, strict=True) if n == 0]
            raise MergeError(
                f"balance 'classes': expected real images of every class, got none of {empty}"
            )
        most = max(n + companions(n, s) for n, s in zip(n_real, shares, strict=True))
        return [Slots(most - round(s * most), round(s * most)) for s in shares]
    if balance is None or planned is None:
        return [Slots(n, companions(n, s)) for n, s in zip(n_real, shares, strict=True)]
    # As large as the plan wants each class beside the largest share: what a class has no synthetic
    # samples for, its own images fill.
    slots = []
    for n, s, row in zip(n_real, shares, planned, strict=True):
        size = max(n, row.size) if n else 0
        total = size + companions(size, wanted)
        n_made = round(s * total)
        slots.append(Slots(total - n_made, n_made))
    return slots


def companions(size: int, share: float) -> int:
    """Synthetic slots that make up a share of a class beside so many real ones.

    It is within (1 - s) / 2 < 1/2 of s (n + m): it is round(s (n + m)).
    """
    return round(size * share / (1 - share))


def _common_share(planned: Sequence[Planned]) -> float:
    """The share of all classes that get samples; the default where the plan has several."""
    shares = {row.share for row in planned if row.share}
    return shares.pop() if len(shares) == 1 else DEFAULT_SHARE


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


def warn_without_synthetic(
    n_real: Sequence[int],
    n_synthetic: Sequence[int],
    share: Share | None,
    class_names: Sequence[str],
) -> None:
    """Warn of classes that should have a synthetic share and have no samples for it."""
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
        name: Of the class.
        real: Different real images in an epoch.
        synthetic: Different synthetic samples in an epoch.
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
    """How many different images fill the slots of each class, and how many repeat one."""
    counts = []
    for name, real, n_made, filled in zip(class_names, n_real, n_synthetic, slots, strict=True):
        real, n_made = min(real, filled.real), min(n_made, filled.synthetic)
        together = sum(filled)
        counts.append(ClassCounts(name, real, n_made, together - real - n_made, together))
    return counts


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
