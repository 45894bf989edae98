"""The whole job, in order: read, plan, train, diagnose, draw, screen, write; evaluate; publish.

Nothing else knows this order. Every step leaves something finished on disk, so the same command run
again resumes after the last finished step. A run is published once, at its end.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vaeaug.config import AugmentConfig, EvaluationConfig, as_config
from vaeaug.data import LabelledImages, read_configured
from vaeaug.evaluation import ProbeFactory, SearchResult
from vaeaug.files.json_text import sealed
from vaeaug.generator import Synthesizer
from vaeaug.job.evaluation import RunEvaluation
from vaeaug.job.folder import RunError, RunFolder, run_versions
from vaeaug.job.publishing import publish
from vaeaug.job.result import AugmentResult, RunResult, result_of
from vaeaug.job.writing import WrittenClasses, write_classes
from vaeaug.plan import Plan
from vaeaug.progress import Progress, shown
from vaeaug.screening import Screener
from vaeaug.shards import Manifest, ShardProvenance, publish_bytes
from vaeaug.stages import (
    bytes_per_sample,
    load_or_train,
    new_screener,
    plan_of,
    suited,
    with_front_end,
)
from vaeaug.stages.diagnosis import diagnose
from vaeaug.training import resolve_device

log = logging.getLogger("vaeaug")

# Space kept for the model, its optimiser and the checkpoints, bytes.
SPACE_FOR_MODEL = 64 * 2**20


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
    callbacks: Sequence[Progress] = (),
    expected: Mapping[str, float] | None = None,
) -> AugmentResult:
    """Turn labelled images into a folder of screened, labelled synthetic shards.

    Args:
        data: The training split, or anything `read` takes.
        out_dir: The run folder; a run of the same configuration in it is resumed.
        config: The job; a mapping of its keys or the path of a YAML file will do. Default:
            `AugmentConfig()`.
        evaluation: Settings of the search and the gate. Default: `EvaluationConfig()`.
        search_first: Search for a recipe, draw the dataset by it and store it for `merge`.
        evaluate_after: Run the gate; with a search before it, on splits that the search never saw.
        probe: Builds the classifier of both: ``probe(image_shape, n_classes)``.
        device: "auto", "cpu", "cuda" or "cuda:N".
        resume: False deletes a run that is there and starts again.
        progress: None shows bars on a terminal and elsewhere logs a line every 30 seconds; False
            is silent; a function is called as ``progress(what, done, total, metrics)``.
        callbacks: Functions that are called as `progress` is, besides it, such as
            `vaeaug.integrations.tracking.TensorBoard`.
        expected: Seconds of each stage, as ``vaeaug.stages.time_job(data, config).expected`` has
            them: bars and lines then say how much time is left. They change nothing else.

    Returns:
        Where the run is, and its manifest.

    Raises:
        ConfigError: If the folder holds a run of another configuration.
        PlanError: If the sampling strategy cannot be satisfied.
        TrainingError: If training fails.
        RunError: If the folder cannot be used, nothing is to be made, or the label does not decide
            the class of what the recipe's sampler draws.
        EvaluationError: If the data is too small to be evaluated.
    """
    job = as_config(config)
    if not isinstance(data, LabelledImages):
        data = read_configured(data, job.data.model_dump(), seed=job.seed, progress=False)
    data = with_front_end(data, job)
    job = _with_plain_strategy(job, data)
    plan = _plan_something(data, job)
    device = resolve_device(device)
    needed = plan.n_synthetic * bytes_per_sample(data, job) + SPACE_FOR_MODEL
    described = describe_data(data) | ({"search": True} if search_first else {})
    with (
        shown(progress, callbacks, _about(job, data), expected) as report,
        RunFolder(out_dir, config=job, data=described, needed=needed, resume=resume) as run,
    ):
        measured_by = RunEvaluation(
            run.path / "evaluation",
            data,
            job,
            evaluation or EvaluationConfig(),
            probe=probe,
            device=device,
            progress=report,
        )
        resumed = run.is_complete
        if resumed:
            result = RunResult.load(run, job)
        else:
            if evaluate_after:
                measured_by.check()
            search = measured_by.search() if search_first else None
            generator = load_or_train(
                run.model, data, job, checkpoints=run.path, device=device, progress=report
            )
            result = _draw(run, generator, data, job, search=search, progress=report)
        if evaluate_after and not result.manifest.evaluated:
            result, _ = measured_by.evaluated(result, result.recipe)
        elif resumed:
            return AugmentResult(run.path, result.manifest, resumed=True, source=data.source)
        manifest = publish(run, result, data)
        return AugmentResult(run.path, manifest, resumed=resumed, source=data.source)


def _draw(
    run: RunFolder,
    generator: Synthesizer,
    data: LabelledImages,
    job: AugmentConfig,
    *,
    search: SearchResult | None = None,
    screener: Screener | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Diagnose the generator, then draw, screen and write each class, by the recipe found."""
    drawn_by = job if search is None or search.recipe.is_none else job.with_recipe(search.recipe)
    plan = plan_of(data, drawn_by)
    provenance = ShardProvenance(
        model_sha256=generator.sha256,
        config_sha256=drawn_by.sha256,
        data_fingerprint=data.fingerprint,
        run_seed=job.seed,
        vaeaug_version=run_versions()["vaeaug"],
        sample_rate=data.sample_rate,
    )
    written = WrittenClasses(run.path, data.class_names, provenance)
    diagnosed = run.has_diagnostics()
    if screener is None and (written.lacks(plan) or not diagnosed):
        screener = new_screener(data, drawn_by, device=generator.device, progress=progress)
    generator.attach(data)
    if not diagnosed:
        generator = _diagnosed(run, generator, data, drawn_by, screener)
    write_classes(written, plan, generator, screener, drawn_by, progress=progress)
    return result_of(
        run, written, data, plan, provenance, job=job, drawn_by=drawn_by, search=search
    )


