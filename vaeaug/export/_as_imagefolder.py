"""Export as a folder of PNG files for each class, with a metadata table.

torchvision's ImageFolder reads the class folders, and Hugging Face's imagefolder reads the table.
"""

import csv
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vaeaug.data.split_names import canonical
from vaeaug.export._card import write_beside
from vaeaug.export._publish import published_folder
from vaeaug.export._samples import ExportError, Samples, png_bytes
from vaeaug.files.names import for_cell

_COLUMNS = ("file_name", "label", "class_name", "is_synthetic", "source_index", "weight")
NOTE = (
    "torchvision's ImageFolder numbers the class folders in the order of their names: that is the "
    "order of the labels here, as long as every class has a sample"
)
_LOAD = """
import torchvision
import datasets

torchvision.datasets.ImageFolder(".")
datasets.load_dataset("path/to/this/folder", split="train")  # with the columns of metadata.csv
"""
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_FORBIDDEN = set('<>:"/\\|?*')
_MAX_NAME_BYTES = 100


def write_imagefolder(samples: Samples, path: Path) -> None:
    """Write `<class>/<row>.png`, `metadata.csv`, `classes.json`, `provenance.json`, `README.md`.

    Args:
        samples: The samples.
        path: The folder to write.

    Raises:
        ExportError: If PNG cannot store the images exactly.
    """
    if not samples.pictures:
        raise ExportError(
            f"imagefolder: expected uint8 images with 1, 3 or 4 channels, which PNG keeps exactly, "
            f"got {samples.dtype} of shape {samples.image_shape}; write npz, webdataset or "
            f"huggingface"
        )
    write_files(samples, path, ending="png", encode=png_bytes, load=_LOAD, note=NOTE)


def write_files(
    samples: Samples,
    path: Path,
    *,
    ending: str,
    encode: Callable[[np.ndarray], bytes],
    load: str,
    note: str = "",
    front: Mapping[str, Any] | None = None,
) -> None:
    """Write `<class>/<row>.<ending>` and the files beside them.

    Args:
        samples: The samples.
        path: The folder to write.
        ending: Of the names of files, without the dot.
        encode: Gives the content of the file of a sample.
        load: How to load the folder, in Python, for its README.
        note: On the folders, in ``classes.json``.
        front: Fields of the dataset card before those of the files.
    """
    folders = folder_names(samples.class_names)
    width = len(str(len(samples) - 1))
    needed = len(samples) * (samples.image_bytes + 512)
    columns = _COLUMNS if samples.soft_labels_at is None else (*_COLUMNS, "soft_label")
    with published_folder(path, needed=needed) as root:
        for label in set(samples.labels.tolist()):
            (root / folders[label]).mkdir()
        with open(root / "metadata.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns, lineterminator="\n")
            table.writeheader()
            for rows, images in samples.blocks():
                soft = samples.soft_labels(rows)
                for i, (row, image) in enumerate(zip(rows.tolist(), images, strict=True)):
                    record = samples.record(row)
                    name = f"{folders[record['label']]}/{row:0{width}d}.{ending}"
                    (root / name).write_bytes(encode(image))
                    record |= {
                        "file_name": name,
                        "class_name": for_cell(record["class_name"]),
                        "is_synthetic": str(record["is_synthetic"]),
                    }
                    if soft is not None:
                        record["soft_label"] = json.dumps(soft[i])
                    table.writerow(record)
        # Every folder is a class: names such as "test_tube" must not be taken for splits.
        files = [{"split": "train", "path": ["metadata.csv", f"*/*.{ending}"]}]
        classes: dict[str, Any] = {"folders": {name: label for label, name in enumerate(folders)}}
        if note:
            classes["note"] = note
        write_beside(
            samples,
            root,
            load=load,
            front={**(front or {}), "configs": [{"config_name": "default", "data_files": files}]},
            classes=classes,
        )


def folder_names(class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a folder name for each class, so that the names sort in the order of the labels.

    They are the class names if all are safe as folder names on any system and sort in the order of
    the labels. Otherwise each one is the label and the safe characters of the name:
    "03_T-shirt_top".

    Args:
        class_names: Names in the order of the labels.

    Returns:
        Folder names in the order of the labels.
    """
    folded = {unicodedata.normalize("NFC", name).casefold() for name in class_names}
    if (
        all(map(_is_safe, class_names))
        and list(class_names) == sorted(class_names)
        and len(folded) == len(class_names)
    ):
        return class_names
    width = len(str(len(class_names) - 1))
    return tuple(f"{label:0{width}d}{_safe_suffix(name)}" for label, name in enumerate(class_names))


def _is_safe(name: str) -> bool:
    return (
        name != ""
        and name.isprintable()
        and not _FORBIDDEN & set(name)
        and unicodedata.is_normalized("NFC", name)
        and name == name.strip()
        and not name.startswith(".")
        and not name.endswith(".")
        and len(name.encode()) <= _MAX_NAME_BYTES
        and not _WINDOWS_DEVICE.fullmatch(name)
        # Readers would take such a name for a split of the data.
        and canonical(name) is None
    )


def _safe_suffix(name: str) -> str:
    words = re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_-")[:40]
    return f"_{words}" if words else ""
