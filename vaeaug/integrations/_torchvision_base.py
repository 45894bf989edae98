"""The common part of the torchvision transforms: generator, value ranges, labels and checks."""

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
    """Base class of both transforms: generator, value ranges, labels and input checks."""

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
        """Reject boxes, masks and keypoints, which do not apply to the resulting image.

        Args:
            flat_inputs: All entries of the input.

        Raises:
            TransformError: If there are any.
        """
        refused = (tv_tensors.BoundingBoxes, tv_tensors.Mask, tv_tensors.KeyPoints)
        for inpt in flat_inputs:
            if isinstance(inpt, refused):
                raise TransformError(
                    f"{type(self).__name__}: expected images and labels, got "
                    f"{type(inpt).__name__}: boxes, masks and keypoints of a real image do not "
                    "match the shapes of a synthetic one"
                )

    def _generator(self, device: torch.device) -> Synthesizer:
        return self._source.on(device)

    def _range(self, generator: Synthesizer, dtype: torch.dtype) -> tuple[float, float]:
        """Return the value range of images of a type, by torchvision's convention."""
        if self.value_range is not None:
            return self.value_range
        if dtype == torch.uint8:
            return 0.0, 255.0
        if not dtype.is_floating_point:
            raise TransformError(
                f"{type(self).__name__}: expected uint8 or floating-point images, got {dtype}"
            )
        # With a generator of 8-bit images, floats are such images scaled to [0, 1].
        return (0.0, 1.0) if generator.dtype == np.uint8 else generator.value_range

    def _check_values(self, images: Tensor, value_range: tuple[float, float]) -> None:
        """Reject images whose values are outside the range of the samples that join them."""
        low, high = value_range
        if not images.dtype.is_floating_point or not images.numel():
            return
        smallest, largest = (float(end) for end in images.detach().aminmax())
        slack = RANGE_SLACK * (high - low)
        if not (smallest >= low - slack and largest <= high + slack):
            raise TransformError(
                f"{type(self).__name__}: expected values from {low:g} to {high:g}, got "
                f"{smallest:g} to {largest:g}; apply it before Normalize, or pass value_range"
            )

    def _indices(self, generator: Synthesizer, labels: Tensor) -> Tensor:
        """Convert the user's class indices to those of the generator."""
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
    """Find the labels of a sample: the second entry, or the one with a common name for labels.

    Args:
        sample: The input of a transform.

    Returns:
        The labels, or None.
    """
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
    """Check whether labels are a class index for each image, rather than probabilities.

    Args:
        labels: Labels of a batch, (n,), (n, 1) or (n, K).

    Returns:
        Whether they are indices.
    """
    if labels.is_floating_point() or labels.is_complex():
        return False
    return labels.ndim == 1 or labels.shape[1] == 1


def in_unit_interval(name: str, value: float) -> None:
    """Reject a number outside [0, 1].

    Args:
        name: Name of the argument.
        value: Its value.

    Raises:
        TransformError: If it is outside.
    """
    if not 0 <= value <= 1:
        raise TransformError(f"{name}: expected a number from 0 to 1, got {value!r}")


def device_of(inpt: Any) -> torch.device:
    """Return the device of an input.

    Args:
        inpt: A tensor or a PIL image.

    Returns:
        The device.
    """
    return inpt.device if isinstance(inpt, Tensor) else torch.device("cpu")


def dtype_of(inpt: Any) -> torch.dtype:
    """Return the type of the values of an input.

    Args:
        inpt: A tensor or a PIL image.

    Returns:
        The type.
    """
    return inpt.dtype if isinstance(inpt, Tensor) else torch.uint8


def is_tv(inpt: Any) -> bool:
    """Check whether an input is one of torchvision's tensor subclasses.

    Args:
        inpt: Any input.

    Returns:
        Whether it is.
    """
    return isinstance(inpt, tv_tensors.TVTensor)


def from_unit(unit: Tensor, value_range: tuple[float, float], dtype: torch.dtype) -> Tensor:
    """Convert images from [0, 1] to another range and type.

    Args:
        unit: Images in [0, 1].
        value_range: Lowest and highest value.
        dtype: Type of the result.

    Returns:
        The converted images.
    """
    low, high = value_range
    images = unit * (high - low) + low
    return (images if dtype.is_floating_point else images.round()).to(dtype)


def like(batch: Tensor, inpt: Any) -> Any:
    """Convert a batch to the shape and type of the input.

    Args:
        batch: Images, (n, c, *space).
        inpt: The input.

    Returns:
        The output of the transform.
    """
    if isinstance(inpt, PIL.Image.Image):
        return v2.functional.to_pil_image(batch[0], mode=inpt.mode)
    output = batch if batch.ndim == inpt.ndim else batch[0]
    if isinstance(inpt, tv_tensors.Video):
        output = output.movedim(-4, -3)
    return tv_tensors.wrap(output, like=inpt) if is_tv(inpt) else output
