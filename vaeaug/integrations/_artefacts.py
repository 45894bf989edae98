"""What a transform draws from: a generator or a run folder, opened in each process for itself."""

import hashlib
import multiprocessing.context
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import get_worker_info

from vaeaug.generator import FILES, Synthesizer
from vaeaug.shards import Manifest, ShardDataset, ShardError, say_verdict, sha256_file
from vaeaug.shards._format import MANIFEST_NAME

_ADVICE = (
    "apply it to whole batches in the training process, after the loader, or move the generator "
    "to the CPU: generator.to('cpu')"
)


# What scaling to a range and back may leave, as a part of the range.
RANGE_SLACK = 1e-3


class TransformError(ValueError):
    """An input that a transform cannot change, or an artefact that is not what it should be."""


class GeneratorSource:
    """A generator at hand, or one in a folder that every process loads when it first needs it.

    Args:
        synthesizer: A `Synthesizer`, a folder that its ``save`` wrote, or a run folder.
        sha256: Hash that the folder must have (see `hash_of_generator`); None is not checked.

    Raises:
        TransformError: If there is no such folder and no hash of what it should hold.
    """

    def __init__(self, synthesizer: Synthesizer | str | Path, sha256: str | None = None) -> None:
        self.path = None if isinstance(synthesizer, Synthesizer) else Path(synthesizer)
        self.sha256 = sha256
        if self.path is not None and sha256 is None:
            self.sha256 = hash_of_generator(self.path)
        self._loaded = synthesizer if isinstance(synthesizer, Synthesizer) else None

    def on(self, device: torch.device) -> Synthesizer:
        """The generator on a device.

        Raises:
            TransformError: If it is another than the hash says, or an accelerator would be used in
                a worker process of a ``DataLoader``.
        """
        refuse_in_worker(device)
        if self._loaded is None:
            assert self.path is not None
            digest = hash_of_generator(self.path)
            if digest != self.sha256:
                raise TransformError(
                    f"{self.path}: expected the generator of hash {self.sha256}, got {digest}"
                )
            self._loaded = Synthesizer.load(self.path)
        refuse_in_worker(self._loaded.device)
        if self._loaded.device != device:
            self._loaded.to(device)
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        if self.path is not None:
            return {**self.__dict__, "_loaded": None}
        assert self._loaded is not None
        if multiprocessing.context.get_spawning_popen() is not None:
            _refuse(self._loaded.device, "handed to a worker process")
        return self.__dict__


def refuse_in_worker(device: torch.device) -> None:
    """Refuse an accelerator in a worker process of a ``DataLoader``.

    A forked process cannot use CUDA, and in others every worker would hold its own context and
    model on the device.

    Raises:
        TransformError: With advice.
    """
    info = get_worker_info()
    if info is not None:
        _refuse(device, f"used in worker process {info.id}")


def _refuse(device: torch.device, what: str) -> None:
    if device.type != "cpu":
        raise TransformError(f"a generator on {device} cannot be {what} of a DataLoader; {_ADVICE}")


def hash_of_generator(folder: Path) -> str:
    """SHA-256 over the files of a generator.

    Raises:
        TransformError: If one is missing.
    """
    at = folder / "model" if (folder / "model" / FILES[0]).exists() else folder
    missing = [name for name in FILES if not (at / name).exists()]
    if missing:
        raise TransformError(
            f"{folder}: expected a generator or a run folder, but {', '.join(missing)} is missing"
        )
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(f"{name} {sha256_file(at / name)}\n".encode())
    return digest.hexdigest()


def open_pool(path: Path, sha256: str | None) -> ShardDataset:
    """The synthetic samples of a finished run.

    Raises:
        TransformError: If it is another run than the hash says.
        ShardError: If it is not finished or damaged.
    """
    manifest = Manifest.load(path)
    digest = hash_of_run(manifest)
    if sha256 not in (None, digest):
        raise TransformError(f"{path}: expected the run of hash {sha256}, got {digest}")
    return ShardDataset(manifest)


def say_verdict_of(folder: Path | None, *, stacklevel: int) -> None:
    """What the evaluation of a run found, where the folder is one; see `say_verdict`.

    Said when a transform is made, and not again in every worker. A transform that was read from a
    file may be of a folder that is not there yet.
    """
    if folder is not None and (folder / MANIFEST_NAME).exists():
        say_verdict(Manifest.load(folder), stacklevel=stacklevel + 1)


def hash_of_run(manifest: Manifest) -> str:
    """SHA-256 over the hashes of a finished run's shards; an evaluation does not change it.

    Raises:
        ShardError: If it has no shards.
    """
    if not manifest.shards:
        raise ShardError(f"{manifest.folder}: expected shards to draw from, got none")
    digest = hashlib.sha256()
    for name in manifest.class_names:
        digest.update(f"{name}\n".encode())
    for shard in manifest.shards:
        digest.update(f"{shard.label} {shard.sha256}\n".encode())
    return digest.hexdigest()


def class_indices(
    class_names: Sequence[str] | None, known: Sequence[str], where: str
) -> Int64[np.ndarray, " k"]:
    """For each label of the user's, the index of that class in the artefact.

    Args:
        class_names: Names of the user's classes in the order of their labels; None: the artefact's.
        known: Names in the artefact.
        where: Named in the error.

    Raises:
        TransformError: If a name is unknown or occurs twice.
    """
    if class_names is None:
        return np.arange(len(known))
    names = list(class_names)
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        raise TransformError(
            f"{where}: class_names: expected each once, of {tuple(known)}, got {tuple(names)}"
        )
    return np.array([list(known).index(name) for name in names], dtype=np.int64)
