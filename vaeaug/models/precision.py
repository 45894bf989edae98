"""Precision of networks: float32 to the last bit, or bfloat16 where it is faster."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Casting costs networks of samples of fewer values as much as a processor saves.
MIN_VALUES_ON_PROCESSORS = 400


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


def is_faster_in_bfloat16(device: torch.device, n_values: int) -> bool:
    """Say whether networks train faster in bfloat16 than in float32.

    Cards of 2017 and 2018 and most processors emulate it, slower than float32.

    Args:
        device: The device.
        n_values: Values of a sample.

    Returns:
        Whether the device computes in it, and samples are large enough to gain.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return (
        device.type == "cpu" and n_values > MIN_VALUES_ON_PROCESSORS and _processor_has_bfloat16()
    )


def _processor_has_bfloat16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    older = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(hasattr(torch.cpu, name) and getattr(torch.cpu, name)() for name in older)
