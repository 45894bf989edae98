"""The sources of transforms: a generator or a run folder, opened separately in each process."""

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
from vaeaug.shards import Manifest, ShardDataset, ShardError, sha256_file, warn_if_unhelpful
from vaeaug.shards._format import MANIFEST_NAME

_ADVICE = (
    "apply it to whole batches in the training process, after the loader, or move the generator "
    "to the CPU: generator.to('cpu')"
)

# Tolerated rounding error of scaling to a range and back, as a fraction of the range.
RANGE_SLACK = 1e-3


class TransformError(ValueError):
    """A transform does not support an input, or its generator or run is not the expected one."""


class GeneratorSource:
    """A generator, or a folder from which every process loads one when it first needs it.

    Args:
        synthesizer: A `Synthesizer`, a folder that its ``save`` wrote, or a run folder.
        sha256: Expected hash of the folder (see `hash_of_generator`); None: its current hash.

    Raises:
        TransformError: If the folder holds no generator and no hash is given.
    """

    def __init__(self, synthesizer: Synthesizer | str | Path, sha256: str | None = None) -> None:
        self.path = None if isinstance(synthesizer, Synthesizer) else Path(synthesizer)
        self.sha256 = sha256
        if self.path is not None and sha256 is None:
            self.sha256 = hash_of_generator(self.path)
        self._loaded = synthesizer if isinstance(synthesizer, Synthesizer) else None

    def on(self, device: torch.device) -> Synthesizer:
        """Return the generator on a device.

        Args:
            device: The device.

        Returns:
            The generator.

        Raises:
            TransformError: If its hash is not the expected one, or an accelerator would be used in
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
            _reject_accelerator(self._loaded.device, "handed to a worker process")
        return self.__dict__


def refuse_in_worker(device: torch.device) -> None:
    """Reject an accelerator in a worker process of a ``DataLoader``.

    A forked process cannot use CUDA, and with other start methods every worker would hold its own
    context and model on the device.

    Args:
        device: The device.

    Raises:
        TransformError: If the device is an accelerator and this is a worker; the message has
            advice.
    """
    info = get_worker_info()
    if info is not None:
        _reject_accelerator(device, f"used in worker process {info.id}")


def _reject_accelerator(device: torch.device, use: str) -> None:
    if device.type != "cpu":
        raise TransformError(f"a generator on {device} cannot be {use} of a DataLoader; {_ADVICE}")


def hash_of_generator(folder: Path) -> str:
    """Hash the files of a generator.

    Args:
        folder: Folder of the generator, or a run folder.

    Returns:
        SHA-256 in lower-case hexadecimal digits.

    Raises:
        TransformError: If a file is missing.
    """
    model_folder = folder / "model" if (folder / "model" / FILES[0]).exists() else folder
    missing = [name for name in FILES if not (model_folder / name).exists()]
    if missing:
        raise TransformError(
            f"{folder}: expected a generator or a run folder, but {', '.join(missing)} is missing"
        )
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(f"{name} {sha256_file(model_folder / name)}\n".encode())
    return digest.hexdigest()


def open_pool(path: Path, sha256: str | None) -> ShardDataset:
    """Open the synthetic samples of a finished run.

    Args:
        path: The run folder.
        sha256: Expected hash of the run (see `hash_of_run`); None: any.

    Returns:
        The samples.

    Raises:
        TransformError: If the hash of the run is not the expected one.
        ShardError: If the run is not finished or damaged.
    """
    manifest = Manifest.load(path)
    digest = hash_of_run(manifest)
    if sha256 not in (None, digest):
        raise TransformError(f"{path}: expected the run of hash {sha256}, got {digest}")
    return ShardDataset(manifest)


def warn_if_run_is_unhelpful(folder: Path | None, *, stacklevel: int) -> None:
    """Warn if the evaluation of a run found that it does not help; see `warn_if_unhelpful`.

    Transforms call this when they are created, not in every worker. The folder of a deserialised
    transform may not exist yet.

    Args:
        folder: The folder; nothing happens if it is no run folder or None.
        stacklevel: Stack level of the warning; 1 is the line of the caller.
    """
    if folder is not None and (folder / MANIFEST_NAME).exists():
        warn_if_unhelpful(Manifest.load(folder), stacklevel=stacklevel + 1)


def hash_of_run(manifest: Manifest) -> str:
    """Hash the class names, shard hashes and excluded rows of a run; evaluating changes none.

    Args:
        manifest: Manifest of the run.

    Returns:
        SHA-256 in lower-case hexadecimal digits.

    Raises:
        ShardError: If the run has no shards.
    """
    if not manifest.shards:
        raise ShardError(f"{manifest.folder}: expected shards to draw from, got none")
    digest = hashlib.sha256()
    for name in manifest.class_names:
        digest.update(f"{name}\n".encode())
    for shard in manifest.shards:
        digest.update(f"{shard.label} {shard.sha256}\n".encode())
    for path, rows in manifest.excluded.items():
        digest.update(f"without {path} {list(rows)}\n".encode())
    return digest.hexdigest()


def class_indices(
    class_names: Sequence[str] | None, known: Sequence[str], where: str
) -> Int64[np.ndarray, " k"]:
    """Map the user's labels to class indices of the generator or run.

    Args:
        class_names: Names of the user's classes in the order of their labels; None: those of the
            generator or run.
        known: Names of the generator or run.
        where: Name of the transform, for errors.

    Returns:
        For each label, the index of the class in `known`.

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
