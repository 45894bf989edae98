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
# Indexed by the number of spatial axes minus 1: the allowed sides, and the side up to which pixels
# are not folded.
MIN_SIDE = (8, 8, 4)
MAX_SIDE = (160_000, 512, 128)
_UNFOLDED = (64, 16, 8)
# Samples with a longer side are large: see `Geometry`.
_ORDINARY = (4096, 128, 64)
# Maximum number of cells along an axis of the finest grid of a large sample.
_FINEST = (1280, 64, 16)
# Maximum number of cells per side of the coarsest grid.
COARSEST = 7
CONVOLUTIONS = ("full", "factorised")


class SizeError(ValueError):
    """The samples have a shape that no network accepts; the message suggests a remedy."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of the grids between a sample and the coarsest grid, separately for each axis.

    Large samples are not folded. Instead, the first and the last layer are strided convolutions
    with overlapping windows, so that no seams show between neighbouring blocks of values; see
    `OverlappingWindows`. The finest level of large samples is half as wide, and the decoder
    interpolates between levels, whereas for ordinary samples it repeats each cell.

    Attributes:
        image_shape: (space..., channels) of a sample.
        fold: Values per axis that one feature of the finest grid represents.
        grids: Shape of the grid at each level, finest first.
        strides: Strides from each level to the next coarser one.
        is_factorised: Whether convolutions are `FactorisedConv`.
    """

    image_shape: tuple[int, ...]
    fold: tuple[int, ...]
    grids: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    is_factorised: bool = False

    @classmethod
    def of(cls, image_shape: Sequence[int], convolution: str = "full") -> "Geometry":
        """Return the geometry of samples of this shape.

        Folding pixels into channels keeps the most expensive convolutions small. Each axis is then
        halved until it has at most `COARSEST` cells.

        Args:
            image_shape: (space..., channels) of a sample, values per axis.
            convolution: "full" or, for three spatial axes, "factorised"; see `FactorisedConv`.

        Returns:
            The sizes of all levels.

        Raises:
            SizeError: If there are not one to three spatial axes, or a side is out of bounds.
            ValueError: For an unknown convolution, or a factorised one of fewer axes.
        """
        *space, _ = image_shape
        rank = len(space)
        if convolution not in CONVOLUTIONS:
            raise ValueError(
                f"convolution: expected one of {', '.join(CONVOLUTIONS)}, got {convolution!r}"
            )
        is_factorised = convolution == "factorised"
        if is_factorised and rank != 3:
            raise ValueError(
                f"convolution factorised: expected samples of three spatial axes, got shape "
                f"{tuple(image_shape)}"
            )
        if not 1 <= rank <= 3:
            raise SizeError(
                "samples: expected 1 to 3 spatial axes and one of channels, got shape "
                f"{tuple(image_shape)}"
            )
        low, high = MIN_SIDE[rank - 1], MAX_SIDE[rank - 1]
        if not all(low <= side <= high for side in space):
            raise SizeError(_size_message(space, low, high))
        fold = tuple(_fold_of(side, _UNFOLDED[rank - 1]) for side in space)
        if max(space) > _ORDINARY[rank - 1]:
            max_fold = _power_of_two(max(space) / _FINEST[rank - 1])
            fold = tuple(min(factor, max_fold) for factor in fold)
        grid = tuple(math.ceil(side / factor) for side, factor in zip(space, fold, strict=True))
        grids, strides = [grid], []
        while max(grids[-1]) > COARSEST:
            stride = tuple(2 if side > COARSEST else 1 for side in grids[-1])
            strides.append(stride)
            grids.append(
                tuple(math.ceil(n / step) for n, step in zip(grids[-1], stride, strict=True))
            )
        return cls(tuple(image_shape), fold, tuple(grids), tuple(strides), is_factorised)

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

    @property
    def is_large(self) -> bool:
        """Whether the first and the last layer use overlapping windows."""
        return max(self.image_shape[:-1]) > _ORDINARY[self.rank - 1]

    def conv(
        self,
        n_in: int,
        n_out: int,
        stride: int | tuple[int, ...] = 1,
        *,
        time_first: bool = False,
    ) -> nn.Module:
        """Build a convolution of three values per axis, full or factorised.

        Args:
            n_in: Input channels.
            n_out: Output channels.
            stride: Stride, for all axes or for each.
            time_first: Whether a factorised one begins with the first axis; cheaper where there are
                fewer input than output channels.

        Returns:
            The convolution.
        """
        if self.is_factorised:
            return FactorisedConv(n_in, n_out, stride, time_first=time_first)
        return conv(self.rank, n_in, n_out, stride=stride)

    def first_layer(self, n_out: int) -> nn.Module:
        """Build the convolution from the output of `entering` to the finest grid.

        Args:
            n_out: Channels of the finest grid.

        Returns:
            A layer from (n, d, *grid) or, for large samples, (n, c, *space) to (n, n_out, *grid).
        """
        if not self.is_large:
            return self.conv(self.folded_channels, n_out)
        return _CONV[self.rank - 1](
            self.channels,
            n_out,
            tuple(2 * factor - 1 for factor in self.fold),
            stride=self.fold,
            padding=tuple(factor - 1 for factor in self.fold),
        )

    def last_layer(self, n_in: int, n_outputs: int) -> nn.Module:
        """Build the layer from the finest grid to the input of `leaving`.

        Args:
            n_in: Channels of the finest grid.
            n_outputs: Outputs of the layer for each value of a sample.

        Returns:
            A layer from (n, n_in, *grid) to (n, n_outputs * d, *grid) or, for large samples, (n,
            n_outputs * c, *space).
        """
        if not self.is_large:
            return self.conv(n_in, n_outputs * self.folded_channels, time_first=True)
        return OverlappingWindows(n_in, n_outputs * self.channels, self.fold)

    def leaving(self, h: Float[Tensor, "n d *grid_or_space"]) -> Float[Tensor, "n c *space"]:
        """Reshape the output of the last layer to the shape of samples.

        Args:
            h: Output of the last layer, folded unless the samples are large.

        Returns:
            The output with channels first and the sides of a sample.
        """
        return self._cropped(h) if self.is_large else self.unfolded(h)

    def entering(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n d *grid_or_space"]:
        """Prepare samples for the first layer: scale them to [-1, 1] and fold them unless large.

        Args:
            x: Samples in [0, 1].

        Returns:
            Samples in [-1, 1].
        """
        x = (2 * x).sub_(1)
        return x if self.is_large else self.folded(x)

    def folded(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n d *grid"]:
        """Pad to whole cells and move the values of each cell into channels.

        Args:
            x: Samples.

        Returns:
            Folded samples with ``c * prod(fold)`` channels.
        """
        missing = [
            cells * fold - side
            for cells, fold, side in zip(self.grids[0], self.fold, x.shape[2:], strict=True)
        ]
        if any(missing):
            x = F.pad(
                x, [n for n_missing in reversed(missing) for n in (0, n_missing)], mode="replicate"
            )
        return fold_space(x, self.fold)

    def unfolded(self, h: Float[Tensor, "n d *grid"]) -> Float[Tensor, "n c *space"]:
        """Invert `folded`, for any multiple of its channels.

        Args:
            h: Folded samples.

        Returns:
            Samples, cropped to their sides.
        """
        return self._cropped(unfold_space(h, self.fold))

    def _cropped(self, x: Tensor) -> Tensor:
        for axis, side in enumerate(self.image_shape[:-1], start=2):
            x = x.narrow(axis, 0, side)
        return x


def _size_message(space: Sequence[int], low: int, high: int) -> str:
    got = "x".join(map(str, space))
    if len(space) == 1:
        remedy = "pad them" if space[0] < low else "cut them into pieces of at most that length"
        sounds = (
            f"; for audio files, --size {min(max(space[0], low), high)} reads that many samples"
        )
        return f"signals: expected {low} to {high:,} values, got {space[0]:,}; {remedy}{sounds}"
    if len(space) == 3:
        return (
            f"volumes: expected sides of {low} to {high} voxels, got {got}; resample them first; "
            "for video files, --frames N and --size HxW do so"
        )
    # The nearest allowed size with about the same aspect ratio.
    factor = high / max(space) if max(space) > high else low / min(space)
    suggested = "x".join(str(min(high, max(low, round(factor * side)))) for side in space)
    return (
        f"images: expected sides of {low} to {high} pixels, got {got}; --size {suggested} "
        f"(size= in Python) resizes them"
    )


def _fold_of(side: int, unfolded: int) -> int:
    fold = 1
    while side / fold > unfolded * (2 if fold > 1 else 1):
        fold *= 2
    return fold


def _power_of_two(minimum: float) -> int:
    return 1 << max(0, math.ceil(math.log2(minimum)))


def fold_space(x: Float[Tensor, "n c *space"], fold: Sequence[int]) -> Float[Tensor, "n d *grid"]:
    """Move blocks of `fold` values per axis into channels (pixel-unshuffle for any rank).

    Args:
        x: Samples whose sides are multiples of `fold`.
        fold: Values per axis of a block.

    Returns:
        Folded samples with ``c * prod(fold)`` channels.
    """
    n, c, *space = x.shape
    parts = [
        size for side, factor in zip(space, fold, strict=True) for size in (side // factor, factor)
    ]
    rank = len(space)
    x = x.reshape(n, c, *parts)
    order = [0, 1, *(3 + 2 * axis for axis in range(rank)), *(2 + 2 * axis for axis in range(rank))]
    return x.permute(order).reshape(
        n, c * math.prod(fold), *(side // factor for side, factor in zip(space, fold, strict=True))
    )


def unfold_space(h: Float[Tensor, "n d *grid"], fold: Sequence[int]) -> Float[Tensor, "n c *space"]:
    """Invert `fold_space` (pixel-shuffle for any rank).

    Args:
        h: Folded samples, whose channels are a multiple of ``prod(fold)``.
        fold: Values per axis of a block.

    Returns:
        Samples with ``d / prod(fold)`` channels.
    """
    n, d, *grid = h.shape
    rank = len(grid)
    h = h.reshape(n, d // math.prod(fold), *fold, *grid)
    order = [0, 1]
    for axis in range(rank):
        order += [2 + rank + axis, 2 + axis]
    sides = [side * factor for side, factor in zip(grid, fold, strict=True)]
    return h.permute(order).reshape(n, d // math.prod(fold), *sides)


def scale_images(
    images: Shaped[Tensor, "n *space c"], value_range: tuple[int | float, int | float]
) -> Float[Tensor, "n c *space"]:
    """Scale stored samples to [0, 1] and move their channels first.

    Args:
        images: Samples as stored, channels last.
        value_range: (lowest, highest) possible value.

    Returns:
        Samples in [0, 1], channels first.
    """
    low, high = value_range
    return images.movedim(-1, 1).float().sub(low).div_(high - low)


def conv(
    rank: int, n_in: int, n_out: int, size: int = 3, stride: int | tuple[int, ...] = 1
) -> nn.Module:
    """Build a convolution over `rank` axes that keeps the size, or divides it by the stride.

    Args:
        rank: Number of spatial axes, 1 to 3.
        n_in: Input channels.
        n_out: Output channels.
        size: Odd kernel size, values per axis.
        stride: Stride, for all axes or for each.

    Returns:
        The convolution.
    """
    return _CONV[rank - 1](n_in, n_out, size, stride=stride, padding=size // 2)


class FactorisedConv(nn.Module):
    """A (2+1)D convolution: of 1 x 3 x 3 within each frame, then of 3 x 1 x 1 over time.

    It has 12 weights per pair of channels where a full one has 27 (Tran et al. 2018,
    arXiv:1711.11248). An activation between the two, and a second one that starts as the identity,
    were measured worse.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        stride: Stride, for all axes or for each.
        time_first: Whether the one over time comes first.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        stride: int | tuple[int, ...] = 1,
        *,
        time_first: bool = False,
    ) -> None:
        super().__init__()
        along, down, right = (stride,) * 3 if isinstance(stride, int) else stride
        self.time_first = time_first
        self.frames = nn.Conv3d(n_in, n_out, (1, 3, 3), (1, down, right), padding=(0, 1, 1))
        channels = n_in if time_first else n_out
        self.time = nn.Conv3d(channels, channels, (3, 1, 1), (along, 1, 1), padding=(1, 0, 0))

    @property
    def weight(self) -> nn.Parameter:
        """Weights of the convolution within frames."""
        return self.frames.weight  # type: ignore[return-value]

    def forward(self, h: Float[Tensor, "n c t y x"]) -> Float[Tensor, "n d t2 y2 x2"]:
        """Both convolutions, one after the other."""
        return self.frames(self.time(h)) if self.time_first else self.time(self.frames(h))


def per_channel(
    values: Float[Tensor, "n c"], like: Float[Tensor, "n d *space"]
) -> Float[Tensor, "n c *ones"]:
    """Reshape per-channel values so that they broadcast against `like`.

    Args:
        values: One value per row and channel.
        like: A tensor with the spatial axes to broadcast over.

    Returns:
        The values with one axis of length 1 per spatial axis.
    """
    return values.view(*values.shape, *(1 for _ in like.shape[2:]))


class OverlappingWindows(nn.Module):
    """A transposed convolution with windows of twice the stride, initialised to interpolate.

    The weights are initialised to one number per pair of channels times a triangular window.
    Neighbouring windows add up to a constant, so that training does not have to remove a grid
    pattern. Cells beyond the edge repeat those at the edge.

    Args:
        n_in: Channels of the grid.
        n_out: Channels of a sample.
        stride: Values per axis between the centres of windows.
    """

    def __init__(self, n_in: int, n_out: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = tuple(stride)
        sizes = [2 * step if step > 1 else 1 for step in stride]
        # One cell is added at each edge, and the values that it alone produces are cut off.
        self.padding = tuple(
            step + (size - step) // 2 for size, step in zip(sizes, stride, strict=True)
        )
        window = torch.ones(())
        for size, step in zip(sizes, stride, strict=True):
            centre = (size - 1) / 2
            position = torch.arange(size, dtype=torch.float32)
            window = window[..., None] * (1 - (position - centre).abs() / step)
        mixing = torch.empty(n_in, n_out)
        nn.init.uniform_(mixing, -math.sqrt(1 / n_in), math.sqrt(1 / n_in))
        self.weight = nn.Parameter(mixing.view(n_in, n_out, *(1 for _ in stride)) * window)
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, h: Float[Tensor, "n c *grid"]) -> Float[Tensor, "n d *space"]:
        """A sample of `stride` values for each cell."""
        h = F.pad(h, (1, 1) * len(self.stride), mode="replicate")
        transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
        return transposed[len(self.stride) - 1](
            h, self.weight, self.bias, stride=self.stride, padding=self.padding
        )


class ClassFilm(nn.Module):
    """Feature-wise linear modulation (FiLM) by class (Perez et al. 2018, arXiv:1709.07871).

    ``(1 + scale) * h + shift`` with ``scale, shift = shared(embedding[y]) + rows[y]``. The linear
    map is part of the trunk and learned from all classes. Each row belongs to one class and starts
    at zero, so that an unadapted class is modulated by its embedding alone.

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
        y: Int[Tensor, " n"] | None,
        embedded: Float[Tensor, "n e"],
    ) -> Float[Tensor, "n c *space"]:
        """Modulate h by class y, whose embedding is `embedded`; None: a class without a row."""
        modulation = self.shared(embedded)
        if y is not None:
            modulation = modulation + self.rows(y)
        scale, shift = modulation.chunk(2, dim=1)
        return h * (1 + per_channel(scale, h)) + per_channel(shift, h)


class FilmBlock(nn.Module):
    """``h + conv(silu(film(norm(h), y)))`` with one convolution of three values per axis."""

    def __init__(self, geometry: Geometry, channels: int, n_classes: int, embedding: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.film = ClassFilm(channels, n_classes, embedding)
        self.conv = geometry.conv(channels, channels)

    def forward(
        self,
        h: Float[Tensor, "n c *space"],
        y: Int[Tensor, " n"] | None,
        embedded: Float[Tensor, "n e"],
    ) -> Float[Tensor, "n c *space"]:
        """One residual step."""
        return h + self.conv(F.silu(self.film(self.norm(h), y, embedded)))


def group_norm(channels: int) -> nn.GroupNorm:
    """Build a GroupNorm with the largest number of groups up to 8 that divides the channels.

    Args:
        channels: Channels of its input.

    Returns:
        The layer.
    """
    return nn.GroupNorm(math.gcd(channels, 8), channels)


def resize_to(h: Float[Tensor, "n c *space"], grid: Sequence[int]) -> Float[Tensor, "n c *grid"]:
    """Repeat each cell along the axes that were halved; the grid may have an odd size.

    Args:
        h: Features of a coarser grid.
        grid: Cells per axis of the finer grid.

    Returns:
        Features of the finer grid.
    """
    for axis, (size, target) in enumerate(zip(h.shape[2:], grid, strict=True), start=2):
        if size != target:
            h = torch.repeat_interleave(h, 2, dim=axis).narrow(axis, 0, target)
    return h


def interpolated_to(
    h: Float[Tensor, "n c *space"], grid: Sequence[int]
) -> Float[Tensor, "n c *grid"]:
    """Interpolate linearly between cells along the axes that were halved.

    Args:
        h: Features of a coarser grid.
        grid: Cells per axis of the finer grid.

    Returns:
        Features of the finer grid.
    """
    mode = ("linear", "bilinear", "trilinear")[len(grid) - 1]
    return F.interpolate(h, size=tuple(grid), mode=mode, align_corners=False)


def level_widths(geometry: Geometry, width: int, max_width: int) -> list[int]:
    """Return the channels of each level, doubled at each halving up to the bound; see `Geometry`.

    Args:
        geometry: Geometry of the samples.
        width: Channels of the finest level of ordinary samples.
        max_width: Upper bound of the channels.

    Returns:
        Channels per level, finest first.
    """
    if geometry.is_large:
        width = max(1, width // 2)
    return [min(width * 2**level, max_width) for level in range(len(geometry.grids))]


def pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Pair the channels of neighbouring levels.

    Args:
        widths: Channels per level, finest first.

    Returns:
        (finer, coarser) channels.
    """
    return list(pairwise(widths))
