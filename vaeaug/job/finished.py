"""What is done with a finished run: evaluate it, write its report again."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vaeaug.config import AugmentConfig, EvaluationConfig, Recipe, make_config
from vaeaug.data import LabelledImages, read_configured
from vaeaug.engines import Engine, as_engine
from vaeaug.evaluation import GateResult, Prediction, ProbeFactory
from vaeaug.job.evaluation import RunEvaluation
from vaeaug.job.folder import RunError, RunFolder, read_run
from vaeaug.job.publishing import keep_prediction, publish
from vaeaug.job.result import RunResult, recipe_of
from vaeaug.progress import Progress, shown
from vaeaug.shards import Manifest
from vaeaug.training import resolve_device

log = logging.getLogger("vaeaug")


def evaluate(
    data: LabelledImages | Any,
    out_dir: str | Path,
    config: EvaluationConfig | None = None,
    *,
    recipe: Recipe | None = None,
    probe: ProbeFactory | None = None,
    device: str | torch.device = "auto",
    progress: Progress | bool | None = None,
    engine: Engine | str | None = None,
) -> GateResult:
    """Measure whether the synthetic data of a run helps on this data, with an interval.

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
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: None shows bars on a terminal and elsewhere logs a line every 30 seconds; False
            is silent; a function is called as ``progress(what, done, total, metrics)``.
        engine: Where trainings run: an `vaeaug.Engine`, or "local", "process" or "ray". It changes
            no outcome. Default: in `config.workers` processes.

    Returns:
        The verdict, its interval and every way of training that was compared.

    Raises:
        ShardError: If the run is not finished.
        RunError: If the data is not what the run was made from.
        EvaluationError: If the data is too small to be split.
        EngineError: If the engine cannot be started, or a task ends its worker every time.
    """
    measuring = _measuring(data, out_dir, config, probe, device, progress, as_engine(engine))
    with measuring as (run, measured_by, result):
        result, gate = measured_by.evaluated(result, recipe or result.recipe)
        publish(run, result, measured_by.data)
        return gate


def predict_gain(
    data: LabelledImages | Any,
    out_dir: str | Path,
    config: EvaluationConfig | None = None,
    *,
    recipe: Recipe | None = None,
    probe: ProbeFactory | None = None,
    device: str | torch.device = "auto",
    progress: Progress | bool | None = None,
    engine: Engine | str | None = None,
) -> Prediction:
    """Predict from one split whether the synthetic data of a run helps; no verdict.

    One generator and three classifiers are trained on the first split of `evaluate`, which later
    reads them. The prediction is kept in ``evaluation/prediction.json`` and shown in the report;
    the run stays as evaluated, or not evaluated, as it was.

    Args:
        data: The training split that the run was made from, or anything `read` takes.
        out_dir: A finished run folder.
        config: Probe, seed, confidence. Its budget and numbers of splits do not count. Default:
            `EvaluationConfig()`.
        recipe: What is predicted. Default: the run's own, which `merge` uses.
        probe: As for `evaluate`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: As for `evaluate`.
        engine: As for `evaluate`.

    Returns:
        The gain in balanced accuracy with an interval over the held-out images of the split, and
        the recall of the rare classes.

    Raises:
        ShardError: If the run is not finished.
        RunError: If the data is not what the run was made from.
        EvaluationError: If the data is too small to be split.
        EngineError: If the engine cannot be started, or a task ends its worker every time.
    """
    measuring = _measuring(data, out_dir, config, probe, device, progress, as_engine(engine))
    with measuring as (run, measured_by, result):
        prediction = measured_by.prediction(recipe or result.recipe, searched=result.searched)
        keep_prediction(run, prediction)
        publish(run, result, measured_by.data)
        return prediction


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
    job, data = job_of(data, out_dir)
    Manifest.load(out_dir)
    with RunFolder(out_dir, config=job, data=read_run(out_dir)["data"]) as run:
        publish(run, RunResult.load(run, job), data)
        return run.path / "report.html"


def recipe_of_run(out_dir: str | Path) -> Recipe:
    """The recipe that a finished run stands for.

    Args:
        out_dir: A finished run folder.

    Returns:
        The recipe.

    Raises:
        ShardError: If the run is not finished.
        RunError: If the folder is no run.
    """
    job = make_config(read_run(out_dir)["config"], where=f"{out_dir}/run.json", warn=False)
    return recipe_of(Manifest.load(out_dir), job)


@contextmanager
def _measuring(
    data: LabelledImages | Any,
    out_dir: str | Path,
    config: EvaluationConfig | None,
    probe: ProbeFactory | None,
    device: str | torch.device,
    progress: Progress | bool | None,
    engine: Engine | None,
) -> Iterator[tuple[RunFolder, RunEvaluation, RunResult]]:
    """A finished run, locked, with what measures it and what is known of it."""
    job, data = job_of(data, out_dir)
    Manifest.load(out_dir)  # before the folder is locked: there is something to evaluate
    described = read_run(out_dir)["data"]
    if "generator" in described:
        log.warning(
            "%s was drawn from a generator that came ready; the generators of the splits are "
            "trained by the configuration of this run",
            out_dir,
        )
    with shown(progress) as report, RunFolder(out_dir, config=job, data=described) as run:
        measured_by = RunEvaluation(
            run.path / "evaluation",
            data,
            job,
            config or EvaluationConfig(),
            probe=probe,
            device=resolve_device(device),
            progress=report,
            engine=engine,
        )
        yield run, measured_by, RunResult.load(run, job)


def job_of(
    data: LabelledImages | Any, out_dir: str | Path, *, pool: Any = None
) -> tuple[AugmentConfig, LabelledImages]:
    """The job of a run and its data.

    Args:
        data: The training split, or anything `read` takes.
        out_dir: The run folder.
        pool: Unlabelled images that the run was trained on as well; `data` has its own where it
            was read already.

    Returns:
        (configuration, training split).

    Raises:
        RunError: If it is other data.
        DataError: If the data cannot be read.
    """
    run = read_run(out_dir)
    job = make_config(run["config"], where=f"{out_dir}/run.json", warn=False)
    if not isinstance(data, LabelledImages):
        data = read_configured(
            data, job.data.model_dump(), seed=job.seed, pool=pool, progress=False
        )
    if data.fingerprint != run["data"]["fingerprint"]:
        raise RunError(
            f"{out_dir}: expected the training split that the run was made from (fingerprint "
            f"{run['data']['fingerprint'][:12]}), got {data.source!r} of fingerprint "
            f"{data.fingerprint[:12]}"
        )
    return job, data
