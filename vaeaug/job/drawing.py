"""Draw the samples of a run: diagnose the generator, then draw, screen and write each class."""

import logging
from collections.abc import Mapping
from typing import Any

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.engines import Engine
from vaeaug.evaluation import SearchResult
from vaeaug.files.json_text import sealed
from vaeaug.generator import Synthesizer, draws_divided
from vaeaug.job.class_tasks import forget_drawn, write_classes_on
from vaeaug.job.folder import RunError, RunFolder, run_versions
from vaeaug.job.result import RunResult, result_of
from vaeaug.job.writing import WrittenClasses, write_classes
from vaeaug.plan import Plan
from vaeaug.progress import Progress
from vaeaug.screening import Screener
from vaeaug.shards import ShardProvenance, publish_bytes
from vaeaug.stages import EarlierSamples, bytes_per_sample, new_screener, plan_of
from vaeaug.stages.diagnosis import diagnose

log = logging.getLogger("vaeaug")


def draw(
    run: RunFolder,
    generator: Synthesizer,
    data: LabelledImages,
    job: AugmentConfig,
    *,
    search: SearchResult | None = None,
    screener: Screener | None = None,
    plan: Plan | None = None,
    earlier: Mapping[int, EarlierSamples] | None = None,
    first_shard: int = 0,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Diagnose the generator, then draw, screen and write each class, by the recipe found.

    Args:
        run: The run folder.
        generator: The generator of the run.
        data: The training split.
        job: The job.
        search: The search that found a recipe, if one was made.
        screener: A screener that was fitted to this data by this job; None: fitted where needed.
        plan: How many samples of each class are wanted. Default: as the job says.
        earlier: By label, what earlier jobs drew; only the rest of the plan is drawn.
        first_shard: Number of the first shard.
        engine: Where classes are drawn. Default: here, one after another.
        progress: Reports on it; None is silent.

    Returns:
        The result, not published yet.

    Raises:
        RunError: If the samples of the recipe's sampler would be mislabelled.
        EngineError: If the engine cannot be started, or a class ends its worker every time.
        ShardError: If a shard cannot be written.
    """
    drawn_by = job if search is None or search.recipe.is_none else job.with_recipe(search.recipe)
    plan = plan_of(data, drawn_by) if plan is None else plan
    provenance = ShardProvenance(
        model_sha256=generator.sha256,
        config_sha256=drawn_by.sha256,
        data_fingerprint=data.fingerprint,
        run_seed=job.seed,
        vaeaug_version=run_versions()["vaeaug"],
        sample_rate=data.sample_rate,
    )
    written = WrittenClasses(run.path, data.class_names, provenance, first_shard=first_shard)
    diagnosed = run.has_diagnostics()
    if screener is None and (written.lacks(plan) or not diagnosed):
        screener = new_screener(data, drawn_by, device=generator.device, progress=progress)
    generator.attach(data)
    if not diagnosed:
        generator = _diagnosed(run, generator, data, drawn_by, screener)
    settings: dict[str, Any] = {"earlier": earlier, "progress": progress}
    if engine is None or engine.name == "local" or screener is None or not written.lacks(plan):
        with draws_divided(generator, run.model, data, drawn_by):
            write_classes(written, plan, generator, screener, drawn_by, **settings)
    else:
        size = bytes_per_sample(data, drawn_by)
        write_classes_on(
            engine, written, plan, generator, screener, drawn_by, sample_bytes=size, **settings
        )
    forget_drawn(run.path)
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
