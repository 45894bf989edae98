"""`Guide`: a trained VAE as a side channel of the coder, with latents that are whole numbers.

The networks run in float64 and what they give is rounded to coarse steps. Machines and batches
differ by some 1e-14 of a step there, and the file's checksum tells if a value ever fell on an edge.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8

from vaeaug.compression import exact
from vaeaug.compression.entropy import BitStack
from vaeaug.compression.errors import CompressionError
from vaeaug.generator import Synthesizer
from vaeaug.generator.codec import in_blocks

# Steps of a latent per standard deviation of its posterior, where its bits come back.
_FINE = 8
# Steps that are rounded to where they do not: sqrt(12) standard deviations.
COARSE = 28
# Bits that drawing a unit takes off the stack: of a normal with a deviation of `_FINE` steps.
BITS_PER_UNIT = 5.1
# Means are rounded to this part of a step, log deviations to this part of a unit.
_MEAN, _LOG = 64.0, 32
_LOWEST_LOG, _HIGHEST_LOG = -4, 12


class Guide:
    """Latents of images and what the decoder makes of them, for the coder of values.

    Args:
        generator: A generator of uint8 images, without an image codec.
        groups: How many groups of hierarchical latents are coded; those after them are taken at
            the mean of their prior. None: all.

    Raises:
        CompressionError: If it is of another kind.
    """

    def __init__(self, generator: Synthesizer, groups: int | None = None) -> None:
        if generator.codec.latent_space is not None or generator.dtype != np.uint8:
            raise CompressionError(
                "compression: expected a generator of 8-bit images without an image codec"
            )
        if generator.model.is_discrete:
            raise CompressionError(
                "compression: expected a generator of latents with a density, got one of codes "
                "(model.latent discrete)"
            )
        # The generator itself stays as it is; a decoder on another device rounds the same.
        self._model: Any = copy.deepcopy(generator.model).double().cpu().eval()
        self._generator = generator
        self._step = np.sqrt(generator.variances.mean(axis=0).astype(np.float64)) / _FINE
        self.sha256 = generator.sha256
        spans = [(group.start, group.start + group.size) for group in self._model.groups]
        self._spans, self._later = spans[:groups], spans[len(spans[:groups]) :]

    @property
    def n_units(self) -> int:
        """Units of z that are coded."""
        return self._spans[-1][1]

    def posterior(
        self, images: UInt8[np.ndarray, "n h w c"], labels: Int64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, "n z"], Float64[np.ndarray, "n z"]]:
        """q(z|x,y) in steps.

        Args:
            images: The images.
            labels: Their classes.

        Returns:
            (means, standard deviations), rounded.
        """
        low, high = self._generator.value_range
        scaled = (images.astype(np.float64) - low) / (high - low)
        x = np.ascontiguousarray(np.moveaxis(scaled, -1, 1))

        def both(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.cat(self._model.posterior(x, y), dim=1)

        found = in_blocks(both, x, labels, device=torch.device("cpu")).numpy()
        return self._in_steps(*np.hsplit(found, 2))

    def prior(
        self, z: Int64[np.ndarray, "n z"], labels: Int64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, "n z"], Float64[np.ndarray, "n z"]]:
        """p(z|y) in steps; of a group of latents it depends on the groups before it alone.

        Args:
            z: Latents in steps; those of groups yet unknown do not matter to the groups before.
            labels: Classes.

        Returns:
            (means, standard deviations), rounded.
        """

        def both(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            decoded = self._model.generate(z, y)
            return torch.cat([decoded.mean.double(), decoded.logvar.double()], dim=1)

        found = in_blocks(both, self._whole(z), labels, device=torch.device("cpu")).numpy()
        return self._in_steps(*np.hsplit(found, 2))

    def decoded(
        self, z: Int64[np.ndarray, "n z"], labels: Int64[np.ndarray, " n"]
    ) -> UInt8[np.ndarray, "n h w c"]:
        """The VAE's guess of the images.

        Args:
            z: Latents in steps.
            labels: Classes.

        Returns:
            Means of p(x|z,y), rounded.
        """

        def decode(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return decoded_from(self._model, z, y, self._later)

        means = in_blocks(decode, self._whole(z), labels, device=torch.device("cpu"))
        low, high = self._generator.value_range
        values = means.clamp(0, 1).double().numpy() * (high - low) + low
        return np.ascontiguousarray(np.moveaxis(np.floor(values + 0.5), 1, -1).astype(np.uint8))

    def centred(
        self,
        images: UInt8[np.ndarray, "n h w c"],
        labels: Int64[np.ndarray, " n"],
        coarse: int = COARSE,
    ) -> Int64[np.ndarray, "n z"]:
        """Latents nearest to the posterior means, where no bits come back.

        Args:
            images: The images.
            labels: Their classes.
            coarse: Steps that are rounded to. At `COARSE` the rounding errors have the variance of
                the posterior.

        Returns:
            Latents in steps, multiples of `coarse`.
        """
        means, _ = self.posterior(images, labels)
        return np.floor(means / coarse + 0.5).astype(np.int64) * coarse

    def push_centred(
        self,
        stack: BitStack,
        z: Int64[np.ndarray, "n z"],
        labels: Int64[np.ndarray, " n"],
        coarse: int = COARSE,
    ) -> None:
        """Push latents that `centred` gave.

        Args:
            stack: Where to.
            z: In steps.
            labels: Classes.
            coarse: As in `centred`.
        """
        means, deviations = self.prior(z, labels)
        for start, stop in reversed(self._spans):
            part = np.s_[:, start:stop]
            stack.push_normal(
                z[part].ravel() // coarse,
                means[part].ravel() / coarse,
                deviations[part].ravel() / coarse,
            )

    def pop_centred(
        self, stack: BitStack, labels: Int64[np.ndarray, " n"], coarse: int = COARSE
    ) -> Int64[np.ndarray, "n z"]:
        """Pop what `push_centred` pushed.

        Args:
            stack: Where from.
            labels: Classes.
            coarse: As in `centred`.

        Returns:
            Latents in steps.
        """
        return self._pop(stack, labels, coarse)

    def push(
        self, stack: BitStack, z: Int64[np.ndarray, "n z"], labels: Int64[np.ndarray, " n"]
    ) -> None:
        """Push latents at the length that the prior gives them, the last group first.

        Args:
            stack: Where to.
            z: In steps.
            labels: Classes.
        """
        means, deviations = self.prior(z, labels)
        for start, stop in reversed(self._spans):
            part = np.s_[:, start:stop]
            stack.push_normal(z[part].ravel(), means[part].ravel(), deviations[part].ravel())

    def pop(self, stack: BitStack, labels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n z"]:
        """Pop what `push` pushed.

        Args:
            stack: Where from.
            labels: Classes.

        Returns:
            Latents in steps.
        """
        return self._pop(stack, labels, 1)

    def draw(
        self,
        stack: BitStack,
        images: UInt8[np.ndarray, "n h w c"],
        labels: Int64[np.ndarray, " n"],
    ) -> Int64[np.ndarray, "n z"]:
        """Draw latents from the posterior with the bits that lie on the stack.

        Args:
            stack: Gives as many bits as `give_back` returns.
            images: The images.
            labels: Their classes.

        Returns:
            Latents in steps.
        """
        means, deviations = self.posterior(images, labels)
        centres = np.floor(means + 0.5)
        offsets = stack.pop_normal((means - centres).ravel(), deviations.ravel(), near=True)
        return offsets.reshape(means.shape) + centres.astype(np.int64)

    def give_back(
        self,
        stack: BitStack,
        z: Int64[np.ndarray, "n z"],
        images: UInt8[np.ndarray, "n h w c"],
        labels: Int64[np.ndarray, " n"],
    ) -> None:
        """The inverse of `draw`, once the images are decoded.

        Args:
            stack: Gets the bits back.
            z: What was drawn.
            images: The images.
            labels: Their classes.
        """
        means, deviations = self.posterior(images, labels)
        centres = np.floor(means + 0.5)
        offsets = (z - centres.astype(np.int64)).ravel()
        stack.push_normal(offsets, (means - centres).ravel(), deviations.ravel(), near=True)

    def _whole(self, z: np.ndarray) -> np.ndarray:
        """Latents on their own scale, zeros for the units that are not coded."""
        whole = np.zeros((len(z), len(self._step)))
        whole[:, : self.n_units] = z * self._step[: self.n_units]
        return whole

    def _pop(self, stack: BitStack, labels: np.ndarray, step: int) -> np.ndarray:
        z = np.zeros((len(labels), self.n_units), np.int64)
        for start, stop in self._spans:
            means, deviations = self.prior(z, labels)
            part = np.s_[:, start:stop]
            drawn = stack.pop_normal(means[part].ravel() / step, deviations[part].ravel() / step)
            z[part] = drawn.reshape(len(labels), stop - start) * step
        return z

    def _in_steps(self, means: np.ndarray, logvars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        step = self._step[: self.n_units]
        means = np.floor(means[:, : self.n_units] / step * _MEAN + 0.5) / _MEAN
        logs = 0.5 * logvars[:, : self.n_units] - np.log(step)
        place = np.floor((_HIGHEST_LOG - logs) * _LOG + 0.5).astype(np.int64)
        table = exact.decaying((_HIGHEST_LOG - _LOWEST_LOG) * _LOG + 1, _LOG.bit_length() - 1)
        return means, table[place.clip(0, len(table) - 1)] * exact.exponential(_HIGHEST_LOG)


def decoded_from(
    model: Any, z: torch.Tensor, y: torch.Tensor, unknown: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """Decode latents of which the last groups are unknown, those at the mean of their prior.

    Args:
        model: A model of `vaeaug.models`.
        z: Latents, (n, z).
        y: Classes.
        unknown: First unit of each unknown group and the one after its last, in their order.

    Returns:
        Means of p(x|z,y), channels first, on the scale [0, 1].
    """
    for start, stop in unknown:
        mean = model.generate(z, y).mean[:, start:stop].to(z.dtype)
        z = torch.cat([z[:, :start], mean, z[:, stop:]], dim=1)
    decoded: torch.Tensor = model.decode(z, y)
    return decoded
