"""One interface to the real images, however the user stores them."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vaeaug.data import LabelledImages, read_configured
from vaeaug.data.vocabulary import IMAGES, LABELS, PATHS, find
from vaeaug.merging._joined import Synthetic
from vaeaug.merging._slots import MergeError
from vaeaug.shapes import are_features
from vaeaug.shards import Manifest, described_run

_log = logging.getLogger("vaeaug")
# Images are converted between these conventional value ranges.
_CONVENTIONS = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))


@dataclass(frozen=True)
class Units:
    """Type and value range of images.

    Attributes:
        dtype: Type of the values.
        value_range: Lowest and highest possible value.
    """

    dtype: np.dtype[Any]
    value_range: tuple[float, float]

    def of(self, images: torch.Tensor, source: "Units") -> torch.Tensor:
        """Convert images of other units to these.

        Args:
            images: The images.
            source: Their units.

        Returns:
            The images in these units, of the same shape.
        """
        if self == source:
            return images
        (low, high), (source_low, source_high) = self.value_range, source.value_range
        scaled = (images.float() - source_low) / (source_high - source_low) * (high - low) + low
        scaled = scaled if self.dtype.kind == "f" else scaled.round()
        return scaled.to(torch.from_numpy(np.empty(0, self.dtype)).dtype)

    def __str__(self) -> str:
        low, high = self.value_range
        return f"{self.dtype.name} from {low:g} to {high:g}"


class RealSource:
    """Labels, metadata and image tensors of a real dataset.

    Args:
        dataset: The dataset as the user passed it.
        labels: Class indices, (n,).
        class_names: Names in the order of the labels.
        shape: Shape of one image, (space..., c).
        units: Type and value range of the images.
        arrays: All images, (n, space..., c); None if they are read from the dataset.
    """

    def __init__(
        self,
        dataset: Any,
        labels: np.ndarray,
        class_names: tuple[str, ...],
        *,
        shape: tuple[int, ...],
        units: Units,
        arrays: np.ndarray | None,
    ) -> None:
        self.dataset = dataset
        self.labels = labels
        self.class_names = class_names
        self.shape = shape
        self.units, self.dtype = units, units.dtype
        self.fingerprint: str | None = getattr(dataset, "fingerprint", None)
        self._arrays = arrays

    def take(self, rows: np.ndarray) -> Iterable[torch.Tensor]:
        """Read images.

        Args:
            rows: Row numbers.

        Returns:
            Channels-first tensors, in the order of the rows.

        Raises:
            MergeError: If an image has an unexpected shape or type.
        """
        if self._arrays is not None:
            return channels_first(self._arrays[rows]).unbind(0)
        if hasattr(self.dataset, "__getitems__"):
            items = self.dataset.__getitems__(rows.tolist())
        else:
            items = [self.dataset[row] for row in rows.tolist()]
        images = []
        for row, item in zip(rows.tolist(), items, strict=True):
            image = _image(item, row, len(self.shape), features=are_features(self.shape))
            if image.shape != self.shape or image.dtype != self.dtype:
                raise MergeError(
                    f"real dataset[{row}]: expected {self.dtype.name} of shape {self.shape}, got "
                    f"{image.dtype.name} of shape {image.shape}"
                )
            images.append(channels_first(image[None].copy())[0])
        return images


def real_source(
    real: Any,
    synthetic: Synthetic,
    class_names: Sequence[str] | None,
    value_range: tuple[float, float] | None,
) -> RealSource:
    """Read the labels and the first image of a real dataset of any supported kind.

    Args:
        real: The real dataset; see `merge`.
        synthetic: The samples of the run.
        class_names: Class names of the real dataset, in the order of its labels; None: its own.
        value_range: Lowest and highest possible value of its images; None: derived.

    Returns:
        The real images.

    Raises:
        MergeError: If the dataset is not supported.
    """
    names = class_names
    if isinstance(real, str | os.PathLike | tuple | dict):
        real = _read(real, synthetic.manifest)
    if hasattr(real, "images") and hasattr(real, "class_names"):
        arrays = np.asarray(real.images)
        labels = np.asarray(real.labels)
        names = real.class_names if names is None else names
        shape, dtype = tuple(arrays.shape[1:]), arrays.dtype
        if labels.shape != (len(arrays),):
            raise MergeError(
                f"real labels: expected shape {(len(arrays),)}, one for each image, got "
                f"{labels.shape}"
            )
        low, high = value_range or getattr(real, "value_range", None) or synthetic.value_range
        units = Units(np.dtype(dtype), (float(low), float(high)))
    elif hasattr(real, "__getitem__") and hasattr(real, "__len__"):
        if len(real) == 0:
            raise MergeError("real dataset: expected at least one image, got none")
        if type(real).__module__.startswith("datasets."):
            real = _HuggingFaceRows(real, _settings(synthetic.manifest).get("keys") or {})
        arrays = None
        features = are_features(synthetic.image_shape)
        first = _image(real[0], 0, len(synthetic.image_shape), features=features)
        shape, dtype = first.shape, first.dtype
        labels = _labels_of(real)
        if names is None:
            names = _names_of(real) or synthetic.class_names
        units = _units_of(first, synthetic, value_range)
    else:
        raise MergeError(
            f"real: expected images with class_names, a map-style dataset with __len__ and "
            f"__getitem__, or what vaeaug.read accepts, got {type(real).__name__}"
        )
    names = tuple(str(name) for name in names)
    if labels.size and labels.dtype.kind not in "iu":
        raise MergeError(f"real labels: expected integers, got {labels.dtype}")
    bad = labels[(labels < 0) | (labels >= len(names))]
    if bad.size:
        raise MergeError(
            f"real labels: expected an index of the {len(names)} classes, got {int(bad[0])}"
        )
    return RealSource(real, labels.astype(np.int64), names, shape=shape, units=units, arrays=arrays)


def check_belongs(source: RealSource, synthetic: Synthetic, on_mismatch: str) -> None:
    """Reject a real dataset for which the synthetic images were not made.

    Args:
        source: The real images.
        synthetic: The samples of the run.
        on_mismatch: "error", or "ignore" to accept a different fingerprint.

    Raises:
        MergeError: If class names, shapes, types or fingerprints do not match.
    """
    expected_names = set(synthetic.class_names)
    if set(source.class_names) != expected_names or len(source.class_names) != len(expected_names):
        raise MergeError(
            f"class names: expected those of the run {synthetic.class_names}, got "
            f"{source.class_names}; pass class_names= in the order of the real labels"
        )
    if source.shape != synthetic.image_shape:
        raise MergeError(
            f"image shape: expected {synthetic.image_shape} as in the run, got {source.shape}"
        )
    run_units = units_of_run(synthetic)
    _check_units(source.units, run_units)
    expected = synthetic.fingerprint
    if on_mismatch == "error" and source.fingerprint not in (None, expected):
        raise MergeError(
            f"fingerprint: expected {expected}, that of the generator's training split, got "
            f"{source.fingerprint}; on_mismatch='ignore' merges them anyway"
        )
    if source.units != run_units:
        _log.info(
            "the samples are converted to the units of the real images, %s (in the run: %s)",
            source.units,
            run_units,
        )


def units_of_run(synthetic: Synthetic) -> Units:
    """Return type and value range of the stored samples.

    Args:
        synthetic: The samples of a run.

    Returns:
        Their units.
    """
    low, high = synthetic.value_range
    return Units(np.dtype(synthetic.dtype), (float(low), float(high)))


def _check_units(real_units: Units, run_units: Units) -> None:
    if real_units.dtype == run_units.dtype and np.allclose(
        real_units.value_range, run_units.value_range
    ):
        return
    known = all(
        any(np.allclose(units.value_range, convention) for convention in _CONVENTIONS)
        for units in (real_units, run_units)
    )
    if not known or real_units.dtype.kind not in "fu":
        raise MergeError(
            f"real images: expected values as in the run ({run_units}), or both of a conventional "
            f"range (0 to 1, -1 to 1, 0 to 255, 0 to 65535), got {real_units}; pass value_range=, "
            f"or convert with transform=, which is applied to real and synthetic images alike"
        )


def _units_of(
    first: np.ndarray, synthetic: Synthetic, value_range: tuple[float, float] | None
) -> Units:
    """Derive the units of a dataset that does not state them from its first image."""
    run_units = units_of_run(synthetic)
    smallest, largest = (float(first.min()), float(first.max())) if first.size else (0.0, 0.0)
    if value_range is not None:
        low, high = value_range
    elif first.dtype == run_units.dtype:
        low, high = run_units.value_range
    elif first.dtype == np.uint8:
        low, high = 0.0, 255.0
    else:
        low, high = 0.0, 1.0  # the output of ToTensor and ToDtype(scale=True)
    slack = 1e-3 * (high - low)
    if first.dtype.kind == "f" and not (smallest >= low - slack and largest <= high + slack):
        raise MergeError(
            f"value range: expected the first real image in ({low:g}, {high:g}), got values in "
            f"[{smallest:g}, {largest:g}]; pass value_range=(lowest, highest), and merge before "
            f"Normalize"
        )
    return Units(np.dtype(first.dtype), (float(low), float(high)))


def _settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the reading settings of the run; empty if it has no record of them."""
    settings = described_run(manifest)["config"].get("data")
    return settings if isinstance(settings, Mapping) else {}


