"""OUT, the run folder: its lock, its contents, and whether a run in it may be resumed.

A run is resumed only with the configuration and the data it was started with; anything else is
refused, naming what changed, before a byte is written.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from vaeaug.config import AugmentConfig, ConfigError, changed_keys, make_config
from vaeaug.data import LabelledImages
from vaeaug.files import HELD, Claim, InUseError, fsync_folder, leftovers, read_whole
from vaeaug.files.json_text import JSONTextError, parse_strict, unsealed
from vaeaug.ranks import current
from vaeaug.shards import NEXT_FOLDER, Manifest, publish_bytes
from vaeaug.threads import torch_threads

log = logging.getLogger("vaeaug")

LOCK = ".lock"
RUN_FORMAT = "vaeaug-run"
FORMAT_VERSION = 1
# All that a run writes into OUT. `--no-resume` deletes these and nothing else; the manifest goes
# first, so that half a deletion is no dataset.
CONTENTS = (
    "manifest.json",
    "report.html",
    "report.json",
    "README.md",
    "evaluation",
    "excluded.json",
    "samples.png",
    "samples.gif",
    "traversals.png",
    "traversals.gif",
    "latents.png",
    "styles.png",
    "diagnostics.json",
    "metrics.jsonl",
    "checkpoints",
    "shards",
    "model",
    "run.json",
    NEXT_FOLDER,
)
# Those of them that are folders. A link in the place of one leads to files that are not of the run.
_FOLDERS = ("evaluation", "checkpoints", "shards", "model", NEXT_FOLDER)
# Keys that change neither the generator nor what is accepted: with other values of these the
# dataset can grow.
GROWING = (
    *("seed", "data.class_counts", "data.seed", "data.class_names", "data.on_error"),
    *("plan.", "shards.", "recipe.share", "screening.max_candidates_ratio"),
)
_LIBRARIES = ("h5py", "imbalanced-learn", "numpy", "scikit-learn", "torch")


# Space kept for the model, its optimiser and the checkpoints, bytes.
SPACE_FOR_MODEL = 64 * 2**20


class RunError(RuntimeError):
    """The run folder cannot be used."""


class RunFolder:
    """OUT, claimed for one process; a context manager.

    Inside, torch computes with as many threads as when the run began: the bytes of a run that is
    resumed with more or fewer are those of a run that was never interrupted.

    Args:
        path: The folder; made if it is not there.
        config: The job; None takes the run that is there, whatever its configuration.
        data: What identifies the data: at least "fingerprint"; "generator" where it came ready.
        needed: Bytes of the whole run. Shards that are there already need none, nor does a
            finished run.
        resume: Go on with a run that is there. False: delete it and start again.

    Raises:
        ConfigError: If a run of another configuration, data or generator is there.
        RunError: If the folder cannot be written, holds something else, is in use, or the disk
            cannot hold the run.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        config: AugmentConfig | None,
        data: Mapping[str, Any],
        needed: int = 0,
        resume: bool = True,
    ) -> None:
        self.path = Path(path)
        self._inside = ExitStack()
        self._make()
        self._lock = self._claim()
        try:
            self._check_contents()
            if not resume:
                self._delete()
            self._check_links()
            self.take_next()
            self._clean()
            if config is not None:
                self._check_same(config, data)
                # Before the run is described: it can then be asked for with a smaller plan.
                self._check_space(needed)
                self._write_run(config, data)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "RunFolder":
        try:
            run = read_run(self.path)
            self._inside.enter_context(torch_threads(threads_of(run)))
            if not self.is_complete:
                _warn_of_other_versions(self.path, run["versions"])
                _warn_of_other_processes(self.path, processes_of(run))
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inside.close()
        self._lock.release()

    def take_next(self) -> None:
        """Take the next generation in the place of this one, where it is published.

        Shards first and the manifest last: until then the former dataset is whole. What is
        interrupted here goes on when the folder is next opened.
        """
        new = self.path / NEXT_FOLDER
        if not (new / "manifest.json").exists():
            return
        files = Manifest.load(new).files
        # What was measured of the former dataset, or left of its making, is not of this one.
        if (new / "evaluation").is_dir():
            shutil.rmtree(self.path / "evaluation", ignore_errors=True)
            (new / "evaluation").rename(self.path / "evaluation")
        for folder in (self.path, new):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        for name in ("samples.gif", "traversals.gif", "styles.png", "diagnostics.json"):
            if name not in files:
                (self.path / name).unlink(missing_ok=True)
        moved = [path for path in sorted(new.rglob("*")) if path.is_file() and path.name != ".lock"]
        moved.sort(key=lambda path: (path.parent.name != "shards", path.name == "manifest.json"))
        for path in moved:
            target = self.path / path.relative_to(new)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
            if path.name == "manifest.json":
                break
            fsync_folder(target.parent)
        fsync_folder(self.path)
        shutil.rmtree(new)

    @property
    def model(self) -> Path:
        """Folder of the generator."""
        return self.path / "model"

    @property
    def diagnostics(self) -> Path:
        """What is known of the generator."""
        return self.path / "diagnostics.json"

    @property
    def measures(self) -> Path:
        """What evaluations measured besides the gate, for the report."""
        return self.path / "evaluation" / "measures.json"

    @property
    def prediction(self) -> Path:
        """What a quick evaluation expects of the gate, for the report."""
        return self.path / "evaluation" / "prediction.json"

    def has_diagnostics(self) -> bool:
        """Whether whole diagnostics are there; damaged ones are deleted, to be made again.

        Returns:
            True if they need not be made.
        """
        try:
            unsealed(read_whole(self.diagnostics))
        except FileNotFoundError:
            return False
        except (OSError, JSONTextError) as error:
            log.warning("%s: cannot be read (%s); made again", self.diagnostics, error)
            self.diagnostics.unlink()
            return False
        return True

    @property
    def is_complete(self) -> bool:
        """Whether the manifest is there."""
        return (self.path / "manifest.json").exists()

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise RunError(f"{self.path}: expected a folder for the run, got a file") from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot make the folder: {error.strerror}") from error

    def _claim(self) -> Claim:
        try:
            return Claim(self.path / LOCK)
        except InUseError as error:
            who = "" if HELD not in str(error.strerror) else f" ({error.strerror})"
            raise RunError(
                f"{self.path}: the folder is locked by another vaeaug process{who}; wait for it or "
                "stop it"
            ) from None
        except OSError as error:
            raise RunError(
                f"{self.path}: expected a folder that can be written, got: {error.strerror}"
            ) from error

    def _check_contents(self) -> None:
        # What a process that was killed may leave before the run is described.
        left = {LOCK, f"{LOCK}{HELD}", *(path.name for path, _ in leftovers(self.path, "run.json"))}
        names = sorted(path.name for path in self.path.iterdir() if path.name not in left)
        if names and "run.json" not in names:
            raise RunError(
                f"{self.path}: expected an empty folder or a run of vaeaug, got "
                f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}; nothing was changed"
            )

    def _check_links(self) -> None:
        """Refuse a link to a folder before anything is deleted or written behind it."""
        for name in _FOLDERS:
            path = self.path / name
            if path.is_symlink():
                raise RunError(
                    f"{path}: expected a folder of this run, got a link to {path.readlink()}, "
                    f"where files would be deleted and overwritten; nothing was changed. For "
                    f"another disk, give a folder on it as --out"
                )

    def _clean(self) -> None:
        """Delete what killed writers left."""
        for name in CONTENTS:
            for path, _ in leftovers(self.path, name):
                path.unlink()
        for name in _FOLDERS:
            for folder, _, _ in os.walk(self.path / name):
                for path, _ in leftovers(Path(folder)):
                    path.unlink()

    def _delete(self) -> None:
        for name in CONTENTS:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _check_same(self, config: AugmentConfig, data: Mapping[str, Any]) -> None:
        if not (self.path / "run.json").exists():
            return
        before = read_run(self.path)
        changes = changed_keys(in_present_words(before["config"]), config.to_json())
        if before["data"].get("fingerprint") != data["fingerprint"]:
            changes.append(
                f"data: {before['data'].get('source')!r} of fingerprint "
                f"{str(before['data'].get('fingerprint'))[:12]} -> {data.get('source')!r} of "
                f"{str(data['fingerprint'])[:12]}"
            )
        for name, default in (("generator", "trained here"), ("search", False)):
            old, new = before["data"].get(name, default), data.get(name, default)
            if old != new:
                changes.append(f"{name}: {old} -> {new}")
        if changes:
            raise ConfigError(
                f"{self.path}: a run of another configuration is here; changed: "
                f"{'; '.join(changes)}. Give the old values, another --out{self._or_add(changes)}, "
                "or --no-resume to delete that run and start again"
            )

    def _or_add(self, changes: list[str]) -> str:
        """A way out where the finished dataset could grow."""
        can_grow = all(change.startswith((*GROWING, "data: ")) for change in changes)
        return ", --add to make only what is new" if self.is_complete and can_grow else ""

    def _check_space(self, needed: int) -> None:
        if self.is_complete:
            return
        needed -= sum(shard.stat().st_size for shard in (self.path / "shards").glob("shard-*"))
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise RunError(
                f"{self.path}: no space: expected at least {needed / 2**20:,.0f} MiB free for the "
                f"shards, the model and its checkpoints, got {free / 2**20:,.0f} MiB; free some or "
                "make fewer (plan.max_synthetic_ratio). What is done so far is kept"
            )

    def _write_run(self, config: AugmentConfig, data: Mapping[str, Any]) -> None:
        path = self.path / "run.json"
        if path.exists():
            return
        content = {
            "format": RUN_FORMAT,
            "format_version": FORMAT_VERSION,
            "config": config.to_json(),
            "data": dict(data),
            "versions": run_versions(),
            "threads": torch.get_num_threads(),
            "processes": current().size,
        }
        publish_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def describe_data(data: LabelledImages) -> dict[str, Any]:
    """What ``run.json`` says of the data.

    Args:
        data: The training split.

    Returns:
        Plain JSON types.
    """
    return {
        "fingerprint": data.fingerprint,
        "source": data.source,
        "split": data.split,
        "class_names": list(data.class_names),
        "counts": [int(count) for count in data.counts],
        "image_shape": list(data.image_shape),
        "dtype": str(data.images.dtype),
        "notes": list(data.notes),
        "unlabelled": 0 if data.unlabelled is None else len(data.unlabelled),
    }


