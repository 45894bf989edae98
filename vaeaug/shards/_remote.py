"""Runs in object stores: send a finished one there, and read it from there.

The manifest is the commit point there too: it is sent last, and what is under an address without
one is no dataset. Whatever is read is copied to a folder of this machine and checked by its hash.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaeaug.files.json_text import JSONTextError, sealed, unsealed
from vaeaug.progress import Progress, silent
from vaeaug.remote import RemoteError, Store, cache_of, require_space
from vaeaug.shards._format import MANIFEST_NAME, SHARDS_FOLDER, ShardError
from vaeaug.shards._hdf5_output import publish_bytes, sha256_file
from vaeaug.shards._manifest import Manifest, inside, parse_manifest

log = logging.getLogger("vaeaug")

# Beginnings of the names of what a generator consists of.
GENERATOR = ("model/", "run.json")
# What has been sent before there is a manifest: name to SHA-256.
SENDING = "sending.json"
# Files on their way at the same time.
AT_ONCE = 8
# Seconds between two versions of that list.
_SAVE_EVERY = 5.0


@dataclass(frozen=True)
class Pushed:
    """What `push` did.

    Attributes:
        url: Where the run is now.
        n_files: Its files.
        n_bytes: Their bytes.
        n_sent: Files that were sent; the others were there.
    """

    url: str
    n_files: int
    n_bytes: int
    n_sent: int

    def __str__(self) -> str:
        return (
            f"{self.url}: published: {self.n_files} files, {self.n_bytes / 2**20:,.1f} MiB; "
            f"{self.n_sent} sent, the others were there"
        )


def push(out_dir: str | Path, url: str, *, progress: Progress | None = None) -> Pushed:
    """Send a finished run to an object store.

    What is there already with the right hash is not sent again, so that the same call goes on after
    an interruption. A run that has grown since it was sent is sent in what is new.

    Args:
        out_dir: A finished run folder.
        url: Where to, such as "s3://bucket/folder".
        progress: Called after every file; the stage is "sending".

    Returns:
        What was sent.

    Raises:
        ShardError: If the run is not finished, or a file is not what its manifest says.
        RemoteError: If something else is under the address, or it cannot be written.
    """
    manifest = Manifest.load(out_dir)
    store, hashes = Store(url), digests(manifest)
    there, sizes = _published(store), store.sizes()
    known = _sent_before(store)
    if there is not None:
        _check_same(store, there, manifest)
        known = digests(there) | known
    if foreign := sizes.keys() - hashes.keys() - {MANIFEST_NAME, SENDING}:
        raise RemoteError(
            f"{store.url}: expected nothing, or files of {manifest.folder}, got "
            f"{', '.join(sorted(foreign)[:5])}; give another address, or delete them"
        )
    paths = {name: manifest.path_of(name) for name in hashes}
    missing = {
        name: path
        for name, path in paths.items()
        if known.get(name) != hashes[name] or sizes.get(name) != _size(path)
    }
    if missing or there is None or there.to_bytes() != manifest.to_bytes():
        shards = {name: path for name, path in missing.items() if _is_shard(name)}
        others = {name: path for name, path in missing.items() if name not in shards}
        sending = _Sending(store, hashes, {n: h for n, h in known.items() if n not in missing})
        report, n_kept = progress or silent, len(paths) - len(missing)
        sending.send(shards, report, n_kept, len(paths))
        if there is not None and others:
            sending.save()
            # Its report and model are replaced now: until the new one is whole, there is none.
            store.delete(MANIFEST_NAME)
        sending.send(others, report, n_kept + len(shards), len(paths))
        store.write(MANIFEST_NAME, manifest.to_bytes())
    store.delete(SENDING)
    n_bytes = sum(map(_size, paths.values()))
    return Pushed(store.url, len(paths) + 1, n_bytes, len(missing))


def fetch(url: str, *, only: Iterable[str] | None = None) -> Path:
    """Copy a run from an object store to the cache of this machine.

    Args:
        url: Where it is.
        only: Beginnings of the names that are needed, such as "model/". None: everything.

    Returns:
        The run folder in the cache, with its manifest. Files that were copied before are kept.

    Raises:
        ShardError: If no run is published there, or its manifest is damaged.
        RemoteError: If it cannot be read, or a file is not what the manifest says.
    """
    store = Store(url)
    data = store.read(MANIFEST_NAME)
    if data is None:
        raise ShardError(
            f"{store.url}: no manifest: nothing is published there; `vaeaug push` does, or goes on"
        )
    manifest = parse_manifest(data, f"{store.url}/{MANIFEST_NAME}")
    folder = cache_of(store.url)
    before = digests(Manifest.load(folder)) if (folder / MANIFEST_NAME).exists() else {}
    starts = None if only is None else tuple(only)
    hashes, wanted = digests(manifest), {}
    for name, sha256 in hashes.items():
        path = inside(folder, name, store.url)
        if path.exists() and (before.get(name) == sha256 or sha256_file(path) == sha256):
            continue
        if starts is None or name.startswith(starts):
            wanted[name] = path
        else:  # of an earlier state: the manifest would vouch for it
            path.unlink(missing_ok=True)
    if wanted:
        needed = sum(shard.bytes for shard in manifest.shards if shard.path in wanted)
        log.info("%s: %d files are copied to %s", store.url, len(wanted), folder)
        require_space(folder, needed)
    with _threads() as executor:
        copies = [executor.submit(store.fetch, n, path, hashes[n]) for n, path in wanted.items()]
        for copy in as_completed(copies):
            copy.result()
    folder.mkdir(parents=True, exist_ok=True)
    publish_bytes(folder / MANIFEST_NAME, data)
    return folder


def digests(manifest: Manifest) -> dict[str, str]:
    """List all files of a run, the manifest apart.

    Args:
        manifest: Its manifest.

    Returns:
        SHA-256 by name.
    """
    return {entry.path: entry.sha256 for entry in manifest.shards} | dict(manifest.files)


class _Sending:
    """Sends files, and keeps a list there of those that have arrived."""

    def __init__(self, store: Store, hashes: Mapping[str, str], sent: dict[str, str]) -> None:
        self.store, self.hashes, self.sent = store, hashes, sent
        self._saved_at = time.monotonic()

    def send(self, files: Mapping[str, Path], report: Progress, done: int, total: int) -> None:
        try:
            with _threads() as executor:
                names: dict[Future[None], str] = {
                    executor.submit(self._send, path, name): name for name, path in files.items()
                }
                for future in as_completed(names):
                    future.result()
                    name = names[future]
                    self.sent[name] = self.hashes[name]
                    done += 1
                    report("sending", done, total, {})
                    if time.monotonic() - self._saved_at >= _SAVE_EVERY:
                        self.save()
        finally:
            if files:
                self.save()

    def _send(self, path: Path, name: str) -> None:
        found = sha256_file(path)
        if found != self.hashes[name]:
            raise ShardError(
                f"{path}: expected sha256 {self.hashes[name]} as in the manifest, got {found}; "
                "nothing is published"
            )
        self.store.send(path, name)

    def save(self) -> None:
        self.store.write(SENDING, sealed({"sent": self.sent}))
        self._saved_at = time.monotonic()


def _threads() -> "_Threads":
    return _Threads(AT_ONCE, "files")


class _Threads(ThreadPoolExecutor):
    """An error does not wait for what has not begun."""

    def __exit__(self, kind: Any, *error: Any) -> None:
        self.shutdown(wait=True, cancel_futures=kind is not None)


def _published(store: Store) -> Manifest | None:
    data = store.read(MANIFEST_NAME)
    return None if data is None else parse_manifest(data, f"{store.url}/{MANIFEST_NAME}")


def _sent_before(store: Store) -> dict[str, str]:
    data = store.read(SENDING)
    if data is None:
        return {}
    try:
        return {str(name): str(sha256) for name, sha256 in unsealed(data)["sent"].items()}
    except (JSONTextError, KeyError, AttributeError) as error:
        log.warning("%s/%s: cannot be read (%s); all is sent again", store.url, SENDING, error)
        return {}


def _check_same(store: Store, there: Manifest, manifest: Manifest) -> None:
    """Refuse to replace a dataset by another one; one that has grown keeps its shards."""
    hashes = digests(manifest)
    for entry in there.shards:
        if hashes.get(entry.path) != entry.sha256:
            raise RemoteError(
                f"{store.url}: expected nothing, or an earlier state of {manifest.folder}, got "
                f"another dataset ({entry.path} differs); give another address, or delete it"
            )


def remote_problems(url: str) -> Iterator[tuple[str, str, str]]:
    """Compare what is under an address with its manifest, byte by byte, without copying it.

    Args:
        url: The address.

    Yields:
        (kind, name, message), as `verify` reports them.

    Raises:
        ShardError: If no run is published there, or its manifest is damaged.
        RemoteError: If it cannot be listed.
    """
    store = Store(url)
    manifest = _published(store)
    if manifest is None:
        raise ShardError(f"{store.url}: no manifest: nothing is published there")
    hashes, sizes = digests(manifest), store.sizes()
    with _threads() as executor:
        found = {name: executor.submit(store.sha256, name) for name in hashes if name in sizes}
        for name, sha256 in hashes.items():
            if name not in found:
                yield "missing", name, "expected the file, got none"
                continue
            try:
                other = found[name].result()
            except RemoteError as error:
                yield "unreadable", name, str(error)
                continue
            if other != sha256:
                yield "changed", name, f"expected sha256 {sha256}, got {other}"
    for name in sorted(sizes.keys() - hashes.keys() - {MANIFEST_NAME}):
        if _is_shard(name):
            yield "foreign", name, "expected no such file: the manifest does not name it"


def _is_shard(name: str) -> bool:
    return name.startswith(f"{SHARDS_FOLDER}/")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise ShardError(f"{path}: expected the file that the manifest names, got none") from None
