"""Merged data for Lightning; it needs the extra ``vaeaug[lightning]``.

One line gives a trainer real and synthetic images::

    trainer.fit(model, MergedDataModule(train, "runs/rare", val=val))
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from vaeaug.merging import BalancedSampler, MergedDataset, MergeError, Share, collate, merge
from vaeaug.shards import Manifest, ShardDataset

try:
    from lightning.pytorch import LightningDataModule
except ImportError:
    try:
        from pytorch_lightning import LightningDataModule  # the older name of the same class
    except ImportError:
        raise ImportError(
            "vaeaug.integrations.lightning needs Lightning: pip install 'vaeaug[lightning]'"
        ) from None


class MergedDataModule(LightningDataModule):
    """Real and synthetic images for training, and real ones for validation and test.

    With ``details``, training batches are `MergedBatch` (images, labels, is_synthetic, weights),
    otherwise (images, labels). Validation and test batches are (images, labels). A
    `BalancedSampler` draws all classes equally often. Lightning sets its epoch and does not replace
    it in distributed training. A recipe that ends on real images uses the trainer's ``max_epochs``.

    Args:
        real: Training images, as for `merge`.
        out_dir: A finished run folder, as for `merge`.
        val: Real images for validation, of the same classes and shape; None: no validation.
        test: Real images for testing; None: no test.
        share: Synthetic fraction of every class, as for `merge`. None: that of the run's recipe.
        batch_size: Batch size of one process.
        balanced: Draw every class equally often; False keeps the real class counts.
        transform: Applied to each training image.
        eval_transform: Applied to each validation and test image.
        soft: As for `merge`.
        details: Training batches include weights and which images are synthetic.
        seed: Seed of the draws and their order.
        num_workers: Workers of each loader.
        loader_options: Further arguments of each ``DataLoader``, such as ``pin_memory``.

    Raises:
        MergeError: As for `merge`, or if a test is requested without test images.
    """

    def __init__(
        self,
        real: Any,
        out_dir: str | Path | Manifest | ShardDataset,
        *,
        val: Any = None,
        test: Any = None,
        share: Share | None = None,
        batch_size: int = 64,
        balanced: bool = True,
        transform: Callable[[Any], Any] | None = None,
        eval_transform: Callable[[Any], Any] | None = None,
        soft: bool | None = None,
        details: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        **loader_options: Any,
    ) -> None:
        super().__init__()
        self.train_set = merge(
            real,
            out_dir,
            share,
            balance="classes" if balanced else None,
            transform=transform,
            seed=seed,
            soft=soft,
            details=details,
        )
        self.val_set = None if val is None else self._real_only("val", val, eval_transform)
        self.test_set = None if test is None else self._real_only("test", test, eval_transform)
        self.batch_size, self.balanced, self.seed = batch_size, balanced, seed
        self.loader_options = {"num_workers": num_workers, **loader_options}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the labels."""
        return self.train_set.class_names

    def train_dataloader(self) -> "DataLoader[Any]":
        """Create the loader of real and synthetic images.

        Returns:
            The loader.
        """
        options = dict(self.loader_options)
        if self.balanced:
            epochs = getattr(self.trainer, "max_epochs", None)
            known = isinstance(epochs, int) and epochs > 0
            options["sampler"] = BalancedSampler(
                self.train_set, seed=self.seed, n_epochs=epochs if known else None
            )
        else:
            options["shuffle"] = True
        if self.train_set.details:
            options["collate_fn"] = collate
        return DataLoader(self.train_set, batch_size=self.batch_size, **options)

    def val_dataloader(self) -> Any:
        """Create the loader of real validation images.

        Returns:
            The loader; an empty list if there are no such images.
        """
        return [] if self.val_set is None else self._plain(self.val_set)

    def test_dataloader(self) -> "DataLoader[Any]":
        """Create the loader of real test images.

        Returns:
            The loader.

        Raises:
            MergeError: If there are no such images.
        """
        if self.test_set is None:
            raise MergeError("test: expected real images to test on, got none")
        return self._plain(self.test_set)

    def _plain(self, dataset: MergedDataset) -> "DataLoader[Any]":
        return DataLoader(dataset, batch_size=self.batch_size, **self.loader_options)

    def _real_only(
        self, split_name: str, real: Any, transform: Callable[[Any], Any] | None
    ) -> MergedDataset:
        # This is not the generator's split: its fingerprint differs, but its classes do not.
        merged = merge(
            real,
            self.train_set.synthetic,
            0.0,
            balance=None,
            transform=transform,
            on_mismatch="ignore",
            soft=False,
        )
        if merged.class_names != self.class_names:
            raise MergeError(
                f"{split_name}: expected the classes in the order of the training images "
                f"{self.class_names}, got {merged.class_names}"
            )
        return merged
