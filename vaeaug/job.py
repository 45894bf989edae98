"""The whole job, in order: read, plan, train, draw, screen, write, publish.

Nothing else knows this order. Every step leaves something finished on disk, so the same command run
again goes on after the last finished step.
"""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages, read
from vaeaug.plan import ClassPlan, Plan, make_plan
from vaeaug.report import COLUMNS, MAX_CLASSES, ClassPanel, write_samples
from vaeaug.run_folder import RunError, RunFolder, library_versions, read_run
from vaeaug.sampling import Synthesizer
from vaeaug.screening import Screener, ScreeningReport
from vaeaug.shards import (
    ClassEntry,
    Manifest,
    Shard,
    ShardDataset,
    ShardEntry,
    ShardProvenance,
    ShardWriter,
    sha256_file,
)
from vaeaug.training import resolve_device, train

log = logging.getLogger("vaeaug")

# progress(what, done, total, figures)
Progress = Callable[[str, int, int, dict[str, float]], None]

# Candidates drawn and screened at once.
CHUNK = 512
# Space kept for the model, its optimiser and the checkpoints, bytes.
SPACE_FOR_MODEL = 64 * 2**20


@dataclass(frozen=True)
class AugmentResult:
    """What a job left.

    Attributes:
        out_dir: The run folder.
        manifest: What it says.
        resumed: Whether the job was already complete.
    """

    out_dir: Path
    manifest: Manifest
    resumed: bool = False

    @property
    def complete(self) -> bool:
        """Whether every class got what was planned."""
        return self.manifest.complete

    @property
    def shortfalls(self) -> list[str]:
        """A line for every class that got fewer than planned."""
        return [
            f"class {each.name!r}: {each.accepted} of {each.n_synthetic} made, after "
            f"{each.candidates} candidates"
            for each in self.manifest.classes
            if each.accepted < each.n_synthetic
        ]

    def to_json(self) -> dict[str, Any]:
        """The manifest's counts and where the run is."""
        manifest = json.loads(self.manifest.to_bytes())
        return {
            "out": str(self.out_dir),
            "complete": self.complete,
            "gate": manifest["gate"],
            "classes": manifest["classes"],
            "shards": manifest["shards"],
        }


def read_data(
    source: Any, config: AugmentConfig, *, workers: int | None = None, progress: bool = False
) -> LabelledImages:
    """Read a source as ``config.data`` says."""
    wanted = config.data
    data = read(
        source,
        split=wanted.split,
        size=wanted.size,
        keys={str(name): key for name, key in wanted.keys.items()} if wanted.keys else None,
        alpha=wanted.alpha,
        workers=workers,
        progress=progress,
    )
    for note in data.notes:
        log.info("%s", note)
    if wanted.class_counts is not None:
        data = data.imbalanced(wanted.class_counts, seed=config.seed)
    return data


def plan_of(data: LabelledImages, config: AugmentConfig) -> Plan:
    """The plan that a configuration makes for this data."""
    return make_plan(
        data.labels,
        config.plan.sampling_strategy,
        class_names=data.class_names,
        target_ratio=config.plan.target_ratio,
        max_synthetic_ratio=config.plan.max_synthetic_ratio,
        min_class_count=config.plan.min_class_count,
        min_share=config.plan.min_share,
    )


def bytes_per_sample(data: LabelledImages, config: AugmentConfig) -> int:
    """Bytes that one sample takes in an uncompressed shard: image, latent and seven numbers."""
    return data.images[:1].nbytes + 4 * config.model.latent_dim + 44