def read_run(out_dir: str | Path) -> dict[str, Any]:
    """Read ``run.json`` of a run folder: its configuration, data and versions.

    Args:
        out_dir: The run folder.

    Returns:
        Plain JSON types.

    Raises:
        RunError: If there is none or it is not one.
    """
    path = Path(out_dir) / "run.json"
    try:
        content = parse_strict(read_whole(path))
    except FileNotFoundError:
        raise RunError(f"{out_dir}: expected a run of vaeaug, but run.json is missing") from None
    except (OSError, JSONTextError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != RUN_FORMAT:
        raise RunError(f"{path}: expected the description of a run of vaeaug, got something else")
    if content.get("format_version") != FORMAT_VERSION:
        raise RunError(
            f"{path}: expected format version {FORMAT_VERSION}, got "
            f"{content.get('format_version')!r}; a newer vaeaug wrote it"
        )
    for name in ("config", "data", "versions"):
        if not isinstance(content.get(name), dict):
            raise RunError(f"{path}: {name}: expected an object, got {str(content.get(name))[:80]}")
    fingerprint = content["data"].get("fingerprint")
    if not isinstance(fingerprint, str):
        raise RunError(f"{path}: data.fingerprint: expected a text, got {str(fingerprint)[:80]}")
    return content


def threads_of(run: Mapping[str, Any]) -> int:
    """How many threads a run computes with.

    Args:
        run: What `read_run` gave.

    Returns:
        The number that it began with; runs of versions that kept none: torch's own.
    """
    threads = run.get("threads")
    return threads if isinstance(threads, int) and threads > 0 else torch.get_num_threads()


def processes_of(run: Mapping[str, Any]) -> int:
    """Over how many processes the training of a run is divided.

    Args:
        run: What `read_run` gave.

    Returns:
        The number that it began with; 1 of versions that knew only one.
    """
    processes = run.get("processes")
    return processes if isinstance(processes, int) and processes > 0 else 1


def _warn_of_other_processes(path: Path, began: int) -> None:
    if began != current().size:
        log.warning(
            "%s: the run began with %d %s and goes on with %d: sums over a batch are rounded "
            "otherwise, so that what is trained from here on may differ in its last digits",
            path,
            began,
            "process" if began == 1 else "processes",
            current().size,
        )


def _warn_of_other_versions(path: Path, began: Mapping[str, Any]) -> None:
    changes = [
        f"{name} {began[name]} -> {now}"
        for name, now in run_versions().items()
        if name in began and began[name] != now
    ]
    if changes:
        log.warning(
            "%s: the run began with other versions: %s. What is made from here on may differ from "
            "what a run without interruption would hold; for that, take the old versions or "
            "--no-resume",
            path,
            "; ".join(changes),
        )


def in_present_words(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration on disk with the keys that this version has; as it is where it is none.

    Args:
        config: Plain JSON types, as ``run.json`` has them.

    Returns:
        Plain JSON types.
    """
    try:
        return make_config(config, warn=False).to_json()
    except ConfigError:
        return config


def run_versions() -> dict[str, str]:
    """Versions of what decides the bytes of a run.

    Returns:
        Versions by library.
    """
    return {name: version(name) for name in ("vaeaug", *_LIBRARIES)}
