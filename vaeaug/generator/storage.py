"""A generator on disk: safetensors and JSON, nothing that runs."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vaeaug.files import read_whole
from vaeaug.files.json_text import parse_strict, sealed, unsealed
from vaeaug.generator.density import ClassDensity
from vaeaug.generator.image_codec import ImageCodec, LatentSpace
from vaeaug.generator.sound_codec import SoundCodec
from vaeaug.models import CVAE, NOISE_LEVELS, LatentFlow, Restorer, SeparateCVAE
from vaeaug.randomness import seeded_torch
from vaeaug.shards import publish_bytes, sha256_file

FORMAT = "vaeaug-generator"
FORMAT_VERSION = 4
# Earlier versions: without a style and an image codec; without hashes as well.
_WITHOUT_STYLE, _WITHOUT_HASHES = 3, 2
FILES = ("config.json", "model.safetensors", "densities.safetensors")


@dataclass(frozen=True)
class StoredGenerator:
    """What a generator consists of; the arguments of a `Synthesizer`, which describes them."""

    model: CVAE | SeparateCVAE
    densities: Sequence[ClassDensity | None]
    class_names: Sequence[str]
    value_range: tuple[int | float, int | float]
    dtype: str
    means: np.ndarray
    variances: np.ndarray
    labels: np.ndarray
    n_real: int
    data_fingerprint: str
    flow: LatentFlow | None = None
    preferred: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    reach: Mapping[int, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    latent_space: LatentSpace | None = None
    restorer: Restorer | None = None


def save(generator: StoredGenerator, folder: Path) -> None:
    """Write the three files, each replaced whole, the configuration last.

    Args:
        generator: What is written.
        folder: Made where it is missing.

    Raises:
        ShardError: If a file cannot be written.
    """
    from safetensors.numpy import save as save_arrays
    from safetensors.torch import save as save_tensors

    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in generator.model.state_dict().items()
    }
    arrays: dict[str, np.ndarray] = {
        "latents.mean": generator.means,
        "latents.variance": generator.variances,
        "latents.label": generator.labels,
    }
    kinds: dict[str, str] = {}
    for label, density in enumerate(generator.densities):
        if density is not None:
            kinds[str(label)] = density.kind
            arrays[f"density.{label}.weights"] = density.weights
            arrays[f"density.{label}.means"] = density.means
            arrays[f"density.{label}.choleskys"] = density.choleskys
    if generator.flow is not None:
        arrays |= _named(generator.flow, "flow")
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": type(generator.model).__name__,
        "architecture": generator.model.architecture,
        "flow": None if generator.flow is None else generator.flow.architecture,
        "class_names": list(generator.class_names),
        "value_range": list(generator.value_range),
        "dtype": generator.dtype,
        "data_fingerprint": generator.data_fingerprint,
        "n_real": generator.n_real,
        "densities": kinds,
        "notes": list(generator.notes),
        "preferred": {str(label): list(choice) for label, choice in generator.preferred.items()},
        "reach": {str(label): reach for label, reach in generator.reach.items()},
    }
    if generator.restorer is not None:
        config["restorer"] = generator.restorer.architecture
        arrays |= _named(generator.restorer, "restorer")
    if generator.latent_space is not None:
        config["image_codec"] = generator.latent_space.to_json()
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    contents = {
        "model.safetensors": save_tensors(weights),
        "densities.safetensors": save_arrays(arrays),
    }
    for name, content in contents.items():
        publish_bytes(folder / name, content)
    config["files"] = {
        name: hashlib.sha256(content).hexdigest() for name, content in contents.items()
    }
    publish_bytes(folder / "config.json", sealed(config))


def load(folder: Path, codec: str | ImageCodec | SoundCodec | None = None) -> StoredGenerator:
    """Read what `save` wrote.

    Args:
        folder: The generator's folder.
        codec: The image codec that it was trained with, or where that is.

    Returns:
        The generator.

    Raises:
        ValueError: If the format or its version is another, or a file is not what was written.
        Exception: Whatever damage shows as.
    """
    from safetensors.numpy import load_file as load_arrays
    from safetensors.torch import load_file as load_tensors

    data = read_whole(folder / "config.json")
    config = parse_strict(data)
    version = (config.get("format"), config.get("format_version"))
    if version in ((FORMAT, FORMAT_VERSION), (FORMAT, _WITHOUT_STYLE)):
        config = unsealed(data)
        _check_files(folder, config["files"])
    elif version != (FORMAT, _WITHOUT_HASHES):
        raise ValueError(
            f"expected format {FORMAT!r} version {FORMAT_VERSION}, got {version[0]!r} version "
            f"{version[1]!r}"
        )
    arrays = load_arrays(folder / "densities.safetensors")
    _check_size(config, folder / "model.safetensors")
    # Building the networks draws numbers; when that happens must not change what follows.
    with seeded_torch(0):
        model = _build(config["model"], config["architecture"])
    model.load_state_dict(load_tensors(folder / "model.safetensors"))
    flow = None
    if config["flow"] is not None:
        keys = dict(config["flow"])
        with seeded_torch(0):
            flow = LatentFlow(keys.pop("shape"), keys.pop("n_classes"), **keys)
        flow.load_state_dict(_without_name(arrays, "flow"))
    restorer = None
    if "restorer" in config:  # not in earlier generators
        keys = dict(config["restorer"])
        if "fill" not in keys:  # in earlier generators
            keys["fill"] = "around" if keys.pop("fills", False) else "mean"
        with _without_memory():  # before it is known that weights fill it
            restorer = Restorer(keys.pop("image_shape"), **keys)
        named = _without_name(arrays, "restorer")
        named.setdefault("estimates", torch.tensor(NOISE_LEVELS))  # not in earlier generators
        named.setdefault("known_weights", named["weights"])
        restorer.load_state_dict(named, assign=True)
    low, high = config["value_range"]
    return StoredGenerator(
        model=model,
        flow=flow,
        densities=[
            _density(arrays, label, config["densities"])
            for label in range(len(config["class_names"]))
        ],
        class_names=config["class_names"],
        value_range=(low, high),
        dtype=config["dtype"],
        means=arrays["latents.mean"],
        variances=arrays["latents.variance"],
        labels=arrays["latents.label"],
        n_real=config["n_real"],
        data_fingerprint=config["data_fingerprint"],
        notes=config["notes"],
        preferred={int(label): tuple(c) for label, c in config.get("preferred", {}).items()},
        reach={int(label): int(reach) for label, reach in config.get("reach", {}).items()},
        latent_space=(
            LatentSpace.of_json(config["image_codec"], codec) if "image_codec" in config else None
        ),
        restorer=restorer,
    )


def _named(network: nn.Module, name: str) -> dict[str, np.ndarray]:
    """The weights of a network as arrays whose names begin with its name."""
    return {
        f"{name}.{part}": tensor.detach().cpu().numpy()
        for part, tensor in network.state_dict().items()
    }


def _without_name(arrays: dict[str, np.ndarray], name: str) -> dict[str, torch.Tensor]:
    """Invert `_named`."""
    return {
        part.removeprefix(f"{name}."): torch.from_numpy(array)
        for part, array in arrays.items()
        if part.startswith(f"{name}.")
    }


class _Unfilled(TorchFunctionMode):
    """Networks are built without drawing their weights.

    On the meta device there are none; that they are drawn for it imports torch's compiler, which
    takes seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


