"""Sounds in pictures and in the page: spectrograms, and a few to listen to."""

import base64
import io
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, Shaped

from vaeaug.report.picture import MAX_CLASSES, ClassPanel
from vaeaug.spectrogram import Spectrogram

# Of the values of spectrograms.
SPECTROGRAM_RANGE = (0.0, 1.0)
# Sounds of each kind and class that can be heard, their length in samples and all their bytes, at
# most.
_HEARD, _LONGEST, _MAX_BYTES = 1, 2**16, 1_200_000
_INT16 = 2**15 - 1


@dataclass(frozen=True)
class Player:
    """A sound embedded in the page.

    Attributes:
        name: What it is.
        source: A data URI of a WAV file of 16 bits.
    """

    name: str
    source: str


def as_pictures(
    sounds: Shaped[np.ndarray, "*n l c"],
    spectrogram: Spectrogram,
    value_range: tuple[float, float],
) -> Float32[np.ndarray, "*n f t one"]:
    """Draw spectrograms: dark is loud, low frequencies are at the bottom; channels are averaged.

    Args:
        sounds: Sounds.
        spectrogram: Of the sounds.
        value_range: Lowest and highest value of the sounds.

    Returns:
        Pictures of one channel in `SPECTROGRAM_RANGE`.
    """
    *n, length, channels = sounds.shape
    low, high = value_range
    flat = torch.from_numpy(np.ascontiguousarray(sounds)).reshape(-1, length, channels).float()
    x = (2 * (flat - low) / (high - low) - 1).movedim(-1, 1)
    seen = spectrogram.log_magnitude(x).mean(dim=1).flip(1).clamp(0, 1)
    return (1 - seen).numpy().reshape(*n, spectrogram.bins, spectrogram.frames, 1)


def spectrogram_panels(
    panels: Sequence[ClassPanel], spectrogram: Spectrogram, value_range: tuple[float, float]
) -> list[ClassPanel]:
    """Turn the sounds of panels into spectrograms.

    Args:
        panels: Sounds of each class.
        spectrogram: Of the sounds.
        value_range: Lowest and highest value of the sounds.

    Returns:
        The panels with pictures in `SPECTROGRAM_RANGE`.
    """

    def drawn(sounds: np.ndarray) -> np.ndarray:
        return as_pictures(sounds, spectrogram, value_range)

    return [
        replace(
            panel,
            real=drawn(panel.real),
            synthetic=drawn(panel.synthetic),
            nearest=drawn(panel.nearest),
        )
        for panel in panels
    ]


def players(
    panels: Sequence[ClassPanel], sample_rate: int, value_range: tuple[float, float]
) -> Mapping[str, list[Player]]:
    """Embed sounds of each class, as long as they fit into a part of the page.

    Args:
        panels: Sounds of each class.
        sample_rate: Hz.
        value_range: Lowest and highest value of the sounds.

    Returns:
        By the name of a class, a real sound and a synthetic one.
    """
    heard: dict[str, list[Player]] = {}
    used = 0
    for panel in panels[:MAX_CLASSES]:
        found = []
        for name, sounds in (("real", panel.real), ("synthetic", panel.synthetic)):
            for sound in sounds[:_HEARD]:
                encoded = base64.b64encode(wav_bytes(sound[:_LONGEST], sample_rate, value_range))
                found.append(Player(name, f"data:audio/wav;base64,{encoded.decode()}"))
        used += sum(len(player.source) for player in found)
        if used > _MAX_BYTES:
            break
        heard[panel.name] = found
    return heard


def wav_bytes(
    sound: Shaped[np.ndarray, "l c"], sample_rate: int, value_range: tuple[float, float]
) -> bytes:
    """Encode a sound as a WAV file of 16 bits of the mean of its channels.

    Args:
        sound: The sound.
        sample_rate: Hz.
        value_range: Lowest and highest value of the sound.

    Returns:
        The content of the file.
    """
    low, high = value_range
    scaled = 2 * (sound.mean(axis=1) - low) / (high - low) - 1
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(sample_rate)
        opened.writeframes(np.rint(_INT16 * scaled.clip(-1, 1)).astype("<i2").tobytes())
    return file.getvalue()
