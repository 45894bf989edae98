"""Fashion-MNIST with few labels, the rest of the training images without: what do they give?

Arms, each the same small CNN, the same steps, class-balanced draws, a flip and a shift:

- supervised: the labelled images alone;
- one_pass: and the pool's images that a classifier of the labelled ones is sure of;
- unaligned: the same, where that classifier learned from the pool too (FixMatch's rule);
- pseudo_labels: and its predictions are aligned with the frequencies of the labelled classes;
- merged_pseudo_label: the labelled images merged with samples of a generator that learned from the
  pool by pseudo-labels;
- merged_m2: the same, the generator trained by the bound over all classes (Kingma's M2).

Seeds choose the labelled images, weights and batches; arms of a seed are paired. Results are
appended to a JSON-lines file; what is there is not run again.

    python -m benchmarks.semi_supervised --seeds 0 1 2 3 4 --labels 40 --out runs/semi
    A="supervised one_pass pseudo_labels"   # no samples, so that no generator is needed
    python -m benchmarks.semi_supervised --labels 10 --arms $A --generator-steps 2 --out runs/semi
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import vaeaug
from pipelines.balance_rare_classes import (
    FASHION_MNIST,
    classic_augmentation,
    recalls,
    train_classifier,
)

ARMS = ("supervised", "one_pass", "unaligned", "pseudo_labels", "merged_pseudo_label", "merged_m2")
# How the generator of an arm is trained, which labels the pool as well.
JOBS = {
    "one_pass": {"semi_supervised.consistency": 0.0, "semi_supervised.alignment": False},
    "unaligned": {"semi_supervised.alignment": False},
    "pseudo_labels": {},
    "merged_pseudo_label": {},
    "merged_m2": {"semi_supervised.mode": "m2"},
}


class Balanced:
    """Images and labels, every class equally often, as a dataset of tensors."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform) -> None:
        self.images, self.labels, self.transform = images, labels, transform
        rows = [np.flatnonzero(labels == c) for c in np.unique(labels)]
        most = max(map(len, rows))
        self.rows = np.concatenate([np.resize(class_rows, most) for class_rows in rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        row = self.rows[index]
        image = torch.from_numpy(self.images[row]).movedim(-1, 0)
        return self.transform(image), int(self.labels[row])


class Mixed:
    """A labelled set and another beside it: of every two draws one is from each."""

    def __init__(self, first: Balanced, second: Balanced) -> None:
        self.parts = (first, second)

    def __len__(self) -> int:
        return 2 * max(map(len, self.parts))

    def __getitem__(self, index: int):
        part = self.parts[index % 2]
        return part[(index // 2) % len(part)]


def labelled_and_pool(train: vaeaug.LabelledImages, n: int, seed: int):
    """N images of each class with labels, all others without; and the others' true labels."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(train.labels == c))[:n] for c in range(train.n_classes)]
    )
    rest = np.setdiff1d(np.arange(len(train)), rows)
    return train.subset(rows).with_unlabelled(train.images[rest]), train.labels[rest]


def summary(lines: list[dict]) -> None:
    """Mean over seeds; each arm against supervised and pseudo_labels with a 95 % interval."""
    from scipy.stats import t

    by_arm = {
        arm: {line["seed"]: line["accuracy"] for line in lines if line["arm"] == arm}
        for arm in ARMS
    }
    print("| arm | balanced accuracy | against supervised | against pseudo_labels | seeds |")
    print("|---|---|---|---|---|")
    for arm, accuracies in by_arm.items():
        cells = [f"{100 * np.mean(list(accuracies.values())):.1f}"] if accuracies else [""]
        for other in ("supervised", "pseudo_labels"):
            seeds = sorted(accuracies.keys() & by_arm[other].keys())
            gain = 100 * np.array([accuracies[s] - by_arm[other][s] for s in seeds])
            if arm == other or len(gain) < 2:
                cells.append("")
                continue
            half = t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
            cells.append(f"{gain.mean():+.1f} ± {half:.1f}")
        print(f"| {arm} | {' | '.join(cells)} | {len(accuracies)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--labels", type=int, default=40, help="labelled images of each class")
    parser.add_argument("--steps", type=int, default=800, help="of each classifier")
    parser.add_argument("--generator-steps", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=500, help="synthetic samples of each class")
    parser.add_argument("--device", default="cpu", help="where the generator is trained")
    parser.add_argument("--out", type=Path, default=Path("runs/semi"))
    parser.add_argument("--table", action="store_true", help="print what is there")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "results.jsonl"
    lines = list(map(json.loads, results.read_text().splitlines())) if results.exists() else []
    same = {key: getattr(arguments, key) for key in ("labels", "steps")}
    if arguments.table:
        summary([line for line in lines if same.items() <= line.items()])
        return
    train = vaeaug.read(FASHION_MNIST, split="train")
    test = vaeaug.read(FASHION_MNIST, split="test")
    augment = classic_augmentation(train.image_shape)
    for seed in arguments.seeds:
        data, truth = labelled_and_pool(train, arguments.labels, seed)
        real = Balanced(data.images, data.labels, augment)
        generators = {}
        for arm in arguments.arms:
            key = same | {"arm": arm, "seed": seed}
            if any(key.items() <= line.items() for line in lines):
                continue
            begin = time.process_time()
            dataset = real
            measurements = {}
            if arm != "supervised":
                job = json.dumps(JOBS[arm])
                if job not in generators:
                    config = vaeaug.AugmentConfig().changed(
                        seed=seed,
                        **{
                            "training.steps": arguments.generator_steps,
                            "model.grouping": "shared",
                            **JOBS[arm],
                        },
                    )
                    generators[job] = vaeaug.fit(data, config, device=arguments.device).attach(data)
                generator = generators[job]
                pool = generator.labels[generator.n_real :]
                known = pool >= 0
                measurements = {
                    "pool_labelled": int(known.sum()),
                    "pool_right": float((pool == truth)[known].mean()),
                }
                if not arm.startswith("merged"):
                    images, labels = data.unlabelled[known], pool[known]
                else:
                    drawn = [
                        generator.sample(
                            c, arguments.samples, seed=seed, sampler="interpolate", residual=True
                        )
                        for c in range(train.n_classes)
                    ]
                    images = np.concatenate([batch.images for batch in drawn])
                    labels = np.concatenate([batch.labels for batch in drawn])
                dataset = Mixed(real, Balanced(images, labels, augment))
            model = train_classifier(dataset, train.n_classes, steps=arguments.steps, seed=seed)
            line = {
                **key,
                "generator_steps": arguments.generator_steps,
                "accuracy": float(recalls(model, test).mean()),
                "cpu_seconds": time.process_time() - begin,
                **measurements,
            }
            lines.append(line)
            with open(results, "a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
    summary([line for line in lines if same.items() <= line.items()])


if __name__ == "__main__":
    main()
