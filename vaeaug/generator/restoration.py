"""Denoising and inpainting: a posterior mean, blended with the input."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor

from vaeaug.generator.codec import BLOCK, Codec, SamplingError
from vaeaug.memory import blocks
from vaeaug.models import (
    CVAE,
    MAX_NOISE,
    MIN_NOISE,
    Restorer,
    exact_float32,
    poisson_level,
)
from vaeaug.shapes import are_features

# Median absolute value of a standard normal number.
_MEDIAN = 0.6745
# Rounds of filling in missing values from the reconstruction.
_ROUNDS = 8
# The model's error on images that it has not seen, as a multiple of that in training; at most.
_CAUTION = 1.5
# Step of the numerical divergence, as a fraction of the value range.
_STEP = 0.01


@dataclass(frozen=True)
class Noise:
    """What is known of the noise of images.

    Attributes:
        level: Standard deviation of each image's Gaussian noise, as a fraction of the value range,
            (n,); None where it is to be estimated.
        peak: Mean count of the highest value, for counting noise; None for Gaussian noise.
        missing: True for values that are missing, of the shape of the images; None: none is.
    """

    level: Float32[np.ndarray, " n"] | None
    peak: float | None
    missing: Bool[np.ndarray, "n *space c"] | None

    @classmethod
    def of(
        cls,
        images: Shaped[np.ndarray, "n *space c"],
        level: float | Sequence[float] | np.ndarray | None,
        peak: float | None,
        missing: np.ndarray | None,
    ) -> "Noise":
        """Check what a user says of the noise.

        Args:
            images: The noisy images.
            level: One level, or one for each image.
            peak: Mean count of the highest value.
            missing: The missing values, of the shape of the images or without channels.

        Returns:
            The same with whole shapes.

        Raises:
            SamplingError: If a level or the peak is out of range, or a shape is another.
        """
        n = len(images)
        if level is not None and peak is not None:
            raise SamplingError("denoise: expected a noise level or a Poisson peak, got both")
        if peak is not None and not 0 < peak < math.inf:
            raise SamplingError(f"denoise: expected a Poisson peak above 0, got {peak}")
        if level is not None:
            given = np.asarray(level, np.float32)
            if given.shape not in ((), (n,)):
                raise SamplingError(
                    f"denoise: expected one noise level or {n}, got shape {given.shape}"
                )
            level = np.broadcast_to(given, (n,)).copy()
            if not ((level >= 0) & (level <= 10)).all():
                raise SamplingError(
                    "denoise: expected noise levels from 0 to 10 times the value range, got "
                    f"{given.min():g} to {given.max():g}"
                )
        if missing is not None:
            mask = np.asarray(missing)
            if mask.dtype != np.bool_ or mask.shape not in (images.shape, images.shape[:-1]):
                raise SamplingError(
                    f"denoise: expected missing values as booleans of shape {images.shape} or "
                    f"{images.shape[:-1]}, got {mask.dtype} of shape {mask.shape}"
                )
            mask = mask[..., None] if mask.ndim < images.ndim else mask
            missing = np.ascontiguousarray(np.broadcast_to(mask, images.shape))
        return cls(level, peak, missing)

    def rows(self, rows: slice) -> "Noise":
        """The same of some of the images.

        Args:
            rows: Which.

        Returns:
            Their part.
        """
        return Noise(
            None if self.level is None else self.level[rows],
            self.peak,
            None if self.missing is None else self.missing[rows],
        )


def filtered_level(
    values: Float[Tensor, "n c *space"], known: Bool[Tensor, "n c *space"]
) -> Float[Tensor, " n"]:
    """Estimate the level of Gaussian noise from differences along every axis in space.

    The median of the finest diagonal Haar coefficients (Donoho & Johnstone 1994). Contours count as
    noise, and noise that was clipped does not, as in every estimate of this kind.

    Args:
        values: Noisy images.
        known: Where they are known.

    Returns:
        Standard deviation of each image's noise; 0 where less than two neighbours are known.
    """
    detail, whole = values, known
    for axis in range(2, values.ndim):
        last = values.shape[axis] - 1
        detail = (detail.narrow(axis, 1, last) - detail.narrow(axis, 0, last)) / math.sqrt(2)
        whole = whole.narrow(axis, 1, last) & whole.narrow(axis, 0, last)
    size = torch.where(whole, detail.abs(), math.nan).flatten(1)
    return size.nanmedian(dim=1).values.nan_to_num(0.0) / _MEDIAN


class Restoration:
    """Restores images with the restorer where there is one, else with the model.

    Args:
        codec: The trained model.
        restorer: None: the model's reconstruction is blended with the input.
    """

    def __init__(self, codec: Codec, restorer: Restorer | None) -> None:
        self.codec = codec
        self.restorer = restorer

    @exact_float32()
    @torch.no_grad()
    def noise_level(
        self,
        images: Shaped[np.ndarray, "n *space c"],
        missing: Bool[np.ndarray, "n *space c"] | None,
    ) -> Float32[np.ndarray, " n"]:
        """Estimate the level of Gaussian noise; see `Synthesizer.noise_level`.

        Args:
            images: As they are stored.
            missing: Where values are missing.

        Returns:
            Levels.

        Raises:
            SamplingError: If the images are feature vectors.
        """
        parts = [np.empty(0, np.float32)]
        noise = Noise(None, None, missing)
        for rows in blocks(len(images), images[:1].size, BLOCK):
            values, known = self._values(images[rows], noise.rows(rows).missing)
            parts.append(self._level(values, known, noise).cpu().numpy())
        return np.concatenate(parts)

    @exact_float32()
    @torch.no_grad()
    def restored(
        self,
        images: Shaped[np.ndarray, "n *space c"],
        labels: Int64[np.ndarray, " n"] | None,
        noise: Noise,
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Restore images; see `Synthesizer.denoise`.

        Args:
            images: As they are stored.
            labels: Their classes; needed where there is no restorer.
            noise: What is known of the noise.

        Returns:
            The restored images.
        """
        if self.restorer is None and noise.level is None:
            noise = self._cautious(images, labels, noise)
        results = [images[:0]]
        for rows in blocks(len(images), images[:1].size, BLOCK):
            part = noise.rows(rows)
            values, known = self._values(images[rows], part.missing)
            if self.restorer is None:
                assert labels is not None
                y = torch.from_numpy(labels[rows]).to(self.codec.device)
                restored = self._from_model(values, known, y, part, images[rows].dtype)
            else:
                restored = self._from_restorer(self.restorer, values, known, part)
            stored = self.codec.stored_pixels(restored.cpu())
            # What is not changed keeps its bytes.
            same = ((restored == values) & known).movedim(1, -1).cpu().numpy()
            results.append(np.where(same, images[rows], stored))
        return np.concatenate(results)

    def _values(self, images: np.ndarray, missing: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """Images scaled to [0, 1], 0 where they are missing, and where they are known."""
        values = self.codec.pixels(images)
        if missing is None:
            return values, torch.ones_like(values, dtype=torch.bool)
        known = torch.from_numpy(~missing).movedim(-1, 1).to(values.device)
        return torch.where(known, values, 0.0), known

    def _from_restorer(
        self, restorer: Restorer, values: Tensor, known: Tensor, noise: Noise
    ) -> Tensor:
        if noise.peak is not None:
            sigma = poisson_level(values, values.new_tensor(noise.peak))
            weight = torch.full_like(values, restorer.poisson_weight_of(noise.peak))
        else:
            level = self._level(values, known, noise)
            sigma = _column(level, values).expand_as(values)
            weight = _column(restorer.weight_of(level), values).expand_as(values)
        restored = restorer(values, torch.where(known, sigma, math.inf)).clamp(0, 1)
        return torch.where(known, torch.lerp(values, restored, weight), restored)

    def _level(self, values: Tensor, known: Tensor, noise: Noise) -> Tensor:
        if noise.level is not None:
            return torch.from_numpy(noise.level).to(values.device)
        _refuse_features(self.codec.image_shape)
        if self.restorer is not None:
            return self.restorer.noise_level(values, known.float()).clamp(max=MAX_NOISE)
        return filtered_level(values, known)

    def _cautious(self, images: np.ndarray, labels: np.ndarray | None, noise: Noise) -> Noise:
        """The noise with one level for all images, or one peak, rather too weak than too strong.

        The noise of an image is at most what its reconstruction leaves over beyond the model's
        error on clean images; of this the median over all images is taken. An image that the model
        does not know leaves over much, and would be taken for a noisy one.
        """
        assert labels is not None
        if not len(images):
            return noise
        told, found = [], []
        for rows in blocks(len(images), images[:1].size, BLOCK):
            values, known = self._values(images[rows], noise.rows(rows).missing)
            y = torch.from_numpy(labels[rows]).to(self.codec.device)
            left = self._left(values, known, self._rebuilt(self._filled(values, known, y), y))
            beyond = left / _count(known) - _CAUTION * self._model_error()
            if noise.peak is None:
                power = self._level(values, known, noise).square()
            else:
                power = _counting_power(values, known, noise.peak)
            told.append(power.cpu().numpy())
            found.append(torch.minimum(power, beyond).clamp(min=0).cpu().numpy())
        common = float(np.median(np.concatenate(found)))
        if common < MIN_NOISE**2:
            common = 0.0
        if noise.peak is None:
            level = np.full(len(images), math.sqrt(common), np.float32)
            return Noise(level, None, noise.missing)
        share = common / max(float(np.median(np.concatenate(told))), 1e-12)
        return Noise(None, noise.peak / share if share else math.inf, noise.missing)

    def _left(self, values: Tensor, known: Tensor, rebuilt: Tensor) -> Tensor:
        """Squared difference of each image and its reconstruction, where it is known."""
        return torch.where(known, rebuilt - values, 0.0).square().flatten(1).sum(dim=1)

    def _from_model(
        self, values: Tensor, known: Tensor, labels: Tensor, noise: Noise, dtype: np.dtype
    ) -> Tensor:
        """Blend the reconstruction with its input by Stein's unbiased estimate of the best weight.

        The weight of p(y) against y that has the least expected error, with noise of variance s^2
        in N values, is ``s^2 (N - div p) / |p - y|^2`` (Stein 1981; the divergence as in Ramani et
        al. 2008, by one difference in a random direction).
        """
        n_known = _count(known)
        filled = self._filled(values, known, labels)
        rebuilt = self._rebuilt(filled, labels)
        left = self._left(values, known, rebuilt)
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(values.shape, generator=generator, dtype=torch.float32)
        probe = torch.where(known, probe.to(values.device), 0.0)
        change = (self._rebuilt(filled + _STEP * probe, labels) - rebuilt) / _STEP
        divergence = (probe * change).flatten(1).sum(dim=1)
        if noise.peak is not None:
            power = _counting_power(values, known, noise.peak)
        else:
            sigma = _column(self._level(values, known, noise), values)
            likely = rebuilt.clamp(0, 1)
            noisy = likely + sigma * probe
            if dtype == np.uint8:  # stored noise is clipped, and weaker for it
                noisy = noisy.clamp(0, 1)
            power = torch.where(known, noisy - likely, 0.0).square().flatten(1).sum(dim=1) / n_known
        weight = power * (n_known - divergence) / left.clamp(min=1e-12)
        blended = torch.lerp(values, rebuilt.clamp(0, 1), _column(weight.clamp(0, 1), values))
        return torch.where(known, blended, rebuilt.clamp(0, 1))

    def _model_error(self) -> float:
        """Squared error per value of the model's reconstructions of clean images."""
        model = self.codec.model
        if (
            not isinstance(model, CVAE)
            or model.architecture["likelihood"] != "gaussian"
            or self.codec.latent_space is not None
        ):
            raise SamplingError(
                "denoise: expected a noise level: this generator has no restorer and no error of "
                "its own to compare with (fit_restorer trains a restorer)"
            )
        return math.exp(float(model.likelihood.log_sigma2))

    def _filled(self, values: Tensor, known: Tensor, labels: Tensor) -> Tensor:
        """Missing values from the reconstruction, which is repeated until they settle."""
        if bool(known.all()):
            return values
        mean = values.flatten(1).sum(dim=1) / _count(known)
        filled = torch.where(known, values, _column(mean, values))
        for _ in range(_ROUNDS):
            filled = torch.where(known, values, self._rebuilt(filled, labels).clamp(0, 1))
        return filled

    def _rebuilt(self, values: Tensor, labels: Tensor) -> Tensor:
        """The reconstruction of images in [0, 1]."""
        mean, _ = self.codec.model.posterior(self.codec.enter(values), labels)
        return self.codec.leave(self.codec.model.decode(mean, labels), values)


def _refuse_features(image_shape: Sequence[int]) -> None:
    if are_features(image_shape):
        raise SamplingError(
            "denoise: expected a noise level: from feature vectors, whose values are no "
            "neighbours, it cannot be estimated"
        )


def _counting_power(values: Tensor, known: Tensor, peak: float) -> Tensor:
    """Mean variance of the values of each image."""
    return values.flatten(1).sum(dim=1) / _count(known) / peak


def _count(known: Tensor) -> Tensor:
    """Known values of each image, at least 1."""
    return known.flatten(1).sum(dim=1).clamp(min=1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1 for _ in like.shape[1:]))
