"""A network that removes noise and fills in missing values: the posterior mean E[x|y]."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.models.blocks import FactorisedConv, Geometry, conv, fold_space, unfold_space
from vaeaug.ranks import row_by_row

# Least noise that is told from none, and most that is learned, as fractions of the value range.
MIN_NOISE, MAX_NOISE = 0.01, 0.7
# Levels of Gaussian noise, and peaks of counting noise, at which the blend with the input is
# calibrated.
NOISE_LEVELS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
PEAKS = (4.0, 16.0, 64.0, 256.0)
# Maximum number of halvings of the finest grid.
_HALVINGS = 2
_POOL = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_INTERPOLATION = ("linear", "bilinear", "trilinear")
_LEAST_SHARE = 1e-6
# Steps towards each of the two smooth surfaces: more change gaps of single values by nothing.
_FILL_STEPS = 8
_TINY = 1e-20


class Restorer(nn.Module):
    """The mean of clean samples given a noisy one; the level of the noise may differ by value.

    A small U-Net on folded samples (as FFDNet, Zhang et al. 2018, arXiv:1710.04026) adds to what a
    Wiener filter of single values gives. Its input and output have unit variance at every level of
    noise (the preconditioning of Karras et al. 2022, arXiv:2206.00364, table 1). A missing value is
    one of infinite noise; a smooth surface through the values around it stands in its place, and
    counts as a value with as much noise as the surface is wrong at that distance from known values.

    Args:
        image_shape: (space..., channels) of a sample. Samples of other sides pass as well.
        width: Channels of the finest grid; doubled at each halving.
        convolution: "full" or, for three spatial axes, "factorised"; see `FactorisedConv`.
        fill: What stands in the place of missing values before the network: "smooth", or as in
            earlier generators "around" (pull-push interpolation) or "mean".

    Attributes:
        mean: Mean of the training values, in [0, 1].
        scale: Their standard deviation.
        estimates: What the estimator says, in the geometric mean, at each of `NOISE_LEVELS`.
        weights: Best weight of the restored sample against its input at each of `NOISE_LEVELS`, on
            held-out samples.
        known_weights: The same where the level is known and not estimated.
        poisson_weights: The same at each of `PEAKS`.
        likeness: Correlation of training values that are 1, 2, 4, ... values apart.
    """

    likeness: Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        width: int = 48,
        convolution: str = "full",
        fill: str = "smooth",
    ) -> None:
        super().__init__()
        geometry = Geometry.of(image_shape, convolution)
        self.architecture = {
            "image_shape": list(image_shape),
            "width": width,
            "convolution": convolution,
            "fill": fill,
        }
        self.fill = fill
        rank, channels, self.fold = geometry.rank, geometry.channels, geometry.fold
        halvings = min(_HALVINGS, len(geometry.strides))
        self.multiple = tuple(cells * 2**halvings for cells in self.fold)
        widths = [width * 2**level for level in range(halvings + 1)]
        folded = channels * math.prod(self.fold)
        self.enter = geometry.conv(3 * folded, width)
        self.down = nn.ModuleList(_Block(geometry, n) for n in widths)
        self.shrink = nn.ModuleList(geometry.conv(a, b, 2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(conv(rank, b, a * 2**rank, size=1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_Block(geometry, n) for n in widths[:-1])
        self.leave = geometry.conv(width, folded, time_first=True)
        _set_to_zero(self.leave)
        self.estimator = _NoiseEstimator(rank, channels)
        self.register_buffer("mean", torch.tensor(0.5, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(0.3, dtype=torch.float32))
        levels = torch.tensor(NOISE_LEVELS, dtype=torch.float32)
        self.register_buffer("estimates", levels)
        self.register_buffer("weights", torch.ones(len(NOISE_LEVELS), dtype=torch.float32))
        self.register_buffer("known_weights", torch.ones(len(NOISE_LEVELS), dtype=torch.float32))
        self.register_buffer("poisson_weights", torch.ones(len(PEAKS), dtype=torch.float32))
        if fill == "smooth":
            doublings = math.ceil(math.log2(max(2, *image_shape[:-1])))
            self.register_buffer("likeness", torch.zeros(doublings, dtype=torch.float32))
        self.mean: Tensor
        self.scale: Tensor
        self.estimates: Tensor
        self.weights: Tensor
        self.known_weights: Tensor
        self.poisson_weights: Tensor

    @torch.no_grad()
    def standardise(self, x: Float[Tensor, "n c *space"]) -> None:
        """Set mean and scale, and how alike values are at a distance.

        Args:
            x: Training samples in [0, 1].
        """
        self.mean.copy_(x.mean())
        self.scale.copy_(x.std(correction=0).clamp(min=MIN_NOISE))
        if self.fill != "smooth":
            return
        for number in range(len(self.likeness)):
            apart = 2**number
            pairs = [
                (x.narrow(axis, 0, side - apart), x.narrow(axis, apart, side - apart))
                for axis, side in enumerate(x.shape[2:], start=2)
                if side > apart
            ]
            half = torch.stack([(one - other).square().mean() / 2 for one, other in pairs]).mean()
            self.likeness[number] = (1 - half / self.scale.square()).clamp(0, 1)

    @row_by_row
    def forward(
        self, y: Float[Tensor, "n c *space"], sigma: Float[Tensor, "n c *space"]
    ) -> Float[Tensor, "n c *space"]:
        """Estimate clean samples.

        Args:
            y: Noisy samples, values scaled as those of clean ones are to [0, 1]; finite.
            sigma: Standard deviation of the noise on the same scale; infinite where y is missing.

        Returns:
            Posterior means, not clipped.
        """
        gain = self._gain(sigma)
        centred = y - self.mean
        known = sigma.isfinite()
        # A value and its Wiener filter, or what is put in its place.
        seen, filtered = centred * gain.sqrt(), gain * centred
        trust, ratio = gain, (sigma / self.scale).clamp(MIN_NOISE, 10).log() / 4
        if self.fill == "around":
            around = filled(centred, known)
            seen, filtered = (torch.where(known, each, around) for each in (seen, filtered))
        elif self.fill == "smooth":
            trust = self._trust(gain, known)
            filtered = smoothly_filled(filtered, known)
            around = filled(gain, known).clamp(min=_LEAST_SHARE).sqrt()
            seen = torch.where(known, seen, filtered / around)
            noise = (1 / trust.clamp(min=_LEAST_SHARE) - 1).sqrt()
            ratio = torch.where(known, ratio, noise.clamp(MIN_NOISE, 10).log() / 4)
        features = torch.cat([seen / self.scale, gain.sqrt(), ratio], dim=1)
        residual = self.scale * (1 - trust).sqrt() * self._network(features)
        return self.mean + filtered + residual

    def expected_error(self, sigma: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
        """Compute the squared error that is expected before the network.

        Args:
            sigma: As for `forward`.

        Returns:
            Expected squared errors of a Wiener filter of single values, and of what stands in the
            place of missing ones.
        """
        gain = self._gain(sigma)
        trust = self._trust(gain, sigma.isfinite()) if self.fill == "smooth" else gain
        return self.scale.square() * (1 - trust)

    def _gain(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + (sigma.clamp(min=MIN_NOISE / 4) / self.scale).square())

    def _trust(self, gain: Tensor, known: Tensor) -> Tensor:
        """The gain, and at missing values how far known ones around them explain them."""
        likeness = [*self.likeness, self.likeness.new_zeros(())]
        return filled(gain, known, likeness)

    def _network(self, features: Tensor) -> Tensor:
        space = features.shape[2:]
        missing = [-side % step for side, step in zip(space, self.multiple, strict=True)]
        if any(missing):
            pad = [n for amount in reversed(missing) for n in (0, amount)]
            features = F.pad(features, pad, mode="replicate")
        h = self.enter(fold_space(features, self.fold))
        finer = []
        for block, shrink in zip(self.down, self.shrink, strict=False):
            finer.append(block(h))
            h = shrink(finer[-1])
        h = self.down[-1](h)
        twice = (2,) * len(space)
        for block, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            h = block(finer.pop() + unfold_space(grow(h), twice))
        h = unfold_space(self.leave(F.silu(h)), self.fold)
        for axis, side in enumerate(space, start=2):
            h = h.narrow(axis, 0, side)
        return h

    def noise_level(
        self, y: Float[Tensor, "n c *space"], known: Float[Tensor, "n c *space"]
    ) -> Float[Tensor, " n"]:
        """Estimate the level of Gaussian noise, by the calibrated estimator.

        Args:
            y: Noisy samples, as for `forward`.
            known: 1 where y is known, 0 where it is missing.

        Returns:
            Standard deviation of each sample's noise.
        """
        told, places = self.log_estimate(y, known), self.estimates.log()
        levels = told.new_tensor(NOISE_LEVELS).log()
        beyond = (told - places[-1]).clamp(min=0) + (told - places[0]).clamp(max=0)
        return (_interpolated(told, places, levels) + beyond).exp()

    @row_by_row
    def log_estimate(
        self, y: Float[Tensor, "n c *space"], known: Float[Tensor, "n c *space"]
    ) -> Float[Tensor, " n"]:
        """Estimate the logarithm of the level, before it is calibrated.

        Args:
            y: As for `noise_level`.
            known: As for `noise_level`.

        Returns:
            The logarithm of each sample's level.
        """
        return self.estimator((y - self.mean) / self.scale * known, known)

    def weight_of(
        self, level: Float[Tensor, " n"], *, is_known: bool = False
    ) -> Float[Tensor, " n"]:
        """Interpolate the weight of the restored sample between the calibrated levels.

        Args:
            level: Level of the noise.
            is_known: Whether it was given; False: it is an estimate.

        Returns:
            From 0, which keeps the input, to 1. It is 0 for noise below `MIN_NOISE`.
        """
        return self.weight_shares(level) @ (self.known_weights if is_known else self.weights)

    def weight_shares(self, level: Float[Tensor, " n"]) -> Float[Tensor, "n k"]:
        """Say how far the weight of each of `NOISE_LEVELS` counts at a level.

        Args:
            level: Level of the noise.

        Returns:
            From 0 to 1; in all 1 from the lowest of `NOISE_LEVELS` on, less below.
        """
        places = level.new_tensor((MIN_NOISE, *NOISE_LEVELS))
        corners = torch.eye(len(places), device=level.device)
        return torch.stack([_interpolated(level, places, each) for each in corners[1:]], dim=1)

    def poisson_weight_of(self, peak: float) -> float:
        """Interpolate the weight of the restored sample for counting noise.

        Args:
            peak: Mean count of a value of 1.

        Returns:
            From 0, which keeps the input, to 1.
        """
        peaks = torch.tensor(PEAKS, device=self.mean.device).log()
        at = torch.tensor([math.log(peak)], device=self.mean.device)
        return float(_interpolated(at, peaks, self.poisson_weights))


def filled(
    y: Float[Tensor, "n c *space"],
    known: Bool[Tensor, "n c *space"],
    factors: Sequence[Tensor] = (),
) -> Float[Tensor, "n c *space"]:
    """Fill missing values from those around them, the coarser the fewer are near.

    Means of known values on ever coarser grids, interpolated back (the pull-push algorithm, Gortler
    et al. 1996, doi:10.1145/237170.237200).

    Args:
        y: Values, any where they are missing.
        known: Where they are known.
        factors: Of the means on the first coarser grid, on the next, and so on; () for ones.

    Returns:
        The values, with others where they are missing; 0 where nothing is known.
    """
    rank = y.ndim - 2
    pool, mode = _POOL[rank - 1], _INTERPOLATION[rank - 1]
    grids = [(torch.where(known, y, 0.0), known.to(y.dtype))]
    while max(grids[-1][0].shape[2:]) > 1:
        values, share = grids[-1]
        size = [min(2, side) for side in values.shape[2:]]
        fewer = pool(share, size, ceil_mode=True)
        means = pool(values * share, size, ceil_mode=True) / fewer.clamp(min=_LEAST_SHARE)
        grids.append((means, (fewer > 0).to(y.dtype)))
    if factors:
        last = len(factors) - 1
        grids[1:] = [
            (factors[min(number, last)] * values, share)
            for number, (values, share) in enumerate(grids[1:])
        ]
    result = grids.pop()[0]
    for values, share in reversed(grids):
        coarse = F.interpolate(result, values.shape[2:], mode=mode, align_corners=False)
        result = torch.where(share > 0, values, coarse)
    return result


@torch.no_grad()
def smoothly_filled(
    y: Float[Tensor, "n c *space"], known: Bool[Tensor, "n c *space"]
) -> Float[Tensor, "n c *space"]:
    """Fill missing values by a smooth surface through the known ones.

    From `filled` some steps of conjugate gradients (Hestenes & Stiefel 1952) towards the least
    squared slope, and then towards the least squared curvature, the biharmonic surface: gaps of
    single values reach it, large ones lie between the two, where they have the least error.

    Args:
        y: Values, any where they are missing.
        known: Where they are known.

    Returns:
        The values, with others where they are missing; 0 where nothing is known.
    """
    if not y.is_cuda:  # a graph of a card has no rows of its own choice
        rows = torch.nonzero(~known.flatten(1).all(dim=1)).squeeze(1)
        if len(rows) < len(y):
            return y.index_copy(0, rows, smoothly_filled(y[rows], known[rows])) if len(rows) else y
    missing = (~known).to(y.dtype)
    surface = filled(y, known)
    for curvature in (_laplacian, lambda u: _laplacian(_laplacian(u))):
        residual = -missing * curvature(surface)
        direction, power = residual, _squares(residual, residual)
        for _ in range(_FILL_STEPS):
            image = missing * curvature(direction)
            step = power / _squares(direction, image).clamp(min=_TINY)
            surface, residual = surface + step * direction, residual - step * image
            before, power = power, _squares(residual, residual)
            direction = residual + power / before.clamp(min=_TINY) * direction
    return surface


def _laplacian(u: Tensor) -> Tensor:
    """Minus the sum of second differences; nothing flows over the edges."""
    total = torch.zeros_like(u)
    for axis in range(2, u.ndim):
        slope, last = u.diff(dim=axis), u.shape[axis] - 1
        total.narrow(axis, 1, last).add_(slope)
        total.narrow(axis, 0, last).sub_(slope)
    return total


def _squares(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=tuple(range(1, a.ndim)), keepdim=True)


def _interpolated(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Interpolate linearly between values at ascending places, and repeat those at the ends."""
    right = torch.searchsorted(places, x).clamp(1, len(places) - 1)
    part = (x - places[right - 1]) / (places[right] - places[right - 1])
    return torch.lerp(values[right - 1], values[right], part.clamp(0, 1))


