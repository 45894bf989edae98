"""Integrations with other libraries: transforms for data loaders, and data modules.

`VAEMix` and `LatentAugment` are torchvision v2 transforms; `SyntheticPool` and
`vaeaug.integrations.albumentations.LatentAugment` are albumentations transforms. Each library is
loaded when one of its transforms is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaeaug.integrations._artefacts import TransformError
    from vaeaug.integrations.albumentations import SyntheticPool, worker_init_fn
    from vaeaug.integrations.torchvision import LatentAugment, VAEMix

_HOME = {
    "LatentAugment": "torchvision",
    "SyntheticPool": "albumentations",
    "TransformError": "_artefacts",
    "VAEMix": "torchvision",
    "worker_init_fn": "albumentations",
}

__all__ = ["LatentAugment", "SyntheticPool", "TransformError", "VAEMix", "worker_init_fn"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vaeaug.integrations' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vaeaug.integrations.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
