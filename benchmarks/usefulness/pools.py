"""Our samples, made once for each seed by a generator trained on the seed's training set."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vaeaug
from benchmarks.usefulness.regimes import Regime
from benchmarks.usefulness.small_cnn import Pool

# Name of the arm to what `Synthesizer.sample` is told.
DRAWS: dict[str, dict[str, Any]] = {
    "transfer": {"sampler": "transfer"},
    "delta": {"sampler": "delta"},
    "edits": {"sampler": "interpolate", "residual": True},
}


class MissingPoolError(RuntimeError):
    """An arm's samples have not been made."""


def folder_of(out: Path, regime: str, seed: int) -> Path:
    """Where what belongs to a seed of a regime lies.

    Args:
        out: Of all regimes.
        regime: Its name.
        seed: The seed.

    Returns:
        A folder, which need not exist.
    """
    return out / regime / f"seed-{seed}"


def write(path: Path, pool: Pool, about: Mapping[str, Any]) -> None:
    """Write samples: images (k, n, *shape), made (k,), about (JSON).

    Args:
        path: The npz file; it appears when it is whole.
        pool: Samples.
        about: How they were made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with open(unfinished, "wb") as file:
        np.savez(file, images=pool.images, made=pool.made, about=np.array(json.dumps(dict(about))))
    unfinished.replace(path)


def digest(path: Path) -> str:
    """What tells these samples from others.

    Args:
        path: What `write` left.

    Returns:
        The beginning of the SHA-256 of the file.

    Raises:
        MissingPoolError: If there is no such file.
    """
    _check(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _check(path: Path) -> None:
    if not path.exists():
        raise MissingPoolError(
            f"{path}: expected samples, found no file; python -m benchmarks.usefulness make makes "
            "them"
        )


def read(path: Path) -> Pool:
    """Read samples.

    Args:
        path: What `write` left.

    Returns:
        Samples.

    Raises:
        MissingPoolError: If there is no such file.
    """
    _check(path)
    with np.load(path, allow_pickle=False) as file:
        return Pool(file["images"], file["made"])


def make(
    regime: Regime,
    seeds: Sequence[int],
    samplers: Sequence[str],
    *,
    n: int,
    out: Path,
    changes: Mapping[str, Any],
    device: str = "cpu",
) -> None:
    """Train the generator of each seed, and draw samples of every class by each sampler.

    What exists is kept. A class that a sampler cannot serve has none, and its draws stay real.

    Args:
        regime: Of the training images.
        seeds: Each has its own generator.
        samplers: Names in `DRAWS`.
        n: Samples of a class.
        out: A generator and `pool-SAMPLER.npz` go to the seed's folder.
        changes: Dotted keys of the generator's configuration.
        device: "auto", "cpu" or "cuda"; "cpu" gives what the results were made with.

    Raises:
        SystemExit: If a sampler serves no class at all.
    """
    for seed in seeds:
        folder = folder_of(out, regime.name, seed)
        wanted = [name for name in samplers if not (folder / f"pool-{name}.npz").exists()]
        if not wanted:
            continue
        data, _, _ = regime.data(seed)
        config = vaeaug.load_config(None, [], seed=seed, **{**regime.config, **changes})
        begin = time.perf_counter()
        if (folder / "generator").exists():
            generator = vaeaug.load(folder / "generator")
        else:
            generator = vaeaug.fit(
                data, config, device=device, folder=folder / "training", progress=False
            )
            generator.save(folder / "generator")
        generator.attach(data)
        trained = time.perf_counter() - begin
        for name in wanted:
            begin = time.perf_counter()
            pool, failed = _drawn(generator, data, name, n=n, seed=seed)
            if not pool.made.any():
                raise SystemExit(
                    f"{regime.name}, seed {seed}, {name}: {next(iter(failed.values()))}"
                )
            about = {
                "regime": regime.name,
                "seed": seed,
                "sampler": DRAWS[name],
                "generator": generator.sha256,
                "version": vaeaug.__version__,
                "changes": dict(changes),
                "device": device,
                "seconds_training": round(trained, 1),
                "seconds_drawing": round(time.perf_counter() - begin, 1),
                "without": failed,
            }
            write(folder / f"pool-{name}.npz", pool, about)
            print(
                f"{regime.name}, seed {seed}, {name}: {int((pool.made > 0).sum())} of "
                f"{data.n_classes} classes",
                flush=True,
            )


def _drawn(
    generator: vaeaug.Synthesizer, data: vaeaug.LabelledImages, name: str, *, n: int, seed: int
) -> tuple[Pool, dict[str, str]]:
    """Samples of every class, and why a class has none."""
    images = np.zeros((data.n_classes, n, *data.image_shape), data.images.dtype)
    made = np.zeros(data.n_classes, np.int64)
    failed = {}
    for c, class_name in enumerate(data.class_names):
        try:
            batch = generator.sample(label=c, n=n, seed=seed, **DRAWS[name])
        except vaeaug.SamplingError as error:
            failed[class_name] = str(error)
            continue
        images[c], made[c] = batch.images, n
    return Pool(images, made), failed
