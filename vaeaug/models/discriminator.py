"""The class-conditional discriminator of a VAE-GAN, between real and decoded samples.

Distances of its features complement the likelihood (Larsen et al. 2016, arXiv:1512.09300).
Spectral normalisation keeps it from overpowering the decoder (Miyato et al. 2018,
arXiv:1802.05957), and the class enters by projection (Miyato & Koyama 2018, arXiv:1802.05637).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from vaeaug.models.blocks import Geometry, conv, level_widths, pairs


class Discriminator(nn.Module):
    """A convolutional discriminator.

    Args:
        image_shape: (space..., channels) of a sample.
        n_classes: Number of classes.
        width: Channels at the highest resolution, doubled at each level.
        max_width: Upper bound of the channels.
    """

    def __init__(
        self, image_shape: Sequence[int], n_classes: int, *, width: int = 24, max_width: int = 128
    ) -> None:
        super().__init__()
        self.geometry = geometry = Geometry.of(image_shape)
        widths, rank = level_widths(geometry, width, max_width), geometry.rank
        self.stem = spectral_norm(geometry.first_layer(widths[0]))
        self.same = nn.ModuleList(spectral_norm(conv(rank, width, width)) for width in widths)
        self.downs = nn.ModuleList(
            spectral_norm(conv(rank, wide, wider, stride=stride))
            for (wide, wider), stride in zip(pairs(widths), geometry.strides, strict=True)
        )
        self.out = spectral_norm(nn.Linear(widths[-1], 1))
        self.by_class = spectral_norm(nn.Embedding(n_classes, widths[-1]))

    def forward(
        self, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], list[Tensor]]:
        """Compute a score per sample, higher for real ones, and the features of every level.

        Args:
            x: Samples scaled to [0, 1].
            y: Class indices.
        """
        h = F.leaky_relu(self.stem(self.geometry.entering(x)), 0.2)
        features = []
        for level, same in enumerate(self.same):
            if level:
                h = F.leaky_relu(self.downs[level - 1](h), 0.2)
            h = F.leaky_relu(same(h), 0.2)
            features.append(h)
        pooled = h.flatten(2).mean(dim=2)
        score = self.out(pooled).squeeze(1) + (pooled * self.by_class(y)).sum(dim=1)
        return score, features


def feature_distance(real: list[Tensor], decoded: list[Tensor]) -> Float[Tensor, ""]:
    """Average the mean squared difference of features over levels.

    Args:
        real: Features of real samples by level; no gradient flows into them.
        decoded: Features of decoded samples by level.

    Returns:
        The distance.
    """
    parts = [F.mse_loss(b, a.detach()) for a, b in zip(real, decoded, strict=True)]
    return torch.stack(parts).mean()
