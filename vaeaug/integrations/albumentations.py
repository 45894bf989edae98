"""albumentations 2.0.8 transforms: `SyntheticPool` and `LatentAugment`.

Both take ``label`` besides ``image``: ``transform(image=image, label=label)``. Import this module
before ``A.from_dict`` or ``A.load``, so that albumentations knows the classes.

In albumentations 2.0.8, all workers of a ``DataLoader`` start every epoch from copies of the same
random state. These transforms use the seed of the worker instead, which torch draws anew for each
worker and epoch; `worker_init_fn` does the same for all other transforms.
"""

import functools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from albumentations.core.composition import BaseCompose
from albumentations.core.transforms_interface import BasicTransform, ImageOnlyTransform
from jaxtyping import Int64, Shaped
from torch.utils.data import get_worker_info

from vaeaug.generator import ClassMover
from vaeaug.integrations._artefacts import (
    RANGE_SLACK,
    GeneratorSource,
    TransformError,
    class_indices,
    hash_of_run,
    open_pool,
    warn_if_run_is_unhelpful,
)
from vaeaug.shards import Manifest, ShardDataset

# Targets that describe positions in an image, or more than one image.
_REFUSED = ("mask", "masks", "mask3d", "masks3d", "bboxes", "keypoints", "volume", "volumes")


