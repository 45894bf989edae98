"""How time grows with images, classes and values: series of small sizes and their exponents.

    python -m benchmarks.growth --out growth.jsonl     # two minutes of one core

Each step of a job is timed at sizes that double, in seconds of the processor; the slope of the
logarithms over the larger half of the sizes is the exponent: 1 is linear.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import vaeaug
from benchmarks.speed import Unscreened, images_of
from vaeaug.config import AugmentConfig
from vaeaug.job.writing import WrittenClasses, write_classes
from vaeaug.screening import SampleSpace
from vaeaug.shards import ShardProvenance

# What is timed: its name, and the work after what is prepared for it.
Timed = tuple[str, Callable[[], object]]
PROVENANCE = ShardProvenance(model_sha256="0", config_sha256="0", data_fingerprint="0", run_seed=0)
TINY = (
    "model.width=8",
    "model.latent_dim=8",
    "training.steps=2",
    "training.adapt_steps=2",
    "training.eval_every=1000",
    "restoration.steps=2",
    "restoration.width=8",
    "semi_supervised.classifier_steps=2",
    "screening.classifier_steps=2",
    "recipe.sampler=gmm",
    "recipe.min_label_probability=0",
)


def by_images(n: int) -> Iterator[Timed]:
    """As many images in ten classes, and a third as many samples."""
    data = images_of(n, shape=(8, 8, 1))
    config = vaeaug.load_config(None, list(TINY))
    yield "fingerprint", lambda: images_of(n, shape=(8, 8, 1)).fingerprint
    space = SampleSpace(data, 0)
    yield "space of the screening", lambda: SampleSpace(data, 0)
    samples = images_of(n // 3 + 1, shape=(8, 8, 1)).images[::-1].copy()
    samples ^= np.random.default_rng(0).integers(0, 8, samples.shape, dtype=np.uint8)
    projected = space.project(samples)
    yield "nearest training images", lambda: space.nearest(samples, projected)
    yield "screener", lambda: vaeaug.Screener(data, config.screening, seed=0)
    screener = vaeaug.Screener(data, config.screening, seed=0, min_label_probability=0)
    yield "screening", lambda: screened(screener, samples)
    yield "training of two steps, densities", lambda: vaeaug.fit(data, config, progress=False)
    generator = vaeaug.fit(data, config, progress=False)
    yield "drawing", lambda: generator.sample(0, n // 3 + 1)
    yield "writing", lambda: written(generator, data, config, n // 3 + 1)


def by_classes(k: int) -> Iterator[Timed]:
    """Thirty images in each of as many classes, and ten samples."""
    data = images_of(30 * k, n_classes=k, shape=(8, 8, 1))
    config = vaeaug.load_config(None, list(TINY))
    yield "plan", lambda: vaeaug.make_plan(data.labels, share=0.25)
    yield "screener", lambda: vaeaug.Screener(data, config.screening, seed=0)
    yield "training of two steps, densities", lambda: vaeaug.fit(data, config, progress=False)
    generator = vaeaug.fit(data, config, progress=False)
    yield "writing", lambda: written(generator, data, config, 10, every=True)


def by_values(side: int) -> Iterator[Timed]:
    """Images of side x side values."""
    data = images_of(300, shape=(side, side, 1))
    config = vaeaug.load_config(None, list(TINY))
    yield "space of the screening", lambda: SampleSpace(data, 0)
    yield "screener", lambda: vaeaug.Screener(data, config.screening, seed=0)
    yield "training of two steps, densities", lambda: vaeaug.fit(data, config, progress=False)
    generator = vaeaug.fit(data, config, progress=False)
    yield "drawing", lambda: generator.sample(0, 64)


# By what grows: sizes, the series, and the number that the size stands for.
SERIES: dict[
    str, tuple[tuple[int, ...], Callable[[int], Iterator[Timed]], Callable[[int], int]]
] = {
    "images": ((2500, 5000, 10000, 20000, 40000), by_images, lambda n: n),
    "classes": ((20, 40, 80), by_classes, lambda k: k),
    "values": ((16, 32, 64), by_values, lambda side: side * side),
}


def screened(screener: vaeaug.Screener, samples: np.ndarray) -> None:
    """In chunks, as a job draws them."""
    judge = screener.new_class(0, brief=True)
    for begin in range(0, len(samples), 512):
        judge.screen(samples[begin : begin + 512])


def written(
    generator: vaeaug.Synthesizer,
    data: vaeaug.LabelledImages,
    config: AugmentConfig,
    n: int,
    *,
    every: bool = False,
) -> None:
    """Samples of one class or of every class, drawn and written without screening."""
    counts = {c: int(count) for c, count in enumerate(data.counts)}
    wanted = {c: count + n * (every or c == 0) for c, count in counts.items()}
    plan = vaeaug.make_plan(data.labels, wanted)
    with tempfile.TemporaryDirectory() as folder:
        classes = WrittenClasses(Path(folder), data.class_names, PROVENANCE)
        write_classes(classes, plan, generator, Unscreened(), config)


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Exponent over the larger half of the sizes, at least two of them."""
    last = max(2, (len(sizes) + 1) // 2)
    return float(np.polyfit(np.log(sizes[-last:]), np.log(seconds[-last:]), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", nargs="+", choices=tuple(SERIES), default=tuple(SERIES))
    parser.add_argument("--sizes", type=int, default=9, help="of each series, the smaller ones")
    parser.add_argument("--out", type=Path, help="JSON lines are appended here")
    arguments = parser.parse_args()
    for name in arguments.series:
        steps, series, number = SERIES[name]
        sizes = [number(step) for step in steps[: arguments.sizes]]
        seconds: dict[str, list[float]] = {}
        for step in steps[: arguments.sizes]:
            for what, work in series(step):
                begin = time.process_time()
                work()
                seconds.setdefault(what, []).append(time.process_time() - begin)
        print(f"{name}: {', '.join(map(str, sizes))}")
        for what, taken in seconds.items():
            exponent = slope(sizes, taken)
            listed = "  ".join(f"{s:8.3f}" for s in taken)
            print(f"  {what:34}{listed}   exponent {exponent:.2f}", flush=True)
            if arguments.out is not None:
                entry = {"series": name, "sizes": sizes, "what": what}
                entry |= {"cpu_s": [round(s, 4) for s in taken], "exponent": round(exponent, 2)}
                with open(arguments.out, "a") as file:
                    file.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main()
