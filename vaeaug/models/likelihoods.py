"""p(x|z,y): likelihoods of a sample given the output of the decoder.

Samples are scaled to [0, 1]. Log-likelihoods are in nats per sample and, for every likelihood but
Bernoulli, on the scale of a density on [0, 1]. The probability mass of a gray level of width 1/255
is turned into a density by adding ``n_values * log(255)``, which makes Gaussian and discretised
likelihoods comparable. Bits per dimension are computed from the mass.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# Half a gray level in [0, 1]: a decoder more certain than the quantisation of its data is overfit.
MIN_SIGMA = 0.5 / 255
LEVELS = 256
_HALF_LEVEL = 0.5 / (LEVELS - 1)
LIKELIHOODS = ("gaussian", "gaussian_per_pixel", "bernoulli", "logistic_mixture")


class Likelihood(nn.Module):
    """A Gaussian with one sigma shared by all values (Rybkin et al. 2021, arXiv:2006.13202).

    The sigma is set in closed form, see `optimal_log_sigma2`. The other likelihoods override these
    methods and learn their scales.

    Attributes:
        n_outputs: Decoder outputs per value.
    """

    n_outputs = 1

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_sigma2", torch.tensor(math.log(0.05), dtype=torch.float32))
        self.log_sigma2: Tensor

    def mean(self, raw: Float[Tensor, "n d *space"]) -> Float[Tensor, "n c *space"]:
        """Compute E[x|z,y], not clipped.

        Args:
            raw: Output of the decoder, with ``n_outputs * c`` channels.

        Returns:
            Means, on the scale [0, 1].
        """
        return raw.float() + 0.5

    def log_prob(
        self,
        raw: Float[Tensor, "n d *space"],
        x: Float[Tensor, "n c *space"],
        log_sigma2: Float[Tensor, ""] | None = None,
    ) -> Float[Tensor, " n"]:
        """Compute log p(x|z,y).

        Args:
            raw: Output of the decoder.
            x: Samples scaled to [0, 1].
            log_sigma2: Log variance; None: the calibrated one. Likelihoods that learn their scales
                ignore it.

        Returns:
            Log density per sample, nats.
        """
        log_sigma2 = self.log_sigma2 if log_sigma2 is None else log_sigma2
        return _gaussian(x, self.mean(raw), log_sigma2).flatten(1).sum(dim=1)

    def log_mass(
        self, raw: Float[Tensor, "n d *space"], x: Float[Tensor, "n c *space"]
    ) -> Float[Tensor, " n"]:
        """Compute the log probability of the 8-bit gray levels of x; end levels include the tails.

        Args:
            raw: Output of the decoder.
            x: Samples scaled to [0, 1].

        Returns:
            Log probability per sample, nats.
        """
        sigma = torch.exp(0.5 * self.log_sigma2)
        return _interval(_log_normal_mass, x, self.mean(raw), sigma).flatten(1).sum(dim=1)


class GaussianPerPixel(Likelihood):
    """A Gaussian whose sigma the decoder predicts for every value."""

    n_outputs = 2

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_sigma2 = raw.float().chunk(2, dim=1)
        # Sigma starts at 0.2; below MIN_SIGMA the likelihood of 8-bit data is unbounded.
        return mean + 0.5, (log_sigma2 - 3.2).clamp(2 * math.log(MIN_SIGMA), 2.0)

    def mean(self, raw: Float[Tensor, "n d *space"]) -> Float[Tensor, "n c *space"]:
        """E[x|z,y]."""
        return self._split(raw)[0]

    def log_prob(
        self,
        raw: Float[Tensor, "n d *space"],
        x: Float[Tensor, "n c *space"],
        log_sigma2: Float[Tensor, ""] | None = None,
    ) -> Float[Tensor, " n"]:
        """Log p(x|z,y) per sample, nats."""
        mean, logvar = self._split(raw)
        return _gaussian(x, mean, logvar).flatten(1).sum(dim=1)

    def log_mass(
        self, raw: Float[Tensor, "n d *space"], x: Float[Tensor, "n c *space"]
    ) -> Float[Tensor, " n"]:
        """Log probability of the 8-bit gray levels, nats."""
        mean, log_sigma2 = self._split(raw)
        sigma = torch.exp(0.5 * log_sigma2)
        return _interval(_log_normal_mass, x, mean, sigma).flatten(1).sum(dim=1)


class Bernoulli(Likelihood):
    """Independent Bernoulli values; x is the probability of white.

    This is no density, so its nats are not comparable with those of other likelihoods.
    """

    def mean(self, raw: Float[Tensor, "n d *space"]) -> Float[Tensor, "n c *space"]:
        """E[x|z,y]."""
        return torch.sigmoid(raw.float())

    def log_prob(
        self,
        raw: Float[Tensor, "n d *space"],
        x: Float[Tensor, "n c *space"],
        log_sigma2: Float[Tensor, ""] | None = None,
    ) -> Float[Tensor, " n"]:
        """Return minus the cross-entropy per sample, nats."""
        loss = F.binary_cross_entropy_with_logits(raw.float(), x, reduction="none")
        return -loss.flatten(1).sum(dim=1)

    def log_mass(
        self, raw: Float[Tensor, "n d *space"], x: Float[Tensor, "n c *space"]
    ) -> Float[Tensor, " n"]:
        """Return `log_prob`, which is a mass already for values of 0 and 1."""
        return self.log_prob(raw, x)


class LogisticMixture(Likelihood):
    """A mixture of logistics, discretised to 256 gray levels (PixelCNN++, Salimans et al. 2017).

    All values and channels of a sample are independent given z. The end levels include the tails.
    """

    components = 5
    n_outputs = 3 * components

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, d, *space = raw.shape
        parts = raw.float().view(n, self.n_outputs, d // self.n_outputs, *space)
        logits, means, log_scales = parts.chunk(3, dim=1)
        # The components start at different means; identical components would stay identical.
        start = torch.linspace(0.0, 1.0, self.components, dtype=raw.dtype, device=raw.device)
        start = start.view(1, -1, 1, *(1 for _ in space))
        return (
            F.log_softmax(logits, dim=1),
            means + start,
            (log_scales - 2.0).clamp(math.log(MIN_SIGMA / 4), 1.0),
        )

    def mean(self, raw: Float[Tensor, "n d *space"]) -> Float[Tensor, "n c *space"]:
        """Compute E[x|z,y], with each component clipped to [0, 1]."""
        log_weights, means, _ = self._split(raw)
        return (log_weights.exp() * means.clamp(0, 1)).sum(dim=1)

    def log_prob(
        self,
        raw: Float[Tensor, "n d *space"],
        x: Float[Tensor, "n c *space"],
        log_sigma2: Float[Tensor, ""] | None = None,
    ) -> Float[Tensor, " n"]:
        """Log mass of the gray levels, as a density on [0, 1], nats."""
        return self.log_mass(raw, x) + x[0].numel() * math.log(LEVELS - 1)

    def log_mass(
        self, raw: Float[Tensor, "n d *space"], x: Float[Tensor, "n c *space"]
    ) -> Float[Tensor, " n"]:
        """Log probability of the 8-bit gray levels, nats."""
        log_weights, means, log_scales = self._split(raw)
        parts = _interval(_log_logistic_mass, x.unsqueeze(1), means, log_scales.exp())
        return torch.logsumexp(log_weights + parts, dim=1).flatten(1).sum(dim=1)


def make_likelihood(name: str) -> Likelihood:
    """Create a likelihood by name.

    Args:
        name: One of `LIKELIHOODS`.

    Returns:
        The likelihood.

    Raises:
        ValueError: For an unknown name.
    """
    kinds = dict(
        zip(LIKELIHOODS, (Likelihood, GaussianPerPixel, Bernoulli, LogisticMixture), strict=True)
    )
    if name not in kinds:
        raise ValueError(f"likelihood: expected one of {', '.join(kinds)}, got {name!r}")
    return kinds[name]()


def optimal_log_sigma2(squared_error: Float[Tensor, " n"], n_values: int) -> Float[Tensor, ""]:
    """Return the log variance that maximises the Gaussian likelihood of these errors (sigma-VAE).

    The optimal variance is the mean squared error per value (Rybkin et al. 2021, arXiv:2006.13202,
    eq. 9), here at least `MIN_SIGMA` squared.

    Args:
        squared_error: Squared error per sample, summed over its values.
        n_values: Values per sample.

    Returns:
        Log variance.
    """
    mean_square = squared_error.detach().mean() / n_values
    return torch.log(mean_square.clamp(min=MIN_SIGMA**2))


def _gaussian(x: Tensor, mean: Tensor, log_sigma2: Tensor) -> Tensor:
    # In place where autograd needs no copy: allocating memory at each step dominates the cost of
    # large samples.
    scaled = (x - mean).square() * torch.exp(-log_sigma2)
    return scaled.add_(log_sigma2).add_(math.log(2 * math.pi)).mul_(-0.5)


def _interval(
    log_mass_between: Callable[[Tensor, Tensor], Tensor], x: Tensor, mean: Tensor, scale: Tensor
) -> Tensor:
    """Log mass of the gray level around x; the first and last level reach to infinity."""
    high = torch.where(x > 1 - _HALF_LEVEL, torch.inf, (x + _HALF_LEVEL - mean) / scale)
    low = torch.where(x < _HALF_LEVEL, -torch.inf, (x - _HALF_LEVEL - mean) / scale)
    return log_mass_between(low, high)


def _log_normal_mass(low: Tensor, high: Tensor) -> Tensor:
    # Mirrored to the lower tail, where differences of the distribution function keep precision.
    flip = low > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    # In double precision: torch's gradient of log_ndtr subtracts squares, which overflows in single
    # precision at a distance of some hundred sigmas.
    upper, lower = torch.special.log_ndtr(high.double()), torch.special.log_ndtr(low.double())
    return _log_difference(upper, lower).to(low.dtype)


def _log_logistic_mass(low: Tensor, high: Tensor) -> Tensor:
    flip = low > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    return _log_difference(F.logsigmoid(high), F.logsigmoid(low))


def _log_difference(upper: Tensor, lower: Tensor) -> Tensor:
    """log(exp(upper) - exp(lower)), with a floor that keeps gradients finite."""
    gap = (lower - upper).clamp(max=-1e-6)
    return upper + torch.log1p(-torch.exp(gap))