@contextmanager
def _without_memory() -> Iterator[None]:
    """Networks that are built inside have shapes and types alone."""
    with torch.device("meta"), _Unfilled():
        yield


def _check_files(folder: Path, hashes: dict[str, str]) -> None:
    for name in FILES:
        if name != "config.json" and sha256_file(folder / name) != hashes.get(name):
            raise ValueError(
                f"{name}: expected sha256 {hashes.get(name)}, got {sha256_file(folder / name)}: it "
                f"was changed after it was written, or belongs to another generator"
            )


def _check_size(config: dict[str, Any], weights: Path) -> None:
    """Refuse an architecture that its weights do not fill, before any memory is taken for it."""
    k, n_classes = len(config["class_names"]), config["architecture"]["n_classes"]
    if n_classes != k:
        raise ValueError(f"n_classes: expected {k}, as there are names, got {n_classes!r}")
    with _without_memory():
        planned = _build(config["model"], config["architecture"]).state_dict().values()
    # Floats are stored as float32, whatever type the process makes by default.
    needed = sum(
        tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size())
        for tensor in planned
    )
    if needed > weights.stat().st_size:
        raise ValueError(
            f"architecture: expected one of at most {weights.stat().st_size:,} bytes, which "
            f"{weights.name} has, got one of {needed:,}"
        )


def _build(kind: str, architecture: dict[str, Any]) -> CVAE | SeparateCVAE:
    keys = dict(architecture)
    image_shape, n_classes = keys.pop("image_shape"), keys.pop("n_classes")
    if kind == "SeparateCVAE":
        return SeparateCVAE.build(image_shape, n_classes, **keys)
    return CVAE(image_shape, n_classes, **keys)


def _density(
    arrays: dict[str, np.ndarray], label: int, kinds: dict[str, str]
) -> ClassDensity | None:
    if str(label) not in kinds:
        return None
    return ClassDensity(
        arrays[f"density.{label}.weights"],
        arrays[f"density.{label}.means"],
        arrays[f"density.{label}.choleskys"],
        kinds[str(label)],
    )
