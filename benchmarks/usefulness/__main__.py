"""Does synthetic data beat the best training without it? The protocol, over regimes and seeds.

A regime is a training set made by a seed:

- `long-tailed`: 4,000 down to 40 images of Fashion-MNIST a class, the order by the seed;
- `low-sample`: 25 images of Fashion-MNIST a class, balanced;
- `digits`: 140 down to 16 images a class of scikit-learn's digits;
- `glyphs-long-tailed`: 56 characters, 28 x 400, 14 x 40 and 14 x 5 images, judged on font families
  that training never saw;
- `glyphs-few-1`, `-2`, `-5`, `-20`: 28 x 400 images and 28 x so many;
- `signals-NAME`: signals of the package `aeon`, half of the classes with 3.

The first three are compared by the gate's probe with its recipes; the others with tuned opponents
(`compare.py`), and have a verb more:

    python -m benchmarks.usefulness tune  --regime glyphs-long-tailed --seeds 0 --arms opponents
    python -m benchmarks.usefulness run   --regime glyphs-long-tailed --arms opponents
    python -m benchmarks.usefulness make  --regime glyphs-long-tailed --samplers transfer
    python -m benchmarks.usefulness tune  --regime glyphs-long-tailed --seeds 0 --arms transfer
    python -m benchmarks.usefulness run   --regime glyphs-long-tailed --arms transfer
    python -m benchmarks.usefulness table --regime glyphs-long-tailed

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
from typing import Any

import numpy as np
import torch

import vaeaug
from benchmarks.usefulness import compare, glyphs, pools
from benchmarks.usefulness.arms import (
    BARE_BASELINES,
    BARE_RECIPES,
    BASELINES,
    MORE_BASELINES,
    RECIPES,
    Trial,
)
from benchmarks.usefulness.opponents import OPPONENTS, SAMPLERS
from benchmarks.usefulness.regimes import REGIMES, Regime, regimes
from benchmarks.usefulness.signals import MissingSignalsError
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


def against_opponents(regime: Regime, arguments: argparse.Namespace) -> None:
    """The verbs of regimes that are compared with tuned opponents."""
    steps = arguments.steps or regime.steps
    results = arguments.results or RESULTS / "opponents.jsonl"
    if arguments.what == "table":
        compare.table(regime, results, arguments.part, steps, arguments.seeds)
        return
    if arguments.what == "make":
        changes = _settings(arguments.set)
        pools.make(
            regime,
            arguments.seeds,
            arguments.samplers,
            n=arguments.n,
            out=arguments.out,
            changes=changes,
            device=arguments.device,
        )
        return
    groups = {"opponents": list(OPPONENTS[regime.against])}
    names = [arm for name in arguments.arms for arm in groups.get(name, [name])]
    unknown = set(names) - compare.families(regime).keys()
    if unknown:
        known = ", ".join(["opponents", *compare.families(regime)])
        raise SystemExit(f"--arms: expected some of {known}; got {', '.join(sorted(unknown))}")
    bfloat16, based_on = arguments.precision == "bfloat16", arguments.based_on
    for seed in arguments.seeds:
        bench = compare.Bench(regime, seed, steps, arguments.out, bfloat16, arguments.device)
        try:
            if arguments.what == "tune":
                where = _settings(arguments.where)
                compare.tune(bench, names, arguments.tuning, based_on=based_on, where=where)
            else:
                tuned_on = arguments.tuned_on
                compare.run(bench, names, arguments.tuning, results, tuned_on, based_on)
        except (MissingSignalsError, pools.MissingPoolError) as error:
            print(f"{regime.name}, seed {seed}: skipped: {error}", flush=True)


def _settings(texts: list[str]) -> dict[str, Any]:
    pairs = (text.split("=", 1) for text in texts)
    return {key: json.loads(value) for key, value in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "tune", "run", "table"))
    parser.add_argument("--regime", choices=REGIMES, nargs="+", default=["long-tailed"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/usefulness"))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--part", choices=("development", "test"), default="test")
    parser.add_argument("--bare", action="store_true", help="table of no classic augmentation")
    more = parser.add_argument_group("glyphs and signals")
    more.add_argument("--glyphs", type=Path, default=glyphs.DEFAULT, help="file of the glyphs")
    more.add_argument("--tuning", type=Path, default=RESULTS / "opponents-tuning.jsonl")
    more.add_argument("--tuned-on", help="another regime whose tuning chooses the settings")
    more.add_argument("--based-on", help="one whose tuning chooses what is beneath an arm")
    more.add_argument(
        "--where", nargs="+", default=[], help="tune these settings alone: key=JSON of a setting"
    )
    more.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    more.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    more.add_argument("--n", type=int, default=200, help="samples of a class")
    more.add_argument("--device", default="cpu", help="of the trainings: cpu, cuda")
    more.add_argument(
        "--set", nargs="+", default=[], help="of the generator's job: dotted.key=JSON"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.regime:
        regime = regimes(arguments.glyphs)[name]
        if regime.against != "gate":
            arguments.arms = arguments.arms or ["opponents"]
            against_opponents(regime, arguments)
        else:
            against_gate(regime, arguments)


def against_gate(regime: Regime, arguments: argparse.Namespace) -> None:
    """The verbs of regimes that are compared by the gate's probe."""
    results = arguments.results or RESULTS / "usefulness.jsonl"
    if arguments.what == "make":
        make(regime, arguments.seeds, arguments.out)
    elif arguments.what == "table":
        table(regime, results, arguments.part, arguments.steps, arguments.bare)
    elif arguments.what == "tune":
        raise SystemExit(f"{regime.name}: its arms have no grids; run them")
    else:
        chosen = arguments.arms or ["baselines"]
        names = [arm for name in chosen for arm in GROUPS.get(name, [name])]
        run(regime, arguments.seeds, names, arguments.steps or regime.steps, arguments.out, results)


if __name__ == "__main__":
    main()
