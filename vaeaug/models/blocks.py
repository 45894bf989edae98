"""Building blocks for one to three spatial axes: folding, FiLM, residual blocks, sizes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

_CONV: tuple[Callable[..., nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# By number of spatial axes: sides allowed, and the side up to which pixels are not folded.
MIN_SIDE = (8, 8, 4)
MAX_SIDE = (4096, 128, 64)
_UNFOLDED = (64, 16, 8)
# The coarsest grid has at most so many cells per side.
COARSEST = 7


@dataclass(frozen=True)
class Geometry:
    """Sizes on the way from a sample down to the coarsest grid, each axis by itself.

    Attributes:
        image_shape: (space..., channels) of a sample.
        fold: Values per axis that one feature of the finest grid stands for.
        grids: Shape of the grid at each level, finest first.
        strides: From each level to the next.
    """

    image_shape: tuple[int, ...]
    fold: tuple[int, ...]
    grids: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, image_shape: Sequence[int]) -> "Geometry":
        """The geometry of samples of this shape.

        Folding pixels into channels keeps the most expensive convolutions small; an axis is then
        halved until it has at most `COARSEST` cells.

        Raises:
            ValueError: If there are not one to three spatial axes, or a side is out of bounds.
        """
        *space, _ = image_shape
        rank = len(space)
        if not 1 <= rank <= 3:
            raise ValueError(
                "samples: expected 1 to 3 spatial axes and one of channels, got shape "
                f"{tuple(image_shape)}"
            )
        low, high = MIN_SIDE[rank - 1], MAX_SIDE[rank - 1]
        if not all(low <= side <= high for side in space):
            kind = ("signals", "images", "volumes")[rank - 1]
            raise ValueError(
                f"{kind}: expected sides from {low} to {high}, got "
                f"{' x '.join(map(str, space))}; resize them{' (size=)' * (rank == 2)}"
            )
        fold = tuple(_fold_of(side, _UNFOLDED[rank - 1]) for side in space)
        grid = tuple(math.ceil(side / each) for side, each in zip(space, fold, strict=True))
        grids, strides = [grid], []
        while max(grids[-1]) > COARSEST:
            stride = tuple(2 if side > COARSEST else 1 for side in grids[-1])
            strides.append(stride)
            grids.append(
                tuple(math.ceil(n / each) for n, each in zip(grids[-1], stride, strict=True))
            )
        return cls(tuple(image_shape), fold, tuple(grids), tuple(strides))

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.fold)

    @property
    def channels(self) -> int:
        """Channels of a sample."""
        return self.image_shape[-1]

    @property
    def folded_channels(self) -> int:
        """Channels of a folded sample."""
        return self.channels * math.prod(self.fold)

    @property
    def n_values(self) -> int:
        """Values in a sample."""
        return math.prod(self.image_shape)

    def folded(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n d *grid"]:
        """Pad to whole cells and move each cell's values into channels."""
        missing = [
            cells * fold - side
            for cells, fold, side in zip(self.grids[0], self.fold, x.shape[2:], strict=True)
        ]
        if any(missing):
            x = F.pad(x, [n for each in reversed(missing) for n in (0, each)], mode="replicate")
        return fold_space(x, self.fold)

    def unfolded(self, h: Float[Tensor, "n d *grid"]) -> Float[Tensor, "n c *space"]:
        """The inverse of `folded`, for any multiple of its channels."""
        x = unfold_space(h, self.fold)
        for axis, side in enumerate(self.image_shape[:-1], start=2):
            x = x.narrow(axis, 0, side)
        return x


def _fold_of(side: int, unfolded: int) -> int:
    fold = 1
    while side / fold > unfolded * (2 if fold > 1 else 1):
        fold *= 2
    return fold


def fold_space(x: Float[Tensor, "n c *space"], fold: Sequence[int]) -> Float[Tensor, "n d *grid"]:
    """Move blocks of `fold` values per axis into channels (pixel-unshuffle for any rank)."""
    n, c, *space = x.shape
    parts = [size for side, each in zip(space, fold, strict=True) for size in (side // each, each)]
    rank = len(space)
    x = x.reshape(n, c, *parts)
    order = [0, 1, *(3 + 2 * axis for axis in range(rank)), *(2 + 2 * axis for axis in range(rank))]
    return x.permute(order).reshape(
        n, c * math.prod(fold), *(side // each for side, each in zip(space, fold, strict=True))
    )


def unfold_space(h: Float[Tensor, "n d *grid"], fold: Sequence[int]) -> Float[Tensor, "n c *space"]:
    """The inverse of `fold_space` (pixel-shuffle for any rank)."""
    n, d, *grid = h.shape
    rank = len(grid)
    h = h.reshape(n, d // math.prod(fold), *fold, *grid)
    order = [0, 1]
    for axis in range(rank):
        order += [2 + rank + axis, 2 + axis]
    sides = [side * each for side, each in zip(grid, fold, strict=True)]
    return h.permute(order).reshape(n, d // math.prod(fold), *sides)


def scale_images(
    images: Shaped[Tensor, "n *space c"], value_range: tuple[int | float, int | float]
) -> Float[Tensor, "n c *space"]:
    """Samples as stored, channels last, to channels first in [0, 1]."""
    low, high = value_range
    return images.movedim(-1, 1).float().sub(low).div(high - low)


def conv(
    rank: int, n_in: int, n_out: int, size: int = 3, stride: int | tuple[int, ...] = 1
) -> nn.Module:
    """A convolution over `rank` axes that keeps the size, or divides it by the stride."""
    return _CONV[rank - 1](n_in, n_out, size, stride=stride, padding=size // 2)


def per_channel(
    values: Float[Tensor, "n c"], like: Float[Tensor, "n d *space"]
) -> Float[Tensor, "n c *ones"]:
    """Values per channel, shaped to be added to or multiplied with `like`."""
    return values.view(*values.shape, *(1 for _ in like.shape[2:]))


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
        return h * (1 + per_channel(scale, h)) + per_channel(shift, h)


class FilmBlock(nn.Module):
    """``h + conv(silu(film(norm(h), y)))``, one convolution of three values per axis."""

    def __init__(self, rank: int, channels: int, n_classes: int, embedding: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.film = ClassFilm(channels, n_classes, embedding)
        self.conv = conv(rank, channels, channels)

    def forward(
        self,
        h: Float[Tensor, "n c *space"],
        y: Int[Tensor, " n"],
        embedded: Float[Tensor, "n e"],
    ) -> Float[Tensor, "n c *space"]:
        """One residual step."""
        return h + self.conv(F.silu(self.film(self.norm(h), y, embedded)))


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the largest number of groups up to 8 that divides the channels."""
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def resize_to(h: Float[Tensor, "n c *space"], grid: Sequence[int]) -> Float[Tensor, "n c *grid"]:
    """Repeat each cell along the axes that were halved; the grid may have been odd."""
    for axis, (now, wanted) in enumerate(zip(h.shape[2:], grid, strict=True), start=2):
        if now != wanted:
            h = torch.repeat_interleave(h, 2, dim=axis).narrow(axis, 0, wanted)
    return h


def level_widths(geometry: Geometry, width: int, max_width: int) -> list[int]:
    """Channels at each level, doubled at each halving up to the bound."""
    return [min(width * 2**level, max_width) for level in range(len(geometry.grids))]


def pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    """(finer, coarser) channels of neighbouring levels."""
    return list(pairwise(widths))
