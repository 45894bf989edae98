"""Training of the restorer: samples with noise and gaps of every kind and level, and clean ones."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.memory import kept_memory
from vaeaug.models import (
    MAX_NOISE,
    MIN_NOISE,
    NOISE_LEVELS,
    PEAKS,
    Geometry,
    Restorer,
    SizeError,
    poisson_level,
)
from vaeaug.progress import Progress
from vaeaug.randomness import seeded_torch
from vaeaug.ranks import Ranks
from vaeaug.training._batches import Batches, mix, resolve_device
from vaeaug.training._loop import Loop
from vaeaug.training._scores import keep_best, mean_finite
from vaeaug.training._state import (
    WEIGHT_DECAY,
    Stage,
    StageRecord,
    StepLoss,
    TrainState,
    as_guard,
)
from vaeaug.training._together import released, summoned
from vaeaug.training._train import convolution_of, usual_steps

NAME = "restorer"
# Name of the task of the other processes.
RESTORATION = "restore"
# Fraction of a time budget that the restorer takes.
BUDGET_SHARE = 0.1
# Fractions of the samples in training with counting noise, and with missing values.
_POISSON, _GAPS = 0.2, 0.25
# Fraction of those with missing values that have next to no noise besides.
_CLEAN = 0.5
# Counts of the brightest value that are learned.
_LEARNED_PEAKS = (2.0, 512.0)
# Gradient norm to clip at: relative errors are of the order of 1, whatever the noise, and few steps
# are above it by much.
_CLIP = 1.0
# Longest side in training, by the number of spatial axes; longer samples are cut.
_SIDES = (2048, 32, 16)
# Rounds in which the weights of the levels are fitted to one another, and the least factor of one.
_ROUNDS, _LEAST_FACTOR = 30, 0.1
# Estimates of neighbouring levels are apart by this factor at least.
_LEAST_RATIO = 1.02
# Maximum number of held-out samples that are scored, and how often: 20 times took a sixth of the
# time on a CPU and half of it on a card, and the last weights are the best ones or nearly.
_HELD_OUT, _EVALUATIONS = 128, 5


@dataclass(frozen=True)
class Corrupted:
    """Noisy samples and what is known of their noise.

    Attributes:
        values: Noisy values, (n, c, *space).
        sigma: Standard deviation of the noise of each, infinite where it is missing.
        known: 1 where the value is known, 0 where it is missing.
        level: Level of the Gaussian noise of each sample, (n,).
        is_told: The samples whose noise is not estimated, (n,): counting noise, and next to none
            beside gaps.
    """

    values: Float[Tensor, "n c *space"]
    sigma: Float[Tensor, "n c *space"]
    known: Float[Tensor, "n c *space"]
    level: Float[Tensor, " n"]
    is_told: Bool[Tensor, " n"]


def restoration_steps(data: LabelledImages, config: AugmentConfig) -> int:
    """Return the number of training steps of the restorer.

    Args:
        data: The training split.
        config: The job.

    Returns:
        Steps; 0 if none is trained.
    """
    if data.are_features:
        return 0
    try:
        Geometry.of(data.image_shape)
    except SizeError:
        return 0  # a dense network takes samples that convolutions do not
    if config.restoration.steps is not None:
        return config.restoration.steps
    if config.training.steps is not None:
        return math.ceil(config.training.steps / 4)
    return math.ceil(usual_steps(data, config) / 2)


def restoration_stage(data: LabelledImages, config: AugmentConfig) -> Stage:
    """Describe the training of the restorer.

    Args:
        data: The training split.
        config: The job.

    Returns:
        The stage.
    """
    settings, budget = config.restoration, config.training.budget_seconds
    return Stage(
        NAME,
        restoration_steps(data, config),
        classes=tuple(range(data.n_classes)),
        learning_rate=settings.learning_rate,
        class_power=1.0,  # the mean of the samples as they are
        budget=None if budget is None else BUDGET_SHARE * budget,
        weight_decay=(
            WEIGHT_DECAY if config.training.weight_decay is None else config.training.weight_decay
        ),
        evaluations=_EVALUATIONS,
    )


def new_restorer(data: LabelledImages, config: AugmentConfig, device: torch.device) -> Restorer:
    """Build a restorer with the weights that its training starts from.

    Args:
        data: The training split.
        config: The job.
        device: Device of the weights.

    Returns:
        The restorer.
    """
    with seeded_torch(mix(config.seed, f"weights/{NAME}", 0)):
        return Restorer(
            data.image_shape,
            width=config.restoration.width,
            convolution=convolution_of(data, config),
        ).to(device)


def train_restorer(
    data: LabelledImages,
    config: AugmentConfig,
    *,
    device: str | torch.device = "auto",
    folder: Path | None = None,
    progress: Progress | None = None,
    start: Restorer | None = None,
) -> tuple[Restorer, str]:
    """Train a restorer and calibrate its blend with the input on held-out samples.

    Args:
        data: The training split.
        config: The job; `restoration_steps` are at least 1.
        device: "auto", "cpu", "cuda", "cuda:N" or a torch device.
        folder: Run folder for checkpoints and log; training resumes from there. None: nothing is
            written.
        progress: Called after every step.
        start: A restorer of other data whose weights it starts from, if it is built alike.

    Returns:
        The restorer in evaluation mode, and a line for the log.

    Raises:
        TrainingError: If the loss stays non-finite, or a checkpoint cannot be used.
    """
    device = resolve_device(device)
    ranks = summoned(RESTORATION, data, config, device)
    trained = _Training(data, config, device)
    restorer = trained.restorer
    if start is not None and start.architecture == restorer.architecture:
        restorer.load_state_dict(start.state_dict())
    record = trained.run(folder, progress, ranks)
    released(ranks)
    restorer.eval()
    with trained.memory():
        trained.objective.calibrate(restorer)
    first, best = mean_finite(record.first), mean_finite(record.best)
    levels = f"noise of {NOISE_LEVELS[0]:g} to {NOISE_LEVELS[-1]:g}"
    return restorer, (
        f"{NAME}: {record.step} steps, held-out PSNR {first:.1f} -> {best:.1f} dB (mean, {levels})"
    )


def follow_restoration(
    data: LabelledImages, config: AugmentConfig, device: torch.device, ranks: Ranks
) -> None:
    """Take part in the training of a restorer by another process, which keeps it.

    Args:
        data: The training split.
        config: The job.
        device: The device of this process.
        ranks: The processes.

    Raises:
        TrainingError: If a step does not fit into the memory of the device.
    """
    _Training(data, config, device).run(None, None, ranks)


class _Training:
    """The one stage of a restorer."""

    def __init__(self, data: LabelledImages, config: AugmentConfig, device: torch.device) -> None:
        self.config, self.batches = config, Batches(data, config, device)
        self.stage = restoration_stage(data, config)
        self.restorer = new_restorer(data, config, device)
        self.bytes = 4 * config.restoration.batch_size * math.prod(data.image_shape)
        with self.memory():
            self.objective = RestorationObjective(self.batches, config, self.stage)

    def memory(self) -> AbstractContextManager[None]:
        return kept_memory(self.bytes)

    def run(self, folder: Path | None, progress: Progress | None, ranks: Ranks) -> StageRecord:
        config = self.config.changed(**{"training.clip": min(_CLIP, self.config.training.clip)})
        loop = Loop(self.batches, config, folder, progress, ranks)
        with self.memory():
            return loop.run(self.stage, self.restorer, self.objective)


class RestorationObjective:
    """Squared error relative to that of a Wiener filter, and the estimate of the noise level.

    Half of the samples are restored with the estimated level, as they will be where it is unknown.

    Args:
        batches: The data.
        config: The job.
        stage: The stage.
    """

    is_repeatable = True
    is_divisible = True
    has_one_loss = True

    def __init__(self, batches: Batches, config: AugmentConfig, stage: Stage) -> None:
        self.batches, self.config, self.stage = batches, config, stage
        self.is_clipped = batches.images.dtype == torch.uint8
        held_out, _ = batches.held_out(stage)
        if not len(held_out):
            held_out, _ = batches.of_classes(stage, _HELD_OUT)
        held_out = held_out[:: math.ceil(len(held_out) / _HELD_OUT)]
        x = batches.scale(held_out)
        self.held_out = _cut(x, [(side - most) // 2 for side, most in _long(x)])

    def trained(self, model: nn.Module) -> Mapping[str, nn.Parameter]:
        """Return all parameters."""
        return dict(model.named_parameters())

    def start(self, state: TrainState) -> None:
        """Standardise by training samples, and score the initial weights."""
        images, _ = self.batches.of_classes(self.stage, 2048)
        x = self.batches.scale(images)
        for model in (state.model, state.average):
            _restorer(model).standardise(x)
        self.evaluate(state, 0.0)

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Compute the relative squared error, and the error of the logarithm of the level."""
        restorer = _restorer(state.model)
        x, *fields = self.batches.tape.tensors(lambda step, _: self._example(step), step=step)
        noisy = Corrupted(*fields)
        told = restorer.log_estimate(noisy.values, noisy.known)
        blind = ~noisy.is_told & (torch.arange(len(x), device=x.device) % 2 == 0)
        sigma = torch.where(
            _column(blind, x) & (noisy.known > 0), _column(told.detach().exp(), x), noisy.sigma
        )
        error = (restorer(noisy.values, sigma) - x).square().flatten(1).mean(dim=1)
        # By the level that the network was told. By the true one, samples whose level is misjudged
        # outweigh all others: 0.5 dB worse after 150 steps on Fashion-MNIST, and more with noise.
        error = error / restorer.expected_error(sigma).flatten(1).mean(dim=1)
        miss = F.smooth_l1_loss(told, noisy.level.log(), beta=0.1, reduction="none")
        miss = torch.where(noisy.is_told, 0.0, miss).sum() / len(x)
        relative = error.mean()
        metrics = {"relative_error": relative.detach(), "level_error": miss.detach()}
        return StepLoss(relative + 0.1 * miss, as_guard(relative), metrics)

    def _example(self, step: int) -> tuple[Tensor, ...]:
        """Clean samples, or a part of them, and the fields of `Corrupted`."""
        x, _ = self.batches.draw(self.stage, step, self.config.restoration.batch_size)
        places = self.batches.uniform(f"{NAME}/place", step, (x.ndim - 2,))
        for axis, (place, (side, most)) in enumerate(zip(places, _long(x), strict=True), start=2):
            if side > most:
                first = (place * (side - most + 1)).long()
                x = x.index_select(axis, first + torch.arange(most, device=x.device))
        noisy = self.corrupt(x, step)
        return x, noisy.values, noisy.sigma, noisy.known, noisy.level, noisy.is_told

    @torch.no_grad()
    def evaluate(self, state: TrainState, done: float) -> dict[str, float]:
        """Score held-out samples by their PSNR in dB, with noise of unknown level."""
        restorer = _restorer(state.average.eval())
        scores = [
            (-10 * (restored - x).square().flatten(1).mean(dim=1).clamp(min=1e-10).log10()).mean()
            for x, _, restored, _ in self._without_noise(restorer)
        ]
        psnr = float(torch.stack(scores).mean())
        keep_best(state, psnr)
        return {"held_out_psnr": psnr}

    @torch.no_grad()
    def calibrate(self, restorer: Restorer) -> None:
        """Set what the estimate of a level means, and the weights of the results against the input.

        The best weight of r against y is the slope of x - y on r - y.

        Args:
            restorer: Changed in place.
        """
        self._calibrate_estimates(restorer)
        self._fit_weights(restorer)
        known = [_best_weight(*triple[:3]) for triple in self._without_noise(restorer, told=True)]
        restorer.known_weights.copy_(torch.stack(known))
        counted = [_best_weight(*triple) for triple in self._without_counts(restorer)]
        restorer.poisson_weights.copy_(torch.stack(counted))

    def _calibrate_estimates(self, restorer: Restorer) -> None:
        found = [
            torch.cat([restorer.log_estimate(part, torch.ones_like(part)) for part in y.split(32)])
            for y in map(self._noisy, range(len(NOISE_LEVELS)))
        ]
        estimates = torch.stack([each.mean() for each in found]).exp()
        for lower, higher in pairwise(estimates):
            higher.clamp_(min=_LEAST_RATIO * lower)  # stronger noise is never told as weaker
        restorer.estimates.copy_(estimates)

    def _fit_weights(self, restorer: Restorer) -> None:
        """Fit the weights where levels are estimated: no level must be worse off than its input.

        The weight of a sample is that of its own estimate, which may be of another level. Where a
        level would be better off with less, the weights that its samples meet are lowered.
        """
        restorer.weights.fill_(1.0)
        restored = self._without_noise(restorer)
        shares = torch.stack([restorer.weight_shares(level).mean(0) for *_, level in restored])
        for _ in range(_ROUNDS):
            factors = [
                _best_weight(x, y, y + _column(restorer.weight_of(level), y) * (r - y))
                for x, y, r, level in restored
            ]
            lower = shares.T @ torch.stack(factors).clamp(min=_LEAST_FACTOR).log()
            restorer.weights.mul_(lower.exp())

    def _without_noise(
        self, restorer: Restorer, *, told: bool = False
    ) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """At each level clean, noisy and restored held-out samples, and the level that was used."""
        restored = []
        for number, true_level in enumerate(NOISE_LEVELS):
            y, parts, levels = self._noisy(number), [], []
            for part in y.split(32):
                level = part.new_full((len(part),), true_level)
                if not told:
                    level = restorer.noise_level(part, torch.ones_like(part)).clamp(max=MAX_NOISE)
                parts.append(restorer(part, _column(level, part).expand_as(part)).clamp(0, 1))
                levels.append(level)
            restored.append((self.held_out, y, torch.cat(parts), torch.cat(levels)))
        return restored

    def _noisy(self, number: int) -> Tensor:
        """The held-out samples with noise of one of `NOISE_LEVELS`."""
        x = self.held_out
        noise = self.batches.noise(f"{NAME}/held-out", number, tuple(x.shape))
        y = x + NOISE_LEVELS[number] * noise
        return y.clamp(0, 1) if self.is_clipped else y

    def _without_counts(self, restorer: Restorer) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The same with counting noise at each of `PEAKS`."""
        triples, x = [], self.held_out
        for number, peak in enumerate(PEAKS):
            y = self.batches.counts(f"{NAME}/held-out", number, x.clamp(min=0) * peak) / peak
            y = y.clamp(0, 1) if self.is_clipped else y
            parts = [
                restorer(part, poisson_level(part, part.new_tensor(peak))).clamp(0, 1)
                for part in y.split(32)
            ]
            triples.append((x, y, torch.cat(parts)))
        return triples

    def corrupt(self, x: Float[Tensor, "n c *space"], step: int) -> Corrupted:
        """Add noise and gaps as a function of the step.

        Gaussian noise has a level that is uniform in its logarithm; counting noise replaces it in
        some samples. Others lose values, one by one or in a block. Samples of 8 bits are clipped,
        as such samples are when they are stored; of others, half.

        Args:
            x: Clean samples.
            step: Number of the step.

        Returns:
            The samples with noise.
        """
        n, rank, stream = len(x), x.ndim - 2, self.batches
        draws = stream.uniform(f"{NAME}/noise", step, (n, 7 + 2 * rank))
        level = MIN_NOISE * (MAX_NOISE / MIN_NOISE) ** draws[:, 0]
        has_gaps = draws[:, 3] < _GAPS
        is_clean = has_gaps & (draws[:, -1] < _CLEAN)
        level = torch.where(is_clean, MIN_NOISE, level)
        low, high = _LEARNED_PEAKS
        peak = _column(low * (high / low) ** draws[:, 0], x)
        is_poisson = (draws[:, 1] < _POISSON) & ~is_clean
        y = x + _column(level, x) * stream.noise(f"{NAME}/noise", step, tuple(x.shape))
        counted = stream.counts(f"{NAME}/counts", step, x.clamp(min=0) * peak) / peak
        y = torch.where(_column(is_poisson, x), counted, y)
        clipped = draws[:, 2] < (1.0 if self.is_clipped else 0.5)
        y = torch.where(_column(clipped, x), y.clamp(0, 1), y)
        sigma = torch.where(
            _column(is_poisson, x), poisson_level(y, peak), _column(level, x).expand_as(x)
        )
        known = self._gaps(x, draws[:, 3:], step)
        return Corrupted(
            torch.where(known > 0, y, 0.0),
            torch.where(known > 0, sigma, math.inf),
            known,
            level,
            is_poisson | is_clean,
        )

    def _gaps(self, x: Tensor, draws: Tensor, step: int) -> Tensor:
        """1 for known values, 0 for missing ones, which are so in all channels."""
        shape, rank = (len(x), 1, *x.shape[2:]), x.ndim - 2
        single = self.batches.uniform(f"{NAME}/gaps", step, shape) > _column(draws[:, 2], x)
        block = torch.ones(shape, dtype=torch.bool, device=x.device)
        for axis, side in enumerate(x.shape[2:]):
            size = 0.2 + 0.4 * draws[:, 3 + 2 * axis]
            start = draws[:, 4 + 2 * axis] * (1 - size)
            place = (torch.arange(side, device=x.device) + 0.5) / side
            inside = (place >= start[:, None]) & (place < (start + size)[:, None])
            block = block & inside.view(len(x), 1, *(1,) * axis, side, *(1,) * (rank - axis - 1))
        known = torch.where(_column(draws[:, 1] < 0.5, x), single, ~block)
        return (known | _column(draws[:, 0] >= _GAPS, x)).expand_as(x).float()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing; the training state holds everything."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


def _best_weight(x: Tensor, y: Tensor, restored: Tensor) -> Tensor:
    change = restored - y
    return (((x - y) * change).sum() / change.square().sum().clamp(min=1e-12)).clamp(0, 1)


def _long(x: Tensor) -> list[tuple[int, int]]:
    """Each side in space and how much of it is used in training."""
    return [(side, min(side, _SIDES[x.ndim - 3])) for side in x.shape[2:]]


def _cut(x: Tensor, starts: list[int]) -> Tensor:
    for axis, (start, (_, most)) in enumerate(zip(starts, _long(x), strict=True), start=2):
        x = x.narrow(axis, start, most)
    return x


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1 for _ in like.shape[1:]))


def _restorer(module: nn.Module) -> Restorer:
    assert isinstance(module, Restorer)
    return module
