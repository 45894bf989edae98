"""Synthetic data inside a torchvision loader: `VAEMix` on batches, `LatentAugment` on images.

One generator is trained on long-tailed digits. The same small classifier is then trained four
times, with the same steps and class-balanced draws: with a shift of its images alone, with images
moved in latent space in the dataset's `v2.Compose`, with CutMix, and with synthetic images put into
each batch before CutMix. Balanced accuracy is on held-out training images.

    python pipelines/torchvision_loader.py --share 0.3

The default takes a minute and a half on one CPU core.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from classifier import BATCH, class_balanced, recalls, small_cnn, train
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

import vaeaug
from vaeaug.integrations import LatentAugment, VAEMix


class Images(Dataset):
    """Tensors (C, H, W) and labels; the transform gets both."""

    def __init__(self, data: vaeaug.LabelledImages, transform: v2.Transform) -> None:
        self.images = torch.from_numpy(data.images).movedim(-1, 1)
        self.labels, self.transform = data.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index], self.labels[index])


def mixed(loader: DataLoader, mix: v2.Transform) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches, mixed in the training process, where the generator may be on a GPU."""
    for images, labels in loader:
        yield mix(images, labels)


def main(command_line: Sequence[str] | None = None) -> None:
    """Train a generator and four classifiers, and print what each got right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="anything vaeaug.read takes")
    parser.add_argument("--out", type=Path, default=Path("runs/torchvision"))
    parser.add_argument("--config", default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--share", type=float, default=0.3, help="of every class, synthetic")
    parser.add_argument("--steps", type=int, default=300, help="of each classifier")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args(command_line)

    config = vaeaug.load_config(arguments.config, arguments.set)
    data = vaeaug.read(arguments.data, split=config.data.split)
    # Before it is made long-tailed, so that rare classes are judged by enough images.
    data, held_out = data.split_off(0.3, seed=config.seed)
    if config.data.class_counts is not None:
        data = data.imbalanced(config.data.class_counts, seed=config.seed)
    generator = vaeaug.fit(data, config)
    generator.save(arguments.out)

    shift = v2.RandomCrop(data.image_shape[:2], padding=1)
    cutmix = v2.CutMix(num_classes=data.n_classes)
    # Given as a folder, each worker loads the generator for itself, on the CPU.
    moved = LatentAugment(arguments.out, p=arguments.share)
    # With its training images at hand, samples keep the detail that a decoder blurs.
    mix = VAEMix(generator.attach(data), share=arguments.share)
    arms = {
        "shift": (shift, None),
        "LatentAugment, shift": (v2.Compose([moved, shift]), None),
        "shift, CutMix": (shift, cutmix),
        "shift, VAEMix, CutMix": (shift, v2.Compose([mix, cutmix])),
    }
    print(f"{len(data)} training images, {data.counts.tolist()}; {len(held_out)} held out")
    for name, (transform, on_batches) in arms.items():
        torch.manual_seed(config.seed)
        model = small_cnn(data.image_shape, data.n_classes, data.value_range)
        loader = DataLoader(
            Images(data, transform),
            batch_size=BATCH,
            sampler=class_balanced(data.labels, BATCH * arguments.steps),
            num_workers=arguments.workers,
        )
        batches = loader if on_batches is None else mixed(loader, on_batches)
        recall = recalls(train(model, batches, steps=arguments.steps), held_out)
        few = recall[data.counts.argsort()[:3]].mean()
        print(f"{name:>22}: balanced accuracy {recall.mean():.1%}, rarest three {few:.1%}")
    print(f"One seed, {len(held_out)} images: differences of a point or two are chance.")
    print("For an interval: vaeaug augment DATA --out OUT --evaluate")


if __name__ == "__main__":
    main()
