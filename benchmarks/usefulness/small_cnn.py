"""One small CNN for images and signals, and every way to train it that is compared here."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug import LabelledImages

WIDTH = 16
LEARNING_RATE, HIGHEST_RATE, WEIGHT_DECAY = 1e-3, 3e-3, 5e-2
PREDICTED_AT_ONCE = 1000


@dataclass(frozen=True)
class Training:
    """How the network is trained.

    Attributes:
        affine: Strength of rotation, scale, shear and shift of images; 0: none.
        jitter: Deviation of the noise on signals.
        scaling: Deviation of the factor of a channel of signals.
        warp: Strength of the time warp of signals, as a part of their length.
        tau: Of logit adjustment; 0: none, and class-balanced draws.
        smoothing: Of the labels.
        mixup: Alpha of Mixup; 0: none.
        cutmix: Part of the batches under CutMix, alpha 1.
        share: Part of every class's draws that comes from the pool; -1: what a class lacks of
            the largest class.
        until: Part of the steps with such draws; real ones only after that.
    """

    affine: float = 0.0
    jitter: float = 0.0
    scaling: float = 0.0
    warp: float = 0.0
    tau: float = 0.0
    smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    share: float = 0.0
    until: float = 1.0


@dataclass(frozen=True)
class Pool:
    """Synthetic samples by class.

    Attributes:
        images: Of class c the samples ``images[c, :made[c]]``, in the units of the data.
        made: How many a class has; 0: none, and its draws stay real.
    """

    images: np.ndarray
    made: Int64[np.ndarray, " k"]


def network(image_shape: tuple[int, ...], n_classes: int, *, width: int = WIDTH) -> nn.Sequential:
    """Five convolutions, then a linear layer.

    Args:
        image_shape: (length, channels) or (height, width, channels).
        n_classes: Outputs.
        width: Channels of the first convolution.

    Returns:
        (n, channels, *space) to logits (n, n_classes); all but the last module give the features.
    """
    flat = len(image_shape) == 2
    conv, norm = (nn.Conv1d, nn.BatchNorm1d) if flat else (nn.Conv2d, nn.BatchNorm2d)
    kernel = 5 if flat else 3
    pooled = nn.AdaptiveAvgPool1d(4) if flat else nn.AdaptiveAvgPool2d(2)

    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            conv(inputs, outputs, kernel, stride, kernel // 2, bias=False), norm(outputs), nn.ReLU()
        )

    w = width
    return nn.Sequential(
        block(image_shape[-1], w, 1),
        block(w, 2 * w, 2),
        block(2 * w, 4 * w, 1),
        block(4 * w, 4 * w, 2),
        block(4 * w, 8 * w, 1),
        pooled,
        nn.Flatten(),
        nn.Linear(32 * w, n_classes),
    )


def as_tensor(images: np.ndarray, data: LabelledImages) -> Float[Tensor, "n c *space"]:
    """Images in [0, 1], signals as they are, channels first.

    Args:
        images: In the units of the data.
        data: Says which units.

    Returns:
        What the network takes.
    """
    x = torch.from_numpy(np.moveaxis(images, -1, 1).astype(np.float32))
    if data.layout == "NLC":
        return x.contiguous()
    low, high = data.value_range
    return ((x - low) / (high - low)).contiguous()


# -- Augmentations ---------------------------------------------------------------------------------


def affine(x: Float[Tensor, "n c h w"], strength: float, random: torch.Generator) -> Tensor:
    """Rotation, scale, shear and shift: at strength 1 by 0.2 rad, 15 %, 15 % and 3 of 28 pixels.

    Args:
        x: Images.
        strength: As a factor.
        random: Source of randomness.

    Returns:
        Images.
    """
    u = strength * (2 * torch.rand(7, len(x), generator=random) - 1).to(x.device)
    turn, scale = 0.2 * u[0], 1 + 0.15 * u[1]
    other = scale * (1 + 0.15 * u[2])
    theta = torch.stack(
        [
            torch.stack([scale * turn.cos(), -scale * turn.sin() + 0.15 * u[3], u[4] * 3 / 28], 1),
            torch.stack([other * turn.sin(), other * turn.cos(), u[5] * 3 / 28], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def time_warp(x: Float[Tensor, "n c l"], strength: float, random: torch.Generator) -> Tensor:
    """Read signals at times that run faster and slower: three sines of random height.

    Args:
        x: Signals.
        strength: Greatest displacement, as a part of the length.
        random: Source of randomness.

    Returns:
        Signals of the same length.
    """
    n, _, length = x.shape
    t = torch.linspace(0, 1, length, device=x.device)
    waves = torch.stack([(np.pi * k * t).sin() / k for k in (1, 2, 3)])
    height = strength * (2 * torch.rand(n, 3, generator=random) - 1).to(x.device)
    times = 2 * (t + height @ waves) - 1
    grid = torch.stack([times, torch.zeros_like(times)], -1)[:, None]
    return F.grid_sample(x[:, :, None], grid, padding_mode="border", align_corners=True)[:, :, 0]


def augment(x: Tensor, how: Training, random: torch.Generator) -> Tensor:
    """Apply the classic augmentations of a training.

    Args:
        x: Images or signals, (n, c, *space).
        how: Which, and how strong.
        random: Source of randomness.

    Returns:
        The same shape.
    """
    if how.affine and x.ndim == 4:
        x = affine(x, how.affine, random)
    if how.warp:
        x = time_warp(x, how.warp, random)
    if how.scaling:
        factors = torch.randn(len(x), x.shape[1], 1, generator=random).to(x.device)
        x = x * (1 + how.scaling * factors)
    if how.jitter:
        x = x + how.jitter * torch.randn(x.shape, generator=random).to(x.device)
    return x


def mixed(
    x: Tensor, target: Float[Tensor, "n k"], how: Training, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899; a segment of a signal).

    Args:
        x: Images or signals.
        target: Class probabilities.
        how: Which.
        rng: Source of randomness.

    Returns:
        Mixed images and targets.
    """
    if how.mixup:
        order = torch.from_numpy(rng.permutation(len(x))).to(x.device)
        share = float(rng.beta(how.mixup, how.mixup))
        x, target = (share * a + (1 - share) * a[order] for a in (x, target))
    if how.cutmix and rng.random() < how.cutmix:
        order = torch.from_numpy(rng.permutation(len(x))).to(x.device)
        space, cut = x.shape[2:], 1 - rng.random()
        x, part, box = x.clone(), 1.0, [slice(None), slice(None)]
        for size in space:
            half = size * cut ** (1 / len(space)) / 2
            centre = rng.random() * size
            low, high = max(0, round(centre - half)), min(size, round(centre + half))
            box.append(slice(low, high))
            part *= (high - low) / size
        x[tuple(box)] = x[order][tuple(box)]
        target = (1 - part) * target + part * target[order]
    return x, target


