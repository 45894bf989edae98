"""One stage of training: steps, averages, evaluations, checkpoints."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from vaeaug.config import AugmentConfig
from vaeaug.models import CVAE
from vaeaug.training._batches import Batches
from vaeaug.training._held_out import evaluate, match_priors
from vaeaug.training._state import (
    MetricsLog,
    Stage,
    State,
    Trainee,
    TrainingError,
    resume,
    save,
)

# progress(stage, step, total, what is known so far)
Progress = Callable[[str, int, int, dict[str, float]], None]

# A step is exploding when its error or KL is this many times the running mean of the good ones.
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

    def run(self, stage: Stage, model: CVAE) -> State:
        """Train `model` through a stage, or load it where the stage is done.

        Raises:
            TrainingError: If the loss stays non-finite or exploding, or a checkpoint is unusable.
        """
        training = self.config.training
        trainee = self._trainee(stage, model)
        resume(self.checkpoints, stage, trainee, self.batches.device)
        state = trainee.state
        if state.step == 0:
            self._start(stage, trainee)
        self.log.rewind(stage.name, state.step)
        # Nothing is saved on Ctrl-C: it may come in the middle of a step.
        while state.step < stage.steps and not state.done:
            figures = self._step(stage, trainee)
            evaluates = state.step % training.eval_every == 0 or state.step == stage.steps
            if evaluates:
                figures |= evaluate(self.batches, stage, trainee)
                state.done = state.evaluations_without_gain >= training.patience
            if evaluates or state.bad_in_a_row:
                self.log.write(stage=stage.name, step=state.step, **figures)
            if state.bad_in_a_row >= training.max_bad_steps:
                raise self._too_many_bad(stage, state, figures)
            if state.step % training.checkpoint_every == 0:
                save(self.checkpoints, stage, trainee)
            if self.progress is not None:
                self.progress(stage.name, state.step, stage.steps, figures)
        state.done = True
        model.load_state_dict(trainee.best)
        save(self.checkpoints, stage, trainee)
        model.requires_grad_(True)
        return state

    def _trainee(self, stage: Stage, model: CVAE) -> Trainee:
        # The embedding is learned with the trunk; FiLM rows and priors wait for the adaptation.
        trained = model.class_parameters()
        if not stage.adapt:
            trained = model.trunk_parameters()
            trained["embedding.weight"] = model.class_parameters()["embedding.weight"]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        # Weight decay pulls what one class alone sees (its FiLM rows) to the shared trunk.
        optimiser = torch.optim.AdamW(
            trained.values(),
            lr=self.config.training.learning_rate,
            weight_decay=self.config.training.weight_decay,
            betas=(0.9, 0.99),
            fused=True,
        )
        return Trainee(model, copy.deepcopy(model), _weights(model), optimiser, State())

    def _start(self, stage: Stage, trainee: Trainee) -> None:
        if stage.adapt:
            match_priors(self.batches, trainee.model)
            trainee.average.load_state_dict(trainee.model.state_dict())
            trainee.best = _weights(trainee.model)
        evaluate(self.batches, stage, trainee)

    def _step(self, stage: Stage, trainee: Trainee) -> dict[str, float]:
        model, optimiser, state = trainee.model, trainee.optimiser, trainee.state
        step = state.step
        x, y = self.batches.draw(stage, step)
        noise = self.batches.noise(stage.name, step, (len(x), model.latent_dim))
        rate = self.config.training.learning_rate * self._schedule(step, stage.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        model.train()
        with self.batches.precision():
            # The sigma is the trunk's: it stays as it is while the classes adapt.
            terms = model.elbo(x, y, noise=noise, optimal_sigma=not stage.adapt)
            loss = terms.loss(
                beta=self.config.model.beta * self._kl_weight(stage, step),
                free_bits=self.config.model.free_bits,
            )
        optimiser.zero_grad(set_to_none=True)
        # Per dimension, so that one clipping norm serves images of every size (Adam does not mind).
        (loss / x[0].numel()).backward()
        parameters = [each for group in optimiser.param_groups for each in group["params"]]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.config.training.clip))
        error = float(terms.squared_error.detach().mean())
        kl = float(terms.kl.detach().sum(dim=1).mean())
        value = float(loss.detach())
        state.step += 1
        if _is_bad(state, error, kl, value, norm):
            state.skipped += 1
            state.bad_in_a_row += 1
            return {"loss": value, "gradient_norm": norm, "skipped": float(state.skipped)}
        optimiser.step()
        state.bad_in_a_row = 0
        state.running_error = _running(state.running_error, error)
        state.running_kl = _running(state.running_kl, kl)
        self._update_average(trainee, step)
        return {
            "loss": value,
            "reconstruction": float(terms.reconstruction.detach().mean()),
            "kl": kl,
            "mean_squared_error": error / x[0].numel(),
            "gradient_norm": norm,
            "learning_rate": rate,
            "skipped": float(state.skipped),
        }

    def _schedule(self, step: int, steps: int) -> float:
        """Linear warm-up, then cosine to zero."""
        warmup = min(self.config.training.lr_warmup, max(1, steps // 10))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    def _kl_weight(self, stage: Stage, step: int) -> float:
        warmup = self.config.training.kl_warmup * stage.steps
        return 1.0 if stage.adapt or warmup < 1 else min(1.0, (step + 1) / warmup)

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


def _is_bad(state: State, error: float, kl: float, loss: float, norm: float) -> bool:
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


def _weights(model: CVAE) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in model.state_dict().items()}
