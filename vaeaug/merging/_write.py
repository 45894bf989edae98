"""Writing real and synthetic images to one HDF5 file, and reading its counts."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vaeaug.data import DataError
from vaeaug.data.formats.hdf5_process import ForeignHDF5
from vaeaug.files import InUseError, claim_target
from vaeaug.merging._joined import Runs, manifests_of
from vaeaug.merging._merge import merge
from vaeaug.merging._real import channels_last
from vaeaug.merging._slots import Balance, ClassCounts, MergeError, Share
from vaeaug.shards._format import blocks, library_versions, write_attributes
from vaeaug.shards._hdf5_output import published_hdf5, write_errors

FORMAT = "vaeaug-merged"
_KEPT = "the run folder is unchanged"


def write_merged(
    real: Any,
    out_dir: Runs,
    to: str | Path,
    *,
    share: Share | None = None,
    balance: Balance = "plan",
    seed: int = 0,
    on_mismatch: Literal["error", "ignore"] = "error",
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write real and synthetic images into one HDF5 file, in the order of the slots of ``merge``.

    The file has ``images`` (contiguous, channels last), ``labels`` int64, ``is_synthetic`` bool,
    ``source_index`` int64 (row in the real or the synthetic dataset) and ``weight`` float32, and
    the attributes ``format="vaeaug-merged"``, ``format_version``, ``class_names``,
    ``image_value_range``, ``layout``, ``data_fingerprint``, ``model_sha256``, ``config_sha256``
    and library versions. It appears whole or not at all, and only a few megabytes of it are held in
    memory at a time.

    Args:
        real: As for :func:`merge`.
        out_dir: As for :func:`merge`.
        to: The file to write.
        share: As for :func:`merge`.
        balance: As for :func:`merge`.
        seed: As for :func:`merge`.
        on_mismatch: As for :func:`merge`.
        class_names: As for :func:`merge`.
        overwrite: Replace an existing file.

    Returns:
        ``to`` as a path.

    Raises:
        MergeError: As for :func:`merge`, or if ``to`` exists.
        ShardError: As for :func:`merge`, or if the file cannot be written.
    """
    path = Path(to)
    if path.exists() and not overwrite:
        raise MergeError(f"{path}: expected no such file (or overwrite), got one")
    merged = merge(
        real,
        out_dir,
        share,
        balance=balance,
        seed=seed,
        on_mismatch=on_mismatch,
        class_names=class_names,
    )
    manifest, n = merged.synthetic.manifest, len(merged)
    history = [each for run in manifests_of(merged.synthetic) for each in run.history]
    shape, dtype = (n, *manifest.image_shape), merged.units.dtype.newbyteorder("<")
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    columns = {
        "labels": merged.labels.astype("<i8"),
        "is_synthetic": merged.is_synthetic,
        "source_index": merged.index.astype("<i8"),
        "weight": merged.weights.astype("<f4"),
    }
    attributes: dict[str, Any] = {
        "format": FORMAT,
        "format_version": np.int64(1),
        "layout": manifest.layout,
        "class_names": list(merged.class_names),
        "image_value_range": np.array(merged.units.value_range, dtype="<f8"),
        "data_fingerprint": manifest.data_fingerprint,
        # Of a dataset that grew, or of several runs, a list.
        "model_sha256": _one_or_all(each.model_sha256 for each in history),
        "config_sha256": _one_or_all(each.config_sha256 for each in history),
        **{f"{name}_version": text for name, text in library_versions().items()},
    }
    needed = n * row_bytes + sum(values.nbytes for values in columns.values())
    with _claimed(path, overwrite), published_hdf5(path, needed=needed, kept=_KEPT) as file:
        write_attributes(file, attributes)
        for name, values in columns.items():
            file.create_dataset(name, data=values, track_times=False)
        images = file.create_dataset("images", shape=shape, dtype=dtype, track_times=False)
        for start, stop in blocks(n, row_bytes):
            block = torch.stack(merged.images_at(np.arange(start, stop)))
            images[start:stop] = channels_last(block, manifest.image_shape)
    return path


def _one_or_all(values: Iterable[str]) -> str | list[str]:
    distinct = list(dict.fromkeys(values))
    return distinct[0] if len(distinct) == 1 else distinct


def is_merged(path: str | Path) -> bool:
    """Check whether a file states that `write_merged` wrote it.

    Args:
        path: The file.

    Returns:
        False also if it cannot be read.
    """
    try:
        with ForeignHDF5(Path(path)) as file:
            return file.attribute(None, "format") == [FORMAT]
    except DataError:
        return False


def counts_of_file(path: str | Path) -> list[ClassCounts]:
    """Count the images of each class in a file that `write_merged` wrote.

    Args:
        path: The file.

    Returns:
        Counts by class, in the order of the labels.

    Raises:
        MergeError: If it is no merged file, or damaged.
    """
    columns = ("labels", "is_synthetic", "source_index")
    try:
        with ForeignHDF5(Path(path)) as file:
            names = [str(name) for name in file.attribute(None, "class_names") or []]
            n = file.shape("images")[0]
            labels, is_synthetic, index = (file.load(name) for name in columns)
    except (DataError, IndexError) as error:
        raise MergeError(
            f"{path}: expected a merged file, got one that cannot be read: {error}"
        ) from error
    for name, column in zip(columns, (labels, is_synthetic, index), strict=True):
        if column.ndim != 1 or column.dtype.kind not in "biu":
            raise MergeError(
                f"{path}: {name}: expected an integer in each row, got {column.dtype} of shape "
                f"{column.shape}"
            )
    if not len(labels) == len(is_synthetic) == len(index) == n:
        raise MergeError(f"{path}: expected columns of {n} rows, one for each image, got others")
    if n and not (labels.min() >= 0 and labels.max() < len(names)):
        raise MergeError(f"{path}: expected labels below {len(names)}, got {labels.max()}")
    is_synthetic = is_synthetic.astype(bool)
    counts = []
    for label, name in enumerate(names):
        of_class = labels == label
        real = len(np.unique(index[of_class & ~is_synthetic]))
        synthetic = len(np.unique(index[of_class & is_synthetic]))
        together = int(of_class.sum())
        counts.append(ClassCounts(name, real, synthetic, together - real - synthetic, together))
    return counts


@contextlib.contextmanager
def _claimed(path: Path, overwrite: bool) -> Iterator[None]:
    """Claim the target for this process; leftovers of killed writers are deleted."""
    with write_errors(path, kept=_KEPT):
        try:
            claim = claim_target(path)
        except InUseError:
            raise MergeError(
                f"{path}: another process is writing it; wait for it or stop it"
            ) from None
    with claim:
        # Another process may have finished it since the first check.
        if path.exists() and not overwrite:
            raise MergeError(f"{path}: expected no such file (or overwrite), got one")
        yield
