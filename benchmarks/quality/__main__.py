"""How good our samples are beside pythae's, at the same CPU seconds of training.

python -m benchmarks.quality --data digits --budget 60 --out runs/quality --seed 0 \
    --peer-python /tmp/peers/bin/python

Results are appended to OUT/results.jsonl; what is there is not run again. README.md says how it was
made fair.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

import vaeaug
from benchmarks.quality.score import Judge, append, read_data, read_samples
from vaeaug.generator import WITH_SOURCE
from vaeaug.models import CVAE, SeparateCVAE

HERE = Path(__file__).parent
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
N_PER_CLASS = {"digits": 100, "fashion-mnist": 500}

# Ours: overrides of the default configuration.
OURS: dict[str, list[str]] = {
    "ours": [],
    "ours-gmm": ["recipe.sampler=gmm"],
    "ours-flow": ["density.kind=flow", "recipe.sampler=flow"],
    "ours-spatial-flow": ["model.latent=spatial", "recipe.sampler=flow"],
    "ours-hierarchical": ["model.latent=hierarchical", "density.kind=gmm"],
    "ours-discrete": ["model.latent=discrete", "recipe.sampler=prior"],
    "ours-discrete-edits": ["model.latent=discrete", "recipe.sampler=posterior"],
    "ours-vaegan": ["adversarial.steps=100000", "recipe.sampler=gmm"],
    "ours-vaegan-separate": [
        "model.grouping=separate",
        "adversarial.steps=100000",
        "recipe.sampler=gmm",
    ],
}

# What `--tune` adds to them in turn; the first is used where nothing was tuned.
GRIDS: dict[str, list[list[str]]] = {
    "ours-vaegan": [
        [],
        ["adversarial.weight=0.2"],
        ["adversarial.r1=10"],
        ["adversarial.weight=1.0"],
        ["adversarial.r1=0.1"],
        ["adversarial.features=0.1"],
    ],
}
# Stages that the options of a grid do not change: its runs share them.
SHARED_STAGES = ("classifier", "trunk", "adapt")

# Theirs: what `--tune` tries on a part of the training images; see README.md. The first is used
# where nothing was tuned.
_BETAS = [{"beta": beta} for beta in (0.01, 0.003, 0.001, 0.03, 0.1)]
PEERS: dict[str, list[dict]] = {
    "vae": [{}],
    "betavae": _BETAS,
    "vamp": _BETAS,
    "vaegan": [
        {"beta": 0.1, "rule": "separate"},
        {"beta": 0.01, "rule": "separate"},
        {"beta": 1.0, "rule": "separate"},
        {"beta": 0.1, "rule": "pythae"},
    ],
    "rae": [{"embedding_weight": weight} for weight in (1e-2, 1e-3, 1e-1)],
}
RATES = (2e-3, 1e-3)
COMPONENTS = (10, 3, 1)
TUNING_CLASSIFIER_STEPS = 300
TUNED = HERE / "tuned.json"

COLUMNS = (
    "train_on_synthetic",
    "auc",
    "coverage",
    "density",
    "near_copies",
    "bound",
    "cpu_seconds",
    "parameters",
)


# -- Data ------------------------------------------------------------------------------------------


def make_data(name: str, out: Path, *, per_class: int | None, seed: int, tune: bool) -> Path:
    """The data file. For tuning a fifth of the training images takes the test images' place."""
    path = out / f"{name}{'-tune' if tune else ''}.npz"
    if path.exists():
        return path
    source = "digits" if name == "digits" else FASHION_MNIST
    train = vaeaug.read(source, split="train")
    if per_class is not None:
        train = train.imbalanced([per_class] * train.n_classes, seed=seed)
    if tune:
        order = np.random.default_rng(seed).permutation(len(train))
        cut = len(train) // 5
        train, held = train.subset(np.sort(order[cut:])), train.subset(np.sort(order[:cut]))
    else:
        held = vaeaug.read(source, split="test")
    save_data(path, train, held, N_PER_CLASS[name])
    return path


