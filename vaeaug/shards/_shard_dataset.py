"""All shards of a run as one map-style dataset."""

import bisect
import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt64

from vaeaug.shards._excluded import kept_rows
from vaeaug.shards._format import COLUMNS, VECTORS, ShardError, one_hot
from vaeaug.shards._manifest import PROVENANCE, Manifest, ShardEntry
from vaeaug.shards._reader import ImageStore, Shard


class ShardDataset:
    """The synthetic samples of a run folder, in the order of the manifest, without excluded ones.

    It has the methods of a map-style ``torch.utils.data.Dataset`` but does not need torch. File
    handles are not pickled; each process opens them when it first reads an image.

    Args:
        folder_or_manifest: A run folder, its ``manifest.json``, or a loaded :class:`Manifest`.
        classes: Names or indices of the classes to read; None: all.
        transform: Applied to each image as torchvision's datasets do: to a PIL image if PIL
            supports the type (``uint8`` with 1, 3 or 4 channels), otherwise to the array. The
            transform of an ``ImageFolder`` therefore works here too, and a ``ConcatDataset`` of
            both can be collated.

    Attributes:
        manifest: The manifest of the run.
        entries: The shards that are read, in order.
        class_names: Names of all classes of the run, in the order of the labels.
        value_range: Smallest and largest value that an image may have.
        fingerprint: Fingerprint of the training split of the generator.
        image_shape: Shape of one image.
        dtype: Type of the images.
        samplers: How the samples of each shard that is read were drawn.

    Raises:
        ShardError: If there is no manifest, or a shard is missing, damaged or differs from the
            manifest. File hashes are not computed here but by ``verify``.
    """

    def __init__(
        self,
        folder_or_manifest: str | Path | Manifest,
        *,
        classes: Iterable[int | str] | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        manifest = (
            folder_or_manifest
            if isinstance(folder_or_manifest, Manifest)
            else Manifest.load(folder_or_manifest)
        )
        selected = _class_indices(classes, manifest.class_names)
        self.manifest, self.transform = manifest, transform
        self.class_names = manifest.class_names
        self.value_range = manifest.value_range
        self.fingerprint = manifest.data_fingerprint
        self.image_shape = manifest.image_shape
        self.dtype = np.dtype(manifest.dtype)
        self._stores: list[ImageStore] = []
        # Rows of each shard that are in the dataset; None: all.
        self._rows: list[np.ndarray | None] = []
        parts: list[dict[str, np.ndarray]] = []
        samplers = []
        self.entries = [entry for entry in manifest.shards if entry.label in selected]
        for entry in self.entries:
            shard = _open_as(manifest, entry)
            self._stores.append(shard.store)
            samplers.append(str(shard.attributes["sampler"]))
            rows = kept_rows(manifest, entry.path, len(shard))
            self._rows.append(rows)
            arrays = _in_classes_of(manifest, entry, shard)
            if rows is not None:
                arrays = {name: values[rows] for name, values in arrays.items()}
            parts.append(arrays)
        self.samplers = tuple(samplers)
        self._starts = np.cumsum([0, *(len(part["labels"]) for part in parts)])
        self._bounds: list[int] = self._starts.tolist()
        self._arrays = _concatenate(parts, self.entries)

    def __len__(self) -> int:
        return self._bounds[-1]

    @property
    def shard_lengths(self) -> list[int]:
        """Samples of the dataset in each of `entries`."""
        return np.diff(self._starts).tolist()

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return a copy of one image in the layout of the run, transformed, and its label."""
        return self.__getitems__([operator.index(index)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, int]]:
        """Return many items at once, which is faster than one by one."""
        images: Any = self.images_at(indices)
        if self.transform is not None:
            images = [self.transform(_picture(image)) for image in images]
        labels = self.labels[np.asarray(indices, dtype=np.int64)].tolist()
        return list(zip(images, labels, strict=True))

    def images_at(self, indices: Sequence[int] | np.ndarray) -> Shaped[np.ndarray, "n *space c"]:
        """Copy some images, reading each shard once.

        Args:
            indices: Indices of the images.

        Returns:
            The images, in this order.

        Raises:
            IndexError: If an index is out of range.
        """
        index = self._checked(indices)
        out = np.empty((len(index), *self.image_shape), dtype=self.dtype)
        shard_of = np.searchsorted(self._starts, index, side="right") - 1
        for s in np.unique(shard_of).tolist():
            positions = np.flatnonzero(shard_of == s)
            rows, kept = index[positions] - self._starts[s], self._rows[s]
            self._stores[s].take(rows if kept is None else kept[rows], out, positions)
        return out

    def image_at(self, index: int) -> Shaped[np.ndarray, "*space c"]:
        """Copy one image, faster than by `images_at`.

        Args:
            index: Index of the image, in [0, len).

        Returns:
            The image.

        Raises:
            IndexError: If the index is out of range.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"expected an index in [0, {len(self)}), got {index}")
        shard = bisect.bisect_right(self._bounds, index) - 1
        row, kept = index - self._bounds[shard], self._rows[shard]
        return self._stores[shard].image(row if kept is None else int(kept[row]))

    def soft_labels_at(self, indices: Sequence[int] | np.ndarray) -> Float32[np.ndarray, "n k"]:
        """Return the class probabilities of some samples.

        Args:
            indices: Indices of the samples.

        Returns:
            A row for each sample; one-hot if the run has no soft labels.

        Raises:
            IndexError: If an index is out of range.
        """
        index = self._checked(indices)
        if self.soft_labels is None:
            return one_hot(self.labels[index], len(self.class_names))
        return self.soft_labels[index].astype(np.float32, copy=False)

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """Class index of every sample."""
        return self._arrays["labels"]

    @property
    def source_index(self) -> Int64[np.ndarray, " n"]:
        """Row of the real image from which each sample was made, -1 for a draw from a density."""
        return self._arrays["source_index"]

    @property
    def seed(self) -> UInt64[np.ndarray, " n"]:
        """Seed of every sample."""
        return self._arrays["seed"]

    @property
    def weight(self) -> Float32[np.ndarray, " n"]:
        """Loss weight of every sample."""
        return self._arrays["weight"]

    @property
    def p_label(self) -> Float32[np.ndarray, " n"]:
        """Probability of the label by a real-only classifier; NaN if not measured."""
        return self._arrays["quality/p_label"]

    @property
    def nn_distance(self) -> Float32[np.ndarray, " n"]:
        """Distance to the nearest real image; NaN if not measured."""
        return self._arrays["quality/nn_distance"]

    @property
    def nn_index(self) -> Int64[np.ndarray, " n"]:
        """Row of the nearest real image; -1 if not measured."""
        return self._arrays["quality/nn_index"]

    @property
    def latents(self) -> Float32[np.ndarray, "n z"]:
        """The decoded latents."""
        return self._arrays["latents"]

    @property
    def soft_labels(self) -> Float32[np.ndarray, "n k"] | None:
        """Class probabilities, or None if the run has none."""
        return self._arrays.get("soft_labels")

    def _checked(self, indices: Sequence[int] | np.ndarray) -> Int64[np.ndarray, " n"]:
        index = np.asarray(indices)
        if index.size == 0:
            index = index.astype(np.int64)
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise IndexError(
                f"expected a sequence of integers, got {index.dtype} of shape {index.shape}"
            )
        n = len(self)
        bad = index[(index < -n) | (index >= n)]
        if bad.size:
            raise IndexError(f"expected an index in [{-n}, {n}), got {int(bad[0])}")
        return np.where(index < 0, index + n, index).astype(np.int64, copy=False)

    def close(self) -> None:
        """Close all files; the next read opens them again."""
        for store in self._stores:
            store.close()

    def __repr__(self) -> str:
        return (
            f"ShardDataset({len(self)} synthetic images {self.image_shape} {self.dtype.name}, "
            f"{len(self._stores)} shards, {len(self.class_names)} classes)"
        )


