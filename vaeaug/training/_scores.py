"""Which weights are kept: the averaged ones that were best on held-out images."""

import math

import torch
from torch import Tensor

from vaeaug.training._state import TrainState

# A gain of more than this part of the whole, in the second half of the steps, is a slope.
RISING = 0.05
# Fewer evaluations say nothing of a slope.
MIN_HISTORY = 3


@torch.no_grad()
def keep_best(state: TrainState, score: float) -> None:
    """Keep the averaged weights if `score`, higher is better, beats the best so far."""
    if _note(state, [score])[0]:
        state.best = {name: tensor.clone() for name, tensor in state.average.state_dict().items()}


@torch.no_grad()
def keep_best_rows(state: TrainState, scores: list[float]) -> None:
    """Keep each class's own parameters where they were best for its own held-out images."""
    rows = [label for label, gained in enumerate(_note(state, scores)) if gained]
    for name, parameter in state.average.class_parameters().items():  # type: ignore[operator]
        state.best[name][rows] = parameter[rows]


def by_class(values: Tensor, labels: Tensor, n_classes: int) -> list[float]:
    """Mean value of each class; minus infinity for a class without any."""
    by_label = [values[labels == label] for label in range(n_classes)]
    return [float(of_class.mean()) if len(of_class) else -math.inf for of_class in by_label]


def mean_finite(scores: list[float]) -> float:
    """Mean over the classes that have a score."""
    finite = [score for score in scores if math.isfinite(score)]
    return sum(finite) / len(finite) if finite else math.nan


def still_rising(first: float, history: list[list[float]]) -> float:
    """How much of all that was gained was gained in the second half of the steps; 0 for little.

    A stage that is stopped on a slope could have learned more. The learning rate falls to zero at
    the end, which flattens every curve there, so that the slope is looked for earlier.

    Args:
        first: Score before the first step.
        history: Step and score of each evaluation, in order.
    """
    if len(history) < MIN_HISTORY:
        return 0.0
    end, last = history[-1]
    before = [score for step, score in history if step <= 0.5 * end]
    total = last - first
    if not before or not total > 0:
        return 0.0
    part = (last - max(before)) / total
    return part if part > RISING else 0.0


def _note(state: TrainState, scores: list[float]) -> list[bool]:
    record = state.record
    record.latest = scores
    if not record.best:
        record.first = record.first or scores
        record.best = [-math.inf] * len(scores)
    better = [now > best for now, best in zip(scores, record.best, strict=True)]
    # Not max(): a score that is not a number must neither win nor be kept.
    record.best = [
        now if gained else best
        for now, best, gained in zip(scores, record.best, better, strict=True)
    ]
    record.evaluations_without_gain = 0 if any(better) else record.evaluations_without_gain + 1
    return better
