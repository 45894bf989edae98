"""A class-conditional density over latents by flow matching.

A velocity field is regressed on straight lines from noise to latents (Lipman et al. 2023,
arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003) and integrated to draw latents. The class is
dropped from some training rows, so that classifier-free guidance can be used when drawing (Ho &
Salimans 2022, arXiv:2207.12598).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.models.blocks import conv, group_norm, per_channel
from vaeaug.ranks import row_by_row

_FREQUENCIES = 16


class _Block(nn.Module):
    """``h + f(silu(modulated norm(h)))``; f keeps the shape and starts at zero."""

    def __init__(self, rank: int, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.film = nn.Linear(condition, 2 * channels)
        self.first = _layer(rank, channels, channels)
        self.second = _layer(rank, channels, channels)
        nn.init.zeros_(self.second.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition).chunk(2, dim=1)
        inner = self.norm(h) * (1 + per_channel(scale, h)) + per_channel(shift, h)
        return h + self.second(F.silu(self.first(F.silu(inner))))


class LatentFlow(nn.Module):
    """p(z|y) as a flow from a standard normal.

    A single grid of latents is processed by convolutions, any other latent by a perceptron.

    Args:
        shape: Shape of the latents, (c, *grid) or (z,).
        n_classes: Number of classes.
        width: Channels, or units of the perceptron's layers divided by 4.
        depth: Number of residual blocks.

    Attributes:
        mean: Mean of the training latents, flat. The flow works on standardised latents.
        scale: Standard deviation of the training latents, flat.
    """

    def __init__(
        self, shape: Sequence[int], n_classes: int, *, width: int = 64, depth: int = 4
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.n_classes = n_classes
        self.architecture = {
            "shape": list(shape),
            "n_classes": n_classes,
            "width": width,
            "depth": depth,
        }
        rank = len(self.shape) - 1
        size, channels = math.prod(self.shape), self.shape[0]
        width = width if rank else 4 * width
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.mean: Tensor
        self.scale: Tensor
        condition = 64
        # The last row is the embedding of "no class".
        self.embedding = nn.Embedding(n_classes + 1, condition)
        self.time = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, condition), nn.SiLU(), nn.Linear(condition, condition)
        )
        self.enter = _layer(rank, channels, width)
        self.blocks = nn.ModuleList(_Block(rank, width, condition) for _ in range(depth))
        self.norm = group_norm(width)
        self.leave = _layer(rank, width, channels)
        # A learned position embedding: garments and digits are not translation-invariant.
        self.place = nn.Parameter(torch.zeros(1, width, *self.shape[1:]))

    # -- Training ------------------------------------------------------------------------------

    @torch.no_grad()
    def standardise(self, mean: Float[Tensor, "n z"], variance: Float[Tensor, "n z"]) -> None:
        """Set mean and scale from the mixture of the posteriors, not from their means alone.

        Args:
            mean: Posterior means.
            variance: Posterior variances.
        """
        self.mean.copy_(mean.mean(dim=0))
        spread = variance.mean(dim=0) + mean.var(dim=0, correction=0)
        self.scale.copy_(spread.sqrt().clamp(min=1e-3))

    @row_by_row
    def loss(
        self,
        z: Float[Tensor, "n z"],
        y: Int[Tensor, " n"],
        *,
        noise: Float[Tensor, "n z"],
        time: Float[Tensor, " n"],
        drop: Float[Tensor, " n"],
        p_drop: float = 0.1,
    ) -> Float[Tensor, " n"]:
        """Compute the mean squared error of the velocity per row.

        An untrained flow has a loss of 1 to 2; lower is better.

        Args:
            z: Latents.
            y: Their classes.
            noise: Standard normal draws.
            time: Times in [0, 1]; 0 is noise.
            drop: Uniform draws; the class is dropped where they are below `p_drop`.
            p_drop: Fraction of rows without class.

        Returns:
            Loss per row.
        """
        z = (z - self.mean) / self.scale
        point = (1 - time[:, None]) * noise + time[:, None] * z
        y = torch.where(drop < p_drop, self.n_classes, y)
        return (self.velocity(point, time, self.embedding(y)) - (z - noise)).square().mean(dim=1)

    # -- Drawing -------------------------------------------------------------------------------

    def draw(
        self,
        noise: Float[Tensor, "n z"],
        y: Int[Tensor, " n"],
        *,
        other: Int[Tensor, " n"] | None = None,
        share: Float[Tensor, " n"] | None = None,
        steps: int = 16,
        guidance: float = 1.0,
    ) -> Float[Tensor, "n z"]:
        """Draw latents of a class as a function of the noise, with Heun's method from time 0 to 1.

        Args:
            noise: Standard normal draws.
            y: Classes.
            other: A second class to blend in.
            share: Weight of the second class, in [0, 1].
            steps: Steps of the solver, each with two evaluations.
            guidance: 1 draws from p(z|y); larger values emphasise the class at the cost of variety.

        Returns:
            Latents.
        """
        condition = self.embedding(y)
        if other is not None and share is not None:
            condition = torch.lerp(condition, self.embedding(other), share[:, None])
        no_class = self.embedding(torch.full_like(y, self.n_classes))

        def velocity(z: Tensor, t: float) -> Tensor:
            time = z.new_full((len(z),), t)
            conditional = self.velocity(z, time, condition)
            if guidance == 1.0:
                return conditional
            return torch.lerp(self.velocity(z, time, no_class), conditional, guidance)

        z, h = noise, 1.0 / steps
        for step in range(steps):
            slope = velocity(z, step * h)
            end_slope = velocity(z + h * slope, (step + 1) * h)
            z = z + 0.5 * h * (slope + end_slope)
        return z * self.scale + self.mean

    def velocity(
        self,
        z: Float[Tensor, "n z"],
        time: Float[Tensor, " n"],
        condition: Float[Tensor, "n e"],
    ) -> Float[Tensor, "n z"]:
        """Compute dz/dt of standardised latents at a time, given a condition.

        Args:
            z: Standardised latents.
            time: Times in [0, 1].
            condition: Class embeddings.

        Returns:
            Velocity, per unit of time.
        """
        angles = time[:, None] * 2.0 ** torch.arange(_FREQUENCIES, device=z.device) * 0.05
        condition = condition + self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        h = self.enter(z.view(-1, *self.shape)) + self.place
        for block in self.blocks:
            h = block(h, condition)
        return self.leave(F.silu(self.norm(h))).flatten(1).float()


def _layer(rank: int, n_in: int, n_out: int) -> nn.Module:
    return conv(rank, n_in, n_out) if rank else nn.Linear(n_in, n_out)