def _picture(image: Shaped[np.ndarray, "*space c"]) -> Any:
    """Convert an image as torchvision's datasets do before a transform; see `ShardDataset`."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        return image
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _class_indices(classes: Iterable[int | str] | None, names: tuple[str, ...]) -> set[int]:
    if classes is None:
        return set(range(len(names)))
    chosen = set()
    for item in [classes] if isinstance(classes, (str, int)) else classes:
        label = names.index(item) if item in names else item
        if isinstance(label, str) or not 0 <= operator.index(label) < len(names):
            raise ShardError(f"classes: expected a name or index of {names}, got {item!r}")
        chosen.add(operator.index(label))
    return chosen


def _open_as(manifest: Manifest, entry: ShardEntry) -> Shard:
    """Open a shard, and reject it if it differs from its entry in the manifest."""
    path = manifest.path_of(entry.path)
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise ShardError(
            f"{path}: expected a shard that the manifest names, got no such file",
            errno=error.errno,
        ) from error
    if size != entry.bytes:
        raise ShardError(f"{path}: expected {entry.bytes} bytes, got {size}")
    shard = Shard(path)
    if problems := disagreements(shard, manifest, entry):
        raise ShardError(f"{path}: {problems[0]}")
    return shard


def disagreements(shard: Shard, manifest: Manifest, entry: ShardEntry) -> list[str]:
    """List the differences between a shard and its manifest.

    Args:
        shard: The shard.
        manifest: The manifest.
        entry: Its entry for the shard.

    Returns:
        Descriptions such as "layout: expected ..., got ...".
    """
    generation = manifest.generation_of[entry.path]
    label = generation.class_names.index(entry.class_name)
    pairs: list[tuple[str, Any, Any]] = [
        ("number of samples", entry.n, len(shard)),
        ("class", label, shard.label),
        ("class_names", generation.class_names, shard.class_names),
        ("layout", manifest.layout, shard.layout),
        ("dtype", manifest.dtype, shard.dtype),
        ("image shape", manifest.image_shape, shard.image_shape),
        ("value range", manifest.value_range, shard.value_range),
        *((name, getattr(generation, name), shard.attributes[name]) for name in PROVENANCE),
        ("synthetic", True, shard.attributes["synthetic"]),
    ]
    differences = [f"{field}: expected {a!r}, got {b!r}" for field, a, b in pairs if a != b]
    other = np.unique(shard.labels[shard.labels != label])
    if other.size:
        differences.append(f"labels: expected only {label}, got also {other[:5].tolist()}")
    return differences


def _in_classes_of(manifest: Manifest, entry: ShardEntry, shard: Shard) -> dict[str, np.ndarray]:
    """The arrays of a shard with labels of the manifest, which may have more classes than it."""
    if shard.class_names == manifest.class_names:
        return shard.arrays
    arrays = {**shard.arrays, "labels": np.full_like(shard.labels, entry.label)}
    if shard.soft_labels is not None:
        columns = [manifest.class_names.index(name) for name in shard.class_names]
        soft_labels = np.zeros((len(shard), len(manifest.class_names)), shard.soft_labels.dtype)
        soft_labels[:, columns] = shard.soft_labels
        arrays["soft_labels"] = soft_labels
    return arrays


def _concatenate(
    parts: list[dict[str, np.ndarray]], entries: list[ShardEntry]
) -> dict[str, np.ndarray]:
    if not parts:
        empty = {name: np.empty(0, dtype=code) for name, code in COLUMNS.items()}
        return {**empty, "latents": np.empty((0, 0), dtype=VECTORS["latents"])}
    for part, entry in zip(parts, entries, strict=True):
        for name in VECTORS:
            vectors, first_vectors = part.get(name), parts[0].get(name)
            if (vectors is None) != (first_vectors is None) or (
                vectors is not None
                and first_vectors is not None
                and vectors.shape[1:] != first_vectors.shape[1:]
            ):
                raise ShardError(
                    f"{entry.path}: {name}: expected the same in all shards, got "
                    f"{None if first_vectors is None else first_vectors.shape} and "
                    f"{None if vectors is None else vectors.shape}"
                )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