class _LabelledTransform(ImageOnlyTransform):
    """An image-only transform that uses the label and has its own random state in each worker."""

    class InitSchema(ImageOnlyTransform.InitSchema):
        """Arguments of every transform here."""

        path: str | Path
        sha256: str | None
        class_names: Sequence[str] | None
        label_key: str
        value_range: Sequence[float] | None

    def __init__(
        self,
        path: str | Path,
        *,
        sha256: str | None,
        class_names: Sequence[str] | None,
        label_key: str,
        p: float,
        value_range: Sequence[float] | None,
    ) -> None:
        super().__init__(p=p)
        self.path, self.sha256, self.label_key = str(path), sha256, label_key
        self.value_range = None if value_range is None else tuple(map(float, value_range))
        if self.value_range is not None and not (
            len(self.value_range) == 2 and self.value_range[0] < self.value_range[1]
        ):
            raise TransformError(
                f"value_range: expected (lowest, highest), got {tuple(self.value_range)}"
            )
        self.class_names = None if class_names is None else tuple(class_names)
        self._worker_seed: int | None = None

    @property
    def targets_as_params(self) -> list[str]:
        """Inputs on which the parameters depend: the label."""
        return [self.label_key]

    def __call__(self, *args: Any, force_apply: bool = False, **data: Any) -> Any:
        """Transform ``image`` depending on ``label``; all other entries are returned unchanged.

        Raises:
            TransformError: For masks, boxes, keypoints or volumes.
        """
        refused = [key for key in _REFUSED if data.get(key) is not None]
        if refused:
            raise TransformError(
                f"{type(self).__name__}: expected image and {self.label_key}, got also "
                f"{', '.join(refused)}: masks, boxes and keypoints of the real image do not match "
                "the shapes of the transformed one"
            )
        self._use_worker_seed()
        return super().__call__(*args, force_apply=force_apply, **data)

    def _use_worker_seed(self) -> None:
        info = get_worker_info()
        if info is None or info.seed == self._worker_seed:
            return
        self._worker_seed = info.seed
        seed = [] if self.seed is None else [self.seed]
        generator = np.random.default_rng(np.random.SeedSequence([*seed, info.seed]))
        self.set_random_state(generator, random.Random(int(generator.integers(2**62))))

    def set_random_seed(self, seed: int | None) -> None:
        """Set the seed; in a worker it is combined with the seed of the worker."""
        self._worker_seed = None
        super().set_random_seed(seed)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the arguments that ``to_dict`` stores; they include the path and the hash."""
        return ("path", "sha256", "class_names", "label_key", "value_range")

    def get_transform_init_args(self) -> dict[str, Any]:
        """Return the arguments of the constructor as plain types."""
        arguments = {name: getattr(self, name) for name in self.get_transform_init_args_names()}
        if self.class_names is not None:
            arguments["class_names"] = list(self.class_names)
        if self.value_range is not None:
            arguments["value_range"] = list(self.value_range)
        return arguments

    def _range(
        self, img: np.ndarray, dtype: np.dtype[Any], learned: tuple[float, float]
    ) -> tuple[float, float]:
        """Return the value range of images of this type; reject an image outside it."""
        low, high = self.value_range or _range_of(img, dtype, learned)
        if img.dtype == np.float32 and img.size:
            smallest, largest = float(img.min()), float(img.max())
            slack = RANGE_SLACK * (high - low)
            if not (smallest >= low - slack and largest <= high + slack):
                raise TransformError(
                    f"{type(self).__name__}: expected values from {low:g} to {high:g}, got "
                    f"{smallest:g} to {largest:g}; apply it before Normalize, or pass value_range"
                )
        return low, high

    def _index_of(self, label: Any, indices: Int64[np.ndarray, " k"], known: Sequence[str]) -> int:
        """Convert a label, an index or a name, to a class index of the generator or run."""
        if isinstance(label, str):
            if label in known:
                return known.index(label)
        elif not isinstance(label, bool):
            number = label if isinstance(label, int) else np.asarray(label)
            if isinstance(number, int) or (number.size == 1 and number.dtype.kind in "iu"):
                index = int(number if isinstance(number, int) else number.item())
                if 0 <= index < len(indices):
                    return int(indices[index])
        raise TransformError(
            f"{type(self).__name__}: {self.label_key}: expected an index below {len(indices)} or "
            f"one of {tuple(known)}, got {label!r}"
        )


class SyntheticPool(_LabelledTransform):
    """Replaces an image by a synthetic one of the same label from a finished run.

    The samples are those that `vaeaug.merge` draws: they are screened and memory-mapped from the
    shards, so that a draw takes microseconds and workers need no model.

    Args:
        path: A finished run folder.
        sha256: Expected hash of the run. None: its current hash, which ``to_dict`` then stores.
        class_names: Class names in the order of the labels, if it differs from that of the run.
        label_key: Name of the label among the inputs.
        p: Probability that an image is replaced: the synthetic share. It is the same for every
            class: with synthetic samples of only some classes, a classifier learns that synthetic
            means these classes.
        value_range: Lowest and highest value of the images, if it differs from albumentations'
            convention; the samples are scaled to it.

    Targets: image. The image is ``uint8`` or ``float32`` (H, W) or (H, W, C) of the size of the
    run; if the run is ``uint8`` and the image ``float32``, its values are in [0, 1] by
    albumentations' convention. Images of a class without synthetic samples are returned unchanged.
    Values outside the range are rejected, because brightness would reveal which images are
    synthetic.

    Raises:
        TransformError: If the hash of the run differs, or an input is not supported.
        ShardError: If the folder is no finished run.

    Warns:
        UserWarning: If the evaluation found that the synthetic data does not help.
    """

    class InitSchema(_LabelledTransform.InitSchema):
        """Arguments of the transform."""

    def __init__(
        self,
        path: str | Path,
        sha256: str | None = None,
        class_names: Sequence[str] | None = None,
        label_key: str = "label",
        p: float = 0.3,
        value_range: Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            path,
            sha256=sha256,
            class_names=class_names,
            label_key=label_key,
            p=p,
            value_range=value_range,
        )
        folder = Path(self.path)
        if self.sha256 is None:
            self.sha256 = hash_of_run(Manifest.load(folder))
        warn_if_run_is_unhelpful(folder, stacklevel=3)  # skips albumentations' wrapper
        self._pool: ShardDataset | None = None
        self._rows: list[Int64[np.ndarray, " n"]] = []
        self._artefact_labels = np.empty(0, np.int64)

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Choose a sample of the class of the label; None if there is none."""
        pool = self._open()
        label = self._index_of(data[self.label_key], self._artefact_labels, pool.class_names)
        rows = self._rows[label]
        if not len(rows):
            return {"row": None}
        return {"row": int(rows[int(self.random_generator.random() * len(rows))])}

    def apply(self, img: np.ndarray, row: int | None = None, **params: Any) -> np.ndarray:
        """Replace the image by the sample."""
        if row is None:
            return img
        pool = self._open()
        sample = pool.image_at(row)
        target_range = self._range(img, sample.dtype, pool.value_range)
        return _fitted(sample, img, pool.value_range, target_range, type(self).__name__)

    def _open(self) -> ShardDataset:
        if self._pool is None:
            self._pool = open_pool(Path(self.path), self.sha256)
            names = self._pool.class_names
            self._artefact_labels = class_indices(self.class_names, names, type(self).__name__)
            self._rows = [np.flatnonzero(self._pool.labels == c) for c in range(len(names))]
        return self._pool


