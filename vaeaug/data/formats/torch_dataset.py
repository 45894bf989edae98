"""Any map-style torch Dataset of (image, label)."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.checks import DataError
from vaeaug.data.decode import BadImageError, decode_image, resize, resize_note, to_mode
from vaeaug.data.finish import RawData
from vaeaug.data.foreign_arrays import as_array
from vaeaug.data.layout import IMAGE_CHANNELS, move_channels
from vaeaug.data.metadata import SourceMetadata
from vaeaug.data.pixels import check_resizable
from vaeaug.data.request import Request
from vaeaug.data.split_names import canonical
from vaeaug.data.stack import Stack

# What an item is without a layout, by its rank.
_LAYOUTS = {1: "NL", 2: "NHW", 3: "NHWC", 4: "NDHWC"}


def is_map_style(source: object) -> bool:
    """Whether a source has items and a length, as a map-style dataset has.

    Args:
        source: Anything.

    Returns:
        True where it has.
    """
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def read_torch(dataset: Any, request: Request, where: str | None = None) -> RawData:
    """Read every item of a map-style dataset once, and the first one twice.

    The requested split is taken as the caller's word, with a note where the dataset states another.

    Args:
        dataset: Its items begin with (image, label).
        request: The options of `read`.
        where: Its name, for messages; None for that of its type.

    Returns:
        The images with their labels.

    Raises:
        DataError: If an item is no (image, label), or does not fit the others.
    """
    where = where or type(dataset).__name__
    n = len(dataset)
    if n == 0:
        raise DataError(f"{where}: expected at least one item, got len() of 0")
    stack = Stack(n, where, request.on_error)
    labels: list[Any] = []
    # By index: a dataset need not raise IndexError at its end, so iterating might never stop.
    for i in range(n):
        try:
            image, label = _item(dataset, i, where, request)
            pixels, notes = _pixels(image, f"{where}[{i}]", request)
        except BadImageError as error:
            stack.leave_out(error)
            continue
        stack.add(pixels, f"{where}[{i}]", notes)
        labels.append(label)
    decoded = stack.finish()
    rows = np.flatnonzero(decoded.kept).tolist()
    return RawData(
        source=where,
        split=request.split,
        images=replace(decoded.all_kept(), notes=(), stored_as_numbers=True),
        labels=np.array(labels),
        metadata=SourceMetadata(class_names=_class_names(dataset)),
        notes=(
            *_note_random(dataset, rows[0], decoded.images[0], where, request),
            *decoded.notes,
            *_note_split(dataset, request),
        ),
        names=[f"item {i}" for i in rows],
    )


def _note_random(
    dataset: Any, i: int, pixels: Shaped[np.ndarray, "*space c"], where: str, request: Request
) -> tuple[str, ...]:
    """A note where an item, read again, differs."""
    again, _ = _pixels(_item(dataset, i, where, request)[0], f"{where}[{i}]", request)
    if np.array_equal(again, pixels, equal_nan=again.dtype.kind == "f"):
        return ()
    return (
        f"item {i} came out differently when read twice: the dataset's random transforms "
        f"are baked into these images; read it without them",
    )


def _note_split(dataset: Any, request: Request) -> tuple[str, ...]:
    """A note where torchvision's `train`, `split` or the folder states another split."""
    innermost = list(_nested(dataset))[-1]
    split = None
    if getattr(innermost, "train", None) is False:
        split = "test"
    else:
        for name in ("split", "root"):
            value = getattr(innermost, name, None)
            if isinstance(value, str | os.PathLike):
                split = canonical(PurePath(value).name)
                break
    if request.split != "train" or split not in ("val", "test"):
        return ()
    return (f"taken as the training split, although the dataset states that it is {split}",)


def _class_names(dataset: Any) -> tuple[str, ...] | None:
    """`.classes` of the dataset, or of the one that it is a Subset of."""
    for inner in _nested(dataset):
        if (names := getattr(inner, "classes", None)) is not None:
            return tuple(map(str, names))
    return None


def _nested(dataset: Any) -> Iterator[Any]:
    """The dataset, the one that it is a Subset of, and so on."""
    yield dataset
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
        yield dataset


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
) -> tuple[Shaped[np.ndarray, "*space c"], list[str]]:
    """The image as an array with channels last, in the requested mode and size, and notes."""
    import torch
    from PIL import Image

    if isinstance(image, Image.Image):
        return decode_image(image, name, request.decoding)
    if not isinstance(image, torch.Tensor | np.ndarray):
        raise DataError(
            f"{name}: expected a PIL image, an array (H, W[, C]) or a tensor (C, H, W), got "
            f"{type(image).__name__}"
        )
    array = as_array(image, name)
    layout = request.layout or _guess_layout(array, isinstance(image, torch.Tensor))
    fits = array.ndim == len(layout) - 1
    if fits:
        array = np.ascontiguousarray(move_channels(array[None], layout)[0])
    is_known = request.layout or array.ndim != 3 or array.shape[2] in IMAGE_CHANNELS
    if not fits or not is_known:
        by_layout = f", by layout={request.layout!r}" if request.layout else ""
        raise DataError(
            f"{name}: expected a signal (L,), a volume (D, H, W, C), an array (H, W[, C]) or a "
            f"tensor (C, H, W) with C of 1, 3 or 4, got shape {tuple(image.shape)}{by_layout}"
        )
    notes: list[str] = []
    if array.ndim == 3:
        array = to_mode(array, request.mode, notes)
    if request.size is not None:
        check_resizable(array[None], name)
        if array.shape[:2] != request.size:
            notes.append(resize_note(array.shape[:2], request.size, request.resize))
            is_bands = request.layout is not None and request.alpha != "keep"
            array = resize(array, request.size, request.resize, bands=is_bands)
    return array, notes


def _guess_layout(array: Shaped[np.ndarray, "*axes"], is_tensor: bool) -> str:
    """The axes of one item, with N before them; empty where it has too many or none."""
    layout = _LAYOUTS.get(array.ndim, "")
    # One row or one column of pixels is no image but a signal of one channel.
    if array.ndim == 2 and 1 in array.shape:
        return "NCL" if array.shape[0] == 1 else "NLC"
    # torch's convention; channels-last tensors are ambiguous only where the first axis is 1, 3
    # or 4 long.
    if is_tensor and array.ndim in (3, 4) and array.shape[0] in IMAGE_CHANNELS:
        return f"NC{layout[1:-1]}"
    return layout