def _diagnosed(
    run: RunFolder,
    generator: Synthesizer,
    data: LabelledImages,
    config: AugmentConfig,
    screener: Screener | None,
) -> Synthesizer:
    """The generator with the samplers that its diagnostics suggest; both are kept in the run.

    Raises:
        RunError: If the samples of the recipe's sampler would be mislabelled.
    """
    diagnostics = diagnose(generator, data, config, screener=screener)
    for line in diagnostics.summary():
        log.info("%s", line)
    if diagnostics.refusal:
        raise RunError(f"{run.path}: {diagnostics.refusal}")
    chosen = diagnostics.choices.apply(generator)
    chosen.save(run.model)
    publish_bytes(run.diagnostics, sealed(diagnostics.to_json()))
    return chosen


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
    callbacks: Sequence[Progress] = (),
) -> AugmentResult:
    """Draw a dataset from a trained generator, screened against the data it was trained on.

    Args:
        model: The generator or its folder.
        data: The training split of the generator; without it copies could not be recognised.
        out_dir: A run folder of its own.
        config: The job, whose plan, recipe, sampling, screening and shards are used.
        screener: A screener that was fitted to this data by this configuration, to save time.
        device: "auto", "cpu", "cuda" or "cuda:N".
        resume: False deletes a run that is there and starts again.
        progress: None shows bars on a terminal and elsewhere logs a line every 30 seconds; False
            is silent; a function is called as ``progress(what, done, total, metrics)``.
        callbacks: Functions that are called as `progress` is, besides it, such as
            `vaeaug.integrations.tracking.TensorBoard`.

    Returns:
        Where the run is, and its manifest.

    Raises:
        ConfigError: If the folder holds a run of another configuration or generator.
        PlanError: If the sampling strategy cannot be satisfied.
        RunError: If the data is not what the generator was trained on, the folder cannot be used,
            or nothing is to be made.
    """
    job = as_config(config)
    generator = (
        model if isinstance(model, Synthesizer) else Synthesizer.load(model, codec=job.model.codec)
    )
    if generator.data_fingerprint != data.fingerprint:
        raise RunError(
            "generate: expected the images that the generator was trained on (fingerprint "
            f"{generator.data_fingerprint[:12]}), got {data.source!r} of fingerprint "
            f"{data.fingerprint[:12]}"
        )
    data = with_front_end(data, job)
    job = _with_plain_strategy(job, data)
    plan = _plan_something(data, job)
    described = {**describe_data(data), "generator": generator.sha256}
    needed = plan.n_synthetic * bytes_per_sample(data, job) + SPACE_FOR_MODEL
    with (
        shown(progress, callbacks, _about(job, data)) as report,
        RunFolder(out_dir, config=job, data=described, needed=needed, resume=resume) as run,
    ):
        if run.is_complete:
            manifest = Manifest.load(run.path)
            return AugmentResult(run.path, manifest, resumed=True, source=data.source)
        # A copy of the run's own: the caller's generator is moved to no device and holds no data.
        if not (run.model / "config.json").exists():
            generator.save(run.model)
        space = generator.codec.latent_space
        codec = None if space is None else space.codec
        copied = Synthesizer.load(run.model, codec=codec).to(resolve_device(device))
        result = _draw(run, copied, data, job, screener=screener, progress=report)
        manifest = publish(run, result, data)
        return AugmentResult(run.path, manifest, source=data.source)


