"""DeepSMOTE's scheme (arXiv:2105.02340): an autoencoder, SMOTE between its codes, decoded.

The penalty: images of one class are encoded, the codes exchanged among them, and what is decoded is
still compared with the images in their own order, so that codes of a class may replace each other.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.usefulness.heads import smote
from benchmarks.usefulness.small_cnn import Pool, as_tensor
from vaeaug import LabelledImages

CODE, WIDTH = 64, 24
RATE, STEPS, BATCH = 2e-3, 600, 64
NEIGHBOURS = 5
MADE = 200  # samples of a class


class Autoencoder(nn.Module):
    """Convolutions down to a quarter of the side, a code, and the way back."""

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        super().__init__()
        *space, channels = image_shape
        conv = nn.Conv1d if len(space) == 1 else nn.Conv2d
        self.space, self.w = tuple(space), WIDTH
        self.small = tuple(math.ceil(math.ceil(n / 2) / 2) for n in space)
        w, cells = WIDTH, math.prod(self.small)

        def down(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                conv(inputs, outputs, 3, 2, 1), nn.GroupNorm(8, outputs), nn.SiLU()
            )

        def same(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                conv(inputs, outputs, 3, 1, 1), nn.GroupNorm(8, outputs), nn.SiLU()
            )

        self.encode = nn.Sequential(
            down(channels, w), down(w, 2 * w), nn.Flatten(), nn.Linear(2 * w * cells, CODE)
        )
        self.start = nn.Linear(CODE, 2 * w * cells)
        self.up1, self.up2 = same(2 * w, 2 * w), same(2 * w, w)
        self.last = conv(w, channels, 3, 1, 1)

    def decode(self, code: Float[Tensor, "n z"]) -> Float[Tensor, "n c *space"]:
        """Images of codes."""
        h = F.silu(self.start(code)).view(len(code), 2 * self.w, *self.small)
        h = self.up2(F.interpolate(self.up1(h), scale_factor=2))
        h = self.last(F.interpolate(h, scale_factor=2))
        return h[(..., *(slice(0, n) for n in self.space))]


def make(data: LabelledImages, *, seed: int, steps: int = STEPS, bfloat16: bool = False) -> Pool:
    """Train the autoencoder and draw samples of every class with two images or more.

    Args:
        data: Training images.
        seed: Of everything random.
        steps: Optimiser steps.
        bfloat16: Convolve in bfloat16.

    Returns:
        Samples.
    """
    rng = np.random.default_rng([seed, 6])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Autoencoder(data.image_shape)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
    x = as_tensor(data.images, data)
    rows = [np.flatnonzero(data.labels == c) for c in range(data.n_classes)]
    # By the square root of a class's number, between natural and balanced draws.
    weight = np.sqrt(data.counts[data.labels]) / data.counts[data.labels]
    weight /= weight.sum()
    for _ in range(steps):
        batch = x[rng.choice(len(x), BATCH, p=weight)]
        of_class = rows[rng.choice(np.flatnonzero(data.counts))]
        same = x[rng.permutation(of_class)[: BATCH // 2]]
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            codes = model.encode(torch.cat([batch, same]))
            exchanged = torch.cat([codes[: len(batch)], codes[len(batch) :].roll(1, 0)])
            decoded = model.decode(exchanged).float()
        error = (decoded - torch.cat([batch, same])).square().flatten(1).mean(1)
        loss = error[: len(batch)].mean() + error[len(batch) :].mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        schedule.step()
    return _drawn(model.eval(), data, rows, rng)


@torch.no_grad()
def _drawn(
    model: Autoencoder, data: LabelledImages, rows: list[np.ndarray], rng: np.random.Generator
) -> Pool:
    x, (low, high) = as_tensor(data.images, data), data.value_range
    images = np.zeros((data.n_classes, MADE, *data.image_shape), data.images.dtype)
    made = np.zeros(data.n_classes, np.int64)
    for c, of_class in enumerate(rows):
        if len(of_class) < 2:
            continue
        codes = smote(model.encode(x[of_class]).numpy(), MADE, neighbours=NEIGHBOURS, rng=rng)
        values = np.moveaxis(model.decode(torch.from_numpy(codes)).numpy(), 1, -1)
        if data.layout != "NLC":
            values = low + (high - low) * values
        values = np.clip(values, low, high)
        images[c] = np.rint(values) if images.dtype == np.uint8 else values
        made[c] = MADE
    return Pool(images, made)
