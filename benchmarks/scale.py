"""What a job of many classes and samples costs: series of small sizes, and sums for a large one.

    OMP_NUM_THREADS=1 python -m benchmarks.scale --out scale.jsonl    # ten minutes of one core
    python -m benchmarks.scale --out scale.jsonl --classes 10000      # the sums alone

Classes are drawn as the tasks of an engine draw them, in processor seconds of one thread, with the
default network (few steps: the cost of a sample does not depend on what was learned). A task of n
samples takes a + b n seconds: `fixed` and `per_sample` are a and b from two sizes. Lines that are
there are not measured again.
"""

import argparse
import json
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import vaeaug
from benchmarks.speed import images_of
from vaeaug.engines import one_thread
from vaeaug.engines._payload import Payload
from vaeaug.job.class_tasks import ClassJob, DrawClass, _take
from vaeaug.job.writing import WrittenClasses
from vaeaug.shards import ClassEntry, Manifest, ShardEntry, ShardProvenance
from vaeaug.stages import EarlierSamples, new_screener, time_job

SIZES = (64, 1024)
SHAPES = ((28, 28, 1), (32, 32, 3))
CLASSES = (10, 40, 160, 640, 1280)
# Classes of 30 images.
TRAINED = (125, 250, 500, 1000)
SHARDS = (1_000, 4_000, 16_000)
FEW_STEPS = {
    "training.steps": 20,
    "training.adapt_steps": 10,
    "restoration.steps": 0,
    "screening.classifier_steps": 20,
    "screening.max_candidates_ratio": 1.0,
    "recipe.min_label_probability": 0.0,
    "screening.near_copy_factor": 0.0,
    "screening.duplicate_factor": 0.0,
    "screening.max_near_share": 1.0,
}


def cpu(work: Any) -> tuple[float, Any]:
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def drawing(shape: tuple[int, int, int], k: int, sampler: str) -> dict[str, Any]:
    """Tasks of two sizes, what every worker loads, and what the driver does for each class."""
    data = images_of(max(600, 30 * k), n_classes=k, shape=shape)
    config = vaeaug.AugmentConfig().changed(**FEW_STEPS, **{"recipe.sampler": sampler})
    generator = vaeaug.fit(data, config, progress=False, device="cpu").attach(data)
    screener = new_screener(data, config, device="cpu")
    provenance = ShardProvenance(
        model_sha256="0", config_sha256="0", data_fingerprint="0", run_seed=0
    )
    plan = vaeaug.make_plan(data.labels, dict.fromkeys(range(k), 10**6))
    with tempfile.TemporaryDirectory() as folder, one_thread():
        run = Path(folder)
        (run / "run.json").write_text("{}")
        work = DrawClass(run, generator, screener, config, provenance)
        written = WrittenClasses(run, data.class_names, provenance)
        seconds, sizes = {}, {}
        rows = list(plan)
        for n in (SIZES[0], *SIZES):  # the first one warms up
            job = ClassJob(replace(rows[n % k], n_synthetic=n), EarlierSamples(), 0)
            work.place(job.plan.label).joinpath("class.json").unlink(missing_ok=True)
            seconds[n], content = cpu(lambda job=job: work(job))
            sizes[n] = sum(shard["bytes"] for shard in content["shards"])
            taken = cpu(
                lambda job=job, content=content: _take(
                    written, content, work.place(job.plan.label), work.class_names
                )
            )[0]
        payload = Payload.of(work)
        loaded = cpu(payload.load)[0]
        n_bytes = len(payload.data) + sum(n for *_, n in payload.spans)
        payload.discard()
    few, many = SIZES
    per_sample = (seconds[many] - seconds[few]) / (many - few)
    return {
        "fixed_s": seconds[few] - few * per_sample,
        "per_sample_s": per_sample,
        "bytes_per_sample": (sizes[many] - sizes[few]) / (many - few),
        "driver_s_per_class": taken,
        "payload_bytes": n_bytes,
        "payload_load_s": loaded,
    }


def training(k: int) -> dict[str, Any]:
    """Seconds of a training, as the library expects them of a few steps, and the memory."""
    data = images_of(30 * k, n_classes=k, shape=(28, 28, 1))
    found: dict[str, Any] = {}
    for grouping in ("shared", "adapted"):
        config = vaeaug.AugmentConfig().changed(**{"model.grouping": grouping})
        with one_thread():
            expected = time_job(data, config, device="cpu").expected
        found[f"{grouping}_s"] = sum(
            seconds for name, seconds in expected.items() if name.startswith(("trunk", "adapt"))
        )
    return found | {"screening_s": expected["screening"]}


