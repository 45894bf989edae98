"""What the three groupings and the samplers give on long-tailed Fashion-MNIST.

For every grouping one generator is trained, for every sampler one dataset is made from it. Columns:

- accuracy of a classifier trained on the synthetic images alone, on real test images ("TSTR");
- balanced accuracy of a classifier trained on merged data, one synthetic share for all;
- recall of the three rarest classes in it; share of candidates rejected.

All classifiers draw all classes equally, with the same steps and augmentation; the first row is the
real images alone. Results are appended to a JSON-lines file; what is there is not run again.

    python -m benchmarks.groupings_and_samplers --seed 0 --out runs/groupings
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np

import vaeaug
from pipelines.balance_rare_classes import (
    COUNTS,
    FASHION_MNIST,
    classic_augmentation,
    long_tailed,
    recalls,
    train_classifier,
)

GROUPINGS = ("adapted", "shared", "separate")
SAMPLERS = ("prior", "posterior", "interpolate", "gmm", "transfer")
# The same, real images edited: what the decoder loses of the source is added.
EDITS = ("interpolate+residual", "transfer+residual")
SHARE = 0.3


class SyntheticOnly:
    """The synthetic images of a run, every class equally often, as a dataset of tensors."""

    def __init__(self, out: Path, transform) -> None:
        self.transform = transform
        self.shards = vaeaug.ShardDataset(out)
        rows = [np.flatnonzero(self.shards.labels == c) for c in np.unique(self.shards.labels)]
        most = max(map(len, rows))
        self.rows = np.concatenate([np.resize(class_rows, most) for class_rows in rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]):
        import torch

        rows = self.rows[np.asarray(indices)]
        images = torch.from_numpy(self.shards.images_at(rows)).movedim(-1, 1)
        return list(
            zip(map(self.transform, images), self.shards.labels[rows].tolist(), strict=True)
        )


def print_table(out: Path) -> None:
    """Mean over the seeds of every row; the number of seeds beside it."""
    rows: dict[tuple[str, str], list[dict]] = {}
    for results in sorted(out.glob("seed-*/results.jsonl")):
        for line in map(json.loads, results.read_text().splitlines()):
            rows.setdefault((line["grouping"], line["sampler"]), []).append(line)
    columns = ("train_on_synthetic", "balanced_accuracy", "rare_recall", "rejected")
    print("| grouping | sampler | synthetic only | merged | rarest three | rejected | seeds |")
    print("|---|---|---|---|---|---|---|")
    for (grouping, sampler), lines in rows.items():
        cells = [
            f"{100 * np.mean([line[column] for line in lines]):.1f}" if column in lines[0] else ""
            for column in columns
        ]
        print(f"| {grouping} | {sampler} | {' | '.join(cells)} | {len(lines)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/groupings"))
    parser.add_argument("--steps", type=int, default=1000, help="of each classifier")
    parser.add_argument("--groupings", nargs="+", default=GROUPINGS)
    parser.add_argument("--samplers", nargs="+", default=(*SAMPLERS, *EDITS))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--table", action="store_true", help="print what is there, as Markdown")
    arguments = parser.parse_args()
    if arguments.table:
        print_table(arguments.out)
        return
    seed, steps = arguments.seed, arguments.steps
    folder = arguments.out / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    done = set()
    if results.exists():
        for line in results.read_text().splitlines():
            done.add((json.loads(line)["grouping"], json.loads(line)["sampler"]))
    train, test = long_tailed(FASHION_MNIST, COUNTS, seed)
    augment = classic_augmentation(train.image_shape)
    rare = np.argsort(train.counts)[:3]

    def record(grouping: str, sampler: str, **metrics: float) -> None:
        with open(results, "a") as file:
            line = {"grouping": grouping, "sampler": sampler, "seed": seed, **metrics}
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)

    def score(dataset) -> tuple[float, float]:
        model = train_classifier(dataset, train.n_classes, steps=steps, seed=seed)
        recall = recalls(model, test)
        return float(recall.mean()), float(recall[rare].mean())

    screener = None
    for grouping in arguments.groupings:
        config = vaeaug.load_config(
            None,
            [*arguments.set, f"model.grouping={grouping}"],
            seed=seed,
            **{"plan.target_ratio": 0.25},
        )
        begin = time.perf_counter()
        model = folder / grouping
        if (model / "config.json").exists():
            generator = vaeaug.load(model)
        else:
            trunk = folder / "adapted-run" / "checkpoints" / "trunk.pt"
            if grouping == "shared" and trunk.exists():  # the same trunk, not adapted
                (folder / "shared-run" / "checkpoints").mkdir(parents=True)
                shutil.copy(trunk, folder / "shared-run" / "checkpoints")
            generator = vaeaug.fit(train, config, folder=folder / f"{grouping}-run")
            generator.save(model)
        seconds = time.perf_counter() - begin
        for sampler in arguments.samplers:
            if (grouping, sampler) in done:
                continue
            if screener is None:
                screener = vaeaug.Screener.for_job(train, config.changed(seed=seed))
            out = folder / f"{grouping}-{sampler}"
            result = vaeaug.generate(
                generator,
                train,
                out,
                config.changed(
                    **{
                        "recipe.sampler": sampler.partition("+")[0],
                        "sampling.residual": sampler.endswith("+residual"),
                    }
                ),
                screener=screener,
            )
            classes = result.manifest.classes
            if ("real", "none") not in done:
                real = vaeaug.merge(
                    train, out, 0.0, balance="classes", transform=augment, seed=seed
                )
                balanced, few = score(real)
                record("real", "none", balanced_accuracy=balanced, rare_recall=few)
                done.add(("real", "none"))
            merged = vaeaug.merge(
                train, out, SHARE, balance="classes", transform=augment, seed=seed
            )
            balanced, few = score(merged)
            record(
                grouping,
                sampler,
                train_on_synthetic=score(SyntheticOnly(out, augment))[0],
                balanced_accuracy=balanced,
                rare_recall=few,
                rejected=1 - sum(c.accepted for c in classes) / sum(c.candidates for c in classes),
                short=sum(c.n_synthetic - c.accepted for c in classes),
                fit_seconds=seconds,
            )


if __name__ == "__main__":
    main()
