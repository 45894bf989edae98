"""Any map-style torch Dataset of (image, label)."""

import os
from pathlib import PurePath
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.decode import BadImageError, decode_image, resize, resize_note, to_mode
from vaeaug.data.foreign_arrays import as_array
from vaeaug.data.labels import labelled, normalise_labels
from vaeaug.data.layout import IMAGE_CHANNELS
from vaeaug.data.pixels import check_resizable, finish_channels
from vaeaug.data.request import Request
from vaeaug.data.splits import canonical
from vaeaug.data.stack import Faults, Stack
from vaeaug.data.values import normalise_pixels

# What an item is without a layout, by its rank.
_LAYOUTS = {1: "NL", 2: "NHW", 3: "NHWC", 4: "NDHWC"}


def is_map_style(source: object) -> bool:
    """Whether it has items and a length, as a map-style dataset has."""
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def read_torch(dataset: Any, request: Request, where: str | None = None) -> LabelledImages:
    """Read every item of a map-style dataset once, and the first one twice.

    The asked split is taken as the caller's word; a dataset that says otherwise makes a note.
    """
    where = where or type(dataset).__name__
    n = len(dataset)
    if n == 0:
        raise DataError(f"{where}: expected at least one item, got len() of 0")
    stack, faults = Stack(n, where), Faults(where, request.on_error)
    labels: list[Any] = []
    kept: list[int] = []
    # By index: a dataset need not raise IndexError at its end, so iterating might never stop.
    for i in range(n):
        try:
            image, label = _item(dataset, i, where, request)
            pixels, name, notes_of_one = _pixels(image, f"{where}[{i}]", request)
        except BadImageError as error:
            faults.add(str(error))
            stack.leave_out()
            continue
        labels.append(label)
        kept.append(i)
        if not len(faults) or request.on_error == "skip":
            stack.add(pixels, name, notes_of_one)
    left_out = faults.settle(n)
    again, _ = _item(dataset, kept[0], where, request)
    first, _, _ = _pixels(again, f"{where}[{kept[0]}]", request)
    images, notes = stack.finish()
    notes = (*left_out, *notes)
    if not np.array_equal(first, images[0], equal_nan=first.dtype.kind == "f"):
        notes = (
            f"item {kept[0]} came out differently when read twice: the dataset's random transforms "
            f"are baked into these images; read it without them",
            *notes,
        )
    images, value_range, value_notes = normalise_pixels(images, where, request.value_range)
    # Pillow images have had their alpha handled; those that keep it are left as they are.
    more: list[str] = []
    if images.ndim == 4 and request.alpha != "keep":
        images = finish_channels(images, request, value_range, request.layout, more)
    indices, class_names, label_notes = normalise_labels(
        np.array(labels), where, request, stated=_classes(dataset)
    )
    said = _split_of(dataset)
    if request.split == "train" and said in ("val", "test"):
        more.append(f"taken as the training split, although the dataset says that it is of {said}")
    return labelled(
        images=images,
        labels=indices,
        class_names=class_names,
        value_range=value_range,
        split=request.split,
        source=where,
        notes=(*notes, *label_notes, *value_notes, *more),
        names=[f"item {i}" for i in kept],
    )


def _item(dataset: Any, i: int, where: str, request: Request) -> tuple[Any, Any]:
    try:
        item = dataset[i]
    except Exception as error:
        # Whatever a dataset raises for a file that it cannot read.
        if request.on_error == "skip":
            raise BadImageError(f"{where}[{i}]: {type(error).__name__}: {error}") from error
        error.add_note(f"while reading item {i} of {where}")
        raise
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise DataError(f"{where}[{i}]: expected an item (image, label), got {type(item).__name__}")
    return item[0], _label(item[1], f"{where}[{i}]")


def _label(label: Any, name: str) -> Any:
    if isinstance(label, str | bytes):
        return label
    value = np.asarray(label)
    if value.size != 1 or value.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: expected one class index or name as label, got {type(label).__name__} of "
            f"shape {value.shape}; multi-label and one-hot labels are not read"
        )
    return value.item()


def _pixels(
    image: Any, name: str, request: Request
) -> tuple[Shaped[np.ndarray, "*space c"], str, list[str]]:
    """The image as an array, its name and notes, as `Stack.add` takes them."""
    import torch
    from PIL import Image

    if isinstance(image, Image.Image):
        return _decoded(image, name, request)
    if isinstance(image, torch.Tensor | np.ndarray):
        array = as_array(image, name)
    else:
        raise DataError(
            f"{name}: expected a PIL image, an array (H, W[, C]) or a tensor (C, H, W), got "
            f"{type(image).__name__}"
        )
    layout = request.layout or _LAYOUTS.get(array.ndim, "")
    # One row or one column of pixels is no image but a signal of one channel.
    if request.layout is None and array.ndim == 2 and 1 in array.shape:
        layout = "NCL" if array.shape[0] == 1 else "NLC"
    # torch's convention; channels-last tensors are ambiguous only where the first axis is 1, 3
    # or 4 long.
    if request.layout is None and isinstance(image, torch.Tensor) and array.ndim in (3, 4):
        layout = f"NC{layout[1:-1]}" if array.shape[0] in IMAGE_CHANNELS else layout
    fits = array.ndim == len(layout) - 1
    if fits:
        array = _channels_last(array, layout)
    known = request.layout or array.ndim != 3 or array.shape[2] in IMAGE_CHANNELS
    if not fits or not known:
        asked = f", by layout={request.layout!r}" if request.layout else ""
        raise DataError(
            f"{name}: expected a signal (L,), a volume (D, H, W, C), an array (H, W[, C]) or a "
            f"tensor (C, H, W) with C of 1, 3 or 4, got shape {tuple(image.shape)}{asked}"
        )
    notes: list[str] = []
    if array.ndim == 3:
        array = to_mode(array, request.mode, notes)
    if request.size is not None:
        check_resizable(array[None], name)
        if array.shape[:2] != request.size:
            notes.append(resize_note(array.shape[:2], request.size, request.resize))
            bands = request.layout is not None and request.alpha != "keep"
            array = resize(array, request.size, request.resize, bands=bands)
    return array, name, notes


def _decoded(
    image: Any, name: str, request: Request
) -> tuple[Shaped[np.ndarray, "h w c"], str, list[str]]:
    array, notes = decode_image(image, name, request.how)
    return array, name, notes


def _channels_last(
    array: Shaped[np.ndarray, "*axes"], layout: str
) -> Shaped[np.ndarray, "*space c"]:
    if layout.startswith("NC"):
        array = np.moveaxis(array, 0, -1)
    elif not layout.endswith("C"):
        array = array[..., None]
    return np.ascontiguousarray(array)


def _split_of(dataset: Any) -> str | None:
    """The split that torchvision's datasets say they are of: `train`, `split` or their folder."""
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    if getattr(dataset, "train", None) is False:
        return "test"
    for name in ("split", "root"):
        said = getattr(dataset, name, None)
        if isinstance(said, str | os.PathLike):
            return canonical(PurePath(said).name)
    return None


def _classes(dataset: Any) -> tuple[str, ...] | None:
    """`.classes` of the dataset, or of the one that it is a Subset of."""
    while True:
        classes = getattr(dataset, "classes", None)
        if classes is not None:
            return tuple(str(name) for name in classes)
        if not hasattr(dataset, "dataset"):
            return None
        dataset = dataset.dataset
