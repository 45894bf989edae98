"""The samples of a class that were accepted so far, and whether a point is near to one of them."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32

if TYPE_CHECKING:
    from scipy.spatial import KDTree


class AcceptedPoints:
    """Points that are added batch by batch and searched within a radius.

    They are held in search trees of doubling sizes (Bentley & Saxe 1980, J. Algorithms 1:301), so
    that n of them cost about n log n, however small the batches.
    """

    def __init__(self) -> None:
        self._trees: list[KDTree] = []

    def __len__(self) -> int:
        return sum(tree.n for tree in self._trees)

    def add(self, points: Float32[np.ndarray, "n p"]) -> None:
        """Add points.

        Args:
            points: Their coordinates.
        """
        from scipy.spatial import KDTree

        if not len(points):
            return
        while self._trees and self._trees[-1].n <= len(points):
            points = np.concatenate([self._trees.pop().data, points])
        self._trees.append(KDTree(points))

    def within(self, points: Float32[np.ndarray, "n p"], radius: float) -> Bool[np.ndarray, " n"]:
        """Tell which points have one of these within the radius.

        Args:
            points: Coordinates.
            radius: Largest distance.

        Returns:
            True where there is one.
        """
        found = np.zeros(len(points), bool)
        for tree in self._trees:
            rest = np.flatnonzero(~found)
            if not len(rest):
                break
            n_near = tree.query_ball_point(points[rest], radius, return_length=True)
            found[rest] = np.asarray(n_near) > 0
        return found
