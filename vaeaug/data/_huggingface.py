"""Hugging Face datasets: objects of the library, and folders that `save_to_disk` wrote.

Rows are read from the Arrow table itself: images as the bytes of their files, decoded as any other
image file here; no transform of the dataset runs, and nothing is unpickled. Needs the extra
``vaeaug[huggingface]``.
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data._arrays import normalise_pixels
from vaeaug.data._decode import BadImageError, decode_bytes, decode_file
from vaeaug.data._files import read_files
from vaeaug.data._images import DataError, LabelledImages
from vaeaug.data._labels import labelled, normalise_labels
from vaeaug.data._request import Request
from vaeaug.data._splits import canonical, require_split, without_splits
from vaeaug.data._stack import Stack
from vaeaug.data._stated import Stated, load_json, stated

LABEL_NAMES = ("label", "labels", "target", "class")
_IMAGE_NAMES = ("image", "images", "img", "pixels", "x", "signal", "volume", "data")
_STATE, _INFO, _SPLITS_FILE = "state.json", "dataset_info.json", "dataset_dict.json"
_STATED = "provenance.json"
# Rows looked at together: their encoded bytes are in memory twice.
_ROWS = 256
_Pixels = tuple[Shaped[np.ndarray, "n *space c"], tuple[float, float], tuple[str, ...]]


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
    known = None if naming is None else _label_column(naming, labels_in, at)
    names = request.class_names or _class_names(part.features[labels_in]) or said.class_names
    labels, class_names = normalise_labels(
        _label_column(part, labels_in, at), at, class_names=names, reference=known
    )
    images, value_range, image_notes = (
        _image_column(part, images_in, request, f"{where}[{images_in}]", local_files)
        if _is_image(part.features[images_in])
        else _array_column(part, images_in, request, f"{where}[{images_in}]", said)
    )
    return labelled(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=split,
        source=where,
        notes=(*notes, *image_notes),
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
    classes = [name for name, feature in features.items() if _class_names(feature)]
    labels = _only(classes) or _first(LABEL_NAMES, classes or features)
    candidates = [name for name in features if name != labels]
    pictures = [name for name in candidates if _is_image(features[name])]
    arrays = [name for name in candidates if _is_array(features[name])]
    images = (
        _only(pictures)
        or _first(_IMAGE_NAMES, pictures)
        or _first(_IMAGE_NAMES, arrays)
        or _only(arrays)
    )
    if images is None or labels is None:
        got = ", ".join(f"{name} ({_kind(feature)})" for name, feature in features.items())
        raise DataError(
            f"{where}: expected one column of images (an Image feature, or arrays) and one of "
            f"labels (a ClassLabel, or one named {', '.join(LABEL_NAMES)}), got {got}; pass "
            f"keys={{'images': ..., 'labels': ...}} to name them"
        )
    return images, labels


def _only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def _first(wanted: Sequence[str], there: Any) -> str | None:
    return next((name for name in wanted if name in there), None)


def _kind(feature: Any) -> str:
    return type(feature).__name__


def _is_image(feature: Any) -> bool:
    return _kind(feature) == "Image"


def _is_array(feature: Any) -> bool:
    # A list is written as [feature] in old versions of the library.
    return isinstance(feature, list) or _kind(feature) in (
        *(f"Array{n}D" for n in (2, 3, 4, 5)),
        "Sequence",
        "List",
        "LargeList",
    )


def _class_names(feature: Any) -> tuple[str, ...] | None:
    return tuple(feature.names) if _kind(feature) == "ClassLabel" and feature.names else None


def _blocks(dataset: Any, name: str) -> Iterator[Any]:
    """A column as Arrow arrays of some rows each."""
    column = dataset.select_columns([name]).with_format("arrow")
    for start in range(0, len(column), _ROWS):
        chunked = column[start : start + _ROWS].column(name)
        array = chunked.combine_chunks()
        yield array.chunk(0) if hasattr(array, "num_chunks") else array


def _label_column(dataset: Any, name: str, where: str) -> Shaped[np.ndarray, " n"]:
    feature = dataset.features[name]
    if _is_array(feature) or isinstance(feature, dict):
        raise DataError(
            f"{where}: expected one label for each image, got {_kind(feature)}; multi-label and "
            f"one-hot labels are not read"
        )
    found: list[Any] = []
    for block in _blocks(dataset, name):
        if block.null_count:
            row = len(found) + block.is_null().to_pylist().index(True)
            raise DataError(
                f"{where}: expected a label for each image, got none in row {row}; -1 marks an "
                f"image without a label"
            )
        found += block.to_pylist()
    if not isinstance(found[0], int | float | str):
        raise DataError(f"{where}: expected integer or text labels, got {type(found[0]).__name__}")
    return np.array(found)


def _image_column(
    dataset: Any, name: str, request: Request, where: str, local_files: bool
) -> _Pixels:
    rows = _encoded(dataset, name, where, local_files)
    first = next(rows)
    if isinstance(first, str):
        # Image files that lie on their own are decoded by several processes where they are many.
        rest = list(rows)
        paths = [first, *(row for row in rest if isinstance(row, str))]
        if len(paths) == len(dataset):
            images, notes = read_files(
                paths,
                where,
                size=request.size,
                alpha=request.alpha,
                workers=request.workers,
                progress=request.progress,
            )
            return _normalised(images, where, notes)
        rows = iter(rest)
    stack = Stack(len(dataset), where)
    for i, row in enumerate(itertools.chain([first], rows)):
        at = f"{where}[{i}]"
        try:
            image, image_notes = (
                decode_file(row, size=request.size, alpha=request.alpha)
                if isinstance(row, str)
                else decode_bytes(row, at, size=request.size, alpha=request.alpha)
            )
        except BadImageError as error:
            raise DataError(str(error)) from error
        stack.add(image, at, image_notes)
    images, notes = stack.finish()
    return _normalised(images, where, notes)


def _normalised(
    images: Shaped[np.ndarray, "n h w c"], where: str, notes: tuple[str, ...]
) -> _Pixels:
    pixels, value_range, value_notes = normalise_pixels(images, where)
    return pixels, value_range, (*notes, *value_notes)


def _encoded(dataset: Any, name: str, where: str, local_files: bool) -> Iterator[bytes | str]:
    """Of each row the bytes of its image file, or its path where the table holds no bytes."""
    i = 0
    for block in _blocks(dataset, name):
        for value in block.to_pylist():
            data = None if value is None else value.get("bytes")
            path = None if value is None else value.get("path")
            if data is not None:
                yield data
            elif path is None:
                raise DataError(f"{where}[{i}]: expected an image, got none")
            elif local_files and "://" not in path:
                yield path
            else:
                raise DataError(
                    f"{where}[{i}]: expected the bytes of an image file, got only its place "
                    f"{path!r}, which is not followed; save the dataset with its images "
                    f"(save_to_disk of a recent version does)"
                )
            i += 1


def _array_column(dataset: Any, name: str, request: Request, where: str, said: Stated) -> _Pixels:
    out: Shaped[np.ndarray, "n ..."] | None = None
    start = 0
    for block in _blocks(dataset, name):
        part = _rectangular(block, where, start)
        if out is None:
            out = np.empty((len(dataset), *part.shape[1:]), dtype=part.dtype)
        if part.shape[1:] != out.shape[1:] or part.dtype != out.dtype:
            raise DataError(
                f"{where}: expected arrays of one shape and type, got {out.dtype} of shape "
                f"{out.shape[1:]} in row 0 and {part.dtype} of shape {part.shape[1:]} in row "
                f"{start}"
            )
        out[start : start + len(part)] = part
        start += len(part)
    if out is None:
        raise DataError(f"{where}: expected at least one row, got none")
    return said.finish(out, where, request)


def _rectangular(array: Any, where: str, start: int) -> Shaped[np.ndarray, "m ..."]:
    """Nested Arrow lists as one array, if they are equally long at every depth."""
    import pyarrow as pa
    import pyarrow.compute as pc

    shape = [len(array)]
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if array.null_count:
            raise DataError(f"{where}: expected arrays without gaps, got a null after row {start}")
        if not hasattr(array.type, "value_type"):
            break
        lengths = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(lengths) != 1:
            raise DataError(
                f"{where}: expected arrays of one shape, got lengths {sorted(lengths)[:5]} among "
                f"rows {start} to {start + shape[0] - 1}"
            )
        shape.append(lengths[0])
        array = array.flatten()
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        raise DataError(f"{where}: expected arrays of numbers, got {array.type}")
    values = array.to_numpy(zero_copy_only=False)
    return np.asarray(values).reshape(shape)
