"""Decoded files, kept so that the next command maps them instead of decoding them anew.

A file of values and a file of JSON lie in the folder for each list of files and way of decoding
them. Both are named by a digest of the files' names, sizes and times of change and of all that
their decoding depends on: whatever changes, they are decoded anew, under another name.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from vaeaug.data.checks import DataError
from vaeaug.data.request import Request
from vaeaug.data.stack import Decoded
from vaeaug.files import new_file, publish, read_whole
from vaeaug.files.json_text import sealed, unsealed
from vaeaug.mapping import CACHE, is_mapped, mapped
from vaeaug.memory import sized

log = logging.getLogger("vaeaug")

# Of the files in the folder; a change of how anything is decoded counts it up.
VERSION = 1
_DECODERS = ("pillow", "opencv-python-headless", "soundfile", "scipy")
_DIGITS, _HEAD = 32, ".json"


def decoded(
    paths: Sequence[str],
    where: str,
    request: Request,
    decode: Callable[[Sequence[str], str, Request], Decoded],
) -> Decoded:
    """Map what is kept of some files, or decode them and keep that.

    Args:
        paths: The files.
        where: The source, for messages.
        request: How they are decoded, and the folder where it is kept.
        decode: Decodes them.

    Returns:
        What `decode` returns; images that are kept are mapped and cannot be written to.

    Raises:
        DataError: As `decode` does, or if the folder cannot hold them.
    """
    name = None if request.cache is None else _name(paths, request)
    if request.cache is None or name is None:  # what is missing, decoding says
        return decode(paths, where, request)
    values = request.cache.folder / f"{name}.values"
    known = _kept(values)
    if known is not None:
        log.info("%s: %s decoded files are mapped from %s", where, f"{len(paths):,}", values)
        return known
    fresh = decode(paths, where, request)
    if request.cache.only_large and not is_mapped(fresh.images):
        return fresh
    return _keep(fresh, where, values, _options(request))


def _keep(fresh: Decoded, where: str, values: Path, options: dict[str, Any]) -> Decoded:
    images, folder = fresh.images, values.parent
    document = {
        "source": str(Path(where).absolute()),
        "options": options,
        "shape": list(images.shape),
        "dtype": images.dtype.str,
        "n": len(fresh.kept),
        "left_out": np.flatnonzero(~fresh.kept).tolist(),
        "notes": list(fresh.notes),
        "value_range": None if fresh.value_range is None else list(fresh.value_range),
        "stored_as_numbers": fresh.stored_as_numbers,
        "sample_rate": fresh.sample_rate,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with new_file(values) as file:
            images.tofile(file)
        publish(values.with_suffix(_HEAD), sealed(document))
        _remove_former(values, document)
    except OSError as error:
        raise DataError(
            f"{where}: expected {folder} to hold the decoded files, which take "
            f"{sized(images.nbytes)}; it ends with: {error.strerror or error}; the environment "
            f"variable {CACHE} names another folder"
        ) from error
    log.info(
        "%s: the decoded files are kept in %s (%s) for the next command; it may be deleted",
        where,
        folder,
        sized(images.nbytes),
    )
    return _kept(values) or fresh


def _remove_former(values: Path, document: dict[str, Any]) -> None:
    """Remove what was kept of the same source, decoded in the same way, before files changed."""
    for head in values.parent.glob(f"*{_HEAD}"):
        try:
            other = unsealed(read_whole(head))
        except (OSError, ValueError):
            continue
        is_former = all(other.get(key) == document[key] for key in ("source", "options"))
        if is_former and head.stem != values.stem:
            for path in (head, head.with_suffix(values.suffix)):
                path.unlink(missing_ok=True)


def _kept(values: Path) -> Decoded | None:
    """What a file of values and its head hold; None where they are missing or damaged."""
    try:
        known = unsealed(read_whole(values.with_suffix(_HEAD)))
        shape, dtype = tuple(known["shape"]), np.dtype(known["dtype"])
        if values.stat().st_size != int(np.prod(shape, dtype=object)) * dtype.itemsize:
            return None
        kept = np.ones(known["n"], dtype=np.bool_)
        kept[known["left_out"]] = False
        bounds = known["value_range"]
        found = Decoded(
            images=mapped(values, shape, dtype),
            kept=kept,
            notes=tuple(known["notes"]),
            value_range=None if bounds is None else (bounds[0], bounds[1]),
            stored_as_numbers=known["stored_as_numbers"],
            sample_rate=known["sample_rate"],
        )
        # When it was used last, for people who look for what to delete.
        os.utime(values, (time.time(), values.stat().st_mtime))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return found


def _name(paths: Sequence[str], request: Request) -> str | None:
    """A digest of all that the decoded values depend on; None where a file is missing."""
    digest = hashlib.sha256(json.dumps(_options(request), sort_keys=True).encode())
    for path in paths:
        try:
            file = Path(path).absolute()
            stat = file.stat()
        except OSError:
            return None
        of_file = f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        digest.update(of_file.encode(errors="surrogateescape"))
    return digest.hexdigest()[:_DIGITS]


def _options(request: Request) -> dict[str, Any]:
    """What decoding depends on beside the files, as JSON."""
    decoding = asdict(request.decoding)
    return {
        "version": VERSION,
        "libraries": {name: _version(name) for name in _DECODERS},
        "decoding": decoding | {"size": None if request.size is None else list(request.size)},
        "keys": request.keys,
        "on_error": request.on_error,
        "sample_rate": request.sample_rate,
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
