"""`SoundCodec`: log magnitudes as the latents of sounds, in place of those of a trained codec."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vaeaug.models import fold_space, unfold_space
from vaeaug.spectrogram import FLOOR, ITERATIONS, OVERLAP, Spectrogram

SOURCE = "stft"
# Cells per side of the grid that a generator is trained on, at most, and values per cell and side.
_CELLS, _MOST_FOLDED = 32, 8


@dataclass(frozen=True)
class SoundCodec:
    """Encodes sounds as log magnitudes, and decodes these by a phase that is consistent with them.

    It stands where an `ImageCodec` may stand. Blocks of neighbouring log magnitudes are the
    channels of a small grid, so that a generator of seconds of sound costs about as much as one of
    small images.

    Attributes:
        spectrogram: Of the sounds.
    """

    spectrogram: Spectrogram

    @property
    def source(self) -> str:
        """What a generator says of its codec."""
        return SOURCE

    @property
    def fold(self) -> tuple[int, int]:
        """Frequencies and frames of a cell of the grid."""
        return _fold_of(self.spectrogram.bins), _fold_of(self.spectrogram.frames)

    @property
    def sha256(self) -> str:
        """Hash of all that the codec depends on."""
        parts = {**asdict(self.spectrogram), "overlap": OVERLAP, "floor": FLOOR, "fold": self.fold}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def to(self, device: torch.device | str) -> "SoundCodec":
        """This codec, which has no weights to move.

        Args:
            device: Where to.

        Returns:
            This codec.
        """
        return self

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "n c l"]) -> Float[Tensor, "n d f t"]:
        """Encode sounds.

        Args:
            x: Sounds in [0, 1]; silence is 0.5.

        Returns:
            Log magnitudes, folded.
        """
        return fold_space(self.spectrogram.log_magnitude(2 * x - 1), self.fold)

    @torch.no_grad()
    def decode(
        self,
        latents: Float[Tensor, "n d f t"],
        shape: tuple[int, ...],
        like: Float[Tensor, "n c l"] | None = None,
    ) -> Float[Tensor, "n c l"]:
        """Decode log magnitudes.

        Args:
            latents: As `encode` gives them.
            shape: (c, l) of the sounds.
            like: The sounds in [0, 1] that they are edits of, whose phase they keep where that is
                consistent; rows of NaN are edits of none.

        Returns:
            Sounds in [0, 1], clipped.
        """
        start = None if like is None else 2 * like - 1
        sounds = self.spectrogram.sound(unfold_space(latents, self.fold), start)
        return (0.5 * sounds + 0.5).reshape(len(latents), *shape).clamp(0, 1)

    def summary(self, x: Float[Tensor, "n c l"]) -> str:
        """What the transform keeps of sounds, in words.

        Args:
            x: Sounds in [0, 1].

        Returns:
            A line.
        """
        sounds, spectrogram = 2 * x - 1, self.spectrogram
        kept = spectrogram.sound(spectrogram.log_magnitude(sounds), sounds)
        wanted = spectrogram.transform(sounds).abs()
        alone = spectrogram.transform(spectrogram.sound(spectrogram.log_magnitude(sounds))).abs()
        return (
            f"front end stft: windows of {spectrogram.window} samples, {spectrogram.bins} x "
            f"{spectrogram.frames} log magnitudes; there and back with the phase of the recording "
            f"{_decibels(sounds, kept):.0f} dB signal to noise, from magnitudes alone "
            f"{_decibels(wanted, alone):.0f} dB of the magnitudes ({ITERATIONS} iterations)"
        )

    def to_json(self) -> dict[str, Any]:
        """What a stored generator says of its codec.

        Returns:
            Plain JSON types.
        """
        return asdict(self.spectrogram)


def _fold_of(side: int) -> int:
    fold = 1
    while side > _CELLS * fold and fold < _MOST_FOLDED and side % (2 * fold) == 0:
        fold *= 2
    return fold


def _decibels(wanted: Tensor, got: Tensor) -> float:
    """Signal to noise ratio; that of silence is infinite."""
    power, error = float(wanted.square().sum()), float((wanted - got).square().sum())
    return math.inf if not error else 10 * math.log10(max(power, 1e-30) / error)
