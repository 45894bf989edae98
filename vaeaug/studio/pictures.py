"""Samples as the page shows them: tiles on a sheet, pictures at pixels, curves, sounds."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.report import SPECTROGRAM_RANGE, as_pictures, draw_sample, wav_bytes
from vaeaug.spectrogram import Spectrogram
from vaeaug.studio.collection import Collection, StudioError

if TYPE_CHECKING:
    from PIL import Image

# The longest side of a tile, pixels; smaller images keep their size, and the browser enlarges them.
TILE = 128
COLUMNS = 16
# Stretches of a long signal, of each of which the page gets the lowest and the highest value.
_STRETCHES = 2_000


def draw_tiles(collection: Collection, numbers: Sequence[int]) -> bytes:
    """Draw samples side by side.

    Args:
        collection: The samples.
        numbers: Which ones, at least one.

    Returns:
        A PNG file of equal tiles in rows of `COLUMNS`.

    Raises:
        StudioError: If there is no such sample.
    """
    from PIL import Image

    tiles = [_tile(sample, collection) for sample in collection.images("sample", numbers)]
    width, height = tiles[0].size
    columns = min(COLUMNS, len(tiles))
    sheet = Image.new(tiles[0].mode, (columns * width, -(-len(tiles) // columns) * height))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width, i // columns * height))
    return _png(sheet)


def draw_picture(collection: Collection, kind: str, number: int, place: int | None = None) -> bytes:
    """Draw one sample, or a real image beside it, pixel by pixel.

    Args:
        collection: The samples.
        kind: "sample", "source" or "nearest".
        number: The sample.
        place: Slice of a volume or frame of a clip; None: the middle one.

    Returns:
        A PNG file; of a sound with a front end its spectrogram.

    Raises:
        StudioError: If there is no such sample, real image or slice.
    """
    sample = collection.images(kind, [number])[0]
    if place is not None:
        if sample.ndim != 4 or not 0 <= place < len(sample):
            n = len(sample) if sample.ndim == 4 else 0
            raise StudioError(f"expected a slice in [0, {n}), got {place}")
        sample = sample[place]
    return _png(_picture(sample, collection))


def curves_of(collection: Collection, kind: str, number: int) -> dict[str, Any]:
    """Give the values of a signal.

    Args:
        collection: The samples.
        kind: "sample", "source" or "nearest".
        number: The sample.

    Returns:
        ``length`` in positions, and ``channels``: their values, null where not finite; of a long
        signal the lowest and highest one of each stretch. A feature vector is one channel.

    Raises:
        StudioError: If there is no such sample or real image, or it is no signal.
    """
    signal = collection.images(kind, [number])[0]
    if signal.ndim != 2:
        raise StudioError(f"expected a signal, got an image of shape {signal.shape}")
    signal = signal.T if len(signal) == 1 else signal
    length = len(signal)
    if length > 2 * _STRETCHES:
        stretches = np.array_split(signal, _STRETCHES)
        ends = [end for part in stretches for end in (part.min(axis=0), part.max(axis=0))]
        signal = np.stack(ends)
    channels = [
        [value if np.isfinite(value) else None for value in channel]
        for channel in signal.T.astype(float).tolist()
    ]
    return {"length": length, "channels": channels}


def sound_of(collection: Collection, kind: str, number: int) -> bytes:
    """Give a sound to listen to.

    Args:
        collection: The samples.
        kind: "sample", "source" or "nearest".
        number: The sample.

    Returns:
        A WAV file of 16 bits.

    Raises:
        StudioError: If there is no such sample or real image, or it is no sound of a known rate.
    """
    rate, signal = collection.sample_rate, collection.images(kind, [number])[0]
    if rate is None or signal.ndim != 2:
        raise StudioError("expected a sound of a known rate, got none")
    return wav_bytes(_finite(signal), rate, collection.manifest.value_range)


def _tile(sample: Shaped[np.ndarray, "*space c"], collection: Collection) -> "Image.Image":
    from PIL import Image

    picture = _picture(sample, collection)
    if max(picture.size) <= TILE or (sample.ndim == 2 and _spectrogram(collection) is None):
        return picture
    width, height = (max(1, round(n * TILE / max(picture.size))) for n in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX)


def _picture(sample: Shaped[np.ndarray, "*space c"], collection: Collection) -> "Image.Image":
    value_range, sample = collection.manifest.value_range, _finite(sample)
    spectrogram = _spectrogram(collection)
    if spectrogram is not None:
        sample, value_range = as_pictures(sample, spectrogram, value_range), SPECTROGRAM_RANGE
    elif sample.ndim == 2 and len(sample) == 1:
        sample = sample.T  # features: a value at each place
    return draw_sample(sample, value_range)


def _spectrogram(collection: Collection) -> Spectrogram | None:
    return None if collection.data is None else collection.data.spectrogram


def _finite(sample: Shaped[np.ndarray, "*space c"]) -> Shaped[np.ndarray, "*space c"]:
    """Rejected samples may have values that no picture has."""
    return sample if sample.dtype == np.uint8 else np.nan_to_num(sample)


def _png(picture: "Image.Image") -> bytes:
    file = io.BytesIO()
    red, green, blue = picture.split()
    is_gray = red.tobytes() == green.tobytes() == blue.tobytes()
    (red if is_gray else picture).save(file, format="PNG", compress_level=1)
    return file.getvalue()
