"""A frozen image codec: the generator learns and draws in its latents, and it decodes them.

A VAE of pixels is blurred where images are large. An autoencoder that was trained on many images
keeps their detail, and its latents are small (Rombach et al. 2022, arXiv:2112.10752). Nothing is
ever downloaded.
"""

import hashlib
import json
import runpy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor, nn

from vaeaug.config import ConfigError
from vaeaug.data import LabelledImages
from vaeaug.files import open_regular, read_whole
from vaeaug.generator.sound_codec import SOURCE as SOUND
from vaeaug.generator.sound_codec import SoundCodec
from vaeaug.memory import blocks
from vaeaug.models import exact_float32, scale_images, weights_sha256
from vaeaug.randomness import seeded_torch
from vaeaug.spectrogram import Spectrogram

_KINDS = "FILE.py:NAME or a folder of a diffusers autoencoder"
# Autoencoders of diffusers that a folder may hold.
_CLASSES = ("AutoencoderKL", "AutoencoderTiny")
# Images that go through the codec at once.
_IMAGES = 16


class ImageCodecError(ConfigError):
    """A codec that cannot be used, or images that it cannot encode."""


@dataclass(frozen=True)
class ImageCodec:
    """A frozen autoencoder of images.

    Attributes:
        source: "FILE.py:NAME", or a folder.
        sha256: Hash of the file or files, and of the weights of a network from a file.
        network: Has ``encode``, from images (n, c, h, w) in [0, 1] to latents (n, d, h', w'), and
            ``decode``, which inverts it.
    """

    source: str
    sha256: str
    network: Any

    def __reduce__(self) -> tuple[Callable[..., "ImageCodec"], tuple[str]]:
        """Pickle the source alone: classes of a file that was run cannot be found by name."""
        return ImageCodec.load, (self.source,)

    @classmethod
    def load(cls, source: str) -> "ImageCodec":
        """Load a codec.

        Args:
            source: "FILE.py:NAME", an object with ``encode`` and ``decode`` or a function without
                arguments that gives one; the file is run with all the rights of the user. Or a
                folder of weights of diffusers' `AutoencoderKL` or `AutoencoderTiny` (TAESD).

        Returns:
            The codec, on the CPU.

        Raises:
            ImageCodecError: If there is no such file or folder, or no codec in it.
        """
        path, colon, name = source.rpartition(":")
        if colon and path.endswith(".py"):
            return _from_file(source, Path(path), name)
        if Path(source).is_dir():
            return _from_folder(source, Path(source))
        raise ImageCodecError(f"codec: expected {_KINDS}, got {source!r}")

    def to(self, device: torch.device | str) -> "ImageCodec":
        """Move the network to a device.

        Args:
            device: Where to.

        Returns:
            This codec.
        """
        if isinstance(self.network, nn.Module):
            self.network.to(device)
        return self

    @exact_float32()
    @torch.no_grad()
    def encode(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """Encode images.

        Args:
            x: Images in [0, 1].

        Returns:
            Latents.

        Raises:
            ImageCodecError: If the latents are no finite grids, one for each image.
        """
        latents = self.network.encode(x)
        is_grid = isinstance(latents, Tensor) and latents.ndim == x.ndim
        if not is_grid or len(latents) != len(x):
            got = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
            raise ImageCodecError(
                f"codec {self.source}: expected latents of shape ({len(x)}, d, h, w) from encode, "
                f"got {got}"
            )
        if not latents.isfinite().all():
            raise ImageCodecError(f"codec {self.source}: expected finite latents from encode")
        return latents.float()

    @exact_float32()
    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "n d h2 w2"], shape: tuple[int, ...]
    ) -> Float[Tensor, "n c h w"]:
        """Decode latents.

        Args:
            latents: As `encode` gives them.
            shape: (c, h, w) of the images.

        Returns:
            Images in [0, 1], clipped.

        Raises:
            ImageCodecError: If they have another shape.
        """
        x = self.network.decode(latents)
        got = tuple(x.shape[1:]) if isinstance(x, Tensor) else type(x).__name__
        if got != shape:
            raise ImageCodecError(
                f"codec {self.source}: expected images of shape (n, {', '.join(map(str, shape))}) "
                f"from decode, got {got}; a codec that halves sides needs sides that it divides"
            )
        return x.float().clamp(0, 1)


