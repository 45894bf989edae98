"""Backbones: torchvision's, timm's, or one of the user's own. Nothing is ever downloaded."""

import hashlib
import inspect
import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaeaug.files import open_regular
from vaeaug.models import exact_float32, weights_sha256
from vaeaug.randomness import seeded_torch

# What ImageNet networks of torchvision expect, for values in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_SIZE = (224, 224)
# Names under which checkpoints hold the weights among other things, and what wrappers put before
# the name of each.
_HOLDERS = ("state_dict", "model_state_dict", "model", "teacher", "student")
_PREFIXES = ("module.", "_orig_mod.", "backbone.")
_KINDS = "torchvision:NAME:WEIGHTS, timm:NAME:WEIGHTS or FILE.py:NAME"


class EmbeddingError(ValueError):
    """A backbone that cannot be used, or data that it cannot embed."""


@dataclass(frozen=True)
class Backbone:
    """A frozen network and what it expects.

    Attributes:
        name: For provenance and messages.
        network: Takes images (n, c, h, w) and gives features (n, f), or maps (n, f, h', w'), which
            are then averaged over space.
        size: Height and width in pixels that images are resized to; None: as they are.
        mean: Subtracted from values in [0, 1], one for each channel; empty: nothing.
        std: Divides them then, one for each channel; empty: nothing.
        weights_sha256: Hash of the file of its weights; None where it has none.
    """

    name: str
    network: Callable[[Tensor], Any]
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    weights_sha256: str | None = None

    def to(self, device: torch.device) -> "Backbone":
        """Move the network to a device, and freeze it.

        Args:
            device: Where to.

        Returns:
            This backbone.
        """
        if isinstance(self.network, nn.Module):
            self.network.to(device).eval().requires_grad_(False)
        return self

    def prepared(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """Resize and normalise images, and give gray ones three channels, as the network expects.

        Args:
            x: Images in [0, 1].

        Returns:
            What the network takes.

        Raises:
            EmbeddingError: If the images have another number of channels than the network.
        """
        n_channels = len(self.mean)
        if n_channels == 3 and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if n_channels and x.shape[1] != n_channels:
            raise EmbeddingError(
                f"backbone {self.name}: expected images of {n_channels} channels, got "
                f"{x.shape[1]}; mode='RGB' (--mode RGB) reads them in colour"
            )
        if self.size is not None and tuple(x.shape[2:]) != self.size:
            x = nn.functional.interpolate(x, self.size, mode="bilinear", antialias=True)
            x = x.clamp(0, 1)
        if not n_channels:
            return x
        shape = (1, -1, 1, 1)
        mean, std = (torch.tensor(v, device=x.device).view(shape) for v in (self.mean, self.std))
        return (x - mean) / std

    @exact_float32()
    @torch.no_grad()
    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
        """Embed images.

        Args:
            x: Images in [0, 1], on the device.

        Returns:
            float32 features, on the device.

        Raises:
            EmbeddingError: If the network gives no vector per image, or numbers that are not
                finite.
        """
        features = self.network(self.prepared(x))
        if isinstance(features, Tensor) and features.ndim == 4:
            features = features.mean(dim=(2, 3))
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(x):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise EmbeddingError(
                f"backbone {self.name}: expected features of shape ({len(x)}, f) or maps "
                f"({len(x)}, f, h, w) for {len(x)} images, got {got}"
            )
        features = features.float()
        if not features.isfinite().all():
            raise EmbeddingError(
                f"backbone {self.name}: expected finite features, got NaN or infinity"
            )
        return features


def load_backbone(
    text: str, *, random_weights: bool = False, size: tuple[int, int] | None = None
) -> Backbone:
    """Load a backbone by its name.

    Args:
        text: "torchvision:NAME:WEIGHTS" and "timm:NAME:WEIGHTS", where WEIGHTS is a file of this
            network's weights (.pth, .pt, .bin or .safetensors) and the last linear layer is left
            out; or "FILE.py:NAME", a function of images, a network, or a function without arguments
            that gives one. The file is run with all the rights of the user. It gets images in
            [0, 1] as they are; a network may state ``input_size`` (height, width), ``mean`` and
            ``std``.
        random_weights: Take untrained weights where no file is given, for a trial.
        size: Height and width that images are resized to; None: what the backbone states, 224 x 224
            for torchvision's.

    Returns:
        The backbone, on the CPU.

    Raises:
        EmbeddingError: If there is no such network or file, or the weights are not its own.
    """
    head, colon, rest = text.partition(":")
    if not colon or not rest:
        raise EmbeddingError(f"backbone: expected {_KINDS}, got {text!r}")
    if head in ("torchvision", "timm"):
        name, colon, file = rest.partition(":")
        if not colon and not random_weights:
            raise EmbeddingError(
                f"backbone {text}: expected a file with the weights of {name!r}, as "
                f"{text}:FILE.pth, got none; nothing is downloaded, and features of untrained "
                f"weights say little (random_weights=True, --random-weights takes them)"
            )
        load = _torchvision if head == "torchvision" else _timm
        return load(text, name, Path(file) if colon else None, size)
    path, _, name = text.rpartition(":")
    return _from_file(text, Path(path), name, size)


def _torchvision(text: str, name: str, file: Path | None, size: tuple[int, int] | None) -> Backbone:
    from torchvision.models import get_model, list_models

    try:
        with seeded_torch(0, foreign=True):
            network = get_model(name, weights=None)
    except ValueError:
        raise EmbeddingError(
            f"backbone {text}: expected a model of torchvision ({_some(list_models())}), got "
            f"{name!r}"
        ) from None
    head = _last_linear(network, text)
    sha256 = None
    if file is not None:
        sha256 = _load_weights(network, file, text, is_head=lambda key: _is_in(key, head))
    parent, _, last = head.rpartition(".")
    setattr(network.get_submodule(parent), last, nn.Identity())
    return Backbone(text, network, size or IMAGENET_SIZE, IMAGENET_MEAN, IMAGENET_STD, sha256)


def _timm(text: str, name: str, file: Path | None, size: tuple[int, int] | None) -> Backbone:
    try:
        import timm
        from timm.data import resolve_data_config
    except ImportError as error:
        raise EmbeddingError(
            f"backbone {text}: expected timm to be installed: pip install 'vaeaug[timm]'"
        ) from error
    if not timm.is_model(name):
        raise EmbeddingError(
            f"backbone {text}: expected a model of timm ({_some(timm.list_models())}), got {name!r}"
        )
    with seeded_torch(0, foreign=True):
        network = timm.create_model(name, pretrained=False, num_classes=0)
    sha256 = None
    if file is not None:
        # Made without a classifier, whose weights the file may have all the same.
        own = frozenset(network.state_dict())
        sha256 = _load_weights(
            network, file, text, is_head=lambda key: key not in own and _is_classifier(key)
        )
    stated = resolve_data_config({}, model=network)
    height, width = stated["input_size"][-2:]
    mean, std = (tuple(map(float, stated[key])) for key in ("mean", "std"))
    return Backbone(text, network, size or (height, width), mean, std, sha256)


def _from_file(text: str, path: Path, name: str, size: tuple[int, int] | None) -> Backbone:
    """A function, a network or a factory in a Python file."""
    if path.suffix != ".py" or not path.is_file():
        raise EmbeddingError(
            f"backbone {text}: expected {_KINDS}, got no Python file {str(path)!r}"
        )
    with open_regular(path) as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    found = runpy.run_path(str(path)).get(name)
    if not callable(found):
        raise EmbeddingError(
            f"backbone {text}: expected a function, a network or a class {name!r} in {path}, got "
            f"{type(found).__name__}"
        )
    return from_callable(found, text, size=size, sha256=sha256)


def from_callable(
    network: Callable[..., Any],
    name: str,
    *,
    size: tuple[int, int] | None = None,
    sha256: str | None = None,
) -> Backbone:
    """A backbone of a function, a network, or a function without arguments that gives either.

    Args:
        network: The function, network or factory.
        name: For provenance and messages.
        size: Height and width that images are resized to; None: what the network states.
        sha256: Hash of its file.

    Returns:
        The backbone.

    Raises:
        EmbeddingError: If a factory gives neither.
    """
    if not isinstance(network, nn.Module) and _takes_nothing(network):
        with seeded_torch(0, foreign=True):
            network = network()
        if not callable(network):
            raise EmbeddingError(
                f"backbone {name}: expected a function or a network from it, got "
                f"{type(network).__name__}"
            )
    stated = getattr(network, "input_size", None)
    if size is None and stated is not None:
        size = (int(stated[0]), int(stated[1]))
    mean, std = (tuple(map(float, getattr(network, key, ()))) for key in ("mean", "std"))
    if len(mean) != len(std):
        raise EmbeddingError(
            f"backbone {name}: expected mean and std of one length, got {len(mean)} and {len(std)}"
        )
    if sha256 is None and isinstance(network, nn.Module):
        sha256 = weights_sha256(network)
    return Backbone(name, network, size, mean, std, sha256)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    """Whether a function or class needs no argument: then it makes a network."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in variadic for p in parameters)


def _load_weights(
    network: nn.Module, file: Path, where: str, *, is_head: Callable[[str], bool]
) -> str:
    """Load a file of weights into a network; those of its classifier do not matter.

    Returns:
        SHA-256 of the file.
    """
    if not file.is_file():
        raise EmbeddingError(f"backbone {where}: expected a file of weights, got no file {file}")
    with open_regular(file) as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    state = _read_weights(file, where)
    own = {key: value for key, value in network.state_dict().items() if not is_head(key)}
    missing = [key for key in own if key not in state]
    others = [key for key in state if key not in own and not is_head(key)]
    shapes = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or others or shapes:
        faults = (("missing", missing), ("unknown", others), ("of another shape", shapes))
        found = "; ".join(f"{len(keys)} {what} ({_some(keys)})" for what, keys in faults if keys)
        raise EmbeddingError(
            f"backbone {where}: expected the weights of this network in {file}, got {found}"
        )
    network.load_state_dict({key: state[key] for key in own}, strict=False)
    return sha256


def _read_weights(file: Path, where: str) -> dict[str, Tensor]:
    """The tensors of a file, without what wrappers put around them; no pickle is executed."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as many things
        raise EmbeddingError(
            f"backbone {where}: {file} cannot be read as weights ({type(error).__name__}: {error})"
        ) from error
    for holder in _HOLDERS:
        if isinstance(state, Mapping) and isinstance(state.get(holder), Mapping):
            state = state[holder]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise EmbeddingError(
            f"backbone {where}: expected tensors by name in {file}, got {type(state).__name__}"
        )
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def _last_linear(network: nn.Module, where: str) -> str:
    """Name of the last linear layer, which turns features into classes."""
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not names:
        raise EmbeddingError(
            f"backbone {where}: expected a network that ends in a linear layer, whose input are "
            f"the features, got none; wrap it in a file (FILE.py:NAME)"
        )
    return names[-1]


def _is_in(key: str, module: str) -> bool:
    return key.startswith(f"{module}.")


def _is_classifier(key: str) -> bool:
    """Whether a weight of a file of timm is one of its classifier."""
    return key.startswith(("head.", "head_dist.", "fc.", "classifier.", "last_linear."))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown}, ... {len(names)} in all" if len(names) > 4 else shown
