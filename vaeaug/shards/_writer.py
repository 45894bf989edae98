"""Writing of the samples of one class into as many shards as they need."""

import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from vaeaug.files import recover
from vaeaug.shards._format import (
    COLUMNS,
    FORMAT_VERSION,
    IMAGES,
    SHARD_FORMAT,
    SHARDS_FOLDER,
    VECTORS,
    ShardError,
    ShardProvenance,
    blocks,
    check_class_names,
    check_layout,
    check_soft_labels,
    decoded_sha256,
    is_int,
    library_versions,
    stored_dtype,
    write_attributes,
)
from vaeaug.shards._hdf5_output import HDF5_VERSIONS, published_hdf5, sha256_file, write_errors
from vaeaug.shards._manifest import ShardEntry

_COLUMN_ARGUMENTS = {name: name.rpartition("/")[2] for name in COLUMNS}


class ShardWriter:
    """Collects samples of one class and publishes a shard whenever one is full.

    A contiguous HDF5 array cannot grow, so at most one shard (``max_bytes``) is buffered in memory,
    and with an executor another one that it writes.
    Each shard becomes visible only when it is complete, even if the writer is killed or an
    exception occurs. Shards become part of a dataset only when a manifest names them.

    Use it as a context manager, or call :meth:`close`::

        with ShardWriter(out, label=3, ...) as writer:
            writer.append(images=x, latents=z, ...)
        manifest_entries += writer.entries

    Args:
        folder: The run folder; the shards go to ``folder/shards``, which is created.
        label: Index of the class in ``class_names``.
        class_names: Names of all classes in the order of the labels.
        sampler: How the samples were drawn, for example "posterior".
        layout: "NHWC", "NLC" or "NDHWC".
        dtype: "uint8" or "float32".
        image_shape: Shape of one image, for example (height, width, channels).
        value_range: Smallest and largest value that an image may have.
        n_latents: Length of a latent vector.
        provenance: Origin of the samples: a :class:`ShardProvenance`, or its fields.
        max_bytes: Maximum size of one file.
        compress: None for contiguous images, "gzip" for compressed chunks of one sample.
        first_index: Number of the first shard; numbers continue across classes.
        executor: Publishes the shards, while samples of the next one are appended; None: `append`
            and `close` do. Errors are then raised by `entries`.

    Raises:
        ShardError: If an argument violates the format, or the folder cannot be created.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        label: int,
        class_names: Sequence[str],
        sampler: str,
        layout: str = "NHWC",
        dtype: str = "uint8",
        image_shape: Sequence[int],
        value_range: tuple[float, float],
        n_latents: int,
        provenance: ShardProvenance | Mapping[str, Any],
        max_bytes: int = 256 * 2**20,
        compress: str | None = None,
        first_index: int = 0,
        executor: Executor | None = None,
    ) -> None:
        where = "shard writer"
        self.class_names = check_class_names(class_names, f"{where}: class_names")
        self.image_shape = tuple(int(n) for n in image_shape)
        check_layout(layout, self.image_shape, dtype, where)
        if not is_int(label) or not 0 <= label < len(self.class_names):
            raise ShardError(
                f"{where}: label: expected an index in [0, {len(self.class_names)}), got {label!r}"
            )
        low, high = (float(v) for v in value_range)
        if not (np.isfinite([low, high]).all() and low < high):
            raise ShardError(
                f"{where}: value_range: expected two finite numbers, the first the smaller, "
                f"got {value_range!r}"
            )
        if compress not in (None, "gzip"):
            raise ShardError(f"{where}: compress: expected None or 'gzip', got {compress!r}")
        for name, number, minimum in (("n_latents", n_latents, 0), ("first_index", first_index, 0)):
            if not is_int(number) or number < minimum:
                raise ShardError(f"{where}: {name}: expected an integer >= 0, got {number!r}")
        if not isinstance(sampler, str) or not sampler:
            raise ShardError(f"{where}: sampler: expected a non-empty string, got {sampler!r}")
        if isinstance(provenance, Mapping):
            provenance = _provenance(provenance)

        self.folder = Path(folder)
        self.label = int(label)
        self.sampler = sampler
        self.layout = layout
        self.dtype = stored_dtype(dtype)
        self.value_range = (low, high)
        self.n_latents = int(n_latents)
        self.provenance = provenance
        self.max_bytes = int(max_bytes)
        self.compress = compress
        self._published: list[Future[ShardEntry]] = []
        self._executor = executor
        self._next_index = int(first_index)
        self._buffer: dict[str, np.ndarray] = {}
        self._n = 0
        self._capacity = 0
        self._closed = False
        self._shards_folder = self.folder / SHARDS_FOLDER
        # A link may lead to a folder with shards of the same names that belong to someone else.
        if self._shards_folder.is_symlink():
            raise ShardError(
                f"{self._shards_folder}: expected a folder for the shards, got a link to "
                f"{self._shards_folder.resolve()}, which is not followed"
            )
        with write_errors(self._shards_folder, kept="nothing was changed"):
            self._shards_folder.mkdir(parents=True, exist_ok=True)

    @property
    def entries(self) -> list[ShardEntry]:
        """The entries of the shards so far, in order.

        Raises:
            ShardError: If a shard could not be written.
        """
        return [shard.result() for shard in self._published]

    @property
    def n_shards(self) -> int:
        """How many shards there are so far; they may still be on their way to the disk."""
        return len(self._published)

    @property
    def is_published(self) -> bool:
        """Whether all shards so far are on the disk, or could not be written."""
        return all(shard.done() for shard in self._published)

    def append(
        self,
        *,
        images: Shaped[np.ndarray, "n *space c"],
        latents: Float[np.ndarray, "n z"],
        source_index: Shaped[np.ndarray, " n"],
        seed: Shaped[np.ndarray, " n"],
        p_label: Shaped[np.ndarray, " n"],
        nn_distance: Shaped[np.ndarray, " n"],
        nn_index: Shaped[np.ndarray, " n"],
        weight: Shaped[np.ndarray, " n"] | None = None,
        soft_labels: Float[np.ndarray, "n k"] | None = None,
    ) -> None:
        """Add any number of samples; full shards are published.

        Args:
            images: Images in the layout and type of the writer.
            latents: The decoded latents.
            source_index: Row of the real image from which each sample was made, -1 for a draw from
                a density.
            seed: Seed of each sample.
            p_label: Probability of the label by a classifier of real images; NaN if not measured.
            nn_distance: Distance to the nearest real image; NaN if not measured.
            nn_index: Row of the nearest real image, -1 if not measured.
            weight: Loss weight; None: 1.0.
            soft_labels: Class probabilities: numbers in [0, 1] with sum 1 in each row, of which
                none exceeds that of the writer's label; for all samples of a writer or for none.

        Raises:
            ShardError: If an array has a wrong shape or type, a value is out of range, or a shard
                cannot be written (its ``.tmp`` is removed; published shards are kept).
        """
        if self._closed:
            raise ShardError(f"{self._shards_folder}: append on a closed shard writer")
        batch = self._check_images(images)
        n = len(images)
        columns = {
            "labels": np.full(n, self.label, dtype=np.int64),
            "source_index": source_index,
            "seed": seed,
            "weight": np.ones(n, dtype=np.float32) if weight is None else weight,
            "quality/p_label": p_label,
            "quality/nn_distance": nn_distance,
            "quality/nn_index": nn_index,
        }
        for name, values in columns.items():
            batch[name] = _cast(values, np.dtype(COLUMNS[name]), (n,), _COLUMN_ARGUMENTS[name])
        batch["latents"] = _cast(latents, np.dtype("<f4"), (n, self.n_latents), "latents")
        if soft_labels is not None:
            shape = (n, len(self.class_names))
            batch["soft_labels"] = _cast(soft_labels, np.dtype("<f4"), shape, "soft_labels")
            check_soft_labels(batch["soft_labels"], self.label, "soft_labels")
        if n == 0:
            return
        if not self._buffer:
            self._allocate(batch)
        if batch.keys() != self._buffer.keys():
            raise ShardError("soft_labels: expected for all samples of a writer, or for none")

        start = 0
        while start < n:
            stop = min(n, start + self._capacity - self._n)
            self._make_room(self._n + stop - start)
            for name, values in batch.items():
                self._buffer[name][self._n : self._n + stop - start] = values[start:stop]
            self._n += stop - start
            start = stop
            if self._n == self._capacity:
                self._publish()

    def close(self) -> list[ShardEntry]:
        """Publish the remaining samples.

        Returns:
            The entries of all shards of this writer, in order, which are on the disk then.

        Raises:
            ShardError: If a shard cannot be written.
        """
        self.finish()
        return self.entries

    def finish(self) -> None:
        """Hand the remaining samples to the executor, and do not wait for it.

        Raises:
            ShardError: If there is no executor and the last shard cannot be written.
        """
        if not self._closed:
            if self._n:
                self._publish()
            self.discard()

    def discard(self) -> None:
        """Discard the unfinished shard; published shards stay."""
        self._closed = True
        self._buffer = {}
        self._n = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _check_images(self, images: np.ndarray) -> dict[str, np.ndarray]:
        expected = (len(images), *self.image_shape)
        if not isinstance(images, np.ndarray) or images.shape != expected:
            raise ShardError(
                f"images: expected an array of shape {expected}, got {_shape_of(images)}"
            )
        if images.dtype != self.dtype:
            raise ShardError(f"images: expected dtype {self.dtype.name}, got {images.dtype}")
        if self.dtype.kind == "f" and images.size:
            low, high = float(images.min()), float(images.max())  # NaN if any value is NaN
            if not (low >= self.value_range[0] and high <= self.value_range[1]):
                raise ShardError(
                    f"images: expected values in [{self.value_range[0]}, {self.value_range[1]}], "
                    f"got [{low}, {high}]"
                )
        return {IMAGES: images}

    def _allocate(self, batch: Mapping[str, np.ndarray]) -> None:
        """Compute the samples per shard from the bytes of a sample and of the HDF5 structure."""
        first_sample = {name: values[:1] for name, values in batch.items()}
        row_bytes = sum(values.nbytes for values in first_sample.values())
        image_bytes = first_sample[IMAGES].nbytes
        small = io.BytesIO()
        import h5py

        with h5py.File(small, "w", libver=("v108", "v110"), track_order=False) as file:
            _fill(file, first_sample, self._attributes(), compress=None)
        # 64 bytes of alignment before each of the arrays and groups.
        overhead = len(small.getbuffer()) - row_bytes + 64 * (len(first_sample) + 24)
        if self.compress:
            # Deflate enlarges noise a little, and each chunk has an entry in a B-tree, whose nodes
            # of 64 entries may be half empty.
            row_bytes += image_bytes // 500 + 256
            overhead += 2**14
        self._capacity = (self.max_bytes - overhead) // row_bytes
        if self._capacity < 1:
            raise ShardError(
                f"{self._shards_folder}: max_bytes: expected at least {overhead + row_bytes} for a "
                f"shard of one sample, got {self.max_bytes}"
            )
        self._buffer = {name: values[:0] for name, values in first_sample.items()}

    def _make_room(self, n: int) -> None:
        """Grow the buffer to ``n`` samples, at least doubling it, so that small jobs stay small."""
        capacity = len(self._buffer[IMAGES])
        if n <= capacity:
            return
        new_capacity = min(self._capacity, max(n, 2 * capacity))
        for name, values in self._buffer.items():
            self._buffer[name] = np.empty((new_capacity, *values.shape[1:]), dtype=values.dtype)
            self._buffer[name][: self._n] = values[: self._n]

    def _publish(self) -> None:
        arrays = {name: values[: self._n] for name, values in self._buffer.items()}
        work = functools.partial(
            self._published_shard, arrays, self._next_index, self._attributes(), self.n_shards
        )
        if self._executor is None:
            shard: Future[ShardEntry] = Future()
            shard.set_result(work())
        else:
            if self._published:  # one shard on its way and one being filled, no more
                self._published[-1].result()
            # The arrays are the executor's now.
            self._buffer = {name: values[:0] for name, values in arrays.items()}
            shard = self._executor.submit(work)
        self._published.append(shard)
        self._next_index += 1
        self._n = 0

    def _published_shard(
        self,
        arrays: Mapping[str, np.ndarray],
        index: int,
        attributes: Mapping[str, Any],
        n_before: int,
    ) -> ShardEntry:
        path = self._shards_folder / shard_name(index)
        needed = sum(values.nbytes for values in arrays.values())
        recover(path)
        kept = f"finished shards are kept ({n_before} of this class)"
        with published_hdf5(path, needed=needed, kept=kept) as file:
            _fill(file, arrays, attributes, self.compress)
        images = arrays[IMAGES]
        n, row_bytes = len(images), images[:1].nbytes
        return ShardEntry(
            path=f"{SHARDS_FOLDER}/{path.name}",
            label=self.label,
            class_name=self.class_names[self.label],
            n=n,
            bytes=path.stat().st_size,
            sha256=sha256_file(path),
            sha256_decoded=decoded_sha256(
                arrays, (images[a:b] for a, b in blocks(n, row_bytes)), images.shape
            ),
        )

    def _attributes(self) -> dict[str, Any]:
        rate = self.provenance.sample_rate
        sound = {} if rate is None else {"sample_rate": np.int64(rate)}
        return {
            "format": SHARD_FORMAT,
            "format_version": np.int64(FORMAT_VERSION),
            "synthetic": np.bool_(True),
            "layout": self.layout,
            "label": np.int64(self.label),
            "class_names": list(self.class_names),
            "image_value_range": np.array(self.value_range, dtype="<f8"),
            "sampler": self.sampler,
            "model_sha256": self.provenance.model_sha256,
            "config_sha256": self.provenance.config_sha256,
            "data_fingerprint": self.provenance.data_fingerprint,
            "run_seed": np.uint64(self.provenance.run_seed),
            "shard_index": np.int64(self._next_index),
            "vaeaug_version": self.provenance.vaeaug_version,
            **sound,
            **{f"{name}_version": text for name, text in library_versions().items()},
        }


def renumber(path: Path, entry: ShardEntry, index: int) -> ShardEntry:
    """Give a shard that is not published yet another number, in the file alone.

    Its bytes are then those of a shard that was written with this number.

    Args:
        path: The file.
        entry: What was known of it.
        index: The number.

    Returns:
        Its entry in a manifest, under the name of that number.

    Raises:
        ShardError: If it cannot be written.
    """
    import h5py

    with write_errors(path, kept="finished shards are kept"):
        with h5py.File(path, "r+", libver=HDF5_VERSIONS) as file:
            file.attrs.modify("shard_index", np.int64(index))
        return dataclasses.replace(
            entry, path=f"{SHARDS_FOLDER}/{shard_name(index)}", sha256=sha256_file(path)
        )


def shard_name(index: int) -> str:
    """Name the file of a shard.

    Args:
        index: Its number.

    Returns:
        A name such as "shard-00000.h5".
    """
    return f"shard-{index:05d}.h5"


def _fill(
    file: Any, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any], compress: str | None
) -> None:
    """Write arrays and attributes reproducibly: in a fixed order and without time stamps."""
    write_attributes(file, attributes)
    file.create_group("quality", track_order=False)
    for name in (*COLUMNS, *VECTORS):
        if name in arrays:
            file.create_dataset(name, data=arrays[name], track_times=False)
    images = arrays[IMAGES]
    options: dict[str, Any] = {}
    if compress:
        options = {"chunks": (1, *images.shape[1:]), "compression": "gzip", "compression_opts": 4}
    file.create_dataset(IMAGES, data=images, track_times=False, **options)


def _provenance(fields: Mapping[str, Any]) -> ShardProvenance:
    known = {f.name for f in dataclasses.fields(ShardProvenance)}
    needed = known - {"vaeaug_version", "sample_rate"}
    if not needed <= fields.keys() <= known:
        raise ShardError(f"provenance: expected the fields {sorted(needed)}, got {sorted(fields)}")
    return ShardProvenance(**fields)


def _cast(values: Any, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> np.ndarray:
    """Convert values to the stored type; wrong shapes and lossy conversions are rejected."""
    array = np.asarray(values)
    if array.shape != shape:
        raise ShardError(f"{name}: expected shape {shape}, got {_shape_of(array)}")
    if array.dtype.kind not in ("iu" if dtype.kind in "iu" else "fiu"):
        raise ShardError(f"{name}: expected values of {dtype.name}, got {array.dtype}")
    if dtype.kind in "iu" and array.size:
        bounds = np.iinfo(dtype)
        low, high = int(array.min()), int(array.max())
        if low < bounds.min or high > bounds.max:
            raise ShardError(f"{name}: expected values of {dtype.name}, got [{low}, {high}]")
    return array.astype(dtype, copy=False)


def _shape_of(values: Any) -> str:
    if isinstance(values, np.ndarray):
        return f"shape {values.shape}"
    return type(values).__name__
