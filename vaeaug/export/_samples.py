"""`Samples`: what is written, whichever the format."""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from vaeaug.merging import MergedDataset
from vaeaug.shards import Manifest, ShardDataset
from vaeaug.shards._format import blocks

EXPORT_FORMAT = "vaeaug-export"
_PNG_CHANNELS = (1, 3, 4)
Gather = Callable[[np.ndarray], np.ndarray]


class ExportError(ValueError):
    """Samples that cannot be written as asked, or a target that is in the way."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples in the order in which they are written; their images stay where they are.

    Attributes:
        images_at: Images of rows, channels last, (m, space..., C).
        soft_labels_at: Class probabilities of rows, (m, K) float32; None where the run has none.
        labels: (n,) index of the class.
        is_synthetic: (n,).
        source_index: (n,) row of the real image: of itself, or behind a synthetic sample; -1 for a
            draw from a density.
        weight: (n,) loss weight.
        class_names: The K names in the order of the labels.
        image_shape: (space..., C).
        dtype: uint8 or float32.
        provenance: What they are and where they come from; JSON.
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

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image, decoded."""
        return int(np.prod(self.image_shape)) * self.dtype.itemsize

    @property
    def pictures(self) -> bool:
        """Whether the images are ones that PNG keeps exactly."""
        channels = self.image_shape[-1]
        return self.dtype == np.uint8 and len(self.image_shape) == 3 and channels in _PNG_CHANNELS

    def blocks(
        self, order: np.ndarray | None = None
    ) -> Iterator[tuple[Int64[np.ndarray, " m"], Shaped[np.ndarray, "m *space c"]]]:
        """Rows and their images, a few megabytes at a time.

        Args:
            order: All rows in the order in which they are wanted; None is their own.

        Raises:
            ExportError: If images cannot be read.
        """
        rows = np.arange(len(self)) if order is None else order
        for start, stop in blocks(len(self), self.image_bytes):
            try:
                images = self.images_at(rows[start:stop])
            except OSError as error:
                # Not to be taken for an error of the file that is being written.
                raise ExportError(
                    f"samples {start} to {stop - 1} of {len(self)}: cannot be read: {error}"
                ) from error
            yield rows[start:stop], images

    def record(self, row: int) -> dict[str, Any]:
        """What is known of one sample beside its image and class probabilities; JSON."""
        label = int(self.labels[row])
        return {
            "label": label,
            "class_name": self.class_names[label],
            "is_synthetic": bool(self.is_synthetic[row]),
            "source_index": int(self.source_index[row]),
            # The shortest text that is this float32 again.
            "weight": float(str(self.weight[row])),
        }

    def soft_labels(self, rows: np.ndarray) -> list[list[float]] | None:
        """Class probabilities of rows as numbers that read short; None where there are none."""
        if self.soft_labels_at is None:
            return None
        return [[float(str(p)) for p in row] for row in self.soft_labels_at(rows)]


def synthetic_samples(synthetic: ShardDataset) -> Samples:
    """The samples of a run alone."""
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
    """Real and synthetic samples as they are merged in epoch 0."""
    import torch

    def images_at(rows: np.ndarray) -> np.ndarray:
        return torch.stack(list(merged.images_at(rows))).movedim(1, -1).numpy()

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
        # Of the library that made them, not of the one that writes them here.
        "vaeaug_version": manifest.versions.get("vaeaug", "unknown"),
        "evaluation": gate if isinstance(gate, str) else gate.get("verdict"),
    }
    return Samples(
        labels=labels.astype(np.int64),
        is_synthetic=is_synthetic,
        class_names=class_names,
        image_shape=manifest.image_shape,
        dtype=dtype,
        provenance=provenance,
        **more,
    )


def png_bytes(image: Shaped[np.ndarray, "h w c"]) -> bytes:
    """A PNG file of an image that is one of `Samples.pictures`; it gives the same pixels back."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


def npy_bytes(array: Shaped[np.ndarray, "..."]) -> bytes:
    """An `.npy` file of an array."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return file.getvalue()
