"""Building blocks: FiLM conditioning on the class, residual blocks, size arithmetic."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class ClassFilm(nn.Module):
    """Feature-wise linear modulation by the class (Perez et al. 2018, arXiv:1709.07871).

    ``(1 + scale) * h + shift`` with ``scale, shift = shared(embedding[y]) + rows[y]``. The linear
    map is part of the trunk and learned from every class; the rows belong to one class each and
    start at zero, so an unadapted class is exactly its embedding seen through the trunk.

    Args:
        channels: Channels of h.
        n_classes: Number of rows.
        embedding: Length of the class embedding.
    """

    def __init__(self, channels: int, n_classes: int, embedding: int) -> None:
        super().__init__()
        self.shared = nn.Linear(embedding, 2 * channels)
        nn.init.zeros_(self.shared.weight)
        nn.init.zeros_(self.shared.bias)
        self.rows = nn.Embedding(n_classes, 2 * channels)
        nn.init.zeros_(self.rows.weight)

    def forward(
        self,
        h: Float[Tensor, "n c *space"],
        y: Int[Tensor, " n"],
        embedded: Float[Tensor, "n e"],
    ) -> Float[Tensor, "n c *space"]:
        """Modulate h by class y, whose embedding is `embedded`."""
        scale, shift = (self.shared(embedded) + self.rows(y)).chunk(2, dim=1)
        shape = (*scale.shape, *(1 for _ in h.shape[2:]))
        return h * (1 + scale.view(shape)) + shift.view(shape)


class FilmBlock(nn.Module):
    """``h + conv(silu(film(norm(h), y)))``, one 3x3 convolution."""

    def __init__(self, channels: int, n_classes: int, embedding: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.film = ClassFilm(channels, n_classes, embedding)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self,
        h: Float[Tensor, "n c height width"],
        y: Int[Tensor, " n"],
        embedded: Float[Tensor, "n e"],
    ) -> Float[Tensor, "n c height width"]:
        """One residual step."""
        return h + self.conv(torch.nn.functional.silu(self.film(self.norm(h), y, embedded)))


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the largest number of groups up to 8 that divides the channels."""
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def patch_size(height: int, width: int) -> int:
    """Pixels per side that one feature of the highest resolution stands for.

    Folding pixels into channels keeps the most expensive convolutions at 32 x 32 or less.
    """
    side = max(height, width)
    return 1 if side <= 16 else 2 if side <= 64 else 4


def n_levels(height: int, width: int) -> int:
    """Halvings from the highest resolution down to a grid of at most 7 x 7."""
    side = math.ceil(max(height, width) / patch_size(height, width))
    levels = 0
    while side > 7:
        side = math.ceil(side / 2)
        levels += 1
    return levels
