"""Train a Lightning module on merged data, with soft labels and loss weights.

The job makes screened samples whose labels are half what classifiers of the real images say.
`MergedDataModule` gives the trainer batches of real and synthetic images, every class equally often
and with the same synthetic share, and real images for validation.

    pip install 'vaeaug[lightning]'
    python pipelines/lightning_training.py --share 0.3

The default takes a minute and a half on one CPU core.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
from classifier import BATCH, recalls, small_cnn
from torch import Tensor, nn
from torchvision.transforms import v2

import vaeaug
from vaeaug.integrations.lightning import MergedDataModule


class Classifier(pl.LightningModule):
    """A small CNN whose loss follows what a merged batch carries."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.synthetic = self.seen = 0

    def training_step(self, batch, batch_idx: int) -> Tensor:
        """Cross entropy with class probabilities as labels, each image by its weight."""
        losses = nn.functional.cross_entropy(
            self.network(batch.images), batch.labels, reduction="none"
        )
        self.seen += len(losses)
        self.synthetic += int(batch.is_synthetic.sum())
        return (losses * batch.weights).sum() / batch.weights.sum()

    def validation_step(self, batch, batch_idx: int) -> None:
        """Loss on real images, whose labels are indices."""
        images, labels = batch
        self.log("val_loss", nn.functional.cross_entropy(self.network(images), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=1e-2)


def main(command_line: Sequence[str] | None = None) -> None:
    """Run the job, train on real and on merged data, and print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="anything vaeaug.read takes")
    parser.add_argument("--out", type=Path, default=Path("runs/lightning"))
    parser.add_argument("--config", default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--share", type=float, default=0.3, help="of every class, synthetic")
    parser.add_argument("--epochs", type=int, default=30, help="of merged data")
    arguments = parser.parse_args(command_line)

    config = vaeaug.load_config(arguments.config, arguments.set)
    data = vaeaug.read(arguments.data, split=config.data.split)
    data, held_out = data.split_off(0.3, seed=config.seed)
    if config.data.class_counts is not None:
        data = data.imbalanced(config.data.class_counts, seed=config.seed)
    run = arguments.out / "run"
    vaeaug.augment(data, run, config)

    steps = None
    for name, share in (("merged", arguments.share), ("real", 0.0)):
        pl.seed_everything(config.seed, verbose=False)
        merged = MergedDataModule(
            data,
            run,
            val=held_out,
            share=share,
            batch_size=BATCH,
            transform=v2.RandomCrop(data.image_shape[:2], padding=1),
            soft=True,  # labels (n, K): the run's for synthetic images, one-hot for real ones
            details=True,  # batches with is_synthetic and weights
            seed=config.seed,
        )
        model = Classifier(small_cnn(data.image_shape, data.n_classes, data.value_range))
        trainer = pl.Trainer(
            default_root_dir=arguments.out,
            # Without synthetic images an epoch is shorter: both train for as many steps.
            max_epochs=arguments.epochs if steps is None else -1,
            max_steps=-1 if steps is None else steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, merged)
        steps = trainer.global_step
        recall = recalls(model.network.eval(), held_out)
        print(
            f"{name:>7}: {steps} steps, {model.synthetic / model.seen:.0%} synthetic, validation "
            f"loss {float(trainer.callback_metrics['val_loss']):.3f}, balanced accuracy "
            f"{recall.mean():.1%}, rarest class {recall[data.counts.argmin()]:.1%}"
        )
    print(f"One seed, {len(held_out)} images: differences of a point or two are chance.")
    print(f"A verdict with an interval: vaeaug.evaluate(data, {str(run)!r})")


if __name__ == "__main__":
    main()
