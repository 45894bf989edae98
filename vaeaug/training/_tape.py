"""What changes from step to step, and the repetition of a recorded step.

A step of training depends on its number, and on the completed fraction of its stage, only through
what it asks of a `Tape`: its batch, random draws, weights. A tape usually just makes what it is
asked for. While it records, it also keeps it in buffers and remembers how it was made. A step that
was captured as a CUDA graph is another step once the buffers are filled anew, and the device need
not wait for Python between its thousand small kernels.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

# Metrics of a step by name, those on the device not yet read.
Metrics = dict[str, Tensor | float]

log = logging.getLogger("vaeaug")

# Steps before the recording: libraries choose their algorithms in the first ones.
WARM_UP = 3


@dataclass(frozen=True)
class _Draw:
    """Tensors and how they are made of (step, done)."""

    buffers: tuple[Tensor, ...]
    make: Callable[[int, float], tuple[Tensor, ...]]


@dataclass(frozen=True)
class _Constant:
    """A value that is part of the recorded step, and how it is made."""

    value: Hashable
    make: Callable[[int, float], Hashable]


class Tape:
    """Makes what changes from step to step; see the module.

    Args:
        device: Where the buffers are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._is_recording = self._is_reading = False
        self._draws: list[_Draw] = []
        self._numbers: list[Callable[[int, float], float]] = []
        self._constants: list[_Constant] = []
        self._values = torch.empty(0)
        self._next = self._next_number = self._next_constant = 0

    def tensors(
        self,
        make: Callable[[int, float], tuple[Tensor, ...]],
        *,
        step: int = 0,
        done: float = 0.0,
    ) -> tuple[Tensor, ...]:
        """Make tensors that differ from step to step, but not in shape.

        Args:
            make: Makes them of the number of the step and the completed fraction of the stage.
            step: Number of this step.
            done: Completed fraction.

        Returns:
            The tensors.
        """
        if self._is_reading:
            draw = self._draws[self._next]
            self._next += 1
            return draw.buffers
        if not self._is_recording:
            return make(step, done)
        self._is_recording = False  # what `make` draws is part of it
        made = tuple(tensor.clone() for tensor in make(step, done))
        self._is_recording = True
        self._draws.append(_Draw(made, make))
        return made

    def tensor(
        self, make: Callable[[int, float], Tensor], *, step: int = 0, done: float = 0.0
    ) -> Tensor:
        """Make one such tensor; see `tensors`.

        Args:
            make: Makes it.
            step: Number of this step.
            done: Completed fraction.

        Returns:
            The tensor.
        """
        return self.tensors(lambda step, done: (make(step, done),), step=step, done=done)[0]

    def number(
        self, make: Callable[[int, float], float], *, step: int = 0, done: float = 0.0
    ) -> float | Tensor:
        """Make a number that differs from step to step.

        Args:
            make: Makes it of the number of the step and the completed fraction of the stage.
            step: Number of this step.
            done: Completed fraction.

        Returns:
            A float; a scalar on the device while a step is recorded or captured.
        """
        if self._is_reading:
            self._next_number += 1
            return self._values[self._next_number - 1]
        if not self._is_recording:
            return make(step, done)
        self._numbers.append(make)
        return torch.tensor(make(step, done), dtype=torch.float32, device=self.device)

    def constant(
        self, make: Callable[[int, float], Any], *, step: int = 0, done: float = 0.0
    ) -> Any:
        """Make a value that decides what a step does; another value ends a recording.

        Args:
            make: Makes it of the number of the step and the completed fraction of the stage.
            step: Number of this step.
            done: Completed fraction.

        Returns:
            The value.
        """
        if self._is_reading:
            self._next_constant += 1
            return self._constants[self._next_constant - 1].value
        value = make(step, done)
        if self._is_recording:
            self._constants.append(_Constant(value, make))
        return value

    def record(self, work: Callable[[], Any]) -> Any:
        """Do the work of a step, and remember what it asks for.

        Args:
            work: The step.

        Returns:
            What it returns.
        """
        self._draws, self._numbers, self._constants = [], [], []
        self._is_recording = True
        try:
            result = work()
        finally:
            self._is_recording = False
        self._values = torch.zeros(len(self._numbers), dtype=torch.float32, device=self.device)
        return result

    def read(self, work: Callable[[], Any]) -> Any:
        """Do the work of a step with what is in the buffers.

        Args:
            work: The step, which asks for the same as the recorded one.

        Returns:
            What it returns.
        """
        self._next = self._next_number = self._next_constant = 0
        self._is_reading = True
        try:
            return work()
        finally:
            self._is_reading = False

    def refill(self, step: int, done: float) -> bool:
        """Fill the buffers for another step.

        Args:
            step: Its number.
            done: Completed fraction of the stage.

        Returns:
            Whether the recorded step can be that step: its constants are the same.
        """
        if any(each.make(step, done) != each.value for each in self._constants):
            return False
        for draw in self._draws:
            for buffer, made in zip(draw.buffers, draw.make(step, done), strict=True):
                buffer.copy_(made, non_blocking=True)
        if self._numbers:
            values = [make(step, done) for make in self._numbers]
            self._values.copy_(torch.tensor(values, dtype=torch.float32), non_blocking=True)
        return True


class Captured(Protocol):
    """A step that was captured."""

    def replay(self) -> None:
        """Do it again with what is in the buffers now."""


class Repeated:
    """A step of training that is recorded, captured and then replayed.

    Where the capture fails, steps go on being executed as usual, and the log says why.

    Args:
        tape: Makes what the step asks for.
        work: The step: of its number and the completed fraction of the stage to metrics.
        capture: Captures work on the device without doing it. Default: as a CUDA graph.
    """

    def __init__(
        self,
        tape: Tape,
        work: Callable[[int, float], Metrics],
        capture: Callable[[Callable[[], None]], Captured] | None = None,
    ) -> None:
        self._tape, self._work = tape, work
        self._capture = capture or _cuda_graph
        self._taken, self._is_recorded, self._has_failed = 0, False, False
        self._captured: Captured | None = None
        self._metrics: Metrics = {}

    def __call__(self, step: int, done: float) -> Metrics:
        """Take a step.

        Args:
            step: Its number.
            done: Completed fraction of the stage.

        Returns:
            Its metrics, which the next step overwrites.
        """
        if self._has_failed or self._taken < WARM_UP:
            self._taken += 1
            return self._work(step, done)
        if not self._is_recorded or not self._tape.refill(step, done):
            self._captured, self._is_recorded = None, True
            return self._tape.record(lambda: self._work(step, done))
        if self._captured is None and not self._try_to_capture(step, done):
            return self._work(step, done)
        assert self._captured is not None
        self._captured.replay()
        return self._metrics

    def _try_to_capture(self, step: int, done: float) -> bool:
        def work() -> None:
            self._metrics = self._work(step, done)

        try:
            self._captured = self._capture(lambda: self._tape.read(work))
        except RuntimeError as error:
            log.info(
                "the steps are launched one by one: they cannot be captured as a CUDA graph (%s)",
                str(error).splitlines()[0],
            )
            self._has_failed = True
        return not self._has_failed


def _cuda_graph(work: Callable[[], None]) -> Captured:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(
        graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
    ):
        work()
    return graph