@dataclass(frozen=True)
class LatentSpace:
    """The latents of a codec, scaled for a generator that was trained on them.

    Attributes:
        codec: The codec, of images or of sounds.
        image_shape: (h, w, c) of the images, or (l, c) of sounds.
        low: Lowest value of the latents of the training images; scaled to 0.
        high: Highest value; scaled to 1.
    """

    codec: ImageCodec | SoundCodec
    image_shape: tuple[int, ...]
    low: float
    high: float

    @classmethod
    def fitted(
        cls, codec: ImageCodec | SoundCodec, data: LabelledImages, *, device: torch.device | str
    ) -> tuple["LatentSpace", LabelledImages]:
        """Encode the training images.

        Args:
            codec: The codec.
            data: The training split.
            device: Where the codec runs.

        Returns:
            (the space, the training split with latents in place of images, scaled to [0, 1]).

        Raises:
            ImageCodecError: If the samples are no images, or not such as the codec takes.
        """
        rank = 2 if isinstance(codec, SoundCodec) else 3
        if len(data.image_shape) != rank:
            raise ImageCodecError(
                f"codec {codec.source}: expected {'signals' if rank == 2 else 'images'}, got "
                f"{data.noun}"
            )
        codec.to(device)
        raw = _encoded(codec, data.images, data.value_range, device)
        pool = data.unlabelled
        raw_pool = None if pool is None else _encoded(codec, pool, data.value_range, device)
        low, high = float(raw.min()), float(raw.max())
        if not low < high:
            raise ImageCodecError(f"codec {codec.source}: expected latents that differ, got {low}")
        space = cls(codec, data.image_shape, low, high)
        latents = space._scaled(data, raw, raw_pool)
        # What the codec itself loses is found before hours of training.
        x = scale_images(torch.from_numpy(data.images[:1].copy()).to(device), data.value_range)
        space.leave(space.enter(x))
        return space, latents

    def encoded(self, data: LabelledImages, *, device: torch.device | str) -> LabelledImages:
        """Encode other images into this space.

        Args:
            data: Images like those that it was fitted to.
            device: Where the codec runs.

        Returns:
            The data with latents in place of images, scaled like those and clipped to [0, 1].
        """
        self.codec.to(device)
        raw = _encoded(self.codec, data.images, data.value_range, device)
        pool = data.unlabelled
        raw_pool = None if pool is None else _encoded(self.codec, pool, data.value_range, device)
        return self._scaled(data, raw, raw_pool)

    def _scaled(
        self, data: LabelledImages, raw: np.ndarray, raw_pool: np.ndarray | None
    ) -> LabelledImages:
        """The data with latents in place of images."""

        def scaled(latents: np.ndarray) -> np.ndarray:
            return np.clip((latents - self.low) / (self.high - self.low), 0, 1).astype(np.float32)

        return replace(
            data,
            images=scaled(raw),
            value_range=(0.0, 1.0),
            front_end=None,
            unlabelled=None if raw_pool is None else scaled(raw_pool),
        )

    def enter(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n d *grid"]:
        """Turn images into what the generator is trained on.

        Args:
            x: Images in [0, 1].

        Returns:
            Scaled latents.
        """
        return (self.codec.encode(x) - self.low) / (self.high - self.low)

    def leave(
        self, h: Float[Tensor, "n d *grid"], like: Float[Tensor, "n c *space"] | None = None
    ) -> Float[Tensor, "n c *space"]:
        """Invert `enter`.

        Args:
            h: Scaled latents.
            like: The images in [0, 1] that they are edits of, NaN where of none. Sounds keep their
                phase; an image codec does without.

        Returns:
            Images in [0, 1].
        """
        *space, channels = self.image_shape
        shape = (channels, *space)
        parts = []
        for begin in range(0, len(h), _IMAGES):
            part = h[begin : begin + _IMAGES] * (self.high - self.low) + self.low
            if isinstance(self.codec, SoundCodec):
                of_part = None if like is None else like[begin : begin + _IMAGES]
                parts.append(self.codec.decode(part, shape, of_part))
            else:
                parts.append(self.codec.decode(part, shape))
        return torch.cat(parts) if parts else h.new_empty(0, channels, *space)

    def to_json(self) -> dict[str, Any]:
        """What a stored generator says of its codec.

        Returns:
            Plain JSON types.
        """
        return {
            "source": self.codec.source,
            "sha256": self.codec.sha256,
            "image_shape": list(self.image_shape),
            "low": self.low,
            "high": self.high,
        } | ({"stft": self.codec.to_json()} if isinstance(self.codec, SoundCodec) else {})

    @classmethod
    def of_json(
        cls, stored: dict[str, Any], codec: str | ImageCodec | SoundCodec | None
    ) -> "LatentSpace":
        """Find the codec of a stored generator.

        Args:
            stored: As `to_json` gave it.
            codec: The codec, or where it is. None: the folder that the generator names; a Python
                file is only run where the user names it.

        Returns:
            The space.

        Raises:
            ImageCodecError: If the codec is not given, not found, or another one.
        """
        source = str(stored["source"])
        if codec is None and ".py:" in source:
            raise ImageCodecError(
                f"expected codec= (--codec), for the images are decoded by {source!r}, a Python "
                "file, which is run only where it is named"
            )
        found: ImageCodec | SoundCodec
        if source == SOUND and not isinstance(codec, str):
            found = SoundCodec(Spectrogram(**stored["stft"]))
        elif isinstance(codec, ImageCodec | SoundCodec):
            found = codec
        else:
            found = ImageCodec.load(codec or source)
        if found.sha256 != stored["sha256"]:
            raise ImageCodecError(
                f"expected the codec {source!r} of sha256 {stored['sha256'][:12]}, which the "
                f"generator was trained with, got {found.source!r} of {found.sha256[:12]}"
            )
        return cls(found, tuple(stored["image_shape"]), float(stored["low"]), float(stored["high"]))


def _encoded(
    codec: ImageCodec | SoundCodec,
    images: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[int | float, int | float],
    device: torch.device | str,
) -> Float32[np.ndarray, "n *grid d"]:
    parts = []
    for rows in blocks(len(images), images[:1].size, _IMAGES):
        x = torch.from_numpy(np.ascontiguousarray(images[rows])).to(device)
        parts.append(codec.encode(scale_images(x, value_range)).movedim(1, -1).cpu().numpy())
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)


