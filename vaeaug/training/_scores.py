"""Selection of the EMA weights that score best on held-out images."""

import math

import torch
from torch import Tensor

from vaeaug.training._state import TrainState

# The score is still rising if more than this fraction of the total gain came in the second half of
# the steps.
RISING = 0.05
# A slope cannot be judged from fewer evaluations.
MIN_HISTORY = 3


@torch.no_grad()
def keep_best(state: TrainState, score: float) -> None:
    """Keep the EMA weights if their score beats the best one so far.

    Args:
        state: The training state.
        score: Held-out score; higher is better.
    """
    if _note(state, [score])[0]:
        state.best = {name: tensor.clone() for name, tensor in state.average.state_dict().items()}


@torch.no_grad()
def keep_best_rows(state: TrainState, scores: list[float]) -> None:
    """Keep the parameters of each class whose held-out score beats its best one so far.

    Args:
        state: The training state.
        scores: Held-out score of each class; higher is better.
    """
    rows = [label for label, gained in enumerate(_note(state, scores)) if gained]
    for name, parameter in state.average.class_parameters().items():  # type: ignore[operator]
        state.best[name][rows] = parameter[rows]


def by_class(values: Tensor, labels: Tensor, n_classes: int) -> list[float]:
    """Average values by class.

    Args:
        values: One value per row, (n,).
        labels: Class indices, (n,).
        n_classes: Number of classes.

    Returns:
        Mean value of each class; minus infinity for a class without rows.
    """
    by_label = [values[labels == label] for label in range(n_classes)]
    return [float(of_class.mean()) if len(of_class) else -math.inf for of_class in by_label]


def mean_finite(scores: list[float]) -> float:
    """Average the finite scores.

    Args:
        scores: Score of each class.

    Returns:
        Mean over the classes that have a finite score; NaN if there is none.
    """
    finite = [score for score in scores if math.isfinite(score)]
    return sum(finite) / len(finite) if finite else math.nan


def still_rising(first: float, history: list[list[float]]) -> float:
    """Return the fraction of the total gain that came in the second half of the steps.

    A stage that ends while its score is rising could have learned more. The learning rate falls to
    zero at the end, which flattens every curve there, so that the slope is measured over half of
    the steps.

    Args:
        first: Score before the first step.
        history: Step and score of each evaluation, in order.

    Returns:
        The fraction; 0 if it is at most `RISING` or cannot be judged.
    """
    if len(history) < MIN_HISTORY:
        return 0.0
    end, last = history[-1]
    scores_of_first_half = [score for step, score in history if step <= 0.5 * end]
    total = last - first
    if not scores_of_first_half or not total > 0:
        return 0.0
    rise = (last - max(scores_of_first_half)) / total
    return rise if rise > RISING else 0.0


def _note(state: TrainState, scores: list[float]) -> list[bool]:
    record = state.record
    record.latest = scores
    if not record.best:
        record.first = record.first or scores
        record.best = [-math.inf] * len(scores)
    better = [score > best for score, best in zip(scores, record.best, strict=True)]
    # Not max(): a NaN score must neither win nor be kept.
    record.best = [
        score if gained else best
        for score, best, gained in zip(scores, record.best, better, strict=True)
    ]
    record.evaluations_without_gain = 0 if any(better) else record.evaluations_without_gain + 1
    return better
