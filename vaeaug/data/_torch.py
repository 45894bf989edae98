"""Any map-style torch Dataset of (image, label)."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data._arrays import check_resizable, normalise_pixels
from vaeaug.data._decode import NOTE_ALPHA, BadImageError, apply_alpha, decode_image, resize
from vaeaug.data._images import DataError, LabelledImages
from vaeaug.data._labels import labelled, normalise_labels
from vaeaug.data._layout import IMAGE_CHANNELS
from vaeaug.data._request import Request
from vaeaug.data._stack import Stack

# What an item is without a layout, by its rank.
_LAYOUTS = {1: "NL", 2: "NHW", 3: "NHWC", 4: "NDHWC"}


def is_map_style(source: object) -> bool:
    """Whether it has items and a length, as a map-style dataset has."""
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def read_torch(dataset: Any, request: Request) -> LabelledImages:
    """Read every item of a map-style dataset once, and the first one twice.

    The dataset says nothing of splits: the asked split is taken as the caller's word.
    """
    where = type(dataset).__name__
    n = len(dataset)
    if n == 0:
        raise DataError(f"{where}: expected at least one item, got len() of 0")
    stack = Stack(n, where)
    labels: list[Any] = []
    # By index: a dataset need not raise IndexError at its end, so iterating might never stop.
    for i in range(n):
        image, label = _item(dataset, i, where)
        labels.append(label)
        stack.add(*_pixels(image, f"{where}[{i}]", request))
    again, _ = _item(dataset, 0, where)
    first, _, _ = _pixels(again, f"{where}[0]", request)
    images, notes = stack.finish()
    if not np.array_equal(first, images[0], equal_nan=first.dtype.kind == "f"):
        notes = (
            "item 0 came out differently when read twice: the dataset's random transforms are "
            "baked into these images; read it without them",
            *notes,
        )
    images, value_range, value_notes = normalise_pixels(images, where)
    # Pillow images have had their alpha handled; those that keep it are left as they are.
    if images.ndim == 4 and images.shape[3] == 4 and request.alpha != "keep":
        low, high = value_range
        images = apply_alpha(images, request.alpha, low=low, high=high)
        notes = (*notes, f"four channels taken as RGBA: {NOTE_ALPHA[request.alpha]}")
    indices, class_names = normalise_labels(
        np.array(labels), where, class_names=request.class_names or _classes(dataset)
    )
    return labelled(
        images=images,
        labels=indices,
        class_names=class_names,
        value_range=value_range,
        split=request.split,
        source=where,
        notes=(*notes, *value_notes),
    )


def _item(dataset: Any, i: int, where: str) -> tuple[Any, Any]:
    try:
        item = dataset[i]
    except Exception as error:
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
        try:
            array, notes = decode_image(image, name, size=request.size, alpha=request.alpha)
        except BadImageError as error:
            raise DataError(str(error)) from error
        return array, name, notes
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu().numpy()
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise DataError(
            f"{name}: expected a PIL image, an array (H, W[, C]) or a tensor (C, H, W), got "
            f"{type(image).__name__}"
        )
    layout = request.layout or _LAYOUTS.get(array.ndim, "")
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
    if request.size is not None:
        check_resizable(array[None], name)
        array = resize(array, request.size)
    return array, name, []


def _channels_last(
    array: Shaped[np.ndarray, "*axes"], layout: str
) -> Shaped[np.ndarray, "*space c"]:
    if layout.startswith("NC"):
        array = np.moveaxis(array, 0, -1)
    elif not layout.endswith("C"):
        array = array[..., None]
    return np.ascontiguousarray(array)


def _classes(dataset: Any) -> tuple[str, ...] | None:
    """`.classes` of the dataset, or of the one that it is a Subset of."""
    while True:
        classes = getattr(dataset, "classes", None)
        if classes is not None:
            return tuple(str(name) for name in classes)
        if not hasattr(dataset, "dataset"):
            return None
        dataset = dataset.dataset
