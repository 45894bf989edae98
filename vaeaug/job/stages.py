"""One dataset in one run folder: the generator, every class, the pictures, the manifest last.

Every step leaves something finished on disk, so that it is gone on with after the last one.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaeaug.config import AugmentConfig, as_config
from vaeaug.data import LabelledImages
from vaeaug.evaluation.diagnostics import diagnose
from vaeaug.files import read_whole
from vaeaug.files.json_text import JSONTextError, sealed, unsealed
from vaeaug.generator import Synthesizer
from vaeaug.job.applications import write_traversal
from vaeaug.job.drawing import ClassProgress, make_class
from vaeaug.job.folder import RunFolder, library_versions
from vaeaug.models import groups_of
from vaeaug.plan import Plan, make_plan
from vaeaug.progress import Progress, shown
from vaeaug.report import COLUMNS, MAX_CLASSES, ClassPanel, write_samples
from vaeaug.screening import NEAR_CLASS, Screener
from vaeaug.shards import (
    ClassEntry,
    Manifest,
    Shard,
    ShardEntry,
    ShardProvenance,
    publish_bytes,
    sha256_file,
)
from vaeaug.training import check_config, train

log = logging.getLogger("vaeaug")


def plan_of(data: LabelledImages, config: AugmentConfig) -> Plan:
    """The plan that a configuration makes for this data.

    Raises:
        ConfigError: If the generator or the screening cannot be trained on samples like these.
        PlanError: If the sampling strategy cannot be satisfied.
    """
    check_config(data, config, for_convolutions=True)
    share, strategy = config.plan.share, config.plan.sampling_strategy
    if share is None and isinstance(strategy, str | float):
        share = config.recipe.share
    return make_plan(
        data.labels,
        strategy,
        class_names=data.class_names,
        target_ratio=config.plan.target_ratio,
        max_synthetic_ratio=config.plan.max_synthetic_ratio,
        min_class_count=config.plan.min_class_count,
        share=share,
    )


def bytes_per_sample(data: LabelledImages, config: AugmentConfig) -> int:
    """Bytes that one sample takes in an uncompressed shard: image, latent and seven numbers."""
    wanted = config.model
    groups = groups_of(
        data.image_shape,
        wanted.network,
        wanted.latent,
        wanted.latent_dim,
        wanted.latent_channels,
        wanted.levels,
    )
    n_latents = groups[-1].start + groups[-1].size
    has_soft = config.recipe.sampler == "blend" or config.recipe.soft
    soft_labels = 4 * data.n_classes if has_soft else 0
    return data.images[:1].nbytes + 4 * n_latents + 44 + soft_labels


def shards_of(n_samples: int, sample_bytes: int, config: AugmentConfig) -> int:
    """Shards that so many samples of one class take."""
    per_shard = max(1, (config.shards.max_bytes - 2**14) // sample_bytes)
    return -(-n_samples // per_shard)


def fit(
    data: LabelledImages,
    config: AugmentConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    folder: str | Path | None = None,
    progress: Progress | bool | None = None,
) -> Synthesizer:
    """Train the generator and fit the class densities.

    Args:
        data: The training split.
        config: The job; a mapping of its keys or the path of a YAML file will do.
        device: "auto", "cpu" or "cuda".
        folder: Checkpoints go there and are resumed from there. None: nothing is written.
        progress: None shows bars on a terminal and elsewhere logs a line every 30 seconds; False
            is silent; a function is called as ``progress(what, done, total, figures)``.

    Returns:
        The generator, on `device`.

    Raises:
        TrainingError: If training fails.
    """
    with shown(progress) as report:
        path = None if folder is None else Path(folder)
        return _fit(data, as_config(config), device, path, report)


def _fit(
    data: LabelledImages,
    config: AugmentConfig,
    device: str | torch.device,
    path: Path | None,
    progress: Progress | None,
) -> Synthesizer:
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


def ready_generator(
    run: RunFolder,
    data: LabelledImages,
    config: AugmentConfig,
    device: torch.device,
    progress: Progress | None,
) -> Synthesizer:
    """The run's generator; trained, or gone on with, where it is not there yet."""
    if (run.model / "config.json").exists():
        return Synthesizer.load(run.model).to(device)
    generator = _fit(data, config, device, run.path, progress)
    generator.save(run.model)
    return generator


