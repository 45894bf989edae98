"""Hugging Face datasets: objects of the library, and folders that `save_to_disk` wrote.

Rows are read from the Arrow table itself: images as the bytes of their files, decoded as any other
image file here; no transform of the dataset runs, and nothing is unpickled. Needs the extra
``vaeaug[huggingface]``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.formats.arrow import (
    array_column,
    image_column,
    is_array,
    is_image,
    kind,
    label_column,
    names_of,
)
from vaeaug.data.labels import labelled, normalise_labels
from vaeaug.data.metadata import Stated, load_json, stated
from vaeaug.data.request import Request
from vaeaug.data.splits import canonical, require_split, without_splits
from vaeaug.data.vocabulary import IMAGES, LABELS, find

_STATE, _INFO, _SPLITS_FILE = "state.json", "dataset_info.json", "dataset_dict.json"
_STATED = "provenance.json"


def is_huggingface(source: object) -> bool:
    """Whether it is a dataset of the `datasets` library, streaming or not."""
    # Whoever has such an object has imported the library.
    library = sys.modules.get("datasets")
    return library is not None and isinstance(
        source,
        (
            library.Dataset,
            library.DatasetDict,
            library.IterableDataset,
            library.IterableDatasetDict,
        ),
    )


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    whole = (folder / _STATE).is_file() and (folder / _INFO).is_file()
    return whole or (folder / _SPLITS_FILE).is_file()


def read_saved(folder: Path, request: Request) -> LabelledImages:
    """Read a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    library = huggingface_library(str(folder))
    _check_saved(folder)
    try:
        # An absolute path, because the library takes "a::b" and "s3:..." for addresses.
        dataset = library.load_from_disk(str(folder.resolve()))
    except Exception as error:  # of Arrow, of JSON, of the library: none of them can be listed
        raise DataError(
            f"{folder}: expected a dataset that save_to_disk wrote, got: {error}"
        ) from error
    said = Stated()
    if (folder / _STATED).is_file():
        document = load_json(folder / _STATED)
        said = stated(document, str(folder / _STATED)) if isinstance(document, dict) else said
    return _read(dataset, request, str(folder), said, local_files=False)


def read_huggingface(dataset: Any, request: Request) -> LabelledImages:
    """Read a `Dataset`, or the asked split of a `DatasetDict`; see `read` for its columns."""
    library = huggingface_library("source")
    name = type(dataset).__name__
    if isinstance(dataset, library.IterableDataset | library.IterableDatasetDict):
        raise DataError(
            f"source: expected a datasets.Dataset, whose rows are there, got a streaming {name}; "
            f"load it without streaming=True, or take a part of it: "
            f"datasets.Dataset.from_list(list(stream.take(1000)), features=stream.features)"
        )
    return _read(dataset, request, name, Stated(), local_files=True)


def huggingface_library(where: str) -> Any:
    """The `datasets` library.

    Raises:
        DataError: if it is not installed, naming the extra.
    """
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{where}: Hugging Face datasets need the library datasets: "
            f"pip install 'vaeaug[huggingface]'"
        ) from None
    return datasets


def _check_saved(folder: Path) -> None:
    """Refuse a folder whose files name others outside of it."""
    parts = [folder]
    if (folder / _SPLITS_FILE).is_file():
        splits = load_json(folder / _SPLITS_FILE)
        names = splits.get("splits") if isinstance(splits, dict) else None
        if not isinstance(names, list) or not all(map(_is_plain, names)):
            raise DataError(
                f"{folder / _SPLITS_FILE}: expected the names of splits as folders, got {names!r}"
            )
        parts = [folder / name for name in names]
    for part in parts:
        if not (part / _STATE).is_file():
            raise DataError(f"{part}: expected {_STATE} of a saved dataset, got no such file")
        state = load_json(part / _STATE)
        files = state.get("_data_files") if isinstance(state, dict) else None
        names = [f.get("filename") if isinstance(f, dict) else f for f in files or ()]
        if not names or not all(map(_is_plain, names)):
            raise DataError(
                f"{part / _STATE}: expected the names of Arrow files in this folder, got {names!r}"
            )


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\\"} & set(name)


def _read(
    dataset: Any, request: Request, where: str, said: Stated, *, local_files: bool
) -> LabelledImages:
    part, naming, split, notes = _split(dataset, request, where)
    if len(part) == 0:
        raise DataError(f"{where}: expected at least one row, got none")
    images_in, labels_in = _columns(part, request, where)
    at = f"{where}[{labels_in}]"
    known = None if naming is None else label_column(naming, labels_in, at)
    labels, class_names, label_notes = normalise_labels(
        label_column(part, labels_in, at),
        at,
        request,
        stated=names_of(part.features[labels_in]) or said.class_names,
        reference=known,
    )
    images_at = f"{where}[{images_in}]"
    if is_image(part.features[images_in]):
        images, value_range, image_notes, kept = image_column(
            part, images_in, request, images_at, local_files
        )
        labels = labels[kept]
    else:
        images, value_range, image_notes = array_column(part, images_in, request, images_at, said)
    return labelled(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=split,
        source=where,
        notes=(*notes, *label_notes, *image_notes),
    )


def _split(
    dataset: Any, request: Request, where: str
) -> tuple[Any, Any | None, str, tuple[str, ...]]:
    """The rows to read; those that say which classes there are, if others; the split; notes."""
    if not isinstance(dataset, dict):
        own = None if dataset.split is None else canonical(str(dataset.split))
        if own is None:
            return dataset, None, request.split, without_splits(request.split, where)
        if request.split == "all":
            return dataset, None, own, ()
        return dataset, None, require_split(request.split, [own], where), ()
    by_split: dict[str, Any] = {}
    for name, part in dataset.items():
        split = canonical(name)
        if split in by_split:
            raise DataError(f"{where}: expected one part for the split {split!r}, got two")
        if split is not None:
            by_split[split] = part
    if not by_split:
        raise DataError(
            f"{where}: expected a split named train, validation or test, got "
            f"{', '.join(map(repr, dataset)) or 'none'}; read one of them by itself"
        )
    split = require_split(request.split, by_split, where)
    naming = by_split.get("train") if split != "train" else None
    return by_split[split], naming, split, ()


def _columns(dataset: Any, request: Request, where: str) -> tuple[str, str]:
    """The names of the columns of images and of labels."""
    features = dataset.features
    if request.keys is not None:
        for name in request.keys.values():
            if name not in features:
                raise DataError(
                    f"{where}: expected a column {name!r} (from keys), got {', '.join(features)}"
                )
        return request.keys["images"], request.keys["labels"]
    classes = [name for name, feature in features.items() if names_of(feature)]
    labels = _only(classes) or find(LABELS, classes or features)
    candidates = [name for name in features if name != labels]
    pictures = [name for name in candidates if is_image(features[name])]
    arrays = [name for name in candidates if is_array(features[name])]
    images = _only(pictures) or find(IMAGES, pictures) or find(IMAGES, arrays) or _only(arrays)
    if images is None or labels is None:
        got = ", ".join(f"{name} ({kind(feature)})" for name, feature in features.items())
        raise DataError(
            f"{where}: expected one column of images (an Image feature, or arrays) and one of "
            f"labels (a ClassLabel, or one named {', '.join(LABELS[:8])}, ...), got {got}; pass "
            f"keys={{'images': ..., 'labels': ...}} to name them"
        )
    return images, labels


def _only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None
