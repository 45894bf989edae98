"""Tar archives of samples, whose members are files of one stem.

The library webdataset groups the members of local archives, which are opened here: an address is
never given to it, because it would run ``pipe:`` in a shell. Its decoders, which unpickle, are not
used, and members that would need them are not read. Nothing of an archive is written to disk.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaeaug.data.checks import DataError, data_errors
from vaeaug.data.formats.extras import import_extra
from vaeaug.data.metadata import SourceMetadata, parse_json, parse_metadata
from vaeaug.memory import require_memory

# The key of a global PAX header, which readers of samples do not see.
PAX_KEY = "VAEAUG.dataset"
_PICKLES = ("pyd", "pickle", "pkl", "pth", "pt")
_BLOCK = 512
_ERRORS = (tarfile.TarError, OSError, ValueError, OverflowError)


@dataclass(frozen=True)
class TarIndex:
    """What the headers of an archive state, read before its samples.

    Attributes:
        path: The archive.
        n_samples: The number of its samples.
        pickles: The names of members that are pickled, and skipped.
        metadata: What the archive states of itself.
    """

    path: Path
    n_samples: int
    pickles: tuple[str, ...]
    metadata: SourceMetadata


def is_tar(path: Path) -> bool:
    """Whether a path is named as a tar archive.

    Args:
        path: The path, which may have braces.

    Returns:
        True where it is.
    """
    return path.suffix.lower() == ".tar"


def read_index(path: Path) -> TarIndex:
    """Read all headers, and make sure that they reach the archive's end.

    `tarfile` takes a damaged header for the end without an error: samples would be missing.

    Args:
        path: The archive.

    Returns:
        What the headers state.

    Raises:
        DataError: If the archive is damaged, or a member would be larger in memory.
    """
    base_plus_ext = _tar_iterators(path).base_plus_ext
    keys: list[str] = []
    pickles: list[str] = []
    with (
        data_errors(str(path), "a tar archive", *_ERRORS),
        _Bounded(path) as file,
        tarfile.open(fileobj=file, mode="r:") as archive,
    ):
        # Ours is at the start, and so read when the archive is opened.
        header = archive.pax_headers.get(PAX_KEY)
        while (member := archive.next()) is not None:
            # It keeps a description of every member, which nothing needs here.
            archive.members = []  # type: ignore[attr-defined]
            _check_member(member, path)
            key, suffix = base_plus_ext(member.name)
            if not member.isreg() or key is None or _is_meta(member.name):
                continue
            if _is_pickle(suffix):
                pickles.append(member.name)
            elif not keys or keys[-1] != key:
                keys.append(key)
        end = archive.offset
        file.seek(end)
        closing = file.read(_BLOCK)
    if closing != bytes(_BLOCK):
        raise DataError(
            f"{path}: expected an archive that is closed by a block of zeros, got {len(closing)} "
            f"other bytes at {end} after {len(keys)} samples: it is cut short or damaged"
        )
    document = parse_json(header, f"{path}: header {PAX_KEY}") if header else {}
    metadata = parse_metadata(document, f"{path}: header {PAX_KEY}")
    return TarIndex(path, len(keys), tuple(pickles), metadata)


def _check_member(member: tarfile.TarInfo, path: Path) -> None:
    """Refuse a member that would be larger in memory than it is in the archive."""
    if member.issparse():
        raise DataError(
            f"{path}: expected members that are stored whole, got {member.name!r}, a sparse one of "
            f"{member.size:,} bytes"
        )
    require_memory(member.size, str(path), f"a member {member.name!r}", DataError)


class _Bounded(io.BufferedReader):
    """A file that is never asked for more bytes than it has, whatever a damaged header states."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._end = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._end - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _is_meta(name: str) -> bool:
    # What webdataset skips.
    return re.match(r"__[^/]*__($|/)", name) is not None


def _is_pickle(suffix: str) -> bool:
    return any(part in _PICKLES for part in suffix.lower().split("."))


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Read the samples of one archive, without pickled members.

    Args:
        path: The archive.

    Returns:
        For each sample its key, as "__key__", and for each ending the bytes.

    Raises:
        DataError: If the archive is damaged.
    """
    iterators = _tar_iterators(path)

    def is_readable(name: str) -> bool:
        _, suffix = iterators.base_plus_ext(name)
        return suffix is not None and not _is_pickle(suffix)

    with data_errors(str(path), "a tar archive", *_ERRORS), _Bounded(path) as file:
        source = iter([{"url": str(path), "stream": file}])
        members = iterators.tar_file_expander(source, select_files=is_readable)
        yield from iterators.group_by_keys(members)


def _tar_iterators(path: Path) -> Any:
    what = "tar archives of samples"
    return import_extra("webdataset", "webdataset", str(path), what).tariterators
