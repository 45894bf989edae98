"""A small convolutional classifier, used for screening and as q(y|x) of the M2 objective."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.models.blocks import Geometry, conv, fold_space, group_norm
from vaeaug.ranks import row_by_row
from vaeaug.shapes import are_features
from vaeaug.spectrogram import Spectrogram

_POOL = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_HALVE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
# Added to the variance of a feature that is standardised; values are scaled to [0, 1].
LEAST_VARIANCE = 1e-4
# Log magnitudes along a side of what judges of sounds see, at most.
_HEARD = 64


class SmallClassifier(nn.Module):
    """Three convolutions and a linear layer, for samples scaled to [0, 1].

    Like the CVAE, it folds pixels into channels, so that large samples cost about as much as small
    ones. The first features of samples that are not folded (see `Geometry`) are pooled by 2. Of
    feature vectors it is a linear layer on standardised values: the network that made them has done
    the rest.

    Args:
        image_shape: (space..., channels) of a sample.
        n_classes: Number of classes.
        width: Channels of the first convolution, doubled twice.
    """

    geometry: Geometry | None

    def __init__(self, image_shape: Sequence[int], n_classes: int, *, width: int = 32) -> None:
        super().__init__()
        self.dropout: nn.Module = nn.Dropout(0.2)
        self.linear: nn.Module
        if are_features(image_shape):
            n_features = image_shape[-1]
            # Distances between features mean something as they are; the layer sees them
            # standardised, where units that are constant stay small.
            standardise = nn.BatchNorm1d(n_features, affine=False, eps=LEAST_VARIANCE)
            self.geometry, self.convolutions = None, nn.Sequential(nn.Flatten())
            self.linear = nn.Sequential(standardise, self.dropout, nn.Linear(n_features, n_classes))
            self.dropout = nn.Identity()
            return
        self.geometry = geometry = Geometry.of(image_shape)
        rank = geometry.rank
        self.convolutions = nn.Sequential(
            geometry.first_layer(width),
            *([_HALVE[rank - 1](2, ceil_mode=True)] if geometry.is_large else []),
            group_norm(width),
            nn.SiLU(),
            conv(rank, width, 2 * width, stride=2),
            group_norm(2 * width),
            nn.SiLU(),
            conv(rank, 2 * width, 4 * width, stride=2),
            group_norm(4 * width),
            nn.SiLU(),
            _POOL[rank - 1](2),
            nn.Flatten(),
        )
        self.linear = nn.Linear(4 * width * 2**rank, n_classes)

    @row_by_row
    def features(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n f"]:
        """Compute the penultimate layer.

        Args:
            x: Samples in [0, 1].

        Returns:
            Features.
        """
        return self.convolutions(x if self.geometry is None else self.geometry.entering(x))

    @row_by_row
    def forward(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n k"]:
        """Class logits."""
        return self.linear(self.dropout(self.features(x)))


class LogSpectrogram(nn.Module):
    """The first layer of networks that see sounds by their spectrograms.

    What tells classes apart is coarser than what a generator has to draw: log magnitudes are
    averaged until a side has at most 64 of them.

    Args:
        spectrogram: Of the sounds.
    """

    def __init__(self, spectrogram: Spectrogram) -> None:
        super().__init__()
        self.spectrogram = spectrogram
        sides = (spectrogram.bins, spectrogram.frames)
        self.pooled = tuple(max(1, math.ceil(side / _HEARD)) for side in sides)
        self.grid = tuple(
            math.ceil(side / pool) for side, pool in zip(sides, self.pooled, strict=True)
        )

    def forward(self, x: Float[Tensor, "n c l"]) -> Float[Tensor, "n c f t"]:
        """Log magnitudes of sounds in [0, 1], whose silence is 0.5."""
        seen = self.spectrogram.log_magnitude(2 * x - 1)
        if self.pooled == (1, 1):
            return seen
        return F.avg_pool2d(seen, self.pooled, ceil_mode=True, count_include_pad=False)


class SoundClassifier(SmallClassifier):
    """A `SmallClassifier` of the spectrograms of sounds.

    Args:
        spectrogram: Of the sounds.
        channels: Of a sound.
        n_classes: Number of classes.
        width: Channels of the first convolution, doubled twice.
    """

    def __init__(
        self, spectrogram: Spectrogram, channels: int, n_classes: int, *, width: int = 32
    ) -> None:
        seen = LogSpectrogram(spectrogram)
        cells = tuple(math.ceil(side / 2) for side in seen.grid)
        super().__init__((*cells, 4 * channels), n_classes, width=width)
        self.seen = seen

    @row_by_row
    def features(self, x: Float[Tensor, "n c l"]) -> Float[Tensor, "n f"]:
        """Compute the penultimate layer.

        Args:
            x: Sounds in [0, 1].

        Returns:
            Features.
        """
        h = self.seen(x)
        h = F.pad(h, (0, h.shape[3] % 2, 0, h.shape[2] % 2))
        return super().features(fold_space(h, (2, 2)))


def small_classifier(
    image_shape: Sequence[int],
    n_classes: int,
    *,
    width: int = 32,
    spectrogram: Spectrogram | None = None,
) -> SmallClassifier:
    """Build the small classifier of samples, or of sounds that are seen by their spectrograms.

    Args:
        image_shape: (space..., channels) of a sample.
        n_classes: Number of classes.
        width: Channels of the first convolution, doubled twice.
        spectrogram: Of the sounds; None for samples that are seen as they are.

    Returns:
        The classifier.
    """
    if spectrogram is None:
        return SmallClassifier(image_shape, n_classes, width=width)
    return SoundClassifier(spectrogram, image_shape[-1], n_classes, width=width)
