"""Rejected samples that a run keeps for looking: no part of the dataset, and of no shard."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt64

from vaeaug.shards._format import COLUMNS, IMAGES, ShardError, stored_dtype, write_attributes
from vaeaug.shards._hdf5_output import published_hdf5
from vaeaug.shards._reader import _attribute, _dataset, _offset, _open

REJECTED_FORMAT, REJECTED_VERSION = "vaeaug-rejected", 1
_ARRAYS = tuple(
    name.removeprefix("quality/") for name in COLUMNS if name not in ("labels", "weight")
)


@dataclass(frozen=True, kw_only=True)
class RejectedSamples:
    """Some samples of one class that screening rejected.

    Attributes:
        label: Index of the class.
        images: The samples, in the layout of the run; values may be out of range or not finite.
        reason: Why each was rejected, (n,) of strings.
        source_index: Row of the real image from which each was made, -1 for a draw from a density.
        seed: Seed of every sample.
        p_label: Probability of the label by a classifier of real images.
        nn_distance: Distance to the nearest real image.
        nn_index: Row of that image.
    """

    label: int
    images: Shaped[np.ndarray, "n *space c"]
    reason: np.ndarray
    source_index: Int64[np.ndarray, " n"]
    seed: UInt64[np.ndarray, " n"]
    p_label: Float32[np.ndarray, " n"]
    nn_distance: Float32[np.ndarray, " n"]
    nn_index: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.images)


def write_rejected(path: str | Path, samples: RejectedSamples) -> None:
    """Write rejected samples, the same bytes for the same samples.

    Args:
        path: An ``.h5`` file, replaced whole.
        samples: At least one.

    Raises:
        ShardError: If the file cannot be written.
    """
    images = np.ascontiguousarray(samples.images, stored_dtype(samples.images.dtype.name))
    reasons, index = np.unique(samples.reason.astype(str), return_inverse=True)
    with published_hdf5(Path(path), needed=images.nbytes, kept="the shards are kept") as file:
        write_attributes(
            file,
            {
                "format": REJECTED_FORMAT,
                "format_version": REJECTED_VERSION,
                "label": samples.label,
                "reasons": reasons.tolist(),
            },
        )
        file["reason"] = index.astype(np.int64)
        file[IMAGES] = images
        for name in _ARRAYS:
            file[name] = getattr(samples, name)


def read_rejected(path: str | Path) -> RejectedSamples:
    """Read rejected samples; the file is no more trusted than a shard.

    Args:
        path: A file that `write_rejected` wrote.

    Returns:
        The samples.

    Raises:
        ShardError: If it is missing, damaged or something else.
    """
    path = Path(path)
    file = _open(path)
    try:
        with file:
            return _read(file, path)
    except ShardError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise ShardError(
            f"{path}: expected rejected samples, got a damaged file: {type(error).__name__}: "
            f"{error}"
        ) from error


def _read(file: Any, path: Path) -> RejectedSamples:
    found = tuple(_attribute(file, name, path) for name in ("format", "format_version"))
    if found != (REJECTED_FORMAT, REJECTED_VERSION):
        raise ShardError(
            f"{path}: expected format {REJECTED_FORMAT!r} of version {REJECTED_VERSION}, got "
            f"{found[0]!r} of {found[1]!r}"
        )
    arrays = {}
    for name in (IMAGES, "reason", *_ARRAYS):
        dataset = _dataset(file, name, path)
        _offset(dataset, path)
        arrays[name] = np.asarray(dataset[...])
    reasons = np.array(_attribute(file, "reasons", path))
    sizes = {name: len(values) for name, values in arrays.items()}
    if len(set(sizes.values())) != 1:
        raise ShardError(f"{path}: expected arrays of one length, got {sizes}")
    reason = reasons[arrays.pop("reason")]
    return RejectedSamples(label=int(_attribute(file, "label", path)), reason=reason, **arrays)
