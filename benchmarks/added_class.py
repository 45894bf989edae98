"""A class added to a trained generator, beside a training on all classes: seconds and samples.

    python -m benchmarks.added_class --out added_class.jsonl     # a quarter of an hour of one core
    python -m benchmarks.added_class --out added_class.jsonl --summary

For each seed and each digit: a generator of the other nine digits, to which the tenth is added with
the trunk frozen (``added``); a training on all ten (``full``); and with ``--arms full added init``
a shorter one that starts from that of nine. All are default jobs without the restorer. Of the tenth
digit are measured

- ``bound``: the importance-weighted bound of its unseen images, nats (higher is better);
- ``called``: the share of its samples that a classifier of all real training images calls it;
- ``learned``: recall on its unseen real images of a classifier that saw the nine other digits and,
  of the tenth, samples alone.

Lines that are there are not measured again.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import vaeaug
from vaeaug.stages import fit_added
from vaeaug.training.classifier import class_probabilities, train_classifier

SAMPLERS = ("prior", "transfer", "interpolate")
N_SAMPLES, CLASSIFIER_STEPS = 200, 250


def called(network: Any, images: np.ndarray, label: int) -> float:
    """Share of images that a classifier gives a class."""
    found = class_probabilities(network, images, (0, 255), device="cpu").argmax(axis=1)
    return float((found == label).mean())


def measured(
    generator: vaeaug.Synthesizer, judge: Any, data: Any, test: Any, label: int, seed: int
) -> dict[str, Any]:
    """What a generator makes of one class."""
    generator.attach(data)
    unseen = test.images[test.labels == label]
    values: dict[str, Any] = {
        "bound": float(generator.bound(unseen, np.full(len(unseen), label)).mean())
    }
    others = data.subset(np.flatnonzero(data.labels != label))
    for sampler in SAMPLERS:
        edits = sampler == "interpolate"
        drawn = generator.sample(label, N_SAMPLES, seed=seed, sampler=sampler, residual=edits)
        mixed = replace(
            others,
            images=np.concatenate([others.images, drawn.images]),
            labels=np.concatenate([others.labels, drawn.labels]),
        )
        network = train_classifier(mixed, steps=CLASSIFIER_STEPS, seed=seed)
        values[f"called_{sampler}"] = called(judge, drawn.images, label)
        values[f"learned_{sampler}"] = called(network, unseen, label)
    return values


def main() -> None:
    """Measure what is missing in the results, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("added_class.jsonl"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 5, 8])
    parser.add_argument("--images", type=int, default=40, help="of each class")
    parser.add_argument("--arms", nargs="+", default=["full", "added"])
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", dest="overrides")
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    lines = []
    if arguments.out.exists():
        lines = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    if not arguments.summary:
        train, test = vaeaug.read("digits", split="train"), vaeaug.read("digits", split="test")
        for seed in arguments.seeds:
            data = train.imbalanced([arguments.images] * 10, seed=seed)
            lines += run(data, test, seed, arguments, lines)
    summary([line for line in lines if line["images"] == arguments.images])


def run(data: Any, test: Any, seed: int, arguments: Any, there: list[Any]) -> list[Any]:
    """All arms of one seed that are not there yet."""
    config = vaeaug.load_config(None, ["restoration.steps=0", *arguments.overrides], seed=seed)
    judge, full, full_seconds, lines = None, None, 0.0, []
    for label in arguments.classes:
        key = {"images": arguments.images, "seed": seed, "class": label}
        if all(
            any((key | {"arm": arm}).items() <= line.items() for line in there)
            for arm in arguments.arms
        ):
            continue
        if judge is None or full is None:
            judge = train_classifier(data, steps=CLASSIFIER_STEPS, seed=seed)
            begin = time.process_time()
            full = vaeaug.fit(data, config, device="cpu", progress=False)
            full_seconds = time.process_time() - begin
            print(f"seed {seed}: all ten in {full_seconds:.0f} s", flush=True)
        nine = data.subset(np.flatnonzero(data.labels != label))
        begin = time.process_time()
        start = vaeaug.fit(nine, config, device="cpu", progress=False)
        nine_seconds = time.process_time() - begin
        begin = time.process_time()
        added = fit_added(start, data, config, device="cpu")
        added_seconds = time.process_time() - begin
        print(f"class {label}: nine {nine_seconds:.0f} s, added {added_seconds:.0f} s", flush=True)
        arms = {"full": (full, full_seconds), "added": (added, added_seconds)}
        if "init" in arguments.arms:
            with tempfile.TemporaryDirectory() as folder:
                start.save(Path(folder))
                begin = time.process_time()
                from_nine = config.changed(**{"training.init": folder})
                init = vaeaug.fit(data, from_nine, device="cpu", progress=False)
                arms["init"] = (init, time.process_time() - begin)
        for arm, (generator, seconds) in arms.items():
            line = {
                **key,
                "arm": arm,
                "cpu_seconds": seconds,
                "cpu_seconds_of_nine": nine_seconds,
                "real": called(judge, test.images[test.labels == label], label),
                **measured(generator, judge, data, test, label, seed),
            }
            lines.append(line)
            with open(arguments.out, "a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    return lines


def summary(lines: list[Any]) -> None:
    """Means of each arm, and its differences from the full training with 95 % intervals."""
    names = ["cpu_seconds", "real", "bound"]
    names += [f"{what}_{s}" for what in ("called", "learned") for s in SAMPLERS]
    by_key = {(line["seed"], line["class"], line["arm"]): line for line in lines}
    pairs = sorted({(seed, label) for seed, label, _ in by_key})
    arms = ["full", *sorted({arm for *_, arm in by_key} - {"full"})]
    print(f"{len(pairs)} pairs of seed and class")
    for name in names:
        values = {
            arm: np.array([by_key[*pair, arm][name] for pair in pairs if (*pair, arm) in by_key])
            for arm in arms
        }
        text = [f"{arm} {value.mean():.3f}" for arm, value in values.items()]
        for arm in arms[1:]:
            if len(values[arm]) == len(values["full"]) > 1:
                difference = values[arm] - values["full"]
                from scipy.stats import t

                half = t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1)
                half /= np.sqrt(len(difference))
                text.append(f"{arm} - full {difference.mean():+.3f} +- {half:.3f}")
        print(f"{name}: {', '.join(text)}")


if __name__ == "__main__":
    main()
