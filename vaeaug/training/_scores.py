"""Which weights are kept: the averaged ones that were best on held-out images."""

import math

import torch
from torch import Tensor

from vaeaug.training._state import Trainee


@torch.no_grad()
def keep_best(trainee: Trainee, score: float) -> None:
    """Keep the averaged weights if `score`, higher is better, beats the best so far."""
    if _note(trainee, [score])[0]:
        trainee.best = {name: each.clone() for name, each in trainee.average.state_dict().items()}


@torch.no_grad()
def keep_best_rows(trainee: Trainee, scores: list[float]) -> None:
    """Keep each class's own parameters where they were best for its own held-out images."""
    rows = [label for label, gained in enumerate(_note(trainee, scores)) if gained]
    for name, parameter in trainee.average.class_parameters().items():  # type: ignore[operator]
        trainee.best[name][rows] = parameter[rows]


def by_class(values: Tensor, labels: Tensor, n_classes: int) -> list[float]:
    """Mean value of each class; minus infinity for a class without any."""
    own = [values[labels == label] for label in range(n_classes)]
    return [float(each.mean()) if len(each) else -math.inf for each in own]


def mean_finite(scores: list[float]) -> float:
    """Mean over the classes that have a score."""
    finite = [score for score in scores if math.isfinite(score)]
    return sum(finite) / len(finite) if finite else math.nan


def _note(trainee: Trainee, scores: list[float]) -> list[bool]:
    state = trainee.state
    if not state.best:
        state.first = state.first or scores
        state.best = [-math.inf] * len(scores)
    better = [now > best for now, best in zip(scores, state.best, strict=True)]
    # Not max(): a score that is not a number must neither win nor be kept.
    state.best = [
        now if gained else best
        for now, best, gained in zip(scores, state.best, better, strict=True)
    ]
    state.evaluations_without_gain = 0 if any(better) else state.evaluations_without_gain + 1
    return better