def _from_file(source: str, path: Path, name: str) -> ImageCodec:
    if not path.is_file():
        raise ImageCodecError(f"codec {source}: expected a Python file, got no file {str(path)!r}")
    with open_regular(path) as opened:
        digest = hashlib.file_digest(opened, "sha256")
    found = runpy.run_path(str(path)).get(name)
    if callable(found) and not _is_codec(found):
        with seeded_torch(0, foreign=True):
            found = found()
    if isinstance(found, type) or not _is_codec(found):
        raise ImageCodecError(
            f"codec {source}: expected an object with encode and decode, or a function that gives "
            f"one, got {type(found).__name__}"
        )
    if isinstance(found, nn.Module):
        found.eval().requires_grad_(False)
        digest.update(weights_sha256(found).encode())
    return ImageCodec(source, digest.hexdigest(), found)


def _is_codec(found: Any) -> bool:
    is_object = not isinstance(found, type)
    return is_object and all(callable(getattr(found, key, None)) for key in ("encode", "decode"))


def _from_folder(source: str, folder: Path) -> ImageCodec:
    """Diffusers' autoencoders, from a folder with ``config.json`` and weights."""
    config = folder / "config.json"
    try:
        stored = json.loads(read_whole(config)) if config.is_file() else None
        kind = "no config.json" if stored is None else stored["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ImageCodecError(
            f"codec {source}: expected config.json to name a class, _class_name"
        ) from error
    if kind not in _CLASSES:
        raise ImageCodecError(
            f"codec {source}: expected config.json of {' or '.join(_CLASSES)}, got {kind}"
        )
    try:
        import diffusers
    except ImportError as error:
        raise ImageCodecError(
            f"codec {source}: expected diffusers to be installed: pip install 'vaeaug[codec]'"
        ) from error
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin"):
            with open_regular(path) as opened:
                digest.update(path.name.encode() + hashlib.file_digest(opened, "sha256").digest())
    try:
        # Without the last argument diffusers asks for accelerate, which such small networks do not
        # need.
        network = getattr(diffusers, kind).from_pretrained(
            folder, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ImageCodecError(
            f"codec {source}: expected weights of {kind}, diffusion_pytorch_model.safetensors or "
            f".bin, got {str(error).strip()}"
        ) from error
    network.eval().requires_grad_(False)
    return ImageCodec(source, digest.hexdigest(), _Diffusers(source, network))


class _Diffusers(nn.Module):
    """An autoencoder of diffusers, for images in [0, 1]."""

    def __init__(self, source: str, network: Any) -> None:
        super().__init__()
        self.source = source
        self.network = network

    def encode(self, x: Tensor) -> Tensor:
        """Mean latents."""
        expected, got = self.network.config.in_channels, x.shape[1]
        if got != expected:
            raise ImageCodecError(
                f"codec {self.source}: expected images of {expected} channels, got {got}; --mode "
                "RGB or L converts images"
            )
        encoded = self.network.encode(2 * x - 1)
        return encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents

    def decode(self, latents: Tensor) -> Tensor:
        """Images."""
        return 0.5 * self.network.decode(latents).sample + 0.5
