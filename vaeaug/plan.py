"""Class counts and a sampling strategy in, how many samples to make of each class out.

The strategy is imbalanced-learn's, resolved once by its own `check_sampling_strategy`. Around it
stand the bounds that a generator needs: a class too small to learn from gets nothing, and every
class can be given a synthetic share, because synthetic samples for the rare classes alone were
measured to teach a classifier that "looks synthetic" means "rare".
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

# Makes every class at least a quarter synthetic where the strategy is a rule (see `make_plan`).
DEFAULT_MIN_SHARE = 0.25


class PlanError(ValueError):
    """A sampling strategy that these labels cannot satisfy."""


@dataclass(frozen=True)
class ClassPlan:
    """What is wanted of one class.

    Attributes:
        label: Class index.
        name: Class name.
        real: Real images of the class.
        target_count: Total wanted, real and synthetic.
        n_synthetic: Samples to make, ``target_count - real``.
        reason: Why this many, in words for the user.
    """

    label: int
    name: str
    real: int
    target_count: int
    n_synthetic: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """The plan of every class, in the order of their labels."""

    classes: tuple[ClassPlan, ...]

    def __iter__(self) -> Iterator[ClassPlan]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, label: int) -> ClassPlan:
        return self.classes[label]

    @property
    def n_synthetic(self) -> int:
        """Samples to make in all."""
        return sum(each.n_synthetic for each in self.classes)

    def to_json(self) -> list[dict[str, Any]]:
        """One plain mapping per class."""
        return [dict(vars(each)) for each in self.classes]


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
    min_share: float | None = 0.0,
) -> Plan:
    """Decide how many samples to make of each class.

    Args:
        labels: Class index of every real image, shape (N,). Negative labels (unlabelled) are
            left out of the counts.
        sampling_strategy: imbalanced-learn's over-sampling strategy. A string rule ("auto",
            "minority", "not minority", "not majority", "all"); a float (two classes only: wanted
            ratio of the rarer to the larger class); a mapping class -> total wanted; a callable
            from labels to such a mapping; or a list of classes to bring up to the largest one
            (imbalanced-learn has lists for cleaning only). Classes by index or by name.
        class_names: Names by class index. Default: the indices.
        target_ratio: With a string rule: bring its classes to this fraction of the largest class
            instead of to all of it. In (0, 1]; any number of classes.
        max_synthetic_ratio: Bound on synthetic samples per real image of a class.
        min_class_count: A class with fewer real images gets none.
        min_share: Every class gets at least so many that this share of (real + synthetic) is
            synthetic. In [0, 1). None: 0.25 for rules and ratios, 0 where the strategy names
            classes or totals.

    Returns:
        The plan, one `ClassPlan` per class.

    Raises:
        PlanError: If the strategy asks for fewer than there are, names an unknown class, or is
            not a strategy.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise PlanError(
            f"labels: expected a non-empty 1-D array of integers, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    labels = labels[labels >= 0]
    if not labels.size:
        raise PlanError("labels: expected at least one labelled image, got unlabelled ones alone")
    n_classes = len(class_names) if class_names is not None else int(labels.max(initial=-1)) + 1
    counts = np.bincount(labels, minlength=n_classes)
    if len(counts) > n_classes:
        raise PlanError(f"labels: expected classes below {n_classes}, got {len(counts) - 1}")
    names = tuple(class_names) if class_names is not None else tuple(map(str, range(n_classes)))
    _check_bounds(target_ratio, max_synthetic_ratio, min_class_count, min_share)

    explicit = not isinstance(sampling_strategy, str | Real)
    wanted = _resolve(sampling_strategy, labels, counts, names, target_ratio)
    if min_share is None:
        min_share = 0.0 if explicit else DEFAULT_MIN_SHARE
    return Plan(
        tuple(
            _plan_class(
                label=label,
                name=names[label],
                real=int(counts[label]),
                wanted=wanted.get(label, 0),
                min_share=min_share,
                max_synthetic_ratio=max_synthetic_ratio,
                min_class_count=min_class_count,
            )
            for label in range(n_classes)
        )
    )


def _plan_class(
    *,
    label: int,
    name: str,
    real: int,
    wanted: int,
    min_share: float,
    max_synthetic_ratio: float | None,
    min_class_count: int,
) -> ClassPlan:
    n_synthetic, reason = wanted, "sampling strategy" if wanted else "not in the strategy"
    # The small slack keeps 0.25 / 0.75 * 3 at 1 where floating point makes it 1.0000000000000002.
    companions = math.ceil(min_share / (1 - min_share) * real - 1e-9)
    if companions > n_synthetic:
        n_synthetic = companions
        reason = f"so that {min_share:.0%} of the class can be synthetic, as of the others"
    if max_synthetic_ratio is not None:
        most = math.floor(max_synthetic_ratio * real + 1e-9)
        if n_synthetic > most:
            n_synthetic = most
            reason = f"bounded by max_synthetic_ratio {max_synthetic_ratio:g}"
    if real < min_class_count and n_synthetic:
        n_synthetic = 0
        reason = (
            f"too few real images ({real} of at least {min_class_count}) to learn from: use "
            "classic augmentation for this class"
        )
    return ClassPlan(label, name, real, real + n_synthetic, n_synthetic, reason)


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
            "target_ratio: expected a string sampling_strategy beside it, got "
            f"{type(strategy).__name__}; give one or the other"
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
        strategy = {_class_index(key, names): _whole(total, key) for key, total in strategy.items()}
        for key, total in strategy.items():
            if total < counts[key]:
                raise PlanError(
                    f"sampling_strategy: class {names[key]!r} has {counts[key]} real images and "
                    f"{total} are asked for in all; totals count the real ones, so expected at "
                    f"least {counts[key]}"
                )
    elif isinstance(strategy, Sequence) and not isinstance(strategy, str):
        strategy = {_class_index(key, names): int(counts.max()) for key in strategy}
    if isinstance(strategy, Real) and np.count_nonzero(counts) > 2:
        raise PlanError(
            f"sampling_strategy: a number ({strategy}) is for two classes, and there are "
            f"{np.count_nonzero(counts)}; for more classes use target_ratio={strategy}"
        )
    try:
        wanted = {
            int(key): int(total)
            for key, total in check_sampling_strategy(strategy, labels, "over-sampling").items()
        }
    except ValueError as error:
        raise PlanError(f"sampling_strategy: {error}") from None
    if target_ratio is not None:
        goal = math.ceil(target_ratio * int(counts.max()) - 1e-9)
        wanted = {key: max(0, goal - int(counts[key])) for key in wanted}
    return wanted


def _class_index(key: object, names: tuple[str, ...]) -> int:
    if isinstance(key, str) and key in names:
        return names.index(key)
    if isinstance(key, int | np.integer) and 0 <= key < len(names):
        return int(key)
    if isinstance(key, str) and key.isdigit() and int(key) < len(names):
        return int(key)  # JSON and YAML turn the keys of a mapping into text
    raise PlanError(
        f"sampling_strategy: unknown class {key!r}; expected one of {', '.join(names[:20])}"
        f"{', ...' if len(names) > 20 else ''} or an index below {len(names)}"
    )


def _whole(total: object, key: object) -> int:
    if isinstance(total, int | float | np.number) and not isinstance(total, bool):
        whole = int(total)
        if whole == total:
            return whole
    raise PlanError(f"sampling_strategy: class {key!r}: expected a whole total, got {total!r}")


def _check_bounds(
    target_ratio: float | None,
    max_synthetic_ratio: float | None,
    min_class_count: int,
    min_share: float | None,
) -> None:
    if target_ratio is not None and not 0 < target_ratio <= 1:
        raise PlanError(f"target_ratio: expected a number in (0, 1], got {target_ratio}")
    if max_synthetic_ratio is not None and not max_synthetic_ratio >= 0:
        raise PlanError(f"max_synthetic_ratio: expected at least 0, got {max_synthetic_ratio}")
    if min_class_count < 1:
        raise PlanError(f"min_class_count: expected at least 1, got {min_class_count}")
    if min_share is not None and not 0 <= min_share < 1:
        raise PlanError(f"min_share: expected a number in [0, 1), got {min_share}")
