"""Export as a folder of WAV or FLAC files for each class, with a metadata table."""

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from vaeaug.export._as_imagefolder import write_files
from vaeaug.export._samples import ExportError, Samples

SoundFormat = Literal["wav", "flac"]
_MOST_CHANNELS = {"wav": 65_535, "flac": 8}
_LOAD = """
import datasets
import vaeaug

vaeaug.read(".")
datasets.load_dataset("path/to/this/folder", split="train")  # with the columns of metadata.csv
"""


def check_sounds(samples: Samples, format: SoundFormat) -> int:
    """Reject samples that no sound file keeps.

    Args:
        samples: The samples.
        format: "wav" or "flac".

    Returns:
        Their sample rate, Hz.

    Raises:
        ExportError: If they are no signals of floats of a known sample rate, or have too many
            channels or values beyond full scale for the format, or its library is not installed.
    """
    rate = samples.sample_rate
    low, high = samples.provenance["image_value_range"]
    if samples.dtype != np.float32 or len(samples.image_shape) != 2:
        raise ExportError(
            f"{format}: expected float32 signals, got {samples.dtype} of shape "
            f"{samples.image_shape}; write npz, webdataset or huggingface"
        )
    if rate is None:
        raise ExportError(
            f"{format}: expected signals of a known sample rate, got a run whose data states none; "
            f"data.sample_rate (--sample-rate) states it before the run"
        )
    if samples.image_shape[-1] > _MOST_CHANNELS[format]:
        raise ExportError(
            f"{format}: expected at most {_MOST_CHANNELS[format]} channels, got "
            f"{samples.image_shape[-1]}; write wav, npz or webdataset"
        )
    if format == "flac":
        if low < -1 or high > 1:
            raise ExportError(
                f"flac: expected values in [-1, 1], its full scale, got the range [{low:g}, "
                f"{high:g}]; write wav, which keeps any value"
            )
        _soundfile()
    return rate


def write_sounds(samples: Samples, path: Path, format: SoundFormat) -> None:
    """Write `<class>/<row>.wav` or `.flac`, and the files beside them that describe them.

    WAV holds float32 values exactly; FLAC holds them with 24 bits, half as large.

    Args:
        samples: The samples.
        path: The folder to write.
        format: "wav" or "flac".

    Raises:
        ExportError: See `check_sounds`.
    """
    rate = check_sounds(samples, format)
    encode = wav_bytes if format == "wav" else flac_bytes
    write_files(
        samples,
        path,
        ending=format,
        encode=lambda sound: encode(sound, rate),
        load=_LOAD,
        front={"task_categories": ["audio-classification"]},
    )


def wav_bytes(sound: Float32[np.ndarray, "l c"], rate: int) -> bytes:
    """Encode a sound as a WAV file of float32 values, exactly and without a time stamp.

    Args:
        sound: Its values.
        rate: Sample rate, Hz.

    Returns:
        Content of the file.
    """
    from scipy.io import wavfile

    file = io.BytesIO()
    wavfile.write(file, rate, np.ascontiguousarray(sound))
    return file.getvalue()


def flac_bytes(sound: Float32[np.ndarray, "l c"], rate: int) -> bytes:
    """Encode a sound as a FLAC file of 24 bits.

    Args:
        sound: Its values, -1 to 1.
        rate: Sample rate, Hz.

    Returns:
        Content of the file.

    Raises:
        ExportError: If soundfile is not installed.
    """
    file = io.BytesIO()
    _soundfile().write(file, sound, rate, format="FLAC", subtype="PCM_24")
    return file.getvalue()


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError:
        raise ExportError(
            "flac: expected the library soundfile: pip install 'vaeaug[audio]'; wav needs none"
        ) from None
    return soundfile
