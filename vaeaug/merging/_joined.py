"""`JoinedShards`: the samples of several runs on the same data as one dataset."""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from vaeaug.merging._slots import MergeError
from vaeaug.shards import Manifest, ShardDataset

_log = logging.getLogger("vaeaug")


class JoinedShards:
    """The samples of several runs, in the order of the runs; a sample that two have occurs once.

    It is read like a `ShardDataset`. Labels are those of the first run, whose plan and recipe hold.

    Args:
        parts: The runs, at least one.
        on_mismatch: "ignore" accepts runs that were made from different data.

    Attributes:
        manifest: Manifest of the first run.
        manifests: Manifests of all runs.
        n_repeated: Samples that were left out because an earlier run has them.
        labels: Class index of every sample, (n,) int64.
        source_index: Row of the real image from which each sample was made, -1 for none, (n,).
        weight: Loss weight of every sample, (n,) float32.
        soft_labels: Class probabilities, (n, k) float32; None if no run has them.

    Raises:
        MergeError: If the runs differ in class names, shape, type, value range or training data.
    """

    def __init__(self, parts: Sequence[ShardDataset], *, on_mismatch: str = "error") -> None:
        if not parts:
            raise MergeError("merge: expected at least one run folder, got none")
        first = parts[0]
        self._parts = tuple(parts)
        self.manifest, self.manifests = first.manifest, tuple(part.manifest for part in parts)
        self.class_names, self.value_range = first.class_names, first.value_range
        self.fingerprint = first.fingerprint
        self.image_shape, self.dtype = first.image_shape, first.dtype
        for part in parts[1:]:
            _check_alike(first, part, on_mismatch)
        kept = _first_of_each(parts)
        self.n_repeated = sum(len(part) - len(rows) for part, rows in zip(parts, kept, strict=True))
        if self.n_repeated:
            _log.info("%d samples are in several of the runs; each is used once", self.n_repeated)
        self._part = np.repeat(np.arange(len(parts)), [len(rows) for rows in kept])
        self._row = np.concatenate(kept)
        names = self.class_names
        orders = [np.array([names.index(name) for name in part.class_names]) for part in parts]
        self.labels: Int64[np.ndarray, " n"] = np.concatenate(
            [
                order[part.labels[rows]]
                for order, part, rows in zip(orders, parts, kept, strict=True)
            ]
        ).astype(np.int64)
        self.source_index = self._column("source_index", kept)
        self.weight = self._column("weight", kept)
        self.soft_labels: Float32[np.ndarray, "n k"] | None = None
        if any(part.soft_labels is not None for part in parts):
            self.soft_labels = np.zeros((len(self), len(names)), np.float32)
            starts = np.cumsum([0, *map(len, kept)])
            for i, (order, part, rows) in enumerate(zip(orders, parts, kept, strict=True)):
                self.soft_labels[starts[i] : starts[i + 1], order] = part.soft_labels_at(rows)

    def __len__(self) -> int:
        return len(self._row)

    def images_at(self, indices: Sequence[int] | np.ndarray) -> Shaped[np.ndarray, "n *space c"]:
        """Copy some images.

        Args:
            indices: Indices of the images, in [0, len).

        Returns:
            The images, in this order.

        Raises:
            IndexError: If an index is out of range.
        """
        index = np.asarray(indices, dtype=np.int64)
        out = np.empty((len(index), *self.image_shape), dtype=self.dtype)
        part_of = self._part[index]
        for number in np.unique(part_of).tolist():
            places = np.flatnonzero(part_of == number)
            out[places] = self._parts[number].images_at(self._row[index[places]])
        return out

    def soft_labels_at(self, indices: Sequence[int] | np.ndarray) -> Float32[np.ndarray, "n k"]:
        """Return the class probabilities of some samples.

        Args:
            indices: Indices of the samples, in [0, len).

        Returns:
            A row for each sample; one-hot where its run has no soft labels.
        """
        index = np.asarray(indices, dtype=np.int64)
        if self.soft_labels is not None:
            return self.soft_labels[index]
        rows = np.zeros((len(index), len(self.class_names)), dtype=np.float32)
        rows[np.arange(len(index)), self.labels[index]] = 1
        return rows

    def close(self) -> None:
        """Close all files; the next read opens them again."""
        for part in self._parts:
            part.close()

    def _column(self, name: str, kept: Sequence[Int64[np.ndarray, " _"]]) -> np.ndarray:
        pairs = zip(self._parts, kept, strict=True)
        return np.concatenate([getattr(part, name)[rows] for part, rows in pairs])


