"""What the torchvision transforms share: the generator, units, labels, and what is refused."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vaeaug.data.vocabulary import LABELS, find
from vaeaug.generator import Synthesizer
from vaeaug.integrations._artefacts import (
    RANGE_SLACK,
    GeneratorSource,
    TransformError,
    class_indices,
    warn_if_run_is_unhelpful,
)

Labels = int | Tensor
LabelsGetter = Callable[[Any], Labels | None] | Literal["default"]


class GeneratorTransform(v2.Transform):
    """What both transforms share: the generator, units, labels, and what is refused."""

    def __init__(
        self,
        synthesizer: Synthesizer | str | Path,
        p: float,
        *,
        labels_getter: LabelsGetter,
        class_names: Sequence[str] | None,
        value_range: tuple[float, float] | None,
        sha256: str | None,
    ) -> None:
        super().__init__()
        in_unit_interval("p", p)
        if labels_getter != "default" and not callable(labels_getter):
            raise TransformError(
                f"labels_getter: expected a function or 'default', got {labels_getter!r}"
            )
        self.p = float(p)
        self.class_names = None if class_names is None else tuple(class_names)
        self.value_range = value_range
        self._source = GeneratorSource(synthesizer, sha256)
        warn_if_run_is_unhelpful(self._source.path, stacklevel=3)
        self._labels_getter = default_labels if labels_getter == "default" else labels_getter

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse what describes places in an image: the image that comes out has others."""
        refused = (tv_tensors.BoundingBoxes, tv_tensors.Mask, tv_tensors.KeyPoints)
        for inpt in flat_inputs:
            if isinstance(inpt, refused):
                raise TransformError(
                    f"{type(self).__name__}: expected images and labels, got "
                    f"{type(inpt).__name__}: a synthetic image shows other shapes at other places, "
                    "which boxes, masks and keypoints of the real one would not fit"
                )

    def _generator(self, device: torch.device) -> Synthesizer:
        return self._source.on(device)

    def _range(self, generator: Synthesizer, dtype: torch.dtype) -> tuple[float, float]:
        """Lowest and highest value of images of a type, by torchvision's convention."""
        if self.value_range is not None:
            return self.value_range
        if dtype == torch.uint8:
            return 0.0, 255.0
        if not dtype.is_floating_point:
            raise TransformError(
                f"{type(self).__name__}: expected uint8 or floating-point images, got {dtype}"
            )
        # A generator of 8-bit images: floats are those images scaled to [0, 1].
        return (0.0, 1.0) if generator.dtype == np.uint8 else generator.value_range

    def _check_values(self, images: Tensor, value_range: tuple[float, float]) -> None:
        """Refuse images in other units than the samples that would stand among them."""
        low, high = value_range
        if not images.dtype.is_floating_point or not images.numel():
            return
        least, most = (float(end) for end in images.detach().aminmax())
        slack = RANGE_SLACK * (high - low)
        if not (least >= low - slack and most <= high + slack):
            raise TransformError(
                f"{type(self).__name__}: expected values from {low:g} to {high:g}, got {least:g} "
                f"to {most:g}; apply it before Normalize, or say value_range"
            )

    def _indices(self, generator: Synthesizer, labels: Tensor) -> Tensor:
        """The user's class indices as those of the generator."""
        indices = class_indices(self.class_names, generator.class_names, type(self).__name__)
        classes = labels.detach().cpu().numpy().astype(np.int64)
        bad = classes[(classes < 0) | (classes >= len(indices))]
        if bad.size:
            raise TransformError(
                f"{type(self).__name__}: labels: expected 0 to {len(indices) - 1}, got "
                f"{int(bad[0])}"
            )
        classes = indices[classes]
        for label in np.unique(classes).tolist():
            if not len(generator.rows[label]):
                raise TransformError(
                    f"{type(self).__name__}: class {generator.class_names[label]!r} had no "
                    "training images to learn from"
                )
        return torch.from_numpy(classes)

    def _check_shape(self, generator: Synthesizer, shape: Sequence[int]) -> None:
        *space, channels = generator.image_shape
        if tuple(shape) != (channels, *space):
            raise TransformError(
                f"{type(self).__name__}: expected images of shape {(channels, *space)}, channels "
                f"first, as the generator was trained on, got {tuple(shape)}"
            )


def default_labels(sample: Any) -> Labels | None:
    """The labels of a sample, or None: the second entry, or one of a name in use for them."""
    if isinstance(sample, Mapping):
        key = find(LABELS, (key for key in sample if isinstance(key, str)))
        labels = None if key is None else sample[key]
    elif isinstance(sample, Sequence) and not isinstance(sample, str) and len(sample) > 1:
        labels = sample[1]
    else:
        return None
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
        return torch.from_numpy(labels.astype(np.int64))
    is_label = isinstance(labels, (int, np.integer, Tensor)) and not isinstance(
        labels, (bool, tv_tensors.TVTensor)
    )
    return cast(Labels, labels) if is_label else None


def are_indices(labels: Tensor) -> bool:
    """Whether labels are a class index for each image, and not probabilities."""
    if labels.is_floating_point() or labels.is_complex():
        return False
    return labels.ndim == 1 or labels.shape[1] == 1


def in_unit_interval(name: str, value: float) -> None:
    """Refuse a number outside [0, 1]."""
    if not 0 <= value <= 1:
        raise TransformError(f"{name}: expected a number from 0 to 1, got {value!r}")


def device_of(inpt: Any) -> torch.device:
    """Where an input is."""
    return inpt.device if isinstance(inpt, Tensor) else torch.device("cpu")


def dtype_of(inpt: Any) -> torch.dtype:
    """Type of an input's values."""
    return inpt.dtype if isinstance(inpt, Tensor) else torch.uint8


def is_tv(inpt: Any) -> bool:
    """Whether an input is one of torchvision's tensors."""
    return isinstance(inpt, tv_tensors.TVTensor)


def from_unit(unit: Tensor, value_range: tuple[float, float], dtype: torch.dtype) -> Tensor:
    """Images in [0, 1] in another range and type."""
    low, high = value_range
    images = unit * (high - low) + low
    return (images if dtype.is_floating_point else images.round()).to(dtype)


def like(batch: Tensor, inpt: Any) -> Any:
    """A batch in the shape and type of what came in."""
    if isinstance(inpt, PIL.Image.Image):
        return v2.functional.to_pil_image(batch[0], mode=inpt.mode)
    output = batch if batch.ndim == inpt.ndim else batch[0]
    if isinstance(inpt, tv_tensors.Video):
        output = output.movedim(-4, -3)
    return tv_tensors.wrap(output, like=inpt) if is_tv(inpt) else output
