"""`BalancedSampler`: the slots of a merged dataset that an epoch draws, and their order."""

import math
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch.distributed
from jaxtyping import Int64
from torch.utils.data import DistributedSampler

from vaeaug.merging._merged_dataset import MergedDataset
from vaeaug.merging._slots import MergeError, Share, fill, rows_by_class, shares_of

_ORDER = 2  # last word of the seed key of the order; 0 and 1 are those of real and synthetic draws


class BalancedSampler(DistributedSampler[int]):
    """Draws every class equally often, with its synthetic share, in a seeded order.

    In an epoch of n draws, each of the K classes gets n / K draws. If that is not a whole number,
    some classes get one more, and these classes change from epoch to epoch. Of the draws of a
    class, ``round(share * draws)`` are synthetic. No image of a class is drawn twice before all
    were drawn once. The images and their order depend only on (seed, epoch), so they are the same
    for every number of workers, and every process of a distributed training takes its part of the
    same epoch.

    It is a ``DistributedSampler``, so trainers call ``set_epoch`` and do not replace it. In plain
    PyTorch, call ``set_epoch`` before each epoch::

        merged = vaeaug.merge(data, "runs/rare", share="all")  # the whole pool to draw from
        sampler = vaeaug.BalancedSampler(merged, share=0.3)
        loader = DataLoader(merged, batch_size=64, sampler=sampler)

    Args:
        dataset: The merged dataset that `merge` returns. If it was merged with ``share="all"``,
            every synthetic image can be drawn; with a share, only those that fill its slots in the
            epoch, which ``set_epoch`` also changes.
        share: Synthetic fraction of the draws of a class: a number in [0, 1), or a mapping from
            class name or index to such numbers. None: the fraction that each class has in the
            dataset.
        num_samples: Draws per epoch of all processes together. Default: the number of slots.
        seed: Seed of the draws and the order; it must be the same in all processes.
        num_replicas: Number of processes. Default: that of ``torch.distributed``, or 1.
        rank: Rank of this process. Default: that of ``torch.distributed``, or 0.
        drop_last: Drop the last draws if their number is not divisible by the number of processes,
            instead of repeating the first draws.
        n_epochs: Epochs of the whole training. It is needed to follow a recipe that ends on real
            images.

    Raises:
        MergeError: If a class has no images to draw from, or an argument is out of range.
    """

    def __init__(
        self,
        dataset: MergedDataset,
        *,
        share: Share | None = None,
        num_samples: int | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        drop_last: bool = False,
        n_epochs: int | None = None,
    ) -> None:
        if not isinstance(dataset, MergedDataset):
            raise MergeError(
                f"dataset: expected what vaeaug.merge returns, got {type(dataset).__name__}"
            )
        if share == "all":
            raise MergeError("share: expected numbers in [0, 1), or None for the dataset's own")
        self._shares = None if share is None else shares_of(share, dataset.class_names)
        self.n_draws = len(dataset) if num_samples is None else operator.index(num_samples)
        if self.n_draws < 1:
            raise MergeError(f"num_samples: expected at least 1, got {num_samples}")
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if num_replicas is None:
            num_replicas = torch.distributed.get_world_size() if distributed else 1
        if rank is None:
            rank = torch.distributed.get_rank() if distributed else 0
        super().__init__(
            dataset, num_replicas=num_replicas, rank=rank, seed=seed, drop_last=drop_last
        )
        self.n_epochs = n_epochs
        parts = self.n_draws / self.num_replicas
        self.num_samples = math.floor(parts) if drop_last else math.ceil(parts)
        self.total_size = self.num_samples * self.num_replicas
        self._start = self._position = 0
        self.set_epoch(0)
        self._check_every_class()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the images that fill the slots of the dataset.

        A resumed position belongs to its epoch; any other epoch begins at its start.

        Args:
            epoch: Number of the epoch, from 0.
        """
        if epoch != self.epoch:
            self._start = self._position = 0
        super().set_epoch(operator.index(epoch))
        self._merged.set_epoch(self.epoch, self.n_epochs)

    def __iter__(self) -> Iterator[int]:
        rows = self.epoch_indices()[self.rank : self.total_size : self.num_replicas]
        start, self._start = self._start, 0
        self._position = start
        for index in rows[start:].tolist():
            self._position += 1
            yield index

    def __len__(self) -> int:
        """Draws of this process in a whole epoch."""
        return self.num_samples

    def epoch_indices(self) -> Int64[np.ndarray, " total"]:
        """Return the draws of this epoch in order.

        Returns:
            Slots of the dataset, for all processes together.
        """
        drawn = np.concatenate(
            [
                rows[fill(len(rows), n, self.epoch, (self.seed, label, int(synthetic)))]
                for label, by_kind in enumerate(self._planned())
                for synthetic, (rows, n) in enumerate(by_kind)
            ]
        )
        key = [abs(self.seed), int(self.seed < 0), self.epoch, _ORDER]
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        drawn = drawn[order.permutation(len(drawn))]
        # The first draws are repeated if the processes would get unequal numbers.
        return np.resize(drawn, self.total_size)

    def state_dict(self, *, position: int | None = None) -> dict[str, int]:
        """Return the position in the epoch, for `load_state_dict`.

        Args:
            position: Draws of this process that were consumed. Default: those that were handed out.
                A loader with workers prefetches, so that these are more than were consumed; pass
                ``batches * batch_size`` there (torchdata's ``StatefulDataLoader`` counts by
                itself).

        Returns:
            Plain numbers.
        """
        position = self._position if position is None else operator.index(position)
        return {
            "epoch": self.epoch,
            "position": position,
            "seed": self.seed,
            "num_samples": self.n_draws,
            "num_replicas": self.num_replicas,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from the position that `state_dict` returned.

        Args:
            state: Output of `state_dict`.

        Raises:
            MergeError: If the state is of a different sampler, or is not a position in an epoch.
        """
        expected = self.state_dict()
        if set(state) != set(expected):
            raise MergeError(f"state: expected the keys {sorted(expected)}, got {sorted(state)}")
        for name in ("seed", "num_samples", "num_replicas"):
            if state[name] != expected[name]:
                raise MergeError(
                    f"state: expected {name} {expected[name]} as of this sampler, got {state[name]}"
                )
        position = operator.index(state["position"])
        if not 0 <= position <= self.num_samples:
            raise MergeError(
                f"state: expected a position from 0 to {self.num_samples}, got {position}"
            )
        self.set_epoch(operator.index(state["epoch"]))
        self._start = self._position = position

    @property
    def _merged(self) -> MergedDataset:
        assert isinstance(self.dataset, MergedDataset)  # checked when constructed
        return self.dataset

    def _planned(self) -> list[tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]]:
        """Return (slots, number of draws) of the real and of the synthetic images of each class."""
        merged = self._merged
        k = len(merged.class_names)
        real = rows_by_class(np.where(merged.is_synthetic, -1, merged.labels), k)
        synthetic = rows_by_class(np.where(merged.is_synthetic, merged.labels, -1), k)
        per_class, remainder = divmod(self.n_draws, k)
        planned = []
        for label in range(k):
            # The classes that get one more draw rotate from epoch to epoch.
            n = per_class + int((label - self.epoch * remainder) % k < remainder)
            if self._shares is None:
                share = len(synthetic[label]) / max(1, len(real[label]) + len(synthetic[label]))
            else:
                # In epochs with real images only, a class has no synthetic slots.
                share = self._shares[label] if len(synthetic[label]) else 0.0
            if not len(real[label]):
                share = 1.0
            n_synthetic = round(share * n)
            planned.append(((real[label], n - n_synthetic), (synthetic[label], n_synthetic)))
        return planned

    def _check_every_class(self) -> None:
        for name, ((real, n_real), (synthetic, n_synthetic)) in zip(
            self._merged.class_names, self._planned(), strict=True
        ):
            if (n_real and not len(real)) or (n_synthetic and not len(synthetic)):
                raise MergeError(
                    f"class {name!r}: expected images to draw from, got {len(real)} real and "
                    f"{len(synthetic)} synthetic ones"
                )
