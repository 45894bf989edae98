"""The points nearest to others, by matrix products in blocks."""

import math

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

# Points that are compared at once, and distances that are held at once.
QUERIES, DISTANCES = 256, 2**22
# On a processor more points than this are divided into cells.
MOST = 2**15
# Cells for n points, as a multiple of the square root of n; how many of them are looked into.
CELLS, LOOKED_INTO = 4, 16
# Points looked up together among cells: a cell is then looked into for several of them.
TOGETHER = 2048
# Added to what is compared with `reach`: squared lengths are of about 1 at most.
ROUNDING = 1e-5
# Points per cell that the centres are fitted on.
FITTED = 64


class NearestPoints:
    """Points of which the nearest ones to others are looked for.

    Among many points on a processor only those in the nearest cells are looked at (an inverted
    file: Sivic & Zisserman 2003; Jegou et al. 2011): n searches among n points then take about
    n**1.5 steps, not n**2. Whatever lies within `reach` is found all the same.

    Args:
        points: Coordinates, of about zero mean: squares of large numbers leave no digits for
            small distances.
        device: Where they are compared.
        seed: Of the cells.
    """

    def __init__(
        self,
        points: Float32[np.ndarray, "n p"],
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.reach = -math.inf
        self._points = torch.from_numpy(points).to(device)
        self._squares = self._points.square().sum(dim=1)
        self._has_cells = len(points) > MOST and torch.device(device).type == "cpu"
        if self._has_cells:
            self._make_cells(points, seed)

    def query(self, points: Float32[np.ndarray, "m p"], k: int) -> Int64[np.ndarray, "m k"]:
        """Find the nearest points.

        Args:
            points: Coordinates.
            k: How many, at most as many as there are.

        Returns:
            Rows of the nearest points, the nearest first. Where there are cells, a point farther
            away than `reach` may be missed, and another one that is little farther stands for it.
        """
        in_cells = self._has_cells and k <= self._smallest
        step = TOGETHER if in_cells else QUERIES
        step = max(1, min(step, DISTANCES // (self._n_cells if in_cells else len(self._points))))
        # Not block by block in a list: small pieces between large ones keep freed memory in use.
        rows = np.empty((len(points), k), np.int64)
        for begin in range(0, len(points), step):
            block = torch.from_numpy(points[begin : begin + step]).to(self._points.device)
            if in_cells:
                found = self._in_cells(block, k)
            else:
                places = _nearest(block, self._points, self._squares, k)[1].cpu().numpy()
                found = self._order[places] if self._has_cells else places
            rows[begin : begin + len(block)] = found
        return rows

    def _make_cells(self, points: Float32[np.ndarray, "n p"], seed: int) -> None:
        """Divide the points by the nearest of some centres; points of a cell lie together."""
        from sklearn.cluster import MiniBatchKMeans

        n_cells = round(CELLS * math.sqrt(len(points)))
        rng = np.random.default_rng(seed)
        fitted = rng.permutation(len(points))[: FITTED * n_cells]
        means = MiniBatchKMeans(
            n_cells,
            init="random",
            n_init=1,
            batch_size=4096,
            max_iter=10,
            random_state=seed % 2**32,
        ).fit(points[np.sort(fitted)])
        centres = torch.from_numpy(means.cluster_centers_.astype(np.float32))
        squares = centres.square().sum(dim=1)
        cells, apart = np.empty(len(points), np.int64), np.empty(len(points), np.float32)
        step = max(1, DISTANCES // n_cells)
        for begin in range(0, len(points), step):
            part = self._points[begin : begin + step]
            least, nearest = _nearest(part, centres, squares, 1)
            squared = least[:, 0] + part.square().sum(dim=1)
            cells[begin : begin + len(part)] = nearest[:, 0].numpy()
            apart[begin : begin + len(part)] = squared.clamp(min=0).sqrt().numpy()
        sizes = np.bincount(cells, minlength=n_cells)
        radii = np.zeros(n_cells, np.float32)
        np.maximum.at(radii, cells, apart)
        kept = sizes > 0
        self._order = np.argsort(cells, kind="stable")
        self._ends = np.cumsum(sizes[kept])
        self._centres, self._centre_squares = centres[kept], squares[kept]
        self._radii = torch.from_numpy(radii[kept])
        self._n_cells = len(self._ends)
        self._apart = torch.cdist(self._centres, self._centres)
        self._points = self._points[self._order]
        self._squares = self._squares[self._order]
        # So many are found whatever cells are looked into.
        self._smallest = int(np.sort(sizes[kept])[:LOOKED_INTO].sum())

    def _in_cells(self, block: Tensor, k: int) -> Int64[np.ndarray, "b k"]:
        squared = torch.addmm(self._centre_squares, block, self._centres.T, alpha=-2)
        squared += block.square().sum(dim=1, keepdim=True)
        squared.clamp_(min=0)
        n_nearest = min(LOOKED_INTO, self._n_cells)
        nearest = torch.topk(squared, n_nearest, dim=1, largest=False).indices
        looked_into = torch.zeros(squared.shape, dtype=torch.bool)
        if self.reach >= 0:
            # What lies in a cell is on the far side of the plane between its centre and that of
            # the point's own cell, and within the cell's radius.
            own = nearest[:, :1]
            to_plane = squared - squared.gather(1, own)
            looked_into = to_plane <= 2 * self.reach * self._apart[own[:, 0]] + ROUNDING
            looked_into &= squared.sqrt() - self._radii <= self.reach + ROUNDING
        looked_into.scatter_(1, nearest, True)
        cells, queries = torch.nonzero(looked_into.T, as_tuple=True)
        found_by, distances, places = [], [], []
        starts = np.searchsorted(cells.numpy(), np.arange(self._n_cells + 1))
        for cell in np.flatnonzero(np.diff(starts)).tolist():
            rows = queries[starts[cell] : starts[cell + 1]]
            first = int(self._ends[cell - 1]) if cell else 0
            members = slice(first, int(self._ends[cell]))
            few = min(k, members.stop - first)
            least, place = _nearest(block[rows], self._points[members], self._squares[members], few)
            found_by.append(rows.repeat_interleave(few))
            distances.append(least.flatten())
            places.append(place.flatten() + first)
        query, distance = torch.cat(found_by).numpy(), torch.cat(distances).numpy()
        order = np.lexsort((distance, query))
        begins = np.searchsorted(query[order], np.arange(len(block)))
        best = order[begins[:, None] + np.arange(k)]
        return self._order[torch.cat(places).numpy()[best]]


def _nearest(block: Tensor, points: Tensor, squares: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Squared distances, but for the squares of the block's points, and places of the k nearest."""
    distances = torch.addmm(squares, block, points.T, alpha=-2)
    if k == 1:
        least, place = distances.min(dim=1, keepdim=True)
        return least, place
    found = torch.topk(distances, k, dim=1, largest=False)
    return found.values, found.indices
