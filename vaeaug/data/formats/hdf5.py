"""HDF5 files, with no link followed out of the file, opened by another process."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from vaeaug.data.checks import DataError
from vaeaug.data.finish import RawData, RawImages
from vaeaug.data.formats.hdf5_process import ForeignHDF5
from vaeaug.data.formats.named_arrays import choose_arrays, choose_images, load_arrays
from vaeaug.data.metadata import SourceMetadata, is_range
from vaeaug.data.request import STORED_LAYOUTS, Request

# Number of the image that a row was made from, alike for its views.
GROUPS = "groups"


def read_hdf5(path: Path, request: Request) -> RawData:
    """Read an HDF5 file; see `read` for the names that its datasets may have.

    Args:
        path: The file.
        request: The options of `read`.

    Returns:
        The images of the requested split with their labels.

    Raises:
        DataError: If no names are known, or the file is damaged or refers to others.
    """
    where = str(path)
    with ForeignHDF5(path) as file:
        # Names given by the caller are judged link by link when they are read, and by no list.
        all_names = set(request.keys.values()) if request.keys else set(file.names())
        names = choose_arrays(all_names, request, where)
        image_shape, label_shape = file.shape(names.images), file.shape(names.labels)
        if image_shape[:1] != label_shape[:1]:
            raise DataError(
                f"{where}: expected one label for each image, got {names.images!r} of shape "
                f"{image_shape} and {names.labels!r} of shape {label_shape}"
            )
        metadata = _metadata(file, names.images)
        if request.class_names is None:
            metadata = replace(metadata, class_names=_class_names(file, names.images, names.labels))
        groups = None
        if not request.keys and file.names().get(GROUPS) == "dataset":
            groups = _groups(file, label_shape)
        return load_arrays(names, where, file.load, metadata, groups=groups)


def read_hdf5_images(path: Path, request: Request) -> RawImages:
    """Read the images of an HDF5 file alone.

    Args:
        path: The file.
        request: The options of `read_pool`.

    Returns:
        The images as stored.

    Raises:
        DataError: As `read_hdf5`.
    """
    where = str(path)
    with ForeignHDF5(path) as file:
        # Groups are no arrays; what is no hard link is judged when it is read.
        names = (
            set(request.keys.values())
            if request.keys
            else {name for name, kind in file.names().items() if kind != "group"}
        )
        name = choose_images(names, request, where)
        return RawImages(
            source=where,
            images=file.load(name),
            images_at=f"{where}[{name}]",
            metadata=replace(_metadata(file, name), value_range=None),
        )


def _metadata(file: ForeignHDF5, images: str) -> SourceMetadata:
    """The attributes `layout` and `image_value_range`, which merged files and shards have.

    In the files of others they may be anything: what does not look like ours is left.
    """
    n_axes = len(file.shape(images))
    layouts = [
        str(value[0])
        for value in _attributes(file, "layout", images, None)
        if len(value) == 1 and value[0] in STORED_LAYOUTS and len(value[0]) == n_axes
    ]
    ranges = [
        (float(value[0]), float(value[1]))
        for value in _attributes(file, "image_value_range", images, None)
        if is_range(value)
    ]
    return SourceMetadata(
        layout=layouts[0] if layouts else None, value_range=ranges[0] if ranges else None
    )


def _groups(file: ForeignHDF5, shape: tuple[int, ...]) -> Int64[np.ndarray, " n"] | None:
    """The dataset `groups` of `vaeaug embed`; another's of that name may be anything."""
    groups = file.load(GROUPS) if file.shape(GROUPS) == shape else None
    if groups is None or groups.dtype.kind not in "iu":
        return None
    return groups.astype(np.int64)


def _class_names(file: ForeignHDF5, images: str, labels: str) -> tuple[str, ...] | None:
    """The attribute `class_names` of the labels, the images or the file, in this order."""
    names = next(_attributes(file, "class_names", labels, images, None), None)
    if names is None:
        return None
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{file.path}: expected the attribute class_names as a list of texts, got "
            f"{names[:10]!r}"
        )
    return tuple(names)


def _attributes(file: ForeignHDF5, name: str, *holders: str | None) -> Iterator[list[Any]]:
    """The values of an attribute of these datasets, or of the file (None), where they have it."""
    for holder in holders:
        value = file.attribute(holder, name)
        if value is not None:
            yield value
