"""Arrays in memory: a pair (images, labels), or a mapping of such arrays."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.checks import DataError
from vaeaug.data.finish import RawData
from vaeaug.data.foreign_arrays import as_array, is_array, is_frame
from vaeaug.data.formats.media import decode_media
from vaeaug.data.formats.named_arrays import ArrayNames, are_named_features, choose_arrays
from vaeaug.data.formats.torch_dataset import read_torch
from vaeaug.data.metadata import SourceMetadata
from vaeaug.data.request import Request

_WHERE = "arrays"
_SCALARS = (bool, int, float, str, bytes, np.generic)


def is_pair(source: object) -> bool:
    """Whether a source is a tuple of images and their labels.

    A list of two is a dataset of two items, and so are two tuples (image, label).

    Args:
        source: Anything.

    Returns:
        True where it is.
    """
    if not (isinstance(source, tuple) and len(source) == 2):
        return False
    images, labels = source
    if not (is_array(labels) or is_frame(labels) or isinstance(labels, list | tuple)):
        return False
    if not isinstance(images, list | tuple):
        return is_array(images) or is_frame(images)
    is_item = len(images) > 1 and isinstance(images[1], _SCALARS)
    return not is_item or isinstance(images[0], (*_SCALARS, os.PathLike))


def read_pair(pair: tuple[Any, Any], request: Request) -> RawData:
    """Read (images, labels).

    Arrays do not state splits: the requested split is taken as the caller's word.

    Args:
        pair: Arrays, tensors, lists or columns of a table; see `read` for their shapes.
        request: The options of `read`.

    Returns:
        The images with their labels.

    Raises:
        DataError: If they are not arrays, or not of one length.
    """
    names = ArrayNames("images", "labels", request.split)
    return _read({"images": pair[0], "labels": pair[1]}, names, request, _WHERE)


def read_mapping(source: Mapping[Any, Any], request: Request) -> RawData:
    """Read a mapping of arrays, by the names that arrays in a file may have.

    Args:
        source: The arrays. A split may be a mapping or a pair: {"train": (images, labels), ...}.
        request: The options of `read`.

    Returns:
        The images of the requested split with their labels.

    Raises:
        DataError: If no names are known, or they are not arrays of one length.
    """
    where = type(source).__name__
    arrays: dict[str, Any] = {}
    for name, value in source.items():
        if not isinstance(name, str):
            raise DataError(f"{where}: expected names of arrays as keys, got {name!r}")
        if isinstance(value, Mapping):
            arrays |= {f"{name}/{inner}": array for inner, array in value.items()}
        elif is_pair(value):
            arrays |= {f"{name}/images": value[0], f"{name}/labels": value[1]}
        else:
            arrays[name] = value
    return _read(arrays, choose_arrays(arrays, request, where), request, where)


def _read(arrays: Mapping[str, Any], names: ArrayNames, request: Request, where: str) -> RawData:
    images_at, labels_at = f"{where}[{names.images}]", f"{where}[{names.labels}]"
    labels = _labels(arrays[names.labels], labels_at)
    reference = arrays[names.reference] if names.reference else None
    raw = partial(
        RawData,
        source=where,
        split=names.split,
        images_at=images_at,
        labels=labels,
        labels_at=labels_at,
        reference=None if reference is None else _labels(reference, labels_at),
        notes=names.notes,
    )
    items = _items(arrays[names.images])
    if items is None:
        array = as_array(arrays[names.images], images_at)
        layout = "NF" if are_named_features(names.images, array) else None
        return raw(images=array, metadata=SourceMetadata(layout=layout))
    if labels.shape[:1] != (len(items),):
        raise DataError(
            f"{where}: expected one label for each image, got {len(items)} {names.images} and "
            f"{names.labels} of shape {labels.shape}"
        )
    if all(isinstance(item, str | os.PathLike) for item in items):
        paths = [os.fspath(item) for item in items]
        return raw(images=partial(decode_media, paths, images_at, request), names=paths)
    flat = labels[:, 0] if labels.ndim == 2 else labels
    return read_torch(list(zip(items, flat, strict=True)), request, where)


def _labels(labels: Any, where: str) -> Shaped[np.ndarray, "..."]:
    """Labels as an array; a table of one column is a column."""
    return np.asarray(labels) if is_frame(labels) else as_array(labels, where)


def _items(images: Any) -> list[Any] | None:
    """Images that are separate objects: arrays, tensors, Pillow images or paths; else None."""
    is_flat = is_array(images) and len(images.shape) == 1
    is_objects = is_flat and getattr(images.dtype, "kind", "") in tuple("OUT")
    if not (isinstance(images, list | tuple) or is_objects):
        return None
    items: list[Any] = list(images)
    first = items[0] if items else None
    is_image = is_array(first) or isinstance(first, str | os.PathLike) or hasattr(first, "getexif")
    return items if is_image else None
