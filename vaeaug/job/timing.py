"""How long an evaluation or a search will take, told before it begins."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from vaeaug.config import AugmentConfig, EvaluationConfig
from vaeaug.data import LabelledImages
from vaeaug.evaluation import Bench, ProbeFactory, cost_of_gate, cost_of_search, seconds_of_probe
from vaeaug.stages import JobTime, SplitStages, time_job
from vaeaug.threads import torch_threads
from vaeaug.training import resolve_device

# Stages of a job that the generators of the splits go through too.
_NOT_OF_SPLITS = ("restorer", "diagnosis", "report")


@dataclass(frozen=True)
class EvaluationTime:
    """What an evaluation or a search will cost.

    Attributes:
        what: "evaluation", "search" or "prediction".
        splits: Splits of the data.
        generator_seconds: Of the generator of one split and its samples.
        trainings: Trainings of classifiers on all splits, in units of the steps of one.
        training_seconds: Seconds of one.
        workers: Processes at work.
        more: What the number of splits depends on, in words; "" where it is fixed.
    """

    what: str
    splits: int
    generator_seconds: float
    trainings: float
    training_seconds: float
    workers: int
    more: str = ""

    @property
    def seconds(self) -> float:
        """Seconds in all, where every process has a core."""
        work = self.splits * self.generator_seconds + self.trainings * self.training_seconds
        # A generator is made by one process.
        return max(work / self.workers, self.generator_seconds)

    def __str__(self) -> str:
        processes = "one process" if self.workers == 1 else f"{self.workers} processes"
        return (
            f"{self.what}: about {_minutes(self.seconds)} in {processes}: {self.splits} "
            f"{'split' if self.splits == 1 else 'splits'}, each with a generator "
            f"({_minutes(self.generator_seconds)}), and {self.trainings:.0f} trainings of "
            f"classifiers ({_minutes(self.training_seconds)} each){self.more}"
        )


def time_evaluation(
    data: LabelledImages,
    job: AugmentConfig,
    config: EvaluationConfig | None = None,
    *,
    quick: bool = False,
    search: bool = False,
    probe: ProbeFactory | None = None,
    device: str | torch.device = "auto",
) -> EvaluationTime:
    """Tell what an evaluation will cost, from a few steps of generator and classifier.

    What was measured before is read and costs nothing; it is not looked at here.

    Args:
        data: The training split.
        job: The job, by which each split trains a generator.
        config: Budget, splits, probe. Default: `EvaluationConfig()`.
        quick: Whether one split is measured, as by `predict_gain`.
        search: Whether it is the search for a recipe.
        probe: Builds the classifier, as for `evaluate`.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        Splits, trainings and seconds.

    Raises:
        EvaluationError: If the data is too small to be split.
        ConfigError: If the generator cannot be trained on samples like these.
    """
    config, device = config or EvaluationConfig(), resolve_device(device)
    bench = Bench(data, SplitStages(job, str(device)), config, factory=probe, device=device)
    # Every process computes with one thread.
    with torch_threads(1 if device.type == "cpu" else torch.get_num_threads()):
        generator = _of_a_split(time_job(data, job, device=device), job, bench.folds)
        training = seconds_of_probe(bench)
    each: dict[str, Any] = {
        "generator_seconds": generator,
        "training_seconds": training,
        "workers": bench.n_workers,
    }
    if search:
        splits, trainings = cost_of_search(bench, job.recipe)
        return EvaluationTime("search", splits, trainings=trainings, **each)
    trainings = cost_of_gate(bench, quick=quick)
    if quick:
        return EvaluationTime("prediction", 1, trainings=trainings, **each)
    needed = generator + trainings * training
    affordable = math.floor(config.budget * bench.n_workers / needed)
    splits = max(config.min_splits, min(affordable, config.max_splits))
    more = ""
    if config.min_splits < config.max_splits:
        more = (
            f"; at least {config.min_splits} splits, at most {config.max_splits}, and as many as "
            f"fit into the budget of {_minutes(config.budget)}"
        )
    return EvaluationTime("evaluation", splits, trainings=splits * trainings, more=more, **each)


def _of_a_split(time: JobTime, job: AugmentConfig, folds: int) -> float:
    """Seconds of a split's generator: default steps are by the root of the number of images."""
    part = 1 - 1 / folds
    steps = math.sqrt(part) if job.training.steps is None else 1.0
    seconds = 0.0
    for stage in time.stages:
        if stage.name not in _NOT_OF_SPLITS:
            seconds += stage.seconds * (part if stage.name == "drawing" else steps)
    return seconds


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
