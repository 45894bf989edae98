"""What is in memory: a pair (images, labels), or a mapping of such arrays."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.foreign_arrays import as_array, is_array, is_frame
from vaeaug.data.formats.media import read_media
from vaeaug.data.formats.named_arrays import Pair, choose
from vaeaug.data.formats.torch_dataset import read_torch
from vaeaug.data.labels import labelled, normalise_labels
from vaeaug.data.pixels import finish_pixels
from vaeaug.data.request import Request

_WHERE = "arrays"
_SCALARS = (bool, int, float, str, bytes, np.generic)


def is_pair(source: object) -> bool:
    """Whether it is a tuple of images and their labels; a list of two is a dataset of two items."""
    if not (isinstance(source, tuple) and len(source) == 2):
        return False
    images, labels = source
    several = is_array(labels) or is_frame(labels) or isinstance(labels, list | tuple)
    if not isinstance(images, list | tuple):
        return several and (is_array(images) or is_frame(images))
    # Two items (image, label) are no such thing.
    is_item = len(images) > 1 and isinstance(images[1], _SCALARS)
    return several and not (is_item and not isinstance(images[0], (*_SCALARS, os.PathLike)))


def read_pair(pair: tuple[Any, Any], request: Request) -> LabelledImages:
    """Read (images, labels); see `read` for the shapes that they may have.

    Arrays say nothing of splits: the asked split is taken as the caller's word.
    """
    found = Pair("images", "labels", None, request.split)
    return _read({"images": pair[0], "labels": pair[1]}, found, request, _WHERE)


def read_mapping(source: Mapping[str, Any], request: Request) -> LabelledImages:
    """Read a mapping of arrays, by the names that arrays in a file may have.

    A split may be a mapping or a pair of its own: {"train": (images, labels), "test": ...}.
    """
    where = type(source).__name__
    flat: dict[str, Any] = {}
    for name, value in source.items():
        if not isinstance(name, str):
            raise DataError(f"{where}: expected names of arrays as keys, got {name!r}")
        if isinstance(value, Mapping):
            flat |= {f"{name}/{inner}": array for inner, array in value.items()}
        elif is_pair(value):
            flat |= {f"{name}/images": value[0], f"{name}/labels": value[1]}
        else:
            flat[name] = value
    return _read(flat, choose(flat, request, where), request, where)


def _read(arrays: Mapping[str, Any], pair: Pair, request: Request, where: str) -> LabelledImages:
    images_at, labels_at = f"{where}[{pair.images}]", f"{where}[{pair.labels}]"
    raw_images = arrays[pair.images]
    raw_labels = _labels(arrays[pair.labels], labels_at)
    items = _items(raw_images)
    if items is None:
        raw_images = as_array(raw_images, images_at)
    shape = (len(items),) if items is not None else raw_images.shape
    if shape[:1] != raw_labels.shape[:1]:
        raise DataError(
            f"{where}: expected one label for each image, got {pair.images} of shape {shape} and "
            f"{pair.labels} of shape {raw_labels.shape}"
        )
    if items is not None and not all(isinstance(item, str | os.PathLike) for item in items):
        names = raw_labels[:, 0] if raw_labels.ndim == 2 else raw_labels
        return read_torch(list(zip(items, names, strict=True)), request, where)
    labels, class_names, label_notes = normalise_labels(
        raw_labels,
        labels_at,
        request,
        reference=None if pair.reference is None else _labels(arrays[pair.reference], labels_at),
    )
    names_of_files = None
    if items is not None:
        paths = names_of_files = [os.fspath(item) for item in items]
        images, value_range, kept, notes = read_media(paths, images_at, request)
        labels = labels[kept]
        names_of_files = [path for path, k in zip(paths, kept, strict=True) if k]
    else:
        images, value_range, notes = finish_pixels(raw_images, images_at, request)
    return labelled(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=pair.split,
        source=where,
        notes=(*pair.notes, *label_notes, *notes),
        names=names_of_files,
    )


def _labels(labels: Any, where: str) -> Shaped[np.ndarray, "..."]:
    """Labels as an array; a table of one column is a column."""
    return np.asarray(labels) if is_frame(labels) else as_array(labels, where)


def _items(images: Any) -> list[Any] | None:
    """Images that are each an object of its own: arrays, tensors, Pillow images or paths."""
    one_by_one = is_array(images) and len(images.shape) == 1
    texts_or_objects = one_by_one and getattr(images.dtype, "kind", "") in tuple("OUT")
    if not (isinstance(images, list | tuple) or texts_or_objects):
        return None
    items: list[Any] = list(images)
    first: Shaped[np.ndarray, ...] | Any = items[0] if items else None
    own = is_array(first) or isinstance(first, str | os.PathLike) or hasattr(first, "getexif")
    return items if own else None
