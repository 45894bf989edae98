"""The networks that are trained as probes: a small one, ResNet-18, or the user's own."""

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vaeaug.models import LogSpectrogram
from vaeaug.shapes import are_features
from vaeaug.spectrogram import Spectrogram

# factory(image_shape, n_classes) builds a network: (n, c, *space) in [0, 1] to logits (n, k).
ProbeFactory = Callable[[tuple[int, ...], int], nn.Module]

# Images with a longer side get torchvision's ResNet-18.
LARGE_SIDE = 64
DROPOUT = 0.3


class ProbeError(ValueError):
    """The user's classifier cannot be used."""


@dataclass(frozen=True)
class FileProbe:
    """A `ProbeFactory` that is a function in a file of the user's; it is pickled by its path.

    Attributes:
        path: A Python file, which is run with all the rights of the user.
        name: A function (image_shape, n_classes) -> torch Module in it.
    """

    path: str
    name: str

    @property
    def __name__(self) -> str:
        return f"{self.path}:{self.name}"

    def __call__(self, image_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Build the network.

        Args:
            image_shape: (*space, c).
            n_classes: Number of logits.

        Returns:
            The network.

        Raises:
            ProbeError: If there is no such file or function, or it gives no network.
        """
        if not Path(self.path).is_file():
            raise ProbeError(f"--probe: expected a Python file, got {self.path!r}, which is none")
        factory = runpy.run_path(self.path).get(self.name)
        if not callable(factory):
            raise ProbeError(
                f"--probe: expected a function {self.name!r} in {self.path}, got "
                f"{type(factory).__name__}"
            )
        network = factory(image_shape, n_classes)
        if not isinstance(network, nn.Module):
            raise ProbeError(
                f"--probe: expected {self.name!r} to give a torch Module, got "
                f"{type(network).__name__}"
            )
        return network


def default_steps(n_images: int) -> int:
    """Choose a number of steps after which the probe hardly gains, as measured on our data sets.

    Args:
        n_images: Training images.

    Returns:
        Optimiser steps, 400 to 6,000.
    """
    return int(min(6000, max(400, 16 * n_images**0.5)))


def is_head(image_shape: tuple[int, ...], factory: ProbeFactory | None) -> bool:
    """Tell whether the probe is a linear head on features, which is trained in its own way.

    Args:
        image_shape: Shape of a sample.
        factory: Builds the user's network.

    Returns:
        True for feature vectors, unless the user has a network of their own.
    """
    return factory is None and are_features(image_shape)


def build_probe(
    image_shape: tuple[int, ...],
    n_classes: int,
    *,
    width: int,
    factory: ProbeFactory | None = None,
    spectrogram: Spectrogram | None = None,
) -> nn.Module:
    """Build the user's network, or ResNet-18 for large images, or the small one.

    Args:
        image_shape: (*space, c), one to three axes in space.
        n_classes: Number of logits.
        width: Channels of the small network's first convolution.
        factory: Builds the user's network.
        spectrogram: By which the small network sees sounds; None: it sees samples as they are.

    Returns:
        The network: (n, c, *space) in [0, 1] to logits (n, k).
    """
    if factory is not None:
        return factory(image_shape, n_classes)
    if spectrogram is not None:
        seen = LogSpectrogram(spectrogram)
        return nn.Sequential(seen, small_cnn((*seen.grid, image_shape[-1]), n_classes, width=width))
    if _is_large(image_shape):
        from torchvision.models import resnet18

        network = resnet18(num_classes=n_classes)
        network.conv1 = nn.Conv2d(image_shape[-1], 64, 7, stride=2, padding=3, bias=False)
        return network
    return small_cnn(image_shape, n_classes, width=width)


def probe_name(image_shape: tuple[int, ...], *, width: int, factory: ProbeFactory | None) -> str:
    """Name what `build_probe` builds.

    Args:
        image_shape: (*space, c).
        width: Channels of the small network's first convolution.
        factory: Builds the user's network.

    Returns:
        The network in words.
    """
    if is_head(image_shape, factory):
        return f"linear head on {image_shape[-1]} features"
    if factory is not None:
        return str(getattr(factory, "__name__", type(factory).__name__))
    if _is_large(image_shape):
        return "ResNet-18"
    return f"small CNN, {width} to {4 * width} channels"


def small_cnn(image_shape: tuple[int, ...], n_classes: int, *, width: int) -> nn.Module:
    """Build three convolutions with batch norm and a linear layer; they halve large samples.

    Args:
        image_shape: (*space, c), one to three axes in space.
        n_classes: Number of logits.
        width: Channels of the first convolution, doubled twice.

    Returns:
        The network: (n, c, *space) in [0, 1] to logits (n, k).
    """
    rank = len(image_shape) - 1
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1]
    large = min(image_shape[:-1]) >= 16
    layers: list[nn.Module] = []
    n_in = image_shape[-1]
    for number in range(3):
        n_out = width * 2**number
        size, stride = (5, 2) if large and number == 0 else (3, 2 if number else 1)
        layers += [
            conv(n_in, n_out, size, stride=stride, padding=size // 2, bias=False),
            norm(n_out),
            nn.ReLU(),
        ]
        n_in = n_out
    side = 4 if rank < 3 else 2
    flat = n_in * side**rank
    return nn.Sequential(
        *layers, pool(side), nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(flat, n_classes)
    )


def _is_large(image_shape: tuple[int, ...]) -> bool:
    return len(image_shape) == 3 and max(image_shape[:2]) > LARGE_SIDE
