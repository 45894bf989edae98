"""`export_dataset`: choice of samples and format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vaeaug.export._as_animations import write_gifs
from vaeaug.export._as_huggingface import huggingface_library, write_huggingface
from vaeaug.export._as_imagefolder import write_imagefolder
from vaeaug.export._as_npz import write_npz
from vaeaug.export._as_sounds import check_sounds, write_sounds
from vaeaug.export._as_webdataset import write_webdataset
from vaeaug.export._publish import check_free, claimed
from vaeaug.export._samples import ExportError, Samples, merged_samples, synthetic_samples
from vaeaug.merging import Balance, ClassCounts, Share, merge
from vaeaug.shards import Manifest, ShardDataset, warn_if_unhelpful

Format = Literal["npz", "webdataset", "imagefolder", "gif", "huggingface", "wav", "flac"]
FORMATS: tuple[str, ...] = get_args(Format)
_BY_ENDING: dict[str, Format] = {".npz": "npz", ".tar": "webdataset"}
SHARD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        path: The file or folder.
        format: One of `FORMATS`.
        n: Number of samples.
        n_synthetic: Number of synthetic samples.
        classes: Counts of each class, including repeated samples.
    """

    path: Path
    format: str
    n: int
    n_synthetic: int
    classes: tuple[ClassCounts, ...] = ()


def export_dataset(
    out_dir: str | Path | Manifest | ShardDataset,
    to: str | Path,
    *,
    format: Format | None = None,
    real: Any = None,
    share: Share | None = None,
    balance: Balance = "plan",
    seed: int = 0,
    on_mismatch: Literal["error", "ignore"] = "error",
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Exported:
    """Export the samples of a finished run for other programs, alone or merged with real ones.

    Every format holds, for each sample, its label, class name, `is_synthetic`, `source_index` (row
    of the real image itself, or of the one from which a synthetic sample was made; -1 for a draw
    from a density), `weight` and, if the run has them, class probabilities. It also holds their
    common provenance. The file or folder appears whole or not at all, and only a few megabytes of
    images are in memory at a time. The same samples give the same bytes.

    Args:
        out_dir: A finished run folder (or its manifest, or an open ``ShardDataset``).
        to: The file or folder to write.
        format: "npz"; "webdataset", one ``.tar`` or a folder of them, in a random order;
            "imagefolder", PNG files in class folders with a ``metadata.csv``; "gif", the same of
            clips as animations, those in colour reduced to 256 colours; "huggingface", a folder for
            ``datasets.load_from_disk``; "wav" or "flac", sound files in class folders with a
            ``metadata.csv``. None: derived from the suffix .npz or .tar.
        real: The real dataset to merge with, as for `merge`; None: only synthetic samples are
            written.
        share: As for `merge`; only with `real`.
        balance: As for `merge`; only with `real`.
        seed: As for `merge`; also the seed of the order in WebDataset archives.
        on_mismatch: As for `merge`.
        class_names: As for `merge`.
        overwrite: Replace an existing file, or a folder that an export wrote.
        shard_bytes: Size at which a further archive is started in a folder of them.

    Returns:
        The path and the counts of what was written.

    Raises:
        ExportError: If the format does not suit the target or the samples, its library is not
            installed, or the target exists.
        MergeError: As for `merge`.
        ShardError: If the run is incomplete, or the target cannot be written.

    Warns:
        UserWarning: If the evaluation of the run found that its samples do not help.
    """
    path = Path(to)
    chosen = _format_of(path, format)
    folder = chosen not in ("npz", "webdataset") or path.suffix.lower() not in _BY_ENDING
    check_free(path, folder=folder, overwrite=overwrite)
    if shard_bytes < 1:
        raise ExportError(f"shard_bytes: expected at least 1, got {shard_bytes}")
    if chosen == "huggingface":
        # Fail early if the library is missing.
        huggingface_library()
    samples, classes = _samples(
        out_dir,
        real,
        share=share,
        balance=balance,
        seed=seed,
        on_mismatch=on_mismatch,
        class_names=class_names,
    )
    if chosen in ("wav", "flac"):
        check_sounds(samples, chosen)
    with claimed(path):
        # Another export may have written the target in the meantime.
        check_free(path, folder=folder, overwrite=overwrite)
        if chosen == "npz":
            write_npz(samples, path)
        elif chosen == "webdataset":
            write_webdataset(samples, path, seed=seed, shard_bytes=shard_bytes)
        elif chosen == "imagefolder":
            write_imagefolder(samples, path)
        elif chosen == "gif":
            write_gifs(samples, path)
        elif chosen in ("wav", "flac"):
            write_sounds(samples, path, chosen)
        else:
            write_huggingface(samples, path)
    return Exported(path, chosen, len(samples), int(samples.is_synthetic.sum()), classes)


def _format_of(path: Path, requested: str | None) -> Format:
    by_ending = _BY_ENDING.get(path.suffix.lower())
    if requested is None:
        if by_ending is None:
            raise ExportError(
                f"{path}: expected a path that ends in {' or '.join(_BY_ENDING)}, or format= (one "
                f"of {', '.join(FORMATS)}) with a folder, got neither"
            )
        return by_ending
    for name in get_args(Format):
        if requested == name:
            fits = by_ending == name or (by_ending is None and name != "npz")
            if not fits:
                targets = {"npz": "a file .npz", "webdataset": "a file .tar or a folder"}
                raise ExportError(
                    f"{path}: expected {targets.get(name, 'a folder')} for the format {name}, got "
                    f"the ending {path.suffix!r}"
                )
            return name
    raise ExportError(f"format: expected one of {', '.join(FORMATS)}, got {requested!r}")


def _samples(
    out_dir: str | Path | Manifest | ShardDataset,
    real: Any,
    *,
    share: Share | None,
    balance: Balance,
    seed: int,
    on_mismatch: Literal["error", "ignore"],
    class_names: Sequence[str] | None,
) -> tuple[Samples, tuple[ClassCounts, ...]]:
    if real is not None:
        merged = merge(
            real,
            out_dir,
            share,
            balance=balance,
            seed=seed,
            on_mismatch=on_mismatch,
            class_names=class_names,
        )
        return merged_samples(merged), tuple(merged.counts)
    requested = None if balance == "plan" else balance
    for name, value in (("share", share), ("balance", requested), ("class_names", class_names)):
        if value is not None:
            raise ExportError(f"{name}: expected real= with it, got none to merge with")
    synthetic = out_dir if isinstance(out_dir, ShardDataset) else ShardDataset(out_dir)
    warn_if_unhelpful(synthetic.manifest, stacklevel=3)
    by_class = np.bincount(synthetic.labels, minlength=len(synthetic.class_names)).tolist()
    pairs = zip(synthetic.class_names, by_class, strict=True)
    counts = tuple(ClassCounts(name, 0, n, 0, n) for name, n in pairs)
    return synthetic_samples(synthetic), counts