def save_data(
    path: Path, train: vaeaug.LabelledImages, held: vaeaug.LabelledImages, n_per_class: int
) -> None:
    """Write the data file that every generator and `read_data` take."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        train_images=train.images,
        train_labels=train.labels,
        held_images=held.images,
        held_labels=held.labels,
        n_per_class=n_per_class,
    )


# -- Generators ------------------------------------------------------------------------------------


def run_ours(
    name: str, data: Path, out: Path, *, budget: float, seed: int, tuned: list[str]
) -> dict:
    """Train, draw, bound; stages whose checkpoints are in `out` are not trained again."""
    train, held, n_per_class = read_data(data)
    options = [*OURS[name], *tuned]
    overrides = [f"seed={seed}", f"training.budget_seconds={budget}", *options]
    config = vaeaug.load_config(None, overrides)
    start = time.process_time()
    generator = vaeaug.fit(train, config, device="cpu", folder=out)
    seconds = time.process_time() - start
    generator.attach(train)
    images = []
    for label in range(train.n_classes):
        sampler = config.recipe.sampler
        if sampler == "auto":
            sampler = generator.default_sampler(label, residual=True)
        batch = generator.sample(
            label, n_per_class, seed=seed, sampler=sampler, residual=sampler in WITH_SOURCE
        )
        images.append(batch.images)
    labels = np.repeat(np.arange(train.n_classes), n_per_class)
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / "samples.npz", images=np.concatenate(images), labels=labels)
    measurements = {
        "options": options,
        "cpu_seconds": seconds,
        "parameters": sum(parameter.numel() for parameter in generator.model.parameters()),
        "bound": bound(generator.model, held, seed=seed),
    }
    (out / "measurements.json").write_text(json.dumps(measurements, indent=1))
    return measurements


@torch.no_grad()
def bound(
    model: CVAE | SeparateCVAE, held: vaeaug.LabelledImages, *, seed: int, draws: int = 8
) -> float:
    """Mean bound of log p(x), nats per image of [0, 1] pixels.

    Ours bounds log p(x|y). The classes are equally likely, so p(x) is at least p(x|y) / K: log K is
    taken off to set it beside models that do not know the class.
    """
    rng = torch.Generator().manual_seed(seed)
    images = torch.from_numpy(held.images).movedim(-1, 1)
    total = 0.0
    for x, y in zip(images.split(500), torch.from_numpy(held.labels).split(500), strict=True):
        for _ in range(draws):
            noise = torch.randn(len(x), model.latent_dim, generator=rng)
            total += float(model.elbo(x.float() / 255, y, noise=noise).elbo.sum()) / draws
    return total / len(held) - math.log(held.n_classes)


def run_peer(
    python: Path,
    name: str,
    data: Path,
    out: Path,
    *,
    budget: float,
    seed: int,
    options: dict,
    steps_only: bool = False,
) -> dict:
    """In the peers' environment; `options` are those of peers.py, and "components"."""
    options = dict(options)
    components = options.pop("components", [10])
    out.mkdir(parents=True, exist_ok=True)
    command = [python, HERE / "peers.py", "--data", data, "--model", name, "--budget", budget]
    command += ["--out", out, "--seed", seed, "--options", json.dumps(options)]
    command += ["--components", *components, *(["--steps-only"] if steps_only else [])]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(list(map(str, command)), check=True, env=env, stdout=subprocess.DEVNULL)
    return json.loads((out / "measurements.json").read_text())


def _tuned(data: str) -> dict:
    return json.loads(TUNED.read_text()).get(data, {}) if TUNED.exists() else {}


def tuned_options(name: str, data: str) -> dict | list:
    """What `--tune` chose, or the first of the grid; nothing for a generator that has none."""
    grid = {**PEERS, **GRIDS}.get(name, [[]])
    return _tuned(data).get(name, {}).get("options", grid[0])


def tune_ours(name: str, data: Path, out: Path, *, key: str, budget: float, seed: int) -> None:
    """The options of a grid whose samples teach a classifier best, judged as the peers' are."""
    train, held, _ = read_data(data)
    judge = Judge(train, held, seed=seed)
    before = _tuned(key).get(name, {})
    tried = before["tried"] if before.get("budget") == budget else []
    first = out / "tune" / f"{key}-{name}-0"
    for number, options in enumerate(GRIDS[name]):
        if any(trial["options"] == options for trial in tried):
            continue
        folder = out / "tune" / f"{key}-{name}-{number}"
        for stage in SHARED_STAGES:
            source = first / "checkpoints" / f"{stage}.pt"
            if source.exists() and folder != first:
                (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / "checkpoints")
        run_ours(name, data, folder, budget=budget, seed=seed, tuned=options)
        images, labels = read_samples(folder / "samples.npz")
        scores = {
            "train_on_synthetic": judge.usefulness(images, labels, steps=TUNING_CLASSIFIER_STEPS),
            "auc": judge.auc(images, labels),
        }
        tried.append({"options": options, **scores})
        print(f"{key} {name} {options}: {scores}", flush=True)
        _keep_tuned(key, name, {**max(tried, key=_usefulness), "budget": budget, "tried": tried})


