"""Samples of a class that is given by example: no training, only a few of its images."""

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from vaeaug.generator.batch import SampleBatch
from vaeaug.generator.codec import BLOCK, Codec, SamplingError, block_of, in_blocks_of
from vaeaug.generator.latents import Latents
from vaeaug.generator.samplers import SampleNoise

# Samplers that need no image of the class but its exemplars.
BY_CONTENT = ("transfer", "prior")


def sample_like(
    codec: Codec,
    latents: Latents,
    exemplars: Shaped[np.ndarray, "m *space c"],
    n: int,
    *,
    seed: int,
    sampler: str = "auto",
    temperature: float = 1.0,
    start: int = 0,
) -> SampleBatch:
    """Draw samples of the class that the exemplars are images of.

    Their mean content code says what the class looks like; the styles are those of the training
    images of frequent classes ("transfer", the default), or of the prior ("prior").

    Args:
        codec: Of a model with a style.
        latents: Of the training images.
        exemplars: One image of the class or more, of shape, type and range of the training images.
        n: Number of samples.
        seed: Sample ``start + j`` depends on (seed, exemplars, start + j) alone.
        sampler: "transfer", "prior" or "auto".
        temperature: Scale of the noise.
        start: Index of the first sample.

    Returns:
        n samples with label -1, which no class of the generator has.

    Raises:
        SamplingError: If the generator has no style, the sampler needs training images of the
            class, or the exemplars are no images like those of the training.
    """
    sampler = "transfer" if sampler == "auto" else sampler
    if sampler not in BY_CONTENT:
        raise SamplingError(
            f"sample: from exemplars, expected {', '.join(BY_CONTENT)} or auto, got {sampler!r}"
        )
    code = class_code(codec, exemplars)
    size, first = codec.model.latent_dim, start - start % block_of(codec.model)
    # The stream of a class after the last one.
    noise = SampleNoise.of(seed, latents.n_classes, first, start + n - first, size)
    sources = np.full(len(noise.normal), -1, np.int64)
    z = temperature * noise.normal
    if sampler == "transfer":
        pool: Int64[np.ndarray, " k"] = latents.lenders(-1)
        sources = pool[(noise.uniform[:, 0] * len(pool)).astype(np.int64)]
        z = latents.means[sources] + np.sqrt(latents.variances[sources]) * z
    z = codec.model.style_only(torch.from_numpy(z.astype(np.float32))).numpy()

    def decode(z: Tensor) -> Tensor:
        codes = torch.from_numpy(code).to(z.device).expand(len(z), -1)
        return codec.model.decode_code(z, codes)

    images = codec.stored(in_blocks_of(codec.model, decode, z))
    kept = slice(start - first, None)
    return SampleBatch(
        images=images[kept],
        labels=np.full(n, -1, np.int64),
        latents=z[kept],
        source_index=sources[kept],
        seed=np.arange(start, start + n, dtype=np.uint64),
        sampler=sampler,
    )


@torch.no_grad()
def class_code(
    codec: Codec, exemplars: Shaped[np.ndarray, "m *space c"]
) -> Float32[np.ndarray, " e"]:
    """Compute what describes a class: the mean content code of some of its images.

    Args:
        codec: Of a model with a style.
        exemplars: Images like those of the training.

    Returns:
        The code.

    Raises:
        SamplingError: If the generator has no style, or the exemplars are no images like those of
            the training.
    """
    if not codec.model.style_dim:
        raise SamplingError(
            "sample: exemplars need a generator with a style, got one trained with "
            "model.style_dim 0 (or a kind of latent or grouping that has none)"
        )
    exemplars = np.asarray(exemplars)
    if not len(exemplars) or exemplars.shape[1:] != codec.image_shape:
        raise SamplingError(
            "sample: expected exemplars of shape (n, "
            f"{', '.join(map(str, codec.image_shape))}), n at least 1, got {exemplars.shape}"
        )
    if exemplars.dtype != codec.dtype:
        raise SamplingError(
            f"sample: expected exemplars of type {codec.dtype}, as the training images are, "
            f"got {exemplars.dtype}"
        )
    low, high = codec.value_range
    if not (exemplars.min() >= low and exemplars.max() <= high):  # also where one is NaN
        raise SamplingError(
            f"sample: expected exemplars from {low} to {high}, got {exemplars.min()} to "
            f"{exemplars.max()}"
        )
    codes = [
        codec.model.codes_of(codec.scaled(exemplars[begin : begin + BLOCK]))
        for begin in range(0, len(exemplars), BLOCK)
    ]
    return torch.cat(codes).mean(dim=0).cpu().numpy()
