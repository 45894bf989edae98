"""Merged data in a Lightning training."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import vaeaug
from vaeaug.merging import MergedBatch, MergeError

lightning = pytest.importorskip("lightning.pytorch")
from vaeaug.integrations.lightning import MergedDataModule  # noqa: E402

# Lightning's own: it warns of few workers, of short epochs and of what it will change.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]


class Probe(lightning.LightningModule):
    """A linear classifier that remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.seen, self.correct = {}, []

    def training_step(self, batch, _):
        assert isinstance(batch, MergedBatch)
        self.seen.setdefault(self.current_epoch, []).append(batch)
        losses = nn.functional.cross_entropy(
            self.network(batch.images / 255), batch.labels, reduction="none"
        )
        return (losses * batch.weights).mean()

    def validation_step(self, batch, _):
        images, labels = batch
        self.correct.append((self.network(images / 255).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def trainer(tmp_path, **options):
    return lightning.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def test_a_trainer_fits_on_merged_data(finished, digits, tmp_path):
    test = vaeaug.read("digits", split="test")
    module = MergedDataModule(
        digits, finished.out_dir, val=test, share=0.3, details=True, seed=2, batch_size=50
    )
    model = Probe()
    trainer(tmp_path, max_epochs=3, num_sanity_val_steps=0).fit(model, module)
    assert len(model.seen) == 3
    # The last fifth of the epochs, here the third, is real alone.
    for share, batches in zip((0.3, 0.3, 0.0), model.seen.values(), strict=True):
        labels = torch.cat([batch.labels for batch in batches])
        made = torch.cat([batch.is_synthetic for batch in batches])
        assert len(labels) == len(module.train_set)
        assert torch.bincount(labels).unique().numel() == 1
        assert abs(float(made.float().mean()) - share) < 0.02
    first, second = (torch.cat([b.images for b in model.seen[epoch]]) for epoch in (0, 1))
    assert not torch.equal(first, second)  # another order and other samples in each epoch
    images = sum(len(batch) for batch in [test.images])
    assert images == len(module.val_set)
    assert torch.stack(model.correct[-7:]).mean() > 0.5


def test_the_ending_on_real_images_follows_max_epochs(finished, digits, tmp_path):
    module = MergedDataModule(digits, finished.out_dir, share=0.3, details=True)
    module.train_set.recipe["real_only_last"] = 0.5
    model = Probe()
    trainer(tmp_path, max_epochs=4).fit(model, module)
    shares = [
        float(torch.cat([b.is_synthetic for b in model.seen[epoch]]).float().mean())
        for epoch in range(4)
    ]
    assert min(shares[:2]) > 0.25
    assert shares[2:] == [0, 0]


def test_validation_images_are_the_real_ones_in_order(finished, digits):
    test = vaeaug.read("digits", split="test")
    module = MergedDataModule(digits, finished.out_dir, val=test, test=test, batch_size=100)
    for loader in (module.val_dataloader(), module.test_dataloader()):
        images = torch.cat([images for images, _ in loader]).movedim(1, -1).numpy()
        labels = torch.cat([labels for _, labels in loader]).numpy()
        order = np.argsort(test.labels, kind="stable")
        assert np.array_equal(images, test.images[order])
        assert np.array_equal(labels, test.labels[order])


def test_without_validation_images_there_is_none(finished, digits, tmp_path):
    module = MergedDataModule(digits, finished.out_dir, details=True, balanced=False)
    assert module.val_dataloader() == []
    with pytest.raises(MergeError, match="test: expected real images to test on"):
        module.test_dataloader()
    trainer(tmp_path, max_steps=1).fit(Probe(), module)


def test_validation_images_of_another_order_of_classes_are_refused(finished, digits):
    test = vaeaug.read("digits", split="test")
    images = TensorDataset(
        torch.from_numpy(test.images).movedim(-1, 1), torch.from_numpy(test.labels)
    )
    images.classes = [str(label) for label in range(9, -1, -1)]
    with pytest.raises(MergeError, match="val: expected the classes in the order"):
        MergedDataModule(digits, finished.out_dir, val=images)


def test_without_lightning_the_extra_is_named():
    code = (
        "import sys; sys.modules['lightning'] = sys.modules['pytorch_lightning'] = None\n"
        "import vaeaug.integrations.lightning"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'vaeaug[lightning]'" in done.stderr
