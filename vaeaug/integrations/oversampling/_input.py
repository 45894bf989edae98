"""Conversion between arrays of imbalanced-learn's users and samples of this package."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data import channels_last
from vaeaug.data.values import feature_range
from vaeaug.shapes import are_features


def rank(X: Any) -> int:
    """Count the axes of an array or of nested lists.

    Args:
        X: An array or nested lists.

    Returns:
        Number of axes.
    """
    if hasattr(X, "ndim"):
        return int(X.ndim)
    n_wrapped = 0
    while isinstance(X, list | tuple) and X:
        X, n_wrapped = X[0], n_wrapped + 1
    return n_wrapped


def length(array: Any) -> int:
    """Count the rows of an array.

    Args:
        array: An array, sparse matrix, data frame or list.

    Returns:
        Number of rows.
    """
    return int(array.shape[0]) if hasattr(array, "shape") else len(array)


def as_samples(
    X: Shaped[np.ndarray, "n *axes"], layout: str | None
) -> Shaped[np.ndarray, "n *space c"]:
    """Convert an array to samples, channels last, as uint8 or float32.

    Args:
        X: The array.
        layout: Its axes, such as "NCHW"; None: by the rank.

    Returns:
        The samples.

    Raises:
        DataError: If the shape does not match the layout, or no layout is known for it.
    """
    samples, _ = channels_last(X, "X", layout)
    if samples.dtype.kind == "b":
        return samples * np.uint8(255)
    return samples if samples.dtype == np.uint8 else samples.astype(np.float32)


def value_range(samples: Shaped[np.ndarray, "n *space c"]) -> tuple[float, float]:
    """Return the value range of samples: that of uint8, or the observed one, of features with room.

    Args:
        samples: The samples.

    Returns:
        Lowest and highest value, which differ.
    """
    if samples.dtype == np.uint8:
        return 0.0, 255.0
    if are_features(samples.shape[1:]):
        return feature_range(samples)
    low, high = float(samples.min()), float(samples.max())
    pad = 0.5 * max(1.0, abs(low)) if low == high else 0.0
    return low - pad, high + pad


def as_stored(
    samples: Shaped[np.ndarray, "m *space c"],
    X: Shaped[np.ndarray, "n *axes"],
    layout: str | None,
) -> Shaped[np.ndarray, "m *axes"]:
    """Convert samples, channels last, to the axes of X.

    Args:
        samples: The samples.
        X: The array of the user.
        layout: Its axes; None: by the rank.

    Returns:
        The samples with the axes of X.
    """
    if layout == "NF":
        return samples[:, 0]
    channels_first = layout is not None and layout.startswith("NC")
    if not channels_first and samples.shape[1:] == X.shape[1:]:
        return samples
    if samples.shape[1:] == (*X.shape[1:], 1):
        return samples[..., 0]
    return np.moveaxis(samples, -1, 1)


def as_dtype(
    rows: Shaped[np.ndarray, "m ..."], dtype: np.dtype[Any]
) -> Shaped[np.ndarray, "m ..."]:
    """Convert rows to the type of X; they are rounded if it is an integer type.

    Args:
        rows: The rows.
        dtype: Type of X.

    Returns:
        The converted rows.
    """
    if dtype.kind == "b":
        return rows > (127 if rows.dtype == np.uint8 else 0.5)
    if dtype.kind in "iu" and rows.dtype.kind == "f":
        rows = np.rint(rows)
    return rows.astype(dtype)


def dotted(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a mapping of two levels by joining keys with a dot.

    Args:
        keys: The mapping.

    Returns:
        Values by dotted key.
    """
    flat: dict[str, Any] = {}
    for key, value in keys.items():
        if isinstance(value, Mapping) and "." not in key:
            flat |= {f"{key}.{subkey}": item for subkey, item in value.items()}
        else:
            flat[key] = value
    return flat
