"""Samples that are left out of a published dataset: named by the manifest, kept in the shards."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vaeaug.files import read_whole
from vaeaug.files.json_text import JSONTextError, sealed, unsealed
from vaeaug.shards._checked import is_count, is_sha256, list_of, short
from vaeaug.shards._extra import EXCLUDED
from vaeaug.shards._format import ShardError, is_int
from vaeaug.shards._hdf5_output import publish_bytes
from vaeaug.shards._manifest import Manifest

LIST_FORMAT, LIST_VERSION = "vaeaug-excluded", 1
LIST_NAME = "excluded.json"


def checked_samples(
    samples: Mapping[str, Iterable[int]], manifest: Manifest, where: str
) -> dict[str, list[int]]:
    """Check a list of samples against the shards of a run.

    Args:
        samples: Row numbers by the path of their shard, such as "shards/shard-00000.h5".
        manifest: Of the run.
        where: Source of the list, named in errors.

    Returns:
        Sorted rows by path, in the order of the manifest; shards without any are left out.

    Raises:
        ShardError: If a shard is not of the run, or a row is not in it.
    """
    sizes = {entry.path: entry.n for entry in manifest.shards}
    unknown = sorted(set(samples) - sizes.keys())
    if unknown:
        raise ShardError(f"{where}: expected shards of this run, got {unknown[0]!r}")
    checked = {}
    for path, n in sizes.items():
        rows = list(samples.get(path, ()))
        bad = [row for row in rows if not is_int(row) or not 0 <= row < n]
        if bad:
            raise ShardError(
                f"{where}: {path}: expected row numbers in [0, {n}), got {short(bad[0])}"
            )
        if rows:
            checked[path] = sorted({int(row) for row in rows})
    return checked


def with_excluded(manifest: Manifest, samples: Mapping[str, Iterable[int]]) -> Manifest:
    """Leave samples out of a dataset; the shards, and what is known of the others, stay.

    Args:
        manifest: Of the run. What it excludes already is replaced.
        samples: Row numbers by the path of their shard; none: every sample is in the dataset.

    Returns:
        A manifest that is not saved yet, with the counts of what is left.

    Raises:
        ShardError: If a shard is not of the run, or a row is not in it.
    """
    checked = checked_samples(samples, manifest, "excluded samples")
    left = dict.fromkeys((entry.label for entry in manifest.classes), 0)
    for shard in manifest.shards:
        left[shard.label] = left.get(shard.label, 0) + shard.n - len(checked.get(shard.path, ()))
    classes = tuple(
        dataclasses.replace(entry, accepted=left[entry.label]) for entry in manifest.classes
    )
    extra = {name: value for name, value in manifest.extra.items() if name != EXCLUDED}
    return dataclasses.replace(
        manifest,
        classes=classes,
        complete=all(entry.accepted >= entry.n_synthetic for entry in classes),
        extra=extra | ({EXCLUDED: checked} if checked else {}),
    )


def save_list(path: str | Path, manifest: Manifest, samples: Mapping[str, Iterable[int]]) -> None:
    """Write a list of samples to exclude, sealed, which `read_list` reads.

    Args:
        path: The file, replaced whole.
        manifest: Of the run; the list is of its shards alone.
        samples: Row numbers by the path of their shard.

    Raises:
        ShardError: If a sample is not of the run, or the file cannot be written.
    """
    checked = checked_samples(samples, manifest, str(path))
    sha256 = {entry.path: entry.sha256_decoded for entry in manifest.shards}
    content = {
        "format": LIST_FORMAT,
        "format_version": LIST_VERSION,
        "shards": {
            name: {"sha256_decoded": sha256[name], "rows": rows} for name, rows in checked.items()
        },
    }
    publish_bytes(Path(path), sealed(content))


def read_list(path: str | Path, manifest: Manifest) -> dict[str, list[int]]:
    """Read a list of samples to exclude.

    Args:
        path: A file that `save_list` wrote.
        manifest: Of the run.

    Returns:
        Sorted rows by the path of their shard.

    Raises:
        ShardError: If it is no such file, was changed, or is of another run.
    """
    path = Path(path)
    try:
        content = unsealed(read_whole(path))
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error}", errno=error.errno) from error
    except JSONTextError as error:
        raise ShardError(f"{path}: expected a list of excluded samples: {error}") from error
    found = (content.get("format"), content.get("format_version"))
    if found != (LIST_FORMAT, LIST_VERSION):
        raise ShardError(
            f"{path}: expected format {LIST_FORMAT!r} of version {LIST_VERSION}, got "
            f"{short(found[0])} of {short(found[1])}"
        )
    shards = content.get("shards")
    if not isinstance(shards, Mapping) or not all(map(_is_part, shards.values())):
        raise ShardError(
            f"{path}: shards: expected an object of sha256_decoded and rows, got {short(shards)}"
        )
    known = {entry.path: entry.sha256_decoded for entry in manifest.shards}
    for name, part in shards.items():
        if known.get(name) != part["sha256_decoded"]:
            raise ShardError(
                f"{path}: {name}: expected the list of this run, got one of other samples "
                f"(sha256_decoded {part['sha256_decoded'][:12]}, here {str(known.get(name))[:12]})"
            )
    rows = {name: part["rows"] for name, part in shards.items()}
    return checked_samples(rows, manifest, str(path))


def kept_rows(manifest: Manifest, path: str, n: int) -> np.ndarray | None:
    """Find the rows of a shard that are in the dataset.

    Args:
        manifest: Of the run.
        path: Path of the shard in the manifest.
        n: Samples in the shard.

    Returns:
        Row numbers, int64; None where all are.
    """
    excluded = manifest.excluded.get(path)
    return np.delete(np.arange(n), excluded) if excluded else None


def _is_part(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == {"sha256_decoded", "rows"}
        and is_sha256(value["sha256_decoded"])
        and list_of(is_count)(value["rows"])
    )
