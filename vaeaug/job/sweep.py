"""A sweep: a generator for every combination of values of some keys, in one table.

Each generator is a run folder of its own below OUT/points, so that a sweep that was interrupted
goes on where it stopped, in the middle of a training too.
"""

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaeaug.config import AugmentConfig, ConfigError, as_config
from vaeaug.data import LabelledImages
from vaeaug.files import publish, read_whole
from vaeaug.files.json_text import sealed, unsealed
from vaeaug.generator import Synthesizer
from vaeaug.job.folder import RunError
from vaeaug.job.pipeline import train_only
from vaeaug.memory import blocks
from vaeaug.progress import Progress
from vaeaug.report import draw_rate_distortion
from vaeaug.training import ACTIVE_VARIANCE

MEASURES = "measures.json"
# Held-out images that are measured, at most.
MOST_IMAGES = 2000


@dataclass(frozen=True)
class SweepPoint:
    """One generator of a sweep, measured on the held-out part of the training split.

    Attributes:
        values: Dotted key to value.
        seed: Seed of the run.
        elbo: Evidence lower bound, nats per sample.
        rate: KL of the posterior from the prior, nats per sample.
        distortion: Squared error per value of the reconstruction, values scaled to [0, 1].
        active: Active latent units.
        units: Latent units.
        notes: What training had to say, such as a collapse.
    """

    values: Mapping[str, Any]
    seed: int
    elbo: float
    rate: float
    distortion: float
    active: int
    units: int
    notes: Sequence[str] = ()


def sweep(
    data: LabelledImages,
    out_dir: str | Path,
    keys: Mapping[str, Sequence[Any]],
    config: AugmentConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    seeds: Sequence[int] | None = None,
    device: str | torch.device = "auto",
    progress: Progress | bool | None = None,
) -> list[SweepPoint]:
    """Train a generator for every combination of values, and compare them.

    Points that are there already are not trained again. The table is written anew after every
    point: ``sweep.csv``, and the rate-distortion plane as ``rate-distortion.png``.

    Args:
        data: The training split.
        out_dir: Folder of the sweep.
        keys: Dotted key of the configuration to the values it takes.
        config: The job of the other keys.
        seeds: Seeds of each combination; None: that of the configuration.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: As for `augment`.

    Returns:
        The points, the last key fastest, the seeds fastest of all.

    Raises:
        ConfigError: If a key is unknown, a value out of bounds, or the folder holds another sweep.
        TrainingError: If a training fails.
        RunError: If the folder cannot be used.
    """
    job, out = as_config(config), Path(out_dir)
    if not keys or not all(keys.values()):
        raise ConfigError("sweep: expected one key or more, each with at least one value, got none")
    combinations = [
        dict(zip(keys, values, strict=True)) for values in itertools.product(*keys.values())
    ]
    # All are checked before the first is trained.
    jobs = [
        (values, job.changed(**values, seed=seed))
        for values in combinations
        for seed in (seeds or [job.seed])
    ]
    points: list[SweepPoint] = []
    for values, changed in jobs:
        folder = out / "points" / _name(values, changed.seed)
        model = train_only(data, folder, changed, device=device, progress=progress)
        point = _measured(folder)
        if point is None:
            generator = Synthesizer.load(model, codec=changed.model.codec)
            point = _measure(generator, data, changed, values)
            publish(folder / MEASURES, sealed(asdict(point)))
        points.append(point)
        publish(out / "sweep.csv", _table(points).encode())
        draw_rate_distortion(
            out / "rate-distortion.png",
            [
                (label, point.rate, point.distortion)
                for label, point in zip(_labels(points, seeds), points, strict=True)
            ],
        )
    return points


def _measured(folder: Path) -> SweepPoint | None:
    """What was measured of a point; None where it was not yet.

    Raises:
        RunError: If the file was damaged.
    """
    path = folder / MEASURES
    if not path.exists():
        return None
    try:
        return SweepPoint(**unsealed(read_whole(path)))
    except (TypeError, ValueError) as error:
        raise RunError(f"{path}: damaged ({error}); delete it to measure again") from None


def _measure(
    generator: Synthesizer, data: LabelledImages, config: AugmentConfig, values: Mapping[str, Any]
) -> SweepPoint:
    _, held_out = data.split_rows(config.training.held_out, seed=config.seed)
    chosen = np.random.default_rng(config.seed).permutation(len(held_out))[:MOST_IMAGES]
    images, labels = data.images[held_out[chosen]], data.labels[held_out[chosen]]
    kl, _ = generator.rates(images, labels, seed=config.seed, bits=False)
    means = generator.encode(images, labels)
    error = np.empty(len(images))
    low, high = generator.value_range
    for rows in blocks(len(images), images[:1].size, 256):
        decoded = generator.decode(means[rows], labels[rows]).astype(np.float64)
        difference = (decoded - images[rows]) / (high - low)
        error[rows] = np.square(difference).reshape(len(difference), -1).mean(axis=1)
    return SweepPoint(
        values=dict(values),
        seed=config.seed,
        elbo=float(generator.bound(images, labels, k=1, seed=config.seed).mean()),
        rate=float(kl.sum(axis=1).mean()),
        distortion=float(error.mean()),
        active=int((means.var(axis=0) > ACTIVE_VARIANCE).sum()),
        units=int(means.shape[1]),
        notes=list(generator.notes),
    )


def _name(values: Mapping[str, Any], seed: int) -> str:
    """The folder of a point: what differs, and a hash of it, as values may hold any character."""
    text = json.dumps([dict(values), seed], sort_keys=True, default=str)
    readable = "-".join(str(value) for value in values.values())
    kept = "".join(c if c.isalnum() or c in "-." else "_" for c in readable)[:40]
    return f"{kept}-seed-{seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _labels(points: Sequence[SweepPoint], seeds: Sequence[int] | None) -> list[str]:
    """What distinguishes the points in the picture."""
    labels = []
    for point in points:
        parts = [f"{key.rpartition('.')[2]} {value}" for key, value in point.values.items()]
        labels.append(", ".join(parts + [f"seed {point.seed}"] * (len(seeds or ()) > 1)))
    return labels


def _table(points: Sequence[SweepPoint]) -> str:
    """The points as comma-separated values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measures = ("elbo", "rate", "distortion", "active", "units")
    writer.writerow([*points[0].values, "seed", *measures, "notes"])
    for point in points:
        measured = [getattr(point, name) for name in measures]
        writer.writerow([*point.values.values(), point.seed, *measured, "; ".join(point.notes)])
    return text.getvalue()
