"""torchvision v2 transforms: `VAEMix` for batches, `LatentAugment` for images and batches.

All random numbers are drawn from torch's generator in ``make_params``, none in ``transform``.
Entries other than images are passed through as the same objects.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torchvision import tv_tensors
from torchvision.transforms import v2

from vaeaug.generator import SAMPLERS, ClassMover, Synthesizer, draw_batch
from vaeaug.integrations._artefacts import TransformError
from vaeaug.integrations._torchvision_base import (
    GeneratorTransform,
    Labels,
    LabelsGetter,
    are_indices,
    device_of,
    dtype_of,
    from_unit,
    in_unit_interval,
    is_tv,
    like,
)


class VAEMix(GeneratorTransform):
    """Replaces a share of the images of a batch by synthetic ones of the same class.

    It is a batch transform like torchvision's ``MixUp`` and ``CutMix``: ``images, labels =
    mix(images, labels)`` after the loader or in its ``collate_fn``. It runs on the device of the
    batch. Apply it before ``MixUp`` or ``CutMix``, and before ``Normalize``. Its samples are not
    screened for near-copies and wrong classes, unlike those of `vaeaug.merge` and `SyntheticPool`.

    Args:
        synthesizer: A trained generator, its folder or a run folder. A generator that holds its
            training images (``attach``) keeps their detail in samples that start from one.
        p: Probability that a batch is mixed at all.
        share: Probability that an image of such a batch is replaced. It is the same for every
            class: with synthetic samples of only some classes, a classifier learns that synthetic
            means these classes.
        sampler: As for `Synthesizer.sample`.
        temperature: Scale of the noise.
        labels_getter: Finds the labels in the input. Default: the second input, or the entry with
            a common name such as label, labels, target, class or category.
        class_names: Class names in the order of the labels, if it differs from that of the
            generator.
        value_range: Lowest and highest value of the images. Default: 0 to 255 for ``uint8``; for
            floats that of the generator, or 0 to 1 if it was trained on ``uint8``.
        sha256: Expected hash of a generator's folder.

    Input and output: images (n, C, space...), ``uint8`` or floating point; labels, either (n,) or
    (n, 1) indices, which remain the same object, or (n, K) probabilities of the K classes, from
    which the class of a replaced image is drawn; its row then becomes one-hot. Other entries are
    passed through.

    Raises:
        TransformError: If an argument or the input is not supported, or an accelerator would be
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
        in_unit_interval("share", share)
        if sampler not in ("auto", *SAMPLERS) or sampler in ("transfer", "blend"):
            raise TransformError(
                f"sampler: expected auto, or one of {', '.join(SAMPLERS)} that keeps the label "
                f"(neither transfer nor blend), got {sampler!r}"
            )
        if not 0 <= temperature < float("inf"):
            raise TransformError(f"temperature: expected at least 0, got {temperature}")
        self.share, self.sampler, self.temperature = float(share), sampler, float(temperature)

    def forward(self, *inputs: Any) -> Any:
        """Transform ``(images, labels, ...)``; the structure of the input is kept."""
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
        label_position = next(i for i, inpt in enumerate(flat) if inpt is labels)
        needed[label_position] = True
        out = [
            self.transform(inpt, params) if need else inpt
            for inpt, need in zip(flat, needed, strict=True)
        ]
        return tree_unflatten(out, spec)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the rows to replace, and the random numbers of their replacements."""
        n = len(flat_inputs[0]) if flat_inputs else 0
        mixed = bool(torch.rand(()) < self.p)
        rows = torch.rand(n) < self.share
        return {
            "rows": rows & mixed,
            "uniform": torch.rand(n),
            "seed": int(torch.randint(2**62, ())),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Replace the chosen images, or update their labels."""
        rows, classes = params["rows"], params["classes"]
        if inpt is params["labels"]:
            if are_indices(inpt):
                return inpt
            changed = inpt.clone()
            replaced = torch.nonzero(rows).squeeze(1).to(inpt.device)
            changed[replaced] = 0
            changed[replaced, classes[rows].to(inpt.device)] = 1
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
        output[rows.to(inpt.device)] = from_unit(unit, value_range, inpt.dtype)
        return tv_tensors.wrap(output, like=inpt) if is_tv(inpt) else output

    def _classes(self, labels: Tensor, uniform: Tensor, n_classes: int) -> Tensor:
        """Return the class of each image, drawn from probabilities if labels are such."""
        labels = labels.detach().cpu()
        if are_indices(labels):
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


