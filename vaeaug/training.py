"""The loop: class-weighted batches, the ELBO, EMA, early stopping, checkpoints and resume.

Every random draw is a function of (seed, stage, step), so a run that is killed and started again
goes on exactly where its last checkpoint stood.
"""

import copy
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.models import CVAE, MIN_SIGMA, ElboTerms, SeparateCVAE

Model = CVAE | SeparateCVAE
# progress(stage, step, total, what is known so far)
Progress = Callable[[str, int, int, dict[str, float]], None]

# A step is exploding when its error or KL is this many times the running mean of the good ones.
EXPLODING = 100.0
# At most so many held-out images are scored at each evaluation.
MAX_HELD_OUT = 2048


class TrainingError(RuntimeError):
    """Training cannot go on."""


@dataclass(frozen=True)
class Trained:
    """A trained model and what is known of its training.

    Attributes:
        model: In evaluation mode, on the CPU, with the averaged weights.
        held_out_elbo: Mean held-out ELBO per stage, nats per image.
        steps: Steps taken per stage.
        skipped: Steps skipped because the loss was not finite or exploding, per stage.
    """

    model: Model
    held_out_elbo: dict[str, float]
    steps: dict[str, int]
    skipped: dict[str, int]


def train(
    data: LabelledImages,
    config: AugmentConfig,
    *,
    device: str | torch.device = "auto",
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train the generator on `data` as `config.model.grouping` says.

    Args:
        data: The training split. A part of it is held out for early stopping.
        config: The job.
        device: "auto", "cpu", "cuda" or a torch device.
        folder: Checkpoints go to ``folder/checkpoints``, the log to ``folder/metrics.jsonl``; what
            is there is resumed. None: nothing is written.
        progress: Called after every step.

    Raises:
        TrainingError: If the loss stays non-finite or exploding, or a checkpoint cannot be used.
    """
    device = resolve_device(device)
    log = _Log(folder)
    loop = _Loop(data, config, device, folder, log, progress)
    keys = {
        "latent_dim": config.model.latent_dim,
        "width": config.model.width,
        "max_width": config.model.max_width,
        "class_embedding": config.model.class_embedding,
    }
    image_shape = (data.image_shape[0], data.image_shape[1], data.image_shape[2])
    torch_generator = torch.Generator().manual_seed(_mix(config.seed, "weights", 0))
    with _seeded(torch_generator):
        model: Model
        if config.model.grouping == "separate":
            model = SeparateCVAE.build(image_shape, data.n_classes, **keys)
        else:
            model = CVAE(image_shape, data.n_classes, **keys)
    model.to(device)

    steps = config.training.steps or default_steps(len(data), config.training.batch_size)
    if isinstance(model, SeparateCVAE):
        for label, steps_of_class in enumerate(_separate_steps(data.counts, steps)):
            if data.counts[label]:
                stage = _Stage(f"class-{label:03d}", steps_of_class, classes=(label,))
                one_class = model.models[label]
                assert isinstance(one_class, CVAE)  # noqa: S101 - for the type checker
                loop.run(stage, one_class)
    else:
        loop.run(_Stage("trunk", steps, classes=tuple(range(data.n_classes))), model)
        if config.model.grouping == "adapted":
            adapt_steps = config.training.adapt_steps or max(100, steps // 4)
            stage = _Stage("adapt", adapt_steps, tuple(range(data.n_classes)), adapt=True)
            loop.run(stage, model)
    return Trained(model.eval().cpu(), loop.held_out_elbo, loop.steps, loop.skipped)


def resolve_device(device: str | torch.device) -> torch.device:
    """ "auto" is CUDA where there is one.

    Raises:
        TrainingError: If CUDA is asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no CUDA device; use --device cpu or auto")
    return resolved


def default_steps(n_images: int, batch_size: int) -> int:
    """About 20 passes over the images, between 2,000 and 20,000 steps."""
    return min(20_000, max(2_000, round(20 * n_images / batch_size)))


def scale_images(
    images: Tensor, value_range: tuple[float, float]
) -> Float[Tensor, "n c height width"]:
    """Images as stored, (n, H, W, C) of any type, to (n, C, H, W) in [0, 1]."""
    low, high = value_range
    return images.movedim(-1, 1).float().sub(low).div(high - low)


def _separate_steps(counts: np.ndarray, steps: int) -> list[int]:
    # Twice the steps of the shared trunk in all, split by the root of the counts, so that the three
    # groupings cost about the same and a rare class is not trained for longer than it can bear.
    roots = np.sqrt(counts)
    return [max(min(250, steps), round(2 * steps * root / roots.sum())) for root in roots]


@dataclass(frozen=True)
class _Stage:
    name: str
    steps: int
    classes: tuple[int, ...]
    adapt: bool = False


@dataclass
class _State:
    """Everything that a checkpoint holds beside weights and optimiser."""

    step: int = 0
    done: bool = False
    skipped: int = 0
    bad_in_a_row: int = 0
    evaluations_without_gain: int = 0
    running_error: float = math.nan
    running_kl: float = math.nan
    # Best held-out ELBO: of all images (one entry), or of each class while adapting.
    best: list[float] = field(default_factory=list)


class _Loop:
    """The data on the device and one way to run a stage over it."""

    def __init__(
        self,
        data: LabelledImages,
        config: AugmentConfig,
        device: torch.device,
        folder: Path | None,
        log: "_Log",
        progress: Progress | None,
    ) -> None:
        self.config = config
        self.device = device
        self.checkpoints = None if folder is None else folder / "checkpoints"
        self.log = log
        self.progress = progress
        self.held_out_elbo: dict[str, float] = {}
        self.steps: dict[str, int] = {}
        self.skipped: dict[str, int] = {}

        fit, held_out = data.split_off(config.training.held_out, seed=config.seed)
        self.value_range = data.value_range
        self.images = self._resident(fit.images)
        self.labels = torch.from_numpy(fit.labels).to(device)
        self.rows = [np.flatnonzero(fit.labels == label) for label in range(data.n_classes)]
        if len(held_out) > MAX_HELD_OUT:
            rng = np.random.default_rng([config.seed, len(held_out)])
            held_out = held_out.subset(
                np.sort(rng.choice(len(held_out), MAX_HELD_OUT, replace=False))
            )
        self.held_images = self._resident(held_out.images)
        self.held_labels = torch.from_numpy(held_out.labels).to(device)

    def run(self, stage: _Stage, model: CVAE) -> None:
        """Train `model` through a stage, or load it where the stage is already done."""
        training = self.config.training
        trained = model.class_parameters() if stage.adapt else model.trunk_parameters()
        if not stage.adapt:  # The embedding is learned with the trunk; rows and prior wait.
            trained = {**trained, "embedding.weight": model.embedding.weight}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        average = copy.deepcopy(model)
        best = {name: each.detach().clone() for name, each in model.state_dict().items()}
        # Weight decay pulls what only one class sees (its rows) to the shared trunk.
        optimiser = torch.optim.AdamW(
            trained.values(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            betas=(0.9, 0.99),
            fused=True,
        )
        state = self._resume(stage, model, average, best, optimiser)
        if not state.step and stage.adapt:
            self._moment_match_prior(model)
            average.load_state_dict(model.state_dict())
            best.update({name: each.clone() for name, each in model.state_dict().items()})
        if state.step == 0:
            self._evaluate(stage, average, best, state)
        self.log.rewind(stage.name, state.step)
        try:
            while state.step < stage.steps and not state.done:
                logged = self._step(stage, model, average, optimiser, state)
                if state.step % training.eval_every == 0 or state.step == stage.steps:
                    logged |= self._evaluate(stage, average, best, state)
                    self.log.write(stage=stage.name, step=state.step, **logged)
                    state.done = state.evaluations_without_gain >= training.patience
                if state.step % training.checkpoint_every == 0:
                    self._save(stage, model, average, best, optimiser, state)
                if self.progress is not None:
                    self.progress(stage.name, state.step, stage.steps, logged)
        except KeyboardInterrupt:
            self._save(stage, model, average, best, optimiser, state)
            raise
        state.done = True
        model.load_state_dict(best)
        self._save(stage, model, average, best, optimiser, state)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        self.held_out_elbo[stage.name] = float(np.mean(state.best))
        self.steps[stage.name] = state.step
        self.skipped[stage.name] = state.skipped

    # -- One step ------------------------------------------------------------------------------

    def _step(
        self,
        stage: _Stage,
        model: CVAE,
        average: CVAE,
        optimiser: torch.optim.Optimizer,
        state: _State,
    ) -> dict[str, float]:
        training, step = self.config.training, state.step
        rows = torch.from_numpy(self._batch_rows(stage, step)).to(self.device)
        x = scale_images(self.images[rows], self.value_range)
        y = self.labels[rows] if model.n_classes > 1 else torch.zeros_like(rows)
        noise = self._noise(stage.name, step, (len(rows), model.latent_dim))
        for group in optimiser.param_groups:
            group["lr"] = training.learning_rate * self._schedule(step, stage.steps)
        model.train()
        with self._precision():
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
        norm = float(nn.utils.clip_grad_norm_(parameters, training.clip))
        error = float(terms.squared_error.detach().mean())
        kl = float(terms.kl.detach().sum(dim=1).mean())
        state.step += 1
        value = float(loss.detach())
        if self._is_bad(error, kl, value, norm, state):
            self._count_bad(stage, state, value, norm)
            return {"skipped": float(state.skipped)}
        optimiser.step()
        state.bad_in_a_row = 0
        state.running_error = _running(state.running_error, error)
        state.running_kl = _running(state.running_kl, kl)
        self._update_average(average, model, step)
        return {
            "loss": value,
            "reconstruction": float(terms.reconstruction.detach().mean()),
            "kl": kl,
            "mean_squared_error": error / x[0].numel(),
            "gradient_norm": norm,
            "learning_rate": float(optimiser.param_groups[0]["lr"]),
        }

    def _batch_rows(self, stage: _Stage, step: int) -> Int[np.ndarray, " n"]:
        key = [self.config.seed, _mix(0, stage.name, 0)]
        rng = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, step]))
        size = self.config.training.batch_size
        classes = [label for label in stage.classes if len(self.rows[label])]
        if stage.adapt:
            # Every class in every batch, equally: its rows see no other class's images.
            drawn = np.resize(np.asarray(classes), max(size, 4 * len(classes)))
        else:
            weights = np.array([len(self.rows[label]) for label in classes], dtype=float)
            weights **= self.config.training.class_power
            drawn = rng.choice(np.asarray(classes), size=size, p=weights / weights.sum())
        uniform = rng.random(len(drawn))
        return np.array(
            [
                self.rows[label][int(u * len(self.rows[label]))]
                for label, u in zip(drawn, uniform, strict=True)
            ],
            dtype=np.int64,
        )

    def _noise(self, stage: str, step: int, shape: tuple[int, int]) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(_mix(self.config.seed, stage, step))
        return torch.randn(shape, generator=generator, device=self.device)

    def _schedule(self, step: int, steps: int) -> float:
        warmup = min(self.config.training.lr_warmup, max(1, steps // 10))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    def _kl_weight(self, stage: _Stage, step: int) -> float:
        warmup = self.config.training.kl_warmup * stage.steps
        return 1.0 if stage.adapt or warmup < 1 else min(1.0, (step + 1) / warmup)

    def _precision(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"
        )

    def _update_average(self, average: CVAE, model: CVAE, step: int) -> None:
        # The decay grows from 0, so that the first weights do not linger (Karras et al. 2024).
        decay = min(self.config.training.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(average.parameters(), model.parameters(), strict=True):
                if now.requires_grad:
                    mean.lerp_(now, 1 - decay)

    def _is_bad(self, error: float, kl: float, loss: float, norm: float, state: _State) -> bool:
        if not all(map(math.isfinite, (error, kl, loss, norm))):
            return True
        if math.isnan(state.running_error):
            return False
        return error > EXPLODING * state.running_error + 1.0 or kl > EXPLODING * (
            state.running_kl + 10.0
        )

    def _count_bad(self, stage: _Stage, state: _State, loss: float, norm: float) -> None:
        state.skipped += 1
        state.bad_in_a_row += 1
        self.log.write(stage=stage.name, step=state.step, skipped=state.skipped, loss=str(loss))
        if state.bad_in_a_row >= self.config.training.max_bad_steps:
            raise TrainingError(
                f"stage {stage.name!r}, step {state.step}: the loss was not finite or exploding "
                f"for {state.bad_in_a_row} steps in a row (loss {loss:g}, gradient norm {norm:g}; "
                f"{state.skipped} steps skipped in all); lower training.learning_rate (now "
                f"{self.config.training.learning_rate:g}) or training.clip"
            )

    # -- Held-out evaluation -------------------------------------------------------------------

    @torch.no_grad()
    def _evaluate(
        self, stage: _Stage, average: CVAE, best: dict[str, Tensor], state: _State
    ) -> dict[str, float]:
        """Score the averaged weights and keep the best: as a whole, or row by row per class."""
        average.eval()
        if not stage.adapt:
            self._calibrate_sigma(stage, average)
        elbo, labels = self._held_out(stage, average)
        if stage.adapt:
            return self._keep_best_rows(average, best, state, elbo, labels)
        score = float(elbo.mean())
        if not state.best or score > state.best[0]:
            state.best = [score]
            state.evaluations_without_gain = 0
            best.update({name: each.clone() for name, each in average.state_dict().items()})
        else:
            state.evaluations_without_gain += 1
        return {"held_out_elbo": score}

    def _keep_best_rows(
        self,
        average: CVAE,
        best: dict[str, Tensor],
        state: _State,
        elbo: Tensor,
        labels: Tensor,
    ) -> dict[str, float]:
        """A class keeps its rows where they were best for its own held-out images.

        A class without held-out images keeps the rows it started with.
        """
        if not state.best:
            state.best = [-math.inf] * average.n_classes
        gained = False
        scores = []
        for label in range(average.n_classes):
            own = elbo[labels == label]
            if len(own) == 0:
                continue
            score = float(own.mean())
            scores.append(score)
            if score > state.best[label]:
                state.best[label], gained = score, True
                for name, parameter in average.class_parameters().items():
                    best[name][label] = parameter[label]
        state.evaluations_without_gain = 0 if gained else state.evaluations_without_gain + 1
        return {"held_out_elbo_by_class": float(np.mean(scores))}

    def _held_out(self, stage: _Stage, model: CVAE) -> tuple[Tensor, Tensor]:
        images, labels = self.held_images, self.held_labels
        if model.n_classes == 1:
            own = labels == stage.classes[0]
            images, labels = images[own], torch.zeros_like(labels[own])
            if not len(images):  # a class of one image: its training image stands in
                images = self.images[torch.from_numpy(self.rows[stage.classes[0]]).to(self.device)]
                labels = torch.zeros(len(images), dtype=torch.long, device=self.device)
        scores = []
        for terms in self._terms(model, images, labels, "held-out"):
            scores.append(terms.elbo)
        return torch.cat(scores), labels

    def _calibrate_sigma(self, stage: _Stage, model: CVAE) -> None:
        """Set the decoder's sigma to the optimum for a fixed sample of the training images."""
        rows = np.concatenate([self.rows[label] for label in stage.classes])
        rng = np.random.default_rng([self.config.seed, len(rows)])
        rows = np.sort(rng.permutation(rows)[:1024])
        index = torch.from_numpy(rows).to(self.device)
        images, labels = self.images[index], self.labels[index]
        labels = torch.zeros_like(labels) if model.n_classes == 1 else labels
        total = torch.zeros((), device=self.device, dtype=torch.float64)
        for terms in self._terms(model, images, labels, "sigma"):
            total += terms.squared_error.double().sum()
        mean_square = float(total) / (len(rows) * images[0].numel())
        model.log_sigma2.fill_(math.log(max(mean_square, MIN_SIGMA**2)))

    @torch.no_grad()
    def _moment_match_prior(self, model: CVAE) -> None:
        """Start each class's prior at the normal nearest in KL to its aggregate posterior."""
        model.eval()
        for label, rows in enumerate(self.rows):
            if len(rows) < 2:
                continue
            images = self.images[torch.from_numpy(rows[:4096]).to(self.device)]
            means, variances = [], []
            for block in images.split(512):
                y = torch.full((len(block),), label, device=self.device)
                mean, logvar = model.posterior(scale_images(block, self.value_range), y)
                means.append(mean)
                variances.append(logvar.exp())
            mean, variance = torch.cat(means), torch.cat(variances)
            # Shrunk to the standard normal by the weight of 10 images: a rare class's own moments
            # are mostly noise.
            n, weight = len(mean), 10.0
            model.prior_mean.weight[label] = mean.mean(dim=0) * n / (n + weight)
            spread = (variance + mean.square()).mean(dim=0) - mean.mean(dim=0).square()
            model.prior_logvar.weight[label] = ((spread * n + weight) / (n + weight)).log()

    def _terms(
        self, model: CVAE, images: Tensor, labels: Tensor, purpose: str
    ) -> Iterator[ElboTerms]:
        for start in range(0, len(images), 512):
            block, y = images[start : start + 512], labels[start : start + 512]
            noise = self._noise(purpose, start, (len(block), model.latent_dim))
            with self._precision():
                terms = model.elbo(scale_images(block, self.value_range), y, noise=noise)
            yield terms

    # -- Checkpoints ---------------------------------------------------------------------------

    def _save(
        self,
        stage: _Stage,
        model: CVAE,
        average: CVAE,
        best: dict[str, Tensor],
        optimiser: torch.optim.Optimizer,
        state: _State,
    ) -> None:
        if self.checkpoints is None:
            return
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"state": vars(state), "best": best}
        if not state.done:
            content |= {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
            }
        path = self.checkpoints / f"{stage.name}.pt"
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def _resume(
        self,
        stage: _Stage,
        model: CVAE,
        average: CVAE,
        best: dict[str, Tensor],
        optimiser: torch.optim.Optimizer,
    ) -> _State:
        path = None if self.checkpoints is None else self.checkpoints / f"{stage.name}.pt"
        if path is None or not path.exists():
            return _State()
        try:
            content = torch.load(path, map_location=self.device, weights_only=True)
            best.update(content["best"])
            state = _State(**content["state"])
            if not state.done:
                model.load_state_dict(content["model"])
                average.load_state_dict(content["average"])
                optimiser.load_state_dict(content["optimiser"])
        except Exception as error:
            raise TrainingError(
                f"{path}: this checkpoint cannot be used ({error}); delete it to train the stage "
                "again"
            ) from error
        return state

    def _resident(self, images: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(images))
        return tensor.to(self.device)


class _Log:
    """``metrics.jsonl``, one line per logged step, in step with the checkpoints."""

    def __init__(self, folder: Path | None) -> None:
        self.path = None if folder is None else folder / "metrics.jsonl"

    def write(self, **entry: Any) -> None:
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def rewind(self, stage: str, step: int) -> None:
        """Drop what was logged after the checkpoint that training resumes from."""
        if self.path is None or not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not _is_later(line, stage, step)]
        if len(kept) < len(lines):
            self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _is_later(line: str, stage: str, step: int) -> bool:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:  # the last line of a killed writer
        return True
    return entry.get("stage") == stage and entry.get("step", 0) > step


def _running(mean: float, value: float) -> float:
    return value if math.isnan(mean) else 0.98 * mean + 0.02 * value


def _mix(seed: int, name: str, step: int) -> int:
    """A 63-bit seed from a run, a purpose and a step."""
    digest = hashlib.blake2b(f"{seed}/{name}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class _seeded:  # noqa: N801 - a context manager reads as a phrase
    """Draw initial weights from a given generator and leave the global one as it was."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __enter__(self) -> None:
        self.before = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.before)
