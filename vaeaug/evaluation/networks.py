"""Small networks as judges of arrays of images."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional as F

from vaeaug.memory import blocks
from vaeaug.models import SmallClassifier, scale_images
from vaeaug.randomness import seeded_torch

# Images a network takes at a time outside training.
_BLOCK = 512
# Of each kind in a step of the discriminator.
HALF_BATCH = 32
_DISCRIMINATOR_WIDTH = 16

Draw = Callable[[np.random.Generator], Int64[np.ndarray, "2 half"]]


def train_discriminator(
    kinds: tuple[np.ndarray, np.ndarray],
    value_range: tuple[float, float],
    *,
    draw: Draw,
    seed: list[int],
    steps: int,
    device: torch.device | str,
) -> SmallClassifier:
    """One logit: high for the second kind. Both kinds are shifted alike, by up to a pixel.

    Args:
        kinds: Images of each kind, (n, *space, c).
        value_range: (lowest, highest) value of both.
        draw: Rows of each kind for one batch.
        seed: Of the weights and the batches.
        steps: Optimiser steps.
        device: Where to train.
    """
    device = torch.device(device)
    rng = np.random.default_rng([*seed, 4])
    with seeded_torch(int(rng.integers(2**31))):
        shape = kinds[0].shape[1:]
        model = SmallClassifier(shape, 1, width=_DISCRIMINATOR_WIDTH).to(device)
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps + 1)
        target = torch.tensor([0.0, 1.0], dtype=torch.float32, device=device).repeat_interleave(
            HALF_BATCH
        )
        dims = tuple(range(2, len(shape) + 1))
        model.train()
        for _ in range(steps):
            rows = draw(rng)
            batch = np.concatenate([images[own] for images, own in zip(kinds, rows, strict=True)])
            shifts = tuple(int(shift) for shift in rng.integers(-1, 2, size=len(dims)))
            x = torch.roll(scaled(batch, value_range, device), shifts, dims)
            loss = F.binary_cross_entropy_with_logits(model(x)[:, 0], target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def by_block(
    network: Callable[[Tensor], Tensor],
    images: np.ndarray,
    value_range: tuple[float, float],
    device: torch.device | str,
) -> np.ndarray:
    """What a network makes of images, in blocks; float32 on the CPU."""
    parts = [
        network(scaled(images[rows], value_range, device)).float().cpu()
        for rows in blocks(len(images), images[:1].size, _BLOCK)
    ]
    return torch.cat(parts).numpy()


def scaled(
    images: np.ndarray, value_range: tuple[float, float], device: torch.device | str
) -> Tensor:
    """Channels first, [0, 1]."""
    block = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return scale_images(block, value_range)
