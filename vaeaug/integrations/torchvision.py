"""torchvision v2 transforms: `VAEMix` for batches, `LatentAugment` for images and batches.

All randomness is drawn from torch's generator in ``make_params``, none in ``transform``; what is no
image passes through as the same object.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torchvision import tv_tensors
from torchvision.transforms import v2

from vaeaug.data.vocabulary import LABELS, find
from vaeaug.generator import SAMPLERS, ClassMover, Synthesizer, draw_batch
from vaeaug.integrations._artefacts import (
    RANGE_SLACK,
    GeneratorSource,
    TransformError,
    class_indices,
    say_verdict_of,
)

Labels = int | Tensor
LabelsGetter = Callable[[Any], Labels | None] | Literal["default"]


class _GeneratorTransform(v2.Transform):
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
        _in_unit_interval("p", p)
        if labels_getter != "default" and not callable(labels_getter):
            raise TransformError(
                f"labels_getter: expected a function or 'default', got {labels_getter!r}"
            )
        self.p = float(p)
        self.class_names = None if class_names is None else tuple(class_names)
        self.value_range = value_range
        self._source = GeneratorSource(synthesizer, sha256)
        say_verdict_of(self._source.path, stacklevel=3)
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


class VAEMix(_GeneratorTransform):
    """Replaces a share of a batch's images by synthetic ones of the same class.

    A batch transform such as torchvision's ``MixUp`` and ``CutMix``: ``images, labels =
    mix(images, labels)`` after the loader or in its ``collate_fn``. It runs where the batch is.
    Put it before ``MixUp`` or ``CutMix``, and before ``Normalize``. Its samples are not screened
    (near-copies, wrong classes): `vaeaug.merge` and `SyntheticPool` draw screened ones.

    Args:
        synthesizer: A trained generator, its folder or a run folder. A generator that holds its
            training images (``attach``) keeps their detail in samples that start from one.
        p: Probability that a batch is mixed at all.
        share: Probability of each image of such a batch to be replaced. The same for every class:
            synthetic samples of some classes alone teach that synthetic means these classes.
        sampler: As for `Synthesizer.sample`.
        temperature: Scale of the noise.
        labels_getter: Finds the labels in the input. By default the second input, or an entry of a
            name in use for them, such as label, labels, target, class or category.
        class_names: Names of the classes in the order of the labels, where that is not the
            generator's.
        value_range: Lowest and highest value of the images. Default: 0 to 255 for ``uint8``, for
            floats the generator's, or 0 to 1 where it learned from ``uint8``.
        sha256: Hash that a generator's folder must have.

    Input and output: images (n, C, space...), ``uint8`` or floating point; labels (n,) or (n, 1)
    indices, which stay the same object, or (n, K) probabilities of the K classes: a replaced
    image's class is drawn by them and its row becomes that class alone. Other entries pass through.

    Raises:
        TransformError: If an argument or the input is not of this kind, or an accelerator would be
            used in a worker process.

    Warns:
        UserWarning: If the folder is a run whose evaluation found that the synthetic data does not
            help.
    """

    _transformed_types = (torch.Tensor,)

    def __init__(
        self,
        synthesizer: Synthesizer | str | Path,
        p: float = 1.0,
        share: float = 0.3,
        *,
        sampler: str = "auto",
        temperature: float = 1.0,
        labels_getter: LabelsGetter = "default",
        class_names: Sequence[str] | None = None,
        value_range: tuple[float, float] | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__(
            synthesizer,
            p,
            labels_getter=labels_getter,
            class_names=class_names,
            value_range=value_range,
            sha256=sha256,
        )
        _in_unit_interval("share", share)
        if sampler not in ("auto", *SAMPLERS) or sampler in ("transfer", "blend"):
            raise TransformError(
                f"sampler: expected auto, or one of {', '.join(SAMPLERS)} that keeps the label "
                f"(neither transfer nor blend), got {sampler!r}"
            )
        if not 0 <= temperature < float("inf"):
            raise TransformError(f"temperature: expected at least 0, got {temperature}")
        self.share, self.sampler, self.temperature = float(share), sampler, float(temperature)

    def forward(self, *inputs: Any) -> Any:
        """``(images, labels, ...)`` in and out, in the structure that came in."""
        sample = inputs if len(inputs) > 1 else inputs[0]
        flat, spec = tree_flatten(sample)
        self.check_inputs(flat)
        labels = self._labels_getter(sample)
        if not isinstance(labels, Tensor) or labels.ndim not in (1, 2):
            got = f"shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels)
            raise TransformError(
                f"VAEMix: expected labels as a tensor (n,), (n, 1) or (n, K) of a batch, got {got}"
            )
        needed = self._needs_transform_list(flat)
        needed = [need and inpt is not labels for need, inpt in zip(needed, flat, strict=True)]
        images = [inpt for inpt, need in zip(flat, needed, strict=True) if need]
        for image in images:
            if not image.ndim or len(image) != len(labels):
                raise TransformError(
                    f"VAEMix: expected a batch with a label for each image, got images of shape "
                    f"{tuple(image.shape)} and {len(labels)} labels"
                )
        params = self.make_params(images)
        if not images or not params["rows"].any():
            return sample
        n_classes = len(self.class_names or self._generator(images[0].device).class_names)
        classes = self._classes(labels, params["uniform"], n_classes)
        params |= {"labels": labels, "classes": classes}
        place = next(i for i, inpt in enumerate(flat) if inpt is labels)
        needed[place] = True
        out = [
            self.transform(inpt, params) if need else inpt
            for inpt, need in zip(flat, needed, strict=True)
        ]
        return tree_unflatten(out, spec)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Which rows are replaced, and the random numbers of what replaces them."""
        n = len(flat_inputs[0]) if flat_inputs else 0
        mixed = bool(torch.rand(()) < self.p)
        rows = torch.rand(n) < self.share
        return {
            "rows": rows & mixed,
            "uniform": torch.rand(n),
            "seed": int(torch.randint(2**62, ())),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Images with some replaced; labels as they are now."""
        rows, classes = params["rows"], params["classes"]
        if inpt is params["labels"]:
            if _are_indices(inpt):
                return inpt
            changed = inpt.clone()
            at = torch.nonzero(rows).squeeze(1).to(inpt.device)
            changed[at] = 0
            changed[at, classes[rows].to(inpt.device)] = 1
            return changed
        generator = self._generator(inpt.device)
        self._check_shape(generator, inpt.shape[1:])
        value_range = self._range(generator, inpt.dtype)
        self._check_values(inpt, value_range)
        chosen = self._indices(generator, classes[rows])
        unit = draw_batch(
            generator,
            chosen.numpy(),
            seed=params["seed"],
            sampler=self.sampler,
            temperature=self.temperature,
        )
        output = inpt.clone()
        output[rows.to(inpt.device)] = _from_unit(unit, value_range, inpt.dtype)
        return tv_tensors.wrap(output, like=inpt) if _is_tv(inpt) else output

    def _classes(self, labels: Tensor, uniform: Tensor, n_classes: int) -> Tensor:
        """Class of each image; of probabilities one is drawn."""
        labels = labels.detach().cpu()
        if _are_indices(labels):
            return labels.reshape(-1)
        if labels.ndim == 1 or labels.shape[1] != n_classes:
            raise TransformError(
                f"VAEMix: labels: expected class indices (n,) or (n, 1), or probabilities of the "
                f"{n_classes} classes (n, {n_classes}), got {labels.dtype} of shape "
                f"{tuple(labels.shape)}"
            )
        ends = labels.double().cumsum(dim=1)
        total = ends[:, -1:]
        if not bool((labels >= 0).all()) or not bool(torch.isfinite(total).all()):
            raise TransformError("VAEMix: labels: expected class probabilities of at least 0")
        drawn = (uniform.double()[:, None] * total >= ends).sum(dim=1)
        return drawn.clamp(max=labels.shape[1] - 1)


class LatentAugment(_GeneratorTransform):
    """Moves a real image within its class in latent space; its label stays.

    The image goes part of the way towards a neighbour of its class, and by default keeps the detail
    that the decoder would lose: ``image + decode(moved) - decode(own)``. For one image or a batch,
    in a dataset, after the loader, or in a ``Compose``, before ``Normalize``.

    Args:
        synthesizer: A trained generator, its folder or a run folder. A folder is loaded in each
            worker process for itself.
        strength: Largest part of the way to the neighbour, in (0, 1]; the least is half of it.
        p: Probability of each image to be moved.
        labels_getter: Finds the labels in the input. By default the second input, or an entry of a
            name in use for them, such as label, labels, target, class or category. Where there are
            none, each image is taken to be of the class under which its bound is highest, which
            costs a pass per class.
        residual: Keep detail; else give the moved reconstruction, which is as sharp as the decoder.
        class_names: As for `VAEMix`.
        value_range: As for `VAEMix`.
        sha256: Hash that a generator's folder must have.

    Input and output: a PIL image (mode L, RGB or RGBA), a tensor or ``tv_tensors.Image`` (C,
    space...) or (n, C, space...), or a ``tv_tensors.Video`` (T, C, H, W) for a generator of short
    video. What is not moved is the same object, or bit for bit the same row of a batch.

    Raises:
        TransformError: If an argument or the input is not of this kind, values are outside the
            range, or an accelerator would be used in a worker process.
    """

    _transformed_types = (torch.Tensor, PIL.Image.Image)

    def __init__(
        self,
        synthesizer: Synthesizer | str | Path,
        strength: float = 0.8,
        p: float = 0.5,
        *,
        labels_getter: LabelsGetter = "default",
        residual: bool = True,
        class_names: Sequence[str] | None = None,
        value_range: tuple[float, float] | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__(
            synthesizer,
            p,
            labels_getter=labels_getter,
            class_names=class_names,
            value_range=value_range,
            sha256=sha256,
        )
        _in_unit_interval("strength", strength)
        self.strength, self.residual = float(strength), bool(residual)
        self._mover: ClassMover | None = None

    def forward(self, *inputs: Any) -> Any:
        """An image, ``(image, label, ...)`` or a mapping, in and out."""
        sample = inputs if len(inputs) > 1 else inputs[0]
        flat, spec = tree_flatten(sample)
        self.check_inputs(flat)
        labels = self._labels_getter(sample)
        needed = [
            need and inpt is not labels
            for need, inpt in zip(self._needs_transform_list(flat), flat, strict=True)
        ]
        images = [inpt for inpt, need in zip(flat, needed, strict=True) if need]
        if not images:
            return sample
        params = self.make_params(images)
        if not params["rows"].any():
            return sample
        params["labels"] = labels
        out = [
            self.transform(inpt, params) if need else inpt
            for inpt, need in zip(flat, needed, strict=True)
        ]
        return tree_unflatten(out, spec)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Which images are moved, towards which neighbour and how far."""
        generator = self._generator(_device_of(flat_inputs[0]))
        n = max(self._n_images(generator, inpt) for inpt in flat_inputs)
        return {
            "rows": torch.rand(n) < self.p,
            "uniform": torch.rand(n, 2, dtype=torch.float32),
            "noise": torch.randn(n, generator.model.latent_dim, dtype=torch.float32),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The image or batch, with the chosen ones moved."""
        device = _device_of(inpt)
        generator = self._generator(device)
        batch, dtype = self._batch(generator, inpt), _dtype_of(inpt)
        rows = params["rows"]
        if len(batch) != len(rows):
            raise TransformError(
                f"LatentAugment: expected as many images in each input, got {len(batch)} and "
                f"{len(rows)}"
            )
        low, high = self._range(generator, dtype)
        chosen = batch[rows.to(device)]
        self._check_values(chosen, (low, high))
        unit = (chosen.float() - low) / (high - low)
        if self._mover is None or self._mover.generator is not generator:
            self._mover = ClassMover(generator)
        moved = self._mover.move(
            unit,
            self._labels(generator, params["labels"], unit, rows).to(device),
            uniform=params["uniform"][rows].to(device),
            noise=params["noise"][rows].to(device),
            strength=self.strength,
            residual=self.residual,
        )
        output = batch.clone()
        output[rows.to(device)] = _from_unit(moved, (low, high), dtype)
        return _like(output, inpt)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_mover": None}  # its latents are made again

    def _labels(
        self, generator: Synthesizer, labels: Labels | None, unit: Tensor, rows: Tensor
    ) -> Tensor:
        """Class of each chosen image, as the generator numbers them."""
        if labels is None:
            low, high = generator.value_range
            stored = (unit.movedim(1, -1).cpu().numpy() * (high - low) + low).astype(np.float32)
            return torch.from_numpy(generator.likeliest_labels(stored))
        given = torch.as_tensor(labels).detach().cpu()
        if given.is_floating_point() or given.numel() != len(rows):
            raise TransformError(
                f"LatentAugment: expected {len(rows)} class indices as labels, got "
                f"{given.dtype} of shape {tuple(given.shape)}; apply it before labels are mixed"
            )
        return self._indices(generator, given.reshape(-1)[rows])

    def _n_images(self, generator: Synthesizer, inpt: Any) -> int:
        if isinstance(inpt, PIL.Image.Image):
            return 1
        rank = len(generator.image_shape)
        if inpt.ndim not in (rank, rank + 1):
            raise TransformError(
                f"LatentAugment: expected an image of {rank} axes or a batch of {rank + 1}, got "
                f"shape {tuple(inpt.shape)}"
            )
        return 1 if inpt.ndim == rank else len(inpt)

    def _batch(self, generator: Synthesizer, inpt: Any) -> Tensor:
        """(n, C, space...), in the units that came in."""
        if isinstance(inpt, PIL.Image.Image):
            if inpt.mode not in ("L", "RGB", "RGBA"):
                raise TransformError(
                    f"LatentAugment: expected a PIL image of mode L, RGB or RGBA, got {inpt.mode}"
                )
            batch = v2.functional.pil_to_tensor(inpt)[None]
        else:
            batch = inpt.as_subclass(Tensor)
            if isinstance(inpt, tv_tensors.Video):
                batch = batch.movedim(-4, -3)  # (T, C, H, W) to (C, T, H, W)
            batch = batch if batch.ndim > len(generator.image_shape) else batch[None]
        self._check_shape(generator, batch.shape[1:])
        return cast(Tensor, batch)


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


def _are_indices(labels: Tensor) -> bool:
    """Whether labels are a class index for each image, and not probabilities."""
    if labels.is_floating_point() or labels.is_complex():
        return False
    return labels.ndim == 1 or labels.shape[1] == 1


def _in_unit_interval(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise TransformError(f"{name}: expected a number from 0 to 1, got {value!r}")


def _device_of(inpt: Any) -> torch.device:
    return inpt.device if isinstance(inpt, Tensor) else torch.device("cpu")


def _dtype_of(inpt: Any) -> torch.dtype:
    return inpt.dtype if isinstance(inpt, Tensor) else torch.uint8


def _is_tv(inpt: Any) -> bool:
    return isinstance(inpt, tv_tensors.TVTensor)


def _from_unit(unit: Tensor, value_range: tuple[float, float], dtype: torch.dtype) -> Tensor:
    low, high = value_range
    images = unit * (high - low) + low
    return (images if dtype.is_floating_point else images.round()).to(dtype)


def _like(batch: Tensor, inpt: Any) -> Any:
    """A batch in the shape and type of what came in."""
    if isinstance(inpt, PIL.Image.Image):
        return v2.functional.to_pil_image(batch[0], mode=inpt.mode)
    output = batch if batch.ndim == inpt.ndim else batch[0]
    if isinstance(inpt, tv_tensors.Video):
        output = output.movedim(-4, -3)
    return tv_tensors.wrap(output, like=inpt) if _is_tv(inpt) else output
