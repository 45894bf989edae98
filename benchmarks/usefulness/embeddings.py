"""Do synthetic features help a head on a frozen backbone? Long-tailed glyphs, paired over seeds.

    python benchmarks/usefulness/embeddings.py glyphs.npz --seeds 0 1 2 --out results.jsonl

The file has `images` (N, 28, 28) uint8, `labels` and `family` (of the typeface). Of 56 characters
28 keep 400 images, 14 keep 40 and 14 keep 5; one font of each of 300 families is the test. A small
CNN is trained on the 28 frequent classes and frozen; five views of each image are embedded. All
heads are trained by the gate's own code, which chooses the weight decay on a part of the training
features; samples are drawn and screened as in a job. A line of JSON per head goes to --out.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t
from torch import nn
from torch.nn import functional as F

import vaeaug
from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.embedding import Views
from vaeaug.evaluation import SyntheticSet
from vaeaug.evaluation.gate.arms import Arm
from vaeaug.evaluation.gate.probe import train_and_predict
from vaeaug.stages import SplitStages, suited

COUNTS = [400] * 28 + [40] * 14 + [5] * 14
# The classic augmentation of the views, and of the training of the backbone.
VIEWS = Views(5, rotation=11.5, zoom=0.15, shift=0.054)


def task(path: Path, seed: int) -> tuple[vaeaug.LabelledImages, vaeaug.LabelledImages]:
    """Long-tailed training images, and test images of families that training never sees."""
    with np.load(path) as file:
        images, labels, family = file["images"], file["labels"].astype(int), file["family"]
    rng = np.random.default_rng(seed)
    k = len(COUNTS)
    is_test = np.isin(family, rng.permutation(family.max() + 1)[:300])
    counts = np.zeros(k, int)
    counts[rng.permutation(k)] = COUNTS
    train, test = [], []
    for c in range(k):
        train.append(rng.permutation(np.flatnonzero((labels == c) & ~is_test))[: counts[c]])
        rows = np.flatnonzero((labels == c) & is_test)
        test.append(rows[np.unique(family[rows], return_index=True)[1]])
    names = [f"{c:02d}" for c in range(k)]

    def part(rows: list[np.ndarray]) -> vaeaug.LabelledImages:
        chosen = np.concatenate(rows)
        return vaeaug.read(
            (images[chosen], labels[chosen]), class_names=names, value_range=(0, 255)
        )

    return part(train), part(test)


def block(n_in: int, n_out: int, stride: int) -> nn.Module:
    """A convolution with batch norm."""
    conv = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())


def backbone(data: vaeaug.LabelledImages, seed: int, steps: int, width: int = 16) -> nn.Module:
    """Train a CNN on the frequent classes, and leave out its last layer: 512 features."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 1])
    frequent = np.flatnonzero(data.counts >= max(COUNTS))
    w = width
    body = nn.Sequential(
        *(block(1, w, 1), block(w, 2 * w, 2), block(2 * w, 4 * w, 1), block(4 * w, 4 * w, 2)),
        *(block(4 * w, 8 * w, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
    )
    model = nn.Sequential(body, nn.Linear(32 * w, len(frequent)))
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=5e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps)
    rows = np.stack([np.flatnonzero(data.labels == c) for c in frequent])
    for step in range(steps):
        y = rng.integers(len(frequent), size=128)
        chosen = rows[y, rng.integers(rows.shape[1], size=128)]
        x = torch.from_numpy(data.images[chosen]).movedim(-1, 1).float() / 255
        x = VIEWS.of(x, chosen, np.full(128, step + 1), seed=seed)
        loss = F.cross_entropy(model(x), torch.from_numpy(y))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return body.eval()


def embedded(
    path: Path, seed: int, folder: Path, steps: int
) -> tuple[vaeaug.LabelledImages, vaeaug.LabelledImages]:
    """Features of the training and the test images, in one value range; kept in the folder."""
    files = [folder / f"seed-{seed}-{part}.h5" for part in ("train", "test")]
    if not all(file.exists() for file in files):
        train, test = task(path, seed)
        network = backbone(train, seed, steps)
        vaeaug.embed(train, network, files[0], views=VIEWS, seed=seed, progress=False)
        vaeaug.embed(test, network, files[1], progress=False)
    train = vaeaug.read(files[0])
    test = vaeaug.read(files[1])
    # Real test features are judged as they are, but for what no sample could be.
    images = test.images.clip(*train.value_range)
    return train, replace(test, images=images, value_range=train.value_range)


ALONE = [
    *(Arm(), Arm("oversampling"), Arm("oversampling", mix="mixup"), Arm("logit adjustment")),
    *(Arm("effective number"), Arm("tau-norm"), Arm("nearest mean")),
]
SAMPLERS = ("delta", "calibrated", "gmm", "interpolate")


def heads(
    train: vaeaug.LabelledImages,
    folder: Path,
    *,
    share: float,
    vae_steps: int,
    samplers: list[str],
) -> Iterator[tuple[str, Arm, SyntheticSet | None]]:
    """Names of heads, how they are trained, and their samples."""
    for arm in ALONE:
        yield arm.name, arm, None
    job = vaeaug.AugmentConfig().changed(**{"training.steps": vae_steps})
    stages = SplitStages(suited(job, train))
    recipes = [Recipe(share=share, sampler=sampler) for sampler in samplers]
    begin = time.process_time()
    drawn = stages.samples(train, folder, recipes)
    print(f"generator and samples: {time.process_time() - begin:.0f} s", flush=True)
    for sampler, recipe, samples in zip(samplers, recipes, drawn, strict=True):
        for arm in (Arm("oversampling"), Arm("logit adjustment")):
            yield f"{arm.name} + {sampler}", arm.with_recipe(recipe), samples


def main() -> None:
    """Train the heads of each seed, and print paired differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("glyphs", type=Path, help=".npz of images, labels and family")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000, help="of the backbone")
    parser.add_argument("--vae-steps", type=int, default=3000, help="of the generator")
    parser.add_argument("--share", type=float, default=0.5, help="of every class, synthetic")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--folder", type=Path, default=Path("runs/embedding-benchmark"))
    parser.add_argument("--out", type=Path, help="JSON lines; what is there is not run again")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    out = arguments.out or arguments.folder / "results.jsonl"
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    for seed in arguments.seeds:
        train, test = embedded(arguments.glyphs, seed, arguments.folder, arguments.steps)
        n_images = np.array([len(np.unique(train.groups[train.labels == c])) for c in range(56)])
        place = arguments.folder / f"seed-{seed}"
        for name, arm, samples in heads(
            train,
            place,
            share=arguments.share,
            vae_steps=arguments.vae_steps,
            samplers=arguments.samplers,
        ):
            if any(line["seed"] == seed and line["head"] == name for line in done):
                continue
            begin = time.process_time()
            probabilities = train_and_predict(
                train, samples, test, arm, config=EvaluationConfig(), seed=seed, steps=10**4
            )
            hit = probabilities.argmax(axis=1) == test.labels
            recall = np.array([hit[test.labels == c].mean() for c in range(56)])
            line = {
                "seed": seed,
                "head": name,
                "share": arguments.share if samples is not None else 0.0,
                "balanced_accuracy": round(float(recall.mean()), 5),
                **{
                    f"recall_{n}": round(float(recall[n_images == n].mean()), 5)
                    for n in (5, 40, 400)
                },
                "seconds": round(time.process_time() - begin, 1),
            }
            done.append(line)
            print(line, flush=True)
            with open(out, "a") as file:
                file.write(json.dumps(line) + "\n")
    table([line for line in done if line["seed"] in arguments.seeds])


def table(lines: list[dict]) -> None:
    """Means over the seeds, and paired differences to the same head without samples."""
    names = list(dict.fromkeys(line["head"] for line in lines))
    by_head = {n: {line["seed"]: line for line in lines if line["head"] == n} for n in names}
    print("| head | accuracy | 5 images | 40 | 400 | to the same without | 5 images |")
    print("|---|---|---|---|---|---|---|")
    metrics = ("balanced_accuracy", "recall_5", "recall_40", "recall_400")
    for name, own in by_head.items():
        cells = [f"{100 * np.mean([line[m] for line in own.values()]):.1f}" for m in metrics]
        without = by_head.get(name.rpartition(" + ")[0])
        if without and "+" in name and "Mixup" not in name:
            for metric in metrics[:2]:
                gains = [100 * (own[s][metric] - without[s][metric]) for s in own]
                shown = f"{np.mean(gains):+.2f}"
                if len(gains) > 1:
                    half = t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / len(gains) ** 0.5
                    shown += f" ({np.mean(gains) - half:+.2f} to {np.mean(gains) + half:+.2f})"
                cells.append(shown)
        cells += [""] * (6 - len(cells))
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
