"""Several processes of this machine that train one model and draw one dataset, as torchrun starts.

The process of rank 0 leads: it reads, decides, writes and prints. The others follow: they wait for
its next order, take their part in it, and end when it ends. An order comes by gloo, whose wait
takes no processor time and never times out; tensors of cards go by NCCL.

A batch is divided by its rows *inside* the networks. Every process has the whole batch, its random
numbers and its loss, the same ones as a single process has. A network, whose methods are marked
`row_by_row`, computes the rows of this process, and its results are gathered. So whatever a loss
makes of a batch as a whole (the best sigma of a batch, free bits of a mean KL, codes averaged over
exemplars, halves that are decoded differently) is what it is in one process, and no loss needs to
know. What is left to do is to add up the gradients of the parameters.

`DistributedDataParallel` is not used: it averages the gradients of losses that are means over the
samples of each process, and of one ``forward`` of one module. Here a step calls several methods of
several networks, and its loss is no mean over samples.
"""

import contextlib
import functools
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from enum import IntEnum
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

# Longer than any job: an order may be hours away.
_FOREVER = timedelta(days=3650)
# Seconds that the leader gives a process that fails to say why.
_LAST_WORDS = 3.0
# Bytes of an array that are sent at once.
_PIECE = 2**26
# Keys of the store that the launcher keeps.
_FAILURE, _EXIT, _TOLD = "vaeaug/failure", "vaeaug/exit", "vaeaug/told"

Method = TypeVar("Method", bound=Callable[..., Any])
Content = TypeVar("Content")


class RanksError(RuntimeError):
    """Another process of the job has failed, or the processes cannot work together."""


class Dismissed(SystemExit):
    """This process ends in silence, for the leader has ended."""


class Order(IntEnum):
    """What the leader asks for next."""

    END = 0
    TASK = 1
    STEP = 2
    STATE = 3
    DONE = 4
    DRAW = 5


