"""The whole job, in order: read, plan, train, diagnose, draw, screen, write; evaluate; publish.

Nothing else knows this order. Every step leaves something finished on disk, so the same command run
again resumes after the last finished step. A run is published once, at its end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vaeaug.config import AugmentConfig, ConfigError, EvaluationConfig, as_config
from vaeaug.data import LabelledImages, read_configured
from vaeaug.engines import Engine, as_engine
from vaeaug.evaluation import ProbeFactory
from vaeaug.generator import Synthesizer
from vaeaug.job.drawing import draw
from vaeaug.job.evaluation import RunEvaluation
from vaeaug.job.finished import evaluate
from vaeaug.job.folder import SPACE_FOR_MODEL, RunError, RunFolder, describe_data
from vaeaug.job.growing import add_to, with_images_of
from vaeaug.job.publishing import publish
from vaeaug.job.result import AugmentResult, RunResult
from vaeaug.plan import Plan
from vaeaug.progress import Progress, shown
from vaeaug.ranks import ALONE, joined
from vaeaug.screening import Screener
from vaeaug.shards import Manifest
from vaeaug.stages import (
    bytes_per_sample,
    load_or_train,
    plan_of,
    suited,
    with_front_end,
)
from vaeaug.training import resolve_device


def augment(
    data: LabelledImages | Any,
    out_dir: str | Path,
    config: AugmentConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    evaluation: EvaluationConfig | None = None,
    search_first: bool = False,
    evaluate_after: bool = False,
    add: bool = False,
    probe: ProbeFactory | None = None,
    device: str | torch.device = "auto",
    resume: bool = True,
    progress: Progress | bool | None = None,
    callbacks: Sequence[Progress] = (),
    expected: Mapping[str, float] | None = None,
    engine: Engine | str | None = None,
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
        add: Add to the finished run in the folder what its data or this job has more than it: more
            samples of a class, those of another seed, more images, new classes. Its shards keep
            their bytes, and until everything new is there it stays as it is.
        probe: Builds the classifier of both: ``probe(image_shape, n_classes)``.
        device: "auto", "cpu", "cuda" or "cuda:N".
        resume: False deletes a run that is there and starts again; with `add` only what an
            interrupted addition left.
        progress: None shows bars on a terminal and elsewhere logs a line every 30 seconds; False
            is silent; a function is called as ``progress(what, done, total, metrics)``.
        callbacks: Functions that are called as `progress` is, besides it, such as
            `vaeaug.integrations.tracking.TensorBoard`.
        expected: Seconds of each stage, as ``vaeaug.stages.time_job(data, config).expected`` has
            them: bars and lines then say how much time is left. They change nothing else.
        engine: Where classes are drawn and the trainings of search and gate run: an
            `vaeaug.Engine`, or "local", "process" or "ray". It changes no byte. Default: classes
            are drawn here, trainings run in `evaluation.workers` processes.

    Returns:
        Where the run is, and its manifest.

    Raises:
        ConfigError: If the folder holds a run of another configuration; with `add`, if it differs
            in more than what can be added.
        PlanError: If the sampling strategy cannot be satisfied.
        TrainingError: If training fails.
        RunError: If the folder cannot be used, nothing is to be made, or the label does not decide
            the class of what the recipe's sampler draws.
        EvaluationError: If the data is too small to be evaluated.
        EngineError: If the engine cannot be started, or a task ends its worker every time.
    """
    engine = as_engine(engine)
    job = as_config(config)
    if add:
        job = with_images_of(out_dir, job)
    if not isinstance(data, LabelledImages):
        settings = job.data.model_dump()
        data = read_configured(data, settings, seed=job.seed, progress=False, engine=engine)
    data = with_front_end(data, job)
    job = _with_plain_strategy(job, data)
    plan = _plan_something(data, job)
    device = resolve_device(device)
    if add:
        if search_first:
            raise ConfigError(
                f"{out_dir}: search: expected none with add, which keeps the recipe of the run"
            )
        with shown(progress, callbacks, _about(job, data)) as report:
            grown = add_to(
                out_dir, data, job, device=device, resume=resume, engine=engine, progress=report
            )
        if evaluate_after and not grown.manifest.evaluated:
            evaluate(
                data,
                out_dir,
                evaluation,
                probe=probe,
                device=device,
                progress=progress,
                engine=engine,
            )
            grown = replace(grown, manifest=Manifest.load(out_dir))
        return grown
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
            engine=engine,
        )
        resumed = run.is_complete
        if resumed:
            result = RunResult.load(run, job)
        else:
            if evaluate_after:
                measured_by.check()
            with joined(ALONE):  # classifiers and generators of splits have processes of their own
                search = measured_by.search() if search_first else None
            generator = load_or_train(
                run.model, data, job, checkpoints=run.path, device=device, progress=report
            )
            result = draw(run, generator, data, job, search=search, engine=engine, progress=report)
        if evaluate_after and not result.manifest.evaluated:
            with joined(ALONE):
                result, _ = measured_by.evaluated(result, result.recipe)
        elif resumed:
            return AugmentResult(run.path, result.manifest, resumed=True, source=data.source)
        manifest = publish(run, result, data)
        return AugmentResult(run.path, manifest, resumed=resumed, source=data.source)


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
    engine: Engine | str | None = None,
    expected: Mapping[str, float] | None = None,
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
        engine: Where classes are drawn, as for `augment`.
        expected: Seconds of each stage, as ``vaeaug.stages.time_draws(...).expected`` has them.

    Returns:
        Where the run is, and its manifest.

    Raises:
        ConfigError: If the folder holds a run of another configuration or generator.
        PlanError: If the sampling strategy cannot be satisfied.
        RunError: If the data is not what the generator was trained on, the folder cannot be used,
            or nothing is to be made.
        EngineError: If the engine cannot be started, or a class ends its worker every time.
    """
    engine = as_engine(engine)
    job = as_config(config)
    if not isinstance(model, Synthesizer):
        job = with_images_of(model, job)
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
        shown(progress, callbacks, _about(job, data), expected) as report,
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
        result = draw(run, copied, data, job, screener=screener, engine=engine, progress=report)
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
        reasons = [f"class {row.name!r}: {row.reason}" for row in plan]
        if len(reasons) > 10:
            reasons[10:] = [f"and {len(reasons) - 10} more classes"]
        raise RunError(f"nothing to make: {'; '.join(reasons)}")
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
