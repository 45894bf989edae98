"""The manifest: the commit point of a run. Without a manifest there is no dataset."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar

from vaeaug.files import read_whole
from vaeaug.files.json_text import JSONTextError, parse_strict, seal_of
from vaeaug.remote import is_url
from vaeaug.shards._checked import (
    Count,
    Expected,
    Label,
    NameOfLabel,
    Positive,
    Sha256,
    Text,
    is_count,
    is_number,
    is_sha256,
    is_text,
    list_of,
    mapping_of,
    short,
    validated,
)
from vaeaug.shards._extra import EXCLUDED, check_extra, check_gate
from vaeaug.shards._format import (
    FORMAT_VERSION,
    MANIFEST_FORMAT,
    MANIFEST_NAME,
    SECOND_VERSION,
    SHARDS_FOLDER,
    FormatVersionError,
    ShardError,
    check_class_names,
    check_layout,
    is_int,
)
from vaeaug.shards._hdf5_output import publish_bytes

_SEAL = "manifest_sha256"
# Attributes of a shard that are those of its generation.
PROVENANCE = ("data_fingerprint", "model_sha256", "config_sha256", "run_seed")
# Classes and keys of a generation that are named where it is described in a line.
SHOWN = 12
_STRICT = {"extra": "forbid"}


def _is_range(value: Any) -> bool:
    return list_of(is_number)(value) and len(value) == 2 and value[0] < value[1]


def _is_gate(value: Any) -> bool:
    return value == "not evaluated" or isinstance(value, Mapping)


def _is_mix(value: Any) -> bool:
    return value is True or (isinstance(value, str) and bool(value))


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One published shard.

    Attributes:
        path: Path relative to the run folder, with forward slashes: "shards/shard-00000.h5".
        label: Index of its class in ``class_names``.
        class_name: Name of its class.
        n: Number of samples.
        bytes: Size of the file.
        sha256: Hash of the file.
        sha256_decoded: Hash of its arrays, independent of the compression.
    """

    __pydantic_config__: ClassVar = _STRICT

    path: Text
    label: Label
    class_name: NameOfLabel
    n: Positive
    bytes: Count
    sha256: Sha256
    sha256_decoded: Sha256


