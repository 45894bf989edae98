"""Nearest images, exactly: an audit must not share the shortcuts of the filter that it audits.

Distances are root mean square differences per value, as a fraction of the value range.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

# Values or distances held at a time.
_BLOCK_VALUES = 2**24
_QUERIES = 2_048
# Shifted copies of larger images are looked for among so many principal components first.
_COMPONENTS = 64
_FITTED_ON = 2_000
# Axes shorter than this are not shifted: too little would be left to compare.
_SHORTEST = 6
# What rounding may add to a distance in float32.
_SLACK = 2e-3


@dataclass(frozen=True)
class Space:
    """How images become points.

    Attributes:
        value_range: (lowest, highest) value.
        device: Where to compute.
        basis: Orthonormal rows to project on, (p, d); None leaves the d values as they are. A
            projection makes no distance longer.
    """

    value_range: tuple[float, float]
    device: torch.device
    basis: Float[Tensor, "p d"] | None = None

    def blocks(
        self, images: Shaped[np.ndarray, "n *space c"], most: int
    ) -> Iterator[tuple[int, Float[Tensor, "b p"]]]:
        """(first row, points) of each block, so that a large set is never held as floats."""
        low, high = self.value_range
        size = int(np.prod(images.shape[1:]))
        step = max(1, min(most, _BLOCK_VALUES // size))
        for begin in range(0, len(images), step):
            block = np.ascontiguousarray(images[begin : begin + step])
            x = torch.from_numpy(block).to(self.device).flatten(1).float()
            # The middle of the range is the origin: small numbers lose few digits.
            x = (x - (low + high) / 2) / ((high - low) * size**0.5)
            yield begin, x if self.basis is None else x @ self.basis.T


def nearest(
    queries: Shaped[np.ndarray, "n *space c"],
    parts: Sequence[Shaped[np.ndarray, "m *space c"]],
    space: Space,
    *,
    own_rows: Int64[np.ndarray, " n"] | None = None,
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Distance of each query to the nearest image of all parts, and its row.

    Args:
        queries: Images.
        parts: Images to look among; rows count on from part to part.
        space: Without a basis: distances are those of the values.
        own_rows: Where queries are images of the parts: their rows, which are passed over.

    Returns:
        (distances; rows). An infinite distance and row 0 where there is nothing to find.
    """
    found, rows = _search(queries, lambda: _blocks_of(parts, space), space, own_rows)
    # The product form loses digits where images are all but equal: the winner is measured again.
    distances = measured(queries, parts, rows, space.value_range)
    distances[np.isinf(found)] = np.inf
    return distances, rows


