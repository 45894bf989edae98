"""How long features take: read, fit, draw, merge, a head, oversampling; 100,000 x 512 by default.

    OMP_NUM_THREADS=1 python benchmarks/embeddings.py --out results.json

Features are those of no image: nonnegative, correlated, of long-tailed classes. Times are processor
seconds of one thread and the largest memory of the process.
"""

import argparse
import json
import resource
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from torch.utils.data import DataLoader

import vaeaug
from vaeaug.config import EvaluationConfig
from vaeaug.evaluation import Arm
from vaeaug.evaluation.gate.probe import train_and_predict


def features(n: int, f: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features like those of a backbone with a ReLU, classes from many to few."""
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(1, 0.01, k)
    counts = np.maximum(8, np.floor(n * sizes / sizes.sum()).astype(int))
    counts[0] += n - counts.sum()
    labels = rng.permutation(np.repeat(np.arange(k), counts))
    means = rng.gamma(1.0, 0.5, size=(k, f)).astype(np.float32)
    mixing = (rng.standard_normal((64, f)) / 16).astype(np.float32)
    x = means[labels] + rng.standard_normal((n, 64), np.float32) @ mixing
    x += 0.2 * rng.standard_normal((n, f), np.float32)
    return np.maximum(x, 0), labels


def main() -> None:
    """Measure every step, and print and write the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--synthetic", type=int, default=50_000, help="samples drawn, about")
    parser.add_argument("--steps", type=int, help="of the generator; default: that of a job")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    n, f, k = arguments.n, arguments.features, arguments.classes
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        begin = time.process_time()
        yield
        seconds[what] = round(time.process_time() - begin, 1)
        print(f"{what}: {seconds[what]} s", flush=True)

    x, y = features(n, f, k, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "E.h5"
        with h5py.File(path, "w") as file:
            file["features"], file["labels"] = x, y
        with timed("read"):
            data = vaeaug.read(path)
        share = arguments.synthetic / (n + arguments.synthetic)
        totals = {c: max(1, round(arguments.synthetic / k)) + int(data.counts[c]) for c in range(k)}
        keys = {"plan": {"sampling_strategy": totals, "share": 0.0}, "recipe": {"sampler": "delta"}}
        if arguments.steps:
            keys["training"] = {"steps": arguments.steps}
        with timed(f"fit, {arguments.steps or 'default'} steps"):
            generator = vaeaug.fit(data, keys, device="cpu", progress=False)
        for sampler in ("delta", "calibrated", "gmm"):
            job = {**keys, "recipe": {"sampler": sampler}}
            out = Path(folder) / sampler
            with timed(f"generate with {sampler}: draw, screen, write"):
                made = vaeaug.generate(generator, data, out, job, device="cpu", progress=False)
            drawn = sum(entry.accepted for entry in made.manifest.classes)
            print(f"  {drawn} samples", flush=True)
        with warnings.catch_warnings(), timed("merge, and an epoch in batches of 256"):
            warnings.simplefilter("ignore")
            merged = vaeaug.merge(data, Path(folder) / "delta", share=share)
            n_read = sum(len(labels) for _, labels in DataLoader(merged, 256, shuffle=True))
        print(f"  {n_read} vectors", flush=True)
        with timed("a head of the gate, weight decay tuned"):
            arm, config = Arm("logit adjustment"), EvaluationConfig()
            train_and_predict(data, None, data, arm, config=config, seed=0, steps=10**4)
        few = {c: int(data.counts[c]) + 300 for c in range(max(0, k - 20), k)}
        for sampler in ("delta", "auto"):
            sampling = vaeaug.VAEOverSampler(
                sampling_strategy=few, random_state=0, layout="NF", sampler=sampler, device="cpu"
            )
            with timed(
                f"VAEOverSampler, {sampler}, {300 * len(few)} samples of the rarest classes"
            ):
                sampling.fit_resample(x, y)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result = {"n": n, "features": f, "classes": k, "seconds": seconds, "GiB": round(memory, 1)}
    print(json.dumps(result))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