Synthetic = ShardDataset | JoinedShards
Run = str | Path | Manifest | ShardDataset
Runs = Run | JoinedShards | Sequence[Run]


def synthetic_of(runs: Runs, on_mismatch: str) -> Synthetic:
    """Open the samples of a run, or of several as one dataset.

    Args:
        runs: A run folder, its manifest or its open samples; or a sequence of such.
        on_mismatch: As for `JoinedShards`.

    Returns:
        The samples.

    Raises:
        MergeError: If runs do not belong together.
        ShardError: If a run folder has no manifest or a shard is damaged.
    """
    if isinstance(runs, ShardDataset | JoinedShards):
        return runs
    if isinstance(runs, str | Path | Manifest):
        return ShardDataset(runs)
    parts = [run if isinstance(run, ShardDataset) else ShardDataset(run) for run in runs]
    return parts[0] if len(parts) == 1 else JoinedShards(parts, on_mismatch=on_mismatch)


def manifests_of(synthetic: Synthetic) -> tuple[Manifest, ...]:
    """Return the manifests of all runs of the samples.

    Args:
        synthetic: The samples.

    Returns:
        The manifests, in the order of the runs.
    """
    return synthetic.manifests if isinstance(synthetic, JoinedShards) else (synthetic.manifest,)


def _check_alike(first: ShardDataset, part: ShardDataset, on_mismatch: str) -> None:
    """Reject a run whose samples cannot lie beside those of the first one."""
    where = f"{part.manifest.folder}: expected as in {first.manifest.folder}"
    pairs = {
        "class names": (sorted(first.class_names), sorted(part.class_names)),
        "image shape": (first.image_shape, part.image_shape),
        "type": (first.dtype.name, part.dtype.name),
        "value range": (first.value_range, part.value_range),
    }
    for name, (expected, got) in pairs.items():
        if expected != got:
            raise MergeError(f"{where} {name} {expected}, got {got}")
    if on_mismatch == "error" and part.fingerprint != first.fingerprint:
        raise MergeError(
            f"{where} samples of the training split {first.fingerprint[:12]}, got those of "
            f"{part.fingerprint[:12]}; on_mismatch='ignore' merges them anyway"
        )
    for name in ("recipe", "plan"):
        if first.manifest.extra.get(name) != part.manifest.extra.get(name):
            _log.warning(
                "%s: another %s than that of %s, which is followed",
                part.manifest.folder,
                name,
                first.manifest.folder,
            )


def _first_of_each(parts: Sequence[ShardDataset]) -> list[Int64[np.ndarray, " _"]]:
    """Rows of each part without the samples that an earlier part has.

    A sample is known by its generator, the seeds, the class, its source and its latents.
    """
    origins = Counter(origin for part in parts for origin in set(_origins(part)))
    seen: dict[tuple[str, int], set[bytes]] = defaultdict(set)
    kept = []
    for part in parts:
        keep, stop = np.ones(len(part), bool), 0
        for origin, n in zip(_origins(part), part.shard_lengths, strict=True):
            rows = np.arange(stop, stop + n)
            stop += n
            if origins[origin] > 1:
                keys = _keys(part, rows)
                keep[rows] = [key not in seen[origin] for key in keys]
                seen[origin].update(keys)
        kept.append(np.flatnonzero(keep))
    return kept


def _origins(part: ShardDataset) -> list[tuple[str, int]]:
    """Generator and seed of the samples of every shard."""
    generations = [part.manifest.generation_of[entry.path] for entry in part.entries]
    return [(generation.model_sha256, generation.run_seed) for generation in generations]


def _keys(part: ShardDataset, rows: Int64[np.ndarray, " _"]) -> list[bytes]:
    """What tells the samples of one generator and seed apart."""
    names = [part.class_names[label].encode() for label in part.labels[rows]]
    numbers = np.stack([part.seed[rows].astype(np.int64), part.source_index[rows]], axis=1)
    columns = zip(names, numbers, part.latents[rows], strict=True)
    return [name + b"\0" + number.tobytes() + z.tobytes() for name, number, z in columns]
