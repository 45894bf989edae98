"""What networks that take images are given of sounds: their spectrograms."""

import numpy as np
import torch
from jaxtyping import Shaped

from vaeaug.memory import blocks
from vaeaug.models import LogSpectrogram, scale_images
from vaeaug.spectrogram import Spectrogram

# Sounds whose spectrograms are computed at once.
_SOUNDS = 64


def as_judged(
    samples: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
    spectrogram: Spectrogram | None,
) -> tuple[Shaped[np.ndarray, "n *grid c"], tuple[float, float]]:
    """Turn sounds into spectrograms, as judges see them; other samples stay as they are.

    Args:
        samples: Samples.
        value_range: (lowest, highest) value.
        spectrogram: Of the sounds; None for samples that are seen as they are.

    Returns:
        (what is judged, its value range).
    """
    if spectrogram is None:
        return samples, value_range
    seen = LogSpectrogram(spectrogram)
    parts = [np.empty((0, *seen.grid, samples.shape[-1]), np.float32)]
    for rows in blocks(len(samples), samples[:1].size, _SOUNDS):
        block = torch.from_numpy(np.ascontiguousarray(samples[rows]))
        parts.append(seen(scale_images(block, value_range)).movedim(1, -1).clamp(0, 1).numpy())
    return np.concatenate(parts), (0.0, 1.0)
