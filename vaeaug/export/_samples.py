"""`Samples`: the samples to export, independent of the format."""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from vaeaug.merging import MergedDataset, channels_last
from vaeaug.shards import Manifest, ShardDataset
from vaeaug.shards._format import blocks

EXPORT_FORMAT = "vaeaug-export"
_PNG_CHANNELS = (1, 3, 4)
Gather = Callable[[np.ndarray], np.ndarray]


class ExportError(ValueError):
    """Samples cannot be exported in this way, or the target must not be replaced."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples in the order in which they are written; images are loaded only when needed.

    Attributes:
        images_at: Returns the images of some rows, channels last, (m, space..., C).
        soft_labels_at: Returns class probabilities of some rows, (m, K) float32; None if the run
            has none.
        labels: Class indices, (n,).
        is_synthetic: Whether each sample is synthetic, (n,).
        source_index: Row of the real image itself, or of the one from which a synthetic sample was
            made; -1 for a draw from a density, (n,).
        weight: Loss weights, (n,).
        class_names: The K names in the order of the labels.
        image_shape: Shape of one image, (space..., C).
        dtype: Type of the images, uint8 or float32.
        provenance: Description and origin of the samples, as JSON types.
        sample_rate: Of sounds, Hz; None where it is not known.
    """

    images_at: Gather
    soft_labels_at: Gather | None
    labels: Int64[np.ndarray, " n"]
    is_synthetic: Bool[np.ndarray, " n"]
    source_index: Int64[np.ndarray, " n"]
    weight: Float32[np.ndarray, " n"]
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    provenance: Mapping[str, Any]
    sample_rate: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_bytes(self) -> int:
        """Bytes of one decoded image."""
        return int(np.prod(self.image_shape)) * self.dtype.itemsize

    @property
    def pictures(self) -> bool:
        """Whether PNG can store the images exactly."""
        channels = self.image_shape[-1]
        return self.dtype == np.uint8 and len(self.image_shape) == 3 and channels in _PNG_CHANNELS

    def blocks(
        self, order: np.ndarray | None = None
    ) -> Iterator[tuple[Int64[np.ndarray, " m"], Shaped[np.ndarray, "m *space c"]]]:
        """Iterate over rows and their images, a few megabytes at a time.

        Args:
            order: All rows in the desired order; None: their own order.

        Yields:
            Row numbers and their images.

        Raises:
            ExportError: If images cannot be read.
        """
        rows = np.arange(len(self)) if order is None else order
        for start, stop in blocks(len(self), self.image_bytes):
            try:
                images = self.images_at(rows[start:stop])
            except OSError as error:
                # An OSError would be taken for an error of the file that is being written.
                raise ExportError(
                    f"samples {start} to {stop - 1} of {len(self)}: cannot be read: {error}"
                ) from error
            yield rows[start:stop], images

    def record(self, row: int) -> dict[str, Any]:
        """Return the metadata of a sample, except its class probabilities.

        Args:
            row: Row number.

        Returns:
            JSON types by name.
        """
        label = int(self.labels[row])
        return {
            "label": label,
            "class_name": self.class_names[label],
            "is_synthetic": bool(self.is_synthetic[row]),
            "source_index": int(self.source_index[row]),
            # The shortest number that gives this float32.
            "weight": float(str(self.weight[row])),
        }

    def soft_labels(self, rows: np.ndarray) -> list[list[float]] | None:
        """Return the class probabilities of some rows as numbers with a short representation.

        Args:
            rows: Row numbers, (m,).

        Returns:
            A list of K numbers for each row; None if the run has none.
        """
        if self.soft_labels_at is None:
            return None
        return [[float(str(p)) for p in row] for row in self.soft_labels_at(rows)]


def synthetic_samples(synthetic: ShardDataset) -> Samples:
    """Describe the samples of a run alone.

    Args:
        synthetic: The samples of the run.

    Returns:
        The samples to export.
    """
    n = len(synthetic)
    return _samples(
        synthetic.manifest,
        images_at=synthetic.images_at,
        soft_labels_at=None if synthetic.soft_labels is None else synthetic.soft_labels_at,
        labels=synthetic.labels,
        is_synthetic=np.ones(n, dtype=np.bool_),
        source_index=synthetic.source_index,
        weight=synthetic.weight,
        class_names=synthetic.class_names,
        dtype=synthetic.dtype,
        value_range=synthetic.value_range,
    )


def merged_samples(merged: MergedDataset) -> Samples:
    """Describe real and synthetic samples as they are merged in epoch 0.

    Args:
        merged: The merged dataset.

    Returns:
        The samples to export.
    """
    import torch

    def images_at(rows: np.ndarray) -> np.ndarray:
        stacked = torch.stack(list(merged.images_at(rows)))
        return channels_last(stacked, merged.synthetic.image_shape)

    synthetic, is_synthetic = merged.synthetic, merged.is_synthetic
    source_index = merged.index.copy()
    source_index[is_synthetic] = synthetic.source_index[merged.index[is_synthetic]]
    return _samples(
        synthetic.manifest,
        images_at=images_at,
        soft_labels_at=None if synthetic.soft_labels is None else merged.soft_labels_at,
        labels=merged.labels,
        is_synthetic=is_synthetic,
        source_index=source_index,
        weight=merged.weights,
        class_names=merged.class_names,
        dtype=merged.units.dtype,
        value_range=merged.units.value_range,
    )


def _samples(
    manifest: Manifest,
    *,
    labels: np.ndarray,
    is_synthetic: np.ndarray,
    class_names: tuple[str, ...],
    dtype: np.dtype[Any],
    value_range: tuple[float, float],
    **more: Any,
) -> Samples:
    if len(labels) == 0:
        raise ExportError(f"{manifest.folder}: expected at least one sample, got none")
    gate = manifest.gate
    provenance = {
        "format": EXPORT_FORMAT,
        "format_version": 1,
        "n": len(labels),
        "n_synthetic": int(is_synthetic.sum()),
        "class_names": list(class_names),
        "layout": manifest.layout,
        "dtype": str(dtype),
        "image_value_range": [float(value) for value in value_range],
        "data_fingerprint": manifest.data_fingerprint,
        "model_sha256": manifest.model_sha256,
        "config_sha256": manifest.config_sha256,
        "run_seed": manifest.run_seed,
        # The version that generated the samples, not the one that exports them.
        "vaeaug_version": manifest.versions.get("vaeaug", "unknown"),
        "evaluation": gate if isinstance(gate, str) else gate.get("verdict"),
    }
    rate = manifest.extra.get("sample_rate")
    if rate is not None:
        provenance["sample_rate"] = rate
    return Samples(
        sample_rate=rate,
        labels=labels.astype(np.int64),
        is_synthetic=is_synthetic,
        class_names=class_names,
        image_shape=manifest.image_shape,
        dtype=dtype,
        provenance=provenance,
        **more,
    )


def png_bytes(image: Shaped[np.ndarray, "h w c"]) -> bytes:
    """Encode an image, as described by `Samples.pictures`, as a PNG file without loss.

    Args:
        image: The image, uint8 with 1, 3 or 4 channels.

    Returns:
        Content of the file.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


def npy_bytes(array: Shaped[np.ndarray, "..."]) -> bytes:
    """Encode an array as an `.npy` file.

    Args:
        array: The array.

    Returns:
        Content of the file.
    """
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return file.getvalue()
