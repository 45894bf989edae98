"""Files under an address such as ``s3://bucket/folder``, through fsspec.

An object store has no folders and no renames: an object appears whole when it has been sent, and a
set of objects has no moment at which it appears. Such a moment is made by sending one of them last.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaeaug.files import MOST_BYTES, new_file
from vaeaug.mapping import CACHE

# A drive of Windows has one letter.
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://.+")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_PART = 2**23


class RemoteError(RuntimeError):
    """Something cannot be sent to an address, or read from it."""


def is_url(place: object) -> bool:
    """Tell an address from a path.

    Args:
        place: Either.

    Returns:
        True for a text such as "s3://bucket/folder".
    """
    return isinstance(place, str) and _URL.fullmatch(place) is not None


def cache_of(url: str) -> Path:
    """Name the folder on this machine for copies of what lies under an address.

    Args:
        url: The address.

    Returns:
        A folder in the one that the environment variable VAEAUG_CACHE names, or in
        ``~/.cache/vaeaug``; it need not be there.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get(CACHE) or Path(home) / "vaeaug")
    return folder / "remote" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:24]


class Store:
    """The objects under an address.

    Args:
        url: The address. Credentials and endpoints are those of the environment, as fsspec and the
            library of the store read them.

    Raises:
        RemoteError: If the address is of no kind that is known here, or its library is missing.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        scheme = self.url.partition("://")[0]
        if scheme in ("file", "local"):
            raise RemoteError(
                f"{url}: expected an object store such as s3:// or gs://, got a folder of this "
                "machine; copy the run folder there"
            )
        try:
            self._files, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            extra = _EXTRAS.get(scheme)
            install = f"pip install 'vaeaug[{extra}]'" if extra else str(error)
            raise RemoteError(
                f"{url}: expected a library for {scheme}://, got none: {install}"
            ) from (error)
        except ValueError as error:
            raise RemoteError(f"{url}: expected an address that fsspec knows: {error}") from error
        self._root = str(root).rstrip("/")

    def read(self, name: str) -> bytes | None:
        """Read a small object.

        Args:
            name: Its name under the address.

        Returns:
            Its content; None if it is not there.

        Raises:
            RemoteError: If the store does not answer, or refuses, or the object is too large.
        """
        with self._errors(name, "read"):
            try:
                n_bytes = int(self._files.info(self._path(name))["size"])
                if n_bytes > MOST_BYTES:
                    raise RemoteError(
                        f"{self.url}/{name}: expected at most {MOST_BYTES:,} bytes, got {n_bytes:,}"
                    )
                return bytes(self._files.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def sizes(self) -> dict[str, int]:
        """List everything under the address.

        Returns:
            Bytes by name.

        Raises:
            RemoteError: If the store does not answer, or refuses.
        """
        with self._errors("", "listed"):
            try:
                found: dict[str, Any] = self._files.find(self._root, detail=True)
            except FileNotFoundError:
                return {}
        start = f"{self._root}/".lstrip("/")
        return {
            path.lstrip("/").removeprefix(start): int(info["size"])
            for path, info in found.items()
            if info["type"] == "file"
        }

    def write(self, name: str, data: bytes) -> None:
        """Send a small object, which takes the place of one of that name at once.

        Args:
            name: Its name.
            data: Its content.

        Raises:
            RemoteError: If it cannot be sent.
        """
        with self._errors(name, "written"):
            self._files.pipe_file(self._path(name), data)

    def send(self, path: Path, name: str) -> None:
        """Send a file, and see that it arrived with its size.

        Args:
            path: The file.
            name: Its name there.

        Raises:
            RemoteError: If it cannot be sent.
        """
        with self._errors(name, "written"):
            self._files.put_file(str(path), self._path(name))
            arrived = int(self._files.info(self._path(name))["size"])
        if arrived != path.stat().st_size:
            raise RemoteError(
                f"{self.url}/{name}: expected the {path.stat().st_size} bytes of {path}, got "
                f"{arrived}"
            )

    def fetch(self, name: str, path: Path, sha256: str) -> None:
        """Copy an object to this machine; the file appears if its bytes are those expected.

        Args:
            name: Its name.
            path: The file; its folder is made.
            sha256: Hash that it must have.

        Raises:
            RemoteError: If it cannot be read, or is another one.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors(name, "read"), new_file(path) as file:
            found = self._hashed(name, file.write)
            if found != sha256:
                raise RemoteError(
                    f"{self.url}/{name}: expected sha256 {sha256} as in the manifest, got {found}"
                )

    def sha256(self, name: str) -> str:
        """Hash an object, which is read for it.

        Args:
            name: Its name.

        Returns:
            SHA-256 in lower-case hexadecimal digits.

        Raises:
            RemoteError: If it cannot be read.
        """
        with self._errors(name, "read"):
            return self._hashed(name, lambda _: None)

    def delete(self, name: str) -> None:
        """Delete an object.

        Args:
            name: Its name; nothing happens if it is not there.

        Raises:
            RemoteError: If the store refuses.
        """
        with self._errors(name, "deleted"):
            try:
                self._files.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def _hashed(self, name: str, take: Any) -> str:
        digest = hashlib.sha256()
        with self._files.open(self._path(name), "rb", block_size=_PART) as source:
            while part := source.read(_PART):
                digest.update(part)
                take(part)
        return digest.hexdigest()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _errors(self, name: str, verb: str) -> Iterator[None]:
        """Libraries of stores have errors of many kinds."""
        try:
            yield
        except RemoteError:
            raise
        except Exception as error:
            where = f"{self.url}/{name}" if name else self.url
            raise RemoteError(
                f"{where}: cannot be {verb}: {type(error).__name__}: {error}"
            ) from error


def require_space(folder: Path, needed: int) -> None:
    """Refuse copies that the disk of this machine cannot hold.

    Args:
        folder: Where they would be.
        needed: Their bytes.

    Raises:
        RemoteError: If they do not fit.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise RemoteError(
            f"{folder}: expected {needed / 2**20:,.0f} MiB free for copies of remote files, got "
            f"{free / 2**20:,.0f}; the environment variable {CACHE} names another folder"
        )
