"""The conditional VAE, convolutional or dense: q(z|x,y), p(z|y), p(x|z,y) and the ELBO.

Kingma & Welling 2014 (arXiv:1312.6114) for the bound, Sohn et al. 2015 for the class. The variants
are configurations of this one model: a plain VAE ignores the class, a beta-VAE weights the
KL, a hierarchy has latents at several resolutions, a VQ-VAE has codes for latents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaeaug.models.blocks import Geometry
from vaeaug.models.content import ContentEncoder
from vaeaug.models.dense import DenseDecoder, DenseEncoder, dense_groups
from vaeaug.models.discrete import Codebook, CodePrior, in_order
from vaeaug.models.likelihoods import make_likelihood, optimal_log_sigma2
from vaeaug.models.networks import (
    LOGVAR_BOUND,
    Decoded,
    Decoder,
    Encoder,
    LatentGroup,
    code_count,
    latent_groups,
)
from vaeaug.ranks import row_by_row

NETWORKS = ("conv", "mlp")


@dataclass(frozen=True)
class ElboTerms:
    """The two terms of the negative ELBO, unreduced, in nats, for samples scaled to [0, 1].

    Attributes:
        reconstruction: ``-log p(x|z,y)`` per sample, shape (n,).
        kl: ``KL(q(z|x,y) || p(z|y))`` per sample and unit of z, shape (n, z). In a hierarchy, it is
            conditional on the drawn latents of the preceding groups. Of discrete latents it is
            ``-log p(code)``, shape (n, cells).
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

    def loss(self, *, beta: float | Tensor = 1.0, free_bits: float = 0.0) -> Float[Tensor, ""]:
        """Average ``reconstruction + beta * kl`` over samples.

        Args:
            beta: Weight of the KL (Higgins et al. 2017).
            free_bits: KL per unit of the batch mean that is not penalised, nats (Kingma et al.
                2016, arXiv:1606.04934, eq. 15).

        Returns:
            The loss, nats per sample.
        """
        kl = self.kl.mean(dim=0)
        if free_bits > 0:
            kl = kl.clamp(min=free_bits)
        return self.reconstruction.mean() + beta * kl.sum()


