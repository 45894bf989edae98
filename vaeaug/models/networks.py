"""The encoder and the decoder: convolutional, class-conditioned, for one to three spatial axes.

Latents come in groups, coarse to fine. A group is a vector, (z,), or a grid, (c, *grid). The
methods of a model exchange them as one flat vector, group after group.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.models.blocks import (
    FilmBlock,
    Geometry,
    conv,
    group_norm,
    interpolated_to,
    level_widths,
    pairs,
    per_channel,
    resize_to,
)

# Bounds of log variances: exp stays finite in bfloat16 and the KL stays differentiable.
LOGVAR_BOUND = 10.0
# Default size of a spatial latent, as a fraction of the values of a sample.
SPATIAL_SHARE = 0.375
# Default numbers in a code of discrete latents, and codes in the codebook of small samples.
CODE_LENGTH, FEW_CODES = 8, 64
# Samples with more values get a longer latent vector; large samples get one of this length.
SMALL_SAMPLE = 400
LARGE_LATENT = 128


@dataclass(frozen=True)
class LatentGroup:
    """One group of latents.

    Attributes:
        shape: (z,) or (c, *grid).
        level: Level of the geometry at which it enters the decoder; the last is the coarsest.
        start: Its offset in the flat vector.
    """

    shape: tuple[int, ...]
    level: int
    start: int

    @property
    def size(self) -> int:
        """Units in the group."""
        return math.prod(self.shape)

    @property
    def is_grid(self) -> bool:
        """Whether it has spatial axes."""
        return len(self.shape) > 1

    def of(self, flat: Float[Tensor, "n z"]) -> Tensor:
        """Select this group from flat latents.

        Args:
            flat: Flat latents of all groups.

        Returns:
            The latents of this group, (n, *shape).
        """
        return flat[:, self.start : self.start + self.size].reshape(flat.shape[0], *self.shape)


def latent_length(n_values: int) -> int:
    """Return the default length of a latent vector: 32, or 64 for samples of over 400 values.

    Args:
        n_values: Values per sample.

    Returns:
        Units of the vector.
    """
    return 32 if n_values <= SMALL_SAMPLE else 64


def code_count(n_values: int) -> int:
    """Return the default size of a codebook: 64, or 256 for samples of over 400 values.

    Args:
        n_values: Values per sample.

    Returns:
        Codes.
    """
    return FEW_CODES if n_values <= SMALL_SAMPLE else 4 * FEW_CODES


def latent_groups(
    geometry: Geometry,
    latent: str,
    latent_dim: int | None,
    latent_channels: int | None,
    levels: int,
) -> tuple[LatentGroup, ...]:
    """Return the groups of a kind of latent.

    Args:
        geometry: Geometry of the samples.
        latent: "vector" (one vector), "spatial" (one grid at the coarsest level), "discrete" (the
            same, of codes) or "hierarchical" (a vector, a grid at the coarsest level and, with
            three groups, one at the next finer level).
        latent_dim: Length of the vector. None: 32, or 64 for samples of more than 400 values, 128
            for large ones (see `Geometry`).
        latent_channels: Channels of the coarsest grid, 1 to 16. None: as many as let the grid hold
            `SPATIAL_SHARE` of the values of a sample; `CODE_LENGTH` for "discrete".
        levels: Number of groups of a hierarchy, 2 or 3.

    Returns:
        The groups, coarse to fine.

    Raises:
        ValueError: For an unknown kind, or three groups for samples that are never halved.
    """
    last = len(geometry.grids) - 1
    if latent_dim is None:
        latent_dim = LARGE_LATENT if geometry.is_large else latent_length(geometry.n_values)
    cells = math.prod(geometry.grids[last])
    channels = latent_channels or min(16, max(1, round(SPATIAL_SHARE * geometry.n_values / cells)))
    if latent == "vector":
        shapes: list[tuple[tuple[int, ...], int]] = [((latent_dim,), last)]
    elif latent == "spatial":
        shapes = [((channels, *geometry.grids[last]), last)]
    elif latent == "discrete":
        shapes = [((latent_channels or CODE_LENGTH, *geometry.grids[last]), last)]
    elif latent == "hierarchical":
        shapes = [((latent_dim,), last), ((channels, *geometry.grids[last]), last)]
        if levels == 3:
            if not last:
                raise ValueError(
                    f"three latent levels: samples of shape {geometry.image_shape} are too small "
                    "to be halved; use two"
                )
            finer = max(1, channels // 4)
            shapes.append(((finer, *geometry.grids[last - 1]), last - 1))
    else:
        raise ValueError(
            f"latent: expected vector, spatial, hierarchical or discrete, got {latent!r}"
        )
    groups: list[LatentGroup] = []
    for shape, level in shapes:
        start = groups[-1].start + groups[-1].size if groups else 0
        groups.append(LatentGroup(shape, level, start))
    return tuple(groups)


class Encoder(nn.Module):
    """The encoder from samples in [0, 1] and classes to q(z|x,y).

    Args:
        geometry: Geometry of the samples.
        groups: Groups of latents.
        n_classes: Rows of the FiLM layers.
        width: Channels at the finest level.
        max_width: Upper bound of the channels.
        class_embedding: Length of the class embedding.
    """

    def __init__(
        self,
        geometry: Geometry,
        groups: Sequence[LatentGroup],
        n_classes: int,
        *,
        width: int,
        max_width: int,
        class_embedding: int,
    ) -> None:
        super().__init__()
        self.geometry, self.groups = geometry, tuple(groups)
        widths, rank = level_widths(geometry, width, max_width), geometry.rank
        self.stem = geometry.first_layer(widths[0])
        self.blocks = nn.ModuleList(
            FilmBlock(geometry, width, n_classes, class_embedding) for width in widths
        )
        self.downs = nn.ModuleList(
            geometry.conv(wide, wider, stride)
            for (wide, wider), stride in zip(pairs(widths), geometry.strides, strict=True)
        )
        self.norms = nn.ModuleList(group_norm(widths[group.level]) for group in groups)
        self.heads = nn.ModuleList(
            conv(rank, widths[group.level], 2 * group.shape[0], size=1)
            if group.is_grid
            else nn.Linear(
                widths[group.level] * math.prod(geometry.grids[group.level]), 2 * group.size
            )
            for group in groups
        )

    def forward(
        self,
        x: Float[Tensor, "n c *space"],
        y: Int[Tensor, " n"],
        embedded: Float[Tensor, "n e"],
    ) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        """Mean and log variance of q(z|x,y)."""
        h = self.stem(self.geometry.entering(x))
        features = []
        for level, block in enumerate(self.blocks):
            if level:
                h = self.downs[level - 1](h)
            h = block(h, y, embedded)
            features.append(h)
        means, logvars = [], []
        for group, norm, head in zip(self.groups, self.norms, self.heads, strict=True):
            h = F.silu(norm(features[group.level]))
            out = head(h if group.is_grid else h.flatten(1)).float()
            mean, logvar = out.chunk(2, dim=1)
            means.append(mean.flatten(1))
            logvars.append(logvar.flatten(1))
        mean, logvar = torch.cat(means, dim=1), torch.cat(logvars, dim=1)
        return mean, logvar.clamp(-LOGVAR_BOUND, LOGVAR_BOUND)


@dataclass(frozen=True)
class Decoded:
    """The output of the decoder.

    Attributes:
        raw: Parameters of p(x|z,y), as the likelihood expects them.
        z: The latents, flat, including those drawn from the prior.
        mean: Prior mean of each latent, given the preceding groups.
        logvar: Prior log variance of each latent, given the preceding groups.
    """

    raw: Float[Tensor, "n d *space"]
    z: Float[Tensor, "n z"]
    mean: Float[Tensor, "n z"]
    logvar: Float[Tensor, "n z"]


class Decoder(nn.Module):
    """The decoder from latents and classes to the parameters of p(x|z,y).

    In a hierarchy, the prior of each group after the first depends on the preceding groups:
    p(z1|y) p(z2|z1,y) ... (Sønderby et al. 2016, arXiv:1602.02282).

    Args:
        geometry: Geometry of the samples.
        groups: Groups of latents.
        n_classes: Rows of the FiLM layers.
        n_outputs: Outputs per value, as the likelihood requires.
        width: Channels at the finest level.
        max_width: Upper bound of the channels.
        class_embedding: Length of the class embedding.
    """

    def __init__(
        self,
        geometry: Geometry,
        groups: Sequence[LatentGroup],
        n_classes: int,
        *,
        n_outputs: int,
        width: int,
        max_width: int,
        class_embedding: int,
    ) -> None:
        super().__init__()
        self.geometry, self.groups = geometry, tuple(groups)
        self.resize = interpolated_to if geometry.is_large else resize_to
        widths, rank = level_widths(geometry, width, max_width), geometry.rank
        first, *later = groups
        self.start: nn.Module
        if first.is_grid:
            self.start = geometry.conv(first.shape[0], widths[-1])
            self.start_class = nn.Linear(class_embedding, widths[-1])
        else:
            flat = widths[-1] * math.prod(geometry.grids[-1])
            self.start = nn.Linear(first.size + class_embedding, flat)
        self.prior_heads = nn.ModuleList(
            nn.Sequential(
                group_norm(widths[group.level]),
                nn.SiLU(),
                conv(rank, widths[group.level], 2 * group.shape[0]),
            )
            for group in later
        )
        for head in self.prior_heads:  # starts as a standard normal
            nn.init.zeros_(head[-1].weight)  # type: ignore[index]
            nn.init.zeros_(head[-1].bias)  # type: ignore[index]
        self.enter = nn.ModuleList(
            geometry.conv(group.shape[0], widths[group.level]) for group in later
        )
        coarse_to_fine = list(reversed(widths))
        self.blocks = nn.ModuleList(
            FilmBlock(geometry, width, n_classes, class_embedding) for width in coarse_to_fine
        )
        self.ups = nn.ModuleList(
            conv(rank, wider, wide, size=1) for wide, wider in reversed(pairs(widths))
        )
        self.last = FilmBlock(geometry, widths[0], n_classes, class_embedding)
        self.norm = group_norm(widths[0])
        self.out = geometry.last_layer(widths[0], n_outputs)

    @property
    def last_layer(self) -> nn.Parameter:
        """Weights of the last convolution."""
        return self.out.weight  # type: ignore[return-value]

    def forward(
        self,
        z: Float[Tensor, "n z"],
        y: Int[Tensor, " n"] | None,
        embedded: Float[Tensor, "n e"],
        first_mean: Float[Tensor, "n z1"],
        first_logvar: Float[Tensor, "n z1"],
        *,
        is_noise: bool = False,
        temperature: float = 1.0,
    ) -> Decoded:
        """Decode latents, or draw them from the prior on the way.

        Args:
            z: Latents; with `is_noise`, standard normal draws that are turned into latents.
            y: Class indices; None: classes that have no rows.
            embedded: Embeddings of the classes.
            first_mean: Prior mean of the first group.
            first_logvar: Prior log variance of the first group.
            is_noise: Whether z is noise.
            temperature: Scale of the noise.
        """
        first, *later = self.groups
        means, logvars = [first_mean], [first_logvar]
        scale = temperature if is_noise else None
        mixed = _latents_of(first, z, first_mean, first_logvar, scale)
        latents = [mixed.flatten(1)]
        if first.is_grid:
            h = self.start(mixed)
            h = h + per_channel(self.start_class(embedded), h)
        else:
            h = self.start(torch.cat([mixed, embedded], dim=1))
            h = h.view(z.shape[0], -1, *self.geometry.grids[-1])
        n_levels = len(self.geometry.grids)
        for step, block in enumerate(self.blocks):
            level = n_levels - 1 - step
            if step:
                h = self.resize(self.ups[step - 1](h), self.geometry.grids[level])
            for group, head, enter in zip(later, self.prior_heads, self.enter, strict=True):
                if group.level == level:
                    mean, logvar = head(h).float().chunk(2, dim=1)
                    logvar = logvar.clamp(-LOGVAR_BOUND, LOGVAR_BOUND)
                    means.append(mean.flatten(1))
                    logvars.append(logvar.flatten(1))
                    part = _latents_of(group, z, mean, logvar, scale)
                    latents.append(part.flatten(1))
                    h = h + enter(part)
            h = block(h, y, embedded)
        h = F.silu(self.norm(self.last(h, y, embedded)))
        raw = self.geometry.leaving(self.out(h))
        return Decoded(
            raw, torch.cat(latents, dim=1), torch.cat(means, dim=1), torch.cat(logvars, dim=1)
        )


def _latents_of(
    group: LatentGroup,
    z: Float[Tensor, "n z"],
    mean: Tensor,
    logvar: Tensor,
    scale: float | None,
) -> Tensor:
    """The latents of a group: those in z, or made of the noise in z at a scale."""
    latents = group.of(z)
    if scale is None:
        return latents
    sigma = torch.exp(0.5 * logvar).reshape(latents.shape)
    return mean.reshape(latents.shape) + scale * sigma * latents
