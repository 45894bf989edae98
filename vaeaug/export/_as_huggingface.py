"""Export for ``datasets.load_from_disk``; it needs the extra ``vaeaug[huggingface]``."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from vaeaug.export._card import write_beside
from vaeaug.export._publish import published_folder
from vaeaug.export._samples import ExportError, Samples, png_bytes

_ARROW = "data-00000-of-00001.arrow"
_LOAD = """
import datasets

datasets.load_from_disk("path/to/this/folder")
"""


def write_huggingface(samples: Samples, path: Path) -> None:
    """Write the files of `Dataset.save_to_disk`, plus `README.md` and `provenance.json`.

    The library writes the Arrow file once, block by block. The two small JSON files are those of
    `save_to_disk`, except for the fingerprint: it is the hash of the Arrow file, so that the same
    samples give the same bytes.

    Args:
        samples: The samples.
        path: The folder to write.

    Raises:
        ExportError: If the library is not installed.
    """
    library = huggingface_library()
    features = _features(library, samples)
    with published_folder(path, needed=len(samples) * samples.image_bytes) as folder:
        from datasets.arrow_writer import ArrowWriter

        with ArrowWriter(path=str(folder / _ARROW), features=features) as writer:
            for rows, images in samples.blocks():
                writer.write_batch(_batch(samples, rows, images))
            writer.finalize()
        with open(folder / _ARROW, "rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        info = library.DatasetInfo(
            description=_description(samples), features=features, dataset_name="vaeaug"
        )
        info.write_to_directory(str(folder), pretty_print=True)
        state: dict[str, Any] = {
            "_data_files": [{"filename": _ARROW}],
            "_fingerprint": fingerprint,
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": "train",
        }
        text = json.dumps(state, indent=2, sort_keys=True)
        (folder / "state.json").write_text(text, encoding="utf-8")
        write_beside(samples, folder, load=_LOAD)


def huggingface_library() -> Any:
    """Import the `datasets` library.

    Returns:
        The module.

    Raises:
        ExportError: If it is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise ExportError(
            "huggingface: expected the library datasets: pip install 'vaeaug[huggingface]'"
        ) from None
    return datasets


def _features(library: Any, samples: Samples) -> Any:
    rank = len(samples.image_shape)
    arrays = {2: library.Array2D, 3: library.Array3D, 4: library.Array4D}
    image = (
        library.Image()
        if samples.pictures
        else arrays[rank](shape=samples.image_shape, dtype=samples.dtype.name)
    )
    features = {
        "image": image,
        "label": library.ClassLabel(names=list(samples.class_names)),
        "is_synthetic": library.Value("bool"),
        "source_index": library.Value("int64"),
        "weight": library.Value("float32"),
    }
    if samples.soft_labels_at is not None:
        features["soft_label"] = library.Sequence(
            library.Value("float32"), length=len(samples.class_names)
        )
    return library.Features(features)


def _batch(samples: Samples, rows: np.ndarray, images: np.ndarray) -> dict[str, Any]:
    batch: dict[str, Any] = {
        "image": [{"bytes": png_bytes(image), "path": None} for image in images]
        if samples.pictures
        else list(images),
        "label": samples.labels[rows].tolist(),
        "is_synthetic": samples.is_synthetic[rows].tolist(),
        "source_index": samples.source_index[rows].tolist(),
        "weight": samples.weight[rows],
    }
    if samples.soft_labels_at is not None:
        batch["soft_label"] = list(samples.soft_labels_at(rows))
    return batch


def _description(samples: Samples) -> str:
    n_synthetic = int(samples.is_synthetic.sum())
    origin = {name: text for name, text in samples.provenance.items() if name != "class_names"}
    return (
        f"{len(samples)} samples, of which {n_synthetic} are synthetic, made by vaeaug. Where they "
        f"come from: {json.dumps(origin, sort_keys=True)}"
    )
