"""The convolutional conditional VAE: q(z|x,y), p(z|y), p(x|z,y) and the ELBO.

Kingma & Welling 2014 (arXiv:1312.6114) for the bound, Sohn et al. 2015 for the class, Rybkin et al.
2021 (arXiv:2006.13202) for one shared decoder sigma set to its optimum.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.models.blocks import FilmBlock, group_norm, n_levels, patch_size

# Half a gray level in [0, 1]: a decoder that is surer than the quantisation of its data is overfit.
MIN_SIGMA = 0.5 / 255
MIN_SIDE, MAX_SIDE = 8, 128
# Bounds of log variances: exp stays finite in bfloat16 and the KL stays differentiable.
LOGVAR_BOUND = 10.0


@dataclass(frozen=True)
class ElboTerms:
    """The two halves of the negative ELBO, unreduced, in nats, for images scaled to [0, 1].

    Attributes:
        reconstruction: ``-log p(x|z,y)`` per image, shape (n,).
        kl: ``KL(q(z|x,y) || p(z|y))`` per image and unit of z, shape (n, z).
        squared_error: ``|x - E[x|z,y]|^2`` per image, shape (n,).
    """

    reconstruction: Float[Tensor, " n"]
    kl: Float[Tensor, "n z"]
    squared_error: Float[Tensor, " n"]

    @property
    def elbo(self) -> Float[Tensor, " n"]:
        """The evidence lower bound per image, nats."""
        return -(self.reconstruction + self.kl.sum(dim=1))

    def loss(self, *, beta: float = 1.0, free_bits: float = 0.0) -> Float[Tensor, ""]:
        """Mean over images of ``reconstruction + beta * kl``.

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
    """A conditional VAE of all classes, FiLM-conditioned, for images of 8 x 8 to 128 x 128.

    The parameters fall into a trunk, shared by all classes, and rows that belong to one class each
    (`class_parameters`): its embedding, its FiLM rows, its prior's mean and variance.

    Args:
        image_shape: (height, width, channels) of the images.
        n_classes: Number of classes.
        latent_dim: Length of z.
        width: Channels at the highest resolution, doubled at each level.
        max_width: Bound on the channels.
        class_embedding: Length of the class embedding.

    Raises:
        ValueError: If the images are smaller than 8 x 8 or larger than 128 x 128.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_classes: int,
        *,
        latent_dim: int = 32,
        width: int = 32,
        max_width: int = 128,
        class_embedding: int = 32,
    ) -> None:
        super().__init__()
        height, width_px, channels = image_shape
        if not all(MIN_SIDE <= side <= MAX_SIDE for side in (height, width_px)):
            raise ValueError(
                f"images: expected sides from {MIN_SIDE} to {MAX_SIDE} pixels, got {height} x "
                f"{width_px}; resize them (size=)"
            )
        self.image_shape = image_shape
        self.n_classes = n_classes
        self.latent_dim = latent_dim
        self.architecture = {
            "image_shape": list(image_shape),
            "n_classes": n_classes,
            "latent_dim": latent_dim,
            "width": width,
            "max_width": max_width,
            "class_embedding": class_embedding,
        }
        self.patch = patch_size(height, width_px)
        levels = n_levels(height, width_px)
        stride = self.patch * 2**levels
        self.padded = (math.ceil(height / stride) * stride, math.ceil(width_px / stride) * stride)
        self.grid = (self.padded[0] // stride, self.padded[1] // stride)
        widths = [min(width * 2**level, max_width) for level in range(levels + 1)]
        folded = channels * self.patch**2
        flat = widths[-1] * self.grid[0] * self.grid[1]

        def block(channels: int) -> FilmBlock:
            return FilmBlock(channels, n_classes, class_embedding)

        self.embedding = nn.Embedding(n_classes, class_embedding)
        self.prior_mean = nn.Embedding(n_classes, latent_dim)
        self.prior_logvar = nn.Embedding(n_classes, latent_dim)
        nn.init.zeros_(self.prior_mean.weight)
        nn.init.zeros_(self.prior_logvar.weight)

        self.encoder_stem = nn.Conv2d(folded, widths[0], 3, padding=1)
        self.encoder_blocks = nn.ModuleList(block(each) for each in widths)
        self.downs = nn.ModuleList(
            nn.Conv2d(wide, wider, 3, stride=2, padding=1) for wide, wider in pairwise(widths)
        )
        self.encoder_norm = group_norm(widths[-1])
        self.to_posterior = nn.Linear(flat, 2 * latent_dim)

        self.from_latent = nn.Linear(latent_dim + class_embedding, flat)
        self.decoder_blocks = nn.ModuleList(block(each) for each in reversed(widths))
        self.ups = nn.ModuleList(
            nn.Conv2d(wider, wide, 1) for wide, wider in reversed(list(pairwise(widths)))
        )
        self.decoder_last = block(widths[0])
        self.decoder_norm = group_norm(widths[0])
        self.decoder_out = nn.Conv2d(widths[0], folded, 3, padding=1)
        # log sigma^2 of p(x|z,y), shared by all pixels and classes; see `calibrate_sigma`.
        self.register_buffer("log_sigma2", torch.tensor(math.log(0.05)))
        self.log_sigma2: Tensor

    # -- The three distributions ---------------------------------------------------------------

    def posterior(
        self, x: Float[Tensor, "n c height width"], y: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        """Mean and log variance of q(z|x,y). Images scaled to [0, 1]."""
        embedded = self.embedding(y)
        bottom, right = self.padded[0] - x.shape[2], self.padded[1] - x.shape[3]
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        h = self.encoder_stem(F.pixel_unshuffle(2 * x - 1, self.patch))
        for level, block in enumerate(self.encoder_blocks):
            if level:
                h = self.downs[level - 1](h)
            h = block(h, y, embedded)
        h = F.silu(self.encoder_norm(h)).flatten(1)
        mean, logvar = self.to_posterior(h).float().chunk(2, dim=1)
        return mean, logvar.clamp(-LOGVAR_BOUND, LOGVAR_BOUND)

    def prior(self, y: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        """Mean and log variance of p(z|y)."""
        return self.prior_mean(y), self.prior_logvar(y).clamp(-LOGVAR_BOUND, LOGVAR_BOUND)

    def decode(
        self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, "n c height width"]:
        """Mean of p(x|z,y), not clipped."""
        embedded = self.embedding(y)
        h = self.from_latent(torch.cat([z, embedded], dim=1))
        h = h.view(len(z), -1, *self.grid)
        for level, block in enumerate(self.decoder_blocks):
            if level:
                h = F.interpolate(self.ups[level - 1](h), scale_factor=2.0, mode="nearest")
            h = block(h, y, embedded)
        h = F.silu(self.decoder_norm(self.decoder_last(h, y, embedded)))
        x = F.pixel_shuffle(self.decoder_out(h), self.patch).float() + 0.5
        return x[:, :, : self.image_shape[0], : self.image_shape[1]]

    # -- The bound -----------------------------------------------------------------------------

    def elbo(
        self,
        x: Float[Tensor, "n c height width"],
        y: Int[Tensor, " n"],
        *,
        noise: Float[Tensor, "n z"],
        optimal_sigma: bool = False,
    ) -> ElboTerms:
        """One-sample estimate of the bound.

        Args:
            x: Images scaled to [0, 1].
            y: Class indices.
            noise: Standard normal draws for the reparameterisation.
            optimal_sigma: Use the sigma that is optimal for this batch (for training) instead of
                the calibrated one. Its gradient vanishes at the optimum, so it is not followed.
        """
        mean, logvar = self.posterior(x, y)
        prior_mean, prior_logvar = self.prior(y)
        z = mean + torch.exp(0.5 * logvar) * noise
        squared_error = (x - self.decode(z, y)).square().flatten(1).sum(dim=1)
        n_values = x[0].numel()
        log_sigma2 = self.log_sigma2
        if optimal_sigma:
            log_sigma2 = optimal_log_sigma2(squared_error, n_values)
        reconstruction = 0.5 * squared_error * torch.exp(-log_sigma2) + 0.5 * n_values * (
            log_sigma2 + math.log(2 * math.pi)
        )
        return ElboTerms(
            reconstruction, gaussian_kl(mean, logvar, prior_mean, prior_logvar), squared_error
        )

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
        return {name: each for name, each in self.named_parameters() if name not in rows}


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


def optimal_log_sigma2(squared_error: Float[Tensor, " n"], n_values: int) -> Float[Tensor, ""]:
    """The log variance that maximises the Gaussian likelihood of these errors (sigma-VAE)."""
    mean_square = squared_error.detach().mean() / n_values
    return torch.log(mean_square.clamp(min=MIN_SIGMA**2))
