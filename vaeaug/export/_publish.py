"""Atomic publication of exported files and folders."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vaeaug.export._samples import EXPORT_FORMAT, ExportError
from vaeaug.files import InUseError, claim_target, new_file, new_folder, read_whole
from vaeaug.files.json_text import JSONTextError, parse_strict
from vaeaug.shards._hdf5_output import write_errors

PROVENANCE_FILE = "provenance.json"
_KEPT = "the run folder is unchanged"


def check_free(path: Path, *, folder: bool, overwrite: bool) -> None:
    """Reject a target that exists, or that must not be replaced.

    Args:
        path: The target.
        folder: Whether a folder will be written, rather than a file.
        overwrite: Whether an existing target may be replaced.

    Raises:
        ExportError: If the target is rejected.
    """
    if not path.parent.is_dir():
        raise ExportError(f"{path}: expected a folder {path.parent} to write it in, got none")
    if not (path.exists() or path.is_symlink()):
        return
    if not overwrite:
        raise ExportError(f"{path}: expected no such file or folder (or overwrite), got one")
    if path.is_dir() != folder:
        kinds = ("a file", "a folder")
        raise ExportError(f"{path}: expected {kinds[folder]} to replace, got {kinds[not folder]}")
    # Protects other folders that are named by mistake.
    if folder and not _is_export(path):
        raise ExportError(
            f"{path}: expected a folder that an export wrote ({PROVENANCE_FILE}), got another, "
            f"which is not replaced; remove it yourself"
        )


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Claim a target for this process; leftovers of killed exports are cleaned up.

    Args:
        path: The target.

    Raises:
        ExportError: If another process is writing it.
        ShardError: If it cannot be written.
    """
    with write_errors(path, kept=_KEPT):
        try:
            claim = claim_target(path)
        except InUseError:
            raise ExportError(
                f"{path}: another process is writing it; wait for it or stop it"
            ) from None
    with claim:
        yield


@contextlib.contextmanager
def published_file(path: Path, *, needed: int) -> Iterator[BinaryIO]:
    """Open a file to fill; it is renamed to ``path`` when the block succeeds.

    Args:
        path: The final name; an existing file is replaced.
        needed: Size of the file in bytes, for the message if there is no space.

    Yields:
        The open file.

    Raises:
        ShardError: If the system raises an ``OSError``; it has the same ``errno``.
    """
    with write_errors(path, needed=needed, kept=_KEPT), new_file(path) as file:
        yield file


@contextlib.contextmanager
def published_folder(path: Path, *, needed: int) -> Iterator[Path]:
    """Create a folder to fill; it is renamed to ``path`` when the block succeeds.

    Args:
        path: The final name; an existing folder is replaced.
        needed: Size of the folder in bytes, for the message if there is no space.

    Yields:
        The empty folder.

    Raises:
        ShardError: If the system raises an ``OSError``; it has the same ``errno``.
    """
    with write_errors(path, needed=needed, kept=_KEPT), new_folder(path) as folder:
        yield folder


def _is_export(folder: Path) -> bool:
    try:
        document = parse_strict(read_whole(folder / PROVENANCE_FILE))
    except (OSError, JSONTextError):
        return False
    return isinstance(document, dict) and document.get("format") == EXPORT_FORMAT
