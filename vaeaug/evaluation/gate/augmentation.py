"""What an arm does to a batch of images before the probe sees it: moves, flips and mixing."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vaeaug.evaluation.gate.arms import Arm

MIXUP_ALPHA, CUTMIX_ALPHA = 0.4, 1.0
# Classic augmentation: degrees, fraction of the side, fraction of the size.
ROTATION, SHIFT, ZOOM = 10.0, 0.08, 0.1


def augment(
    arm: Arm, x: Float[Tensor, "n c *space"], *, are_images: bool
) -> Float[Tensor, "n c *space"]:
    """Flip and move a batch at random, every sample by itself.

    Args:
        arm: Which augmentations.
        x: The batch.
        are_images: Whether the samples are images: signals and volumes are only shifted.

    Returns:
        The augmented batch.
    """
    if arm.flip and are_images:
        flipped = torch.rand(len(x), device=x.device) < 0.5
        x = torch.where(flipped[:, None, None, None], x.flip(-1), x)
    if arm.classic:
        x = random_affine(x) if are_images else random_shift(x)
    return x


@torch.no_grad()
def random_affine(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Rotate, zoom and shift every image by itself; its border is continued.

    Args:
        x: Images.

    Returns:
        Images of the same size.
    """
    n = len(x)
    angle = (torch.rand(n) * 2 - 1) * ROTATION * torch.pi / 180
    zoom = 1 + (torch.rand(n) * 2 - 1) * ZOOM
    shift = (torch.rand(n, 2) * 2 - 1) * 2 * SHIFT  # the sides go from -1 to 1
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1
    ).to(x)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def random_shift(x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
    """Shift every sample by itself along every axis in space; its border is continued.

    Args:
        x: Samples.

    Returns:
        Samples of the same size.
    """
    for axis in range(2, x.ndim):
        size = x.shape[axis]
        largest = max(1, round(SHIFT * size)) if size > 1 else 0
        shift = torch.randint(-largest, largest + 1, (len(x), 1), device=x.device)
        index = (torch.arange(size, device=x.device)[None] + shift).clamp(0, size - 1)
        shape = [len(x)] + [1] * (x.ndim - 1)
        shape[axis] = size
        x = x.gather(axis, index.view(shape).expand_as(x))
    return x


def mixing(
    arm: Arm, n_classes: int, rank: int
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Build the arm's Mixup or CutMix.

    Args:
        arm: Which of them, if any.
        n_classes: Number of classes.
        rank: Axes in space.

    Returns:
        A function of images (n, c, *space) and weighted class probabilities (n, k) that mixes both
        alike, so that loss weights are mixed too.
    """
    if arm.mix is None:
        return lambda x, target: (x, target)
    from torchvision.transforms import v2

    if arm.mix == "mixup":
        mix = v2.MixUp(alpha=MIXUP_ALPHA, num_classes=n_classes)
    else:
        mix = v2.CutMix(alpha=CUTMIX_ALPHA, num_classes=n_classes)
    if rank == 2:
        return mix

    def mix_flattened(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        # torchvision mixes batches of pictures alone: a signal or volume is a picture of one row.
        mixed, target = mix(x.flatten(2)[:, :, None], target)
        return mixed.view_as(x), target

    return mix_flattened
