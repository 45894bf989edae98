"""The real images behind one interface, whatever the user keeps them in."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from vaeaug.merging._slots import MergeError
from vaeaug.shards import ShardDataset


class RealSource:
    """The real images behind one interface: their labels, what they say, and rows of tensors."""

    def __init__(
        self,
        given: Any,
        labels: np.ndarray,
        class_names: tuple[str, ...],
        *,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        arrays: np.ndarray | None,
    ) -> None:
        self.given = given
        self.labels = labels
        self.class_names = class_names
        self.shape = shape
        self.dtype = dtype
        self.fingerprint: str | None = getattr(given, "fingerprint", None)
        value_range = getattr(given, "value_range", None)
        self.value_range = None if value_range is None else tuple(float(v) for v in value_range)
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
    real: Any, synthetic: ShardDataset, class_names: Sequence[str] | None
) -> RealSource:
    """Read labels and first image of ``real``, whatever it is."""
    names = class_names
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
    elif hasattr(real, "__getitem__") and hasattr(real, "__len__"):
        if len(real) == 0:
            raise MergeError("real dataset: expected at least one image, got none")
        if type(real).__module__.startswith("datasets."):
            real = _HuggingFaceRows(real)
        arrays = None
        first = _image(real[0], 0, len(synthetic.image_shape))
        shape, dtype = first.shape, first.dtype
        labels = _labels_of(real)
        if names is None:
            names = _names_of(real) or synthetic.class_names
        _check_values(first, synthetic.value_range)
    else:
        raise MergeError(
            f"real: expected images with class_names, or a map-style dataset with __len__ and "
            f"__getitem__, got {type(real).__name__}"
        )
    names = tuple(str(name) for name in names)
    if labels.size and labels.dtype.kind not in "iu":
        raise MergeError(f"real labels: expected integers, got {labels.dtype}")
    bad = labels[(labels < 0) | (labels >= len(names))]
    if bad.size:
        raise MergeError(
            f"real labels: expected an index of the {len(names)} classes, got {int(bad[0])}"
        )
    return RealSource(
        real, labels.astype(np.int64), names, shape=shape, dtype=np.dtype(dtype), arrays=arrays
    )


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
    if source.dtype != synthetic.dtype:
        raise MergeError(
            f"image dtype: expected {synthetic.dtype.name} as in the run, got {source.dtype.name}; "
            f"convert with transform=, which sees real and synthetic images alike"
        )
    if source.value_range is not None and not np.allclose(
        source.value_range, synthetic.value_range
    ):
        raise MergeError(
            f"value range: expected {synthetic.value_range} as in the run, got {source.value_range}"
        )
    expected = synthetic.fingerprint
    if on_mismatch == "error" and source.fingerprint not in (None, expected):
        raise MergeError(
            f"fingerprint: expected {expected}, the training split that the generator saw, got "
            f"{source.fingerprint}; on_mismatch='ignore' merges them nevertheless"
        )


class _HuggingFaceRows:
    """A ``datasets.Dataset`` as a map-style dataset of (image, label).

    The image is its column of type ``Image``, or the one called image or img; the label its column
    of type ``ClassLabel``, or the one called label or labels.
    """

    def __init__(self, rows: Any) -> None:
        features = rows.features
        self.rows = rows
        self.image = _column(features, "Image", ("image", "img"), "images")
        self.label = _column(features, "ClassLabel", ("label", "labels"), "labels")
        self.targets = np.asarray(rows.with_format("numpy")[self.label][:])
        names = getattr(features[self.label], "names", None)
        self.classes = None if names is None else [str(name) for name in names]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        item = self.rows[row]
        return item[self.image], item[self.label]

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[Any, Any]]:
        found = self.rows[list(rows)]
        return list(zip(found[self.image], found[self.label], strict=True))


def _column(features: Any, kind: str, names: Sequence[str], what: str) -> str:
    of_kind = [name for name, feature in features.items() if type(feature).__name__ == kind]
    found = of_kind or [name for name in names if name in features]
    if len(found) != 1:
        raise MergeError(
            f"real dataset: {what}: expected one column of type {kind}, or called "
            f"{' or '.join(names)}, got {found or list(features)}"
        )
    return str(found[0])


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


def _check_values(image: np.ndarray, value_range: tuple[float, float]) -> None:
    low, high = value_range
    slack = 1e-3 * (high - low)
    if image.dtype.kind == "f" and image.size:
        least, most = float(image.min()), float(image.max())
        if not (least >= low - slack and most <= high + slack):
            raise MergeError(
                f"value range: expected the first real image in {value_range} as in the run, got "
                f"values in [{least}, {most}]"
            )


def channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).movedim(-1, 1)
