"""Nearest images, exactly: an audit must not share the approximations of the filter that it audits.

Distances are root mean square differences per value, as a fraction of the value range.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

# Values or distances held at a time.
BLOCK_VALUES = 2**24
_QUERIES = 2_048

# (first row, points) of a block.
Block = tuple[int, Float[Tensor, "b p"]]


@dataclass(frozen=True)
class Space:
    """A mapping from images to points.

    Attributes:
        value_range: (lowest, highest) value.
        device: Where to compute.
        basis: Orthonormal rows to project on, (p, d); None leaves the d values as they are. A
            projection makes no distance longer.
    """

    value_range: tuple[float, float]
    device: torch.device
    basis: Float[Tensor, "p d"] | None = None

    def blocks(self, images: Shaped[np.ndarray, "n *space c"], most: int) -> Iterator[Block]:
        """Turn images into points block by block, so that a large set is never held as floats.

        Args:
            images: Images.
            most: Images of a block, at most.

        Yields:
            (first row, points) of each block.
        """
        low, high = self.value_range
        size = int(np.prod(images.shape[1:]))
        step = max(1, min(most, BLOCK_VALUES // size))
        for begin in range(0, len(images), step):
            block = np.ascontiguousarray(images[begin : begin + step])
            x = torch.from_numpy(block).to(self.device).flatten(1).float()
            # The middle of the range is the origin: small numbers lose few digits.
            x = (x - (low + high) / 2) / ((high - low) * size**0.5)
            yield begin, x if self.basis is None else x @ self.basis.T


def nearest(
    queries: Shaped[np.ndarray, "n *space c"],
    parts: Sequence[Shaped[np.ndarray, "_ *space c"]],
    space: Space,
    *,
    query_rows: Int64[np.ndarray, " n"] | None = None,
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Find the nearest image of all parts to each query.

    Args:
        queries: Images.
        parts: Images to look among; rows count on from part to part.
        space: Without a basis: distances are those of the values.
        query_rows: Where queries are images of the parts: their rows, which are passed over.

    Returns:
        (distance to the nearest image; its row). Where there is none, infinity and row 0.
    """
    rough, rows = search(queries, lambda: blocks_of(parts, space), space, query_rows=query_rows)
    # The product form loses digits where images are all but equal: the winner is measured again.
    distances = measured_distances(queries, parts, rows, space.value_range)
    distances[np.isinf(rough)] = np.inf
    return distances, rows


def blocks_of(parts: Sequence[Shaped[np.ndarray, "_ *space c"]], space: Space) -> Iterator[Block]:
    """Turn parts into points block by block.

    Args:
        parts: Images; rows count on from part to part.
        space: How they become points.

    Yields:
        (first row, points) of each block.
    """
    offset = 0
    for part in parts:
        for begin, x in space.blocks(part, BLOCK_VALUES // _QUERIES):
            yield offset + begin, x
        offset += len(part)


@torch.no_grad()
def search(
    queries: Shaped[np.ndarray, "n *space c"],
    blocks: Callable[[], Iterable[Block]],
    space: Space,
    *,
    query_rows: Int64[np.ndarray, " n"] | None = None,
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Find the nearest point of the blocks to each query, in the space, up to rounding.

    Args:
        queries: Images.
        blocks: Gives the blocks anew for every block of queries.
        space: How queries become points.
        query_rows: Where queries are points of the blocks: their rows, which are passed over.

    Returns:
        (distance to the nearest point; its row). Where there is none, infinity and row 0.
    """
    distances, rows = np.full(len(queries), np.inf), np.zeros(len(queries), np.int64)
    for first, q in space.blocks(queries, _QUERIES):
        best = torch.full((len(q),), torch.inf, dtype=q.dtype, device=q.device)
        where = torch.zeros(len(q), dtype=torch.int64, device=q.device)
        passed_over = None
        if query_rows is not None:
            passed_over = torch.from_numpy(query_rows[first : first + len(q)]).to(q.device)
        for begin, x in blocks():
            # |q - x|**2 less |q|**2, which is the same for all x.
            squares = torch.addmm((x * x).sum(dim=1)[None], q, x.T, alpha=-2)
            if passed_over is not None:
                column = passed_over - begin
                inside = torch.nonzero((column >= 0) & (column < len(x)))[:, 0]
                squares[inside, column[inside]] = torch.inf
            least, column = squares.min(dim=1)
            nearer = least < best
            best = torch.where(nearer, least, best)
            where = torch.where(nearer, column + begin, where)
        best = (best + (q * q).sum(dim=1)).clamp(min=0).sqrt()
        distances[first : first + len(q)] = best.cpu().numpy()
        rows[first : first + len(q)] = where.cpu().numpy()
    return distances, rows


def measured_distances(
    images: Shaped[np.ndarray, "n *space c"],
    parts: Sequence[Shaped[np.ndarray, "_ *space c"]],
    rows: Int64[np.ndarray, " n"],
    value_range: tuple[float, float],
) -> Float64[np.ndarray, " n"]:
    """Measure the distance of each image to a given image of the parts.

    Args:
        images: Images.
        parts: Images to compare with; rows count on from part to part.
        rows: Row of the image that each one is compared with.
        value_range: (lowest, highest) value.

    Returns:
        The distances.
    """
    low, high = value_range
    distances = np.empty(len(images))
    step = max(1, BLOCK_VALUES // int(np.prod(images.shape[1:])))
    begins = np.cumsum([0, *map(len, parts)])
    for begin in range(0, len(images), step):
        block = slice(begin, begin + step)
        others = np.empty(images[block].shape, np.float64)
        for part, start in zip(parts, begins[:-1], strict=True):
            in_part = (rows[block] >= start) & (rows[block] < start + len(part))
            others[in_part] = part[rows[block][in_part] - start]
        gap = (images[block] - others).reshape(len(others), -1)
        distances[block] = np.sqrt((gap**2).mean(axis=1)) / (high - low)
    return distances
