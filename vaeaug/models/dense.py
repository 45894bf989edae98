"""The encoder and the decoder without convolutions: for tables, and for samples of any size.

A sample is treated as a row of values in no particular order. As in the convolutional networks, the
class conditions every block through rows that each belong to one class, so that classes are adapted
in the same way. The latent is one vector.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.models.blocks import ClassFilm
from vaeaug.models.networks import (
    LOGVAR_BOUND,
    Decoded,
    LatentGroup,
    latent_length,
)

# Number of residual blocks of the encoder, and of the decoder.
BLOCKS = 2


def dense_groups(
    image_shape: Sequence[int], latent: str, latent_dim: int | None
) -> tuple[LatentGroup]:
    """Return the one group of latents of a dense network.

    Args:
        image_shape: (space..., channels) of a sample.
        latent: Must be "vector".
        latent_dim: Length of the vector. None: as many units as a sample has values, but no more
            than a convolutional network would have.

    Returns:
        A tuple of one group.

    Raises:
        ValueError: For another kind of latent; without convolutions there is no grid.
    """
    if latent != "vector":
        raise ValueError(f"network mlp: expected latent vector, got {latent!r}")
    n_values = math.prod(image_shape)
    return (LatentGroup((latent_dim or min(n_values, latent_length(n_values)),), 0, 0),)


class DenseBlock(nn.Module):
    """``h + linear(silu(film(norm(h), y)))``."""

    def __init__(self, units: int, n_classes: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(units)
        self.film = ClassFilm(units, n_classes, embedding)
        self.linear = nn.Linear(units, units)

    def forward(
        self,
        h: Float[Tensor, "n c"],
        y: Int[Tensor, " n"],
        embedded: Float[Tensor, "n e"],
    ) -> Float[Tensor, "n c"]:
        """One residual step."""
        return h + self.linear(F.silu(self.film(self.norm(h), y, embedded)))


class DenseEncoder(nn.Module):
    """The encoder from samples in [0, 1] and classes to q(z|x,y).

    There is no nonlinearity between the residual stream and the layers at its ends. The network can
    therefore represent linear maps, which describe much of a table, from the first step.

    Args:
        image_shape: (space..., channels) of a sample.
        latent_dim: Length of the latent vector.
        n_classes: Rows of the FiLM layers.
        units: Units of a hidden layer.
        class_embedding: Length of the class embedding.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent_dim: int,
        n_classes: int,
        *,
        units: int,
        class_embedding: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(math.prod(image_shape), units)
        self.blocks = nn.ModuleList(
            DenseBlock(units, n_classes, class_embedding) for _ in range(BLOCKS)
        )
        self.head = nn.Linear(units, 2 * latent_dim)

    def forward(
        self,
        x: Float[Tensor, "n c *space"],
        y: Int[Tensor, " n"],
        embedded: Float[Tensor, "n e"],
    ) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        """Mean and log variance of q(z|x,y)."""
        h = self.stem((2 * x - 1).flatten(1))
        for block in self.blocks:
            h = block(h, y, embedded)
        mean, logvar = self.head(h).float().chunk(2, dim=1)
        return mean, logvar.clamp(-LOGVAR_BOUND, LOGVAR_BOUND)


class DenseDecoder(nn.Module):
    """The decoder from latent vectors and classes to the parameters of p(x|z,y).

    Args:
        image_shape: (space..., channels) of a sample.
        latent_dim: Length of the latent vector.
        n_classes: Rows of the FiLM layers.
        n_outputs: Outputs per value, as the likelihood requires.
        units: Units of a hidden layer.
        class_embedding: Length of the class embedding.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent_dim: int,
        n_classes: int,
        *,
        n_outputs: int,
        units: int,
        class_embedding: int,
    ) -> None:
        super().__init__()
        *space, channels = image_shape
        self.raw_shape = (n_outputs * channels, *space)
        self.start = nn.Linear(latent_dim + class_embedding, units)
        self.blocks = nn.ModuleList(
            DenseBlock(units, n_classes, class_embedding) for _ in range(BLOCKS)
        )
        self.out = nn.Linear(units, math.prod(self.raw_shape))

    @property
    def last_layer(self) -> nn.Parameter:
        """Weights of the last layer."""
        return self.out.get_parameter("weight")

    def forward(
        self,
        z: Float[Tensor, "n z"],
        y: Int[Tensor, " n"],
        embedded: Float[Tensor, "n e"],
        first_mean: Float[Tensor, "n z"],
        first_logvar: Float[Tensor, "n z"],
        *,
        is_noise: bool = False,
        temperature: float = 1.0,
    ) -> Decoded:
        """Decode latents, or draw them from the prior on the way; see `Decoder.forward`."""
        if is_noise:
            z = first_mean + temperature * torch.exp(0.5 * first_logvar) * z
        h = self.start(torch.cat([z, embedded], dim=1))
        for block in self.blocks:
            h = block(h, y, embedded)
        return Decoded(self.out(h).view(len(z), *self.raw_shape), z, first_mean, first_logvar)
