"""Columns of a Hugging Face dataset, as Arrow keeps them, become labels and pixels."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from vaeaug.data.dataset import DataError
from vaeaug.data.decode import BadImageError, decode_bytes, decode_file
from vaeaug.data.formats.image_files import read_files
from vaeaug.data.metadata import Stated
from vaeaug.data.request import Request
from vaeaug.data.stack import Faults, Stack
from vaeaug.data.values import normalise_pixels
from vaeaug.memory import array_bytes, require_memory

# Rows looked at together: their encoded bytes are in memory twice.
_ROWS = 256
_Pixels = tuple[Shaped[np.ndarray, "n *space c"], tuple[float, float], tuple[str, ...]]


def kind(feature: Any) -> str:
    """The name of a feature's type."""
    return type(feature).__name__


def is_image(feature: Any) -> bool:
    """Whether a feature is of image files."""
    return kind(feature) == "Image"


def is_array(feature: Any) -> bool:
    """Whether a feature is of lists or arrays."""
    # A list is written as [feature] in old versions of the library.
    return isinstance(feature, list) or kind(feature) in (
        *(f"Array{n}D" for n in (2, 3, 4, 5)),
        "Sequence",
        "List",
        "LargeList",
    )


def names_of(feature: Any) -> tuple[str, ...] | None:
    """The names of a ClassLabel, or None."""
    return tuple(feature.names) if kind(feature) == "ClassLabel" and feature.names else None


def _blocks(dataset: Any, name: str) -> Iterator[Any]:
    """A column as Arrow arrays of some rows each."""
    column = dataset.select_columns([name]).with_format("arrow")
    for start in range(0, len(column), _ROWS):
        chunked = column[start : start + _ROWS].column(name)
        array = chunked.combine_chunks()
        yield array.chunk(0) if hasattr(array, "num_chunks") else array


def label_column(dataset: Any, name: str, where: str) -> Shaped[np.ndarray, " n"]:
    """The labels as they are kept, numbers or texts.

    Raises:
        DataError: if a row has none, or several.
    """
    feature = dataset.features[name]
    if is_array(feature) or isinstance(feature, dict):
        raise DataError(
            f"{where}: expected one label for each image, got {kind(feature)}; multi-label and "
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


def image_column(
    dataset: Any, name: str, request: Request, where: str, local_files: bool
) -> tuple[
    Shaped[np.ndarray, "m h w c"],
    tuple[float, float],
    tuple[str, ...],
    Bool[np.ndarray, " n"],
]:
    """The decoded images of a column of image files, their value range, notes, and of which rows.

    Args:
        dataset: the rows to read.
        name: the column.
        request: what was asked for.
        where: the source, for messages.
        local_files: whether a path that stands for an image is followed.

    Raises:
        DataError: naming the row that has no readable image.
    """
    rows = _encoded(dataset, name, where, local_files)
    first = next(rows)
    if isinstance(first, str):
        # Image files that lie on their own are decoded by several processes where they are many.
        rest = list(rows)
        paths = [first, *(row for row in rest if isinstance(row, str))]
        if len(paths) == len(dataset):
            images, kept, notes = read_files(paths, where, request)
            return *_normalised(images, where, request, notes), kept
        rows = iter(rest)
    stack, faults = Stack(len(dataset), where), Faults(where, request.on_error)
    kept = np.ones(len(dataset), dtype=np.bool_)
    for i, row in enumerate(itertools.chain([first], rows)):
        at = f"{where}[{i}]"
        try:
            image, image_notes = (
                decode_file(row, request.how)
                if isinstance(row, str)
                else decode_bytes(row, at, request.how)
            )
        except BadImageError as error:
            faults.add(str(error))
            stack.leave_out()
            kept[i] = False
        else:
            if not len(faults) or request.on_error == "skip":
                stack.add(image, at, image_notes)
    left_out = faults.settle(len(dataset))
    images, notes = stack.finish()
    return *_normalised(images, where, request, (*left_out, *notes)), kept


def _normalised(
    images: Shaped[np.ndarray, "n h w c"], where: str, request: Request, notes: tuple[str, ...]
) -> _Pixels:
    pixels, value_range, value_notes = normalise_pixels(images, where, request.value_range)
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


def array_column(dataset: Any, name: str, request: Request, where: str, said: Stated) -> _Pixels:
    """The values of a column of arrays, their value range and notes.

    Raises:
        DataError: if they are not of one shape, or no numbers.
    """
    out: Shaped[np.ndarray, "n ..."] | None = None
    start = 0
    for block in _blocks(dataset, name):
        part = _rectangular(block, where, start)
        if out is None:
            shape = (len(dataset), *part.shape[1:])
            what = f"arrays of {part.dtype} of shape {shape}"
            require_memory(array_bytes(shape, part.dtype), where, what, DataError)
            out = np.empty(shape, dtype=part.dtype)
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