def _read(real: Any, manifest: Manifest) -> LabelledImages:
    """Read a source that `vaeaug.read` accepts as the run read its data."""
    return read_configured(real, _settings(manifest), seed=manifest.run_seed)


class _HuggingFaceRows:
    """A ``datasets.Dataset`` as a map-style dataset of (image, label).

    The columns are those that the run read, or the only ones of type ``Image`` and ``ClassLabel``,
    or those with a common name for images and labels.
    """

    def __init__(self, rows: Any, keys: Mapping[str, str]) -> None:
        features = rows.features
        self.rows = rows
        self.image = keys.get("images") or _column(features, "Image", (*IMAGES, *PATHS), "images")
        self.label = keys.get("labels") or _column(features, "ClassLabel", LABELS, "labels")
        raw = np.asarray(rows.with_format("numpy")[self.label][:])
        names = getattr(features[self.label], "names", None)
        self.classes = None if names is None else [str(name) for name in names]
        if raw.dtype.kind not in "iu":
            values, raw = np.unique(raw, return_inverse=True)
            self.classes = [str(value) for value in values]
        self.targets = np.asarray(raw, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return self._image(self.rows[row][self.image]), self.targets[row]

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[Any, Any]]:
        columns = self.rows[list(rows)]
        images = map(self._image, columns[self.image])
        return list(zip(images, self.targets[list(rows)], strict=True))

    def _image(self, value: Any) -> Any:
        """Return a PIL image unchanged, and a list as an array of the type of its column."""
        dtype = getattr(self.rows.features[self.image], "dtype", None)
        is_array = isinstance(value, list | np.ndarray) and isinstance(dtype, str)
        return np.asarray(value, dtype=dtype) if is_array else value


