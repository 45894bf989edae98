"""Everything that the page shows of a run: its samples, the rejected ones, the real images."""

import json
import shlex
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from vaeaug.data import LabelledImages
from vaeaug.job.writing import rejected_path
from vaeaug.screening import REASONS
from vaeaug.shards import (
    LIST_NAME,
    Manifest,
    RejectedSamples,
    ShardDataset,
    ShardError,
    read_list,
    read_rejected,
    save_list,
    sha256_file,
    with_excluded,
)

# What a sample is shown beside.
KINDS = ("sample", "source", "nearest")
# Latents that the two directions of the map are fitted on, at most.
_FITTED = 20_000


class StudioError(ValueError):
    """A run cannot be shown, or the page asked for something that is not there."""


class Collection:
    """The samples of a finished run by number, excluded ones too, then the rejected ones.

    Args:
        out_dir: The run folder.
        data: The training split that the run was made from; None: no real images are shown.

    Attributes:
        manifest: Of the run.
        samples: All samples in the shards.
        rejected: Rejected samples by class, those that the run kept.
        data: The training split.
        list_path: Where the list of thrown-out samples is saved.

    Raises:
        ShardError: If the run is not finished, a file is damaged, or the list is of another run.
    """

    def __init__(self, out_dir: str | Path, data: LabelledImages | None = None) -> None:
        self.folder, self.data = Path(out_dir), data
        self.manifest = Manifest.load(self.folder)
        self.samples = ShardDataset(with_excluded(self.manifest, {}))
        self.list_path = self.folder / LIST_NAME
        self.rejected: list[RejectedSamples] = []
        for label in range(len(self.manifest.class_names)):
            path = rejected_path(self.folder, label)
            if not path.exists():
                continue
            part = read_rejected(path)
            found = (part.label, str(part.images.dtype), part.images.shape[1:])
            if found != (label, self.manifest.dtype, self.manifest.image_shape):
                raise ShardError(
                    f"{path}: expected samples of class {label}, {self.manifest.dtype} "
                    f"{self.manifest.image_shape}, got class {found[0]}, {found[1]} {found[2]}"
                )
            self.rejected.append(part)
        self._sizes = [entry.n for entry in self.manifest.shards]
        self._starts = np.cumsum([0, *self._sizes])
        self._rejected_starts = np.cumsum([0, *map(len, self.rejected)])
        # h5py's files are not for several threads at once.
        self._lock = threading.Lock()
        self.thrown_out()

    @property
    def n(self) -> int:
        """Samples in the shards, excluded ones among them."""
        return len(self.samples)

    @property
    def n_rejected(self) -> int:
        """Rejected samples that the run kept."""
        return int(self._rejected_starts[-1])

    def thrown_out(self) -> list[int]:
        """Read which samples are thrown out: by the saved list, else as published.

        Returns:
            Their numbers, ascending.

        Raises:
            ShardError: If the list is damaged or of another run.
        """
        if not self.list_path.exists():
            return self.published()
        return self._numbers(read_list(self.list_path, self.manifest))

    def published(self) -> list[int]:
        """Read which samples the published dataset leaves out now.

        Returns:
            Their numbers, ascending.

        Raises:
            ShardError: If the manifest is damaged or no longer there.
        """
        return self._numbers(Manifest.load(self.folder).excluded)

    def save(self, numbers: Iterable[int], *, after: str) -> str:
        """Save which samples are thrown out, in ``OUT/excluded.json``.

        Args:
            numbers: Their numbers.
            after: What `state` was when these numbers were chosen.

        Returns:
            The new state.

        Raises:
            StudioError: If a number is of no sample of the dataset, or the list was changed since.
            ShardError: If the file cannot be written.
        """
        chosen = sorted(set(numbers))
        wrong = [i for i in chosen if not 0 <= i < self.n]
        if wrong:
            raise StudioError(f"expected samples in [0, {self.n}), got {wrong[0]}")
        index = np.array(chosen, np.int64)
        shard = np.searchsorted(self._starts, index, side="right") - 1
        rows: dict[str, list[int]] = {
            self.manifest.shards[s].path: (index[shard == s] - self._starts[s]).tolist()
            for s in np.unique(shard).tolist()
        }
        with self._lock:
            if after != self.state:
                raise StudioError(
                    f"{self.list_path}: expected the list that the page knows, but it was changed "
                    f"elsewhere; load the page again"
                )
            save_list(self.list_path, self.manifest, rows)
            return self.state

    @property
    def state(self) -> str:
        """Hash of the saved list, by which two pages do not overwrite it; "" where none is."""
        return sha256_file(self.list_path) if self.list_path.exists() else ""

    def images(self, kind: str, numbers: Sequence[int]) -> Shaped[np.ndarray, "n *space c"]:
        """Copy samples, or the real images beside them.

        Args:
            kind: One of `KINDS`.
            numbers: Numbers of samples.

        Returns:
            Images, in this order.

        Raises:
            StudioError: If there is no such sample or real image.
        """
        index = self._checked(numbers)
        if kind == "sample":
            out = np.empty((len(index), *self.manifest.image_shape), self.samples.dtype)
            drawn = index < self.n
            with self._lock:
                out[drawn] = self.samples.images_at(index[drawn])
            for position in np.flatnonzero(~drawn).tolist():
                part, row = self._rejected_at(int(index[position]))
                out[position] = part.images[row]
            return out
        if kind not in KINDS:
            raise StudioError(f"expected one of {', '.join(KINDS)}, got {kind!r}")
        if self.data is None:
            raise StudioError("expected the data of the run, which was not found")
        rows = self.columns["source" if kind == "source" else "nn_index"][index].astype(np.int64)
        n_real = len(self.data) + (0 if self.data.unlabelled is None else len(self.data.unlabelled))
        wrong = rows[(rows < 0) | (rows >= n_real)]
        if wrong.size:
            raise StudioError(f"expected a real image in [0, {n_real}), got {int(wrong[0])}")
        return self.data.images_at(rows)

    @cached_property
    def columns(self) -> Mapping[str, np.ndarray]:
        """What is known of every sample and then of every rejected one, by name."""
        samples = self.samples
        reasons = self.reasons
        samplers = self.samplers
        per_shard = np.array([samplers.index(name) for name in samples.samplers], np.int64)

        def both(name: str, dtype: type) -> np.ndarray:
            parts = [getattr(samples, name), *(getattr(part, name) for part in self.rejected)]
            return np.concatenate(parts).astype(dtype)

        labels = [samples.labels, *(np.full(len(part), part.label) for part in self.rejected)]
        reason = [np.full(self.n, -1)]
        reason += [np.array([reasons.index(r) for r in part.reason]) for part in self.rejected]
        return {
            "label": np.concatenate(labels).astype(np.int32),
            "p_label": both("p_label", np.float32),
            "distance": both("nn_distance", np.float32),
            "source": both("source_index", np.int64).astype(np.int32),
            "nn_index": both("nn_index", np.int64).astype(np.int32),
            "sampler": np.concatenate(
                [np.repeat(per_shard, self._sizes), np.full(self.n_rejected, -1)]
            ).astype(np.int32),
            "reason": np.concatenate(reason).astype(np.int32),
            **self._map(),
        }

    @property
    def samplers(self) -> list[str]:
        """How samples were drawn, each once."""
        return sorted(set(self.samples.samplers))

    @property
    def reasons(self) -> list[str]:
        """Why samples were rejected, each once."""
        return sorted(
            {str(reason) for part in self.rejected for reason in part.reason},
            key=lambda reason: (REASONS.index(reason) if reason in REASONS else 99, reason),
        )

    def packed(self) -> bytes:
        """Pack the columns for the page, which makes typed arrays of them without a copy.

        Returns:
            The length of a header as a little-endian uint32, the header in JSON, padded to four
            bytes, and the columns, float32 or int32, one after the other.
        """
        shape = self.manifest.image_shape
        header = {
            "out": self.folder.resolve().name,
            "command": shlex.join(["vaeaug", "exclude", str(self.folder)]),
            "n": self.n,
            "n_rejected": self.n_rejected,
            "class_names": list(self.manifest.class_names),
            "samplers": self.samplers,
            "reasons": self.reasons,
            "columns": [[name, values.dtype.str] for name, values in self.columns.items()],
            "excluded": self.thrown_out(),
            "state": self.state,
            "published": self.published(),
            "kind": "signal" if len(shape) == 2 else "volume" if len(shape) == 4 else "image",
            "shape": list(shape),
            "value_range": list(self.manifest.value_range),
            "sample_rate": self.sample_rate,
            "has_data": self.data is not None,
            "has_spectrogram": self.data is not None and self.data.spectrogram is not None,
        }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 4)
        body = b"".join(values.tobytes() for values in self.columns.values())
        return struct.pack("<I", len(text)) + text + body

    def facts(self, number: int) -> dict[str, Any]:
        """Tell where a sample comes from.

        Args:
            number: Its number.

        Returns:
            JSON types.

        Raises:
            StudioError: If there is no such sample.
        """
        index = int(self._checked([number])[0])
        if index >= self.n:
            part, row = self._rejected_at(index)
            return {"seed": str(part.seed[row]), "reason": str(part.reason[row])}
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return {
            "shard": self.manifest.shards[shard].path,
            "row": index - int(self._starts[shard]),
            # A number of 64 bits is too long for the page.
            "seed": str(self.samples.seed[index]),
            "weight": float(self.samples.weight[index]),
        }

    @property
    def sample_rate(self) -> int | None:
        """Of sounds, Hz; None where it is not known."""
        rate = self.manifest.extra.get("sample_rate")
        return None if rate is None else int(rate)

    def close(self) -> None:
        """Close the shards."""
        self.samples.close()

    def _numbers(self, rows: Mapping[str, Sequence[int]]) -> list[int]:
        starts = {
            entry.path: int(start)
            for entry, start in zip(self.manifest.shards, self._starts, strict=False)
        }
        return sorted(starts[path] + row for path, some in rows.items() for row in some)

    def _map(self) -> dict[str, Float32[np.ndarray, " n"]]:
        """Two principal components of the latents; rejected samples have none."""
        from sklearn.decomposition import PCA

        points = np.full((self.n + self.n_rejected, 2), np.nan, np.float32)
        latents = self.samples.latents
        k = min(2, *latents.shape)
        if k and np.isfinite(latents).all():
            rng = np.random.default_rng(0)
            rows = np.sort(rng.permutation(self.n)[:_FITTED])
            points[: self.n] = 0
            fitted = PCA(k, svd_solver="full").fit(latents[rows])
            points[: self.n, :k] = fitted.transform(latents)
        return {"x": points[:, 0], "y": points[:, 1]}

    def _checked(self, numbers: Sequence[int]) -> Int64[np.ndarray, " n"]:
        index = np.asarray(numbers, np.int64)
        most = self.n + self.n_rejected
        wrong = index[(index < 0) | (index >= most)]
        if wrong.size:
            raise StudioError(f"expected a sample in [0, {most}), got {int(wrong[0])}")
        return index

    def _rejected_at(self, index: int) -> tuple[RejectedSamples, int]:
        position = index - self.n
        part = int(np.searchsorted(self._rejected_starts, position, side="right")) - 1
        return self.rejected[part], position - int(self._rejected_starts[part])