def poisson_level(y: Float[Tensor, "n c *space"], peak: Tensor) -> Float[Tensor, "n c *space"]:
    """Compute the standard deviation of counting noise from the noisy values themselves.

    One count is added, because a value of which nothing was counted is not known to be zero.

    Args:
        y: Noisy samples; 0 is dark.
        peak: Mean count of a value of 1; a scalar or one that can be broadcast.

    Returns:
        Standard deviations.
    """
    return ((y.clamp(min=0) + 1 / peak) / peak).sqrt()


class _Block(nn.Module):
    """``h + conv(silu(conv(h)))``, at first h. Without a norm: amplitudes are to be restored.

    A linear first convolution of h was measured better than one of silu(h).
    """

    def __init__(self, geometry: Geometry, channels: int) -> None:
        super().__init__()
        self.first = geometry.conv(channels, channels)
        self.second = geometry.conv(channels, channels)
        _set_to_zero(self.second)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.second(F.silu(self.first(h)))


class _NoiseEstimator(nn.Module):
    """The logarithm of the level of noise, from the energy of learned filters."""

    def __init__(self, rank: int, channels: int, width: int = 16) -> None:
        super().__init__()
        self.first = conv(rank, 2 * channels, width)
        self.second = conv(rank, width, 2 * width, stride=2)
        self.head = nn.Sequential(
            nn.Linear(4 * width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 1)
        )

    def forward(self, y: Tensor, known: Tensor) -> Tensor:
        h = F.silu(self.first(torch.cat([y, known], dim=1)))
        energy = self.second(h).flatten(2).square()
        # Noise shows best where a sample is flat.
        flat = energy.topk(max(1, energy.shape[2] // 4), dim=2, largest=False).values
        features = torch.cat([energy.mean(dim=2), flat.mean(dim=2)], dim=1)
        return self.head((features + 1e-5).log()).squeeze(1) - 2


def _set_to_zero(layer: nn.Module) -> None:
    if isinstance(layer, FactorisedConv):
        # One of two factors: with both at zero neither has a gradient.
        nn.init.zeros_(layer.time.bias)  # type: ignore[arg-type]
        layer = layer.frames
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