def _column(features: Any, kind: str, names: Sequence[str], kind_name: str) -> str:
    of_kind = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if len(of_kind) == 1:
        return str(of_kind[0])
    named = find(names, of_kind or features)
    if named is None:
        raise MergeError(
            f"real dataset: {kind_name}: expected one column of type {kind}, or one with a common "
            f"name for them, got {of_kind or list(features)}; rename it with rename_column, or "
            f"read it with vaeaug.read(..., keys=)"
        )
    return str(named)


def _labels_of(real: Any) -> np.ndarray:
    for name in ("targets", "labels"):
        values = getattr(real, name, None)
        if values is None or np.shape(values)[:1] != (len(real),):
            continue
        labels = np.asarray(values)
        # With a target_transform, the labels of the items differ; then the items are used.
        if labels.size == len(real) and int(labels.reshape(-1)[0]) == _label(real[0], 0):
            return labels.reshape(-1)
    return np.array([_label(real[i], i) for i in range(len(real))], dtype=np.int64)


def _names_of(real: Any) -> Sequence[str] | None:
    for name in ("class_names", "classes"):
        names = getattr(real, name, None)
        if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names):
            return names
    return None


def _label(item: Any, row: int) -> int:
    label = np.asarray(item[1])
    if label.size != 1 or label.dtype.kind not in "iu":
        raise MergeError(f"real dataset[{row}]: expected one integer label, got {item[1]!r}")
    return int(label.reshape(()))


def _image(item: Any, row: int, rank: int, *, features: bool = False) -> np.ndarray:
    """Return the image of an item as an array with channels last; `rank` is its number of axes.

    A vector is a signal of one channel, or the features of an image.
    """
    try:
        image = item[0]
    except (TypeError, IndexError, KeyError) as error:
        raise MergeError(
            f"real dataset[{row}]: expected (image, label), got {type(item).__name__}"
        ) from error
    is_tensor = isinstance(image, torch.Tensor)
    array = image.detach().cpu().numpy() if is_tensor else np.asarray(image)  # or a PIL image
    if array.ndim == rank - 1:
        return array[None] if features else array[..., None]
    return np.moveaxis(array, 0, -1) if is_tensor and array.ndim else array


def channels_last(images: torch.Tensor, image_shape: Sequence[int]) -> np.ndarray:
    """Convert a tensor to an array of images; the inverse of `channels_first`.

    Args:
        images: Images, (n, c, space...), or feature vectors, (n, f).
        image_shape: Shape of one image, (space..., c).

    Returns:
        The images, (n, space..., c).
    """
    if are_features(image_shape):
        return images[:, None].numpy()
    return images.movedim(1, -1).numpy()


def channels_first(images: np.ndarray) -> torch.Tensor:
    """Convert an array of images to a tensor with channels first.

    Args:
        images: Images, (n, space..., c).

    Returns:
        The images, (n, c, space...); feature vectors without their only position, (n, f).
    """
    if are_features(images.shape[1:]):
        return torch.from_numpy(np.ascontiguousarray(images[:, 0]))
    return torch.from_numpy(np.ascontiguousarray(images)).movedim(-1, 1)
