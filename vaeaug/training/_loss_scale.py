"""The factor of the loss under which gradients in float16 neither vanish nor overflow."""

from collections.abc import Sequence

import torch
from torch import Tensor

# The factor at the start, its greatest value, and good steps after which it doubles.
START, MOST, GROWTH = 2.0**12, 2.0**24, 500


class LossScale:
    """Dynamic loss scaling (Micikevicius et al. 2018, arXiv:1710.03740), all of it on the device.

    Args:
        device: Where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.tensor(START, dtype=torch.float32, device=device)
        self.good_steps = torch.zeros((), dtype=torch.float32, device=device)

    @torch.no_grad()
    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Divide gradients of the scaled loss by the factor.

        Args:
            gradients: Changed in place.
        """
        torch._foreach_mul_(list(gradients), 1 / self.factor)

    @torch.no_grad()
    def overflows(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Say whether it is the factor that took a gradient out of range, and adapt the factor.

        Args:
            loss: The loss, not scaled.
            norm: Norm of its gradient.

        Returns:
            Whether the step has to be skipped for that; a boolean scalar. With a factor of 1 it is
            never the factor.
        """
        lost = ~norm.isfinite() & loss.isfinite() & (self.factor > 1)
        grown = torch.where(lost, 0.0, self.good_steps + 1)
        doubles = grown >= GROWTH
        factor = torch.where(doubles, 2 * self.factor, self.factor)
        self.factor.copy_(torch.where(lost, 0.5 * self.factor, factor).clamp(1.0, MOST))
        self.good_steps.copy_(torch.where(doubles, 0.0, grown))
        return lost

    def state_dict(self) -> dict[str, Tensor]:
        """Return the factor and the good steps since it was changed."""
        return {"factor": self.factor, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.factor.copy_(state["factor"])
        self.good_steps.copy_(state["good_steps"])
