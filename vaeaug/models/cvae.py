"""The conditional VAE, convolutional or dense: q(z|x,y), p(z|y), p(x|z,y) and the ELBO.

Kingma & Welling 2014 (arXiv:1312.6114) for the bound, Sohn et al. 2015 for the class. The variants
are configurations of this one model: a plain VAE does not look at the class, a beta-VAE weighs the
KL, a hierarchy has latents at several resolutions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaeaug.models.blocks import Geometry
from vaeaug.models.dense import DenseDecoder, DenseEncoder, dense_groups
from vaeaug.models.likelihoods import make_likelihood, optimal_log_sigma2
from vaeaug.models.networks import (
    LOGVAR_BOUND,
    Decoded,
    Decoder,
    Encoder,
    LatentGroup,
    latent_groups,
)

NETWORKS = ("conv", "mlp")


@dataclass(frozen=True)
class ElboTerms:
    """The two halves of the negative ELBO, unreduced, in nats, for samples scaled to [0, 1].

    Attributes:
        reconstruction: ``-log p(x|z,y)`` per sample, shape (n,).
        kl: ``KL(q(z|x,y) || p(z|y))`` per sample and unit of z, shape (n, z). In a hierarchy, given
            the drawn latents of the groups before the unit's own.
        squared_error: ``|x - E[x|z,y]|^2`` per sample, shape (n,).
        mean: ``E[x|z,y]``, not clipped.
    """

    reconstruction: Float[Tensor, " n"]
    kl: Float[Tensor, "n z"]
    squared_error: Float[Tensor, " n"]
    mean: Float[Tensor, "n c *space"]

    @property
    def elbo(self) -> Float[Tensor, " n"]:
        """The evidence lower bound per sample, nats."""
        return -(self.reconstruction + self.kl.sum(dim=1))

    def loss(self, *, beta: float = 1.0, free_bits: float = 0.0) -> Float[Tensor, ""]:
        """Mean over samples of ``reconstruction + beta * kl``.

        Args:
            beta: Weight of the KL (Higgins et al. 2017).
            free_bits: Nats that each unit may spend for nothing, on the batch mean (Kingma et
                al. 2016, arXiv:1606.04934, eq. 15).
        """
        kl = self.kl.mean(dim=0)
        if free_bits > 0:
            kl = kl.clamp(min=free_bits)
        return self.reconstruction.mean() + beta * kl.sum()


class CVAE(nn.Module):
    """A conditional VAE of all classes, FiLM-conditioned, for signals, images and volumes.

    The parameters fall into a trunk, shared by all classes, and rows that belong to one class each
    (`class_parameters`): its embedding, its FiLM rows, its prior's mean and variance.

    Args:
        image_shape: (space..., channels) of a sample, with one to three spatial axes: signals of 8
            to 160,000 values, images of 8 to 512 pixels a side, volumes of 4 to 128 voxels a side.
            A dense network takes samples of any size, such as (F, 1), a row of a table.
        n_classes: Number of classes.
        network: "conv" or "mlp" (dense: no convolutions, a latent vector).
        latent: "vector", "spatial" or "hierarchical"; see `latent_groups`.
        latent_dim: Length of the latent vector, by the size of a sample where it is None; unused by
            "spatial". See `dense_groups` for a dense network.
        latent_channels: Channels of the latent grid; None chooses by the size of a sample.
        levels: Groups of a hierarchy, 2 or 3.
        likelihood: "gaussian", "gaussian_per_pixel", "bernoulli" or "logistic_mixture".
        conditional: False: the network never sees the class (a plain VAE).
        width: Channels at the highest resolution, doubled at each level; unused by "mlp".
        max_width: Bound on the channels; units of a dense network's hidden layers.
        class_embedding: Length of the class embedding.

    Raises:
        ValueError: If the samples are of another size or an argument is unknown.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        n_classes: int,
        *,
        network: str = "conv",
        latent: str = "vector",
        latent_dim: int | None = None,
        latent_channels: int | None = None,
        levels: int = 2,
        likelihood: str = "gaussian",
        conditional: bool = True,
        width: int = 32,
        max_width: int = 128,
        class_embedding: int = 32,
    ) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.geometry = None if network == "mlp" else Geometry.of(self.image_shape)
        self.groups = groups_of(
            self.image_shape,
            network=network,
            latent=latent,
            latent_dim=latent_dim,
            latent_channels=latent_channels,
            levels=levels,
        )
        self.latent_dim = self.groups[-1].start + self.groups[-1].size
        self.n_classes, self.conditional = n_classes, conditional
        self.architecture = {
            "image_shape": list(self.image_shape),
            "n_classes": n_classes,
            "network": network,
            "latent": latent,
            "latent_dim": latent_dim if self.groups[0].is_grid else self.groups[0].size,
            "latent_channels": latent_channels,
            "levels": levels,
            "likelihood": likelihood,
            "conditional": conditional,
            "width": width,
            "max_width": max_width,
            "class_embedding": class_embedding,
        }
        n_rows = n_classes if conditional else 1
        self.embedding = nn.Embedding(n_rows, class_embedding)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.prior_mean = nn.Embedding(n_rows, self.groups[0].size)
        self.prior_logvar = nn.Embedding(n_rows, self.groups[0].size)
        nn.init.zeros_(self.prior_mean.weight)
        nn.init.zeros_(self.prior_logvar.weight)
        self.likelihood = make_likelihood(likelihood)
        n_outputs = self.likelihood.n_outputs
        self.encoder: Encoder | DenseEncoder
        self.decoder: Decoder | DenseDecoder
        if self.geometry is None:
            dense: dict[str, Any] = {"units": max_width, "class_embedding": class_embedding}
            shape = (self.image_shape, self.latent_dim, n_rows)
            self.encoder = DenseEncoder(*shape, **dense)
            self.decoder = DenseDecoder(*shape, n_outputs=n_outputs, **dense)
        else:
            sizes: dict[str, Any] = {
                "width": width,
                "max_width": max_width,
                "class_embedding": class_embedding,
            }
            parts = (self.geometry, self.groups, n_rows)
            self.encoder = Encoder(*parts, **sizes)
            self.decoder = Decoder(*parts, n_outputs=n_outputs, **sizes)

    # -- The three distributions ---------------------------------------------------------------

    def posterior(
        self, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        """Mean and log variance of q(z|x,y). Samples scaled to [0, 1]."""
        y = self._rows(y)
        return self.encoder(x, y, self.embedding(y))

    def prior(self, y: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n z1"], Float[Tensor, "n z1"]]:
        """Mean and log variance of p(z1|y), the first (or only) group of latents."""
        y = self._rows(y)
        return self.prior_mean(y), self.prior_logvar(y).clamp(-LOGVAR_BOUND, LOGVAR_BOUND)

    def generate(self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]) -> Decoded:
        """Parameters of p(x|z,y), and the prior of every latent given those before it."""
        mean, logvar = self.prior(y)
        y = self._rows(y)
        return self.decoder(z, y, self.embedding(y), mean, logvar)

    def decode(self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]) -> Float[Tensor, "n c *space"]:
        """Mean of p(x|z,y), not clipped."""
        return self.likelihood.mean(self.generate(z, y).raw)

    def draw_prior(
        self, noise: Float[Tensor, "n z"], y: Int[Tensor, " n"], *, temperature: float = 1.0
    ) -> Float[Tensor, "n z"]:
        """Latents of p(z|y) from standard normal draws, group after group."""
        mean, logvar = self.prior(y)
        if len(self.groups) == 1:
            return mean + temperature * torch.exp(0.5 * logvar) * noise
        y = self._rows(y)
        return self.decoder(
            noise, y, self.embedding(y), mean, logvar, is_noise=True, temperature=temperature
        ).z

    # -- The bound -----------------------------------------------------------------------------

    def elbo(
        self,
        x: Float[Tensor, "n c *space"],
        y: Int[Tensor, " n"],
        *,
        noise: Float[Tensor, "n z"],
        optimal_sigma: bool = False,
        log_sigma2: Float[Tensor, ""] | None = None,
        target: Float[Tensor, "n c *space"] | None = None,
    ) -> ElboTerms:
        """One-sample estimate of the bound.

        Args:
            x: Samples scaled to [0, 1].
            y: Class indices.
            noise: Standard normal draws for the reparameterisation.
            optimal_sigma: Use the sigma that is optimal for this batch (for training) instead of
                the calibrated one. Its gradient vanishes at the optimum, so it is not followed.
            log_sigma2: Use this one. Default: the calibrated one.
            target: What the decoder should give, where x is a corrupted version of it (Im et al.
                2017, arXiv:1511.06406). Default: x.
        """
        target = x if target is None else target
        mean, logvar = self.posterior(x, y)
        z = mean + torch.exp(0.5 * logvar) * noise
        decoded = self.generate(z, y)
        centre = self.likelihood.mean(decoded.raw)
        squared_error = (target - centre).square().flatten(1).sum(dim=1)
        if optimal_sigma:
            log_sigma2 = optimal_log_sigma2(squared_error, target[0].numel())
        return ElboTerms(
            reconstruction=-self.likelihood.log_prob(decoded.raw, target, log_sigma2),
            kl=gaussian_kl(mean, logvar, decoded.mean, decoded.logvar),
            squared_error=squared_error,
            mean=centre,
        )

    def log_prob(
        self, decoded: Decoded, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Log p(x|z,y) of what `generate` gave, nats."""
        return self.likelihood.log_prob(decoded.raw, x)

    def log_mass(
        self, decoded: Decoded, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Log probability of the 8-bit gray levels of x, nats."""
        return self.likelihood.log_mass(decoded.raw, x)

    # -- Parameters ----------------------------------------------------------------------------

    def class_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of which row k belongs to class k alone."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name.startswith(("embedding.", "prior_")) or ".rows." in name
        }

    def trunk_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that all classes share."""
        rows = self.class_parameters()
        return {name: parameter for name, parameter in self.named_parameters() if name not in rows}

    def _rows(self, y: Tensor) -> Tensor:
        return y if self.conditional else torch.zeros_like(y)


def groups_of(
    image_shape: Sequence[int],
    *,
    network: str,
    latent: str,
    latent_dim: int | None,
    latent_channels: int | None,
    levels: int,
) -> tuple[LatentGroup, ...]:
    """The groups of latents of a model; see `latent_groups` and `dense_groups`.

    Args:
        image_shape: (space..., channels).
        network: "conv" or "mlp".
        latent: "vector", "spatial" or "hierarchical".
        latent_dim: Length of the vector; None for the default.
        latent_channels: Channels of the grid; None for the default.
        levels: Levels of hierarchical latents.

    Returns:
        The groups, those nearest to the decoder's start first.

    Raises:
        ValueError: If the network is unknown, or the samples or the kind of latent are not for it.
    """
    if network not in NETWORKS:
        raise ValueError(f"network: expected one of {', '.join(NETWORKS)}, got {network!r}")
    if network == "mlp":
        return dense_groups(image_shape, latent, latent_dim)
    return latent_groups(Geometry.of(image_shape), latent, latent_dim, latent_channels, levels)


def gaussian_kl(
    mean: Float[Tensor, "*shape"],
    logvar: Float[Tensor, "*shape"],
    prior_mean: Float[Tensor, "*shape"],
    prior_logvar: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """KL between univariate normals, elementwise, in nats."""
    return 0.5 * (
        prior_logvar
        - logvar
        + (torch.exp(logvar) + (mean - prior_mean).square()) * torch.exp(-prior_logvar)
        - 1
    )