def manifest(n_shards: int) -> dict[str, Any]:
    """Writing and reading the manifest of a dataset with half as many classes as shards."""
    names = tuple(f"class-{i:05d}" for i in range(n_shards // 2))
    classes = tuple(
        ClassEntry(label=i, name=name, real=30, target_count=60, n_synthetic=2, accepted=2)
        for i, name in enumerate(names)
    )
    shards = tuple(
        ShardEntry(
            path=f"shards/shard-{i:05d}.h5",
            label=i // 2,
            class_name=names[i // 2],
            n=1,
            bytes=2**28,
            sha256="0" * 64,
            sha256_decoded="0" * 64,
        )
        for i in range(n_shards)
    )
    made = Manifest(
        class_names=names,
        image_shape=(32, 32, 3),
        dtype="uint8",
        value_range=(0, 255),
        layout="NHWC",
        data_fingerprint="0",
        model_sha256="0",
        config_sha256="0",
        run_seed=0,
        real_counts=(30,) * len(names),
        classes=classes,
        shards=shards,
    )
    with tempfile.TemporaryDirectory() as folder:
        save = cpu(lambda: made.save(folder))[0]
        load = cpu(lambda: Manifest.load(folder))[0]
        size = (Path(folder) / "manifest.json").stat().st_size
    return {"save_s": save, "load_s": load, "bytes": size}


def measured(out: Path) -> list[dict[str, Any]]:
    """All lines; what is missing is measured and appended."""
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    there = {json.dumps(line["key"], sort_keys=True) for line in lines}
    keys = [
        *({"shape": s, "classes": 10, "sampler": m} for s in SHAPES for m in ("auto", "gmm")),
        *({"shape": (8, 8, 1), "classes": k, "sampler": "gmm"} for k in CLASSES),
        *({"trained": k} for k in TRAINED),
        *({"shards": n} for n in SHARDS),
    ]
    for key in keys:
        if json.dumps(key, sort_keys=True) in there:
            continue
        if "shards" in key:
            line = manifest(key["shards"])
        elif "trained" in key:
            line = training(key["trained"])
        else:
            line = drawing(tuple(key["shape"]), key["classes"], key["sampler"])
        rounded = {name: float(f"{value:.4g}") for name, value in line.items()}
        line = {"key": json.loads(json.dumps(key)), **rounded}
        lines.append(line)
        with open(out, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    return lines


def line_of(x: list[int], y: list[float]) -> np.poly1d:
    """The straight line through a series, by which it is continued."""
    return np.poly1d(np.polyfit(x, y, 1))


def sums(lines: list[dict[str, Any]], k: int, n: int) -> None:
    """Arithmetic from the measured lines; what grows with the classes is continued as a line."""
    series = [line for line in lines if line["key"].get("shape") == [8, 8, 1]]
    classes = [line["key"]["classes"] for line in series]
    growth = {}
    for name in ("per_sample_s", "fixed_s"):
        fitted = line_of(classes, [line[name] for line in series])
        growth[name] = max(0.0, float(fitted(k) - fitted(10)))
        print(f"{name}: {fitted(10):.3g} with 10 classes, {fitted(k):.3g} with {k:,}, by the line")
    for line in lines:
        if line["key"].get("classes") != 10 or line in series:
            continue
        per_sample, fixed = (line[name] + growth[name] for name in ("per_sample_s", "fixed_s"))
        shards = k * math.ceil(n / k * line["bytes_per_sample"] / 2**28)
        print(
            f"{line['key']['shape']}, {line['key']['sampler']}: {n:,} samples of {k:,} classes: "
            f"{(n * per_sample + k * fixed) / 3600:,.0f} core hours ({1 / per_sample:,.0f} samples "
            f"a second and core; {1 / line['per_sample_s']:,.0f} with 10 classes), "
            f"{n * line['bytes_per_sample'] / 1e12:.2f} TB in {shards:,} shards"
        )
    for line in lines:
        if "trained" in line["key"]:
            each = {name: f"{value:,.0f}" for name, value in line.items() if name != "key"}
            print(f"training on {line['key']['trained']:,} classes of 30 images: {each}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are appended here")
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=1_000_000_000)
    arguments = parser.parse_args()
    sums(measured(arguments.out), arguments.classes, arguments.samples)


if __name__ == "__main__":
    main()
