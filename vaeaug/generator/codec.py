"""`Codec`: a trained model between images as they are stored and latents, in blocks."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from torch import Tensor

from vaeaug.generator.image_codec import LatentSpace
from vaeaug.mapping import as_tensor, release
from vaeaug.memory import blocks
from vaeaug.models import (
    CVAE,
    SeparateCVAE,
    exact_float32,
    importance_weighted_bound,
    scale_images,
)

# Rows that go through a network at once. A constant: another block could round differently. On a
# card 64 small images take as long as 512, which go together up to so many values.
BLOCK = 64
CARD_BLOCK, CARD_VALUES = 512, 2**23
# Rows after which a card is waited for.
ROWS = 1024
# Images that are encoded or scored at once.
_IMAGES = 256


class SamplingError(ValueError):
    """A sample that this generator cannot draw, or a generator that cannot be read."""


class Codec:
    """Encodes and decodes images of one shape, type and value range.

    Args:
        model: The trained model, in evaluation mode.
        value_range: Lowest and highest value of the images.
        dtype: Of the images, "uint8" or "float32".
        latent_space: That of a frozen image codec, in which the model was trained; None: the model
            was trained on the images themselves.
    """

    def __init__(
        self,
        model: CVAE | SeparateCVAE,
        *,
        value_range: tuple[int | float, int | float],
        dtype: str | np.dtype,
        latent_space: LatentSpace | None = None,
    ) -> None:
        self.model = model.eval()
        self.value_range = value_range
        self.dtype = np.dtype(dtype)
        self.latent_space = latent_space

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(space..., channels)."""
        if self.latent_space is not None:
            return self.latent_space.image_shape
        return tuple(self.model.image_shape)

    @property
    def n_classes(self) -> int:
        """How many classes the model knows."""
        return cast(int, self.model.architecture["n_classes"])

    def scaled(self, images: Shaped[np.ndarray, "n *space c"]) -> Tensor:
        """Images as the model sees them.

        Args:
            images: As they are stored.

        Returns:
            float32 in [0, 1], channels first, on the device; latents of the image codec where there
            is one.
        """
        return self.enter(self.pixels(images))

    def pixels(self, images: Shaped[np.ndarray, "n *space c"]) -> Float[Tensor, "n c *space"]:
        """Images themselves, whatever the model was trained on.

        Args:
            images: As they are stored.

        Returns:
            float32 in [0, 1], channels first, on the device.
        """
        block = as_tensor(np.ascontiguousarray(images)).to(self.device)
        return scale_images(block, self.value_range)

    def enter(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n d *grid"]:
        """Turn images into what the model was trained on.

        Args:
            x: Images in [0, 1], channels first, on the device.

        Returns:
            The images, or their latents in the image codec.
        """
        return x if self.latent_space is None else self.latent_space.enter(x)

    def leave(
        self, h: Float[Tensor, "n d *grid"], like: Float[Tensor, "n c *space"] | None = None
    ) -> Float[Tensor, "n c *space"]:
        """Invert `enter`.

        Args:
            h: What the model gives, on the device.
            like: The images in [0, 1] that it is an edit of, NaN where of none: sounds keep their
                phase.

        Returns:
            Images, not clipped unless an image codec decoded them.
        """
        return h if self.latent_space is None else self.latent_space.leave(h, like)

    def stored(
        self, scaled: Tensor, like: Float[Tensor, "n c *space"] | None = None
    ) -> Shaped[np.ndarray, "n *space c"]:
        """The inverse of `scaled`.

        Args:
            scaled: What the model gives, channels first. Values of images outside [0, 1] are
                clipped.
            like: As for `leave`.

        Returns:
            Images in the type and value range of the training images.
        """
        if self.latent_space is not None:
            scaled = self.leave(scaled.to(self.device), like).cpu()
        return self.stored_pixels(scaled)

    def stored_pixels(
        self, scaled: Float[Tensor, "n c *space"]
    ) -> Shaped[np.ndarray, "n *space c"]:
        """The inverse of `pixels`.

        Args:
            scaled: Images, channels first, on the CPU. Values outside [0, 1] are clipped.

        Returns:
            Images in the type and value range of the training images.
        """
        low, high = self.value_range
        images = scaled.clamp(0, 1).mul(high - low).add(low).movedim(1, -1)
        if self.dtype == np.uint8:
            images = images.round()
        return np.ascontiguousarray(images.numpy().astype(self.dtype))

    @exact_float32()
    @torch.no_grad()
    def posterior(
        self, images: Shaped[np.ndarray, "n *space c"], labels: Sequence[int] | np.ndarray
    ) -> tuple[Float32[np.ndarray, "n z"], Float32[np.ndarray, "n z"]]:
        """q(z|x,y) of images.

        Args:
            images: As they are stored.
            labels: Their classes.

        Returns:
            (means, variances).

        Raises:
            SamplingError: If images or labels have another shape or are out of range.
        """
        # Not block by block in a list: small pieces between large ones keep freed memory in use.
        means, variances = (np.empty((len(images), self.model.latent_dim), "f4") for _ in range(2))
        for x, y, first in self._blocks(images, labels):
            mean, logvar = self.model.posterior(x, y)
            means[first : first + len(x)] = mean.cpu().numpy()
            variances[first : first + len(x)] = logvar.exp().cpu().numpy()
        return means, variances

    def decoded(self, z: Float32[np.ndarray, "n z"], labels: Int64[np.ndarray, " n"]) -> Tensor:
        """Means of p(x|z,y), in blocks of a fixed shape.

        Args:
            z: Latents.
            labels: Their classes.

        Returns:
            float32, channels first, on the CPU; not clipped.
        """
        if not len(z):
            *space, channels = self.model.image_shape
            return torch.empty(0, channels, *space, dtype=torch.float32)
        return in_blocks_of(self.model, self.model.decode, z, labels)

    @exact_float32()
    @torch.no_grad()
    def bound(
        self,
        images: Shaped[np.ndarray, "n *space c"],
        labels: Sequence[int] | np.ndarray,
        *,
        k: int,
        seed: int,
    ) -> Float64[np.ndarray, " n"]:
        """Importance-weighted bound on log p(x|y) (Burda et al. 2016, arXiv:1509.00519).

        Args:
            images: As they are stored.
            labels: Their classes.
            k: Latents per image; 1 is the ELBO.
            seed: Of the latents.

        Returns:
            Nats per image, for values scaled to [0, 1].

        Raises:
            SamplingError: If images or labels have another shape or are out of range.
        """
        bounds = []
        for x, y, start in self._blocks(images, labels):
            if k == 1:
                noise = self._noise(len(x), seed + start)
                bound = self.model.elbo(x, y, noise=noise).elbo.double()
            else:
                bound = importance_weighted_bound(self.model, x, y, k=k, seed=seed + start)
            bounds.append(bound.cpu().numpy())
        return np.concatenate(bounds) if bounds else np.empty(0)

    @exact_float32()
    @torch.no_grad()
    def rates(
        self,
        images: Shaped[np.ndarray, "n *space c"],
        labels: Sequence[int] | np.ndarray,
        *,
        seed: int,
        bits: bool,
    ) -> tuple[Float32[np.ndarray, "n z"], Float64[np.ndarray, " n"]]:
        """What images cost to describe; see `Synthesizer.rates`.

        Args:
            images: As they are stored.
            labels: Their classes.
            seed: Of the latents.
            bits: False leaves the bits out.

        Returns:
            (KL per image and unit, nats; bits per value, NaN where they are left out).

        Raises:
            SamplingError: If images or labels have another shape or are out of range.
        """
        kls, lengths = [], [np.empty(0)]
        n_values = math.prod(self.image_shape)
        for x, y, start in self._blocks(images, labels):
            noise = self._noise(len(x), seed + start)
            mean, logvar = self.model.posterior(x, y)
            decoded = self.model.generate(mean + torch.exp(0.5 * logvar) * noise, y)
            kl = self.model.kl(mean, logvar, decoded, y)
            kls.append(kl.cpu().numpy())
            if bits:
                nats = kl.sum(dim=1) - self.model.log_mass(decoded, x, y)
                lengths.append((nats.double() / (n_values * math.log(2))).cpu().numpy())
            else:
                lengths.append(np.full(len(x), np.nan))
        if not kls:
            kls.append(np.empty((0, self.model.latent_dim), np.float32))
        return np.concatenate(kls), np.concatenate(lengths)

    def check_labels(self, labels: Sequence[int] | np.ndarray, n: int) -> Int64[np.ndarray, " n"]:
        """Labels as an array, one for each row.

        Args:
            labels: Class indices.
            n: How many are expected.

        Returns:
            The labels.

        Raises:
            SamplingError: If there are more or fewer, or one is out of range.
        """
        y = np.asarray(labels, dtype=np.int64)
        if y.shape != (n,):
            raise SamplingError(f"expected one label per row, shape ({n},), got {y.shape}")
        if n and not (y.min() >= 0 and y.max() < self.n_classes):
            raise SamplingError(
                f"labels: expected 0 to {self.n_classes - 1}, got {y.min()} to {y.max()}"
            )
        return y

    def check_images(
        self, images: Shaped[np.ndarray, "n *space c"]
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Images as an array.

        Args:
            images: As they are stored.

        Returns:
            The images.

        Raises:
            SamplingError: If they are of another shape than the training images.
        """
        images = np.asarray(images)
        if images.shape[1:] != self.image_shape:
            raise SamplingError(
                f"encode: expected images of shape (n, {', '.join(map(str, self.image_shape))}), "
                f"got {images.shape}"
            )
        return images

    def _blocks(
        self, images: np.ndarray, labels: Sequence[int] | np.ndarray
    ) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Scaled images, their labels and the row of the first one, block by block."""
        images = self.check_images(images)
        y = self.check_labels(labels, len(images))
        for rows in blocks(len(images), math.prod(self.image_shape), _IMAGES):
            yield (
                self.scaled(images[rows]),
                torch.from_numpy(y[rows]).to(self.device),
                rows.start,
            )
            release(images)

    def _noise(self, n: int, seed: int) -> Tensor:
        """Standard normal latents, drawn on the CPU: the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(n, self.model.latent_dim, generator=generator, dtype=torch.float32)
        return noise.to(self.device)


def block_of(model: CVAE | SeparateCVAE) -> int:
    """Rows that go through a model at once: a constant of its images' size and its device.

    Args:
        model: The model.

    Returns:
        A multiple of `BLOCK`.
    """
    is_on_card = next(model.parameters()).device.type == "cuda"
    fit_together = CARD_BLOCK * math.prod(model.image_shape) <= CARD_VALUES
    return CARD_BLOCK if is_on_card and fit_together else BLOCK


def in_blocks_of(
    model: CVAE | SeparateCVAE, function: Callable[..., Tensor], *arrays: np.ndarray
) -> Tensor:
    """Run a part of a model on rows, on its device and in its blocks.

    Args:
        model: The model.
        function: Takes a block of each array as a tensor.
        *arrays: As many rows each, at least one.

    Returns:
        The results of all rows, on the CPU.
    """
    device = next(model.parameters()).device
    return in_blocks(function, *arrays, device=device, block=block_of(model))


def in_blocks(
    function: Callable[..., Tensor],
    *arrays: np.ndarray,
    device: torch.device,
    block: int = BLOCK,
) -> Tensor:
    """Run a network on rows in blocks, the last one filled up with its first row.

    Args:
        function: Takes a block of each array as a tensor.
        *arrays: As many rows each, at least one.
        device: Where the network is.
        block: Rows of a block.

    Returns:
        The results of all rows, on the CPU.
    """
    on_cpu: list[Tensor] = []
    with torch.no_grad(), exact_float32():
        for first in range(0, len(arrays[0]), ROWS):
            rows = slice(first, first + ROWS)
            tensors = [torch.from_numpy(array[rows]).to(device) for array in arrays]
            n, parts = len(tensors[0]), []
            for begin in range(0, n, block):
                inputs = [tensor[begin : begin + block] for tensor in tensors]
                if begin + block > n:
                    missing = begin + block - n
                    inputs = [
                        torch.cat([part, part[:1].expand(missing, *part.shape[1:])])
                        for part in inputs
                    ]
                parts.append(function(*inputs))
            on_cpu.append(torch.cat(parts)[:n].cpu())
    return on_cpu[0] if len(on_cpu) == 1 else torch.cat(on_cpu)
