"""What the gate and the search will train, counted before they do."""

from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.evaluation.gate.arms import Arm, fixed_arms, quick_arms
from vaeaug.evaluation.gate.bench import LATER, Bench
from vaeaug.evaluation.gate.probe import train_probe
from vaeaug.evaluation.gate.search import RUNGS, default_candidates
from vaeaug.training import clock_of

# Steps of two trainings of a probe, whose difference says what one step takes.
_STEPS = (2, 8)


def cost_of_gate(bench: Bench, *, quick: bool) -> float:
    """Count the trainings of one split.

    Args:
        bench: The bench.
        quick: Whether it is a prediction.

    Returns:
        Trainings, in units of the steps of one.
    """
    if quick:
        return float(len(quick_arms(bench.data)) + 1 + (bench.data.unlabelled is not None))
    return len(list(fixed_arms(bench.data))) + LATER


def cost_of_search(bench: Bench, base: Recipe) -> tuple[int, float]:
    """Count what a search trains.

    Args:
        bench: The bench.
        base: The recipe of the job.

    Returns:
        Splits, each with a generator, and trainings on all of them in units of the steps of one.
    """
    data = bench.data
    trainings = float(len(list(fixed_arms(data))) * RUNGS[0][1])
    n_recipes = len(default_candidates(base, features=data.are_features))
    for part, n_splits, n_kept in RUNGS:
        trainings += part * n_splits * (1 + n_recipes)
        n_recipes = min(n_recipes, n_kept)
    return max(n_splits for _, n_splits, _ in RUNGS), trainings


def seconds_of_probe(bench: Bench) -> float:
    """Time a few steps of a classifier.

    Args:
        bench: The bench; what is trained is thrown away.

    Returns:
        Seconds of a whole training.
    """
    config: EvaluationConfig = bench.config
    arm = Arm("oversampling", classic=not bench.data.are_features)
    now, seconds = clock_of(bench.device), []
    (split,) = bench.splits(1)
    train = bench.data.subset(split.train)
    for steps in _STEPS:
        began = now()
        train_probe(
            train,
            None,
            arm,
            config,
            seed=0,
            steps=steps,
            factory=bench.factory,
            device=bench.device,
        )
        seconds.append(now() - began)
    each = max(0.0, seconds[1] - seconds[0]) / (_STEPS[1] - _STEPS[0])
    return seconds[0] + each * max(0, bench.steps - _STEPS[0])
