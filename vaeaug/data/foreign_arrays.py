"""Arrays of other libraries, and lists, become NumPy arrays; tables are refused."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.checks import DataError

# Tables of fewer rows or columns are not recognised; of more rows the first are looked at.
_LEAST_ROWS, _LEAST_COLUMNS, _MOST_ROWS = 20, 4, 10_000
# The scale of a table jumps by a factor of two (e**0.7) between half of its neighbouring columns or
# more, and the jumps in two halves of its rows correlate.
_JUMP, _CORRELATION, _LEAST_SCALE = 0.7, 0.8, 1e-12


def is_array(source: object) -> bool:
    """Whether an object is a NumPy array, a torch tensor, a column of a table or the like.

    Args:
        source: Anything.

    Returns:
        True where `as_array` converts it as it is.
    """
    if isinstance(source, np.ndarray) or hasattr(source, "detach"):
        return True
    return hasattr(source, "__array__") and hasattr(source, "shape") and not is_frame(source)


def is_frame(source: object) -> bool:
    """Whether an object is a pandas DataFrame or the like: a table.

    Args:
        source: Anything.

    Returns:
        True where it is.
    """
    return hasattr(source, "columns") and hasattr(source, "iloc")


def as_array(part: Any, where: str) -> Shaped[np.ndarray, "..."]:
    """Convert an array, tensor, column or list to NumPy, without a copy where that is possible.

    Args:
        part: The array.
        where: Its place, for messages.

    Returns:
        The NumPy array; bfloat16 and float8 as float32.

    Raises:
        DataError: If it is a table, masked, sparse or quantized, or NumPy has no such array.
    """
    if is_frame(part):
        raise table_error(where, f"a table of {len(part)} rows and {len(part.columns)} columns")
    if isinstance(part, np.ma.MaskedArray):
        if np.ma.is_masked(part):
            n = int(np.ma.count_masked(part))
            raise DataError(
                f"{where}: expected an array without mask, got {n} of {part.size} values masked; "
                f"a mask cannot be kept, so fill it: array.filled(value)"
            )
        return np.asarray(part.data)
    if hasattr(part, "detach"):
        return _from_tensor(part, where)
    try:
        array = np.asarray(part)
        is_objects = array.dtype == object and array.ndim == 1 and len(array) > 0
        return np.array(array.tolist()) if is_objects and isinstance(array[0], list) else array
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"{where}: expected an array, or lists of numbers that are equally long, got "
            f"{type(part).__name__}: {error}"
        ) from error


def table_error(where: str, got: str, advice: str = "") -> DataError:
    """The error that a table is no set of images.

    Args:
        where: The source.
        got: What it holds.
        advice: The end of the message.

    Returns:
        The error, which names `VAEOverSampler`.
    """
    return DataError(
        f"{where}: expected images, signals or volumes, got {got}; rows of a table, whose columns "
        f"have no order, are for vaeaug.VAEOverSampler: VAEOverSampler().fit_resample(X, y)"
        f"{advice}"
    )


def refuse_table(array: Shaped[np.ndarray, "n k"], where: str) -> None:
    """Refuse rows whose neighbouring columns have nothing in common: no signal is like that.

    The scale of a signal changes little from one step to the next, that of a table's columns by
    whatever units they have.

    Args:
        array: N rows of k numbers.
        where: The source, for messages.

    Raises:
        DataError: Naming what tables are for, and how to state that it is none.
    """
    n, k = array.shape
    if array.dtype.kind not in "biuf" or n < _LEAST_ROWS or k < _LEAST_COLUMNS:
        return
    values = array[:_MOST_ROWS].astype(np.float64)
    if not np.isfinite(values).all():
        return
    jumps = [
        np.diff(np.log(np.maximum(half.std(axis=0), _LEAST_SCALE)))
        for half in (values[::2], values[1::2])
    ]
    # A few spikes are jumps too, but other ones in each half of the rows.
    correlation = float(np.corrcoef(*jumps)[0, 1]) if all(jump.any() for jump in jumps) else 0.0
    median_jumps = [float(np.median(np.abs(jump))) for jump in jumps]
    if correlation > _CORRELATION and min(median_jumps) > _JUMP:
        spread = values.std(axis=0)
        raise table_error(
            where,
            f"{n} rows of {k} numbers whose scale jumps from column to "
            f"column ({spread.min():.3g} to {spread.max():.3g}), as in a table",
            "; pass layout='NL' if they are signals",
        )


def _from_tensor(tensor: Any, where: str) -> Shaped[np.ndarray, "..."]:
    import torch

    tensor = tensor.detach()
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else str(tensor.layout)
        raise DataError(
            f"{where}: expected a dense tensor, got a {kind} one; convert it first "
            f"(.to_dense() or .dequantize())"
        )
    # NumPy has no bfloat16 and no float8; float32 holds all of their values.
    if tensor.is_floating_point() and tensor.dtype not in (
        torch.float16,
        torch.float32,
        torch.float64,
    ):
        tensor = tensor.float()
    return np.asarray(tensor.cpu())
