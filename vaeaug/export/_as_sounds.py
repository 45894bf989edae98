"""Export as a folder of WAV or FLAC files for each class, with a metadata table."""

import csv
import io
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from vaeaug.export._as_imagefolder import folder_names
from vaeaug.export._card import write_beside
from vaeaug.export._publish import published_folder
from vaeaug.export._samples import ExportError, Samples
from vaeaug.files.names import for_cell

SoundFormat = Literal["wav", "flac"]
_COLUMNS = ("file_name", "label", "class_name", "is_synthetic", "source_index", "weight")
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
    folders = folder_names(samples.class_names)
    width = len(str(len(samples) - 1))
    columns = _COLUMNS if samples.soft_labels_at is None else (*_COLUMNS, "soft_label")
    with published_folder(path, needed=len(samples) * (samples.image_bytes + 512)) as root:
        for label in set(samples.labels.tolist()):
            (root / folders[label]).mkdir()
        with open(root / "metadata.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns, lineterminator="\n")
            table.writeheader()
            for rows, sounds in samples.blocks():
                soft = samples.soft_labels(rows)
                for i, (row, sound) in enumerate(zip(rows.tolist(), sounds, strict=True)):
                    record = samples.record(row)
                    name = f"{folders[record['label']]}/{row:0{width}d}.{format}"
                    (root / name).write_bytes(encode(sound, rate))
                    record |= {
                        "file_name": name,
                        "class_name": for_cell(record["class_name"]),
                        "is_synthetic": str(record["is_synthetic"]),
                    }
                    if soft is not None:
                        record["soft_label"] = json.dumps(soft[i])
                    table.writerow(record)
        config = {
            "config_name": "default",
            "data_files": [{"split": "train", "path": ["metadata.csv", f"*/*.{format}"]}],
        }
        write_beside(
            samples,
            root,
            load=_LOAD,
            front={"task_categories": ["audio-classification"], "configs": [config]},
            classes={"folders": {name: label for label, name in enumerate(folders)}},
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
