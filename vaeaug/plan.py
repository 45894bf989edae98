"""The plan: from class counts and a sampling strategy to the number of samples of each class.

The strategy is that of imbalanced-learn, resolved by its `check_sampling_strategy`, and sets the
size of each class. With synthetic samples for only the rare classes, classifiers were measured to
learn that "looks synthetic" means "rare". Therefore, a size is not filled with synthetic samples:
real images are repeated up to it, and every class gets the same synthetic share on top. Bounds
apply as well: a class that is too small to learn from gets no samples.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np

from vaeaug.notebook import Bar, Card, Shown, Table, counted

# Default synthetic share of every class if the strategy is a rule (see `make_plan`).
DEFAULT_SHARE = 0.3


class PlanError(ValueError):
    """These labels cannot satisfy the sampling strategy."""


@dataclass(frozen=True)
class ClassPlan:
    """The plan of one class.

    Attributes:
        label: Class index.
        name: Class name.
        real: Number of real images of the class.
        size: Number of slots for real images, which are repeated if there are fewer.
        share: Synthetic fraction of the merged class, ``1 - size / target_count``, or 0 for a class
            that gets no samples.
        target_count: Size of the merged class: real images, repeated ones and synthetic samples.
        n_synthetic: Number of samples to generate.
        reason: Explanation of this number for the user.
    """

    label: int
    name: str
    real: int
    size: int
    share: float
    target_count: int
    n_synthetic: int
    reason: str

    @classmethod
    def of_real_images(cls, label: int, name: str, real: int) -> "ClassPlan":
        """Create a plan without synthetic samples.

        Args:
            label: Class index.
            name: Class name.
            real: Number of real images.

        Returns:
            The plan.
        """
        return cls(label, name, real, real, 0.0, real, 0, "")

    @property
    def repeated(self) -> int:
        """Number of slots of the merged class that repeat an image."""
        return self.target_count - self.real - self.n_synthetic


@dataclass(frozen=True)
class Plan(Shown):
    """The plan of every class, in the order of their labels."""

    classes: tuple[ClassPlan, ...]

    def __repr__(self) -> str:
        return f"Plan({counted(len(self), 'classes')}, {self.n_synthetic} synthetic samples)"

    def __iter__(self) -> Iterator[ClassPlan]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, label: int) -> ClassPlan:
        return self.classes[label]

    @property
    def n_synthetic(self) -> int:
        """Number of samples to generate for all classes."""
        return sum(row.n_synthetic for row in self.classes)

    def _card(self) -> Card:
        largest = max((row.target_count for row in self), default=0) or 1
        rows = []
        for row in self:
            parts = (row.real, row.repeated, row.n_synthetic)
            title = f"{row.real} real, {row.repeated} repeated, {row.n_synthetic} synthetic"
            bar = Bar(tuple(part / largest for part in parts), title)
            rows.append((row.name, *parts, row.target_count, bar, row.reason))
        headers = ("class", "real", "repeated", "synthetic", "together", "", "why")
        title = f"Plan of {counted(self.n_synthetic, 'synthetic samples')}"
        return Card(title, tables=[Table(headers, rows, ("real", "repeated", "synthetic"))])

    def to_json(self) -> list[dict[str, Any]]:
        """Convert the plan to JSON types.

        Returns:
            A mapping for each class.
        """
        return [{**vars(row), "repeated": row.repeated} for row in self.classes]


def make_plan(
    labels: np.ndarray | Sequence[int],
    sampling_strategy: str
    | float
    | Mapping[int | str, int]
    | Sequence[int | str]
    | Callable[..., Any] = "auto",
    *,
    class_names: Sequence[str] | None = None,
    target_ratio: float | None = None,
    max_synthetic_ratio: float | None = None,
    min_class_count: int = 1,
    share: float | None = None,
) -> Plan:
    """Decide how many samples to generate for each class, and its size when merged.

    A rule or a ratio sets the size of each class: real images, which are repeated if there are
    fewer. On top of that, every class gets the same synthetic share, so that class sizes keep the
    proportions of the strategy and a synthetic look carries no information about the class. If the
    strategy names classes or totals, it is followed literally: each real image occurs once, and
    synthetic samples fill the class up to the total.

    Args:
        labels: Class index of every real image, shape (N,). Negative labels (unlabelled) are not
            counted.
        sampling_strategy: imbalanced-learn's over-sampling strategy. A string rule ("auto",
            "minority", "not minority", "not majority", "all"); a float (two classes only: desired
            ratio of the rarer to the larger class); a mapping from class to desired total; a
            callable from labels to such a mapping; or a list of classes to bring up to the largest
            one (imbalanced-learn has lists only for cleaning). Classes are given by index or name.
        class_names: Names by class index. Default: the indices.
        target_ratio: With a string rule: bring its classes to this fraction of the largest class
            instead of all of it. In (0, 1]; any number of classes.
        max_synthetic_ratio: Maximum number of synthetic samples per real image of a class.
        min_class_count: A class with fewer real images gets no samples.
        share: Synthetic fraction of every merged class, in [0, 1). With 0, a rule is followed
            literally too, as in imbalanced-learn. If the strategy names classes or totals, this is
            the minimum fraction. None: 0.3 for rules and ratios, otherwise 0.

    Returns:
        The plan, one `ClassPlan` per class.

    Raises:
        PlanError: If the strategy requests fewer samples than exist, names an unknown class, or is
            invalid.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise PlanError(
            f"labels: expected a non-empty 1-D array of integers, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    labels = labels[labels >= 0]
    if not labels.size:
        raise PlanError("labels: expected at least one labelled image, got only unlabelled ones")
    n_classes = len(class_names) if class_names is not None else int(labels.max(initial=-1)) + 1
    counts = np.bincount(labels, minlength=n_classes)
    if len(counts) > n_classes:
        raise PlanError(f"labels: expected classes below {n_classes}, got {len(counts) - 1}")
    names = tuple(class_names) if class_names is not None else tuple(map(str, range(n_classes)))
    _check_bounds(target_ratio, max_synthetic_ratio, min_class_count, share)

    explicit = not isinstance(sampling_strategy, str | Real)
    requested = _resolve(sampling_strategy, labels, counts, names, target_ratio)
    if share is None:
        share = 0.0 if explicit else DEFAULT_SHARE
    plan_class = _literal_plan if explicit or share == 0 else _proportional_plan
    return Plan(
        tuple(
            plan_class(
                ClassPlan.of_real_images(label, names[label], int(counts[label])),
                requested.get(label),
                share,
                _upper_bound(int(counts[label]), max_synthetic_ratio, min_class_count),
            )
            for label in range(n_classes)
        )
    )


def companions(size: int, share: float) -> int:
    """Return the number of synthetic samples that make up a share beside `size` real slots.

    Args:
        size: Number of slots for real images.
        share: Synthetic share, in [0, 1).

    Returns:
        Number of synthetic samples.
    """
    return round(size * share / (1 - share))


def _proportional_plan(
    real_only: ClassPlan, missing: int | None, share: float, upper_bound: tuple[int | None, str]
) -> ClassPlan:
    """Plan a class with the common share on top of its size, which real images fill by repetition.

    A class that gets fewer samples, or none, has the same total: more of its images are repeated.
    """
    size = real_only.real + (missing or 0)
    n, reason = companions(size, share), f"{share:.0%} of every class"
    total = size + n
    bound, why = upper_bound
    if bound is not None and n > bound:
        n, reason = bound, why
    share = share if n else 0.0
    return replace(
        real_only, size=size, share=share, target_count=total, n_synthetic=n, reason=reason
    )


def _literal_plan(
    real_only: ClassPlan, missing: int | None, share: float, upper_bound: tuple[int | None, str]
) -> ClassPlan:
    """Plan a class with each real image once, and synthetic samples up to its total."""
    n, reason = missing or 0, "sampling strategy"
    if not n:
        reason = "not in the strategy" if missing is None else "as large as the strategy has it"
    # The small slack keeps 0.25 / 0.75 * 3, which is 1.0000000000000002 in floating point, at 1.
    minimum = math.ceil(share / (1 - share) * real_only.real - 1e-9)
    if minimum > n:
        n, reason = minimum, f"so that {share:.0%} of the class is synthetic, as of the others"
    bound, why = upper_bound
    if bound is not None and n > bound:
        n, reason = bound, why
    total = real_only.real + n
    share = n / total if total else 0.0
    return replace(real_only, share=share, target_count=total, n_synthetic=n, reason=reason)


def _upper_bound(
    real: int, max_synthetic_ratio: float | None, min_class_count: int
) -> tuple[int | None, str]:
    """Return the maximum number of samples of a class, None if unbounded, and the reason."""
    if real < min_class_count:
        return 0, (
            f"too few real images ({real} of at least {min_class_count}) to learn from: use "
            "classic augmentation for this class"
        )
    if max_synthetic_ratio is not None:
        why = f"bounded by max_synthetic_ratio {max_synthetic_ratio:g}"
        return math.floor(max_synthetic_ratio * real + 1e-9), why
    return None, ""


def _resolve(
    strategy: Any,
    labels: np.ndarray,
    counts: np.ndarray,
    names: tuple[str, ...],
    target_ratio: float | None,
) -> dict[int, int]:
    from imblearn.utils import check_sampling_strategy

    if target_ratio is not None and not isinstance(strategy, str):
        raise PlanError(
            "target_ratio: expected a string sampling_strategy with it, got "
            f"{type(strategy).__name__}; pass one or the other"
        )
    if isinstance(strategy, bool) or not (
        isinstance(strategy, str | Real | Mapping | Sequence) or callable(strategy)
    ):
        raise PlanError(
            "sampling_strategy: expected a rule, a number, a mapping, a list or a callable, got "
            f"{strategy!r}"
        )
    if callable(strategy):
        strategy = strategy(labels)
        if not isinstance(strategy, Mapping):
            raise PlanError(
                "sampling_strategy: expected the callable to return a mapping class -> total, "
                f"got {type(strategy).__name__}"
            )
    if isinstance(strategy, Mapping):
        strategy = {
            _class_index(key, names): _as_integer(total, key) for key, total in strategy.items()
        }
        for key, total in strategy.items():
            if total < counts[key]:
                raise PlanError(
                    f"sampling_strategy: class {names[key]!r} has {counts[key]} real images and "
                    f"a total of {total} is requested; totals include the real ones, so expected "
                    f"at least {counts[key]}"
                )
    elif isinstance(strategy, Sequence) and not isinstance(strategy, str):
        strategy = {_class_index(key, names): int(counts.max()) for key in strategy}
    if isinstance(strategy, Real) and np.count_nonzero(counts) > 2:
        instead = (
            f"use target_ratio={strategy}"
            if 0 < float(strategy) <= 1
            else f"name the total of each, as in {{{names[int(counts.argmin())]!r}: 100}}"
        )
        raise PlanError(
            f"sampling_strategy: a number ({strategy}) is for two classes, and there are "
            f"{np.count_nonzero(counts)}; for more classes {instead}"
        )
    try:
        requested = {
            int(key): int(total)
            for key, total in check_sampling_strategy(strategy, labels, "over-sampling").items()
        }
    except ValueError as error:
        raise PlanError(f"sampling_strategy: {error}") from None
    if target_ratio is not None:
        target = math.ceil(target_ratio * int(counts.max()) - 1e-9)
        requested = {key: max(0, target - int(counts[key])) for key in requested}
    return requested


def _class_index(key: object, names: tuple[str, ...]) -> int:
    if isinstance(key, str) and key in names:
        return names.index(key)
    if isinstance(key, int | np.integer) and 0 <= key < len(names):
        return int(key)
    if isinstance(key, str) and key.isdigit() and int(key) < len(names):
        return int(key)  # JSON and YAML convert the keys of a mapping to strings
    raise PlanError(
        f"sampling_strategy: unknown class {key!r}; expected one of {', '.join(names[:20])}"
        f"{', ...' if len(names) > 20 else ''} or an index below {len(names)}"
    )


def _as_integer(total: object, key: object) -> int:
    if isinstance(total, int | float | np.number) and not isinstance(total, bool):
        integer = int(total)
        if integer == total:
            return integer
    raise PlanError(f"sampling_strategy: class {key!r}: expected a whole total, got {total!r}")


def _check_bounds(
    target_ratio: float | None,
    max_synthetic_ratio: float | None,
    min_class_count: int,
    share: float | None,
) -> None:
    if target_ratio is not None and not 0 < target_ratio <= 1:
        raise PlanError(f"target_ratio: expected a number in (0, 1], got {target_ratio}")
    if max_synthetic_ratio is not None and not max_synthetic_ratio >= 0:
        raise PlanError(f"max_synthetic_ratio: expected at least 0, got {max_synthetic_ratio}")
    if min_class_count < 1:
        raise PlanError(f"min_class_count: expected at least 1, got {min_class_count}")
    if share is not None and not 0 <= share < 1:
        raise PlanError(f"share: expected a number in [0, 1), got {share}")
