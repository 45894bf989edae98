"""Does synthetic data beat the best training without it? The protocol, over regimes and seeds.

A regime is a training set made of Fashion-MNIST or digits by a seed:

- `long-tailed`: 4,000 down to 40 images a class, the order of the classes by the seed;
- `low-sample`: 25 images a class, balanced;
- `digits`: 140 down to 16 images a class of scikit-learn's digits.

Every arm trains the same probe for the same steps; arms of a seed share weights and draws, so that
they are paired. Development images (training images of Fashion-MNIST that the regime left out; for
digits a fifth of the test split) choose arms and recipes; test images give the final metrics and
choose nothing. Results are appended to a JSON-lines file; what is there is not run again.

    python -m benchmarks.usefulness make --regime long-tailed --seeds 0 1 2 3 4
    python -m benchmarks.usefulness run --regime long-tailed --seeds 0 1 2 3 4 --arms baselines
    python -m benchmarks.usefulness run --regime long-tailed --seeds 0 1 --arms recipes
    python -m benchmarks.usefulness table --regime long-tailed
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import vaeaug
from benchmarks.usefulness.arms import (
    BARE_BASELINES,
    BARE_RECIPES,
    BASELINES,
    MORE_BASELINES,
    RECIPES,
    Trial,
)
from benchmarks.usefulness.regimes import REGIMES
from vaeaug.config import EvaluationConfig
from vaeaug.evaluation import Arm, SyntheticSet
from vaeaug.evaluation.gate.probe import predict, train_probe
from vaeaug.evaluation.metrics import class_groups, score
from vaeaug.evaluation.statistics import corrected_t_interval

RESULTS = Path(__file__).parent.parent / "results"
GROUPS = {
    "baselines": BASELINES,
    "more": MORE_BASELINES,
    "recipes": RECIPES,
    "bare-baselines": BARE_BASELINES,
    "bare-recipes": BARE_RECIPES,
}
ALL = {name: trial for group in GROUPS.values() for name, trial in group.items()}
METRICS = ("balanced_accuracy", "recall_few", "macro_f1", "calibration_error")


def make(regime, seeds, out: Path) -> None:
    """Train the generator of each seed and draw the datasets that the recipes need."""
    for seed in seeds:
        train, _, _ = regime.data(seed)
        folder = out / regime.name / f"seed-{seed}"
        config = vaeaug.load_config(None, [], seed=seed, **regime.config)
        vaeaug.augment(train, folder / "base", config)
        screener = None
        for name in dict.fromkeys(trial.dataset for trial in RECIPES.values()):
            if name == "base" or (folder / name / "manifest.json").exists():
                continue
            screener = screener or vaeaug.Screener.for_job(train, config.changed(seed=seed))
            changed = config.changed(**{"recipe.sampler": name.partition("+")[0]})
            vaeaug.generate(folder / "base", train, folder / name, changed, screener=screener)
        print(f"{regime.name}, seed {seed}: drawn", flush=True)


def synthetic_of(folder: Path) -> SyntheticSet:
    shards = vaeaug.ShardDataset(folder)
    return SyntheticSet(shards.images_at(np.arange(len(shards))), shards.labels, None)


def teacher_labels(models, images: np.ndarray, labels: np.ndarray, like) -> np.ndarray:
    """Half the label, half what the ensemble says."""
    data = vaeaug.LabelledImages(images, labels, like.class_names, like.value_range)
    soft = np.mean([predict(model, data) for model in models], axis=0).astype(np.float32) / 2
    soft[np.arange(len(labels)), labels] += 0.5
    return soft


def run(regime, seeds, names, steps: int, out: Path, results: Path) -> None:
    config = EvaluationConfig()
    done = set()
    if results.exists():
        lines = map(json.loads, results.read_text().splitlines())
        done = {(line["regime"], line["arm"], line["seed"], line["steps"]) for line in lines}
    for seed in seeds:
        train, development, test = regime.data(seed)
        groups = class_groups(train.counts)
        teachers: dict[Arm, list] = {}
        for name in names:
            trial: Trial = ALL[name]
            if (regime.name, name, seed, steps) in done:
                continue
            begin = time.perf_counter()
            synthetic = None
            if trial.dataset:
                synthetic = synthetic_of(out / regime.name / f"seed-{seed}" / trial.dataset)
            if trial.real_as_synthetic:
                synthetic = SyntheticSet(train.images, train.labels, None)
            if trial.teacher:
                if trial.base not in teachers:
                    teachers[trial.base] = [
                        train_probe(
                            train, None, trial.base, config, seed=1000 * i + seed, steps=steps
                        )
                        for i in (1, 2, 3)
                    ]
                soft = teacher_labels(
                    teachers[trial.base], synthetic.images, synthetic.labels, train
                )
                synthetic = SyntheticSet(synthetic.images, synthetic.labels, soft)
            model = train_probe(train, synthetic, trial.arm, config, seed=seed, steps=steps)
            line = {
                "regime": regime.name,
                "arm": name,
                "seed": seed,
                "steps": steps,
                "seconds": round(time.perf_counter() - begin, 1),
            }
            for part, data in (("development", development), ("test", test)):
                scores = score(predict(model, data), data.labels, groups=groups)
                line[part] = {key: round(value, 5) for key, value in scores.metrics().items()}
            results.parent.mkdir(parents=True, exist_ok=True)
            with open(results, "a") as file:
                file.write(json.dumps(line) + "\n")
            print(
                f"{name:28} seed {seed}: {100 * line['development']['balanced_accuracy']:.2f}",
                flush=True,
            )


def table(regime, results: Path, part: str, steps: int | None, bare: bool) -> None:
    """Of every arm the mean over its seeds, and paired differences on the seeds that both have.

    The best baseline is the one of the highest mean on the development images, of those that were
    run on the most seeds.
    """
    arms: dict[str, dict[int, dict]] = {}
    for line in map(json.loads, results.read_text().splitlines()):
        if line["regime"] == regime.name and steps in (None, line["steps"]):
            arms.setdefault(line["arm"], {})[line["seed"]] = line
    if bare:
        shown = BARE_BASELINES | BARE_RECIPES
        arms = {name: lines for name, lines in arms.items() if name in shown}
    baselines = [name for name in arms if name in BASELINES | BARE_BASELINES]
    if not baselines:
        raise SystemExit(f"{results}: no such baseline of {regime.name} was run")
    most = max(len(arms[name]) for name in baselines)

    def mean(name: str, which: str, metric: str) -> float:
        return float(np.mean([line[which].get(metric, np.nan) for line in arms[name].values()]))

    def difference(name: str, other: str | None, metric: str) -> str:
        if other is None or other == name or other not in arms:
            return ""
        pairs = [(arms[name][s], arms[other][s]) for s in arms[name].keys() & arms[other].keys()]
        gains = [100 * (a[part].get(metric, np.nan) - b[part].get(metric, 0)) for a, b in pairs]
        if len(gains) < 2 or not np.isfinite(gains).all():
            return ""
        gain = corrected_t_interval(gains, test_to_train=0)
        return f"{gain.mean:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"

    best = max(
        (name for name in baselines if len(arms[name]) == most),
        key=lambda name: mean(name, "development", "balanced_accuracy"),
    )
    accuracy, few = METRICS[:2]
    print(f"The best baseline is {best!r}. {part.capitalize()} images, %.\n")
    print("| arm | seeds | accuracy | few | to the best | few | to the same without | few |")
    print("|---|---|---|---|---|---|---|---|")
    for name in sorted(arms, key=lambda name: (name not in baselines, -len(arms[name]))):
        without = _without(ALL[name], baselines)
        means = [100 * mean(name, part, metric) for metric in (accuracy, few)]
        # Balanced classes have no rare ones.
        cells = ["" if np.isnan(value) else f"{value:.1f}" for value in means]
        cells += [difference(name, other, f) for other in (best, without) for f in (accuracy, few)]
        print(f"| {name} | {len(arms[name])} | {' | '.join(cells)} |")


def _without(trial: Trial, baselines: list[str]) -> str | None:
    """The baseline that trains like a recipe, but without synthetic samples."""
    if trial.recipe is None:
        return None
    same = [name for name in baselines if ALL[name].base == trial.base and ALL[name].length == 1]
    return same[0] if same else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "run", "table"))
    parser.add_argument("--regime", choices=REGIMES, default="long-tailed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", default=["baselines"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/usefulness"))
    parser.add_argument("--results", type=Path, default=RESULTS / "usefulness.jsonl")
    parser.add_argument("--part", choices=("development", "test"), default="test")
    parser.add_argument("--bare", action="store_true", help="table of no classic augmentation")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    regime = REGIMES[arguments.regime]
    if arguments.what == "make":
        make(regime, arguments.seeds, arguments.out)
    elif arguments.what == "table":
        table(regime, arguments.results, arguments.part, arguments.steps, arguments.bare)
    else:
        names = [arm for name in arguments.arms for arm in GROUPS.get(name, [name])]
        steps = arguments.steps or regime.steps
        run(regime, arguments.seeds, names, steps, arguments.out, arguments.results)


if __name__ == "__main__":
    main()
