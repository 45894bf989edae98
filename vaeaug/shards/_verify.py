"""Verification of a run folder against its manifest, byte by byte and value by value."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vaeaug.files import leftovers, read_whole
from vaeaug.files.names import printable
from vaeaug.remote import is_url
from vaeaug.shards._format import (
    MANIFEST_NAME,
    NEXT_FOLDER,
    SHARDS_FOLDER,
    TMP_SUFFIX,
    ShardError,
    check_soft_labels,
)
from vaeaug.shards._hdf5_output import sha256_file
from vaeaug.shards._manifest import Manifest, ShardEntry, manifest_path
from vaeaug.shards._reader import Shard
from vaeaug.shards._shard_dataset import disagreements


class Problem(NamedTuple):
    """One problem of a run folder.

    Attributes:
        kind: "missing", "changed", "foreign", "content", "counts", "manifest",
            "unreadable", or "unfinished": an addition is taking the place of this dataset.
        path: Path relative to the run folder.
        message: The expected and the actual state.
    """

    kind: str
    path: str
    message: str


@dataclass(frozen=True)
class VerifyReport:
    """The result of ``verify``.

    Attributes:
        folder: The run folder.
        problems: The problems; empty if everything matches the manifest.
        n_shards: Shards that the manifest names.
        n_images: Synthetic samples that the manifest names.
    """

    folder: str
    problems: tuple[Problem, ...] = field(default_factory=tuple)
    n_shards: int = 0
    n_images: int = 0

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_json(self) -> str:
        """Serialise the report as one JSON document.

        Returns:
            The document.
        """
        content = {**dataclasses.asdict(self), "ok": self.ok}
        content["problems"] = [problem._asdict() for problem in self.problems]
        return json.dumps(content, sort_keys=True, indent=2)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        size = f"{self.n_shards} shards, {self.n_images} samples"
        if self.ok:
            return f"{self.folder}: ok: {size}"
        lines = [printable(f"  {p.path}: {p.kind}: {p.message}") for p in self.problems]
        noun = "problem" if len(lines) == 1 else "problems"
        return "\n".join([f"{self.folder}: {len(lines)} {noun} in {size}", *lines])


def verify(out_dir: str | Path) -> VerifyReport:
    """Check that a run folder is complete and unchanged.

    The sizes, file hashes, decoded hashes, labels, soft labels and attributes of all shards are
    checked against the manifest. The manifest is checked for consistency, and files that it does
    not name or that are missing are found. Damage is reported, never raised.

    Of a run in an object store, every byte is read and compared by its hash; the values behind the
    hashes were checked when it was made.

    Args:
        out_dir: The run folder, or the address of a run in an object store.

    Returns:
        The problems, if there are any.

    Raises:
        RemoteError: If the address cannot be read.
    """
    if isinstance(out_dir, str) and is_url(out_dir):
        return _verify_remote(out_dir)
    path = manifest_path(out_dir)
    folder = path.parent
    try:
        manifest = Manifest.load(path)
    except ShardError as error:
        kind = "manifest" if os.path.lexists(path) else "missing"
        return VerifyReport(str(folder), (Problem(kind, MANIFEST_NAME, str(error)),))
    problems = [
        *_problems_of(MANIFEST_NAME, lambda: _check_manifest(manifest, path)),
        *(
            problem
            for entry in manifest.shards
            for problem in _problems_of(
                entry.path, functools.partial(_check_shard, manifest, entry)
            )
        ),
        *_problems_of(MANIFEST_NAME, lambda: _check_files(manifest)),
        *_problems_of(SHARDS_FOLDER, lambda: _unnamed_files(manifest, folder)),
    ]
    if problems and (folder / NEXT_FOLDER / MANIFEST_NAME).exists():
        message = (
            "an addition was interrupted while its files took the place of this dataset's; give "
            "the same command again"
        )
        problems.insert(0, Problem("unfinished", f"{NEXT_FOLDER}/{MANIFEST_NAME}", message))
    return VerifyReport(str(folder), tuple(problems), len(manifest.shards), manifest.n_images)


def _verify_remote(url: str) -> VerifyReport:
    from vaeaug.shards._remote import fetch, remote_problems

    try:
        problems = tuple(Problem(*each) for each in remote_problems(url))
        manifest = Manifest.load(fetch(url, only=()))
    except ShardError as error:
        return VerifyReport(url, (Problem("manifest", MANIFEST_NAME, str(error)),))
    return VerifyReport(url, problems, len(manifest.shards), manifest.n_images)


def _problems_of(relative: str, check: Callable[[], list[Problem]]) -> list[Problem]:
    """Run a check; an exception becomes a problem as well."""
    try:
        return check()
    except Exception as error:
        text = f"could not be checked: {type(error).__name__}: {error}"
        return [Problem("unreadable", relative, text)]


def _check_manifest(manifest: Manifest, path: Path) -> list[Problem]:
    problems: list[Problem] = []
    if read_whole(path) != manifest.to_bytes():
        problems.append(
            Problem(
                "manifest",
                MANIFEST_NAME,
                "has the same content but different bytes: white space, or the spelling of a "
                "number or character, was changed",
            )
        )

    def counts(message: str) -> None:
        problems.append(Problem("counts", MANIFEST_NAME, message))

    planned = {entry.label for entry in manifest.classes}
    for shard in manifest.shards:
        if shard.label not in planned:
            counts(f"{shard.path}: expected an entry in classes for {shard.class_name!r}, got none")
    for entry in manifest.classes:
        in_shards = sum(
            shard.n - len(manifest.excluded.get(shard.path, ()))
            for shard in manifest.shards
            if shard.label == entry.label
        )
        if in_shards != entry.accepted:
            counts(
                f"class {entry.name!r}: expected {entry.accepted} accepted samples in the shards, "
                f"got {in_shards}"
            )
        real = manifest.real_counts[entry.label]
        if entry.real != real:
            counts(f"class {entry.name!r}: expected {real} real images, got {entry.real}")
    complete = all(entry.accepted >= entry.n_synthetic for entry in manifest.classes)
    if complete != manifest.complete:
        counts(f"complete: expected {complete} by the counts, got {manifest.complete}")
    return problems


def _check_shard(manifest: Manifest, entry: ShardEntry) -> list[Problem]:
    try:
        path = manifest.path_of(entry.path)
        changed = _check_bytes(path, entry.bytes, entry.sha256, entry.path)
    except (OSError, ShardError) as error:
        return [Problem("unreadable", entry.path, str(error))]
    if changed is not None and changed.kind == "missing":
        return [changed]
    content: list[Problem] = []
    try:
        with Shard(path) as shard:
            content = [
                Problem("content", entry.path, text)
                for text in disagreements(shard, manifest, entry)
            ]
            if shard.soft_labels is not None:
                try:
                    check_soft_labels(shard.soft_labels, shard.label, "soft_labels")
                except ShardError as error:
                    content.append(Problem("content", entry.path, str(error)))
            decoded = shard.sha256_decoded()
            if decoded != entry.sha256_decoded:
                content.append(
                    Problem(
                        "content",
                        entry.path,
                        f"decoded arrays: expected sha256 {entry.sha256_decoded}, got {decoded}",
                    )
                )
    except ShardError as error:
        content = [Problem("unreadable", entry.path, str(error))]
    if changed is not None and not content:
        changed = changed._replace(
            message=changed.message + "; its decoded arrays still match the manifest"
        )
    return [*([changed] if changed else []), *content]


def _check_files(manifest: Manifest) -> list[Problem]:
    problems: list[Problem] = []
    for relative, sha256 in sorted(manifest.files.items()):
        try:
            problem = _check_bytes(manifest.path_of(relative), None, sha256, relative)
        except (OSError, ShardError) as error:
            problem = Problem("unreadable", relative, str(error))
        if problem is not None:
            problems.append(problem)
    return problems


def _check_bytes(path: Path, size: int | None, sha256: str, relative: str) -> Problem | None:
    if not path.exists():
        return Problem("missing", relative, "expected a file that the manifest names, got none")
    if not path.is_file():
        return Problem("missing", relative, "expected a file, got something else")
    got_size = path.stat().st_size
    if size is not None and got_size != size:
        return Problem("changed", relative, f"expected {size} bytes, got {got_size}")
    got = sha256_file(path)
    if got != sha256:
        return Problem("changed", relative, f"expected sha256 {sha256}, got {got}")
    return None


def _unnamed_files(manifest: Manifest, folder: Path) -> list[Problem]:
    """Find files in ``shards/`` that the manifest does not name, and unfinished manifests."""
    named = {entry.path for entry in manifest.shards} | set(manifest.files)
    problems: list[Problem] = []
    shards = folder / SHARDS_FOLDER
    present = sorted(shards.rglob("*")) if shards.is_dir() else []
    unfinished = [path for path, _ in leftovers(folder, MANIFEST_NAME)]
    for path in [*present, *unfinished]:
        relative = path.relative_to(folder).as_posix()
        if relative in named:
            continue
        message = (
            "left by an interrupted writer"
            if path.name.endswith(TMP_SUFFIX)
            else "not named in the manifest"
        )
        problems.append(Problem("foreign", relative, message))
    return problems
