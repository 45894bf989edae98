"""The training loop of every stage: steps, averages, evaluations and checkpoints."""

import copy
import math
import time
from pathlib import Path

import torch
from torch import nn

from vaeaug.config import AugmentConfig
from vaeaug.progress import Progress
from vaeaug.training._batches import Batches
from vaeaug.training._interrupt import Interruption, TrainingInterrupted
from vaeaug.training._scores import mean_finite, still_rising
from vaeaug.training._state import (
    MetricsLog,
    Objective,
    Stage,
    StageRecord,
    StepLoss,
    TrainingError,
    TrainState,
    resume,
    save,
)

# Minimum number of evaluations in a stage, and of lines in the log.
EVALUATIONS, LOG_LINES = 3, 50
# A step is exploding when a guarded metric is this many times its running mean over good steps.
EXPLODING = 100.0


class Loop:
    """The training loop.

    Args:
        batches: The data.
        config: The job.
        folder: The run folder; None: nothing is written.
        progress: Called after every step.
    """

    def __init__(
        self,
        batches: Batches,
        config: AugmentConfig,
        folder: Path | None,
        progress: Progress | None,
    ) -> None:
        self.batches = batches
        self.config = config
        self.checkpoints = None if folder is None else folder / "checkpoints"
        self.log = MetricsLog(folder)
        self.progress = progress
        on_cpu = batches.device.type == "cpu"
        # The clock of a time budget. Processor time does not depend on the load of the machine.
        self.clock = time.process_time if on_cpu else time.perf_counter

    def run(self, stage: Stage, model: nn.Module, objective: Objective) -> StageRecord:
        """Train a model through a stage, or load it if the stage is done.

        Ctrl-C and SIGTERM take effect at the end of a step, after which the stage is saved.
        Gradients are computed even inside `torch.no_grad` or `torch.inference_mode`.

        Args:
            stage: The stage.
            model: The model, trained in place.
            objective: What is minimised.

        Returns:
            The record of the stage.

        Raises:
            TrainingError: If the loss stays non-finite or exploding, or a checkpoint is unusable.
            TrainingInterrupted: If a signal interrupted the training.
        """
        with torch.inference_mode(False), torch.enable_grad(), Interruption() as interruption:
            return self._run(stage, model, objective, interruption)

    def _run(
        self, stage: Stage, model: nn.Module, objective: Objective, interruption: Interruption
    ) -> StageRecord:
        training = self.config.training
        state = self._new_state(stage, model, objective)
        resume(self.checkpoints, stage, state, self.batches.device)
        record = state.record
        if record.step == 0:
            with interruption.at_once():
                objective.start(state)
        self.log.rewind(stage.name, record.step - (record.pending is not None))
        eval_every = min(training.eval_every, max(1, stage.steps // EVALUATIONS))
        log_every = max(1, stage.steps // LOG_LINES)
        began = self.clock() - record.seconds
        done = stage.progress(record.step, record.seconds)
        while record.pending is not None or not (record.done or done >= 1):
            if record.pending is None:
                metrics = self._step(stage, state, done)
                record.seconds = self.clock() - began
                done = stage.progress(record.step, record.seconds)
                if record.step % eval_every == 0 or done == 1:
                    record.pending = metrics
            self._stop_if_requested(stage, state, interruption)
            evaluated = record.pending is not None
            if evaluated:
                metrics = self._evaluate(stage, state, done, interruption)
                record.seconds = self.clock() - began
            if evaluated or record.bad_in_a_row or record.step % log_every == 0:
                self.log.write(stage=stage.name, step=record.step, **metrics)
            if record.bad_in_a_row >= training.max_bad_steps:
                raise self._too_many_bad(stage, record, metrics)
            if record.step % training.checkpoint_every == 0:
                save(self.checkpoints, stage, state)
            if self.progress is not None:
                self.progress(stage.name, record.step, stage.steps, metrics)
        self._note_slope(stage, record)
        record.done = True
        if state.best:
            model.load_state_dict(state.best)
        save(self.checkpoints, stage, state)
        model.requires_grad_(True)
        return record

    def _note_slope(self, stage: Stage, record: StageRecord) -> None:
        """Warn if the VAE was still improving at its end; for later stages it matters little."""
        if record.done or not (stage.name == "trunk" or stage.is_one_class):
            return
        if rise := still_rising(mean_finite(record.first), record.history):
            record.notes.append(
                f"undertrained: the held-out score of stage {stage.name!r} was still rising at its "
                f"end, by {rise:.1%} of all it gained in the second half of the steps; more "
                f"training.steps (now {stage.steps}) would help"
            )

    def _evaluate(
        self, stage: Stage, state: TrainState, done: float, interruption: Interruption
    ) -> dict[str, float]:
        """Score the EMA weights; an interrupted evaluation is repeated on resumption."""
        record = state.record
        record_before, best_before = copy.deepcopy(vars(record)), state.best
        try:
            with interruption.at_once():
                metrics = (record.pending or {}) | state.objective.evaluate(state, done)
        except KeyboardInterrupt as error:
            vars(record).update(record_before)
            state.best = best_before
            raise self._stopped(stage, state, error) from None
        if (score := mean_finite(record.latest)) == score:  # NaN if the stage has no scores
            record.history.append([float(record.step), score])
        record.done = record.evaluations_without_gain >= self.config.training.patience
        record.pending = None
        return metrics

    def _stop_if_requested(
        self, stage: Stage, state: TrainState, interruption: Interruption
    ) -> None:
        if (error := interruption.requested) is not None:
            raise self._stopped(stage, state, error)

    def _stopped(
        self, stage: Stage, state: TrainState, error: KeyboardInterrupt
    ) -> TrainingInterrupted:
        save(self.checkpoints, stage, state)
        return TrainingInterrupted(
            *error.args,
            stage=stage.name,
            step=state.record.step,
            saved=self.checkpoints is not None,
        )

    def _new_state(self, stage: Stage, model: nn.Module, objective: Objective) -> TrainState:
        trained = objective.trained(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        optimiser = torch.optim.AdamW(
            [parameter for parameter in trained.values() if parameter.requires_grad],
            lr=stage.learning_rate,
            weight_decay=self.config.training.weight_decay,
            betas=(0.9, 0.99),
            fused=True,
        )
        weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        return TrainState(model, copy.deepcopy(model), weights, optimiser, StageRecord(), objective)

    def _step(self, stage: Stage, state: TrainState, done: float) -> dict[str, float]:
        record, optimiser = state.record, state.optimiser
        step = record.step
        rate = stage.learning_rate * self._schedule(step, stage, done)
        for group in optimiser.param_groups:
            group["lr"] = rate
        state.model.train()
        with self.batches.precision():
            step_loss = state.objective.loss(state, step, done)
        optimiser.zero_grad(set_to_none=True)
        step_loss.loss.backward()
        parameters = [
            parameter for group in optimiser.param_groups for parameter in group["params"]
        ]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.config.training.clip))
        value = float(step_loss.loss.detach())
        record.step += 1
        if _is_bad(record, step_loss, value, norm):
            record.skipped += 1
            record.bad_in_a_row += 1
            return {"loss": value, "gradient_norm": norm, "skipped": float(record.skipped)}
        optimiser.step()
        record.bad_in_a_row = 0
        record.running_error = _running(record.running_error, step_loss.guard[0])
        record.running_kl = _running(record.running_kl, step_loss.guard[1])
        self._update_average(state, step)
        return {
            "loss": value,
            **step_loss.metrics,
            "gradient_norm": norm,
            "learning_rate": rate,
            "skipped": float(record.skipped),
        }

    def _schedule(self, step: int, stage: Stage, done: float) -> float:
        """Return the learning rate factor: linear warm-up, then cosine decay to zero."""
        warmup = min(self.config.training.lr_warmup, max(1, stage.steps // 10))
        if step < warmup:
            return (step + 1) / warmup
        start = warmup / stage.steps
        return 0.5 * (1 + math.cos(math.pi * max(0.0, done - start) / (1 - start)))

    @torch.no_grad()
    def _update_average(self, state: TrainState, step: int) -> None:
        # The decay grows from 0, so that the initial weights are soon forgotten.
        decay = min(self.config.training.ema_decay, (1 + step) / (10 + step))
        pairs = zip(state.average.parameters(), state.model.parameters(), strict=True)
        moving = [(mean, parameter) for mean, parameter in pairs if parameter.requires_grad]
        torch._foreach_lerp_(
            [mean for mean, _ in moving], [parameter for _, parameter in moving], 1 - decay
        )

    def _too_many_bad(
        self, stage: Stage, record: StageRecord, metrics: dict[str, float]
    ) -> TrainingError:
        return TrainingError(
            f"stage {stage.name!r}, step {record.step}: the loss was not finite or exploding for "
            f"{record.bad_in_a_row} steps in a row (loss {metrics['loss']:g}, gradient norm "
            f"{metrics['gradient_norm']:g}; {record.skipped} steps skipped in all); lower "
            f"training.learning_rate (now {self.config.training.learning_rate:g}) or training.clip "
            f"(now {self.config.training.clip:g})"
        )


def _is_bad(record: StageRecord, step_loss: StepLoss, loss: float, norm: float) -> bool:
    error, kl = step_loss.guard
    if not all(map(math.isfinite, (error, kl, loss, norm))):
        return True
    if math.isnan(record.running_error):
        return False
    # The constants keep the small errors of a nearly perfect model from looking like explosions.
    return error > EXPLODING * record.running_error + 1.0 or kl > EXPLODING * (
        record.running_kl + 10.0
    )


def _running(mean: float, value: float) -> float:
    return value if math.isnan(mean) else 0.98 * mean + 0.02 * value
