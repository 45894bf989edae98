"""Synthetic images inside an albumentations chain: `SyntheticPool`, saved to a file and loaded.

The job makes screened samples of every class. `SyntheticPool` is then the first step of an
`A.Compose`: it puts one of the same label in the place of a share of the images, mapped from the
shards, so that a worker holds no model. The chain is a JSON file that names the run and its hash.

    python pipelines/albumentations_loader.py --share 0.3

The default takes a minute and a half on one CPU core.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import albumentations as A
import torch
from classifier import BATCH, class_balanced, recalls, small_cnn, train
from torch.utils.data import DataLoader, Dataset

import vaeaug
from vaeaug.integrations import SyntheticPool, worker_init_fn

# Instead of SyntheticPool: vaeaug.integrations.albumentations.LatentAugment(run / "model", p=share)
# moves each image within its class, a few milliseconds an image.


class Images(Dataset):
    """Arrays (H, W, C) through an albumentations chain, and their labels."""

    def __init__(self, data: vaeaug.LabelledImages, chain: A.Compose) -> None:
        self.data, self.chain = data, chain

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        label = int(self.data.labels[index])
        # The label goes in beside the image: it says of which class a sample is drawn.
        image = self.chain(image=self.data.images[index], label=label)["image"]
        return torch.from_numpy(image).movedim(-1, 0), label


def main(command_line: Sequence[str] | None = None) -> None:
    """Run the job, train with the chain and without synthetic images, and print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="anything vaeaug.read takes")
    parser.add_argument("--out", type=Path, default=Path("runs/albumentations"))
    parser.add_argument("--config", default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--share", type=float, default=0.3, help="of every class, synthetic")
    parser.add_argument("--steps", type=int, default=300, help="of each classifier")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args(command_line)

    config = vaeaug.load_config(arguments.config, arguments.set)
    data = vaeaug.read(arguments.data, split=config.data.split)
    data, held_out = data.split_off(0.3, seed=config.seed)
    if config.data.class_counts is not None:
        data = data.imbalanced(config.data.class_counts, seed=config.seed)
    run = arguments.out / "run"
    result = vaeaug.augment(data, run, config)
    n_synthetic = result.manifest.n_images
    print(f"{len(data)} real images, {n_synthetic} synthetic, {len(held_out)} held out")

    for name, share in (("real", 0.0), ("merged", arguments.share)):
        chain = A.Compose(
            [
                # First: what follows treats real and synthetic images alike.
                SyntheticPool(run, p=share),
                A.Affine(rotate=(-10, 10), scale=(0.9, 1.1), translate_px=(-1, 1), p=0.8),
            ],
            seed=config.seed,
        )
        # Where it is loaded, the run must have the hash that is in the file.
        A.save(chain, arguments.out / f"{name}.json")
        chain = A.load(arguments.out / f"{name}.json")
        torch.manual_seed(config.seed)
        model = small_cnn(data.image_shape, data.n_classes, data.value_range)
        loader = DataLoader(
            Images(data, chain),
            batch_size=BATCH,
            sampler=class_balanced(data.labels, BATCH * arguments.steps),
            num_workers=arguments.workers,
            # Without it the workers of albumentations 2.0.8 draw the same numbers.
            worker_init_fn=worker_init_fn,
        )
        recall = recalls(train(model, loader, steps=arguments.steps), held_out)
        few = recall[data.counts.argsort()[:3]].mean()
        print(f"{name:>7}: balanced accuracy {recall.mean():.1%}, rarest three {few:.1%}")
    print(f"One seed, {len(held_out)} images: differences of a point or two are chance.")
    print(f"A verdict with an interval: vaeaug.evaluate(data, {str(run)!r})")


if __name__ == "__main__":
    main()
