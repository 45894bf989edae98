"""The real images behind one interface, whatever the user keeps them in."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vaeaug.data import LabelledImages, read_configured
from vaeaug.data.vocabulary import IMAGES, LABELS, PATHS, find
from vaeaug.merging._slots import MergeError
from vaeaug.shards import Manifest, ShardDataset, described_run

_log = logging.getLogger("vaeaug")
# Between these, pictures go back and forth by a scale that everybody knows.
_CONVENTIONS = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))


@dataclass(frozen=True)
class Units:
    """In what numbers images are given.

    Attributes:
        dtype: Of the values.
        value_range: Lowest and highest value that one can have.
    """

    dtype: np.dtype[Any]
    value_range: tuple[float, float]

    def of(self, images: torch.Tensor, own: "Units") -> torch.Tensor:
        """Images of other units in these."""
        if self == own:
            return images
        (low, high), (least, most) = self.value_range, own.value_range
        scaled = (images.float() - least) / (most - least) * (high - low) + low
        scaled = scaled if self.dtype.kind == "f" else scaled.round()
        return scaled.to(torch.from_numpy(np.empty(0, self.dtype)).dtype)

    def __str__(self) -> str:
        low, high = self.value_range
        return f"{self.dtype.name} from {low:g} to {high:g}"


class RealSource:
    """The real images behind one interface: their labels, what they say, and rows of tensors."""

    def __init__(
        self,
        given: Any,
        labels: np.ndarray,
        class_names: tuple[str, ...],
        *,
        shape: tuple[int, ...],
        units: Units,
        arrays: np.ndarray | None,
    ) -> None:
        self.given = given
        self.labels = labels
        self.class_names = class_names
        self.shape = shape
        self.units, self.dtype = units, units.dtype
        self.fingerprint: str | None = getattr(given, "fingerprint", None)
        self._arrays = arrays

    def take(self, rows: np.ndarray) -> Iterable[torch.Tensor]:
        """Channels-first tensors of ``rows``, in that order."""
        if self._arrays is not None:
            return channels_first(self._arrays[rows]).unbind(0)
        if hasattr(self.given, "__getitems__"):
            items = self.given.__getitems__(rows.tolist())
        else:
            items = [self.given[row] for row in rows.tolist()]
        images = []
        for row, item in zip(rows.tolist(), items, strict=True):
            image = _image(item, row, len(self.shape))
            if image.shape != self.shape or image.dtype != self.dtype:
                raise MergeError(
                    f"real dataset[{row}]: expected {self.dtype.name} of shape {self.shape}, got "
                    f"{image.dtype.name} of shape {image.shape}"
                )
            images.append(torch.from_numpy(np.moveaxis(image, -1, 0).copy()))
        return images


def real_source(
    real: Any,
    synthetic: ShardDataset,
    class_names: Sequence[str] | None,
    value_range: tuple[float, float] | None,
) -> RealSource:
    """Read labels and first image of ``real``, whatever it is."""
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
        said = value_range or getattr(real, "value_range", None) or synthetic.value_range
        units = Units(np.dtype(dtype), (float(said[0]), float(said[1])))
    elif hasattr(real, "__getitem__") and hasattr(real, "__len__"):
        if len(real) == 0:
            raise MergeError("real dataset: expected at least one image, got none")
        if type(real).__module__.startswith("datasets."):
            real = _HuggingFaceRows(real, _settings(synthetic.manifest).get("keys") or {})
        arrays = None
        first = _image(real[0], 0, len(synthetic.image_shape))
        shape, dtype = first.shape, first.dtype
        labels = _labels_of(real)
        if names is None:
            names = _names_of(real) or synthetic.class_names
        units = _units_of(first, synthetic, value_range)
    else:
        raise MergeError(
            f"real: expected images with class_names, a map-style dataset with __len__ and "
            f"__getitem__, or what vaeaug.read takes, got {type(real).__name__}"
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


def check_belongs(source: RealSource, synthetic: ShardDataset, on_mismatch: str) -> None:
    """Refuse a real dataset that the synthetic images were not made for."""
    have, want = set(source.class_names), set(synthetic.class_names)
    if have != want or len(source.class_names) != len(want):
        raise MergeError(
            f"class names: expected those of the run {synthetic.class_names}, got "
            f"{source.class_names}; class_names= says them in the order of the real labels"
        )
    if source.shape != synthetic.image_shape:
        raise MergeError(
            f"image shape: expected {synthetic.image_shape} as in the run, got {source.shape}"
        )
    own = units_of_run(synthetic)
    _check_units(source.units, own)
    expected = synthetic.fingerprint
    if on_mismatch == "error" and source.fingerprint not in (None, expected):
        raise MergeError(
            f"fingerprint: expected {expected}, the training split that the generator saw, got "
            f"{source.fingerprint}; on_mismatch='ignore' merges them nevertheless"
        )
    if source.units != own:
        _log.info(
            "the samples are given as the real images are, %s (in the run: %s)", source.units, own
        )


def units_of_run(synthetic: ShardDataset) -> Units:
    """The units of the samples as they are stored."""
    low, high = synthetic.value_range
    return Units(np.dtype(synthetic.dtype), (float(low), float(high)))


def _check_units(given: Units, own: Units) -> None:
    if given.dtype == own.dtype and np.allclose(given.value_range, own.value_range):
        return
    known = all(
        any(np.allclose(each.value_range, convention) for convention in _CONVENTIONS)
        for each in (given, own)
    )
    if not known or given.dtype.kind not in "fu":
        raise MergeError(
            f"real images: expected values as in the run ({own}), or of a range that is known to "
            f"be the same as one of another scale (0 to 1, -1 to 1, 0 to 255, 0 to 65535), got "
            f"{given}; say value_range=, or convert with transform=, which sees real and "
            f"synthetic images alike"
        )


def _units_of(
    first: np.ndarray, synthetic: ShardDataset, value_range: tuple[float, float] | None
) -> Units:
    """The units of a dataset that says none, by the type and the values of its first image."""
    own = units_of_run(synthetic)
    least, most = (float(first.min()), float(first.max())) if first.size else (0.0, 0.0)
    if value_range is not None:
        low, high = value_range
    elif first.dtype == own.dtype:
        low, high = own.value_range
    elif first.dtype == np.uint8:
        low, high = 0.0, 255.0
    else:
        low, high = 0.0, 1.0  # what ToTensor and ToDtype(scale=True) give
    slack = 1e-3 * (high - low)
    if first.dtype.kind == "f" and not (least >= low - slack and most <= high + slack):
        raise MergeError(
            f"value range: expected the first real image in ({low:g}, {high:g}), got values in "
            f"[{least:g}, {most:g}]; say value_range=(lowest, highest), and merge before Normalize"
        )
    return Units(np.dtype(first.dtype), (float(low), float(high)))


def _settings(manifest: Manifest) -> Mapping[str, Any]:
    """How the run read its data; empty where it does not say."""
    settings = described_run(manifest)["config"].get("data")
    return settings if isinstance(settings, Mapping) else {}


def _read(real: Any, manifest: Manifest) -> LabelledImages:
    """What `vaeaug.read` takes, read as the run read it."""
    return read_configured(real, _settings(manifest), seed=manifest.run_seed)


class _HuggingFaceRows:
    """A ``datasets.Dataset`` as a map-style dataset of (image, label).

    The image is its column of type ``Image``, the label that of type ``ClassLabel``, else those of
    a name that is in use for them, or those that the run read.
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
            found, raw = np.unique(raw, return_inverse=True)
            self.classes = [str(name) for name in found]
        self.targets = np.asarray(raw, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return self._image(self.rows[row][self.image]), self.targets[row]

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[Any, Any]]:
        found = self.rows[list(rows)]
        images = map(self._image, found[self.image])
        return list(zip(images, self.targets[list(rows)], strict=True))

    def _image(self, value: Any) -> Any:
        """A picture as it is, an array of the type that its column says: lists have none."""
        dtype = getattr(self.rows.features[self.image], "dtype", None)
        is_array = isinstance(value, list | np.ndarray) and isinstance(dtype, str)
        return np.asarray(value, dtype=dtype) if is_array else value


