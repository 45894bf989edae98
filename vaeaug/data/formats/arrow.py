"""Columns of a Hugging Face dataset, as Arrow keeps them, become labels and images."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.checks import DataError
from vaeaug.data.decode import BadImageError, decode_bytes, decode_file
from vaeaug.data.formats.image_files import decode_images
from vaeaug.data.request import Request
from vaeaug.data.stack import Decoded, Stack
from vaeaug.mapping import room_for

# Rows of a block, whose encoded bytes are in memory twice.
_ROWS = 256


def load_label_column(dataset: Any, name: str, where: str) -> Shaped[np.ndarray, " n"]:
    """Load the labels, numbers or texts.

    Args:
        dataset: The rows, at least one.
        name: The column.
        where: Its place, for messages.

    Returns:
        The labels as stored.

    Raises:
        DataError: If a row has no label, or they are neither numbers nor texts.
    """
    labels: list[Any] = []
    for block in _blocks(dataset, name):
        if block.null_count:
            row = len(labels) + block.is_null().to_pylist().index(True)
            raise DataError(
                f"{where}: expected a label for each image, got none in row {row}; -1 marks an "
                f"image without a label"
            )
        labels += block.to_pylist()
    if not isinstance(labels[0], int | float | str):
        raise DataError(f"{where}: expected integer or text labels, got {type(labels[0]).__name__}")
    return np.array(labels)


def decode_image_column(
    dataset: Any, name: str, request: Request, where: str, *, local_files: bool
) -> Decoded:
    """Decode a column of image files.

    Args:
        dataset: The rows, at least one.
        name: The column.
        request: The options of `read`.
        where: Its place, for messages.
        local_files: Whether a path that stands for an image is followed.

    Returns:
        The images, shape (N, H, W, C).

    Raises:
        DataError: Naming the rows that have no readable image.
    """
    rows = _encoded(dataset, name, where, local_files)
    first = next(rows)
    if isinstance(first, str):
        # Separate image files are decoded by several processes where they are many.
        rest = list(rows)
        paths = [first, *(row for row in rest if isinstance(row, str))]
        if len(paths) == len(dataset):
            return decode_images(paths, where, request)
        rows = iter(rest)
    stack = Stack(len(dataset), where, request.on_error, folder=request.room)
    for i, row in enumerate(itertools.chain([first], rows)):
        at = f"{where}[{i}]"
        try:
            image, notes = (
                decode_file(row, request.decoding)
                if isinstance(row, str)
                else decode_bytes(row, at, request.decoding)
            )
        except BadImageError as error:
            stack.leave_out(error)
        else:
            stack.add(image, at, notes)
    return stack.finish()


def load_array_column(
    dataset: Any, name: str, request: Request, where: str
) -> Shaped[np.ndarray, "n ..."]:
    """Load a column of arrays.

    Args:
        dataset: The rows.
        name: The column.
        request: The options of `read`.
        where: Its place, for messages.

    Returns:
        The arrays as stored, as one.

    Raises:
        DataError: If they are not of one shape, or not numbers.
    """
    arrays: Shaped[np.ndarray, "n ..."] | None = None
    start = 0
    for block in _blocks(dataset, name):
        part = _rectangular(block, where, start)
        if arrays is None:
            shape = (len(dataset), *part.shape[1:])
            what = f"arrays of {part.dtype} of shape {shape}"
            arrays = room_for(shape, part.dtype, where, what, DataError, folder=request.room)
        if part.shape[1:] != arrays.shape[1:] or part.dtype != arrays.dtype:
            raise DataError(
                f"{where}: expected arrays of one shape and type, got {arrays.dtype} of shape "
                f"{arrays.shape[1:]} in row 0 and {part.dtype} of shape {part.shape[1:]} in row "
                f"{start}"
            )
        arrays[start : start + len(part)] = part
        start += len(part)
    if arrays is None:
        raise DataError(f"{where}: expected at least one row, got none")
    return arrays


def _blocks(dataset: Any, name: str) -> Iterator[Any]:
    """A column as Arrow arrays of some rows."""
    column = dataset.select_columns([name]).with_format("arrow")
    for start in range(0, len(column), _ROWS):
        chunked = column[start : start + _ROWS].column(name)
        array = chunked.combine_chunks()
        yield array.chunk(0) if hasattr(array, "num_chunks") else array


def _encoded(dataset: Any, name: str, where: str, local_files: bool) -> Iterator[bytes | str]:
    """For each row the bytes of its image file, or its path where the table holds no bytes."""
    values = (value for block in _blocks(dataset, name) for value in block.to_pylist())
    for i, value in enumerate(values):
        data, path = (value or {}).get("bytes"), (value or {}).get("path")
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