def _blocks_of(
    parts: Sequence[np.ndarray], space: Space
) -> Iterator[tuple[int, Float[Tensor, "b p"]]]:
    """(first row, points) of all parts, rows counted on from part to part."""
    offset = 0
    for part in parts:
        for begin, x in space.blocks(part, _BLOCK_VALUES // _QUERIES):
            yield offset + begin, x
        offset += len(part)


@torch.no_grad()
def _search(
    queries: np.ndarray,
    blocks: Callable[[], Iterable[tuple[int, Tensor]]],
    space: Space,
    own_rows: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Distance in the space to the nearest point of the blocks, up to rounding, and its row."""
    distances, rows = np.full(len(queries), np.inf), np.zeros(len(queries), np.int64)
    for first, q in space.blocks(queries, _QUERIES):
        best = torch.full((len(q),), torch.inf, dtype=q.dtype, device=q.device)
        where = torch.zeros(len(q), dtype=torch.int64, device=q.device)
        own = None
        if own_rows is not None:
            own = torch.from_numpy(own_rows[first : first + len(q)]).to(q.device)
        for begin, x in blocks():
            # |q - x|**2 less |q|**2, which is the same for all x.
            squares = torch.addmm((x * x).sum(dim=1)[None], q, x.T, alpha=-2)
            if own is not None:
                column = own - begin
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


def measured(
    images: Shaped[np.ndarray, "n *space c"],
    parts: Sequence[Shaped[np.ndarray, "m *space c"]],
    rows: Int64[np.ndarray, " n"],
    value_range: tuple[float, float],
) -> Float64[np.ndarray, " n"]:
    """Distance of each image to the one in its row, by their values."""
    low, high = value_range
    distances = np.empty(len(images))
    step = max(1, _BLOCK_VALUES // int(np.prod(images.shape[1:])))
    begins = np.cumsum([0, *map(len, parts)])
    for begin in range(0, len(images), step):
        block = slice(begin, begin + step)
        others = np.empty(images[block].shape, np.float64)
        for part, start in zip(parts, begins[:-1], strict=True):
            own = (rows[block] >= start) & (rows[block] < start + len(part))
            others[own] = part[rows[block][own] - start]
        gap = (images[block] - others).reshape(len(others), -1)
        distances[block] = np.sqrt((gap**2).mean(axis=1)) / (high - low)
    return distances


# -- Shifted and flipped ---------------------------------------------------------------------------


class CopySearch:
    """Finds images that are a training image, shifted by up to one place along any axis or flipped.

    The inside of an image, without a border of one, is compared with that of a training image, at
    every shift by up to one place: what a shift brings in at the border does not matter. Pictures
    (two axes in space) are also flipped left to right. Larger images are searched in the space of
    principal components, where no distance is longer than that of the values: what is far there is
    no copy, and what is near is measured by its values.

    Args:
        parts: Training images and what else taught the generator.
        value_range: (lowest, highest) value.
        seed: Of the components.
        device: Where to compute.
    """

    def __init__(
        self,
        parts: Sequence[Shaped[np.ndarray, "m *space c"]],
        *,
        value_range: tuple[float, float],
        seed: int,
        device: torch.device,
    ) -> None:
        shape = parts[0].shape[1:]
        self._margins = [1 if side >= _SHORTEST else 0 for side in shape[:-1]]
        self._flips = (False, True) if len(shape) == 3 else (False,)
        self._parts = [self._inside(part, [0] * len(self._margins)) for part in parts]
        self._space = Space(value_range, device)
        self._projected = self._projection(seed)
        # Of few values each, so they are kept for all the views.
        self._points: list[tuple[int, Tensor]] = []
        if self._projected is not None:
            self._points = list(_blocks_of(self._parts, self._projected))

    def nearest(
        self, images: Shaped[np.ndarray, "n *space c"], *, limit: float | None = None
    ) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Distance of each image, as it comes nearest to any training image, and that one's row.

        Args:
            images: Images.
            limit: Every distance up to this one is found; one above it may come out too large.
                None: any may, a little, which does to see how far images lie apart.
        """
        projected = self._projected
        if projected is None:
            return self._exact(images)
        least = np.full(len(images), np.inf)
        distances, rows = np.full(len(images), np.inf), np.zeros(len(images), np.int64)
        for view in self._views(images):
            near, row = _search(view, lambda: self._points, projected)
            better = np.flatnonzero(near < least)
            least[better], rows[better] = near[better], row[better]
            distances[better] = measured(
                view[better], self._parts, row[better], projected.value_range
            )
        if limit is not None:
            unsure = np.flatnonzero((least <= limit + _SLACK) & (distances > limit))
            if len(unsure):
                distances[unsure], rows[unsure] = self._exact(images[unsure])
        return distances, rows

    def _exact(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distances, rows = np.full(len(images), np.inf), np.zeros(len(images), np.int64)
        for view in self._views(images):
            near, row = nearest(view, self._parts, self._space)
            better = near < distances
            distances[better], rows[better] = near[better], row[better]
        return distances, rows

    def _projection(self, seed: int) -> Space | None:
        """The space of principal components; None where images are small enough without."""
        from sklearn.decomposition import PCA

        size = int(np.prod(self._parts[0].shape[1:]))
        if size <= 2 * _COMPONENTS or len(self._parts[0]) <= 2 * _COMPONENTS:
            return None
        most = max(2 * _COMPONENTS, min(_FITTED_ON, _BLOCK_VALUES // size))
        rows = np.random.default_rng([seed, 9]).permutation(len(self._parts[0]))[:most]
        points = [x for _, x in self._space.blocks(self._parts[0][np.sort(rows)], most)]
        fitted = PCA(_COMPONENTS, svd_solver="randomized", random_state=seed % 2**32)
        fitted.fit(torch.cat(points).cpu().numpy())
        basis = torch.from_numpy(fitted.components_).float().to(self._space.device)
        return Space(self._space.value_range, self._space.device, basis)

    def _views(self, images: np.ndarray) -> Iterator[np.ndarray]:
        for flipped in self._flips:
            # A copy: torch takes no negative strides.
            turned = images[:, :, ::-1].copy() if flipped else images
            for shift in itertools.product(*(range(-each, each + 1) for each in self._margins)):
                yield self._inside(turned, shift)

    def _inside(self, images: np.ndarray, shift: Sequence[int]) -> np.ndarray:
        cut = [
            slice(margin + by, side - margin + by)
            for margin, by, side in zip(self._margins, shift, images.shape[1:-1], strict=True)
        ]
        return images[(slice(None), *cut)]
