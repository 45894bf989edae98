"""`MergedDataset`: a dataset of slots that are filled by real and synthetic images.

By default, every class gets the same synthetic share: replacing draws of only the rare classes was
measured to cost 3 to 4 points of balanced accuracy, because blur becomes a cue for "rare class".
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch.utils.data import Dataset

from vaeaug.merging._joined import Synthetic
from vaeaug.merging._real import RealSource, channels_first, units_of_run
from vaeaug.merging._slots import (
    Balance,
    ClassCounts,
    MergeError,
    Share,
    Slots,
    class_counts,
    fill,
    planned_of,
    rows_by_class,
    slot_counts,
    warn_without_synthetic,
)

Label = int | torch.Tensor  # an index, or with soft=True (K,) float32
_SYNTHETIC, _REAL = 1, 0  # last word of the seed key of the random order of a class


class MergedItem(NamedTuple):
    """One item of a dataset merged with ``details``.

    Attributes:
        image: Output of the transform, or a tensor with channels first.
        label: Class index, or with ``soft`` class probabilities, float32 (K,).
        is_synthetic: Whether the image is synthetic.
        weight: Loss weight: 1 for a real image, else that of the shard times that of the recipe.
    """

    image: Any
    label: Label
    is_synthetic: bool
    weight: float


Item = tuple[Any, Label] | tuple[Any, Label, bool] | MergedItem


class MergedDataset(Dataset[Item]):
    """A map-style dataset of slots, each filled by a real or a synthetic image.

    The class of a slot never changes. Its kind (real or synthetic) changes only if a recipe ends on
    real images; :meth:`set_epoch` changes the image that fills it. Slots are ordered by class, real
    before synthetic, so a trainer has to shuffle.

    Items are ``(image, label)``, ``(image, label, is_synthetic)`` or, with ``details``, a
    :class:`MergedItem`. The image is a ``uint8`` or ``float32`` tensor with channels first, (C, L),
    (C, H, W) or (C, D, H, W). The label is an index in the order of the real dataset's classes or,
    with ``soft``, class probabilities in that order, a ``float32`` tensor (K,). :func:`merge`
    creates this dataset.

    Attributes:
        class_names: Names in the order of the labels.
        counts: For each class, the numbers of distinct real and synthetic images in an epoch, of
            slots that repeat one of them, and of all slots.
        units: Type and value range of the images.
        labels: Class index of each slot, (slots,) int64.
        is_synthetic: Whether each slot is synthetic, (slots,) bool.
        index: Row of each slot in the real or synthetic dataset in this epoch, (slots,) int64.
        epoch: The epoch of ``index``.
        real: The real dataset that was passed to :func:`merge`.
        synthetic: The synthetic samples.
        recipe: The intended use of the synthetic samples, as in the manifest of the run. The
            trainer is responsible for the parts that a dataset cannot implement: ``weights`` in the
            loss, and ``separate_batch_norm``.
    """

    def __init__(
        self,
        source: RealSource,
        synthetic: Synthetic,
        *,
        share: Share | None,
        balance: Balance,
        transform: Callable[[Any], Any] | None,
        seed: int,
        return_is_synthetic: bool,
        details: bool = False,
        soft: bool = False,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        self.soft = bool(soft)
        self.recipe = dict(recipe or {})
        self.class_names = source.class_names
        self.real = source.dataset
        self.synthetic = synthetic
        self.transform = transform
        self.return_is_synthetic = return_is_synthetic
        self.details = details
        self.seed = int(seed)
        self._source = source
        self.units, self._stored = source.units, units_of_run(synthetic)
        k = len(self.class_names)
        to_real = np.array([source.class_names.index(n) for n in synthetic.class_names])
        self._to_real = to_real
        self._synthetic_labels = to_real[synthetic.labels]
        self._real_rows = rows_by_class(source.labels, k)
        self._synthetic_rows = rows_by_class(self._synthetic_labels, k)
        n_real = [len(rows) for rows in self._real_rows]
        n_synthetic = [len(rows) for rows in self._synthetic_rows]
        self._slots = slot_counts(
            n_real,
            n_synthetic,
            share=share,
            balance=balance,
            planned=planned_of(synthetic.manifest.extra.get("plan"), self.class_names),
            class_names=self.class_names,
        )
        warn_without_synthetic(n_real, n_synthetic, share, self.class_names)
        self.counts: list[ClassCounts] = class_counts(
            self.class_names, n_real, n_synthetic, self._slots
        )

        self.labels: Int64[np.ndarray, " slots"] = np.repeat(
            np.arange(k), [sum(slots) for slots in self._slots]
        ).astype(np.int64)
        self.is_synthetic: Bool[np.ndarray, " slots"]
        self._shared = torch.zeros(2, dtype=torch.int64).share_memory_()
        self.set_epoch(0)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def weights(self) -> Float32[np.ndarray, " slots"]:
        """Loss weight of every slot in this epoch; see `weights_at`."""
        return self.weights_at(np.arange(len(self)))

    def weights_at(self, slots: Sequence[int] | np.ndarray) -> Float32[np.ndarray, " n"]:
        """Return the loss weights of some slots in this epoch.

        Args:
            slots: Slot numbers.

        Returns:
            For each slot 1 if it is real, else the weight of the shard times that of the recipe.
        """
        slots = np.asarray(slots, dtype=np.int64)
        weights = np.ones(len(slots), dtype=np.float32)
        is_synthetic = self.is_synthetic[slots]
        rows = self.index[slots[is_synthetic]]
        weights[is_synthetic] = self.synthetic.weight[rows] * self.recipe.get("weight", 1.0)
        return weights

    def set_epoch(self, epoch: int, n_epochs: int | None = None) -> None:
        """Assign images to the slots, as a pure function of (seed, epoch, n_epochs).

        If a class has more samples than slots, all of them are used in turn: with P samples for r
        slots, every ``ceil(P / r)`` epochs use each sample at least once, and no epoch uses one
        twice. If it has fewer, each sample is repeated equally often before any is repeated once
        more. Call this method before the ``DataLoader`` is iterated. Worker processes follow,
        including persistent ones (``persistent_workers=True``).

        Args:
            epoch: Number of the epoch, from 0.
            n_epochs: Epochs of the whole training. If given, ``real_only_last`` of the recipe is
                followed: in this fraction of the epochs, at the end, every slot is real.

        Raises:
            MergeError: If the epoch is out of range.
        """
        epoch = operator.index(epoch)
        if epoch < 0 or (n_epochs is not None and epoch >= n_epochs):
            at_most = "" if n_epochs is None else f" below n_epochs {n_epochs}"
            raise MergeError(f"epoch: expected an integer >= 0{at_most}, got {epoch}")
        self._shared[0], self._shared[1] = epoch, -1 if n_epochs is None else n_epochs
        self._fill(epoch, n_epochs)

    def _follow_epoch(self) -> None:
        """In a worker process, adopt the epoch that the main process has set."""
        epoch, n_epochs = self._shared.tolist()
        if (epoch, n_epochs) != self._filled:
            self._fill(epoch, None if n_epochs < 0 else n_epochs)

    def _fill(self, epoch: int, n_epochs: int | None) -> None:
        real_only_last = self.recipe.get("real_only_last", 0.0)
        only_real = n_epochs is not None and epoch >= round((1 - real_only_last) * n_epochs)
        planned = [
            Slots(sum(slots), 0) if only_real and slots.real else slots for slots in self._slots
        ]
        self.is_synthetic = np.concatenate(
            [np.repeat([False, True], [slots.real, slots.synthetic]) for slots in planned]
        )
        index = []
        for label, slots in enumerate(planned):
            for rows, n, kind in (
                (self._real_rows[label], slots.real, _REAL),
                (self._synthetic_rows[label], slots.synthetic, _SYNTHETIC),
            ):
                index.append(rows[fill(len(rows), n, epoch, (self.seed, label, kind))])
        self.index: Int64[np.ndarray, " slots"] = np.concatenate(index)
        self.epoch = epoch
        self._filled = (epoch, -1 if n_epochs is None else n_epochs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A pickled copy has its own epoch, which its workers follow.
        self._shared = self._shared if self._shared.is_shared() else self._shared.share_memory_()

    def __getitem__(self, index: int) -> Item:
        """Return the item in slot ``index``."""
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"expected an index in [{-len(self)}, {len(self)}), got {i}")
        return self.__getitems__([i])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Return the items of a batch, reading each source once; ``DataLoader`` calls it."""
        self._follow_epoch()
        slots = np.asarray(indices, dtype=np.int64)
        labels: Sequence[Label] = self.labels[slots].tolist()
        if self.soft:
            labels = torch.from_numpy(self.soft_labels_at(slots)).unbind(0)
        images: list[Any] = self.images_at(slots)
        if self.transform is not None:
            images = [self.transform(image) for image in images]
        columns: list[Sequence[Any]] = [images, labels]
        if self.return_is_synthetic or self.details:
            columns.append(self.is_synthetic[slots].tolist())
        if not self.details:
            return cast(list[Item], list(zip(*columns, strict=True)))
        columns.append(self.weights_at(slots).tolist())
        return list(map(MergedItem, *columns))

    def soft_labels_at(self, slots: Sequence[int] | np.ndarray) -> Float32[np.ndarray, "n k"]:
        """Return the class probabilities of some slots in this epoch.

        Args:
            slots: Slot numbers.

        Returns:
            One-hot for a real image, those of the shard for a synthetic one.
        """
        slots = np.asarray(slots, dtype=np.int64)
        rows = np.zeros((len(slots), len(self.class_names)), dtype=np.float32)
        rows[np.arange(len(slots)), self.labels[slots]] = 1
        is_synthetic = self.is_synthetic[slots]
        # Column j of the shards is class _to_real[j] of the real dataset.
        probabilities = np.empty((int(is_synthetic.sum()), rows.shape[1]), dtype=np.float32)
        probabilities[:, self._to_real] = self.synthetic.soft_labels_at(
            self.index[slots[is_synthetic]]
        )
        rows[is_synthetic] = probabilities
        return rows

    def __repr__(self) -> str:
        n_synthetic = int(self.is_synthetic.sum())
        return (
            f"MergedDataset({len(self)} images, {n_synthetic} of them synthetic, "
            f"{len(self.class_names)} classes)"
        )

    def images_at(self, slots: np.ndarray) -> list[torch.Tensor]:
        """Return the images of some slots, before the transform; each source is read once.

        Args:
            slots: Slot numbers.

        Returns:
            A tensor for each slot, channels first.
        """
        images: list[torch.Tensor] = [torch.empty(0)] * len(slots)
        is_synthetic = self.is_synthetic[slots]
        for places, gather in (
            (np.flatnonzero(is_synthetic), self._gather_synthetic),
            (np.flatnonzero(~is_synthetic), self._source.take),
        ):
            if places.size:
                tensors = gather(self.index[slots[places]])
                for position, image in zip(places.tolist(), tensors, strict=True):
                    images[position] = image
        return images

    def _gather_synthetic(self, rows: np.ndarray) -> Iterable[torch.Tensor]:
        stored = channels_first(self.synthetic.images_at(rows))
        return self.units.of(stored, self._stored).unbind(0)
