"""How many threads torch computes with on the CPU: sums are rounded otherwise by another number."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Compute with so many threads inside, and with as many as before afterwards.

    Args:
        n: Number of threads, 1 or more; more than the machine has cores is slow, not wrong.
    """
    import torch

    before = torch.get_num_threads()
    if n == before:
        yield
        return
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
