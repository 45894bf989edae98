"""Small random affine maps: what classifier and content encoder learn not to mind."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vaeaug.training._batches import Batches

# Largest rotation (radians, in the plane), relative change of size, shear, and shift as a fraction
# of a side.
ROTATION, SCALE, SHEAR, SHIFT = 0.2, 0.15, 0.15, 0.05
# Strong augmentation: these maps times so much, the contrast changed by up to this factor, and a
# box of up to this fraction of each side covered by the mean.
STRONG, CONTRAST, COVERED = 1.5, 1.6, 0.5


def augmented(
    batches: Batches,
    purpose: str,
    step: int,
    x: Float[Tensor, "n c *space"],
    *,
    strength: float = 1.0,
) -> Float[Tensor, "n c *space"]:
    """Rotate, scale, shear and shift each image a little; along one or three axes, scale and shift.

    What comes in over an edge repeats the values there.

    Args:
        batches: Draws the maps.
        purpose: Name of the random stream.
        step: Number of the step.
        x: Images scaled to [0, 1].
        strength: Factor of all changes.

    Returns:
        Images of the same shape.
    """
    n, rank = len(x), x.ndim - 2
    draws = 2 * batches.uniform(f"{purpose}/affine", step, (n, 2 * rank + 2)) - 1
    draws = strength * draws
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


def strongly_augmented(
    batches: Batches, purpose: str, step: int, x: Float[Tensor, "n c *space"]
) -> Float[Tensor, "n c *space"]:
    """Larger maps, another contrast, and a covered box (DeVries & Taylor 2017, arXiv:1708.04552).

    Args:
        batches: Draws the changes.
        purpose: Name of the random stream.
        step: Number of the step.
        x: Images scaled to [0, 1].

    Returns:
        Images of the same shape.
    """
    x = augmented(batches, purpose, step, x, strength=STRONG)
    n, rank = len(x), x.ndim - 2
    draws = batches.uniform(f"{purpose}/strong", step, (n, 2 * rank + 1))
    per_image = (n, *(1,) * (rank + 1))
    factor = CONTRAST ** (2 * draws[:, 0] - 1)
    mean = x.flatten(1).mean(dim=1).view(per_image)
    x = (mean + (x - mean) * factor.view(per_image)).clamp(0, 1)
    inside = torch.ones((n, 1, *x.shape[2:]), dtype=torch.bool, device=x.device)
    for axis in range(rank):
        place = (torch.arange(x.shape[2 + axis], device=x.device) + 0.5) / x.shape[2 + axis]
        centre, half = draws[:, 1 + axis, None], 0.5 * COVERED * draws[:, 1 + rank + axis, None]
        shape = [n, 1, *[1] * rank]
        shape[2 + axis] = x.shape[2 + axis]
        inside = inside & ((place[None] - centre).abs() < half).view(shape)
    return torch.where(inside, mean, x)


def _mapped(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Resample at affinely mapped places; coordinates run from -1 to 1, the last axis first."""
    theta = torch.cat([matrix, shift[:, :, None]], dim=2).to(x.dtype)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
