"""The images on the device, and the batch of each training step."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.mapping import Touched, as_tensor, is_mapped, taken, will_need
from vaeaug.models import is_faster_in_bfloat16, scale_images
from vaeaug.training._state import Stage, TrainingError
from vaeaug.training._tape import Tape

# Maximum number of held-out images that are scored at each evaluation.
MAX_HELD_OUT = 2048


class Batches:
    """The training images, kept on the device as they are stored; batches are gathered there.

    On a processor they are not copied: images that are mapped from a file stay there. A fraction is
    held out, stratified by class; every class keeps at least one training image.

    Args:
        data: The training split.
        config: Batch size, class weights, held-out fraction and seed.
        device: Device that holds the images.

    Attributes:
        tape: Through it goes whatever differs from step to step.
    """

    def __init__(self, data: LabelledImages, config: AugmentConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.tape = Tape(device)
        precision, n_values = config.training.precision, math.prod(data.images.shape[1:])
        if precision == "auto":
            precision = "bfloat16" if is_faster_in_bfloat16(device, n_values) else "float32"
        self._precision = precision
        self.value_range = data.value_range
        self.n_classes = data.n_classes
        self._stored = data.images
        self._is_mapped = is_mapped(data.images) and device.type == "cpu"
        self._touched = Touched(data.images)
        fit, held_out = data.split_rows(config.training.held_out, seed=config.seed)
        if len(held_out) > MAX_HELD_OUT:
            held_out = _thinned(data.labels, held_out, MAX_HELD_OUT, config.seed)
        # All images, which on a processor are those of the data: what is held out has no rows.
        self.images, self.labels = self._resident(data.images), self._resident(data.labels)
        self.held_images = self._resident(taken(data.images, held_out))
        self.held_labels = self._resident(data.labels[held_out])
        self._set_rows([fit[data.labels[fit] == label] for label in range(data.n_classes)])
        self.pool = None if data.unlabelled is None else self._resident(data.unlabelled)

    def adopt(self, rows: np.ndarray, labels: np.ndarray) -> None:
        """Add rows of the unlabelled pool to the training images.

        Args:
            rows: Row numbers of the pool.
            labels: Class index of each row.
        """
        if self.pool is None or not len(rows):
            return
        index = torch.from_numpy(rows).to(self.device)
        first = len(self.images)
        self._is_mapped = False
        self.images = torch.cat([self.images, self.pool[index]])
        self.labels = torch.cat([self.labels, torch.from_numpy(labels).to(self.device)])
        self._set_rows(
            [
                np.concatenate([rows, first + np.flatnonzero(labels == label)])
                for label, rows in enumerate(self.rows)
            ]
        )

    def _set_rows(self, rows: list[np.ndarray]) -> None:
        """Set the rows of each class, and the tables by which steps draw from them."""
        self.rows = rows
        sizes = np.array([len(each) for each in rows])
        self._order = np.concatenate(rows)
        self._sizes, self._starts = sizes, np.cumsum(sizes) - sizes
        place = np.zeros(len(self.images), np.int64)
        place[self._order] = np.arange(len(self._order)) - np.repeat(self._starts, sizes)
        tables = (self._order, self._sizes, self._starts, place)
        self._tables = tuple(torch.from_numpy(table).to(self.device) for table in tables)

    @property
    def all_rows(self) -> Int64[Tensor, " n"]:
        """The rows of every class in ascending order: all that is not held out."""
        return self._tables[0].sort().values

    def draw(
        self, stage: Stage, step: int, size: int | None = None
    ) -> tuple[Float[Tensor, "n c *space"], Tensor]:
        """Draw the images and labels of one step.

        Args:
            stage: The stage; it names the classes and their weights.
            step: Number of the step.
            size: Batch size; None: ``training.batch_size``.

        Returns:
            Images scaled to [0, 1], (n, c, *space), and class indices, (n,).
        """
        rows = self.rows_of(stage, step, size)
        y = self.labels_of(rows)
        return self.scaled_rows(rows), torch.zeros_like(y) if stage.is_one_class else y

    def rows_of(self, stage: Stage, step: int, size: int | None = None) -> Int64[Tensor, " n"]:
        """Draw the rows that a step trains on, as a function of (seed, stage, step).

        Args:
            stage: The stage; it names the classes and their weights.
            step: Number of the step.
            size: Batch size; None: ``training.batch_size``.

        Returns:
            Row numbers, on the device.
        """
        size = size or self.config.training.batch_size
        if self._is_mapped:
            # What the next step reads is brought from the disk meanwhile.
            will_need(self._stored, self._rows_of(stage, step + 1, size).numpy())
        return self.tape.tensor(lambda step, _: self._rows_of(stage, step, size), step=step)

    def _rows_of(self, stage: Stage, step: int, size: int) -> Int64[Tensor, " n"]:
        key = [self.config.seed, mix(0, stage.name, 0)]
        rng = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, step]))
        classes = np.array([label for label in stage.classes if self._sizes[label]])
        if stage.adapt:
            # Every class equally often in every batch: other classes do not train its rows.
            drawn = np.resize(classes, max(size, 4 * len(classes)))
        else:
            weights = self._sizes[classes].astype(float) ** stage.class_power
            drawn = rng.choice(classes, size=size, p=weights / weights.sum())
        places = (rng.random(len(drawn)) * self._sizes[drawn]).astype(np.int64)
        rows = self._order[self._starts[drawn] + places]
        return torch.from_numpy(rows).to(self.device, non_blocking=True)

    def draw_exemplars(
        self,
        purpose: str,
        step: int,
        y: Int[Tensor, " n"],
        beside: Int64[Tensor, " n"],
    ) -> Int64[Tensor, " n"]:
        """Draw another row of the class of each of some rows.

        Args:
            purpose: Name of the random stream.
            step: Number of the step.
            y: Class index of each row.
            beside: The rows, which are drawn only where their class has no other.

        Returns:
            Row numbers.
        """
        order, sizes, starts, place = self._tables
        quantiles, n = self.uniform(purpose, step, (len(y),)), sizes[y]
        drawn = (quantiles * (n - 1).clamp(min=1)).long()
        return order[starts[y] + drawn + ((drawn >= place[beside]) & (n > 1)).long()]

    def scaled_rows(self, rows: Int64[Tensor, " n"]) -> Float[Tensor, "n c *space"]:
        """Select training images.

        Args:
            rows: Row numbers, on the device.

        Returns:
            Images scaled to [0, 1], on the device.
        """
        images = self.images[rows]
        if self._is_mapped:
            self._touched.add(len(images))
        return self.scale(images)

    def stored(self, rows: Int64[Tensor, " n"]) -> Tensor:
        """Select training images as they are stored.

        Args:
            rows: Row numbers, on the device.

        Returns:
            Images, (n, *space, c), on the device.
        """
        if self._is_mapped:
            return torch.from_numpy(taken(self._stored, rows.numpy()))
        return self.images[rows]

    def labels_of(self, rows: Int64[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Select the labels of training images.

        Args:
            rows: Row numbers, on the device.

        Returns:
            Class indices, on the device.
        """
        return self.labels[rows]

    def draw_pool(self, stage: Stage, step: int, size: int) -> Float[Tensor, "n c *space"]:
        """Draw the unlabelled images of one step.

        Args:
            stage: The stage.
            step: Number of the step.
            size: Number of images.

        Returns:
            Images scaled to [0, 1].
        """
        assert self.pool is not None
        n_pool = len(self.pool)

        def rows_of(step: int, _: float) -> Tensor:
            rng = np.random.default_rng([self.config.seed, mix(1, stage.name, 0), step])
            rows = torch.from_numpy(rng.integers(n_pool, size=size))
            return rows.to(self.device, non_blocking=True)

        return self.scale(self.pool[self.tape.tensor(rows_of, step=step)])

    def noise(self, purpose: str, step: int, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normal numbers as a function of (seed, purpose, step).

        Args:
            purpose: Name of the random stream.
            step: Number of the step.
            shape: Shape of the result.

        Returns:
            The draws, on the device.
        """
        return self._drawn(torch.randn, purpose, step, shape)

    def uniform(self, purpose: str, step: int, shape: tuple[int, ...]) -> Tensor:
        """Draw uniform numbers from [0, 1) as a function of (seed, purpose, step).

        Args:
            purpose: Name of the random stream.
            step: Number of the step.
            shape: Shape of the result.

        Returns:
            The draws, on the device.
        """
        return self._drawn(torch.rand, purpose, step, shape)

    def counts(self, purpose: str, step: int, rate: Float[Tensor, "n c *space"]) -> Tensor:
        """Draw Poisson numbers as a function of (seed, purpose, step); they go through no tape.

        Args:
            purpose: Name of the random stream.
            step: Number of the step.
            rate: Their means.

        Returns:
            The draws, on the device.
        """
        return torch.poisson(rate, generator=self._generator(purpose, step))

    def of_classes(self, stage: Stage, limit: int) -> tuple[Tensor, Tensor]:
        """Select a fixed sample of the training images of a stage.

        Args:
            stage: The stage; it names the classes.
            limit: Maximum number of images.

        Returns:
            Images as stored, (n, *space, c), and class indices, (n,).
        """
        rows = np.concatenate([self.rows[label] for label in stage.classes])
        rng = np.random.default_rng([self.config.seed, len(rows)])
        index = torch.from_numpy(np.sort(rng.permutation(rows)[:limit])).to(self.device)
        labels = torch.zeros_like(index) if stage.is_one_class else self.labels[index]
        return self.stored(index), labels

    def held_out(self, stage: Stage) -> tuple[Tensor, Tensor]:
        """Return the held-out images of a stage.

        A class that is too small to hold any out is scored on its training images.

        Args:
            stage: The stage; it names the classes.

        Returns:
            Images as stored, (n, *space, c), and class indices, (n,).
        """
        if not stage.is_one_class:
            if len(stage.classes) == self.n_classes:
                return self.held_images, self.held_labels
            classes = torch.tensor(stage.classes, device=self.device)
            of_stage = torch.isin(self.held_labels, classes)
            return self.held_images[of_stage], self.held_labels[of_stage]
        images = self.held_images[self.held_labels == stage.classes[0]]
        if not len(images):
            return self.of_classes(stage, MAX_HELD_OUT)
        return images, torch.zeros(len(images), dtype=torch.long, device=self.device)

    def scale(self, images: Tensor) -> Float[Tensor, "n c *space"]:
        """Scale stored images to [0, 1] and move their channels first.

        Args:
            images: Images as stored, (n, *space, c).

        Returns:
            Images in [0, 1].
        """
        return scale_images(images, self.value_range)

    @property
    def is_scaled(self) -> bool:
        """Whether losses have to be scaled, because gradients are in float16."""
        return self._precision == "float16"

    def precision(self, *, can_scale: bool = True) -> torch.autocast:
        """Return an autocast context for the steps, as ``training.precision`` asks.

        Args:
            can_scale: Whether the loss of the step can be scaled; in float32 instead of float16
                where it cannot.

        Returns:
            The context manager.
        """
        half = torch.float16 if self.is_scaled else torch.bfloat16
        enabled = self._precision != "float32" and (can_scale or not self.is_scaled)
        return torch.autocast(self.device.type, half, enabled=enabled)

    def _drawn(
        self, draw: Callable[..., Tensor], purpose: str, step: int, shape: tuple[int, ...]
    ) -> Tensor:
        keys: dict[str, Any] = {"dtype": torch.float32, "device": self.device}
        return self.tape.tensor(
            lambda step, _: draw(shape, generator=self._generator(purpose, step), **keys), step=step
        )

    def _generator(self, purpose: str, step: int) -> torch.Generator:
        seed = mix(self.config.seed, purpose, step)
        return torch.Generator(self.device).manual_seed(seed)

    def _resident(self, array: np.ndarray) -> Tensor:
        return as_tensor(np.ascontiguousarray(array)).to(self.device)


def resolve_device(device: str | torch.device) -> torch.device:
    """Resolve the name of a device.

    Args:
        device: "auto" (CUDA where it is available), "cpu", "cuda", "cuda:N" or a torch device.

    Returns:
        The device.

    Raises:
        TrainingError: If it is no device, or CUDA is requested and not available.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise TrainingError(
            f"--device: expected auto, cpu, cuda or cuda:N, got {device!r}"
        ) from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            f"--device {device}: torch finds no CUDA device; use --device cpu or auto"
        )
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise TrainingError(
            f"--device {device}: expected one of {torch.cuda.device_count()} CUDA devices, the "
            "first of which is cuda:0"
        )
    return resolved


def mix(seed: int, name: str, step: int) -> int:
    """Derive a 63-bit seed from a run, a purpose and a step.

    Args:
        seed: Seed of the run.
        name: Purpose of the random numbers.
        step: Number of the step.

    Returns:
        The seed.
    """
    digest = hashlib.blake2b(f"{seed}/{name}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _thinned(
    labels: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, " h"], limit: int, seed: int
) -> Int64[np.ndarray, " m"]:
    """Select about `limit` rows: the same fraction of every class, at least one of each."""
    rng = np.random.default_rng([seed, len(rows)])
    selected = []
    for label in range(labels.max() + 1):
        own = rng.permutation(rows[labels[rows] == label])
        selected.append(own[: -(-len(own) * limit // len(rows))])
    return np.sort(np.concatenate(selected))
