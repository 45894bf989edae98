"""The training loop of every stage: steps, averages, evaluations and checkpoints."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from vaeaug.config import AugmentConfig, TrainingConfig
from vaeaug.memory import sized
from vaeaug.models import exact_float32
from vaeaug.progress import Progress
from vaeaug.ranks import ALONE, Order, Ranks
from vaeaug.training._batches import Batches
from vaeaug.training._interrupt import Interruption, TrainingInterrupted
from vaeaug.training._loss_scale import LossScale
from vaeaug.training._scores import mean_finite, still_rising
from vaeaug.training._state import (
    EVALUATIONS,
    MetricsLog,
    Objective,
    Stage,
    StageRecord,
    TrainingError,
    TrainState,
    content_of,
    restore,
    resume,
    save,
)
from vaeaug.training._tape import Metrics, Repeated
from vaeaug.training.optimisers import AdamW

# Minimum number of evaluations in a stage, and the most steps between two of as many as by default.
MIN_EVALUATIONS, EVAL_EVERY = 3, 200
# Number of lines in the log.
LOG_LINES = 50
# Steps after which the metrics of a stage on a card are read; reading waits for the card.
READ_EVERY = 20


def steps_between_evaluations(training: TrainingConfig, stage: Stage) -> int:
    """Steps after which the average weights are scored on held-out images.

    Args:
        training: Says how many, unless it leaves it to us.
        stage: Of so many steps.

    Returns:
        At least 1.
    """
    if training.eval_every is not None:
        return min(training.eval_every, max(1, stage.steps // MIN_EVALUATIONS))
    most = EVAL_EVERY * EVALUATIONS // stage.evaluations
    return min(most, max(1, stage.steps // stage.evaluations))


class Loop:
    """The training loop.

    Args:
        batches: The data.
        config: The job.
        folder: The run folder; None: nothing is written.
        progress: Called after every step.
        ranks: The processes over which steps are divided. In one that follows, stages do what the
            leader's do, and nothing is written.
    """

    def __init__(
        self,
        batches: Batches,
        config: AugmentConfig,
        folder: Path | None,
        progress: Progress | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.batches = batches
        self.config = config
        self.ranks = ranks
        self.checkpoints = None if folder is None else folder / "checkpoints"
        self.log = MetricsLog(folder)
        self.progress = progress
        self.on_cuda = batches.device.type == "cuda"
        self.stream = torch.cuda.Stream(batches.device) if self.on_cuda else None
        # The clock of a time budget. Processor time does not depend on the load of the machine.
        self.clock = time.perf_counter if self.on_cuda else time.process_time

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
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            Interruption() as interruption,
            self._stream(),
        ):
            if not self.ranks.is_leader:
                return self._follow(stage, model, objective)
            return self._run(stage, model, objective, interruption)

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """On a card, a stream of the loop's own: steps on the default one cannot be captured."""
        if self.stream is None:
            yield
            return
        with torch.cuda.device(self.batches.device), exact_float32():
            outer = torch.cuda.current_stream()
            self.stream.wait_stream(outer)
            with torch.cuda.stream(self.stream):
                yield
            outer.wait_stream(self.stream)

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
        if objective.is_divisible:
            self._share(state)
        self.log.rewind(stage.name, record.step - (record.pending is not None))
        eval_every = steps_between_evaluations(training, stage)
        log_every = max(1, stage.steps // LOG_LINES)
        take_step = self._stepper(stage, state)
        began = self.clock() - record.seconds
        done = stage.progress(record.step, record.seconds)
        metrics: dict[str, float] = {}
        is_read = False
        while record.pending is not None or not (record.done or done >= 1):
            if record.pending is None:
                latest = self._with_memory(take_step, record.step, done)
                record.step += 1
                record.seconds = self.clock() - began
                done = stage.progress(record.step, record.seconds)
                is_due = record.step % eval_every == 0 or done == 1
                if is_read := is_due or self._reads(record.step, log_every):
                    metrics = state.watch.read(record, latest)
                    record.seconds = self.clock() - began
                record.pending = metrics if is_due else None
            evaluated = record.pending is not None
            is_logged = is_read and (record.bad_in_a_row or record.step % log_every == 0)
            if is_logged and not evaluated:  # before the run may stop: no saved step is taken again
                self.log.write(stage=stage.name, step=record.step, **metrics)
            self._stop_if_requested(stage, state, interruption)
            if evaluated:
                metrics = self._evaluate(stage, state, done, interruption)
                record.seconds = self.clock() - began
                if objective.is_divisible:
                    self._share(state)
                self.log.write(stage=stage.name, step=record.step, **metrics)
            if record.bad_in_a_row >= training.max_bad_steps:
                raise self._too_many_bad(stage, record, metrics)
            if record.step % training.checkpoint_every == 0:
                self._save(stage, state)
            if self.progress is not None:
                self.progress(stage.name, record.step, stage.steps, metrics)
        self._note_slope(stage, record)
        record.done = True
        if state.best:
            model.load_state_dict(state.best)
        self._save(stage, state)
        self._share(state)
        self.ranks.order(Order.DONE)
        model.zero_grad(set_to_none=True)
        model.requires_grad_(True)
        return record

    def _follow(self, stage: Stage, model: nn.Module, objective: Objective) -> StageRecord:
        """Take the steps that the leader takes, and end with its weights."""
        state = self._new_state(stage, model, objective)
        take_step = self._stepper(stage, state)
        while True:
            order, step, done = self.ranks.next_order()
            if order == Order.STEP:
                self._with_memory(take_step, step, done)
            elif order == Order.STATE:
                device = self.batches.device
                restore(state, self.ranks.share(device=device), device)
            else:
                break
        model.zero_grad(set_to_none=True)
        model.requires_grad_(True)
        return state.record

    def _share(self, state: TrainState) -> None:
        """Give the whole state to the others; after evaluations too, which change parts of it."""
        if self.ranks.are_several:
            state.watch.read(state.record, {})
            with self.ranks.together():
                self.ranks.order(Order.STATE)
                self.ranks.share(content_of(state))

    def _reads(self, step: int, log_every: int) -> bool:
        """Whether the metrics of a step are read: on a card only now and then."""
        return not self.on_cuda or step % READ_EVERY == 0 or step % log_every == 0

    def _save(self, stage: Stage, state: TrainState) -> None:
        state.watch.read(state.record, {})
        save(self.checkpoints, stage, state)

    def _note_slope(self, stage: Stage, record: StageRecord) -> None:
        """Warn if the VAE was still improving at its end; for later stages it matters little."""
        if record.done or not stage.name.startswith(("trunk", "class-")):
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
        self._save(stage, state)
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
        device, record, rate = self.batches.device, StageRecord(), stage.learning_rate
        optimiser = AdamW(
            [parameter for parameter in trained.values() if parameter.requires_grad],
            lr=torch.tensor(rate, device=device) if self.on_cuda else rate,
            weight_decay=stage.weight_decay,
            betas=(0.9, 0.99),
            fused=True,
            capturable=self.on_cuda,
        )
        weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        is_scaled = self.batches.is_scaled and objective.has_one_loss
        scale = LossScale(device) if is_scaled else None
        average = copy.deepcopy(model)
        return TrainState(model, average, weights, optimiser, record, objective, scale)

    def _stepper(self, stage: Stage, state: TrainState) -> Callable[[int, float], Metrics]:
        """What takes a step; on a card it is replayed once it has been recorded."""

        def take(step: int, done: float) -> Metrics:
            return self._take_step(stage, state, step, done)

        def take_together(step: int, done: float) -> Metrics:
            with self.ranks.together():
                if self.ranks.is_leader:
                    self.ranks.order(Order.STEP, step, done)
                return take(step, done)

        if self.ranks.are_several and state.objective.is_divisible:
            return take_together
        if self.on_cuda and state.objective.is_repeatable:
            return Repeated(self.batches.tape, take)
        return take

    def _take_step(self, stage: Stage, state: TrainState, step: int, done: float) -> Metrics:
        """Take a step of the optimiser; nothing here waits for the device."""
        optimiser, tape = state.optimiser, self.batches.tape
        rate = tape.number(
            lambda step, done: stage.learning_rate * self._schedule(step, stage, done),
            step=step,
            done=done,
        )
        for group in optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if not state.model.training:  # it walks all modules
            state.model.train()
        objective = state.objective
        ranks = self.ranks if objective.is_divisible else ALONE
        with self.batches.precision(can_scale=objective.has_one_loss), ranks.divided():
            step_loss = objective.loss(state, step, done)
        optimiser.zero_grad(set_to_none=True)
        scale = state.scale
        (step_loss.loss if scale is None else step_loss.loss * scale.factor).backward()
        parameters = [
            parameter for group in optimiser.param_groups for parameter in group["params"]
        ]
        gradients = [each.grad for each in parameters if each.grad is not None]
        if scale is not None:
            scale.unscale(gradients)
        loss, guard = step_loss.loss.detach(), step_loss.guard
        if ranks.are_several:
            # What a step is judged by is the leader's, to the last bit, or weights could part.
            told = torch.cat([loss.reshape(1).to(guard.dtype), guard])
            told = told if ranks.is_leader else torch.zeros_like(told)
            ranks.add_up([*gradients, told])
            loss, guard = told[0], told[1:]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.training.clip)
        if scale is None:
            bad = state.watch.judge(guard, loss, norm)
        else:
            # A step of too large a factor is skipped, and is no bad one.
            lost = scale.overflows(loss, norm)
            bad = state.watch.judge(guard, loss, norm.masked_fill(lost, 0.0)).maximum(lost.float())
        # As torch's GradScaler has it: the optimiser changes nothing where this is 1.
        optimiser.found_inf = bad  # type: ignore[attr-defined]
        optimiser.step()
        self._update_average(state, step, done)
        return {"loss": loss, **step_loss.metrics, "gradient_norm": norm, "learning_rate": rate}

    def _with_memory(
        self, step: Callable[[int, float], Metrics], number: int, done: float
    ) -> Metrics:
        """Take a step, and say what would fit if it does not fit into the card's memory."""
        try:
            return step(number, done)
        except torch.OutOfMemoryError as error:
            size = self.config.training.batch_size
            free, total = torch.cuda.mem_get_info(self.batches.device)
            raise TrainingError(
                f"a step does not fit into the memory of {self.batches.device} ({sized(total)}, of "
                f"which {sized(free)} are free); training.batch_size is {size}, and half of it "
                f"needs about half: --set training.batch_size={max(2, size // 2)}"
            ) from error

    def _schedule(self, step: int, stage: Stage, done: float) -> float:
        """Return the learning rate factor: linear warm-up, then cosine decay to zero."""
        warmup = min(self.config.training.lr_warmup, max(1, stage.steps // 10))
        if step < warmup:
            return (step + 1) / warmup
        start = warmup / stage.steps
        return 0.5 * (1 + math.cos(math.pi * max(0.0, done - start) / (1 - start)))

    @torch.no_grad()
    def _update_average(self, state: TrainState, step: int, done: float) -> None:
        # The decay grows from 0, so that the initial weights are soon forgotten.
        highest = self.config.training.ema_decay
        share = self.batches.tape.number(
            lambda step, _: 1 - min(highest, (1 + step) / (10 + step)), step=step
        )
        means, parameters = state.moving
        if isinstance(share, Tensor):
            change = torch._foreach_sub(parameters, means)
            torch._foreach_mul_(change, share)
            torch._foreach_add_(means, change)
        else:
            torch._foreach_lerp_(means, parameters, share)

    def _too_many_bad(
        self, stage: Stage, record: StageRecord, metrics: dict[str, float]
    ) -> TrainingError:
        return TrainingError(
            f"stage {stage.name!r}, step {record.step}: the loss was not finite or exploding for "
            f"{record.bad_in_a_row} steps in a row (loss {metrics['loss']:g}, gradient norm "
            f"{metrics['gradient_norm']:g}; {record.skipped} steps skipped in all); lower "
            f"training.learning_rate (now {stage.learning_rate:g}) or training.clip "
            f"(now {self.config.training.clip:g})"
        )
