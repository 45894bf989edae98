"""Few labels and many images without: does the generator learn from those, and the classifier?

Of the digits a few of each class keep their labels; the others become a pool without. One generator
learns from the labelled images alone, one from the pool too. Printed of each: how well it describes
held-out images (a bound of their log-likelihood), and the balanced accuracy of the same small
classifier on labelled images merged with its samples, every class with the same synthetic share.

    python pipelines/semi_supervised.py --labels 10
    python pipelines/semi_supervised.py --data LABELLED --pool UNLABELLED

The default takes a minute and a half on one CPU core.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from classifier import recalls, train_classifier
from torchvision.transforms import v2

import vaeaug


def hide_labels(
    data: vaeaug.LabelledImages, n: int, seed: int
) -> tuple[vaeaug.LabelledImages, np.ndarray]:
    """N labelled images of each class, and the others without their labels."""
    rng = np.random.default_rng(seed)
    kept = np.concatenate(
        [rng.permutation(np.flatnonzero(data.labels == c))[:n] for c in range(data.n_classes)]
    )
    return data.subset(np.sort(kept)), np.delete(data.images, kept, axis=0)


def main(command_line: Sequence[str] | None = None) -> None:
    """Train two generators and three classifiers, and print what each gave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="anything vaeaug.read takes")
    parser.add_argument("--pool", help="images without labels; default: most of DATA")
    parser.add_argument("--labels", type=int, default=10, help="of each class, without --pool")
    parser.add_argument("--out", type=Path, default=Path("runs/semi"))
    parser.add_argument("--config", default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--share", type=float, default=0.5, help="of every class, synthetic")
    parser.add_argument("--steps", type=int, default=300, help="of each classifier")
    arguments = parser.parse_args(command_line)

    config = vaeaug.load_config(arguments.config, arguments.set)
    whole, held_out = vaeaug.read(arguments.data).split_off(0.3, seed=config.seed)
    if arguments.pool is None:
        labelled, pool = hide_labels(whole, arguments.labels, config.seed)
    else:
        # Of the shape, type and value range of the labelled images, whatever the files hold.
        labelled, pool = whole, vaeaug.read_pool(arguments.pool, whole)
    print(f"{len(labelled)} labelled images, {len(pool)} without, {len(held_out)} held out")

    shift = v2.RandomCrop(labelled.image_shape[:2], padding=1)
    for name, data in (("without", labelled), ("with", labelled.with_unlabelled(pool))):
        out = arguments.out / f"{name}-pool"
        vaeaug.augment(data, out, config)
        generator = vaeaug.load(out)
        if name == "with":
            # What the generator took each pool image to be; -1 where it was not sure enough.
            given = int((generator.labels[generator.n_real :] >= 0).sum())
            print(f"{given} of {len(pool)} pool images were given a label")
        k = config.training.bound_samples
        bound = generator.bound(held_out.images, held_out.labels, k=k, seed=config.seed).mean()
        print(f"generator {name} pool: held-out images {bound:.1f} nats")
        for share in (0.0, arguments.share) if name == "without" else (arguments.share,):
            merged = vaeaug.merge(
                data, out, share, balance="classes", transform=shift, seed=config.seed
            )
            model = train_classifier(
                merged, data.n_classes, steps=arguments.steps, seed=config.seed
            )
            what = f"its samples, {share:.0%}" if share else "no samples"
            accuracy = recalls(model, held_out).mean()
            print(f"classifier with {what}: balanced accuracy {accuracy:.1%}")
    print(f"One seed, {len(held_out)} images: differences of a point or two are chance.")


if __name__ == "__main__":
    main()
