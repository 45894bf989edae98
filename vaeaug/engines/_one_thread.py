"""Every task computes with one thread, wherever it runs: sums are then rounded the same way."""

from collections.abc import Iterator
from contextlib import contextmanager

from vaeaug.threads import torch_threads


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread of torch and of the linear algebra of numpy and scikit-learn."""
    from threadpoolctl import threadpool_limits

    with torch_threads(1), threadpool_limits(1):
        yield
