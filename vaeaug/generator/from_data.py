"""Samplers that work on the training data themselves: `delta` and `calibrated`.

A rare class has too few images to show how its images vary, a frequent one that is like it has
enough. Both samplers borrow that variation. They need the training data (`Synthesizer.attach`).
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from vaeaug.data import LabelledImages
from vaeaug.generator.codec import Codec, in_blocks, in_blocks_of
from vaeaug.generator.latents import Latents
from vaeaug.generator.samplers import Drawn, Request, sample_generators
from vaeaug.strata import rare_classes

FROM_DATA = ("delta", "calibrated")
# Their random numbers are not those that samplers of latents use for the same sample.
STREAM = 1
# The variation of a class is borrowed from so many frequent ones, those that are most like it.
DONORS = 5
# The class counts as its own images, the frequent classes as so many more: in its covariance, and
# in its mean, which a few images know already.
COVARIANCE_WEIGHT, MEAN_WEIGHT = 100.0, 0.0
# Added to the variances of a covariance, as a part of their mean.
RIDGE = 1e-4


@dataclass(frozen=True)
class _Normal:
    """A multivariate normal: mean (f,) and the lower Cholesky factor of its covariance, (f, f)."""

    mean: Float64[np.ndarray, " f"]
    cholesky: Float32[np.ndarray, "f f"]


@dataclass
class DataSampler:
    """Draws samples of a class from its training data and those of frequent classes.

    Attributes:
        codec: The trained model; of feature vectors only their latents are computed by it.
        latents: Posteriors of the training data.
        data: The training data.
    """

    codec: Codec
    latents: Latents
    data: LabelledImages
    _normal: tuple[int, _Normal] | None = field(default=None, repr=False)
    _covariances: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def draw(self, request: Request, *, seed: int, first: int, n: int) -> tuple[Drawn, Tensor]:
        """Draw samples first to first + n - 1.

        Args:
            request: Class, sampler ("delta" or "calibrated"), sources and temperature.
            seed: Seed of the run.
            first: Index of the first sample.
            n: How many.

        Returns:
            (latents and sources, samples as the networks see them: channels first, not clipped).
            Each depends on (seed, class, index) alone.
        """
        if request.sampler == "delta":
            return self._delta(request, seed=seed, first=first, n=n)
        return self._calibrated(request, seed=seed, first=first, n=n)

    # -- Differences of a frequent class --------------------------------------------------------

    def _delta(self, request: Request, *, seed: int, first: int, n: int) -> tuple[Drawn, Tensor]:
        """A real sample and the difference of two samples of one frequent, similar class.

        Of feature vectors the difference is that of the features. Of images it is that of their
        decodes under the class: the decoder leaves out what differs by more than it can describe,
        and the sample keeps the detail of the real image that it starts from.
        """
        donors = self.donors(request.label)
        rows = np.empty((3, n), np.int64)
        streams = sample_generators(seed, request.label, first, n, stream=STREAM)
        for j, rng in enumerate(streams):
            u = rng.random(4)
            rows[0, j] = request.pool[int(u[0] * len(request.pool))]
            rows[1:, j] = self._pair(donors[int(u[1] * len(donors))], u[2], u[3])
        sources, minuend, subtrahend = rows
        scale = np.float32(request.temperature)
        if self.data.are_features:
            start, plus, minus = (self._scaled(index) for index in rows)
            samples = start + float(scale) * (plus - minus)
            latents = self._latents_of(samples, request.label)
        else:
            means, labels = self.latents.means, np.full(n, request.label, np.int64)
            plus, minus = (self.codec.decoded(means[index], labels) for index in rows[1:])
            samples = self._scaled(sources) + float(scale) * (plus - minus)
            latents = means[sources] + scale * (means[minuend] - means[subtrahend])
        return _drawn(latents, sources), samples

    def donors(self, label: int) -> list[int]:
        """Frequent classes that are most like a class, by the distance of their means.

        The distance is that of features, or else of latents. A frequent class is its own first
        donor. Classes need two images, or views of two, to have a difference.

        Args:
            label: The class.

        Returns:
            At most `DONORS` classes, the nearest first.
        """
        counts = np.array([self._n_images(c) for c in range(self.data.n_classes)])
        able = counts >= 2
        frequent = able & ~rare_classes(counts)
        candidates = np.flatnonzero(frequent if frequent.any() else able)
        if not len(candidates):
            return []
        centres = self.centres
        apart = [math.dist(centres[label], centres[int(c)]) for c in candidates]
        return [int(c) for c in candidates[np.argsort(apart, kind="stable")[:DONORS]]]

    @cached_property
    def centres(self) -> Float32[np.ndarray, "c d"]:
        """Mean feature vector of each class, or its mean latent; NaN for a class without images."""
        if not self.data.are_features:
            return self.latents.centres
        flat = self.data.images[:, 0]
        centres = np.full((self.data.n_classes, flat.shape[1]), np.nan, np.float32)
        for label, rows in enumerate(self._rows):
            if len(rows):
                centres[label] = flat[rows].mean(axis=0)
        return centres

    def _pair(self, label: int, first: float, second: float) -> tuple[int, int]:
        """Two rows of different images of a class, by two uniform numbers."""
        rows = self._rows[label]
        i = int(first * len(rows))
        others = 1 + int(second * (len(rows) - 1))
        for step in range(len(rows)):
            j = (i + others + step) % len(rows)
            if self._group(rows[j]) != self._group(rows[i]):
                return int(rows[i]), int(rows[j])
        raise AssertionError("a donor has images of two groups")

    # -- A calibrated normal ---------------------------------------------------------------------

    def _calibrated(
        self, request: Request, *, seed: int, first: int, n: int
    ) -> tuple[Drawn, Tensor]:
        """Draws of the class's calibrated normal; see `calibrated_normal`."""
        normal = self.calibrated_normal(request.label)
        f = len(normal.mean)
        noise = np.empty((n, f), np.float32)
        streams = sample_generators(seed, request.label, first, n, stream=STREAM)
        for j, rng in enumerate(streams):
            noise[j] = rng.standard_normal(f, np.float32)
        factor = torch.from_numpy(normal.cholesky).T
        moved = in_blocks(lambda block: block @ factor, noise, device=torch.device("cpu"))
        features = (normal.mean + request.temperature * moved.numpy()).astype(np.float32)
        low, high = self.data.value_range
        samples = torch.from_numpy((features - np.float32(low)) / np.float32(high - low))[..., None]
        sources = np.full(n, -1, np.int64)
        return _drawn(self._latents_of(samples, request.label), sources), samples

    def calibrated_normal(self, label: int) -> _Normal:
        """The normal of a class, whose covariance is mixed with those of its donors.

        With n images of the class and a weight w of the donors (`COVARIANCE_WEIGHT`) the covariance
        is (n S + w S_donors) / (n + w), after distribution calibration (Yang et al. 2021,
        arXiv:2101.06395) and TailCalib (Vigneswaran et al. 2021, arXiv:2111.10656).

        Args:
            label: The class.

        Returns:
            The normal, in units of the features.
        """
        if self._normal is not None and self._normal[0] == label:
            return self._normal[1]
        donors = [c for c in self.donors(label) if c != label]
        n, own_mean = self._n_images(label), self.centres[label].astype(np.float64)
        mean, covariance = own_mean, self._covariance(label)
        if donors:
            borrowed = np.stack([self._covariance(c) for c in donors]).mean(axis=0)
            covariance = (n * covariance + COVARIANCE_WEIGHT * borrowed) / (n + COVARIANCE_WEIGHT)
            others = self.centres[donors].mean(axis=0)
            mean = (n * own_mean + MEAN_WEIGHT * others) / (n + MEAN_WEIGHT)
        variance = float(np.trace(covariance)) / len(covariance)
        ridge = max(RIDGE * variance, float(np.finfo(np.float32).tiny))
        cholesky = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
        normal = _Normal(mean, cholesky.astype(np.float32))
        self._normal = (label, normal)  # classes are drawn one after another
        return normal

    def _covariance(self, label: int) -> Float64[np.ndarray, "f f"]:
        """Covariance of a class's features; zeros for a class of one image."""
        if label not in self._covariances:
            features = self.data.images[self._rows[label], 0].astype(np.float64)
            deviations = features - features.mean(axis=0)
            covariance = deviations.T @ deviations / max(1, len(features) - 1)
            if self._n_images(label) < 2:
                return covariance
            self._covariances[label] = covariance
        return self._covariances[label]

    # -- The data --------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> list[Int64[np.ndarray, " k"]]:
        labels = self.data.labels
        return [np.flatnonzero(labels == label) for label in range(self.data.n_classes)]

    def _n_images(self, label: int) -> int:
        """Images of a class; views of one count once."""
        rows = self._rows[label]
        return len(rows) if self.data.groups is None else len(np.unique(self.data.groups[rows]))

    def _group(self, row: int) -> int:
        return row if self.data.groups is None else int(self.data.groups[row])

    def _scaled(self, rows: Int64[np.ndarray, " n"]) -> Tensor:
        return self.codec.scaled(self.data.images_at(rows)).cpu()

    def _latents_of(self, samples: Tensor, label: int) -> Float32[np.ndarray, "n z"]:
        """Posterior means of samples, in blocks of a fixed shape."""

        def mean(x: Tensor, y: Tensor) -> Tensor:
            return self.codec.model.posterior(x, y)[0]

        labels = np.full(len(samples), label, np.int64)
        inside = samples.clamp(0, 1).numpy()
        return in_blocks_of(self.codec.model, mean, inside, labels).numpy()


def _drawn(latents: Float32[np.ndarray, "n z"], sources: Int64[np.ndarray, " n"]) -> Drawn:
    n = len(sources)
    return Drawn(latents, sources, np.full(n, -1, np.int64), np.zeros(n, np.float32))
