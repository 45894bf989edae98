"""The space in which screening looks for the nearest training image, and what is near in it."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped

from vaeaug.data import LabelledImages
from vaeaug.mapping import release
from vaeaug.models import scale_images
from vaeaug.screening.nearest_points import NearestPoints
from vaeaug.spectrogram import Spectrogram

# Principal components of the space.
COMPONENTS = 64
# Candidates from that space whose distance is then computed in pixels.
SHORTLIST = 4
# Real images whose distances to one another calibrate the near-copy distance of a class.
CALIBRATION_IMAGES = 2_000
# A class with fewer images is calibrated on the pooled distances of all.
MIN_CALIBRATION = 20
# Values held as floats at a time, where images are projected, compared or classified in blocks.
BLOCK_VALUES = 2**24
# Values that the principal components are fitted on, at most; of large samples fewer do.
PCA_VALUES, LARGE_PCA_VALUES = 2**28, 2**26
LARGE_SAMPLE = 2**16


class SampleSpace:
    """Principal components of the training images and the pool, for fast nearest neighbours.

    Lengths in it never exceed lengths in pixels, so a copy is always near; the shortlist it gives
    is then measured in pixels. Coordinates are divided so that a distance is a root mean square
    difference per value, as a fraction of the value range. With a front end the values are those of
    the spectrograms.

    Args:
        data: The training split, with its pool if it has one.
        seed: Seed of the components.
        device: Where neighbours are looked for.
    """

    def __init__(
        self, data: LabelledImages, seed: int, *, device: torch.device | str = "cpu"
    ) -> None:
        from sklearn.decomposition import PCA

        self.data = data
        self.labels = data.labels
        self.n_classes = data.n_classes
        low, high = data.value_range
        self.low, self.range = low, high - low
        self._spectrogram = data.spectrogram
        rng = np.random.default_rng(seed)
        pool = data.images[:0] if data.unlabelled is None else data.unlabelled
        n_values = self._flat(data.images[:1]).size
        fitted_values = PCA_VALUES if n_values <= LARGE_SAMPLE else LARGE_PCA_VALUES
        most = max(COMPONENTS, min(5_000, fitted_values // n_values))
        rows = rng.permutation(len(data) + len(pool))[:most]
        sample = self._flat(data.images_at(np.sort(rows)))
        components = min(COMPONENTS, *sample.shape)
        pca = PCA(components, svd_solver="randomized", random_state=seed % 2**32, copy=False)
        self._pca = pca.fit(sample)  # which it overwrites
        del sample
        # The rows of the pool follow those of the labelled images, as in `images_at`.
        parts = [self.project(each) for each in (data.images, pool) if len(each)]
        self.projected = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._search = NearestPoints(self.projected, device=device, seed=seed)

    def project(self, images: Shaped[np.ndarray, "n *space c"]) -> Float32[np.ndarray, "n p"]:
        """Compute coordinates, block by block, so that a large set is never held as floats.

        Args:
            images: Images like those of the training split.

        Returns:
            Coordinates in the space.
        """
        coordinates = np.empty((len(images), self._pca.n_components_), np.float32)
        for rows in image_blocks(images, 4096):
            coordinates[rows] = self._pca.transform(self._flat(images[rows]))
        return coordinates

    def nearest(
        self,
        images: Shaped[np.ndarray, "n *space c"],
        projected: Float32[np.ndarray, "n p"],
        *,
        other: bool = False,
        groups: Int64[np.ndarray, " n"] | None = None,
    ) -> tuple[Float32[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Find the nearest training image, labelled or not.

        Args:
            images: Images.
            projected: Their coordinates.
            other: The images are training images themselves: find each one's nearest other image.
                Exact twins count as the same: they say nothing of how near two images come.
            groups: With `other`, the groups of the images, whose own views are left out too.

        Returns:
            (distance in pixels to that image; its row). Infinity where there is no other.
        """
        n_own = int(other) if groups is None or not other else self._most_views
        k = min(SHORTLIST + n_own, len(self.projected))
        shortlist = self._search.query(projected, k)
        distances = np.empty(shortlist.shape, np.float32)
        for block in image_blocks(images, len(images)):
            flat = self._flat(images[block])
            for column in range(shortlist.shape[1]):
                candidates = self._flat(self.data.images_at(shortlist[block, column]))
                distances[block, column] = np.linalg.norm(flat - candidates, axis=1)
        if other:
            distances[distances == 0] = np.inf
        if other and groups is not None:
            distances[self._groups[shortlist] == groups[:, None]] = np.inf
        best = distances.argmin(axis=1)
        rows = np.arange(len(images))
        return distances[rows, best], shortlist[rows, best].astype(np.int64)

    def calibrate(self, *quantiles: float) -> list[Float32[np.ndarray, " k"]]:
        """Measure how near real images come to one another.

        Args:
            quantiles: Quantiles, 0 to 1.

        Returns:
            For each quantile, by class, that of the real images' distances to their nearest other
            real image.
        """
        rng = np.random.default_rng(len(self.labels))
        rows = np.concatenate(
            [
                np.sort(rng.permutation(np.flatnonzero(self.labels == label))[:CALIBRATION_IMAGES])
                for label in range(self.n_classes)
            ]
        )
        groups = None if self.data.groups is None else self.data.groups[rows]
        distances, _ = self.nearest(
            self.data.images_at(rows), self.projected[rows], other=True, groups=groups
        )
        has_other = np.isfinite(distances)
        limits = []
        for quantile in quantiles:
            pooled = float(np.quantile(distances[has_other], quantile)) if has_other.any() else 0.0
            by_class = np.full(self.n_classes, pooled, np.float32)
            for label in range(self.n_classes):
                of_class = distances[has_other & (self.labels[rows] == label)]
                if len(of_class) >= MIN_CALIBRATION:
                    by_class[label] = np.quantile(of_class, quantile)
            limits.append(by_class)
        return limits

    def reach(self, distance: float) -> None:
        """Have every training image found that lies no farther away, however many there are.

        Args:
            distance: In units of the value range.
        """
        self._search.reach = distance

    @cached_property
    def _groups(self) -> Int64[np.ndarray, " n"]:
        """Group of each labelled image and of each image of the pool, which is by itself."""
        own = self.data.groups
        own = np.arange(len(self.labels)) if own is None else own
        pool = np.arange(len(self.projected) - len(own))
        return np.concatenate([own, own.max() + 1 + pool])

    @cached_property
    def _most_views(self) -> int:
        """Images of the largest group."""
        return int(np.unique(self._groups, return_counts=True)[1].max())

    def _flat(self, images: np.ndarray) -> Float32[np.ndarray, "n d"]:
        if self._spectrogram is not None:
            return self._flat_spectrograms(images, self._spectrogram)
        flat = images.reshape(len(images), -1).astype(np.float32)
        flat -= np.float32(self.low)
        flat /= np.float32(self.range * np.sqrt(flat.shape[1], dtype=np.float32))
        return flat

    def _flat_spectrograms(
        self, sounds: Shaped[np.ndarray, "n l c"], spectrogram: Spectrogram
    ) -> Float32[np.ndarray, "n d"]:
        """Log magnitudes: sounds that differ in phase alone are as near as they sound."""
        x = scale_images(torch.from_numpy(sounds.copy()), (self.low, self.low + self.range))
        flat = spectrogram.log_magnitude(2 * x - 1).flatten(1).numpy()
        return flat / np.sqrt(flat.shape[1], dtype=np.float32)


def image_blocks(
    images: Shaped[np.ndarray, "n *space c"], most: int, *, n: int | None = None
) -> Iterator[slice]:
    """Divide images into blocks that may be held as floats.

    Args:
        images: Images.
        most: Images of a block, at most.
        n: How many there are; None: all of these.

    Yields:
        Rows of each block.
    """
    step = max(1, min(most, BLOCK_VALUES // max(1, images[:1].size)))
    for begin in range(0, len(images) if n is None else n, step):
        yield slice(begin, begin + step)
        release(images)