class LatentAugment(GeneratorTransform):
    """Moves a real image within its class in latent space; its label does not change.

    The image is moved part of the way towards a neighbour of its class. By default, it keeps the
    detail that the decoder would lose: ``image + decode(moved) - decode(latent of image)``. It
    takes one image or a batch, in a dataset, after the loader, or in a ``Compose``, before
    ``Normalize``.

    Args:
        synthesizer: A trained generator, its folder or a run folder. Each worker process loads its
            own generator from a folder.
        strength: Largest fraction of the way to the neighbour, in (0, 1]; the smallest is half of
            it.
        p: Probability that an image is moved.
        labels_getter: Finds the labels in the input. Default: the second input, or the entry with
            a common name such as label, labels, target, class or category. Without labels, each
            image is assigned the class under which its ELBO is highest, which takes one pass per
            class.
        residual: Keep detail; otherwise, the result is the moved reconstruction, which is only as
            sharp as the decoder.
        class_names: As for `VAEMix`.
        value_range: As for `VAEMix`.
        sha256: Expected hash of a generator's folder.

    Input and output: a PIL image (mode L, RGB or RGBA), a tensor or ``tv_tensors.Image`` (C,
    space...) or (n, C, space...), or a ``tv_tensors.Video`` (T, C, H, W) for a generator of short
    videos. An image that is not moved remains the same object, or an identical row of a batch.

    Raises:
        TransformError: If an argument or the input is not supported, values are outside the range,
            or an accelerator would be used in a worker process.
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
        in_unit_interval("strength", strength)
        self.strength, self.residual = float(strength), bool(residual)
        self._mover: ClassMover | None = None

    def forward(self, *inputs: Any) -> Any:
        """Transform an image, ``(image, label, ...)`` or a mapping; the structure is kept."""
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
        """Draw the images to move, their neighbours and distances."""
        generator = self._generator(device_of(flat_inputs[0]))
        n = max(self._n_images(generator, inpt) for inpt in flat_inputs)
        return {
            "rows": torch.rand(n) < self.p,
            "uniform": torch.rand(n, 2, dtype=torch.float32),
            "noise": torch.randn(n, generator.model.latent_dim, dtype=torch.float32),
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Move the chosen images."""
        device = device_of(inpt)
        generator = self._generator(device)
        batch, dtype = self._batch(generator, inpt), dtype_of(inpt)
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
        output[rows.to(device)] = from_unit(moved, (low, high), dtype)
        return like(output, inpt)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_mover": None}  # its latents are computed again

    def _labels(
        self, generator: Synthesizer, labels: Labels | None, unit: Tensor, rows: Tensor
    ) -> Tensor:
        """Return the class index of each chosen image in the generator."""
        if labels is None:
            low, high = generator.value_range
            stored = (unit.movedim(1, -1).cpu().numpy() * (high - low) + low).astype(np.float32)
            return torch.from_numpy(generator.likeliest_labels(stored))
        indices = torch.as_tensor(labels).detach().cpu()
        if indices.is_floating_point() or indices.numel() != len(rows):
            raise TransformError(
                f"LatentAugment: expected {len(rows)} class indices as labels, got "
                f"{indices.dtype} of shape {tuple(indices.shape)}; apply it before labels are mixed"
            )
        return self._indices(generator, indices.reshape(-1)[rows])

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
        """Convert the input to a batch (n, C, space...) without changing its units."""
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
