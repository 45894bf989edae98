"""Hugging Face datasets: objects of the library, and folders that `save_to_disk` wrote.

Rows are read from the Arrow table itself: images as the bytes of their files, decoded as any other
image file here; no transform of the dataset runs, and nothing is unpickled. Needs the extra
``vaeaug[huggingface]``.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vaeaug.data.checks import DataError, data_errors
from vaeaug.data.finish import RawData
from vaeaug.data.formats.arrow import decode_image_column, load_array_column, load_label_column
from vaeaug.data.formats.extras import import_extra
from vaeaug.data.metadata import NO_METADATA, SourceMetadata, load_json, parse_metadata
from vaeaug.data.request import Request
from vaeaug.data.split_names import canonical, require_split, without_splits
from vaeaug.data.vocabulary import IMAGES, LABELS, find

_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
# Written by `vaeaug export`.
_PROVENANCE = "provenance.json"


def is_huggingface(source: object) -> bool:
    """Whether a source is a dataset of the `datasets` library, streaming or not.

    Args:
        source: Anything.

    Returns:
        True where it is.
    """
    # Whoever has such an object has imported the library.
    library = sys.modules.get("datasets")
    if library is None:
        return False
    kinds = ("Dataset", "DatasetDict", "IterableDataset", "IterableDatasetDict")
    return isinstance(source, tuple(getattr(library, kind) for kind in kinds))


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder.

    Args:
        folder: The folder.

    Returns:
        True where it did.
    """
    is_dataset = (folder / _STATE).is_file() and (folder / _INFO).is_file()
    return is_dataset or (folder / _SPLITS).is_file()


def read_saved(folder: Path, request: Request) -> RawData:
    """Read a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.

    Args:
        folder: The folder.
        request: The options of `read`.

    Returns:
        As `read_huggingface`.

    Raises:
        DataError: If it is damaged, or names files outside of it.
    """
    library = import_extra("datasets", "huggingface", str(folder), "Hugging Face datasets")
    _check_saved(folder)
    # The errors of Arrow, of JSON and of the library cannot be listed.
    with data_errors(str(folder), "a dataset that save_to_disk wrote"):
        # An absolute path, because the library takes "a::b" and "s3:..." for addresses.
        dataset = library.load_from_disk(str(folder.resolve()))
    metadata, path = NO_METADATA, folder / _PROVENANCE
    if path.is_file() and isinstance(document := load_json(path), dict):
        metadata = parse_metadata(document, str(path))
    return _read(dataset, request, str(folder), metadata, local_files=False)


def read_huggingface(dataset: Any, request: Request) -> RawData:
    """Read a `Dataset`, or the requested split of a `DatasetDict`; see `read` for its columns.

    Args:
        dataset: The object.
        request: The options of `read`.

    Returns:
        The images (files are decoded later) with their labels.

    Raises:
        DataError: If it is streaming, or has no columns of images and labels.
    """
    library = import_extra("datasets", "huggingface", "source", "Hugging Face datasets")
    name = type(dataset).__name__
    if isinstance(dataset, library.IterableDataset | library.IterableDatasetDict):
        raise DataError(
            f"source: expected a datasets.Dataset, which has a length, got a streaming {name}; "
            f"load it without streaming=True, or take a part of it: "
            f"datasets.Dataset.from_list(list(stream.take(1000)), features=stream.features)"
        )
    return _read(dataset, request, name, NO_METADATA, local_files=True)


