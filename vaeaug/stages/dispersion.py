"""How widely samples of a class vary, and how sharp they are, beside its real images.

A decoder gives the mean of what it cannot describe: samples can all be of the right class and still
lie in a narrow band around its mean, or lack its fine detail.
"""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float64, Shaped
from scipy.fft import fftn
from scipy.spatial.distance import pdist

from vaeaug.shapes import are_features

# Fewer images or samples say little of how widely they vary.
MIN_DISPERSION_IMAGES = 10
# Pairs are compared among so many.
MOST_IMAGES = 200
# Samples whose spread is below this fraction of the real one are too much alike.
UNDERDISPERSED = 0.6
# Fine detail: the upper part of the spatial frequencies, as a fraction of the highest of an axis.
FINE = 0.5


@dataclass(frozen=True)
class Dispersion:
    """Samples of one class beside its real images; 1 is alike, less is narrower or blurrier.

    Attributes:
        spread: Ratio of the standard deviations of a value, each the root of its mean variance.
        distance: Ratio of the median distances of two of them.
        sharpness: Ratio of the root power above half of the highest spatial frequency; None for
            feature vectors, which have none.
    """

    spread: float
    distance: float
    sharpness: float | None

    @property
    def narrow(self) -> bool:
        """Whether the samples are too much alike."""
        return min(self.spread, self.distance) < UNDERDISPERSED

    def to_json(self) -> dict[str, float | None]:
        """The ratios for ``diagnostics.json``.

        Returns:
            Plain JSON types.
        """
        return asdict(self)


def dispersion(
    samples: Shaped[np.ndarray, "n *space c"], real: Shaped[np.ndarray, "m *space c"]
) -> Dispersion | None:
    """Compare samples of a class with its real images.

    Args:
        samples: Samples, in units of the data.
        real: Real images of the class.

    Returns:
        The ratios; None where there are fewer than `MIN_DISPERSION_IMAGES` of either, or where the
        real images are all the same.
    """
    if min(len(samples), len(real)) < MIN_DISPERSION_IMAGES:
        return None
    made, found = (images[:MOST_IMAGES].astype(np.float64) for images in (samples, real))
    of_real = _spread(found)
    if of_real == 0:
        return None
    sharpness = None
    if not are_features(found.shape[1:]):
        fine = _fine_power(found)
        sharpness = float(np.sqrt(_fine_power(made) / fine)) if fine else None
    apart = float(np.median(_distances(found)))
    return Dispersion(
        spread=_spread(made) / of_real,
        distance=float(np.median(_distances(made))) / apart if apart else 1.0,
        sharpness=sharpness,
    )


def _spread(images: Float64[np.ndarray, "n *space c"]) -> float:
    """Root of the variance of a value over the images, averaged over values."""
    return float(np.sqrt(images.var(axis=0, ddof=1).mean()))


def _distances(images: Float64[np.ndarray, "n *space c"]) -> Float64[np.ndarray, " pairs"]:
    return pdist(images.reshape(len(images), -1))


def _fine_power(images: Float64[np.ndarray, "n *space c"]) -> float:
    """Mean power of an image above `FINE` of the highest frequency of an axis."""
    space = images.shape[1:-1]
    spectrum = np.abs(fftn(images, axes=range(1, images.ndim - 1))) ** 2
    parts = np.meshgrid(*(np.abs(np.fft.fftfreq(n)) for n in space), indexing="ij", sparse=True)
    radius = np.sqrt(sum(part**2 for part in parts))
    return float(spectrum[:, radius >= FINE / 2].mean())
