"""Looking at what a job left: a run folder, a generator, a shard; screening it again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.generator import Synthesizer
from vaeaug.job.folder import RunError
from vaeaug.job.state import state_of
from vaeaug.merging import counts_of_file, is_merged
from vaeaug.progress import Progress
from vaeaug.remote import is_url
from vaeaug.screening import Screener, ScreeningReport
from vaeaug.shards import Manifest, Shard, ShardDataset, fetch
from vaeaug.stages import CHUNK


def rescreen(
    data: LabelledImages,
    out_dir: str | Path,
    config: AugmentConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> dict[str, ScreeningReport]:
    """Judge the samples of a finished run by the thresholds of a configuration. Nothing is changed.

    Args:
        data: The training split that the run was made from.
        out_dir: The run folder.
        config: The thresholds; None: those of the run.
        device: Where the classifiers run.
        progress: Reports on their training; None is silent.

    Returns:
        Counts by class name.

    Raises:
        RunError: If the data is not what the run was made from.
    """
    config = config or AugmentConfig()
    dataset = ShardDataset(out_dir)
    if dataset.fingerprint != data.fingerprint:
        raise RunError(
            f"screen: expected the images that {out_dir} was made from (fingerprint "
            f"{dataset.fingerprint[:12]}), got {data.source!r} of {data.fingerprint[:12]}"
        )
    screener = Screener.for_job(data, config, device=device, progress=progress)
    reports = {}
    for label in np.unique(dataset.labels).tolist():
        screening, report = screener.new_class(label), ScreeningReport()
        rows = np.flatnonzero(dataset.labels == label)
        for begin in range(0, len(rows), CHUNK):
            images = dataset.images_at(rows[begin : begin + CHUNK])
            report.add(screening.screen(images).reason)
        reports[dataset.class_names[label]] = report
    return reports


def describe(path: str | Path) -> dict[str, Any]:
    """Describe a run folder, a generator's folder, a shard or a merged file.

    Args:
        path: Any of them; or the address of a run in an object store.

    Returns:
        What it is, in words and numbers; plain JSON types.

    Raises:
        RunError: If it is none of them.
    """
    if isinstance(path, str) and is_url(path):
        return describe(fetch(path, only=())) | {"run": path}
    path = Path(path)
    if path.is_file() and is_merged(path):
        classes = counts_of_file(path)
        return {
            "merged": str(path),
            "n": sum(row.together for row in classes),
            "classes": [row._asdict() for row in classes],
        }
    if path.is_file():
        with Shard(path) as shard:
            return {"shard": str(path), "n": len(shard), **_plain(shard.attributes)}
    if (path / "manifest.json").exists():
        stored = Manifest.load(path)
        manifest = json.loads(stored.to_bytes())
        history = {str(i): str(generation) for i, generation in enumerate(stored.generations, 1)}
        counts = {row["name"]: row["accepted"] for row in manifest["classes"]}
        return {
            "run": str(path),
            "state": "complete" if manifest["complete"] else "complete, some classes fell short",
            "n": sum(counts.values()),
            "classes": counts,
            "excluded": sum(map(len, stored.excluded.values())),
            "gate": gate if isinstance(gate := manifest["gate"], str) else gate.get("sentence"),
            "recipe": manifest["extra"].get("recipe"),
            **{
                key: manifest[key]
                for key in ("complete", "image_shape", "dtype", "run_seed", "versions")
            },
            "samplers": manifest["extra"].get("samplers", {}),
            **({"generations": history} if history else {}),
        }
    is_generator = any((path / name).exists() for name in ("config.json", "model/config.json"))
    if (path / "run.json").exists():
        return state_of(path) | (_generator(path) if is_generator else {})
    if is_generator:
        return _generator(path)
    raise RunError(f"{path}: expected a run folder, a generator or a shard")


def _generator(path: Path) -> dict[str, Any]:
    generator = Synthesizer.load(path)
    without = "prior over codes" if generator.model.is_discrete else "none"
    return {
        "generator": str(path),
        "model": type(generator.model).__name__,
        **generator.model.architecture,
        "parameters": sum(parameter.numel() for parameter in generator.model.parameters()),
        "densities": {
            name: density.kind if density else without
            for name, density in zip(generator.class_names, generator.densities, strict=True)
        },
        "sha256": generator.sha256,
    }


def _plain(attributes: Any) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for name, value in dict(attributes).items()
    }
