"""Torch code that draws from a generator of its own, whatever other threads draw or have set.

Torch's initialisers and dropout take no generator from the modules that call them: they draw from
the process's one, which another thread may draw from in between. Its default type is the process's
too. Within `seeded_torch` both are the thread's own.
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
        torch._sample_dirichlet,  # of Beta and Dirichlet, which Mixup and CutMix draw from
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
# What makes floats of the default type where none is said.
_MAKING: frozenset[Callable[..., Any]] = frozenset(
    {torch.empty, torch.eye, torch.linspace, torch.ones, torch.rand, torch.randn, torch.zeros}
)


class _OwnDraws(TorchFunctionMode):
    """Draws from generators of its own, one for each device; floats are float32."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
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
        if func in _MAKING and kwargs.get("dtype") is None:
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
        kept = torch.empty_like(input).bernoulli_(1 - p, generator=self._generator(input.device))
        return input * kept.div_(max(1 - p, torch.finfo(input.dtype).tiny))

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


@contextmanager
def seeded_torch(seed: int, *, foreign: bool = False) -> Iterator[None]:
    """What is drawn in here is a function of the seed alone; nothing outside is changed by it.

    Gradients are computed in here, whatever surrounds the call.

    Args:
        seed: Of the draws.
        foreign: Code of others runs in here, which may draw by ways that take no generator. The
            process's generators are then seeded too, and put back.
    """
    with torch.inference_mode(False), torch.enable_grad(), _OwnDraws(seed):
        if not foreign:
            yield
            return
        # `torch.random.fork_rng` looks at all devices; seeding is meant for those it puts back.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield


def _device_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    """The device of what is drawn: of the first tensor, or as it is asked for."""
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, Tensor):
            return argument.device
    device = kwargs.get("device")
    return torch.device("cpu") if device is None else torch.empty(0, device=device).device
