"""Any map-style torch Dataset of (image, label)."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data._arrays import normalise_labels, normalise_pixels
from vaeaug.data._decode import NOTE_ALPHA, BadImageError, apply_alpha, decode_image, resize
from vaeaug.data._images import DataError, LabelledImages
from vaeaug.data._request import Request
from vaeaug.data._stack import Stack

_CHANNELS = (1, 3, 4)


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
    if images.shape[3] == 4 and request.alpha != "keep":
        low, high = value_range
        images = apply_alpha(images, request.alpha, low=low, high=high)
        notes = (*notes, f"four channels taken as RGBA: {NOTE_ALPHA[request.alpha]}")
    indices, class_names = normalise_labels(
        np.array(labels), where, class_names=request.class_names or _classes(dataset)
    )
    return LabelledImages(
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
) -> tuple[Shaped[np.ndarray, "h w c"], str, list[str]]:
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
        if array.ndim == 3:
            # torch's convention; (H, W, C) tensors are ambiguous only where H is 1, 3 or 4.
            array = array.transpose(1, 2, 0) if array.shape[0] in _CHANNELS else array
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise DataError(
            f"{name}: expected a PIL image, an array (H, W[, C]) or a tensor (C, H, W), got "
            f"{type(image).__name__}"
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in _CHANNELS:
        raise DataError(
            f"{name}: expected an array (H, W[, C]) or a tensor (C, H, W) with C of 1, 3 or 4, "
            f"got shape {tuple(image.shape)}"
        )
    array = np.ascontiguousarray(array)
    if request.size is not None:
        array = resize(array, request.size)
    return array, name, []


def _classes(dataset: Any) -> tuple[str, ...] | None:
    """`.classes` of the dataset, or of the one that it is a Subset of."""
    while True:
        classes = getattr(dataset, "classes", None)
        if classes is not None:
            return tuple(str(name) for name in classes)
        if not hasattr(dataset, "dataset"):
            return None
        dataset = dataset.dataset
