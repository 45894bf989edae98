"""Balance the rare classes of a long-tailed Fashion-MNIST, and see whether it helped.

Builds the long-tailed training set, runs the job, trains the same small classifier on the real
images and on the merged ones, and prints the balanced accuracy of both on the test images. Both
arms draw every class equally often and shift and flip their images; the merged one replaces a share
of *every* class's draws by synthetic samples.

    apt-get install dataset-fashion-mnist
    python pipelines/balance_rare_classes.py --out runs/fashion

The default takes seven minutes on one CPU core.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import vaeaug

if __package__:  # imported as pipelines.balance_rare_classes, as the benchmarks do
    from pipelines.classifier import classic_augmentation, recalls, train_classifier
else:
    from classifier import classic_augmentation, recalls, train_classifier

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
COUNTS = [4000, 2000, 1000, 750, 500, 350, 200, 100, 60, 40]


def long_tailed(
    source: str, counts: Sequence[int], seed: int
) -> tuple[vaeaug.LabelledImages, vaeaug.LabelledImages]:
    """Training images with counts[i] of the i-th class of a seeded order, and the test images."""
    train = vaeaug.read(source, split="train")
    order = np.random.default_rng(seed).permutation(train.n_classes)
    wanted = {int(label): count for label, count in zip(order, counts, strict=True)}
    return train.imbalanced(wanted, seed=seed), vaeaug.read(source, split="test")


def main(command_line: Sequence[str] | None = None) -> None:
    """Run the whole comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=FASHION_MNIST, help="anything vaeaug.read takes")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--out", type=Path, default=Path("runs/fashion"))
    parser.add_argument("--config", default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=1600, help="of each classifier")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(command_line)

    train, test = long_tailed(arguments.data, arguments.counts, arguments.seed)
    config = vaeaug.load_config(arguments.config, arguments.set, seed=arguments.seed)
    result = vaeaug.augment(train, arguments.out, config)
    for entry in result.manifest.classes:
        print(f"{entry.name:>12}: {entry.real:5} real, {entry.accepted:5} synthetic")

    scores = {}
    for name, share in (("real", 0.0), ("merged", arguments.share)):
        merged = vaeaug.merge(
            train,
            arguments.out,
            share,
            balance="classes",
            transform=classic_augmentation(train.image_shape),
            seed=arguments.seed,
        )
        model = train_classifier(
            merged, train.n_classes, steps=arguments.steps, seed=arguments.seed
        )
        scores[name] = recalls(model, test)
        few = scores[name][train.counts.argsort()[:3]].mean()
        print(f"{name:>8}: balanced accuracy {scores[name].mean():.2%}, rarest three {few:.2%}")
    difference = scores["merged"].mean() - scores["real"].mean()
    verdict = "higher" if difference > 0 else "not higher"
    print(f"Merged training was {verdict}, by {difference:+.2%} (one seed; seeds vary by 0.3 %).")
    print(f"A verdict with an interval: vaeaug.evaluate(train, {str(arguments.out)!r})")


if __name__ == "__main__":
    main()
