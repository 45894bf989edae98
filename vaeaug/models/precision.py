"""Precision of networks on a card."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute convolutions in float32, by algorithms that give the same result every time.

    By default cuDNN rounds the factors of float32 convolutions to ten bits (TF32), which changes
    about one gray level in fifty by one. Nothing changes on a CPU. Also a decorator.
    """
    settings = torch.backends.cudnn
    before = settings.allow_tf32, settings.deterministic
    settings.allow_tf32, settings.deterministic = False, True
    try:
        yield
    finally:
        settings.allow_tf32, settings.deterministic = before