# -- Training --------------------------------------------------------------------------------------


def train(
    data: LabelledImages,
    how: Training,
    pool: Pool | None,
    *,
    seed: int,
    steps: int,
    batch: int,
    bfloat16: bool = False,
    device: str = "cpu",
) -> nn.Sequential:
    """Train the network; trainings of a seed share weights, real draws and augmentations.

    Args:
        data: Real training images.
        how: How.
        pool: Synthetic samples, where `how` has a share of them.
        seed: Of everything random.
        steps: Optimiser steps.
        batch: Draws of a step.
        bfloat16: Convolve in bfloat16: on recent processors nearly twice as fast.
        device: "cpu" or "cuda"; random numbers are those of the CPU on both.

    Returns:
        The network, in evaluation mode, on the device.

    Raises:
        ValueError: If there has to be a pool and is none.
    """
    if how.share and pool is None:
        raise ValueError("train: expected a pool of samples for a share of them, got none")
    k, counts = data.n_classes, torch.from_numpy(data.counts)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network(data.image_shape, k).to(device)
    optimiser = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, HIGHEST_RATE, steps)
    shift = how.tau * (counts.clamp(min=1) / counts.sum()).log().to(device)
    draw = _draws(data, how, pool, seed=seed, batch=batch)
    random = torch.Generator().manual_seed(seed)
    mixing = np.random.default_rng([seed, 3])
    for step in range(steps):
        x, y = (each.to(device) for each in draw(step < how.until * steps))
        target = F.one_hot(y, k).float() * (1 - how.smoothing) + how.smoothing / k
        x, target = mixed(augment(x, how, random), target, how, mixing)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits.float() + shift, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def _draws(
    data: LabelledImages, how: Training, pool: Pool | None, *, seed: int, batch: int
) -> Callable[[bool], tuple[Tensor, Int64[Tensor, " n"]]]:
    """Batches: class-balanced, or as they come under logit adjustment; some of the pool."""
    rng, swaps = (np.random.default_rng([seed, stream]) for stream in (1, 2))
    images, counts = as_tensor(data.images, data), data.counts
    order, starts = np.argsort(data.labels, kind="stable"), np.cumsum(counts) - counts
    present = np.flatnonzero(counts)
    share = np.full(data.n_classes, how.share)
    if how.share < 0:
        share = 1 - counts / counts.max()
    if pool is not None:
        k, n = pool.images.shape[:2]
        flat = as_tensor(pool.images.reshape(k * n, *pool.images.shape[2:]), data)
        share = np.where(pool.made > 0, share, 0)

    def draw(synthetic: bool) -> tuple[Tensor, Tensor]:
        if how.tau:
            y = data.labels[rng.integers(len(data), size=batch)]
        else:
            y = rng.choice(present, batch)
        x = images[order[starts[y] + rng.integers(counts[y])]]
        if pool is not None and synthetic:
            places = np.flatnonzero(swaps.random(batch) < share[y])
            x[places] = flat[y[places] * n + swaps.integers(pool.made[y[places]])]
        return x, torch.from_numpy(y)

    return draw


@torch.no_grad()
def predict(
    model: nn.Module, data: LabelledImages, *, bfloat16: bool = False
) -> Float[np.ndarray, "n k"]:
    """Class probabilities.

    Args:
        model: A network, or a part of one that ends in logits.
        data: Images; their labels are not looked at.
        bfloat16: Convolve in bfloat16.

    Returns:
        A row for each image.
    """
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        parts = as_tensor(data.images, data).split(PREDICTED_AT_ONCE)
        logits = [model(x.to(device)).cpu() for x in parts]
    return torch.cat(logits).double().softmax(1).numpy()
