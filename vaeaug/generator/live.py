"""Samples for a training under way: whole batches of mixed classes, on the network's device.

What `Synthesizer.sample` publishes is the same whatever the batch; here speed counts, so a batch is
decoded as one. The same batch and random numbers give the same result.
"""

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from vaeaug.generator.codec import SamplingError
from vaeaug.generator.latents import neighbour_count
from vaeaug.generator.samplers import EDITING, Request
from vaeaug.generator.synthesizer import Synthesizer

# Squared distance per unit of z below which a training latent is the image's own.
_SAME = 1e-4


@torch.no_grad()
def draw_batch(
    generator: Synthesizer,
    labels: Int64[np.ndarray, " n"],
    *,
    seed: int,
    sampler: str = "auto",
    temperature: float = 1.0,
) -> Float[Tensor, "n c *space"]:
    """One new sample for each label, in [0, 1], channels first, on the generator's device.

    Where the training images are attached (`Synthesizer.attach`) and the sampler starts from one
    of the class, the sample keeps the detail that the decoder would lose.

    Args:
        generator: Whose classes the labels index; each had training images.
        labels: Classes.
        seed: The sample in place j depends on (seed, labels) alone.
        sampler: As for `Synthesizer.sample`; "auto" is the default of each class.
        temperature: Scale of the noise.

    Returns:
        The samples.
    """
    with_data = generator.data is not None
    latents = np.empty((len(labels), generator.model.latent_dim), np.float32)
    sources = np.full(len(labels), -1, np.int64)
    for label in np.unique(labels).tolist():
        at = np.flatnonzero(labels == label)
        chosen = (
            generator.default_sampler(label, residual=with_data) if sampler == "auto" else sampler
        )
        pool = generator.pool_of(label, chosen)
        request = Request(label, chosen, pool, temperature, guidance=1.0, solver_steps=12)
        drawn = generator.sampler().draw(request, seed=seed, first=0, n=len(at))
        latents[at] = drawn.latents
        if with_data and chosen in EDITING:
            sources[at] = drawn.sources
    device = generator.device
    y = torch.from_numpy(labels).to(device)
    images = generator.model.decode(torch.from_numpy(latents).to(device), y)
    edited = np.flatnonzero(sources >= 0)
    if edited.size:
        residual = generator.residual_of(sources[edited])
        images[torch.from_numpy(edited).to(device)] += residual.to(device)
    recordings = generator.recordings_of(sources)
    return generator.codec.leave(images, recordings).clamp(0, 1)


class ClassMover:
    """Moves images within their class, in the latent space of a generator.

    An image goes part of the way towards one of its nearest neighbours of the class among the
    training images; in a class of one image, along the noise of its own posterior.

    Args:
        generator: The generator, on the device that the images will be on.

    Raises:
        SamplingError: If its latents are codes.
    """

    def __init__(self, generator: Synthesizer) -> None:
        if generator.model.is_discrete:
            raise SamplingError(
                "moving images within their class: expected latents that can be moved, got codes "
                "(model.latent discrete); draw new images with the sampler posterior instead"
            )
        self.generator = generator
        self._latents: dict[int, Tensor] = {}

    @torch.no_grad()
    def move(
        self,
        x: Float[Tensor, "n c *space"],
        y: Int[Tensor, " n"],
        *,
        uniform: Float[Tensor, "n 2"],
        noise: Float[Tensor, "n z"],
        strength: float,
        residual: bool = True,
    ) -> Float[Tensor, "n c *space"]:
        """Move images towards neighbours of their class.

        Args:
            x: Images in [0, 1], channels first.
            y: Their classes, each with training images.
            uniform: In [0, 1): which neighbour, and how far.
            noise: Standard normal, for classes of one image.
            strength: Largest part of the way, in [0, 1]; the least is half of it.
            residual: Add to the image what the move changes of its reconstruction, so that detail
                stays; else give the moved reconstruction.

        Returns:
            The moved images, in [0, 1].
        """
        model, codec = self.generator.model, self.generator.codec
        recordings, x = x, codec.enter(x)
        mean, logvar = model.posterior(x, y)
        z = mean.clone()
        step = strength * (0.5 + 0.5 * uniform[:, 1:])
        for label in y.unique().tolist():
            at = torch.nonzero(y == label).squeeze(1)
            latents = self._latents_of(label)
            if len(latents) == 1:
                z[at] += strength * torch.exp(0.5 * logvar[at]) * noise[at]
                continue
            k = neighbour_count(len(latents))
            near = min(k + 1, len(latents))
            distance, rows = torch.cdist(mean[at], latents).square().topk(near, largest=False)
            # A training image is no neighbour of its own.
            is_itself = (distance[:, 0] < _SAME * mean.shape[1]).long()
            place = is_itself + (uniform[at, 0] * (near - 1)).long()
            towards = latents[rows.gather(1, place[:, None]).squeeze(1)]
            z[at] = (1 - step[at]) * mean[at] + step[at] * towards
        if not residual:
            return codec.leave(model.decode(z, y), recordings).clamp(0, 1)
        # One pass for both: for few images the cost is that of a pass.
        moved, reconstructed = model.decode(torch.cat([z, mean]), torch.cat([y, y])).chunk(2)
        return codec.leave(x + moved - reconstructed, recordings).clamp(0, 1)

    def _latents_of(self, label: int) -> Tensor:
        device = self.generator.device
        if label not in self._latents or self._latents[label].device != device:
            rows = self.generator.rows[label]
            self._latents[label] = torch.from_numpy(self.generator.means[rows]).to(device)
        return self._latents[label]
