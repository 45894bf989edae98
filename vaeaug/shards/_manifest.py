"""The manifest: the commit point of a run. No manifest, no dataset."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vaeaug.files import read_whole
from vaeaug.files.json_text import JSONTextError, parse_strict, seal_of
from vaeaug.shards._extra import check_extra, check_gate
from vaeaug.shards._format import (
    FORMAT_VERSION,
    MANIFEST_FORMAT,
    MANIFEST_NAME,
    SHARDS_FOLDER,
    FormatVersionError,
    ShardError,
    check_class_names,
    check_layout,
    is_int,
)
from vaeaug.shards._hdf5_output import publish_bytes

_SEAL = "manifest_sha256"


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One published shard.

    Attributes:
        path: Relative to the run folder, with forward slashes: "shards/shard-00000.h5".
        label: Index of its class in ``class_names``.
        class_name: Name of its class.
        n: Samples in it.
        bytes: Size of the file.
        sha256: Hash of the file.
        sha256_decoded: Hash of the arrays in it, the same for every compression.
    """

    path: str
    label: int
    class_name: str
    n: int
    bytes: int
    sha256: str
    sha256_decoded: str


@dataclass(frozen=True, kw_only=True)
class ClassEntry:
    """What was wanted of one class, and what came of it.

    Attributes:
        label: Index of the class in ``class_names``.
        name: Its name.
        real: Real training images of it.
        target_count: Total wanted when merged: real, repeated and synthetic.
        n_synthetic: Synthetic samples wanted.
        accepted: Synthetic samples in the shards.
        rejected: Rejected candidates by reason.
        candidates: Samples drawn for it.
    """

    label: int
    name: str
    real: int
    target_count: int
    n_synthetic: int
    accepted: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    candidates: int = 0


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that a reader has to know of a run, written last.

    Attributes:
        class_names: Names in the order of the labels.
        image_shape: Shape of one image, without the sample axis.
        dtype: "uint8" or "float32".
        value_range: Smallest and largest value that an image may have.
        layout: "NHWC", "NLC" or "NDHWC".
        data_fingerprint: Fingerprint of the training split.
        model_sha256: Hash of the generator's weights.
        config_sha256: Hash of the configuration.
        run_seed: Seed of the run.
        versions: Library name to version.
        real_counts: Real training images of each class, in the order of the labels.
        classes: One entry for each class that was planned.
        shards: The shards in the order in which they are read.
        gate: "not evaluated", or the result of ``vaeaug evaluate``.
        complete: False if a class fell short of what was wanted.
        files: Other files of the run that ``verify`` checks: relative path to SHA-256.
        extra: Anything else that is JSON.
        folder: Where it was loaded from or saved to; not written.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    dtype: str
    value_range: tuple[float, float]
    layout: str
    data_fingerprint: str
    model_sha256: str
    config_sha256: str
    run_seed: int
    versions: Mapping[str, str] = field(default_factory=dict)
    real_counts: tuple[int, ...]
    classes: tuple[ClassEntry, ...]
    shards: tuple[ShardEntry, ...]
    gate: str | Mapping[str, Any] = "not evaluated"
    complete: bool = True
    files: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False, repr=False)

    @property
    def n_images(self) -> int:
        """Synthetic samples in all shards."""
        return sum(entry.n for entry in self.shards)

    @property
    def evaluated(self) -> bool:
        """True when ``vaeaug evaluate`` left its result in ``gate``."""
        return not isinstance(self.gate, str)

    def to_bytes(self) -> bytes:
        """The file: JSON, sorted keys, two spaces, UTF-8, sealed with a hash of its content."""
        content = self._content()
        content[_SEAL] = seal_of(content, _SEAL)
        return (_dump(content, indent=2) + "\n").encode()

    def save(self, folder: str | Path) -> "Manifest":
        """Publish it as ``folder/manifest.json``, whole or not at all.

        Returns:
            The same manifest, with ``folder`` set.

        Raises:
            ShardError: If a field could not be loaded again, or the file cannot be written.
        """
        folder = Path(folder)
        path = folder / MANIFEST_NAME
        try:
            data = self.to_bytes()
        except (TypeError, ValueError) as error:
            raise ShardError(f"{path}: expected content that is JSON, got: {error}") from error
        checked = _parse(data, path)
        publish_bytes(path, data)
        return dataclasses.replace(checked, folder=folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Read and check ``folder/manifest.json`` (or that file itself).

        Raises:
            ShardError: If there is none, or any field is not as the format says.
            FormatVersionError: If it is of a later major version.
        """
        path = manifest_path(folder)
        try:
            data = read_whole(path)
        except FileNotFoundError as error:
            raise ShardError(
                f"{path.parent}: no manifest: the run has not finished; run the same command again "
                f"to resume",
                errno=error.errno,
            ) from error
        except OSError as error:
            raise ShardError(f"{path}: cannot be read: {error}", errno=error.errno) from error
        return dataclasses.replace(_parse(data, path), folder=path.parent)

    def path_of(self, relative: str) -> Path:
        """Where a file named in this manifest lies.

        Raises:
            ShardError: If the manifest has no folder, or the path leaves it.
        """
        if self.folder is None:
            raise ShardError("manifest: expected one that was loaded or saved, got no folder")
        return inside(self.folder, relative, self.folder / MANIFEST_NAME)

    def _content(self) -> dict[str, Any]:
        names = (f.name for f in dataclasses.fields(self) if f.name != "folder")
        content = {name: _plain(getattr(self, name)) for name in names}
        return {**content, "format": MANIFEST_FORMAT, "format_version": FORMAT_VERSION}


def manifest_path(folder: str | Path) -> Path:
    """``folder/manifest.json``, or ``folder`` itself where it names that file."""
    folder = Path(folder)
    return folder if folder.name == MANIFEST_NAME else folder / MANIFEST_NAME


def inside(folder: Path, relative: str, where: Path | str) -> Path:
    """``folder / relative``, refused if it or a symbolic link on the way leaves ``folder``.

    Raises:
        ShardError: Names ``where`` the path came from.
    """
    pure = PurePosixPath(relative)
    clean = bool(relative) and str(pure) == relative and not {"\\", "\0"} & set(relative)
    if not clean or pure.is_absolute() or ".." in pure.parts or relative == ".":
        raise ShardError(
            f"{where}: expected a relative path with forward slashes inside the run folder, "
            f"got {relative!r}"
        )
    path = folder.joinpath(*pure.parts)
    try:
        resolved, home = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise ShardError(f"{where}: path {relative!r} cannot be followed: {error}") from error
    if not resolved.is_relative_to(home):
        raise ShardError(
            f"{where}: expected a path inside the run folder, got {relative!r}, a symbolic link to "
            f"{resolved}"
        )
    return path


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value  # numpy numbers


def _dump(content: Any, indent: int | None = None) -> str:
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(
        content,
        sort_keys=True,
        indent=indent,
        separators=separators,
        ensure_ascii=False,
        allow_nan=False,
    )


def _parse(data: bytes, path: Path) -> Manifest:
    """Check every field of a manifest's bytes; ``path`` is named in the errors."""
    content = _read_json(data, path)
    kind, version = content.get("format"), content.get("format_version")
    if kind != MANIFEST_FORMAT:
        raise ShardError(f"{path}: expected format {MANIFEST_FORMAT!r}, got {kind!r}")
    if not is_int(version) or version != FORMAT_VERSION:
        raise FormatVersionError(
            f"{path}: expected format_version {FORMAT_VERSION}, got {version!r}; a newer vaeaug "
            f"may read it"
        )
    if content.get(_SEAL) != seal_of(content, _SEAL):
        raise ShardError(
            f"{path}: the manifest was changed after it was written: expected {_SEAL} "
            f"{seal_of(content, _SEAL)}, got {content.get(_SEAL)!r}"
        )
    manifest = _fields(_Reader(content, str(path)))
    _check_paths(manifest, path)
    return manifest


def _read_json(data: bytes, path: Path) -> dict[str, Any]:
    try:
        content = parse_strict(data)
    except JSONTextError as error:
        raise ShardError(f"{path}: expected JSON, got: {error}") from error
    if not isinstance(content, dict):
        raise ShardError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


class _Reader:
    """Takes checked fields out of a JSON object, and refuses those left over."""

    def __init__(self, content: Any, where: str) -> None:
        if not isinstance(content, dict):
            raise ShardError(f"{where}: expected an object, got {content!r}")
        self._left = dict(content)
        self.where = where

    def take(self, name: str, what: str, check: Callable[[Any], bool]) -> Any:
        if name not in self._left:
            raise ShardError(f"{self.where}: expected the field {name!r}, which is missing")
        value = self._left.pop(name)
        if not check(value):
            raise ShardError(f"{self.where}: {name}: expected {what}, got {_short(value)}")
        return value

    def text(self, name: str) -> str:
        return str(self.take(name, "a non-empty string", _is_text))

    def sha256(self, name: str) -> str:
        return str(self.take(name, "64 lower-case hexadecimal digits", _is_sha256))

    def count(self, name: str) -> int:
        return int(self.take(name, "an integer >= 0", _is_count))

    def objects(self, name: str) -> "list[_Reader]":
        items = self.take(name, "a list", lambda v: isinstance(v, list))
        return [_Reader(item, f"{self.where}: {name}[{i}]") for i, item in enumerate(items)]

    def mapping(self, name: str, what: str, check: Callable[[Any], bool]) -> dict[str, Any]:
        def all_pass(value: Any) -> bool:
            return isinstance(value, dict) and all(check(item) for item in value.values())

        return dict(self.take(name, f"an object of {what}", all_pass))

    def done(self) -> None:
        if self._left:
            raise ShardError(f"{self.where}: expected no other fields, got {sorted(self._left)}")


def _fields(reader: _Reader) -> Manifest:
    for name in ("format", "format_version", _SEAL):
        reader.take(name, "anything", lambda _: True)
    class_names = check_class_names(
        reader.take("class_names", "a list of names", lambda v: isinstance(v, list)),
        f"{reader.where}: class_names",
    )
    image_shape = tuple(reader.take("image_shape", "a list of integers >= 1", _is_shape))
    layout, dtype = reader.text("layout"), reader.text("dtype")
    check_layout(layout, image_shape, dtype, reader.where)
    low, high = reader.take("value_range", "two finite numbers, the first the smaller", _is_range)
    manifest = Manifest(
        class_names=class_names,
        image_shape=image_shape,
        dtype=dtype,
        value_range=(float(low), float(high)),
        layout=layout,
        data_fingerprint=reader.text("data_fingerprint"),
        model_sha256=reader.text("model_sha256"),
        config_sha256=reader.text("config_sha256"),
        run_seed=reader.count("run_seed"),
        versions=reader.mapping("versions", "strings", lambda v: isinstance(v, str)),
        real_counts=tuple(
            reader.take(
                "real_counts",
                f"{len(class_names)} integers >= 0, one for each class",
                lambda v: isinstance(v, list) and len(v) == len(class_names) and _all_counts(v),
            )
        ),
        classes=tuple(_class_entry(r, class_names) for r in reader.objects("classes")),
        shards=tuple(_shard_entry(r, class_names) for r in reader.objects("shards")),
        gate=reader.take(
            "gate",
            '"not evaluated" or an object',
            lambda v: v == "not evaluated" or isinstance(v, dict),
        ),
        complete=reader.take("complete", "true or false", lambda v: isinstance(v, bool)),
        files=reader.mapping("files", "SHA-256 digests", _is_sha256),
        extra=reader.mapping("extra", "anything", lambda _: True),
    )
    reader.done()
    check_gate(manifest.gate, reader.where)
    check_extra(manifest.extra, reader.where)
    labels = [entry.label for entry in manifest.classes]
    if len(set(labels)) != len(labels):
        raise ShardError(f"{reader.where}: classes: expected each class once, got labels {labels}")
    return manifest


def _class_entry(reader: _Reader, class_names: tuple[str, ...]) -> ClassEntry:
    label = _label(reader, class_names)
    entry = ClassEntry(
        label=label,
        name=_name(reader, "name", class_names[label]),
        real=reader.count("real"),
        target_count=reader.count("target_count"),
        n_synthetic=reader.count("n_synthetic"),
        accepted=reader.count("accepted"),
        rejected=reader.mapping("rejected", "integers >= 0", _is_count),
        candidates=reader.count("candidates"),
    )
    reader.done()
    return entry


def _shard_entry(reader: _Reader, class_names: tuple[str, ...]) -> ShardEntry:
    label = _label(reader, class_names)
    entry = ShardEntry(
        path=reader.text("path"),
        label=label,
        class_name=_name(reader, "class_name", class_names[label]),
        n=reader.take("n", "an integer >= 1", lambda v: _is_count(v) and v >= 1),
        bytes=reader.count("bytes"),
        sha256=reader.sha256("sha256"),
        sha256_decoded=reader.sha256("sha256_decoded"),
    )
    reader.done()
    return entry


def read_class(
    content: Any, shards: Any, class_names: tuple[str, ...], where: str
) -> tuple[ClassEntry, list[ShardEntry]]:
    """The entry of a class and those of its shards, checked as those of a manifest are.

    Raises:
        ShardError: If they are none, or do not belong together.
    """
    entry = _class_entry(_Reader(content, where), class_names)
    if not isinstance(shards, list):
        raise ShardError(f"{where}: shards: expected a list, got {_short(shards)}")
    found = [_shard_entry(_Reader(each, where), class_names) for each in shards]
    for each in found:
        if PurePosixPath(each.path).parent != PurePosixPath(SHARDS_FOLDER):
            raise ShardError(
                f"{where}: expected shards directly in {SHARDS_FOLDER}/, got {each.path!r}"
            )
    if {each.label for each in found} - {entry.label} or entry.accepted != sum(
        each.n for each in found
    ):
        raise ShardError(
            f"{where}: expected {entry.accepted} samples of class {entry.name!r} in its shards, "
            f"got {[(each.label, each.n) for each in found]}"
        )
    return entry, found


def _label(reader: _Reader, class_names: tuple[str, ...]) -> int:
    k = len(class_names)
    return int(reader.take("label", f"an integer in [0, {k})", lambda v: _is_count(v) and v < k))


def _name(reader: _Reader, name: str, expected: str) -> str:
    return str(reader.take(name, f"{expected!r}, the name of its label", lambda v: v == expected))


def _check_paths(manifest: Manifest, path: Path) -> None:
    """Every path stays in the run folder, and no file is named twice."""
    shards = [entry.path for entry in manifest.shards]
    for relative in shards:
        if PurePosixPath(relative).parent != PurePosixPath(SHARDS_FOLDER):
            raise ShardError(
                f"{path}: expected shards directly in {SHARDS_FOLDER}/, got {relative!r}"
            )
    seen: dict[Path, str] = {}
    for relative in [*shards, *manifest.files]:
        resolved = inside(path.parent, relative, path).resolve()
        if resolved in seen:
            raise ShardError(
                f"{path}: expected each file once, got {relative!r} and {seen[resolved]!r} for "
                f"the same file"
            )
        seen[resolved] = relative


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _all_counts(value: Any) -> bool:
    return all(_is_count(item) for item in value)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and _all_counts(value) and all(item >= 1 for item in value)


def _is_range(value: Any) -> bool:
    def number(item: Any) -> bool:
        plain = isinstance(item, (int, float)) and not isinstance(item, bool)
        return plain and abs(item) <= sys.float_info.max

    return (
        isinstance(value, list)
        and len(value) == 2
        and all(number(item) for item in value)
        and value[0] < value[1]
    )