class LatentAugment(_LabelledTransform):
    """Moves an image within its class in latent space; see `vaeaug.integrations.LatentAugment`.

    The generator runs in the worker on the CPU and takes a few milliseconds per image.

    Args:
        path: Folder of a generator, or a run folder.
        strength: Largest fraction of the way to a neighbour of the class, in [0, 1].
        residual: Keep the detail that the decoder would lose.
        sha256: Expected hash of the generator. None: its current hash, which ``to_dict`` then
            stores.
        class_names: Class names in the order of the labels, if it differs from that of the
            generator.
        label_key: Name of the label among the inputs.
        p: Probability that an image is moved.
        value_range: As for `SyntheticPool`.

    Targets: image, ``uint8`` or ``float32`` (H, W) or (H, W, C) of the size of the training images;
    ``float32`` values are in [0, 1] if the generator was trained on ``uint8``.

    Raises:
        TransformError: If the hash of the generator differs, or an input is not supported.

    Warns:
        UserWarning: If the folder is a run whose evaluation found that it does not help.
    """

    class InitSchema(_LabelledTransform.InitSchema):
        """Arguments of the transform."""

        strength: float
        residual: bool

    def __init__(
        self,
        path: str | Path,
        strength: float = 0.8,
        residual: bool = True,
        sha256: str | None = None,
        class_names: Sequence[str] | None = None,
        label_key: str = "label",
        p: float = 0.5,
        value_range: Sequence[float] | None = None,
    ) -> None:
        super().__init__(
            path,
            sha256=sha256,
            class_names=class_names,
            label_key=label_key,
            p=p,
            value_range=value_range,
        )
        if not 0 <= strength <= 1:
            raise TransformError(f"strength: expected a number from 0 to 1, got {strength!r}")
        self.strength, self.residual = strength, residual
        self._source = GeneratorSource(Path(self.path), sha256)
        self.sha256 = self._source.sha256
        warn_if_run_is_unhelpful(self._source.path, stacklevel=3)
        self._mover: ClassMover | None = None

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the arguments that ``to_dict`` stores."""
        return (*super().get_transform_init_args_names(), "strength", "residual")

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw the neighbour and the distance, and determine the class."""
        generator = self._class_mover().generator
        indices = class_indices(self.class_names, generator.class_names, type(self).__name__)
        label = self._index_of(data[self.label_key], indices, generator.class_names)
        if not len(generator.rows[label]):
            raise TransformError(
                f"{type(self).__name__}: class {generator.class_names[label]!r} had no training "
                "images to learn from"
            )
        draw = self.random_generator
        return {
            "latent_label": label,
            "uniform": draw.random((1, 2), dtype=np.float32),
            "noise": draw.standard_normal((1, generator.model.latent_dim), dtype=np.float32),
        }

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        """Move the image."""
        mover = self._class_mover()
        generator = mover.generator
        low, high = self._range(img, generator.dtype, generator.value_range)
        shape = generator.image_shape
        if img.ndim not in (2, 3) or (img if img.ndim == 3 else img[..., None]).shape != shape:
            raise _other_shape(type(self).__name__, shape, img)
        unit = (torch.from_numpy(np.array(img, np.float32).reshape(shape)) - low) / (high - low)
        moved = mover.move(
            unit.movedim(-1, 0)[None],
            torch.tensor([params["latent_label"]]),
            uniform=torch.from_numpy(params["uniform"]),
            noise=torch.from_numpy(params["noise"]),
            strength=self.strength,
            residual=self.residual,
        )
        output = moved[0].movedim(0, -1).numpy() * (high - low) + low
        output = output.round() if img.dtype == np.uint8 else output
        return np.ascontiguousarray(output.astype(img.dtype).reshape(img.shape))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mover": None}  # every process loads its own generator

    def _class_mover(self) -> ClassMover:
        if self._mover is None:
            self._mover = ClassMover(self._source.on(torch.device("cpu")))
        return self._mover


