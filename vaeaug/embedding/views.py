"""Views of an image under classic augmentation: each a function of (seed, image, view)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Views:
    """How views are made. The first view of an image is the image itself.

    Attributes:
        n: Views of each image.
        rotation: Largest rotation, degrees.
        zoom: Largest change of size, as a fraction of it.
        shift: Largest shift, as a fraction of the side.
        flip: Whether half of the views are mirrored left to right.
    """

    n: int = 1
    rotation: float = 10.0
    zoom: float = 0.1
    shift: float = 0.08
    flip: bool = False

    def of(
        self,
        x: Float[Tensor, "n c h w"],
        rows: Int64[np.ndarray, " n"],
        views: Int64[np.ndarray, " n"],
        *,
        seed: int,
    ) -> Float[Tensor, "n c h w"]:
        """Make views of images.

        Args:
            x: The images.
            rows: Their numbers in the data.
            views: Which view of each; 0 is the image itself.
            seed: Seed of the run.

        Returns:
            The views; what leaves the image is filled with its border.
        """
        changed = np.flatnonzero(views)
        if not len(changed):
            return x
        draws = np.stack([self._draws(seed, int(rows[i]), int(views[i])) for i in changed])
        theta = torch.from_numpy(self._maps(draws)).to(x)
        moved = x[changed]
        grid = F.affine_grid(theta, list(moved.shape), align_corners=False)
        x = x.clone()
        x[changed] = F.grid_sample(moved, grid, padding_mode="border", align_corners=False)
        return x

    @staticmethod
    def _draws(seed: int, row: int, view: int) -> Float[np.ndarray, " 5"]:
        philox = np.random.Philox(key=[seed, view], counter=[0, 0, row, 0])
        return np.random.Generator(philox).uniform(-1, 1, 5)

    def _maps(self, draws: Float[np.ndarray, "n 5"]) -> Float[np.ndarray, "n 2 3"]:
        """Affine maps from places of the view to those of the image, both from -1 to 1."""
        turn = np.deg2rad(self.rotation * draws[:, 0])
        scale = 1 + self.zoom * draws[:, 1]
        mirror = np.where(self.flip & (draws[:, 4] < 0), -1.0, 1.0)
        cos, sin = scale * np.cos(turn), scale * np.sin(turn)
        x, y = 2 * self.shift * draws[:, 2], 2 * self.shift * draws[:, 3]
        rows = [np.stack([mirror * cos, -sin, x], axis=1), np.stack([mirror * sin, cos, y], axis=1)]
        return np.stack(rows, axis=1)