def tune(
    name: str, data: Path, out: Path, python: Path, *, key: str, budget: float, seed: int
) -> None:
    """The options whose samples teach a classifier best, on images held out of the training ones.

    The grid is searched with the first rate, then its best with the other rates; every model
    is sampled with each number of components.
    """
    train, held, _ = read_data(data)
    judge = Judge(train, held, seed=seed)
    before = _tuned(key).get(name, {})
    tried = before["tried"] if before.get("budget") == budget else []

    def attempt(options: dict) -> None:
        if any({**trial["options"], **options} == trial["options"] for trial in tried):
            return
        folder = out / "tune" / f"{key}-{name}-{len(tried)}"
        asked = {**options, "components": list(COMPONENTS)}
        run_peer(python, name, data, folder, budget=budget, seed=seed, options=asked)
        values = {
            n: judge.usefulness(
                *read_samples(folder / f"samples-{n}.npz"), steps=TUNING_CLASSIFIER_STEPS
            )
            for n in COMPONENTS
        }
        n = max(values, key=values.__getitem__)
        tried.append({"options": {**options, "components": [n]}, "train_on_synthetic": values[n]})
        print(f"{key} {name} {options}: {values}", flush=True)
        _keep_tuned(key, name, {**max(tried, key=_usefulness), "budget": budget, "tried": tried})

    for options in PEERS[name]:
        attempt({**options, "lr": RATES[0]})
    best = max(tried, key=_usefulness)["options"]
    for rate in RATES[1:]:
        attempt({**{key: value for key, value in best.items() if key != "components"}, "lr": rate})


def _keep_tuned(data: str, name: str, entry: dict) -> None:
    # Read anew: another model may be tuned beside this one.
    everything = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    everything.setdefault(data, {})[name] = entry
    TUNED.write_text(json.dumps(everything, indent=1) + "\n")


def _usefulness(tried: dict) -> float:
    return tried["train_on_synthetic"]


# -- The whole -------------------------------------------------------------------------------------


def results_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def print_table(lines: list[dict]) -> None:
    """Mean over the seeds; accuracies and coverage in %."""
    heads = ("data", "budget", "generator", *COLUMNS, "seeds")
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    groups: dict[tuple, list[dict]] = {}
    for line in lines:
        groups.setdefault((line["data"], line["budget"], line["generator"]), []).append(line)
    for (data, budget, generator), group in sorted(groups.items(), key=lambda item: item[0][:2]):
        cells = []
        for column in COLUMNS:
            values = [line[column] for line in group if line.get(column) is not None]
            mean = float(np.mean(values)) if values else math.nan
            percent = column in ("train_on_synthetic", "coverage", "near_copies")
            digits = 1 if percent or column == "bound" else 3 if column in ("auc", "density") else 0
            cells.append(f"{100 * mean if percent else mean:.{digits}f}" if values else "")
        print(f"| {data} | {budget:g} | {generator} | {' | '.join(cells)} | {len(group)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(N_PER_CLASS), required=True)
    parser.add_argument("--budget", type=float, required=True, help="CPU seconds of training")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-class", type=int, help="training images of each class; default: all")
    parser.add_argument("--only", nargs="+", choices=["real", *OURS, *PEERS], metavar="NAME")
    parser.add_argument("--peer-python", type=Path, help="left out: ours alone")
    parser.add_argument("--tune", action="store_true", help="choose options, and stop")
    parser.add_argument("--table", action="store_true", help="print what there is, and stop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = args.out / "results.jsonl"
    if args.table:
        print_table(results_of(results))
        return
    # With fewer images than there are, the seed chooses them.
    key = args.data if args.per_class is None else f"{args.data}-{args.per_class}"
    folder = args.out / (key if args.per_class is None else f"{key}-seed-{args.seed}")
    data = make_data(args.data, folder, per_class=args.per_class, seed=args.seed, tune=args.tune)
    wanted = args.only or ["real", *OURS, *(PEERS if args.peer_python else ())]
    if args.peer_python is None and set(wanted) & set(PEERS):
        parser.error("--peer-python is needed for the peers")
    if args.tune:
        for name in wanted:
            if name in GRIDS:
                tune_ours(name, data, args.out, key=key, budget=args.budget, seed=args.seed)
            elif name in PEERS:
                tune(
                    name,
                    data,
                    args.out,
                    args.peer_python,
                    key=key,
                    budget=args.budget,
                    seed=args.seed,
                )
        return
    train, held, n_per_class = read_data(data)
    judge = Judge(train, held, seed=args.seed)
    done = {
        (line["data"], line["budget"], line["generator"], line["seed"])
        for line in results_of(results)
    }
    for name in wanted:
        budget = 0.0 if name == "real" else args.budget
        if (key, budget, name, args.seed) in done:
            continue
        line = {"data": key, "generator": name, "seed": args.seed, "budget": budget}
        out = folder / f"{name}-{args.budget:g}s-seed-{args.seed}"
        if name == "real":
            line.update(judge.ceiling(n_per_class))
        else:
            options = tuned_options(name, key)
            if name in OURS:
                line.update(
                    run_ours(name, data, out, budget=budget, seed=args.seed, tuned=list(options))
                )
            else:
                line.update(
                    run_peer(
                        args.peer_python,
                        name,
                        data,
                        out,
                        budget=budget,
                        seed=args.seed,
                        options=options,
                    )
                )
            line.update(judge.score(*read_samples(out / "samples.npz")))
        append(results, line)
        print(json.dumps(line), flush=True)
    print_table(results_of(results))


if __name__ == "__main__":
    main()