def make_dataset(
    run: RunFolder,
    generator: Synthesizer,
    data: LabelledImages,
    plan: Plan,
    config: AugmentConfig,
    device: torch.device,
    progress: Progress | None,
    screener: Screener | None = None,
    *,
    pictures: bool = True,
) -> Manifest:
    """Draw, screen and write each class; then the pictures.

    Returns:
        The manifest, which is not written yet: it is the commit point.
    """
    provenance = ShardProvenance(
        model_sha256=generator.sha256,
        config_sha256=config.sha256,
        data_fingerprint=data.fingerprint,
        run_seed=config.seed,
        vaeaug_version=library_versions()["vaeaug"],
    )
    generator.attach(data)
    done = ClassProgress(run.path, data.class_names)
    remaining = any(each.n_synthetic and each.label not in done.classes for each in plan)
    _drop_damaged(run.diagnostics)
    if screener is None and (remaining or (pictures and not run.diagnostics.exists())):
        screener = fit_screener(data, config, device, progress)
    # A fixed sampler needs no trial, and nobody reads the figures of a split of an evaluation.
    if screener is not None and (pictures or config.recipe.sampler == "auto"):
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
    entries = tuple(done.classes[each.label].entry for each in plan)
    manifest = Manifest(
        class_names=data.class_names,
        image_shape=data.image_shape,
        dtype=str(data.images.dtype),
        value_range=data.value_range,
        layout=data.layout,
        data_fingerprint=data.fingerprint,
        model_sha256=provenance.model_sha256,
        config_sha256=config.sha256,
        run_seed=config.seed,
        versions=library_versions(),
        real_counts=tuple(int(count) for count in data.counts),
        classes=entries,
        shards=tuple(done.shards),
        complete=all(each.accepted == each.n_synthetic for each in entries),
        extra={
            "plan": plan.to_json(),
            "samplers": {each.entry.name: each.sampler for each in done.classes.values()},
            "nearness": nearness(entries, {n: each.near for n, each in done.classes.items()}),
            "recipe": config.recipe.model_dump(mode="json") | {"origin": "default"},
        },
    )
    files = [
        "run.json",
        *(["diagnostics.json"] if run.diagnostics.exists() else []),
        "model/config.json",
        "model/model.safetensors",
        "model/densities.safetensors",
    ]
    if pictures:
        panels = panels_of(run.path, manifest, data)
        write_samples(run.path / "samples.png", panels, value_range=data.value_range)
        shown = _shown(data)
        write_traversal(
            run.path / "traversals.png", generator, shown, n_units=2 if len(shown) > 4 else 6
        )
        files += ["samples.png", "traversals.png"]
    return replace(manifest, files={name: sha256_file(run.path / name) for name in files})


def nearness(entries: Sequence[ClassEntry], near: Mapping[int, int]) -> dict[str, Any]:
    """How many samples lie near to training images, of real images one in twenty by definition.

    Args:
        entries: What came of each class.
        near: Samples of each class that are nearer to a training image than 95 % of real images are
            to another one.
    """
    made = [each for each in entries if each.accepted]
    total = sum(each.accepted for each in made)
    shares = {each.name: near[each.label] / each.accepted for each in made}
    share = sum(near[each.label] for each in made) / total if total else 0.0
    sentence = (
        f"{100 * share:.0f} % of the samples are nearer to a training image than 95 % of real "
        "images are to one another (by definition 5 % of real images are)"
    )
    if few := [each for each in made if each.real < NEAR_CLASS and shares[each.name] > share]:
        names = ", ".join(f"{each.name!r} {100 * shares[each.name]:.0f} %" for each in few[:10])
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        sentence += (
            f"; in classes of fewer than {NEAR_CLASS} images, whose samples have little room to "
            f"move, more: {names}{more}"
        )
    return {"share": share, "classes": shares, "sentence": sentence + "."}


def fit_screener(
    data: LabelledImages, config: AugmentConfig, device: torch.device, progress: Progress | None
) -> Screener:
    """Train the classifiers of screening, and say how sure they are of real images."""
    screener = Screener.for_job(data, config, device=device, progress=progress)
    log.info(
        "screening: the real-only classifier gives held-out real images their label with "
        "probability %.2f on average",
        screener.real_p_label.mean(),
    )
    return screener


def panels_of(folder: Path, manifest: Manifest, data: LabelledImages) -> list[ClassPanel]:
    """A seeded, not a chosen, selection; the rarest classes first where there are many."""
    panels = []
    first: dict[int, ShardEntry] = {}
    for shard_entry in manifest.shards:
        first.setdefault(shard_entry.label, shard_entry)
    entries = {entry.label: entry for entry in manifest.classes}
    for label in _by_interest(data):
        entry = entries[label]
        rows = np.random.default_rng([manifest.run_seed, label]).permutation(
            np.flatnonzero(data.labels == label)
        )
        synthetic = nearest = data.images[:0]
        if label in first:
            with Shard(folder / first[label].path) as shard:
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
    return panels


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
    publish_bytes(run.diagnostics, sealed(found.to_json()))


def _drop_damaged(diagnostics: Path) -> None:
    """Delete diagnostics that were damaged since they were written: they are made again."""
    try:
        unsealed(read_whole(diagnostics))
    except FileNotFoundError:
        pass
    except (OSError, JSONTextError) as error:
        log.warning("%s: cannot be read (%s); made again", diagnostics, error)
        diagnostics.unlink()


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
