"""The content encoder: from images of a class to the code of what its images have in common.

A class is described by the mean code of some of its images, its exemplars. One network serves all
classes, so a class of one image has a code, and so has a class that training never saw
(conditional neural statistician: Edwards & Storkey 2017, arXiv:1606.02185; exemplar VAE: Norouzi et
al. 2020, arXiv:2004.04795).
"""

import math

from jaxtyping import Bool, Float
from torch import Tensor, nn

from vaeaug.models.blocks import Geometry, group_norm, level_widths, pairs


class ContentEncoder(nn.Module):
    """Strided convolutions from samples in [0, 1] to content codes.

    Args:
        geometry: Geometry of the samples.
        width: Channels at the finest level.
        max_width: Upper bound of the channels.
        code: Length of a code.
    """

    def __init__(self, geometry: Geometry, *, width: int, max_width: int, code: int) -> None:
        super().__init__()
        self.geometry = geometry
        widths = level_widths(geometry, width, max_width)
        layers = [geometry.first_layer(widths[0]), group_norm(widths[0]), nn.SiLU()]
        for (wide, wider), stride in zip(pairs(widths), geometry.strides, strict=True):
            layers += [geometry.conv(wide, wider, stride), group_norm(wider), nn.SiLU()]
        # One level more than the other networks have: the code needs no position.
        last = min(2 * widths[-1], max_width)
        layers += [geometry.conv(widths[-1], last, 2), group_norm(last), nn.SiLU()]
        cells = math.prod(math.ceil(side / 2) for side in geometry.grids[-1])
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(last * cells, code))

    def forward(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n e"]:
        """Code of each sample."""
        return self.layers(self.geometry.entering(x))


def mean_codes(codes: Float[Tensor, "n e"], shared: Bool[Tensor, "n n"]) -> Float[Tensor, "n e"]:
    """Average the code of each exemplar with those of others of its class.

    A class is described by one exemplar or by many when samples are drawn, so training sees both.

    Args:
        codes: Code of each exemplar.
        shared: Whether the exemplar of the column counts for the row; one's own always does.

    Returns:
        The mean code for each row.
    """
    weights = shared.to(codes.dtype).fill_diagonal_(1.0)
    return (weights / weights.sum(dim=1, keepdim=True)) @ codes
