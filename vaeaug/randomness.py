"""Seeded random draws of torch code, independent of other threads.

Torch's initialisers and dropout receive no generator from the modules that call them. They use the
generator of the process, from which other threads may draw in between, and the default float type
of the process. Inside `seeded_torch`, both are local to the thread.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn import init
from torch.overrides import TorchFunctionMode

_DRAWING: frozenset[Callable[..., Any]] = frozenset(
    {
        torch._sample_dirichlet,  # used by Beta and Dirichlet, and so by Mixup and CutMix
        torch._standard_gamma,
        torch.bernoulli,
        torch.binomial,
        torch.multinomial,
        torch.normal,
        torch.poisson,
        torch.rand,
        torch.randint,
        torch.randn,
        torch.randperm,
        Tensor.bernoulli,
        Tensor.bernoulli_,
        Tensor.cauchy_,
        Tensor.exponential_,
        Tensor.geometric_,
        Tensor.log_normal_,
        Tensor.multinomial,
        Tensor.normal_,
        Tensor.random_,
        Tensor.uniform_,
        init.kaiming_normal_,
        init.kaiming_uniform_,
        init.normal_,
        init.orthogonal_,
        init.trunc_normal_,
        init.uniform_,
        init.xavier_normal_,
        init.xavier_uniform_,
    }
)
# Functions that create floats of the default type unless a type is given.
_CREATING: frozenset[Callable[..., Any]] = frozenset(
    {torch.empty, torch.eye, torch.linspace, torch.ones, torch.rand, torch.randn, torch.zeros}
)


# masks(input, p): which values dropout keeps, each with probability p; 1 or 0, like the input.
Masks = Callable[[Tensor, float], Tensor]


class _SeededDraws(TorchFunctionMode):
    """A torch mode with its own generator for each device, and float32 as the default type."""

    def __init__(self, seed: int, masks: Masks | None) -> None:
        super().__init__()
        self._seed, self._masks = seed, masks
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func in _DRAWING and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self._generator(_device_of(args, kwargs))}
        if func in _CREATING and kwargs.get("dtype") is None:
            kwargs = {**kwargs, "dtype": torch.float32}
        elif func is torch.tensor and kwargs.get("dtype") is None:
            result = func(*args, **kwargs)
            return result.float() if result.is_floating_point() else result
        return func(*args, **kwargs)

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return input
        if self._masks is None:
            mask = torch.empty_like(input)
            mask.bernoulli_(1 - p, generator=self._generator(input.device))
        else:
            mask = self._masks(input, 1 - p)
        return input * (mask / max(1 - p, torch.finfo(input.dtype).tiny))

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


@contextmanager
def seeded_torch(seed: int, *, foreign: bool = False, masks: Masks | None = None) -> Iterator[None]:
    """Make random draws inside the block a function of the seed; outer generators are unaffected.

    Gradients are computed inside the block, even within `torch.no_grad`.

    Args:
        seed: Seed of the draws.
        foreign: Whether code of other libraries runs in the block, which may draw in ways that take
            no generator. The generators of the process are then seeded too, and restored
            afterwards.
        masks: Draws what dropout keeps. Default: it is drawn like all else.
    """
    with torch.inference_mode(False), torch.enable_grad(), _SeededDraws(seed, masks):
        if not foreign:
            yield
            return
        # `fork_rng` saves and restores the generators of all devices, which are seeded here.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield


def _device_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    """Return the device of a draw: that of the first tensor, or the requested one."""
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, Tensor):
            return argument.device
    device = kwargs.get("device")
    return torch.device("cpu") if device is None else torch.empty(0, device=device).device