class Ranks:
    """This process among those that work on a job; `ALONE` where there are no others.

    Attributes:
        rank: Number of this process; 0 leads.
        size: Number of processes.
        local_rank: Number of the card that this process computes on.
        is_busy: Whether the followers are at a task.
        is_broken: Whether an error came in the middle of what all do, so that no order can follow.
        draws: Whether the followers draw blocks of samples when they are asked to.
        kept: The data that all were given last, and how they are told from other data.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.is_busy = self.draws = False
        self.kept: tuple[Any, Any] | None = None
        self.is_broken = False
        self._store: Any = None

    @classmethod
    def from_environment(cls) -> "Ranks | None":
        """Join the processes that ``torchrun`` has started.

        Returns:
            This process among them; None if it was not started with others.

        Raises:
            RanksError: If the processes are of several machines.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
            return None
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        if local_size != size:
            raise RanksError(
                f"torchrun: expected processes of one machine, got {size} of them, {local_size} on "
                "this one; a job does not go over several machines"
            )
        ranks = cls(rank, size, int(os.environ.get("LOCAL_RANK", rank)))
        backend = "gloo"
        if torch.cuda.is_available():
            backend = "cpu:gloo,cuda:nccl"
            if ranks.local_rank < torch.cuda.device_count():
                torch.cuda.set_device(ranks.local_rank)
        dist.init_process_group(backend, timeout=_FOREVER)
        ranks._store = dist.distributed_c10d._get_default_store()
        return ranks

    @property
    def is_leader(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    # -- Orders --------------------------------------------------------------------------------

    def order(self, order: Order, step: int = 0, done: float = 0.0) -> None:
        """Tell the followers what comes next; nothing is told where there are none.

        Args:
            order: What.
            step: Number of a step.
            done: Completed fraction of its stage.
        """
        if self.are_several:
            self._broadcast(torch.tensor([order, step, done], dtype=torch.float64))

    def next_order(self) -> tuple[Order, int, float]:
        """Wait for the leader.

        Returns:
            What it asks for, the number of the step, and the completed fraction of its stage.

        Raises:
            Dismissed: If the job is over.
        """
        told = torch.zeros(3, dtype=torch.float64)
        self._broadcast(told)
        order, step, done = told.tolist()
        if order == Order.END:
            raise Dismissed(int(step))
        return Order(int(order)), int(step), done

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is said and done inside involves all; who leaves it by an error is out of step."""
        try:
            yield
        except BaseException:
            self.is_broken = True
            raise

    def share(self, content: Content | None = None, device: torch.device | None = None) -> Content:
        """Give the leader's content to all.

        Args:
            content: Tensors and plain types; only that of the leader counts.
            device: Where tensors are put. Default: where they were.

        Returns:
            The leader's content.
        """
        if not self.are_several:
            return content  # type: ignore[return-value]
        size = torch.zeros(1, dtype=torch.int64)
        if self.is_leader:
            payload = _packed(content)
            self._broadcast(size.fill_(len(payload)))
            self._broadcast(payload)
            return content  # type: ignore[return-value]
        self._broadcast(size)
        payload = torch.empty(int(size), dtype=torch.uint8)
        self._broadcast(payload)
        return _unpacked(payload, device)

    def share_array(
        self, array: np.ndarray | None, room: Callable[[tuple[int, ...], np.dtype], np.ndarray]
    ) -> np.ndarray:
        """Give an array of the leader to all, piece by piece.

        Args:
            array: C-contiguous; None in a follower.
            room: Makes an array of a shape and a type.

        Returns:
            The array.
        """
        own: Any = None if array is None else {"shape": list(array.shape), "dtype": array.dtype.str}
        about = self.share(own)
        if array is None:
            array = room(tuple(about["shape"]), np.dtype(about["dtype"]))
        flat = array.reshape(-1).view(np.uint8)
        for begin in range(0, len(flat), _PIECE):
            part = flat[begin : begin + _PIECE]
            # The leader's may be mapped for reading only.
            piece = torch.from_numpy(part.copy() if self.is_leader else part)
            self._broadcast(piece)
        return array

    def to_leader(self, content: Any) -> list[Any]:
        """Give the content of every process to the leader.

        Args:
            content: Tensors and plain types.

        Returns:
            In the leader, what each process has, by rank; in the others nothing.
        """
        if self.is_leader:
            received = [content]
            for source in range(1, self.size):
                size = torch.zeros(1, dtype=torch.int64)
                self._said(dist.recv, size, source)
                payload = torch.empty(int(size), dtype=torch.uint8)
                self._said(dist.recv, payload, source)
                received.append(_unpacked(payload, None))
            return received
        payload = _packed(content)
        self._said(dist.send, torch.tensor([len(payload)]), 0)
        self._said(dist.send, payload, 0)
        return []

    # -- Steps ---------------------------------------------------------------------------------

    @contextmanager
    def divided(self) -> Iterator[None]:
        """Inside, methods that are `row_by_row` compute this process's rows and gather all."""
        global _dividing
        before, _dividing = _dividing, self if self.are_several else None
        try:
            yield
        finally:
            _dividing = before

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their sums over the processes, in one message.

        Args:
            tensors: Of one type, changed in place; of the same shapes everywhere.
        """
        if not self.are_several or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._said(dist.all_reduce, flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def gathered(self, mine: Tensor, n: int) -> Tensor:
        """Join the rows of all processes.

        Args:
            mine: As many rows in each process.
            n: Rows in all; those beyond them fill the last ones up and are dropped.

        Returns:
            (n, ...).
        """
        mine = mine.contiguous()
        whole = mine.new_empty((self.size * len(mine), *mine.shape[1:]))
        self._said(dist.all_gather, list(whole.chunk(self.size)), mine)
        return whole[:n]

    def own(self, whole: Tensor) -> Tensor:
        """Select the rows of this process; the last row fills up where there are too few.

        Args:
            whole: (n, ...), n at least 1.

        Returns:
            As many rows in each process.
        """
        n = len(whole)
        size = -(-n // self.size)
        if self.size * size == n:
            return whole[self.rank * size : (self.rank + 1) * size]
        rows = torch.arange(self.rank * size, (self.rank + 1) * size, device=whole.device)
        return whole[rows.clamp(max=n - 1)]

    # -- The end -------------------------------------------------------------------------------

    def fail(self, message: str) -> bool:
        """Leave word for the leader why this process ends.

        Args:
            message: The error, in a line.

        Returns:
            Whether this process has to say it itself: the leader may wait for its card forever.
        """
        with contextlib.suppress(RuntimeError):
            self._store.set(_FAILURE, message)
            return torch.cuda.is_available() and self._claims_to_tell()
        return False

    def failure(self, wait: float = 0.0) -> str | None:
        """Look up why another process has ended.

        Args:
            wait: Seconds to give it.

        Returns:
            Its message; None if it left none.
        """
        if self._store is None:
            return None
        until = time.monotonic() + wait
        with contextlib.suppress(RuntimeError):
            while not self._store.check([_FAILURE]):
                if time.monotonic() >= until:
                    return None
                time.sleep(0.05)
            return str(self._store.get(_FAILURE).decode())
        return None

    def end(self, code: int) -> None:
        """Let the followers end with the exit code of the leader, and leave the group.

        Args:
            code: The exit code.
        """
        with contextlib.suppress(RuntimeError):
            self._store.set(_EXIT, str(code))
        if not self.is_broken:
            with contextlib.suppress(RuntimeError, Dismissed):
                self.order(Order.END, code)
        self.leave()

    def leave(self) -> None:
        """Leave the group; others that wait for this process find the connection closed."""
        if not (self.is_broken and torch.cuda.is_available()):  # a card may wait forever
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()

    def exit_code(self) -> int | None:
        """Look up the exit code of the leader.

        Returns:
            The code; None if the leader did not end by itself.
        """
        until = time.monotonic() + _LAST_WORDS
        with contextlib.suppress(RuntimeError):
            while time.monotonic() < until:
                if self._store.check([_EXIT]):
                    return int(self._store.get(_EXIT))
                time.sleep(0.05)
        return None

    def _claims_to_tell(self) -> bool:
        """Whether this process is the first that wants to print why the job ends."""
        return bool(self._store.add(_TOLD, 1) == 1)

    def _broadcast(self, tensor: Tensor) -> None:
        self._said(dist.broadcast, tensor, 0)

    def _said(self, say: Callable[..., Any], *arguments: Any) -> None:
        """Communicate; where another process is gone, end as it did."""
        try:
            say(*arguments)
        except RuntimeError as error:
            self.is_broken = True
            self._give_up(error)

    def _give_up(self, error: RuntimeError) -> NoReturn:
        if not self.is_leader:
            code = self.exit_code()
            if code is not None:
                raise Dismissed(code) from error
            with contextlib.suppress(RuntimeError):
                if not self._claims_to_tell():
                    raise Dismissed(1) from error
            raise RanksError(
                "the process of rank 0 was ended from outside (killed, or out of memory); the same "
                "command resumes"
            ) from error
        message = self.failure(wait=_LAST_WORDS)
        with contextlib.suppress(RuntimeError):
            if not self._claims_to_tell():
                raise Dismissed(1) from error
        raise RanksError(
            message
            or f"another of the {self.size} processes was ended from outside (killed, or out of "
            f"memory: {str(error).splitlines()[0][:200]}); the same command resumes"
        ) from error


ALONE = Ranks()
# The processes that a training is divided over, and those that a step inside `divided` is.
_current: Ranks = ALONE
_dividing: Ranks | None = None


def current() -> Ranks:
    """Look up the processes that work on this job.

    Returns:
        This process among them; `ALONE` where there are no others.
    """
    return _current


@contextmanager
def joined(ranks: Ranks) -> Iterator[None]:
    """Inside, trainings and draws are divided over these processes.

    Args:
        ranks: This process among them.
    """
    global _current
    before, _current = _current, ranks
    try:
        yield
    finally:
        _current = before


def launcher(processes: int | None = None) -> list[str]:
    """Say how a command is started in several processes.

    Args:
        processes: Their number. Default: that of this job.

    Returns:
        Words before the name of the program; none for one process.
    """
    n = _current.size if processes is None else processes
    return [] if n == 1 else ["torchrun", "--standalone", f"--nproc-per-node={n}", "-m"]


def row_by_row(method: Method) -> Method:
    """Mark a method of a network each of whose results depends on its own row of the arguments.

    Inside `Ranks.divided` it is called with the rows of this process, and its results are gathered.
    Parameters that are trained there must not be used outside such methods: their gradients are
    added up.

    Args:
        method: Tensors with rows to tensors, tuples or dataclasses of tensors with as many rows.

    Returns:
        The method.
    """

    @functools.wraps(method)
    def by_row(*arguments: Any, **keys: Any) -> Any:
        global _dividing
        if _dividing is None:
            return method(*arguments, **keys)
        ranks, _dividing = _dividing, None
        try:
            tensors = [each for each in (*arguments, *keys.values()) if isinstance(each, Tensor)]
            n = len(tensors[0])
            mine = [_mine(each, ranks) for each in arguments]
            my_keys = {name: _mine(each, ranks) for name, each in keys.items()}
            return _gathered(method(*mine, **my_keys), ranks, n)
        finally:
            _dividing = ranks

    return by_row  # type: ignore[return-value]


def _mine(value: Any, ranks: Ranks) -> Any:
    if not isinstance(value, Tensor):
        return value
    return _Scatter.apply(value, ranks) if value.requires_grad else ranks.own(value)


def _gathered(value: Any, ranks: Ranks, n: int) -> Any:
    if isinstance(value, Tensor):
        return _Gather.apply(value, ranks, n) if value.requires_grad else ranks.gathered(value, n)
    if isinstance(value, tuple):
        return tuple(_gathered(each, ranks, n) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts: Mapping[str, Any] = {
            each.name: _gathered(getattr(value, each.name), ranks, n) for each in fields(value)
        }
        return replace(value, **parts)
    raise TypeError(f"row_by_row: expected tensors, got {type(value).__name__}")


class _Scatter(torch.autograd.Function):
    """From the whole to the rows of this process; the gradient of the whole is that of all."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.n = ranks, len(whole)
        return ranks.own(whole).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.gathered(gradient, ctx.n), None


class _Gather(torch.autograd.Function):
    """From the rows of this process to the whole, whose gradient every process has."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, ranks: Ranks, n: int) -> Tensor:
        ctx.ranks, ctx.size, ctx.n = ranks, len(mine), n
        return ranks.gathered(mine, n)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        begin = ctx.ranks.rank * ctx.size
        mine = gradient[begin : begin + ctx.size]
        if len(mine) < ctx.size:  # the rows that fill up were dropped
            missing = mine.new_zeros((ctx.size - len(mine), *mine.shape[1:]))
            mine = torch.cat([mine, missing])
        return mine, None, None


def _packed(content: Any) -> Tensor:
    file = io.BytesIO()
    torch.save(content, file)
    return torch.frombuffer(bytearray(file.getbuffer()), dtype=torch.uint8)


def _unpacked(payload: Tensor, device: torch.device | None) -> Any:
    file = io.BytesIO(payload.numpy().tobytes())
    return torch.load(file, map_location=device, weights_only=True)
