"""A small convolutional classifier: the judge of screening and of the examples."""

import math

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.models.blocks import group_norm, patch_size


class SmallClassifier(nn.Module):
    """Three convolutions and a linear layer, for images scaled to [0, 1].

    Args:
        image_shape: (height, width, channels).
        n_classes: Number of classes.
        width: Channels of the first convolution, doubled twice.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], n_classes: int, *, width: int = 32
    ) -> None:
        super().__init__()
        height, wide, channels = image_shape
        # Like the CVAE, fold pixels into channels, so that large images cost like small ones.
        self.fold = patch_size(height, wide)
        rows, columns = math.ceil(height / self.fold), math.ceil(wide / self.fold)
        self.pad = (columns * self.fold - wide, rows * self.fold - height)
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels * self.fold**2, width, 3, padding=1),
            group_norm(width),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            group_norm(2 * width),
            nn.SiLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            group_norm(4 * width),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(16 * width, n_classes)

    def features(self, x: Float[Tensor, "n c height width"]) -> Float[Tensor, "n f"]:
        """The penultimate layer."""
        if any(self.pad):
            x = F.pad(x, (0, self.pad[0], 0, self.pad[1]), mode="replicate")
        return self.convolutions(F.pixel_unshuffle(2 * x - 1, self.fold))

    def forward(self, x: Float[Tensor, "n c height width"]) -> Float[Tensor, "n k"]:
        """Class logits."""
        return self.linear(self.dropout(self.features(x)))