def _check_saved(folder: Path) -> None:
    """Refuse a folder whose files name others outside of it."""
    parts = [folder]
    if (folder / _SPLITS).is_file():
        document = load_json(folder / _SPLITS)
        names = document.get("splits") if isinstance(document, dict) else None
        if not isinstance(names, list) or not all(map(_is_plain, names)):
            raise DataError(
                f"{folder / _SPLITS}: expected the names of splits as folders, got {names!r}"
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
    dataset: Any, request: Request, where: str, metadata: SourceMetadata, *, local_files: bool
) -> RawData:
    rows, training, split, notes = _select(dataset, request, where)
    if len(rows) == 0:
        raise DataError(f"{where}: expected at least one row, got none")
    image_name, label_name = _columns(rows, request, where)
    images_at, labels_at = f"{where}[{image_name}]", f"{where}[{label_name}]"
    labels_in, images_in = rows.features[label_name], rows.features[image_name]
    if _is_array(labels_in) or isinstance(labels_in, dict):
        raise DataError(
            f"{labels_at}: expected one label for each image, got {_kind(labels_in)}; multi-label "
            f"and one-hot labels are not read"
        )
    reference = None if training is None else load_label_column(training, label_name, labels_at)
    labels = load_label_column(rows, label_name, labels_at)
    decode = partial(
        decode_image_column, rows, image_name, request, images_at, local_files=local_files
    )
    is_files = _kind(images_in) == "Image"
    names = _class_names(labels_in)
    # Of a damaged file.
    if odd := [name for name in names if not isinstance(name, str)]:
        raise DataError(f"{labels_at}: expected class names as texts, got {odd[0]!r} among them")
    return RawData(
        source=where,
        split=split,
        images=decode if is_files else load_array_column(rows, image_name, request, images_at),
        images_at=images_at,
        labels=labels,
        labels_at=labels_at,
        reference=reference,
        metadata=replace(metadata, class_names=names or metadata.class_names),
        notes=notes,
    )


def _select(
    dataset: Any, request: Request, where: str
) -> tuple[Any, Any | None, str, tuple[str, ...]]:
    """The rows to read; the training rows, if other ones are read; the split; notes."""
    if not isinstance(dataset, dict):
        split = None if dataset.split is None else canonical(str(dataset.split))
        if split is None:
            return dataset, None, request.split, without_splits(request.split, where)
        if request.split != "all":
            require_split(request.split, [split], where)
        return dataset, None, split, ()
    by_split: dict[str, Any] = {}
    for name, rows in dataset.items():
        split = canonical(name)
        if split in by_split:
            raise DataError(f"{where}: expected one part for the split {split!r}, got two")
        if split is not None:
            by_split[split] = rows
    if not by_split:
        raise DataError(
            f"{where}: expected a split named train, validation or test, got "
            f"{', '.join(map(repr, dataset)) or 'none'}; read one of them by itself"
        )
    split = require_split(request.split, by_split, where)
    training = by_split.get("train") if split != "train" else None
    return by_split[split], training, split, ()


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
    named = [name for name, feature in features.items() if _class_names(feature)]
    labels = _only(named) or find(LABELS, named or features)
    candidates = [name for name in features if name != labels]
    files = [name for name in candidates if _kind(features[name]) == "Image"]
    arrays = [name for name in candidates if _is_array(features[name])]
    images = _only(files) or find(IMAGES, files) or find(IMAGES, arrays) or _only(arrays)
    if images is None or labels is None:
        columns = ", ".join(f"{name} ({_kind(feature)})" for name, feature in features.items())
        raise DataError(
            f"{where}: expected one column of images (an Image feature, or arrays) and one of "
            f"labels (a ClassLabel, or one named {', '.join(LABELS[:8])}, ...), got {columns}; "
            f"pass keys={{'images': ..., 'labels': ...}} to name them"
        )
    return images, labels


def _kind(feature: Any) -> str:
    return type(feature).__name__


def _is_array(feature: Any) -> bool:
    kinds = ("Array2D", "Array3D", "Array4D", "Array5D", "Sequence", "List", "LargeList")
    # A list is written as [feature] in old versions of the library.
    return isinstance(feature, list) or _kind(feature) in kinds


def _class_names(feature: Any) -> tuple[Any, ...]:
    return tuple(feature.names or ()) if _kind(feature) == "ClassLabel" else ()


def _only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None
