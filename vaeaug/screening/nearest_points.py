"""The points nearest to others, by matrix products in blocks."""

import numpy as np
import torch
from jaxtyping import Float32, Int64

# Points that are compared at once, and distances that are held at once.
QUERIES, DISTANCES = 256, 2**22


class NearestPoints:
    """Points of which the nearest ones to others are looked for.

    Args:
        points: Coordinates, of about zero mean: squares of large numbers leave no digits for
            small distances.
        device: Where they are compared.
    """

    def __init__(
        self, points: Float32[np.ndarray, "n p"], *, device: torch.device | str = "cpu"
    ) -> None:
        self._points = torch.from_numpy(points).to(device)
        self._squares = self._points.square().sum(dim=1)

    @torch.no_grad()
    def query(self, points: Float32[np.ndarray, "m p"], k: int) -> Int64[np.ndarray, "m k"]:
        """Find the nearest points.

        Args:
            points: Coordinates.
            k: How many, at most as many as there are.

        Returns:
            Rows of the nearest points, the nearest first.
        """
        step = max(1, min(QUERIES, DISTANCES // len(self._points)))
        rows = [np.empty((0, k), np.int64)]
        for begin in range(0, len(points), step):
            block = torch.from_numpy(points[begin : begin + step]).to(self._points.device)
            # Squared distances but for the square of the block's points, which changes no order.
            distances = torch.addmm(self._squares, block, self._points.T, alpha=-2)
            rows.append(torch.topk(distances, k, dim=1, largest=False).indices.cpu().numpy())
        return np.concatenate(rows)