def _column(features: Any, kind: str, names: Sequence[str], what: str) -> str:
    of_kind = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if len(of_kind) == 1:
        return str(of_kind[0])
    named = find(names, of_kind or features)
    if named is None:
        raise MergeError(
            f"real dataset: {what}: expected one column of type {kind}, or of a name that is in "
            f"use for them, got {of_kind or list(features)}; rename_column gives it one, or read "
            f"it with vaeaug.read(..., keys=)"
        )
    return str(named)


def _labels_of(real: Any) -> np.ndarray:
    for name in ("targets", "labels"):
        found = getattr(real, name, None)
        if found is None or np.shape(found)[:1] != (len(real),):
            continue
        labels = np.asarray(found)
        # A target_transform changes what the items say: then only the items are right.
        if labels.size == len(real) and int(labels.reshape(-1)[0]) == _label(real[0], 0):
            return labels.reshape(-1)
    return np.array([_label(real[i], i) for i in range(len(real))], dtype=np.int64)


def _names_of(real: Any) -> Sequence[str] | None:
    for name in ("class_names", "classes"):
        found = getattr(real, name, None)
        if isinstance(found, (list, tuple)) and found and all(isinstance(n, str) for n in found):
            return found
    return None


def _label(item: Any, row: int) -> int:
    label = np.asarray(item[1])
    if label.size != 1 or label.dtype.kind not in "iu":
        raise MergeError(f"real dataset[{row}]: expected one integer label, got {item[1]!r}")
    return int(label.reshape(()))


def _image(item: Any, row: int, rank: int) -> np.ndarray:
    """The image of an item as an array with channels last, which has so many axes in the run."""
    try:
        image = item[0]
    except (TypeError, IndexError, KeyError) as error:
        raise MergeError(
            f"real dataset[{row}]: expected (image, label), got {type(item).__name__}"
        ) from error
    is_tensor = isinstance(image, torch.Tensor)
    array = image.detach().cpu().numpy() if is_tensor else np.asarray(image)  # or a PIL image
    if array.ndim == rank - 1:
        return array[..., None]
    return np.moveaxis(array, 0, -1) if is_tensor and array.ndim else array


def channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).movedim(-1, 1)
