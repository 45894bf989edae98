"""How long a training would take: a few steps of every stage, by the pipeline that trains."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.memory import kept_memory
from vaeaug.training._batches import MAX_HELD_OUT, Batches
from vaeaug.training._loop import Loop, steps_between_evaluations
from vaeaug.training._restoration import (
    RestorationObjective,
    new_restorer,
    restoration_stage,
    restoration_steps,
)
from vaeaug.training._state import Objective, Stage, StageRecord
from vaeaug.training._train import TrainingPipeline, training_steps

# Steps timed in a stage, at least and at most, and the seconds after which they are enough.
FEWEST, STEPS, SECONDS = 2, 20, 0.4
# Steps before them: buffers are allocated, and on a card the step is recorded and captured.
FIRST, FIRST_ON_CUDA = 1, 6


@dataclass(frozen=True)
class StageTime:
    """What a stage costs.

    Attributes:
        name: Name of the stage.
        steps: Its steps.
        step_seconds: Seconds of one step.
        evaluations: Its evaluations on held-out images, the first one included.
        evaluation_seconds: Seconds of one.
        budget: Seconds after which the stage ends; None: only the steps count.
    """

    name: str
    steps: int
    step_seconds: float
    evaluations: int = 0
    evaluation_seconds: float = 0.0
    budget: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of the stage; early stopping may end it before."""
        every = self.steps * self.step_seconds + self.evaluations * self.evaluation_seconds
        return every if self.budget is None else min(every, self.budget)

    @property
    def steps_taken(self) -> int:
        """Its steps, or as many as its budget is enough for at most."""
        if self.budget is None or not self.step_seconds:
            return self.steps
        return min(self.steps, max(1, int(self.budget / self.step_seconds)))


def time_training(
    data: LabelledImages,
    config: AugmentConfig,
    *,
    device: torch.device,
    n_images: int,
) -> list[StageTime]:
    """Take a few steps of every stage of a training, whose weights are then thrown away.

    Args:
        data: Training images, or some of them.
        config: The job, whose numbers of steps are fixed.
        device: Where the networks run.
        n_images: Number of all training images, by which evaluations are scaled.

    Returns:
        The time of each stage, in order.
    """
    batches = Batches(data, config, device)
    share = config.training.held_out
    held_out = min(MAX_HELD_OUT, share * n_images) / max(1, min(MAX_HELD_OUT, share * len(data)))
    with kept_memory(0):
        pipeline = TrainingPipeline(data, config, batches, None, None)
        loop = pipeline.loop = _TimedLoop(batches, config, held_out)
        pipeline.run()
        times = loop.times
        if restoration_steps(data, config):
            stage = restoration_stage(data, config)
            restorer = new_restorer(data, config, device)
            loop = _TimedLoop(batches, config, held_out)
            loop.run(stage, restorer, RestorationObjective(batches, config, stage))
            times = times + loop.times
    return times


def clock_of(device: torch.device) -> Callable[[], float]:
    """Choose the clock of a timing.

    Args:
        device: Where the networks run.

    Returns:
        Processor time where one thread computes, which other processes do not lengthen; elsewhere
        the time that passes.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def with_steps(data: LabelledImages, config: AugmentConfig) -> AugmentConfig:
    """Fix the numbers of steps that follow from the number of images.

    Args:
        data: The training split.
        config: The job.

    Returns:
        The job that takes the same steps on a part of the images.
    """
    steps = {"restoration.steps": restoration_steps(data, config)}
    if config.training.budget_seconds is None:
        steps["training.steps"] = training_steps(data, config)
    return config.changed(**steps)


class _TimedLoop(Loop):
    """A loop that takes a few steps in the middle of a stage."""

    def __init__(self, batches: Batches, config: AugmentConfig, held_out: float) -> None:
        super().__init__(batches, config, None, None)
        self.held_out, self.now = held_out, clock_of(batches.device)
        self.times: list[StageTime] = []

    def run(self, stage: Stage, model: nn.Module, objective: Objective) -> StageRecord:
        with torch.inference_mode(False), torch.enable_grad(), self._stream():
            state = self._new_state(stage, model, objective)
            alike = self._timed_before(stage)
            if alike is None:
                objective.start(state)
                step_seconds = self._seconds_of_a_step(stage, state)
                if self.on_cuda:  # the first one there loads kernels and chooses among them
                    objective.evaluate(state, 0.5)
                    self._wait()
                began = self.now()
                objective.evaluate(state, 0.5)
                self._wait()
                evaluation = self.held_out * (self.now() - began)
                alike = StageTime(stage.name, stage.steps, step_seconds, 0, evaluation)
            every = steps_between_evaluations(self.config.training, stage)
            self.times.append(
                replace(
                    alike,
                    name=stage.name,
                    steps=stage.steps,
                    evaluations=1 + stage.steps // every,
                    budget=stage.budget,
                )
            )
        model.zero_grad(set_to_none=True)
        model.requires_grad_(True)
        return state.record

    def _timed_before(self, stage: Stage) -> StageTime | None:
        """The models of the classes are alike, and blocks of classes: the first one is timed."""
        if not (stage.is_one_class or stage.adapt):
            return None
        kind = stage.name.split("-")[0]
        return next((each for each in self.times if each.name.split("-")[0] == kind), None)

    def _seconds_of_a_step(self, stage: Stage, state) -> float:  # type: ignore[no-untyped-def]
        take, middle = self._stepper(stage, state), stage.steps // 2
        n_first = FIRST_ON_CUDA if self.on_cuda else FIRST
        for number in range(n_first):
            state.watch.read(state.record, take(middle + number, 0.5))
        self._wait()
        began = self.now()
        seconds: list[float] = []
        # A short stage is not timed for longer than a part of what it takes.
        most = min(STEPS, max(FEWEST, stage.steps // 10))
        while len(seconds) < FEWEST or (len(seconds) < most and sum(seconds) < SECONDS):
            take(middle + n_first + len(seconds), 0.5)
            self._wait()
            now = self.now()
            seconds.append(now - began)
            began = now
        return statistics.median(seconds)

    def _wait(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize(self.batches.device)
