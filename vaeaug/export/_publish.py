"""Files and folders that appear under their name whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vaeaug.export._samples import EXPORT_FORMAT, ExportError
from vaeaug.files import InUseError, claim_target, new_file, new_folder, read_whole
from vaeaug.files.json_text import JSONTextError, parse_strict
from vaeaug.shards._hdf5_output import write_error

PROVENANCE_FILE = "provenance.json"
_KEPT = "the run folder is untouched"


def check_free(path: Path, *, folder: bool, overwrite: bool) -> None:
    """Refuse a target that is there, or that must not be replaced.

    Raises:
        ExportError: Naming it and what is wrong with it.
    """
    if not path.parent.is_dir():
        raise ExportError(f"{path}: expected a folder {path.parent} to write it in, got none")
    if not (path.exists() or path.is_symlink()):
        return
    if not overwrite:
        raise ExportError(f"{path}: expected nothing there (or overwrite), got one")
    if path.is_dir() != folder:
        kinds = ("a file", "a folder")
        raise ExportError(f"{path}: expected {kinds[folder]} to replace, got {kinds[not folder]}")
    # A folder of something else that is named by mistake would be gone.
    if folder and not _is_export(path):
        raise ExportError(
            f"{path}: expected a folder that an export wrote ({PROVENANCE_FILE}), got another, "
            f"which is not replaced; remove it yourself"
        )


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """The target is this process's alone; what killed exports left of it is put right.

    Raises:
        ExportError: If another process writes it.
        ShardError: If it cannot be written.
    """
    try:
        claim = claim_target(path)
    except InUseError:
        raise ExportError(f"{path}: another process writes it; wait for it or stop it") from None
    except OSError as error:
        raise write_error(path, error, 0, _KEPT) from error
    with claim:
        yield


@contextlib.contextmanager
def published_file(path: Path, *, needed: int) -> Iterator[BinaryIO]:
    """A file to fill, which takes the name ``path`` when the block ends well.

    Args:
        path: The name that it gets; a file there is replaced.
        needed: Bytes it takes, for the message when there is no room.

    Raises:
        ShardError: From the ``OSError`` of the system, with its ``errno``.
    """
    try:
        with new_file(path) as file:
            yield file
    except OSError as error:
        raise write_error(path, error, needed, _KEPT) from error


@contextlib.contextmanager
def published_folder(path: Path, *, needed: int) -> Iterator[Path]:
    """The same for a folder: an empty one to fill, which takes the name ``path`` at the end."""
    try:
        with new_folder(path) as folder:
            yield folder
    except OSError as error:
        raise write_error(path, error, needed, _KEPT) from error


def _is_export(folder: Path) -> bool:
    try:
        document = parse_strict(read_whole(folder / PROVENANCE_FILE))
    except (OSError, JSONTextError):
        return False
    return isinstance(document, dict) and document.get("format") == EXPORT_FORMAT
