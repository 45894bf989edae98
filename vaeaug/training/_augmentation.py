"""Small random affine maps: what classifier and content encoder learn not to mind."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vaeaug.training._batches import Batches

# Largest rotation (radians, in the plane), relative change of size, shear, and shift as a fraction
# of a side.
ROTATION, SCALE, SHEAR, SHIFT = 0.2, 0.15, 0.15, 0.05


def augmented(
    batches: Batches, purpose: str, step: int, x: Float[Tensor, "n c *space"]
) -> Float[Tensor, "n c *space"]:
    """Rotate, scale, shear and shift each image a little; along one or three axes, scale and shift.

    What comes in over an edge repeats the values there.

    Args:
        batches: Draws the maps.
        purpose: Name of the random stream.
        step: Number of the step.
        x: Images scaled to [0, 1].

    Returns:
        Images of the same shape.
    """
    n, rank = len(x), x.ndim - 2
    draws = 2 * batches.uniform(f"{purpose}/affine", step, (n, 2 * rank + 2)) - 1
    size, shift = 1 + SCALE * draws[:, :rank], 2 * SHIFT * draws[:, rank : 2 * rank]
    if rank == 1:  # a signal is an image of one row
        x, rank = x[:, :, None], 2
        size = torch.cat([size, torch.ones_like(size)], dim=1)
        shift = torch.cat([shift, torch.zeros_like(shift)], dim=1)
        return _mapped(x, torch.diag_embed(size), shift)[:, :, 0]
    matrix = torch.diag_embed(size)
    if rank == 2:
        turn, shear = ROTATION * draws[:, 4], SHEAR * draws[:, 5]
        rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], dim=1)
        matrix = matrix @ rotation.view(n, 2, 2)
        matrix[:, 0, 1] = matrix[:, 0, 1] + shear
    return _mapped(x, matrix, shift)


def _mapped(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Resample at affinely mapped places; coordinates run from -1 to 1, the last axis first."""
    theta = torch.cat([matrix, shift[:, :, None]], dim=2).to(x.dtype)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
