"""Files and folders that appear under their name whole or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vaeaug.interchange._samples import EXPORT_FORMAT, ExportError
from vaeaug.shards._files import fsync_folder, write_error

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
def published_file(path: Path, *, needed: int) -> Iterator[Path]:
    """A path to write a file to, which takes the name ``path`` when the block ends well.

    Args:
        path: The name that it gets; a file there is replaced.
        needed: Bytes it takes, for the message when there is no room.

    Raises:
        ShardError: From the ``OSError`` of the system, with its ``errno``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error, needed, _KEPT) from error
    finally:
        with contextlib.suppress(OSError):  # gone already when it was published
            temporary.unlink()


@contextlib.contextmanager
def published_folder(path: Path, *, needed: int) -> Iterator[Path]:
    """The same for a folder: an empty one to fill, which takes the name ``path`` at the end.

    An export that is there is moved aside first, and comes back if the new one cannot take its
    place.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        temporary.mkdir()
        yield temporary
        # Of many small files: syncing all at once takes a fraction of the time of one by one.
        os.sync()
        if path.exists():
            path.rename(aside)
        try:
            temporary.rename(path)
        except OSError:
            if aside.exists():
                aside.rename(path)
            raise
        fsync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error, needed, _KEPT) from error
    finally:
        for leftover in (temporary, aside):
            # An export that failed to come back under its name is not thrown away.
            if leftover == temporary or path.exists():
                shutil.rmtree(leftover, ignore_errors=True)


def _is_export(folder: Path) -> bool:
    try:
        document = json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("format") == EXPORT_FORMAT
