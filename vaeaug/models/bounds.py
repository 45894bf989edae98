"""How likely data is under a model: the importance-weighted bound, and bits per dimension."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vaeaug.memory import blocks
from vaeaug.models.cvae import CVAE
from vaeaug.models.separate import SeparateCVAE

# Maximum number of latents that are decoded at once.
_CHUNK = 512


@torch.no_grad()
def importance_weighted_bound(
    model: CVAE | SeparateCVAE,
    x: Float[Tensor, "n c *space"],
    y: Int[Tensor, " n"],
    *,
    k: int,
    seed: int,
) -> Float[Tensor, " n"]:
    """``log 1/k sum_i p(x,z_i|y) / q(z_i|x,y)``, z_i ~ q (Burda et al. 2016, arXiv:1509.00519).

    In expectation it rises with k towards log p(x|y); k = 1 is the ELBO.

    Args:
        model: In evaluation mode.
        x: Samples scaled to [0, 1].
        y: Class indices.
        k: Latents per sample; 1 to 5,000 are usual.
        seed: Seed of the latents.

    Returns:
        Bound per sample in nats, on the scale of the model's likelihood.

    Raises:
        ValueError: If k is less than 1.
    """
    if k < 1:
        raise ValueError(f"importance_weighted_bound: expected k of at least 1, got {k}")
    if model.is_discrete:  # q has one latent, so that the bound is the ELBO whatever k is
        noise = torch.zeros(len(x), model.latent_dim, device=x.device)
        return model.elbo(x, y, noise=noise).elbo.double()
    generator = torch.Generator().manual_seed(seed)
    bounds = []
    for x_i, y_i in zip(x, y, strict=True):
        mean, logvar = model.posterior(x_i[None], y_i[None])
        weights = []
        for block in blocks(k, x_i.numel(), _CHUNK):
            n = block.stop - block.start
            noise = torch.randn(n, mean.shape[1], generator=generator, dtype=torch.float32).to(
                x.device
            )
            z = mean + torch.exp(0.5 * logvar) * noise
            label = y_i.expand(n)
            decoded = model.generate(z, label)
            log_q = -0.5 * (noise.square() + logvar + math.log(2 * math.pi)).sum(dim=1)
            log_p = -0.5 * (
                (z - decoded.mean).square() * torch.exp(-decoded.logvar)
                + decoded.logvar
                + math.log(2 * math.pi)
            ).sum(dim=1)
            log_x = model.log_prob(decoded, x_i.expand(n, *x_i.shape), label)
            weights.append((log_x + log_p - log_q).double())
        bounds.append(torch.logsumexp(torch.cat(weights), dim=0) - math.log(k))
    return torch.stack(bounds) if bounds else x.new_empty(0, dtype=torch.float64)


def bits_per_dimension(
    nats: Float[Tensor, " n"], n_values: int, *, levels: int = 256
) -> Float[Tensor, " n"]:
    """Convert a log density on [0, 1] to bits per value of data with `levels` levels.

    The mass of one level is taken as density times its width, ``1 / (levels - 1)``: exact for the
    discretised likelihood, an approximation for a Gaussian that is much narrower than a level.

    Args:
        nats: Log density per sample, nats.
        n_values: Values per sample.
        levels: Number of levels of a value.

    Returns:
        Bits per value, for each sample.
    """
    return (math.log(levels - 1) - nats / n_values) / math.log(2)