class CVAE(nn.Module):
    """A FiLM-conditioned VAE of all classes, for signals, images and volumes.

    The parameters are a trunk shared by all classes and rows that each belong to one class
    (`class_parameters`): its embedding, its FiLM rows, and the mean and variance of its prior.

    Args:
        image_shape: (space..., channels) of a sample, with one to three spatial axes: signals of 8
            to 160,000 values, images of 8 to 512 pixels a side, volumes of 4 to 128 voxels a side.
            A dense network takes samples of any size, such as (F, 1), a row of a table.
        n_classes: Number of classes.
        network: "conv" or "mlp" (dense: no convolutions, a latent vector).
        latent: "vector", "spatial", "hierarchical" or "discrete"; see `latent_groups`.
        latent_dim: Length of the latent vector; None derives it from the size of a sample. Unused
            by grids. See `dense_groups` for a dense network.
        latent_channels: Channels of the latent grid; None derives them from the size of a sample.
        levels: Number of groups of a hierarchy, 2 or 3.
        likelihood: "gaussian", "gaussian_per_pixel", "bernoulli" or "logistic_mixture".
        conditional: Whether the network sees the class; False gives a plain VAE.
        width: Channels at the highest resolution, doubled at each level; unused by "mlp".
        max_width: Upper bound of the channels, or units of the hidden layers of a dense network.
        class_embedding: Length of the class embedding.
        convolution: "full" or, for three spatial axes, "factorised"; see `FactorisedConv`. Unused
            by "mlp".
        n_codes: Codes in the codebook of discrete latents; None derives them from the size of a
            sample.
        prior_width: Units of a token of the prior over codes.
        prior_depth: Blocks of the prior over codes.
        style_dim: Units at the start of the latent vector that hold the style: how an image is
            made, whatever its class; the rest, the detail, holds what style and class leave open.
            The embedding of a class is then the mean content code of its images. 0: one latent
            vector, and embeddings that are learned row by row.

    Raises:
        ValueError: If the shape of the samples is not supported or an argument is unknown.
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
        style_dim: int = 0,
        convolution: str = "full",
        n_codes: int | None = None,
        prior_width: int = 64,
        prior_depth: int = 2,
    ) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.geometry = None if network == "mlp" else Geometry.of(self.image_shape, convolution)
        self.groups = groups_of(
            self.image_shape,
            network=network,
            latent=latent,
            latent_dim=latent_dim,
            latent_channels=latent_channels,
            levels=levels,
        )
        self.latent_dim = self.groups[-1].start + self.groups[-1].size
        splits = conditional and latent == "vector" and network == "conv"
        if style_dim and not (splits and style_dim <= self.latent_dim):
            raise ValueError(
                f"style_dim: expected 0, or up to {self.latent_dim} units of a latent vector of a "
                f"conditional convolutional model, got {style_dim} with latent {latent}, network "
                f"{network} and conditional {conditional}"
            )
        self.n_classes, self.conditional, self.style_dim = n_classes, conditional, style_dim
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
            "style_dim": style_dim,
            "convolution": convolution,
        }
        n_rows = n_classes if conditional else 1
        self.embedding = nn.Embedding(n_rows, class_embedding)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.codebook: Codebook | None = None
        self.code_prior: CodePrior | None = None
        if latent == "discrete":
            (group,) = self.groups
            n_codes = n_codes or code_count(math.prod(self.image_shape))
            sizes = {"n_codes": n_codes, "prior_width": prior_width, "prior_depth": prior_depth}
            self.architecture |= sizes
            self.codebook = Codebook(n_codes, group.shape[0])
            cells = math.prod(group.shape[1:])
            self.code_prior = CodePrior(
                cells, n_codes, n_classes, width=prior_width, depth=prior_depth
            )
        else:
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
            widths: dict[str, Any] = {
                "width": width,
                "max_width": max_width,
                "class_embedding": class_embedding,
            }
            parts = (self.geometry, self.groups, n_rows)
            self.encoder = Encoder(*parts, **widths)
            self.decoder = Decoder(*parts, n_outputs=n_outputs, **widths)
        self.content: ContentEncoder | None = None
        if style_dim and self.geometry is not None:
            self.content = ContentEncoder(
                self.geometry, width=width, max_width=max_width, code=class_embedding
            )

    # -- The three distributions ---------------------------------------------------------------

    @row_by_row
    def posterior(
        self,
        x: Float[Tensor, "n c *space"],
        y: Int[Tensor, " n"],
        code: Float[Tensor, "n e"] | None = None,
    ) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        """Compute q(z|x,y).

        Args:
            x: Samples scaled to [0, 1].
            y: Class indices.
            code: Codes that describe the classes. Default: their embeddings.

        Returns:
            Mean and log variance; of discrete latents the codes, flat, and minus infinity.
        """
        rows = self._rows(y)
        mean, logvar = self.encoder(x, rows, self.embedding(rows) if code is None else code)
        if self.codebook is None:
            return mean, logvar
        return self.snapped(mean), torch.full_like(mean, -math.inf)

    def prior(self, y: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n z1"], Float[Tensor, "n z1"]]:
        """Compute p(z1|y), the prior of the first (or only) group of latents.

        Args:
            y: Class indices.

        Returns:
            Mean and log variance.
        """
        if self.codebook is not None:  # codes have the prior of `code_nats`
            standard = torch.zeros(y.shape[0], self.latent_dim, device=y.device)
            return standard, standard
        y = self._rows(y)
        return self.prior_mean(y), self.prior_logvar(y).clamp(-LOGVAR_BOUND, LOGVAR_BOUND)

    @row_by_row
    def generate(
        self,
        z: Float[Tensor, "n z"],
        y: Int[Tensor, " n"],
        code: Float[Tensor, "n e"] | None = None,
    ) -> Decoded:
        """Compute p(x|z,y) and the prior of every latent given the preceding ones.

        Args:
            z: Latents; discrete ones are moved to the nearest codes.
            y: Class indices.
            code: Codes that describe the classes. Default: their embeddings.

        Returns:
            The parameters of both distributions.
        """
        if self.codebook is not None:
            return self.generate_from(self.snapped(z), y)
        mean, logvar = self.prior(y)
        y = self._rows(y)
        return self.decoder(z, y, self.embedding(y) if code is None else code, mean, logvar)

    def decode(self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]) -> Float[Tensor, "n c *space"]:
        """Compute the mean of p(x|z,y), not clipped.

        Args:
            z: Latents.
            y: Class indices.

        Returns:
            Samples, on the scale [0, 1].
        """
        return self.likelihood.mean(self.generate(z, y).raw)

    def draw_prior(
        self, noise: Float[Tensor, "n z"], y: Int[Tensor, " n"], *, temperature: float = 1.0
    ) -> Float[Tensor, "n z"]:
        """Turn standard normal draws into latents of p(z|y), group after group.

        Args:
            noise: Standard normal draws.
            y: Class indices.
            temperature: Scale of the noise.

        Returns:
            Latents.
        """
        mean, logvar = self.prior(y)
        if len(self.groups) == 1:
            return mean + temperature * torch.exp(0.5 * logvar) * noise
        y = self._rows(y)
        return self.decoder(
            noise, y, self.embedding(y), mean, logvar, is_noise=True, temperature=temperature
        ).z

    @row_by_row
    def codes_of(self, exemplars: Float[Tensor, "n c *space"]) -> Float[Tensor, "n e"]:
        """Compute the content codes of images; the mean code of images of a class describes it.

        Args:
            exemplars: Samples scaled to [0, 1].

        Returns:
            A code for each.

        Raises:
            ValueError: If the model has no content encoder.
        """
        if self.content is None:
            raise ValueError("codes_of: expected a model with a style (style_dim), got one without")
        return self.content(exemplars)

    def decode_code(
        self, z: Float[Tensor, "n z"], code: Float[Tensor, "n e"]
    ) -> Float[Tensor, "n c *space"]:
        """Compute the mean of p(x|z) for classes that are given by a code alone; not clipped.

        Args:
            z: Latents.
            code: Mean content code of the exemplars of each class.

        Returns:
            Samples, on the scale [0, 1].
        """
        size = self.groups[0].size
        standard = torch.zeros(len(z), size, device=z.device)
        return self.likelihood.mean(self.decoder(z, None, code, standard, standard).raw)

    def style_only(self, z: Float[Tensor, "n z"]) -> Float[Tensor, "n z"]:
        """Drop the detail from latents, which then decode to the mean image of a style and a class.

        Args:
            z: Latents of a model with a style.

        Returns:
            The latents with zeros in place of the detail; unchanged without a style.
        """
        if not self.style_dim:
            return z
        return torch.cat([z[:, : self.style_dim], torch.zeros_like(z[:, self.style_dim :])], dim=1)

    # -- Discrete latents ----------------------------------------------------------------------

    @property
    def is_discrete(self) -> bool:
        """Whether latents are codes of a codebook."""
        return self.codebook is not None

    @row_by_row
    def features(
        self, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, "n z"]:
        """Compute the output of the encoder, before it is moved to the nearest codes.

        Args:
            x: Samples scaled to [0, 1].
            y: Class indices.

        Returns:
            Features of all cells, flat.
        """
        rows = self._rows(y)
        return self.encoder(x, rows, self.embedding(rows))[0]

    def by_cell(self, z: Float[Tensor, "n z"]) -> Float[Tensor, "m d"]:
        """Separate flat latents into cells.

        Args:
            z: Flat latents or features.

        Returns:
            One row per cell, those of a sample together.
        """
        (group,) = self.groups
        channels = group.shape[0]
        return z.view(z.shape[0], channels, -1).transpose(1, 2).reshape(-1, channels)

    def codes_at(self, z: Float[Tensor, "n z"]) -> Int[Tensor, "n cells"]:
        """Find the nearest code in each cell.

        Args:
            z: Flat latents or features.

        Returns:
            Indices of codes.
        """
        assert self.codebook is not None
        return self.codebook.nearest(self.by_cell(z)).view(z.shape[0], -1)

    def latents_of(self, codes: Int[Tensor, "n cells"]) -> Float[Tensor, "n z"]:
        """Look up the codes of cells.

        Args:
            codes: Indices of codes.

        Returns:
            Flat latents.
        """
        assert self.codebook is not None
        return self.codebook.codes[codes].transpose(1, 2).flatten(1)

    def snapped(self, z: Float[Tensor, "n z"]) -> Float[Tensor, "n z"]:
        """Move each cell to its nearest code.

        Args:
            z: Flat latents or features.

        Returns:
            Flat latents.
        """
        return self.latents_of(self.codes_at(z))

    @row_by_row
    def generate_from(self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]) -> Decoded:
        """Decode latents as they are, such as those that pass a gradient straight through.

        Args:
            z: Flat latents.
            y: Class indices.

        Returns:
            The output of the decoder; the prior in it is not that of codes.
        """
        rows = self._rows(y)
        return self.decoder(z, rows, self.embedding(rows), *self.prior(y))

    def code_nats(self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]) -> Float[Tensor, "n cells"]:
        """Compute ``-log p(code|y)`` of each cell given the preceding ones, row by row of the grid.

        Args:
            z: Flat latents.
            y: Class indices.

        Returns:
            Nats per cell.
        """
        assert self.codebook is not None
        assert self.code_prior is not None
        codes = self.codes_at(z)
        if not self.code_prior.is_trained:
            return torch.full(codes.shape, math.log(self.codebook.n_codes), device=z.device)
        return -self.code_prior.log_prob(codes, y, in_order(codes))

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
        """Estimate the ELBO from one latent per sample.

        Args:
            x: Samples scaled to [0, 1].
            y: Class indices.
            noise: Standard normal draws for the reparameterisation.
            optimal_sigma: Use the sigma that is optimal for this batch (for training) instead of
                the calibrated one. Its gradient vanishes at the optimum and is not computed.
            log_sigma2: Log variance to use. Default: the calibrated one.
            target: The samples to reconstruct if x is a corrupted version of them (Im et al. 2017,
                arXiv:1511.06406). Default: x.

        Returns:
            The terms of the ELBO.
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
            kl=self.kl(mean, logvar, decoded, y),
            squared_error=squared_error,
            mean=centre,
        )

    def kl(
        self,
        mean: Float[Tensor, "n z"],
        logvar: Float[Tensor, "n z"],
        decoded: Decoded,
        y: Int[Tensor, " n"],
    ) -> Float[Tensor, "n u"]:
        """Compute ``KL(q(z|x,y) || p(z|y))`` per unit; of discrete latents `code_nats`, per cell.

        Args:
            mean: Mean of q.
            logvar: Log variance of q.
            decoded: Output of `generate`.
            y: Class indices.

        Returns:
            Nats.
        """
        if self.codebook is not None:
            return self.code_nats(mean, y)
        return gaussian_kl(mean, logvar, decoded.mean, decoded.logvar)

    def log_prob(
        self, decoded: Decoded, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Compute log p(x|z,y).

        Args:
            decoded: Output of `generate`.
            x: Samples scaled to [0, 1].
            y: Class indices.

        Returns:
            Log density per sample, nats.
        """
        return self.likelihood.log_prob(decoded.raw, x)

    def log_mass(
        self, decoded: Decoded, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Compute the log probability of the 8-bit gray levels of x.

        Args:
            decoded: Output of `generate`.
            x: Samples scaled to [0, 1].
            y: Class indices.

        Returns:
            Log probability per sample, nats.
        """
        return self.likelihood.log_mass(decoded.raw, x)

    # -- Parameters ----------------------------------------------------------------------------

    def class_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters whose row k belongs to class k alone.

        Returns:
            Parameters by name.
        """
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name.startswith(("embedding.", "prior_")) or ".rows." in name
        }

    def trunk_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that all classes share, but for the prior over codes.

        Returns:
            Parameters by name.
        """
        rows = self.class_parameters()
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name not in rows and not name.startswith("code_prior.")
        }

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
    """Return the groups of latents of a model; see `latent_groups` and `dense_groups`.

    Args:
        image_shape: (space..., channels) of a sample.
        network: "conv" or "mlp".
        latent: "vector", "spatial", "hierarchical" or "discrete".
        latent_dim: Length of the vector; None for the default.
        latent_channels: Channels of the grid; None for the default.
        levels: Number of groups of hierarchical latents.

    Returns:
        The groups, those nearest to the decoder's start first.

    Raises:
        ValueError: If the network is unknown, or does not support the samples or the kind of
            latent.
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
    """Compute the KL divergence between univariate normals, elementwise.

    Args:
        mean: Mean of q.
        logvar: Log variance of q.
        prior_mean: Mean of p.
        prior_logvar: Log variance of p.

    Returns:
        KL(q || p), nats.
    """
    return 0.5 * (
        prior_logvar
        - logvar
        + (torch.exp(logvar) + (mean - prior_mean).square()) * torch.exp(-prior_logvar)
        - 1
    )