def shards_of(n_samples: int, sample_bytes: int, config: AugmentConfig) -> int:
    """Shards that so many samples of one class take."""
    per_shard = max(1, (config.shards.max_bytes - 2**14) // sample_bytes)
    return -(-n_samples // per_shard)


def fit(
    data: LabelledImages,
    config: AugmentConfig | None = None,
    *,
    device: str | torch.device = "auto",
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Synthesizer:
    """Train the generator and fit the class densities.

    Args:
        data: The training split.
        config: The job. Default: `AugmentConfig()`.
        device: "auto", "cpu" or "cuda".
        folder: Checkpoints go there and are resumed from there. None: nothing is written.
        progress: Called after every step.

    Returns:
        The generator, on `device`.

    Raises:
        TrainingError: If training fails.
    """
    config = config or AugmentConfig()
    path = None if folder is None else Path(folder)
    trained = train(data, config, device=device, folder=path, progress=progress)
    for line in trained.summary():
        log.info("%s", line)
    return Synthesizer.from_training(trained.model, data, seed=config.seed)


def train_only(
    data: LabelledImages,
    out_dir: str | Path,
    config: AugmentConfig | None = None,
    *,
    device: str | torch.device = "auto",
    resume: bool = True,
    progress: Progress | None = None,
) -> Path:
    """The first half of `augment`, which goes on from here with the same configuration.

    Returns:
        The generator's folder.
    """
    config = _with_totals(config or AugmentConfig(), plan_of(data, config or AugmentConfig()))
    with RunFolder(out_dir, config=config, data=_describe(data), resume=resume) as run:
        run.check_space(SPACE_FOR_MODEL)
        _generator(run, data, config, resolve_device(device), progress)
        return run.model


def augment(
    data: LabelledImages | Any,
    out_dir: str | Path,
    config: AugmentConfig | None = None,
    *,
    device: str | torch.device = "auto",
    resume: bool = True,
    progress: Progress | None = None,
) -> AugmentResult:
    """From labelled images to a folder of screened, labelled synthetic shards.

    Args:
        data: The training split, or anything `read` takes.
        out_dir: The run folder; a run of the same configuration in it is resumed.
        config: The job. Default: `AugmentConfig()`.
        device: "auto", "cpu" or "cuda".
        resume: False deletes a run that is there and starts again.
        progress: Called as ``progress(what, done, total, figures)``.

    Raises:
        ConfigError: If the folder holds a run of another configuration.
        PlanError: If the sampling strategy cannot be satisfied.
        TrainingError: If training fails.
        RunError: If the folder cannot be used, or nothing is to be made.
    """
    config = config or AugmentConfig()
    if not isinstance(data, LabelledImages):
        data = read_data(data, config)
    device = resolve_device(device)
    plan = plan_of(data, config)
    config = _with_totals(config, plan)
    if not plan.n_synthetic:
        raise RunError(
            "nothing to make: " + "; ".join(f"class {each.name!r}: {each.reason}" for each in plan)
        )
    with RunFolder(out_dir, config=config, data=_describe(data), resume=resume) as run:
        if run.is_complete:
            return AugmentResult(run.path, Manifest.load(run.path), resumed=True)
        run.check_space(plan.n_synthetic * bytes_per_sample(data, config) + SPACE_FOR_MODEL)
        generator = _generator(run, data, config, device, progress)
        return _make_dataset(run, generator, data, plan, config, device, progress)


def generate(
    model: Synthesizer | str | Path,
    data: LabelledImages,
    out_dir: str | Path,
    config: AugmentConfig | None = None,
    *,
    screener: Screener | None = None,
    device: str | torch.device = "auto",
    resume: bool = True,
    progress: Progress | None = None,
) -> AugmentResult:
    """Draw a dataset from a trained generator, screened against the data it was trained on.

    Args:
        model: The generator or its folder.
        data: The training split of the generator; without it a copy could not be told.
        out_dir: A run folder of its own.
        config: Plan, sampling, screening and shards of it are used.
        screener: One already fitted to this data by this configuration, to save the time.
        device: "auto", "cpu" or "cuda".
        resume: False deletes a run that is there and starts again.
        progress: Called as ``progress(what, done, total, figures)``.

    Raises:
        RunError: If the data is not what the generator was trained on.
    """
    config = config or AugmentConfig()
    device = resolve_device(device)
    generator = model if isinstance(model, Synthesizer) else Synthesizer.load(model)
    if generator.data_fingerprint != data.fingerprint:
        raise RunError(
            "generate: expected the images that the generator was trained on (fingerprint "
            f"{generator.data_fingerprint[:12]}), got {data.source!r} of fingerprint "
            f"{data.fingerprint[:12]}"
        )
    plan = plan_of(data, config)
    config = _with_totals(config, plan)
    description = {**_describe(data), "generator": generator.sha256}
    with RunFolder(out_dir, config=config, data=description, resume=resume) as run:
        if run.is_complete:
            return AugmentResult(run.path, Manifest.load(run.path), resumed=True)
        run.check_space(plan.n_synthetic * bytes_per_sample(data, config) + SPACE_FOR_MODEL)
        generator.save(run.model)
        return _make_dataset(
            run, generator.to(device), data, plan, config, device, progress, screener
        )


def rescreen(
    data: LabelledImages,
    out_dir: str | Path,
    config: AugmentConfig | None = None,
    *,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> dict[str, ScreeningReport]:
    """Judge the samples of a finished run by the thresholds of `config`. Nothing is changed.

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
    screener = _screener(data, config, resolve_device(device), progress)
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
    """What a run folder, a generator's folder or a shard is, in plain words and numbers.

    Raises:
        RunError: If it is none of them.
    """
    path = Path(path)
    if path.is_file():
        with Shard(path) as shard:
            return {"shard": str(path), "n": len(shard), **_plain(shard.attributes)}
    if (path / "manifest.json").exists():
        manifest = json.loads(Manifest.load(path).to_bytes())
        counts = {each["name"]: each["accepted"] for each in manifest["classes"]}
        return {
            "run": str(path),
            "n": sum(counts.values()),
            "classes": counts,
            **{
                key: manifest[key]
                for key in ("complete", "gate", "image_shape", "dtype", "run_seed", "versions")
            },
            "samplers": manifest["extra"].get("samplers", {}),
        }
    if (path / "config.json").exists() or (path / "model" / "config.json").exists():
        generator = Synthesizer.load(path)
        return {
            "generator": str(path),
            "model": type(generator.model).__name__,
            **generator.model.architecture,
            "parameters": sum(each.numel() for each in generator.model.parameters()),
            "densities": {
                name: density.kind if density else "none"
                for name, density in zip(generator.class_names, generator.densities, strict=True)
            },
            "sha256": generator.sha256,
        }
    if (path / "run.json").exists():
        return {"run": str(path), "state": "not finished", **read_run(path)["data"]}
    raise RunError(f"{path}: expected a run folder, a generator or a shard")


def _plain(attributes: Any) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for name, value in dict(attributes).items()
    }


def _generator(
    run: RunFolder,
    data: LabelledImages,
    config: AugmentConfig,
    device: torch.device,
    progress: Progress | None,
) -> Synthesizer:
    if (run.model / "config.json").exists():
        return Synthesizer.load(run.model).to(device)
    generator = fit(data, config, device=device, folder=run.path, progress=progress)
    generator.save(run.model)
    return generator


def _make_dataset(
    run: RunFolder,
    generator: Synthesizer,
    data: LabelledImages,
    plan: Plan,
    config: AugmentConfig,
    device: torch.device,
    progress: Progress | None,
    screener: Screener | None = None,
) -> AugmentResult:
    """Draw, screen and write each class; then the picture; the manifest last."""
    provenance = ShardProvenance(
        model_sha256=generator.sha256,
        config_sha256=config.sha256,
        data_fingerprint=data.fingerprint,
        run_seed=config.seed,
        vaeaug_version=library_versions()["vaeaug"],
    )
    finished = _FinishedClasses.load(run.path)
    for wanted in plan:
        if wanted.label in finished.classes:
            continue
        if screener is None and wanted.n_synthetic:
            screener = _screener(data, config, device, progress)
        entry, shards = _make_class(
            run.path,
            wanted,
            generator,
            screener,
            config,
            provenance,
            first_shard=len(finished.shards),
            progress=progress,
        )
        finished.add(entry, shards)
    _draw_picture(run.path, data, finished, config)
    manifest = Manifest(
        class_names=data.class_names,
        image_shape=data.image_shape,
        dtype=str(data.images.dtype),
        value_range=data.value_range,
        layout="NHWC",
        data_fingerprint=data.fingerprint,
        model_sha256=provenance.model_sha256,
        config_sha256=provenance.config_sha256,
        run_seed=config.seed,
        versions=library_versions(),
        real_counts=tuple(int(count) for count in data.counts),
        classes=tuple(finished.classes[each.label] for each in plan),
        shards=tuple(finished.shards),
        complete=all(each.accepted == each.n_synthetic for each in finished.classes.values()),
        files={
            name: sha256_file(run.path / name)
            for name in (
                "run.json",
                "samples.png",
                "model/config.json",
                "model/model.safetensors",
                "model/densities.safetensors",
            )
        },
        extra={"plan": plan.to_json(), "samplers": finished.samplers},
    ).save(run.path)
    return AugmentResult(run.path, manifest)


def _screener(
    data: LabelledImages, config: AugmentConfig, device: torch.device, progress: Progress | None
) -> Screener:
    def report(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(what, done, total, {})

    screener = Screener(data, config.screening, seed=config.seed, device=device, progress=report)
    log.info(
        "screening: the real-only classifier gives held-out real images their label with "
        "probability %.2f on average",
        screener.real_p_label.mean(),
    )
    return screener


def _make_class(
    folder: Path,
    wanted: ClassPlan,
    generator: Synthesizer,
    screener: Screener | None,
    config: AugmentConfig,
    provenance: ShardProvenance,
    *,
    first_shard: int,
    progress: Progress | None,
) -> tuple[ClassEntry, list[ShardEntry]]:
    """Draw candidates of one class until enough are accepted or the budget is spent."""
    report = ScreeningReport()
    shards: list[ShardEntry] = []
    if wanted.n_synthetic and screener is not None:
        sampler = config.sampling.sampler
        if sampler == "auto":
            sampler = generator.default_sampler(wanted.label)  # type: ignore[assignment]
        budget = int(config.screening.max_candidates_ratio * wanted.n_synthetic)
        screening = screener.new_class(wanted.label)
        with ShardWriter(
            folder,
            label=wanted.label,
            class_names=generator.class_names,
            sampler=sampler,
            dtype=str(generator.dtype),
            image_shape=generator.image_shape,
            value_range=generator.value_range,
            n_latents=generator.model.latent_dim,
            provenance=provenance,
            max_bytes=config.shards.max_bytes,
            compress=config.shards.compress,
            first_index=first_shard,
        ) as writer:
            while report.accepted < wanted.n_synthetic and report.candidates < budget:
                batch = generator.sample(
                    wanted.label,
                    min(CHUNK, budget - report.candidates),
                    seed=config.seed,
                    sampler=sampler,
                    temperature=config.sampling.temperature,
                    start=report.candidates,
                )
                screened = screening.screen(batch.images)
                rows = np.flatnonzero(screened.accepted)[: wanted.n_synthetic - report.accepted]
                # The candidates after the last one needed were never asked for.
                enough = report.accepted + len(rows) == wanted.n_synthetic
                report.add(screened.reason[: rows[-1] + 1] if enough else screened.reason)
                kept = batch.select(rows)
                writer.append(
                    images=kept.images,
                    latents=kept.latents,
                    source_index=kept.source_index,
                    seed=kept.seed,
                    p_label=screened.p_label[rows],
                    nn_distance=screened.nn_distance[rows],
                    nn_index=screened.nn_index[rows],
                )
                if progress is not None:
                    name = f"drawing {wanted.name}"
                    progress(name, report.accepted, wanted.n_synthetic, {})
        shards = writer.entries
    return ClassEntry(
        label=wanted.label,
        name=wanted.name,
        real=wanted.real,
        target_count=wanted.target_count,
        n_synthetic=wanted.n_synthetic,
        accepted=report.accepted,
        rejected=report.to_json()["rejected"],
        candidates=report.candidates,
    ), shards


class _FinishedClasses:
    """``checkpoints/classes.json``: the classes whose shards are whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.classes: dict[int, ClassEntry] = {}
        self.shards: list[ShardEntry] = []

    @property
    def samplers(self) -> dict[str, str]:
        """Class name -> sampler its shards were drawn with."""
        folder = self.path.parent.parent
        names = {}
        for entry in self.shards:
            if entry.class_name not in names:
                with Shard(folder / entry.path) as shard:
                    names[entry.class_name] = str(shard.attributes["sampler"])
        return names

    @classmethod
    def load(cls, folder: Path) -> "_FinishedClasses":
        """Read what is finished; a class whose shards are not as recorded is made again."""
        finished = cls(folder / "checkpoints" / "classes.json")
        if not finished.path.exists():
            return finished
        for content in json.loads(finished.path.read_text(encoding="utf-8")):
            entry = ClassEntry(**content["class"])
            shards = [ShardEntry(**each) for each in content["shards"]]
            if not all(_is_whole(folder, each) for each in shards):
                # Shards are numbered on across classes: what follows is made again too.
                log.warning("class %r: its shards are not whole; made again", entry.name)
                break
            finished.classes[entry.label] = entry
            finished.shards.extend(shards)
        return finished

    def add(self, entry: ClassEntry, shards: list[ShardEntry]) -> None:
        """Record a finished class."""
        self.classes[entry.label] = entry
        self.shards.extend(shards)
        content = [
            {
                "class": {**vars(each), "rejected": dict(each.rejected)},
                "shards": [vars(shard) for shard in self.shards if shard.label == label],
            }
            for label, each in self.classes.items()
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def _is_whole(folder: Path, entry: ShardEntry) -> bool:
    path = folder / entry.path
    return (
        path.exists() and path.stat().st_size == entry.bytes and sha256_file(path) == entry.sha256
    )


def _draw_picture(
    folder: Path, data: LabelledImages, finished: _FinishedClasses, config: AugmentConfig
) -> None:
    """A seeded, not a chosen, selection; the rarest classes first where there are many."""
    panels = []
    first = {}
    for entry in finished.shards:
        first.setdefault(entry.label, entry)
    order = range(data.n_classes)
    if data.n_classes > MAX_CLASSES:
        order = np.argsort(data.counts, kind="stable").tolist()
    for label in order:
        entry = finished.classes[label]
        rows = np.random.default_rng([config.seed, label]).permutation(
            np.flatnonzero(data.labels == label)
        )
        synthetic = nearest = data.images[:0]
        if label in first:
            with Shard(folder / first[label].path) as shard:
                shown = np.arange(min(COLUMNS, len(shard)))
                synthetic = shard.images_at(shown)
                nearest = data.images[shard.nn_index[shown]]
        panels.append(
            ClassPanel(
                name=entry.name,
                note=f"{entry.real} real, {entry.accepted} synthetic",
                real=data.images[rows[:COLUMNS]],
                synthetic=synthetic,
                nearest=nearest,
            )
        )
    write_samples(folder / "samples.png", panels, value_range=data.value_range)


def _with_totals(config: AugmentConfig, plan: Plan) -> AugmentConfig:
    """Write what a callable strategy came to; the configuration on disk is plain data."""
    if not callable(config.plan.sampling_strategy):
        return config
    totals: dict[int | str, int] = {each.label: each.target_count for each in plan}
    part = config.plan.model_copy(update={"sampling_strategy": totals, "min_share": 0.0})
    return config.model_copy(update={"plan": part})


def _describe(data: LabelledImages) -> dict[str, Any]:
    return {
        "fingerprint": data.fingerprint,
        "source": data.source,
        "split": data.split,
        "class_names": list(data.class_names),
        "counts": [int(count) for count in data.counts],
        "image_shape": list(data.image_shape),
        "dtype": str(data.images.dtype),
        "notes": list(data.notes),
    }