def worker_init_fn(worker_id: int) -> None:
    """Give albumentations transforms their own random state in each worker; a ``worker_init_fn``.

    It reseeds every albumentations transform and ``Compose`` that the dataset of a ``DataLoader``
    holds in attributes, lists, mappings, other datasets, partial functions and closures. The seeds
    differ between workers and epochs, and are reproducible with the same torch seed.

    Args:
        worker_id: Number of the worker, as ``DataLoader`` passes it.
    """
    info = get_worker_info()
    if info is not None:
        _reseed(info.dataset, info.seed, set())


def _reseed(holder: Any, seed: int, visited: set[int]) -> None:
    if id(holder) in visited or isinstance(holder, (str, bytes, np.ndarray, torch.Tensor, type)):
        return
    visited.add(id(holder))
    if isinstance(holder, (BaseCompose, BasicTransform)):
        base_seed = [] if holder.seed is None else [holder.seed]
        # A Compose receives one seed, which it passes on to its transforms.
        holder.set_random_seed(int(np.random.SeedSequence([*base_seed, seed]).generate_state(1)[0]))
        return
    if isinstance(holder, Mapping):
        members = list(holder.values())
    elif isinstance(holder, (list, tuple, set)):
        # Long lists are data and contain no transforms.
        members = list(holder) if len(holder) <= 1000 else []
    elif isinstance(holder, functools.partial):
        members = [holder.func, *holder.args, *holder.keywords.values()]
    else:
        cells = getattr(holder, "__closure__", None) or ()
        members = [cell.cell_contents for cell in cells]
        members += list(getattr(holder, "__dict__", {}).values())
        members.append(getattr(holder, "__self__", None))  # of a bound method
    for transform in members:
        _reseed(transform, seed, visited)


def _range_of(
    img: np.ndarray, dtype: np.dtype[Any], value_range: tuple[float, float]
) -> tuple[float, float]:
    """Return the value range of an image, by albumentations' convention."""
    if img.dtype == np.uint8:
        return 0.0, 255.0
    if img.dtype == np.float32:
        return (0.0, 1.0) if dtype == np.uint8 else value_range
    raise TransformError(f"image: expected uint8 or float32, got {img.dtype}")


def _fitted(
    sample: Shaped[np.ndarray, "*space c"],
    img: np.ndarray,
    value_range: tuple[float, float],
    target_range: tuple[float, float],
    where: str,
) -> np.ndarray:
    """Convert a sample to the shape, type and range of the image that it replaces."""
    if img.shape != sample.shape and (*img.shape, 1) != sample.shape:
        raise _other_shape(where, sample.shape, img)
    if img.dtype == sample.dtype and target_range == value_range:
        return cast(np.ndarray, sample.reshape(img.shape))
    (low, high), (source_low, source_high) = target_range, value_range
    scaled = (sample.astype(np.float32) - source_low) / (source_high - source_low)
    scaled = scaled * (high - low) + low
    scaled = scaled.round() if img.dtype == np.uint8 else scaled
    return cast(np.ndarray, scaled.astype(img.dtype).reshape(img.shape))


def _other_shape(where: str, shape: Sequence[int], img: np.ndarray) -> TransformError:
    return TransformError(
        f"{where}: expected an image of shape {tuple(shape)}, got {img.shape}; apply it before "
        "crops and, if sizes vary, after a resize to this shape"
    )
