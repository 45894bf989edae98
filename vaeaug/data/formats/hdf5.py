"""HDF5 files, with no link followed out of the file, opened by another process."""

from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.formats.hdf5_process import ForeignHDF5
from vaeaug.data.formats.named_arrays import choose, choose_images
from vaeaug.data.labels import labelled, normalise_labels
from vaeaug.data.metadata import is_range
from vaeaug.data.pixels import finish_pixels
from vaeaug.data.request import STORED_LAYOUTS, Request


def read_hdf5(path: Path, request: Request) -> LabelledImages:
    """Read an HDF5 file; see `read` for the names that its datasets may have."""
    where = str(path)
    with ForeignHDF5(path) as file:
        # Names given by the caller are judged link by link when they are read, and by no list.
        there = set(request.keys.values()) if request.keys else set(file.names())
        pair = choose(there, request, where)
        image_shape, label_shape = file.shape(pair.images), file.shape(pair.labels)
        if image_shape[:1] != label_shape[:1]:
            raise DataError(
                f"{where}: expected one label for each image, got {pair.images!r} of shape "
                f"{image_shape} and {pair.labels!r} of shape {label_shape}"
            )
        asked = request.class_names is not None
        names = None if asked else _class_names(file, pair.images, pair.labels)
        layout, said = _layout(file, pair.images), _value_range(file, pair.images)
        raw_labels = file.load(pair.labels)
        reference = None if pair.reference is None else file.load(pair.reference)
        raw_images = file.load(pair.images)
    images, value_range, notes = finish_pixels(
        raw_images, f"{where}[{pair.images}]", request, layout=layout, value_range=said
    )
    labels, class_names, label_notes = normalise_labels(
        raw_labels, f"{where}[{pair.labels}]", request, stated=names, reference=reference
    )
    return labelled(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=pair.split,
        source=where,
        notes=(*pair.notes, *label_notes, *notes),
    )


def load_hdf5_images(
    path: Path, request: Request
) -> tuple[Shaped[np.ndarray, "..."], str, str | None]:
    """The images alone, as stored; where they were, for messages; the layout that the file says."""
    where = str(path)
    with ForeignHDF5(path) as file:
        # Groups are no arrays; what is no hard link is judged when it is read.
        names = (
            set(request.keys.values())
            if request.keys
            else {name for name, kind in file.names().items() if kind != "group"}
        )
        key = choose_images(names, request, where)
        return file.load(key), f"{where}[{key}]", _layout(file, key)


def _layout(file: ForeignHDF5, images: str) -> str | None:
    """The attribute `layout` of the images or the file, which merged files and shards have."""
    n_axes = len(file.shape(images))
    for holder in (images, None):
        said = file.attribute(holder, "layout") or []
        if len(said) == 1 and said[0] in STORED_LAYOUTS and len(said[0]) == n_axes:
            return str(said[0])
    return None


def _value_range(file: ForeignHDF5, images: str) -> tuple[float, float] | None:
    """The attribute `image_value_range`, which merged files and shards have."""
    for holder in (images, None):
        said = file.attribute(holder, "image_value_range")
        # In the files of others it may be anything.
        if is_range(said):
            return float(said[0]), float(said[1])
    return None


def _class_names(file: ForeignHDF5, images: str, labels: str) -> tuple[str, ...] | None:
    """The attribute `class_names` of the labels, the images or the file, in this order."""
    for holder in (labels, images, None):
        names = file.attribute(holder, "class_names")
        if names is None:
            continue
        if not names or not all(isinstance(name, str) for name in names):
            raise DataError(
                f"{file.path}: expected the attribute class_names as a list of texts, got "
                f"{names[:10]!r}"
            )
        return tuple(names)
    return None
