"""CPU seconds of the default jobs, by stage: one thread, install and reading excluded.

    OMP_NUM_THREADS=1 python -m benchmarks.jobs --only digits fashion-mnist-1000
    OMP_NUM_THREADS=1 python -m benchmarks.jobs --told     # from a few steps of each stage

Others may use the machine: seconds are those of the processor, user and system, beside those that
passed. `--told` runs no job: it prints what `vaeaug plan` tells of each. Photographs are crops of
those that scikit-learn and scikit-image ship. Lines are appended to --out.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import vaeaug
from benchmarks.large import CLASSES, crops
from benchmarks.quality.__main__ import FASHION_MNIST
from vaeaug.stages import time_job


class Stages:
    """A progress that charges CPU seconds to the stage that reports them.

    What lies between the last report of one stage and the first of the next is charged to the
    latter, but for diagnosis, which reports nothing and comes before drawing.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last, self._at = "", time.process_time()

    def __call__(self, what: str, done: int, total: int, metrics: dict[str, float]) -> None:
        """Charge the time since the last report."""
        name = "drawing" if what.startswith("drawing") else what
        if name == "classifier" and self._last not in ("", "classifier"):
            name = "screening"
        if name == "classifier" and self._last == "screening":
            name = "screening"
        self.charge("diagnosis" if name == "drawing" != self._last else name)
        self._last = name

    def charge(self, name: str) -> None:
        """Charge the time since the last charge to a stage."""
        now = time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._at
        self._at = now


def photographs(side: int, n: int) -> vaeaug.LabelledImages:
    """N crops of four photographs, side x side x 3."""
    images, labels = crops((side, side), (n // 4,) * 4, seed=0)
    return vaeaug.LabelledImages(images, labels, CLASSES, (0.0, 255.0))


def fashion(n: int) -> vaeaug.LabelledImages:
    """N images of Fashion-MNIST, classes alike."""
    data = vaeaug.read(FASHION_MNIST, split="train")
    return data if n == len(data) else data.imbalanced([n // 10] * 10, seed=0)


# By name: the images, and the seconds on two cores that are the goal.
JOBS: dict[str, tuple[Callable[[], vaeaug.LabelledImages], float]] = {
    "digits": (lambda: vaeaug.read("digits", split="train"), 20),
    "fashion-mnist-1000": (lambda: fashion(1000), 40),
    "photos-64x64x3-3000": (lambda: photographs(64, 3000), 240),
    "photos-224x224x3-500": (lambda: photographs(224, 500), 600),
    "fashion-mnist-60000": (lambda: fashion(60_000), 360),
}


def run(data: vaeaug.LabelledImages, overrides: list[str], out: Path) -> dict[str, Any]:
    """Run the whole job."""
    config = vaeaug.load_config(None, overrides)
    stages = Stages()
    wall, cpu = time.perf_counter(), time.process_time()
    result = vaeaug.augment(data, out, config, progress=stages, device="cpu", resume=False)
    stages.charge("report")
    diagnostics = json.loads((out / "diagnostics.json").read_text())
    control = diagnostics.get("label_control") or {}
    classes = result.manifest.classes
    return {
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "stages": {name: round(seconds, 2) for name, seconds in stages.seconds.items()},
        "accepted": sum(each.accepted for each in classes),
        "candidates": sum(each.candidates for each in classes),
        "held_out_elbo": diagnostics["fit"]["elbo_held_out"],
        "bound": diagnostics["fit"]["bound"],
        "label_control": control.get("control"),
    }


def told(data: vaeaug.LabelledImages, overrides: list[str]) -> dict[str, Any]:
    """What a job is said to take, from a few steps."""
    job = time_job(data, vaeaug.load_config(None, overrides), device="cpu")
    stages = {stage.name: round(stage.seconds, 1) for stage in job.stages}
    return {"told_seconds": round(job.seconds, 1), "stages": stages}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--told", action="store_true", help="from a few steps of each stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="JSON lines are appended here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.only:
        make, goal = JOBS[name]
        data, overrides = make(), [f"seed={args.seed}", *args.set]
        with tempfile.TemporaryDirectory() as folder:
            found = told(data, overrides) if args.told else run(data, overrides, Path(folder) / "r")
        line = {"job": name, "images": len(data), "seed": args.seed, "set": args.set, **found}
        line |= {"goal_seconds": goal, "torch": torch.__version__, "machine": platform.machine()}
        print(json.dumps(line), flush=True)
        if args.out is not None:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with open(args.out, "a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
