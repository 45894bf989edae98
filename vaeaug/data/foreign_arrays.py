"""Arrays of other libraries, and lists, become NumPy arrays, or are refused."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import DataError

# A table is told from so many rows and columns on, and by at least this: the scale jumps by a
# factor of two (e**0.7) between half of its neighbouring columns or more.
_ROWS, _COLUMNS, _MOST_ROWS, _JUMP, _ALIKE, _LEAST = 20, 4, 10_000, 0.7, 0.8, 1e-12


def is_array(source: object) -> bool:
    """Whether it is a NumPy array, a torch tensor, a column of a table or the like."""
    if isinstance(source, np.ndarray) or hasattr(source, "detach"):
        return True
    return hasattr(source, "__array__") and hasattr(source, "shape") and not is_frame(source)


def is_frame(source: object) -> bool:
    """Whether it is a pandas DataFrame or the like: a table."""
    return hasattr(source, "columns") and hasattr(source, "iloc")


def as_array(part: Any, where: str) -> Shaped[np.ndarray, "..."]:
    """A NumPy array of an array, tensor, column or list, without a copy where that is possible.

    Raises:
        DataError: if it is a table, or NumPy has no such array.
    """
    if is_frame(part):
        raise table(where, f"a table of {len(part)} rows and {len(part.columns)} columns")
    if isinstance(part, np.ma.MaskedArray):
        if np.ma.is_masked(part):
            n = int(np.ma.count_masked(part))
            raise DataError(
                f"{where}: expected an array without mask, got {n} of {part.size} values masked; "
                f"a mask cannot be kept, so say what stands there: array.filled(value)"
            )
        return np.asarray(part.data)
    if hasattr(part, "detach"):
        return _of_tensor(part, where)
    try:
        array = np.asarray(part)
        lists = array.dtype == object and array.ndim == 1 and len(array) > 0
        return np.array(array.tolist()) if lists and isinstance(array[0], list) else array
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"{where}: expected an array, or lists of numbers that are equally long, got "
            f"{type(part).__name__}: {error}"
        ) from error


def table(where: str, got: str, advice: str = "") -> DataError:
    """The error that a table is no set of images."""
    return DataError(
        f"{where}: expected images, signals or volumes, got {got}; rows of a table, whose columns "
        f"have no order, are for vaeaug.VAEOverSampler: VAEOverSampler().fit_resample(X, y)"
        f"{advice}"
    )


def refuse_table(array: Shaped[np.ndarray, "n k"], where: str) -> None:
    """Refuse rows whose neighbouring columns have nothing in common: no signal is like that.

    The scale of a signal changes little from one step to the next, that of a table's columns by
    whatever units they have.

    Raises:
        DataError: naming what tables are for, and how to say that it is none.
    """
    if array.dtype.kind not in "biuf" or array.shape[0] < _ROWS or array.shape[1] < _COLUMNS:
        return
    values = array[:_MOST_ROWS].astype(np.float64)
    if not np.isfinite(values).all():
        return
    jumps = [
        np.diff(np.log(np.maximum(half.std(axis=0), _LEAST)))
        for half in (values[::2], values[1::2])
    ]
    # In both halves of the rows alike: a few spikes make jumps too, but others in each half.
    alike = float(np.corrcoef(*jumps)[0, 1]) if all(jump.any() for jump in jumps) else 0.0
    if alike > _ALIKE and min(float(np.median(np.abs(jump))) for jump in jumps) > _JUMP:
        spread = values.std(axis=0)
        raise table(
            where,
            f"{array.shape[0]} rows of {array.shape[1]} numbers whose scale jumps from column to "
            f"column ({spread.min():.3g} to {spread.max():.3g}), as in a table",
            "; layout='NL' says that they are signals",
        )


def _of_tensor(tensor: Any, where: str) -> Shaped[np.ndarray, "..."]:
    import torch

    tensor = tensor.detach()
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else str(tensor.layout)
        raise DataError(
            f"{where}: expected a dense tensor, got a {kind} one; turn it into one first "
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
