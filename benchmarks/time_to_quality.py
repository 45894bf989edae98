"""How good a generator is after so many CPU seconds of training: ours beside pythae's.

    OMP_NUM_THREADS=1 python -m benchmarks.time_to_quality --peer-python /tmp/peers/bin/python

Every budget is a training of its own, whose learning rate falls to 0 at its end; `default` is our
default job, which takes as long as it takes, and is scored on its way. What is scored is the bound
of log p(x) of the same held-out images in nats, as `benchmarks.quality` scores it. Seconds are
those of the processor, one thread, for steps alone: the clock of ours and of theirs stands still
while held-out images are scored. Ours includes its classifier and the adaptation of the classes.
Lines are appended to --results; what is there is not run again. `--table` prints them and draws
--picture.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaeaug
from benchmarks.quality.__main__ import (
    FASHION_MNIST,
    bound,
    results_of,
    run_peer,
    save_data,
    tuned_options,
)
from benchmarks.quality.score import append, read_data
from vaeaug.training._batches import Batches
from vaeaug.training._loop import Loop
from vaeaug.training._train import TrainingPipeline

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "time-to-quality.jsonl"
PICTURE = ROOT / "docs" / "images" / "time-to-quality.png"
PEERS = ("betavae", "vamp")
BUDGETS = (10, 20, 40, 80, 120, 240)
# The budget of the peers whose value ours is to reach.
GOAL = 120
N_HELD = 2000


class ScoredLoop(Loop):
    """A loop whose clock stands still in evaluations, which score other held-out images too.

    Attributes:
        curve: After each evaluation of the trunk, the seconds of its steps and the bound of its
            averaged weights, nats.
    """

    def __init__(self, pipeline: TrainingPipeline, held: vaeaug.LabelledImages | None) -> None:
        super().__init__(pipeline.batches, pipeline.config, None, None)
        self.held, self.seed = held, pipeline.config.seed
        self.curve: list[tuple[float, float]] = []
        self._stopped_for = 0.0
        self.clock = lambda: time.process_time() - self._stopped_for

    def _evaluate(self, stage, state, done, interruption):  # type: ignore[no-untyped-def]
        began = time.process_time()
        metrics = super()._evaluate(stage, state, done, interruption)
        if self.held is not None and stage.name == "trunk":
            value = bound(state.average.eval(), self.held, seed=self.seed, draws=1)
            self.curve.append((state.record.seconds, value))
        self._stopped_for += time.process_time() - began
        return metrics


def run_ours(
    train: vaeaug.LabelledImages,
    held: vaeaug.LabelledImages,
    overrides: Sequence[str],
    *,
    budget: float,
    seed: int,
) -> dict[str, Any]:
    """Train trunk, classifier and adaptation for so many seconds; 0 is the default job."""
    limit = [f"training.budget_seconds={budget}"] if budget else []
    config = vaeaug.load_config(None, [f"seed={seed}", *limit, *overrides])
    pipeline = TrainingPipeline(
        train, config, Batches(train, config, torch.device("cpu")), None, None
    )
    loop = pipeline.loop = ScoredLoop(pipeline, None if budget else held)
    trained = pipeline.run()
    seconds = {name: record.seconds for name, record in trained.stages.items()}
    judge = seconds.get("classifier", 0.0)
    line: dict[str, Any] = {
        "steps": trained.stages["trunk"].step,
        "cpu_seconds": sum(seconds.values()),
        "stages": {name: round(value, 2) for name, value in seconds.items()},
        "bound": bound(trained.model, held, seed=seed),
    }
    if loop.curve:
        line["curve"] = [[round(judge + at, 2), round(value, 2)] for at, value in loop.curve]
    return line


def make_data(name: str, out: Path, n_held: int) -> Path:
    """The training images, and some of the test images, which nothing here is chosen by."""
    path = out / f"{name}-{n_held}.npz"
    if not path.exists():
        source = "digits" if name == "digits" else FASHION_MNIST
        train, test = (vaeaug.read(source, split=part) for part in ("train", "test"))
        rows = np.random.default_rng(0).permutation(len(test))[:n_held]
        held = test.subset(np.sort(rows))
        save_data(path, train, held, 0)
    return path


def curve_of(lines: list[dict], generator: str) -> list[tuple[float, float, int]]:
    """Of a generator: CPU seconds and bound, means over the seeds, and seeds; by budget."""
    by_budget: dict[float, list[dict]] = {}
    for line in lines:
        if line["generator"] == generator:
            by_budget.setdefault(line["budget"], []).append(line)
    return [
        (
            float(np.mean([line["cpu_seconds"] for line in group])),
            float(np.mean([line["bound"] for line in group])),
            len(group),
        )
        for _, group in sorted(by_budget.items())
    ]


def seconds_until(points: Sequence[tuple[float, float]], value: float) -> float:
    """CPU seconds after which a curve reaches a value, linear in the logarithm of the seconds.

    Args:
        points: CPU seconds, which grow, and bounds.
        value: The bound to reach, nats.

    Returns:
        Seconds; those of the first point where that is there already, NaN where none is.
    """
    for number, (seconds, reached) in enumerate(points):
        if reached >= value:
            if number == 0:
                return seconds
            before, low = points[number - 1]
            part = (value - low) / (reached - low)
            return math.exp(math.log(before) + part * math.log(seconds / before))
    return math.nan


def verdicts(lines: list[dict]) -> list[str]:
    """How long ours takes to what pythae reaches, and to what it reaches itself; by seed."""
    texts = []
    for seed in sorted({line["seed"] for line in lines}):
        of_seed = [line for line in lines if line["seed"] == seed]
        ours = [(seconds, value) for seconds, value, _ in curve_of(of_seed, "ours")]
        for peer in PEERS:
            goal = [
                line["bound"]
                for line in of_seed
                if line["generator"] == peer and line["budget"] == GOAL
            ]
            if goal and ours:
                seconds = seconds_until(ours, goal[0])
                texts.append(
                    f"seed {seed}: ours reaches what pythae {peer} has after {GOAL} CPU s "
                    f"({goal[0]:.1f} nats) after {seconds:.1f} CPU s"
                )
        for line in of_seed:
            if line["generator"] == "default":
                final = line["curve"][-1][1]
                low = final - 0.01 * abs(final)
                seconds = seconds_until(line["curve"], low)
                texts.append(
                    f"seed {seed}: the default job reaches its final value less 1 % ({low:.1f} of "
                    f"{final:.1f} nats, trunk) after {seconds:.1f} of {line['curve'][-1][0]:.1f} "
                    f"CPU s; {line['bound']:.1f} nats with its classes adapted"
                )
    return texts


def print_table(lines: list[dict]) -> None:
    """Seconds and bounds, means over the seeds."""
    print("| generator | budget | CPU s | steps | bound, nats | seeds |\n|" + "---|" * 6)
    keys = sorted({(line["generator"], line["budget"]) for line in lines})
    for generator, budget in keys:
        group = [
            line for line in lines if (line["generator"], line["budget"]) == (generator, budget)
        ]
        seconds, steps, value = (
            np.mean([line[key] for line in group]) for key in ("cpu_seconds", "steps", "bound")
        )
        asked = f"{budget:g}" if budget else "none"
        print(
            f"| {generator} | {asked} | {seconds:.0f} | {steps:.0f} | {value:.1f} | {len(group)} |"
        )
    for text in verdicts(lines):
        print(text)


def draw_picture(lines: list[dict], path: Path) -> None:
    """Bound against CPU seconds, means over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    names = {"ours": "vaeaug", "betavae": "pythae beta-VAE", "vamp": "pythae VAMP"}
    for generator, name in names.items():
        if points := curve_of(lines, generator):
            axes.plot([each[0] for each in points], [each[1] for each in points], "o-", label=name)
    runs = [line["curve"] for line in lines if line["generator"] == "default"]
    for number, run in enumerate(runs):
        label = "vaeaug, the default job on its way" if number == 0 else None
        axes.plot(*zip(*run, strict=True), ":", color="tab:blue", label=label)
    lowest = min(line["bound"] for line in lines)
    axes.set(
        xscale="log",
        xlabel="CPU seconds of training, one thread",
        ylabel="held-out bound, nats per image",
        ylim=(lowest - 20, None),
    )
    axes.legend()
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=["digits", "fashion-mnist"], default="fashion-mnist")
    parser.add_argument("--budgets", type=float, nargs="*", default=BUDGETS, help="CPU seconds")
    parser.add_argument("--only", nargs="+", choices=["ours", "default", *PEERS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--held", type=int, default=N_HELD, help="test images that are scored")
    parser.add_argument("--peer-python", type=Path, help="left out: ours alone")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of our job")
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-quality"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--table", action="store_true", help="print what there is, and stop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    wanted = args.only or [*(PEERS if args.peer_python else ()), "ours", "default"]
    if args.peer_python is None and set(wanted) & set(PEERS) and not args.table:
        parser.error("--peer-python is needed for the peers")
    data = None if args.table else make_data(args.data, args.out, args.held)
    done = {
        (line["data"], line["generator"], line["budget"], line["seed"])
        for line in results_of(args.results)
    }
    for seed in args.seeds if data else ():
        for name in wanted:
            for budget in [0.0] if name == "default" else args.budgets:
                if (args.data, name, budget, seed) in done:
                    continue
                line = {"data": args.data, "generator": name, "seed": seed, "budget": budget}
                if name in PEERS:
                    found = run_peer(
                        args.peer_python,
                        name,
                        data,
                        args.out / f"{name}-{budget:g}s-seed-{seed}",
                        budget=budget,
                        seed=seed,
                        options={**tuned_options(name, args.data), "components": []},
                        steps_only=True,
                    )
                    line |= {key: found[key] for key in ("steps", "cpu_seconds", "bound")}
                else:
                    train, held, _ = read_data(data)
                    line |= run_ours(train, held, args.set, budget=budget, seed=seed)
                append(args.results, line)
                print(json.dumps(line), flush=True)
    lines = [line for line in results_of(args.results) if line["data"] == args.data]
    print_table(lines)
    if lines:
        draw_picture(lines, args.picture)


if __name__ == "__main__":
    main()
