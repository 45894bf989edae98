"""The whole job, in order: read, plan, train, draw, screen, write, publish.

Nothing else knows this order. Every step leaves something finished on disk, so the same command run
again goes on after the last finished step.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaeaug.applications import write_traversal
from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages, read, read_pool
from vaeaug.diagnostics import diagnose
from vaeaug.generation import ClassProgress, make_class
from vaeaug.models import Geometry, latent_groups
from vaeaug.plan import Plan, make_plan
from vaeaug.report import COLUMNS, MAX_CLASSES, ClassPanel, write_samples
from vaeaug.run_folder import RunError, RunFolder, library_versions
from vaeaug.sampling import Synthesizer
from vaeaug.screening import Screener
from vaeaug.shards import (
    Manifest,
    Shard,
    ShardProvenance,
    publish_bytes,
    sha256_file,
)
from vaeaug.training import resolve_device, train

log = logging.getLogger("vaeaug")

# progress(what, done, total, figures)
Progress = Callable[[str, int, int, dict[str, float]], None]

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
            "plan": manifest["extra"]["plan"],
            "classes": manifest["classes"],
            "shards": manifest["shards"],
        }


def read_data(
    source: Any,
    config: AugmentConfig,
    *,
    pool: Any = None,
    workers: int | None = None,
    progress: bool = False,
) -> LabelledImages:
    """Read a source as ``config.data`` says, and a pool of unlabelled images beside it."""
    wanted = config.data
    data = read(
        source,
        split=wanted.split,
        size=wanted.size,
        keys={str(name): key for name, key in wanted.keys.items()} if wanted.keys else None,
        alpha=wanted.alpha,
        layout=wanted.layout,
        workers=workers,
        progress=progress,
    )
    for note in data.notes:
        log.info("%s", note)
    if wanted.class_counts is not None:
        data = data.imbalanced(wanted.class_counts, seed=config.seed)
    if pool is not None:
        images = read_pool(
            pool,
            data,
            split=wanted.split,
            size=wanted.size,
            alpha=wanted.alpha,
            layout=wanted.layout,
            workers=workers,
            progress=progress,
        )
        log.info("pool: %d images without labels", len(images))
        data = data.with_unlabelled(images)
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
    wanted = config.model
    groups = latent_groups(
        Geometry.of(data.image_shape),
        wanted.latent,
        wanted.latent_dim,
        wanted.latent_channels,
        wanted.levels,
    )
    n_latents = groups[-1].start + groups[-1].size
    soft_labels = 4 * data.n_classes if config.sampling.sampler == "blend" else 0
    return data.images[:1].nbytes + 4 * n_latents + 44 + soft_labels


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
    return Synthesizer.from_training(
        trained.model,
        data,
        seed=config.seed,
        flow=trained.flow,
        pool_labels=trained.pool_labels if data.unlabelled is not None else None,
        kind=config.density.kind,
        notes=trained.remarks,
    )


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
    needed = SPACE_FOR_MODEL
    with RunFolder(
        out_dir, config=config, data=_describe(data), needed=needed, resume=resume
    ) as run:
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
    plan = _plan_something(data, config)
    config = _with_totals(config, plan)
    needed = plan.n_synthetic * bytes_per_sample(data, config) + SPACE_FOR_MODEL
    with RunFolder(
        out_dir, config=config, data=_describe(data), needed=needed, resume=resume
    ) as run:
        if run.is_complete:
            return AugmentResult(run.path, Manifest.load(run.path), resumed=True)
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
        ConfigError: If the folder holds a run of another configuration or generator.
        PlanError: If the sampling strategy cannot be satisfied.
        RunError: If the data is not what the generator was trained on, the folder cannot be used,
            or nothing is to be made.
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
    plan = _plan_something(data, config)
    config = _with_totals(config, plan)
    description = {**_describe(data), "generator": generator.sha256}
    needed = plan.n_synthetic * bytes_per_sample(data, config) + SPACE_FOR_MODEL
    with RunFolder(out_dir, config=config, data=description, needed=needed, resume=resume) as run:
        if run.is_complete:
            return AugmentResult(run.path, Manifest.load(run.path), resumed=True)
        generator.save(run.model)
        return _make_dataset(
            run, generator.to(device), data, plan, config, device, progress, screener
        )


def _plan_something(data: LabelledImages, config: AugmentConfig) -> Plan:
    plan = plan_of(data, config)
    if not plan.n_synthetic:
        raise RunError(
            "nothing to make: " + "; ".join(f"class {each.name!r}: {each.reason}" for each in plan)
        )
    return plan


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
    generator.attach(data)
    done = ClassProgress(run.path)
    remaining = any(each.n_synthetic and each.label not in done.classes for each in plan)
    if screener is None and (remaining or not run.diagnostics.exists()):
        screener = _screener(data, config, device, progress)
    if screener is not None:
        _diagnose(run, generator, data, config, screener)
    for wanted in plan:
        if wanted.label in done.classes:
            continue
        finished = make_class(
            run.path,
            wanted,
            generator,
            screener,
            config,
            provenance,
            first_shard=len(done.shards),
            progress=_named(progress, f"drawing {wanted.name}"),
        )
        done.add(finished)
    _draw_picture(run.path, data, done, config)
    shown = _shown(data)
    write_traversal(
        run.path / "traversals.png", generator, shown, n_units=2 if len(shown) > 4 else 6
    )
    entries = tuple(done.classes[each.label].entry for each in plan)
    manifest = Manifest(
        class_names=data.class_names,
        image_shape=data.image_shape,
        dtype=str(data.images.dtype),
        value_range=data.value_range,
        layout=data.layout,
        data_fingerprint=data.fingerprint,
        model_sha256=provenance.model_sha256,
        config_sha256=provenance.config_sha256,
        run_seed=config.seed,
        versions=library_versions(),
        real_counts=tuple(int(count) for count in data.counts),
        classes=entries,
        shards=tuple(done.shards),
        complete=all(each.accepted == each.n_synthetic for each in entries),
        files={
            name: sha256_file(run.path / name)
            for name in (
                "run.json",
                "samples.png",
                "traversals.png",
                "diagnostics.json",
                "model/config.json",
                "model/model.safetensors",
                "model/densities.safetensors",
            )
        },
        extra={
            "plan": plan.to_json(),
            "samplers": {each.entry.name: each.sampler for each in done.classes.values()},
        },
    ).save(run.path)
    return AugmentResult(run.path, manifest)


def _diagnose(
    run: RunFolder,
    generator: Synthesizer,
    data: LabelledImages,
    config: AugmentConfig,
    screener: Screener,
) -> None:
    """Write the diagnostics, once; the generator remembers the samplers that they chose."""
    if run.diagnostics.exists():
        return
    found = diagnose(generator, data, config, screener=screener)
    for line in found.summary():
        log.info("%s", line)
    generator.save(run.model)
    text = json.dumps(found.to_json(), indent=2, sort_keys=True) + "\n"
    publish_bytes(run.diagnostics, text.encode())


def _screener(
    data: LabelledImages, config: AugmentConfig, device: torch.device, progress: Progress | None
) -> Screener:
    screener = Screener(
        data,
        config.screening,
        seed=config.seed,
        device=device,
        progress=_named(progress, "classifier"),
    )
    log.info(
        "screening: the real-only classifier gives held-out real images their label with "
        "probability %.2f on average",
        screener.real_p_label.mean(),
    )
    return screener


def _draw_picture(
    folder: Path, data: LabelledImages, done: ClassProgress, config: AugmentConfig
) -> None:
    """A seeded, not a chosen, selection; the rarest classes first where there are many."""
    panels = []
    for label in _by_interest(data):
        entry = done.classes[label].entry
        rows = np.random.default_rng([config.seed, label]).permutation(
            np.flatnonzero(data.labels == label)
        )
        synthetic = nearest = data.images[:0]
        if done.classes[label].shards:
            with Shard(folder / done.classes[label].shards[0].path) as shard:
                shown = np.arange(min(COLUMNS, len(shard)))
                synthetic = shard.images_at(shown)
                nearest = data.images_at(shard.nn_index[shown])
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


def _by_interest(data: LabelledImages) -> list[int]:
    """Classes in their order; the rarest first where there are too many to show."""
    if data.n_classes > MAX_CLASSES:
        return [int(label) for label in np.argsort(data.counts, kind="stable")]
    return list(range(data.n_classes))


def _shown(data: LabelledImages) -> list[int]:
    """Classes with images, as many as a picture holds."""
    return [label for label in _by_interest(data) if data.counts[label]][:MAX_CLASSES]


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total, {})


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
        "unlabelled": 0 if data.unlabelled is None else len(data.unlabelled),
    }
