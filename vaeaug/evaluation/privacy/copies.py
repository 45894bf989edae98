"""Near-copies: images that are a training image but for noise, a shift by one place, or a flip."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped

from vaeaug.evaluation.matching import random_order
from vaeaug.evaluation.privacy.audit import Audit
from vaeaug.evaluation.privacy.nearest import (
    BLOCK_VALUES,
    Block,
    Space,
    blocks_of,
    measured_distances,
    nearest,
    search,
)

# An image within this distance of a training image (root mean square per value, as a fraction of
# the value range) is a copy of it: noise of 1 % of the range cannot hide one.
COPY_DISTANCE = 0.02
# So is an image within this fraction of the distance to which the nearest 1 % of held-out images
# come.
NEAR_FACTOR, NEAR_QUANTILE = 0.5, 0.01
# Synthetic images that are searched for copies.
MOST_SEARCHED = 20_000
# Principal components in which shifted copies of larger images are searched first.
_COMPONENTS = 64
_FITTED_ON = 2_000
# Axes shorter than this are not shifted: too little would be left to compare.
_SHORTEST = 6
# What rounding may add to a distance in float32.
_SLACK = 2e-3


@dataclass(frozen=True)
class NearCopies:
    """Near-copies among the synthetic images that were searched, and among held-out ones.

    Attributes:
        rows: Rows of the near-copies among the synthetic images.
        sources: The training image of each, row N + i for image i of the pool.
        distances: Their distances to it.
        searched: Synthetic images that were searched.
        limit: Distance up to which an image is a near-copy.
        held_out: Held-out images that would count as near-copies.
        held_out_searched: Held-out images that were searched.
        held_out_least: Least distance of a held-out image.
    """

    rows: Int64[np.ndarray, " c"]
    sources: Int64[np.ndarray, " c"]
    distances: Float64[np.ndarray, " c"]
    searched: int
    limit: float
    held_out: int
    held_out_searched: int
    held_out_least: float


def find_copies(audit: Audit, images: Shaped[np.ndarray, "m *space c"]) -> NearCopies:
    """Search synthetic images for near-copies, by a distance that held-out images set.

    Args:
        audit: The audit; notes are added to it.
        images: The synthetic images.

    Returns:
        The near-copies.
    """
    copy_search = CopySearch(
        audit.parts, value_range=audit.train.value_range, seed=audit.seed, device=audit.device
    )
    of_held_out, _ = copy_search.nearest(audit.held_out.images)
    limit = max(COPY_DISTANCE, NEAR_FACTOR * float(np.quantile(of_held_out, NEAR_QUANTILE)))
    rows = np.arange(len(images))
    if len(images) > MOST_SEARCHED:
        rows = np.sort(random_order(images, seed=audit.seed)[:MOST_SEARCHED])
        audit.notes.append(
            f"Copies were looked for among {MOST_SEARCHED:,} of {len(images):,} synthetic "
            "images, taken at random."
        )
    distances, sources = copy_search.nearest(images[rows], limit=limit)
    near = distances <= limit
    n_held_out = int((of_held_out <= limit).sum())
    audit.notes.append(
        f"A near-copy differs from a training image by at most {limit:.3f} of the value range "
        f"(root mean square); {n_held_out} of {len(of_held_out)} held-out images come as near."
    )
    return NearCopies(
        rows=rows[near],
        sources=sources[near],
        distances=distances[near],
        searched=len(rows),
        limit=limit,
        held_out=n_held_out,
        held_out_searched=len(of_held_out),
        held_out_least=float(of_held_out.min()),
    )


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
        seed: Seed of the components.
        device: Where to compute.
    """

    def __init__(
        self,
        parts: Sequence[Shaped[np.ndarray, "_ *space c"]],
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
        # The points have few values, so they are kept for all views.
        self._points: list[Block] = []
        if self._projected is not None:
            self._points = list(blocks_of(self._parts, self._projected))

    def nearest(
        self, images: Shaped[np.ndarray, "n *space c"], *, limit: float | None = None
    ) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Find the training image that each image comes nearest to in any view.

        Args:
            images: Images.
            limit: Every distance up to this one is exact; one above it may come out too large.
                None: any may, a little, which does to see how far images lie apart.

        Returns:
            (distance to the training image; its row).
        """
        projected = self._projected
        if projected is None:
            return self._exact(images)
        least = np.full(len(images), np.inf)
        distances, rows = np.full(len(images), np.inf), np.zeros(len(images), np.int64)
        for view in self._views(images):
            near, row = search(view, lambda: self._points, projected)
            better = np.flatnonzero(near < least)
            least[better], rows[better] = near[better], row[better]
            distances[better] = measured_distances(
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
        most = max(2 * _COMPONENTS, min(_FITTED_ON, BLOCK_VALUES // size))
        rows = np.random.default_rng([seed, 9]).permutation(len(self._parts[0]))[:most]
        points = [x for _, x in self._space.blocks(self._parts[0][np.sort(rows)], most)]
        pca = PCA(_COMPONENTS, svd_solver="randomized", random_state=seed % 2**32)
        pca.fit(torch.cat(points).cpu().numpy())
        basis = torch.from_numpy(pca.components_).float().to(self._space.device)
        return Space(self._space.value_range, self._space.device, basis)

    def _views(self, images: np.ndarray) -> Iterator[np.ndarray]:
        for flipped in self._flips:
            # A copy: torch takes no negative strides.
            view = images[:, :, ::-1].copy() if flipped else images
            for shift in itertools.product(*(range(-side, side + 1) for side in self._margins)):
                yield self._inside(view, shift)

    def _inside(self, images: np.ndarray, shift: Sequence[int]) -> np.ndarray:
        inside = [
            slice(margin + by, side - margin + by)
            for margin, by, side in zip(self._margins, shift, images.shape[1:-1], strict=True)
        ]
        return images[(slice(None), *inside)]