def train_only(
    data: LabelledImages,
    out_dir: str | Path,
    config: AugmentConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    resume: bool = True,
    progress: Progress | bool | None = None,
    callbacks: Sequence[Progress] = (),
    expected: Mapping[str, float] | None = None,
) -> Path:
    """The first half of `augment`, which resumes from here with the same configuration.

    Args:
        data: The training split.
        out_dir: The run folder.
        config: The job; a mapping of its keys or the path of a YAML file will do.
        device: "auto", "cpu", "cuda" or "cuda:N".
        resume: False deletes a run that is there and starts again.
        progress: As for `augment`.
        callbacks: As for `augment`.
        expected: As for `augment`.

    Returns:
        The generator's folder.

    Raises:
        ConfigError: If the folder holds a run of another configuration.
        PlanError: If the sampling strategy cannot be satisfied.
        TrainingError: If training fails.
        RunError: If the folder cannot be used.
    """
    job = _with_plain_strategy(as_config(config), data)
    plan_of(data, job)  # what `augment` would refuse is refused here
    with (
        shown(progress, callbacks, _about(job, data), expected) as report,
        RunFolder(
            out_dir, config=job, data=describe_data(data), needed=SPACE_FOR_MODEL, resume=resume
        ) as run,
    ):
        load_or_train(
            run.model,
            data,
            job,
            checkpoints=run.path,
            device=resolve_device(device),
            progress=report,
        )
        return run.model


def _plan_something(data: LabelledImages, config: AugmentConfig) -> Plan:
    plan = plan_of(data, config)
    if not plan.n_synthetic:
        reasons = "; ".join(f"class {row.name!r}: {row.reason}" for row in plan)
        raise RunError(f"nothing to make: {reasons}")
    return plan


def _with_plain_strategy(config: AugmentConfig, data: LabelledImages) -> AugmentConfig:
    """The job for this data, with the totals that a callable strategy gives.

    run.json holds plain data.
    """
    config = suited(config, data)
    if not callable(config.plan.sampling_strategy):
        return config
    totals = {row.label: row.target_count for row in plan_of(data, config)}
    part = config.plan.model_copy(update={"sampling_strategy": totals, "share": 0.0})
    return config.model_copy(update={"plan": part})


def _about(job: AugmentConfig, data: LabelledImages) -> dict[str, Any]:
    """What callbacks are told of a job."""
    return {"config": job.to_json(), "data": describe_data(data)}


def describe_data(data: LabelledImages) -> dict[str, Any]:
    """What ``run.json`` says of the data.

    Args:
        data: The training split.

    Returns:
        Plain JSON types.
    """
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
