"""The whole job, in order: read, plan, train, draw, screen, write; search and evaluate; publish.

Nothing else knows this order. Every step leaves something finished on disk, so the same command run
again goes on after the last finished step.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vaeaug.config import AugmentConfig, EvaluationConfig, Recipe, as_config, make_config
from vaeaug.data import LabelledImages, read_by, read_pool
from vaeaug.evaluation import GateResult, ProbeFactory
from vaeaug.generator import Synthesizer
from vaeaug.job.evaluation import Assessment, gate, measure, publish, recipe_of, search
from vaeaug.job.folder import RunError, RunFolder, read_run
from vaeaug.job.stages import (
    bytes_per_sample,
    fit,
    make_dataset,
    plan_of,
    ready_generator,
    shards_of,
)
from vaeaug.plan import Plan
from vaeaug.progress import Progress, shown
from vaeaug.screening import Screener
from vaeaug.shards import Manifest
from vaeaug.training import resolve_device

log = logging.getLogger("vaeaug")

__all__ = [
    "AugmentResult",
    "Progress",
    "augment",
    "bytes_per_sample",
    "evaluate",
    "fit",
    "generate",
    "plan_of",
    "read_data",
    "recipe_of_run",
    "report",
    "shards_of",
    "train_only",
]

# Space kept for the model, its optimiser and the checkpoints, bytes.
SPACE_FOR_MODEL = 64 * 2**20


@dataclass(frozen=True)
class AugmentResult:
    """What a job left.

    Attributes:
        out_dir: The run folder.
        manifest: What it says.
        resumed: Whether the job was already complete.
        source: What the data was read from, as its ``source`` says.
    """

    out_dir: Path
    manifest: Manifest
    resumed: bool = False
    source: str = ""

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
            "search": manifest["extra"].get("search"),
            "nearness": manifest["extra"].get("nearness"),
            "plan": manifest["extra"].get("plan", []),
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
    data = read_by(
        source, wanted.model_dump(), seed=config.seed, workers=workers, progress=progress
    )
    for note in data.notes:
        log.info("%s", note)
    if pool is not None:
        images = read_pool(
            pool,
            data,
            split=wanted.split,
            size=wanted.size,
            alpha=wanted.alpha,
            layout=wanted.layout,
            value_range=wanted.value_range,
            resize=wanted.resize,
            mode=wanted.mode,
            on_error=wanted.on_error,
            workers=workers,
            progress=progress,
        )
        log.info("pool: %d images without labels", len(images))
        data = data.with_unlabelled(images)
    return data


def train_only(
    data: LabelledImages,
    out_dir: str | Path,
    config: AugmentConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    resume: bool = True,
    progress: Progress | bool | None = None,
) -> Path:
    """The first half of `augment`, which goes on from here with the same configuration.

    Returns:
        The generator's folder.
    """
    config = as_config(config)
    config = _with_totals(config, plan_of(data, config))
    needed = SPACE_FOR_MODEL
    with (
        shown(progress) as report,
        RunFolder(
            out_dir, config=config, data=_describe(data), needed=needed, resume=resume
        ) as run,
    ):
        ready_generator(run, data, config, resolve_device(device), report)
        return run.model


def augment(
    data: LabelledImages | Any,
    out_dir: str | Path,
    config: AugmentConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    evaluation: EvaluationConfig | None = None,
    search_first: bool = False,
    evaluate_after: bool = False,
    probe: ProbeFactory | None = None,
    device: str | torch.device = "auto",
    resume: bool = True,
    progress: Progress | bool | None = None,
) -> AugmentResult:
    """From labelled images to a folder of screened, labelled synthetic shards.

    Args:
        data: The training split, or anything `read` takes.
        out_dir: The run folder; a run of the same configuration in it is resumed.
        config: The job; a mapping of its keys or the path of a YAML file will do. Default:
            `AugmentConfig()`.
        evaluation: Of the search and the gate. Default: `EvaluationConfig()`.
        search_first: Search a recipe, draw the dataset by it and store it for `merge`.
        evaluate_after: Run the gate; with a search before it, on splits that the search never saw.
        probe: Builds the classifier of both: ``probe(image_shape, n_classes)``.
        device: "auto", "cpu" or "cuda".
        resume: False deletes a run that is there and starts again.
        progress: None shows bars on a terminal and elsewhere logs a line every 30 seconds; False
            is silent; a function is called as ``progress(what, done, total, figures)``.

    Raises:
        ConfigError: If the folder holds a run of another configuration.
        PlanError: If the sampling strategy cannot be satisfied.
        TrainingError: If training fails.
        RunError: If the folder cannot be used, or nothing is to be made.
        EvaluationError: If the data is too small to be evaluated.
    """
    config, evaluation = as_config(config), evaluation or EvaluationConfig()
    if not isinstance(data, LabelledImages):
        data = read_data(data, config)
    device = resolve_device(device)
    plan = _plan_something(data, config)
    config = _with_totals(config, plan)
    needed = plan.n_synthetic * bytes_per_sample(data, config) + SPACE_FOR_MODEL
    description = _describe(data) | ({"search": True} if search_first else {})
    with (
        shown(progress) as report,
        RunFolder(out_dir, config=config, data=description, needed=needed, resume=resume) as run,
    ):
        manifest = Manifest.load(run.path) if run.is_complete else None
        resumed = manifest is not None
        found = None
        if search_first and manifest is None:
            found = search(
                data,
                run.path,
                config,
                evaluation,
                factory=probe,
                device=device,
                progress=report,
            )
        if manifest is None:
            chosen = config.recipe if found is None or found.recipe.is_none else found.recipe
            drawn_as = config.changed(**chosen.settings())
            if chosen.share != config.recipe.share:
                plan = plan_of(data, config.changed(**{"plan.share": chosen.share}))
            generator = ready_generator(run, data, config, device, report)
            manifest = make_dataset(run, generator, data, plan, drawn_as, device, report)
            manifest = publish(run.path, manifest, data, config, Assessment(search=found))
        if evaluate_after and not manifest.evaluated:
            manifest = _assess(
                run.path, data, config, evaluation, manifest, None, probe, device, report
            )[0]
        return AugmentResult(run.path, manifest, resumed=resumed, source=data.source)


def evaluate(
    data: LabelledImages | Any,
    out_dir: str | Path,
    config: EvaluationConfig | None = None,
    *,
    recipe: Recipe | None = None,
    probe: ProbeFactory | None = None,
    device: str | torch.device = "auto",
    progress: Progress | bool | None = None,
) -> GateResult:
    """Does the synthetic data of a run help on this data? Measured, with an interval.

    Classifiers are trained on real and on merged data, on splits of the training data, each with a
    generator of its own that never sees the split's held-out images. The answer goes into the
    manifest and the report. What was measured is kept: the same call again reads it, a larger
    budget adds splits.

    Args:
        data: The training split that the run was made from, or anything `read` takes.
        out_dir: A finished run folder.
        config: Budget, splits, probe, smallest effect. Default: `EvaluationConfig()`.
        recipe: What is measured. Default: the run's own, which `merge` uses.
        probe: Builds the classifier: ``probe(image_shape, n_classes)`` gives a network that takes
            (n, c, *space) in [0, 1] and gives logits (n, k). Default: a small CNN, or ResNet-18
            for images of more than 64 pixels.
        device: "auto", "cpu" or "cuda".
        progress: None shows bars on a terminal and elsewhere logs a line every 30 seconds; False
            is silent; a function is called as ``progress(what, done, total, figures)``.

    Raises:
        ShardError: If the run is not finished.
        RunError: If the data is not what the run was made from.
        EvaluationError: If the data is too small to be split.
    """
    job, data = _job_of(data, out_dir)
    manifest = Manifest.load(out_dir)
    device = resolve_device(device)
    if "generator" in _described_before(out_dir):
        log.warning(
            "%s was drawn from a generator that came ready; the generators of the splits are "
            "trained by the configuration of this run",
            out_dir,
        )
    with (
        shown(progress) as report,
        RunFolder(out_dir, config=job, data=_described_before(out_dir)) as run,
    ):
        _, result = _assess(
            run.path,
            data,
            job,
            config or EvaluationConfig(),
            manifest,
            recipe,
            probe,
            device,
            report,
        )
        return result


def report(data: LabelledImages | Any, out_dir: str | Path) -> Path:
    """Write the report of a finished run again.

    Args:
        data: The training split that the run was made from, or anything `read` takes.
        out_dir: A finished run folder.

    Returns:
        Path of ``report.html``.

    Raises:
        ShardError: If the run is not finished.
        RunError: If the data is not what the run was made from.
    """
    job, data = _job_of(data, out_dir)
    manifest = Manifest.load(out_dir)
    with RunFolder(out_dir, config=job, data=_described_before(out_dir)) as run:
        publish(run.path, manifest, data, job, Assessment())
        return run.path / "report.html"


def recipe_of_run(out_dir: str | Path) -> Recipe:
    """The recipe that a finished run stands for."""
    config = make_config(read_run(out_dir)["config"], where=f"{out_dir}/run.json", warn=False)
    return recipe_of(Manifest.load(out_dir), config)[0]


def _assess(
    folder: Path,
    data: LabelledImages,
    config: AugmentConfig,
    evaluation: EvaluationConfig,
    manifest: Manifest,
    recipe: Recipe | None,
    probe: ProbeFactory | None,
    device: torch.device,
    progress: Progress | None,
) -> tuple[Manifest, GateResult]:
    """The gate and what is measured beside it, published."""
    stored, searched = recipe_of(manifest, config)
    measured_recipe = recipe or stored
    # Whoever gives a recipe by hand may have seen the search: what it looked at is not held out.
    result = gate(
        data,
        folder,
        config,
        evaluation,
        measured_recipe,
        searched=searched,
        factory=probe,
        device=device,
        progress=progress,
    )
    measured = measure(
        data,
        folder,
        config,
        evaluation,
        measured_recipe,
        manifest,
        searched=searched,
        device=device,
    )
    found = Assessment(gate=result, measured=measured)
    return publish(folder, manifest, data, config, found), result


def _job_of(
    data: LabelledImages | Any, out_dir: str | Path
) -> tuple[AugmentConfig, LabelledImages]:
    """The job of a run and its data, refused where it is other data."""
    run = read_run(out_dir)
    job = make_config(run["config"], where=f"{out_dir}/run.json", warn=False)
    if not isinstance(data, LabelledImages):
        data = read_data(data, job)
    if data.fingerprint != run["data"]["fingerprint"]:
        raise RunError(
            f"{out_dir}: expected the training split that the run was made from (fingerprint "
            f"{run['data']['fingerprint'][:12]}), got {data.source!r} of fingerprint "
            f"{data.fingerprint[:12]}"
        )
    return job, data


def _described_before(out_dir: str | Path) -> dict[str, Any]:
    return dict(read_run(out_dir)["data"])


def generate(
    model: Synthesizer | str | Path,
    data: LabelledImages,
    out_dir: str | Path,
    config: AugmentConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    screener: Screener | None = None,
    device: str | torch.device = "auto",
    resume: bool = True,
    progress: Progress | bool | None = None,
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
        progress: None shows bars on a terminal and elsewhere logs a line every 30 seconds; False
            is silent; a function is called as ``progress(what, done, total, figures)``.

    Raises:
        ConfigError: If the folder holds a run of another configuration or generator.
        PlanError: If the sampling strategy cannot be satisfied.
        RunError: If the data is not what the generator was trained on, the folder cannot be used,
            or nothing is to be made.
    """
    config = as_config(config)
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
    with (
        shown(progress) as report,
        RunFolder(out_dir, config=config, data=description, needed=needed, resume=resume) as run,
    ):
        if run.is_complete:
            manifest = Manifest.load(run.path)
            return AugmentResult(run.path, manifest, resumed=True, source=data.source)
        # The run's own: its diagnostics choose samplers, which must not reach the caller's
        # generator, and which a run that is gone on with finds in its folder.
        if not (run.model / "config.json").exists():
            generator.save(run.model)
        own = Synthesizer.load(run.model).to(device)
        manifest = make_dataset(run, own, data, plan, config, device, report, screener)
        manifest = publish(run.path, manifest, data, config, Assessment())
        return AugmentResult(run.path, manifest, source=data.source)


def _plan_something(data: LabelledImages, config: AugmentConfig) -> Plan:
    plan = plan_of(data, config)
    if not plan.n_synthetic:
        raise RunError(
            "nothing to make: " + "; ".join(f"class {each.name!r}: {each.reason}" for each in plan)
        )
    return plan


def _with_totals(config: AugmentConfig, plan: Plan) -> AugmentConfig:
    """Write what a callable strategy came to; the configuration on disk is plain data."""
    if not callable(config.plan.sampling_strategy):
        return config
    totals: dict[int | str, int] = {each.label: each.target_count for each in plan}
    part = config.plan.model_copy(update={"sampling_strategy": totals, "share": 0.0})
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