@dataclass(frozen=True, kw_only=True)
class ClassEntry:
    """Numbers of samples of one class that were requested, drawn and accepted.

    Attributes:
        label: Index of the class in ``class_names``.
        name: Name of the class.
        real: Real training images of the class.
        target_count: Planned size of the class in the merged dataset: real, repeated and synthetic.
        n_synthetic: Requested number of synthetic samples.
        accepted: Synthetic samples in the shards.
        rejected: Rejected candidates by reason.
        candidates: Samples drawn for the class.
    """

    __pydantic_config__: ClassVar = _STRICT

    label: Label
    name: NameOfLabel
    real: Count
    target_count: Count
    n_synthetic: Count
    accepted: Count
    rejected: Annotated[
        Mapping[str, int], Expected("an object of integers >= 0", mapping_of(is_count))
    ] = field(default_factory=dict)
    candidates: Count = 0


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The samples that one job added to a dataset, and their origin.

    Attributes:
        asked: Keys of the configuration that differ from those of the generation before, and their
            values; "images" has the number of new real images by class. Empty for the first one.
        classes: What was requested, drawn and accepted in this generation, for each class that it
            drew; labels are those of the manifest.
        shards: Paths of its shards.
        class_names: Class names at that time; labels in its shards are indices into them.
        real_counts: Real training images of each of these classes.
        data_fingerprint: Fingerprint of the training split, whose rows its shards name.
        model_sha256: Hash of the generator's weights.
        config_sha256: Hash of the configuration.
        run_seed: Seed of its samples.
        versions: Library name to version.
        may_mix: True, or why its soft labels must not be used together with those of the others.
    """

    __pydantic_config__: ClassVar = _STRICT

    asked: Annotated[Mapping[str, Any], Expected("an object", mapping_of(lambda _: True))] = field(
        default_factory=dict
    )
    classes: tuple[ClassEntry, ...]
    shards: Annotated[tuple[str, ...], Expected("a list of paths", list_of(is_text))]
    class_names: Annotated[tuple[str, ...], Expected("a list of names", list_of(is_text))]
    real_counts: Annotated[tuple[int, ...], Expected("integers >= 0", list_of(is_count))]
    data_fingerprint: Text
    model_sha256: Text
    config_sha256: Text
    run_seed: Count
    versions: Annotated[
        Mapping[str, str],
        Expected("an object of strings", mapping_of(lambda v: isinstance(v, str))),
    ] = field(default_factory=dict)
    may_mix: Annotated[bool | str, Expected("true or a reason", _is_mix)] = True

    @property
    def n_images(self) -> int:
        """Synthetic samples in its shards."""
        return sum(entry.accepted for entry in self.classes)

    def __str__(self) -> str:
        drawn = _some(f"{entry.name} {entry.accepted}" for entry in self.classes)
        changed = _some(f"{key} {_dump(value)[:200]}" for key, value in self.asked.items())
        text = f"{self.n_images} samples ({drawn or 'none'}), seed {self.run_seed}, model "
        text += self.model_sha256[:12] + (f", changed: {changed}" if changed else "")
        return text if self.may_mix is True else f"{text}; {self.may_mix}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that a reader needs to know about a run; written last.

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
        complete: False if a class has fewer samples than requested.
        files: Other files of the run that ``verify`` checks: relative path to SHA-256.
        extra: Any other JSON content.
        generations: What each job added, the oldest first; empty for a dataset of one job. The
            fields above that say where samples are from are those of the last one.
        folder: Folder from which it was loaded or to which it was saved; not written.
    """

    __pydantic_config__: ClassVar = _STRICT

    class_names: Annotated[tuple[str, ...], Expected("a list of names", list_of(lambda _: True))]
    image_shape: Annotated[
        tuple[int, ...],
        Expected("a list of integers >= 1", list_of(lambda v: is_count(v) and v >= 1)),
    ]
    dtype: Text
    value_range: Annotated[
        tuple[float, float], Expected("two finite numbers, the first the smaller", _is_range)
    ]
    layout: Text
    data_fingerprint: Text
    model_sha256: Text
    config_sha256: Text
    run_seed: Count
    versions: Annotated[
        Mapping[str, str],
        Expected("an object of strings", mapping_of(lambda v: isinstance(v, str))),
    ] = field(default_factory=dict)
    real_counts: Annotated[tuple[int, ...], Expected("integers >= 0", list_of(is_count))]
    classes: tuple[ClassEntry, ...]
    shards: tuple[ShardEntry, ...]
    gate: Annotated[str | Mapping[str, Any], Expected('"not evaluated" or an object', _is_gate)] = (
        "not evaluated"
    )
    complete: Annotated[bool, Expected("true or false", lambda v: isinstance(v, bool))] = True
    files: Annotated[
        Mapping[str, str], Expected("an object of SHA-256 digests", mapping_of(is_sha256))
    ] = field(default_factory=dict)
    extra: Annotated[Mapping[str, Any], Expected("an object", mapping_of(lambda _: True))] = field(
        default_factory=dict
    )
    generations: tuple[Generation, ...] = ()
    folder: Path | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        return (
            f"Manifest({self.n_images} samples of {len(self.class_names)} classes in "
            f"{len(self.shards)} shards)"
        )

    @property
    def history(self) -> tuple[Generation, ...]:
        """The generations, the oldest first; a dataset of one job is one."""
        if self.generations:
            return self.generations
        drawn = Counter[int]()  # those included that are left out since
        for shard in self.shards:
            drawn[shard.label] += shard.n
        return (
            Generation(
                classes=tuple(
                    dataclasses.replace(entry, accepted=drawn[entry.label])
                    for entry in self.classes
                    if entry.n_synthetic
                ),
                shards=tuple(entry.path for entry in self.shards),
                class_names=self.class_names,
                real_counts=self.real_counts,
                data_fingerprint=self.data_fingerprint,
                model_sha256=self.model_sha256,
                config_sha256=self.config_sha256,
                run_seed=self.run_seed,
                versions=self.versions,
            ),
        )

    @cached_property
    def generation_of(self) -> Mapping[str, Generation]:
        """By the path of a shard, the generation that it belongs to."""
        return {path: generation for generation in self.history for path in generation.shards}

    @property
    def n_images(self) -> int:
        """Synthetic samples in all shards, without those that are excluded."""
        return sum(entry.n for entry in self.shards) - sum(map(len, self.excluded.values()))

    @property
    def excluded(self) -> Mapping[str, Sequence[int]]:
        """Rows that are no part of the dataset, by the path of their shard."""
        rows: Mapping[str, Sequence[int]] = self.extra.get(EXCLUDED, {})
        return rows

    @property
    def format_version(self) -> int:
        """A reader of version 1 knows neither generations nor samples that are left out."""
        return SECOND_VERSION if self.generations or self.excluded else FORMAT_VERSION

    @property
    def evaluated(self) -> bool:
        """Whether ``gate`` holds a result of ``vaeaug evaluate``."""
        return not isinstance(self.gate, str)

    def to_bytes(self) -> bytes:
        """Serialise the manifest.

        Returns:
            JSON in UTF-8 with sorted keys and an indent of two spaces, sealed with a hash of its
            content.
        """
        content = self._content()
        content[_SEAL] = seal_of(content, _SEAL)
        return (_dump(content, indent=2) + "\n").encode()

    def save(self, folder: str | Path) -> "Manifest":
        """Write ``manifest.json`` atomically.

        Args:
            folder: The run folder.

        Returns:
            The same manifest, with ``folder`` set.

        Raises:
            ShardError: If the content would not be valid when loaded, or the file cannot be
                written.
        """
        folder = Path(folder)
        path = folder / MANIFEST_NAME
        try:
            data = self.to_bytes()
        except (TypeError, ValueError) as error:
            raise ShardError(f"{path}: expected content that is JSON, got: {error}") from error
        checked = parse_manifest(data, path)
        publish_bytes(path, data)
        return dataclasses.replace(checked, folder=folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Read and check a manifest.

        Args:
            folder: The run folder, or the file itself; or the address of a run in an object store
                ("s3://bucket/folder"), which is copied to this machine.

        Returns:
            The manifest, with ``folder`` set.

        Raises:
            ShardError: If there is none, or a field violates the format.
            FormatVersionError: If it has a later major version.
            RemoteError: If an address cannot be read.
        """
        if isinstance(folder, str) and is_url(folder):
            from vaeaug.shards._remote import fetch

            folder = fetch(folder)
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
        return dataclasses.replace(parse_manifest(data, path), folder=path.parent)

    def path_of(self, relative: str) -> Path:
        """Return the location of a file that this manifest names.

        Args:
            relative: Its path in the manifest.

        Returns:
            Its path on disk.

        Raises:
            ShardError: If the manifest has no folder, or the path leads out of it.
        """
        if self.folder is None:
            raise ShardError("manifest: expected one that was loaded or saved, got no folder")
        return inside(self.folder, relative, self.folder / MANIFEST_NAME)

    def _content(self) -> dict[str, Any]:
        # A dataset of one job is of version 1, which earlier readers read.
        left_out = {"folder"} if self.generations else {"folder", "generations"}
        names = (f.name for f in dataclasses.fields(self) if f.name not in left_out)
        content = {name: _plain(getattr(self, name)) for name in names}
        return {**content, "format": MANIFEST_FORMAT, "format_version": self.format_version}


def _some(texts: Iterable[str]) -> str:
    """The first of many texts, and how many more there are."""
    texts = list(texts)
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def manifest_path(folder: str | Path) -> Path:
    """Return the path of a manifest.

    Args:
        folder: The run folder, or the manifest itself.

    Returns:
        ``folder/manifest.json``, or ``folder`` if it has that name.
    """
    folder = Path(folder)
    return folder if folder.name == MANIFEST_NAME else folder / MANIFEST_NAME


def inside(folder: Path, relative: str, where: Path | str) -> Path:
    """Join a folder and a relative path; it is rejected if the path or a link leads out of it.

    Args:
        folder: The folder.
        relative: The relative path, with forward slashes.
        where: Source of the path, named in errors.

    Returns:
        The path.

    Raises:
        ShardError: If the path leads out of the folder or is not in its canonical form.
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


def parse_manifest(data: bytes, path: Path | str) -> Manifest:
    """Parse a manifest and check every field.

    Args:
        data: The file.
        path: Where it is from, for messages.

    Returns:
        The manifest, without a folder.

    Raises:
        ShardError: If a field violates the format.
        FormatVersionError: If it has a later major version.
    """
    content = _read_json(data, path)
    kind, version = content.get("format"), content.get("format_version")
    if kind != MANIFEST_FORMAT:
        raise ShardError(f"{path}: expected format {MANIFEST_FORMAT!r}, got {kind!r}")
    if not is_int(version) or version not in (FORMAT_VERSION, SECOND_VERSION):
        raise FormatVersionError(
            f"{path}: expected format_version {FORMAT_VERSION} or {SECOND_VERSION}, got "
            f"{version!r}; a newer vaeaug may read it"
        )
    if content.get(_SEAL) != seal_of(content, _SEAL):
        raise ShardError(
            f"{path}: the manifest was changed after it was written: expected {_SEAL} "
            f"{seal_of(content, _SEAL)}, got {content.get(_SEAL)!r}"
        )
    manifest = _fields(content, path)
    _check_paths(manifest, path)
    if version != manifest.format_version:
        raise ShardError(
            f"{path}: expected format_version {manifest.format_version} for a manifest "
            f"{'with' if manifest.excluded else 'without'} excluded samples and with "
            f"{len(manifest.history)} generations, got {version}"
        )
    sizes = {entry.path: entry.n for entry in manifest.shards}
    for name, rows in manifest.excluded.items():
        if rows[-1] >= sizes.get(name, 0):
            raise ShardError(
                f"{path}: extra.excluded: {name}: expected rows of a shard of this run, in "
                f"[0, {sizes.get(name, 0)}), got {rows[-1]}"
            )
    return manifest


def _read_json(data: bytes, path: Path | str) -> dict[str, Any]:
    try:
        content = parse_strict(data)
    except JSONTextError as error:
        raise ShardError(f"{path}: expected JSON, got: {error}") from error
    if not isinstance(content, dict):
        raise ShardError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _fields(content: Mapping[str, Any], path: Path | str) -> Manifest:
    """Build the manifest from content whose format and seal were checked."""
    fields = {
        name: value
        for name, value in content.items()
        if name not in ("format", "format_version", _SEAL)
    }
    optional = ("folder", "generations")
    for entry in dataclasses.fields(Manifest):
        # Fields with a default may be omitted in Python, but never in a file.
        if entry.name not in (*optional, *fields):
            raise ShardError(f"{path}: expected the field {entry.name!r}, which is missing")
    if fields.get("generations", [None]) == []:
        raise ShardError(f"{path}: generations: expected at least one where the field is there")
    names = fields["class_names"]
    if not isinstance(names, list):
        raise ShardError(f"{path}: class_names: expected a list of names, got {short(names)}")
    class_names = check_class_names(names, f"{path}: class_names")
    manifest: Manifest = validated(Manifest, fields, str(path), {"class_names": class_names})
    check_layout(manifest.layout, manifest.image_shape, manifest.dtype, str(path))
    if len(manifest.real_counts) != len(class_names):
        raise ShardError(
            f"{path}: real_counts: expected {len(class_names)} integers >= 0, one for each class, "
            f"got {short(fields['real_counts'])}"
        )
    check_gate(manifest.gate, str(path))
    check_extra(manifest.extra, str(path))
    for part, entries in (("classes", manifest.classes), *_classes_of(manifest.generations)):
        labels = [entry.label for entry in entries]
        if len(set(labels)) != len(labels):
            raise ShardError(f"{path}: {part}: expected each class once, got labels {labels}")
    if manifest.generations:
        _check_generations(manifest, path)
    return manifest


def _classes_of(
    generations: tuple[Generation, ...],
) -> Iterator[tuple[str, tuple[ClassEntry, ...]]]:
    for i, generation in enumerate(generations):
        yield f"generations[{i}]: classes", generation.classes


def _check_generations(manifest: Manifest, path: Path | str) -> None:
    """Check that each shard is of one generation, and that the last one is that of the manifest."""
    named = [relative for generation in manifest.generations for relative in generation.shards]
    entries = {entry.path: entry for entry in manifest.shards}
    if sorted(named) != sorted(entries):
        raise ShardError(
            f"{path}: generations: expected each of the {len(entries)} shards in one of them, got "
            f"{short(sorted(set(named) ^ set(entries)) or named)}"
        )
    for i, generation in enumerate(manifest.generations):
        where = f"{path}: generations[{i}]"
        names = check_class_names(list(generation.class_names), f"{where}: class_names")
        if len(generation.real_counts) != len(names):
            raise ShardError(
                f"{where}: real_counts: expected {len(names)} integers >= 0, one for each class, "
                f"got {short(generation.real_counts)}"
            )
        there = {entries[relative].class_name for relative in generation.shards}
        if unknown := sorted(there - {*names}):
            raise ShardError(
                f"{where}: class_names: expected those of its shards, got none of {unknown}"
            )
        if lost := sorted({*names} - {*manifest.class_names}):
            raise ShardError(f"{where}: class_names: expected names of the manifest, got {lost}")
        in_shards = Counter[int]()
        for relative in generation.shards:
            in_shards[entries[relative].label] += entries[relative].n
        accepted = {entry.label: entry.accepted for entry in generation.classes if entry.accepted}
        if accepted != dict(in_shards):
            raise ShardError(
                f"{where}: classes: expected as many accepted samples as are in its shards, by "
                f"label {dict(sorted(in_shards.items()))}, got {accepted}"
            )
    last = manifest.generations[-1]
    for name in (*PROVENANCE, "class_names", "real_counts"):
        if getattr(last, name) != getattr(manifest, name):
            raise ShardError(
                f"{path}: {name}: expected that of the last generation, "
                f"{short(getattr(last, name))}, got {short(getattr(manifest, name))}"
            )


def read_class(
    content: Any, shards: Any, class_names: tuple[str, ...], where: str
) -> tuple[ClassEntry, list[ShardEntry]]:
    """Validate the entry of a class and those of its shards like those of a manifest.

    Args:
        content: The class, JSON types.
        shards: A list of its shards, JSON types.
        class_names: Class names of the run.
        where: Source of the content, named in errors.

    Returns:
        (class, shards).

    Raises:
        ShardError: If a field is wrong, or class and shards do not match.
    """
    context = {"class_names": class_names}
    entry: ClassEntry = validated(ClassEntry, content, where, context)
    entries: list[ShardEntry] = validated(list[ShardEntry], shards, where, context)
    for shard in entries:
        if PurePosixPath(shard.path).parent != PurePosixPath(SHARDS_FOLDER):
            raise ShardError(
                f"{where}: expected shards directly in {SHARDS_FOLDER}/, got {shard.path!r}"
            )
    labels = {shard.label for shard in entries}
    if labels - {entry.label} or entry.accepted != sum(shard.n for shard in entries):
        raise ShardError(
            f"{where}: expected {entry.accepted} samples of class {entry.name!r} in its shards, "
            f"got {[(shard.label, shard.n) for shard in entries]}"
        )
    return entry, entries


def _check_paths(manifest: Manifest, path: Path | str) -> None:
    """Check that every path stays in the run folder and that no file is named twice."""
    shards = [entry.path for entry in manifest.shards]
    for relative in shards:
        if PurePosixPath(relative).parent != PurePosixPath(SHARDS_FOLDER):
            raise ShardError(
                f"{path}: expected shards directly in {SHARDS_FOLDER}/, got {relative!r}"
            )
    names: dict[Path, str] = {}
    for relative in [*shards, *manifest.files]:
        resolved = inside(Path(path).parent, relative, path).resolve()
        if resolved in names:
            raise ShardError(
                f"{path}: expected each file once, got {relative!r} and {names[resolved]!r} for "
                f"the same file"
            )
        names[resolved] = relative
