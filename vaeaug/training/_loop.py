"""One stage of training: steps, averages, evaluations, checkpoints. One loop for every stage."""

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
    State,
    StepLoss,
    Trainee,
    TrainingError,
    resume,
    save,
)

# At least so many evaluations in a stage, and lines in the log.
EVALUATIONS, LOG_LINES = 3, 50
# A step is exploding when a guarded figure is this many times its running mean over good steps.
EXPLODING = 100.0


class Loop:
    """One way to run a stage, for every stage.

    Args:
        batches: The data.
        config: The job.
        folder: The run folder; None writes nothing.
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
        # What a budget counts. Processor time does not depend on what else the machine does.
        self.clock = time.process_time if on_cpu else time.perf_counter

    def run(self, stage: Stage, model: nn.Module, objective: Objective) -> State:
        """Train `model` through a stage, or load it where the stage is done.

        Ctrl-C and SIGTERM wait for the end of the step, after which the stage is saved. Gradients
        are computed whatever surrounds the call.

        Raises:
            TrainingError: If the loss stays non-finite or exploding, or a checkpoint is unusable.
            TrainingInterrupted: If it was interrupted.
        """
        with torch.inference_mode(False), torch.enable_grad(), Interruption() as interruption:
            return self._run(stage, model, objective, interruption)

    def _run(
        self, stage: Stage, model: nn.Module, objective: Objective, interruption: Interruption
    ) -> State:
        training = self.config.training
        trainee = self._trainee(stage, model, objective)
        resume(self.checkpoints, stage, trainee, self.batches.device)
        state = trainee.state
        if state.step == 0:
            with interruption.at_once():
                objective.start(trainee)
        self.log.rewind(stage.name, state.step - (state.pending is not None))
        eval_every = min(training.eval_every, max(1, stage.steps // EVALUATIONS))
        log_every = max(1, stage.steps // LOG_LINES)
        began = self.clock() - state.seconds
        done = stage.progress(state.step, state.seconds)
        while state.pending is not None or not (state.done or done >= 1):
            if state.pending is None:
                figures = self._step(stage, trainee, done)
                state.seconds = self.clock() - began
                done = stage.progress(state.step, state.seconds)
                if state.step % eval_every == 0 or done == 1:
                    state.pending = figures
            self._stop_if_asked(stage, trainee, interruption)
            evaluated = state.pending is not None
            if evaluated:
                figures = self._evaluate(stage, trainee, done, interruption)
                state.seconds = self.clock() - began
            if evaluated or state.bad_in_a_row or state.step % log_every == 0:
                self.log.write(stage=stage.name, step=state.step, **figures)
            if state.bad_in_a_row >= training.max_bad_steps:
                raise self._too_many_bad(stage, state, figures)
            if state.step % training.checkpoint_every == 0:
                save(self.checkpoints, stage, trainee)
            if self.progress is not None:
                self.progress(stage.name, state.step, stage.steps, figures)
        self._note_slope(stage, state)
        state.done = True
        if trainee.best:
            model.load_state_dict(trainee.best)
        save(self.checkpoints, stage, trainee)
        model.requires_grad_(True)
        return state

    def _note_slope(self, stage: Stage, state: State) -> None:
        """Say where the VAE was stopped on a slope; what comes after it gains little."""
        if state.done or not (stage.name == "trunk" or stage.is_one_class):
            return
        if rise := still_rising(mean_finite(state.first), state.history):
            state.notes.append(
                f"undertrained: the held-out score of stage {stage.name!r} was still rising at its "
                f"end, by {rise:.1%} of all it gained in the second half of the steps; more "
                f"training.steps (now {stage.steps}) would help"
            )

    def _evaluate(
        self, stage: Stage, trainee: Trainee, done: float, interruption: Interruption
    ) -> dict[str, float]:
        """Score the averaged weights; what an interruption leaves half done is done again."""
        state = trainee.state
        before, best = copy.deepcopy(vars(state)), trainee.best
        try:
            with interruption.at_once():
                figures = (state.pending or {}) | trainee.objective.evaluate(trainee, done)
        except KeyboardInterrupt as error:
            vars(state).update(before)
            trainee.best = best
            raise self._stopped(stage, trainee, error) from None
        if (score := mean_finite(state.latest)) == score:  # not of a stage that scores nothing
            state.history.append([float(state.step), score])
        state.done = state.evaluations_without_gain >= self.config.training.patience
        state.pending = None
        return figures

    def _stop_if_asked(self, stage: Stage, trainee: Trainee, interruption: Interruption) -> None:
        if (error := interruption.found) is not None:
            raise self._stopped(stage, trainee, error)

    def _stopped(
        self, stage: Stage, trainee: Trainee, error: KeyboardInterrupt
    ) -> TrainingInterrupted:
        save(self.checkpoints, stage, trainee)
        return TrainingInterrupted(
            *error.args,
            stage=stage.name,
            step=trainee.state.step,
            saved=self.checkpoints is not None,
        )

    def _trainee(self, stage: Stage, model: nn.Module, objective: Objective) -> Trainee:
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
        return Trainee(model, copy.deepcopy(model), weights, optimiser, State(), objective)

    def _step(self, stage: Stage, trainee: Trainee, done: float) -> dict[str, float]:
        state, optimiser = trainee.state, trainee.optimiser
        step = state.step
        rate = stage.learning_rate * self._schedule(step, stage, done)
        for group in optimiser.param_groups:
            group["lr"] = rate
        trainee.model.train()
        with self.batches.precision():
            step_loss = trainee.objective.loss(trainee, step, done)
        optimiser.zero_grad(set_to_none=True)
        step_loss.loss.backward()
        parameters = [
            parameter for group in optimiser.param_groups for parameter in group["params"]
        ]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.config.training.clip))
        value = float(step_loss.loss.detach())
        state.step += 1
        if _is_bad(state, step_loss, value, norm):
            state.skipped += 1
            state.bad_in_a_row += 1
            return {"loss": value, "gradient_norm": norm, "skipped": float(state.skipped)}
        optimiser.step()
        state.bad_in_a_row = 0
        state.running_error = _running(state.running_error, step_loss.guard[0])
        state.running_kl = _running(state.running_kl, step_loss.guard[1])
        self._update_average(trainee, step)
        return {
            "loss": value,
            **step_loss.figures,
            "gradient_norm": norm,
            "learning_rate": rate,
            "skipped": float(state.skipped),
        }

    def _schedule(self, step: int, stage: Stage, done: float) -> float:
        """Linear warm-up, then cosine to zero."""
        warmup = min(self.config.training.lr_warmup, max(1, stage.steps // 10))
        if step < warmup:
            return (step + 1) / warmup
        start = warmup / stage.steps
        return 0.5 * (1 + math.cos(math.pi * max(0.0, done - start) / (1 - start)))

    @torch.no_grad()
    def _update_average(self, trainee: Trainee, step: int) -> None:
        # The decay grows from 0, so that the first weights do not linger.
        decay = min(self.config.training.ema_decay, (1 + step) / (10 + step))
        pairs = zip(trainee.average.parameters(), trainee.model.parameters(), strict=True)
        moving = [(mean, now) for mean, now in pairs if now.requires_grad]
        torch._foreach_lerp_([mean for mean, _ in moving], [now for _, now in moving], 1 - decay)

    def _too_many_bad(self, stage: Stage, state: State, figures: dict[str, float]) -> TrainingError:
        return TrainingError(
            f"stage {stage.name!r}, step {state.step}: the loss was not finite or exploding for "
            f"{state.bad_in_a_row} steps in a row (loss {figures['loss']:g}, gradient norm "
            f"{figures['gradient_norm']:g}; {state.skipped} steps skipped in all); lower "
            f"training.learning_rate (now {self.config.training.learning_rate:g}) or training.clip "
            f"(now {self.config.training.clip:g})"
        )


def _is_bad(state: State, step_loss: StepLoss, loss: float, norm: float) -> bool:
    error, kl = step_loss.guard
    if not all(map(math.isfinite, (error, kl, loss, norm))):
        return True
    if math.isnan(state.running_error):
        return False
    # The constants keep a nearly perfect model's small errors from looking like explosions.
    return error > EXPLODING * state.running_error + 1.0 or kl > EXPLODING * (
        state.running_kl + 10.0
    )


def _running(mean: float, value: float) -> float:
    return value if math.isnan(mean) else 0.98 * mean + 0.02 * value
