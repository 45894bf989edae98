"""Commands of a job: plan, train, generate, augment, evaluate, report and screen."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaeaug.cli._options import (
    DATA,
    RUN,
    RunType,
    complete_key,
    configured,
    data_of,
    device_option,
    engine_of,
    evaluated,
    evaluation_of,
    json_option,
    on_engine,
    out_option,
    pool_option,
    probe_of,
    progress_enabled,
    publish_option,
    pushed,
    refuse_with_quick,
    request,
    resume_option,
    seeds_of,
    strategy_option,
    timing_option,
    told_in_advance,
    told_of_draws,
    told_of_evaluation,
    track_option,
    values_of,
)
from vaeaug.cli.console import (
    print_document,
    print_gate,
    print_plan,
    print_prediction,
    print_result,
    print_sweep,
    reports_table,
)

if TYPE_CHECKING:
    from vaeaug.progress import Progress


@click.command()
@click.argument("data", type=DATA)
@out_option
@configured
@strategy_option
@device_option
@resume_option
@track_option
@timing_option
@click.option(
    "--add",
    is_flag=True,
    help="Add to the finished run in OUT what DATA or these options ask for beyond it.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and its time, and stop.")
@click.option(
    "--search", is_flag=True, help="First search for the best way to draw and use the samples."
)
@click.option("--evaluate", is_flag=True, help="Afterwards measure whether the samples help.")
@evaluated
@on_engine
@publish_option
@json_option
def augment(
    *,
    data: str,
    out: Path,
    device: str,
    resume: bool,
    callbacks: "list[Progress]",
    add: bool,
    timing: bool,
    dry_run: bool,
    search: bool,
    evaluate: bool,
    budget: float | None,
    splits: int | None,
    steps: int | None,
    min_effect: float | None,
    probe: str | None,
    engine: str | None,
    engine_options: dict[str, Any],
    publish: str | None,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Train on DATA, draw, screen and write synthetic shards to OUT.

    DATA is a path or the built-in `digits`.
    """
    from vaeaug.job.pipeline import augment as run

    on = engine_of(engine, configuration["workers"], engine_options)
    config, images = request(data, beside=out, run=out if add else None, engine=on, **configuration)
    if dry_run:
        print_plan(images, config, as_json, device if timing else None)
        return
    # What is added to a run is seldom the whole job again.
    told = timing and not add
    expected = told_in_advance(images, config, out, device, engine=on) if told else None
    settings = evaluation_of(
        config.seed,
        configuration["workers"],
        budget=budget,
        splits=splits,
        steps=steps,
        min_effect=min_effect,
    )
    classifier = probe_of(probe)
    if expected is not None:
        for is_asked, keys in ((search, {"search": True}), (evaluate, {})):
            if is_asked:
                told_of_evaluation(images, config, settings, device, probe=classifier, **keys)
    result = run(
        images,
        out,
        config,
        evaluation=settings,
        search_first=search,
        evaluate_after=evaluate,
        add=add,
        probe=classifier,
        device=device,
        resume=resume,
        progress=progress_enabled(),
        callbacks=callbacks,
        expected=None if expected is None else expected.expected,
        engine=on,
    )
    if publish is not None:
        pushed(out, publish)
    sys.exit(print_result(result, as_json))


@click.command()
@click.argument("data", type=DATA)
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@evaluated
@click.option(
    "--quick",
    is_flag=True,
    help="Predict the gain from one split, in minutes; this is no verdict.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, max_open=True),
    help="Synthetic share. Default: the run's.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Seed of the splits and classifiers. Default: the run's.",
)
@pool_option
@timing_option
@click.option(
    "--workers", type=click.IntRange(min=1), help="Number of processes. Default: one per core."
)
@on_engine
@device_option
@json_option
def evaluate(
    *,
    data: str,
    out: Path,
    budget: float | None,
    splits: int | None,
    steps: int | None,
    min_effect: float | None,
    probe: str | None,
    quick: bool,
    share: float | None,
    seed: int | None,
    pool: str | None,
    timing: bool,
    workers: int | None,
    engine: str | None,
    engine_options: dict[str, Any],
    device: str,
    as_json: bool,
) -> None:
    """Measure whether the synthetic data of OUT helps on DATA, from which it was made.

    Trains classifiers with and without synthetic data on splits of DATA, with a separate generator
    for each split. The verdict is stored in OUT's manifest and report. Exit code 3: it does not
    help.

    With --quick the first split alone is measured; a later evaluation with the same options
    reuses it.
    """
    from vaeaug.config import make_config
    from vaeaug.job.finished import evaluate as run
    from vaeaug.job.finished import predict_gain, recipe_of_run
    from vaeaug.job.folder import read_run
    from vaeaug.shards import Manifest

    if quick:
        refuse_with_quick(budget=budget, splits=splits, min_effect=min_effect)
    on = engine_of(engine, workers, engine_options)
    images = data_of(data, out, pool, workers, on)
    recipe = None if share is None else recipe_of_run(out).model_copy(update={"share": share})
    run_of_out, classifier = read_run(out), probe_of(probe)
    config = evaluation_of(
        run_of_out["config"]["seed"] if seed is None else seed,
        workers,
        budget=budget,
        splits=splits,
        steps=steps,
        min_effect=min_effect,
    )
    is_of_run = run_of_out["data"]["fingerprint"] == images.fingerprint  # else it is refused
    if timing and is_of_run and (quick or not Manifest.load(out).evaluated):  # else it is read
        job = make_config(run_of_out["config"], where=f"{out}/run.json", warn=False)
        told_of_evaluation(images, job, config, device, quick=quick, probe=classifier)
    settings: dict[str, Any] = {
        "recipe": recipe,
        "probe": classifier,
        "device": device,
        "progress": progress_enabled(),
        "engine": on,
    }
    if quick:
        prediction = predict_gain(images, out, config, **settings)
        print_prediction(prediction, data, out, as_json)
        return
    sys.exit(print_gate(run(images, out, config, **settings), out, as_json))


@click.command()
@click.argument("data", type=DATA)
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@pool_option
def report(data: str, out: Path, pool: str | None) -> None:
    """Write report.html of OUT again; DATA is the data of the run."""
    from vaeaug.job.finished import report as write

    click.echo(str(write(data_of(data, out, pool, None), out)))


@click.command()
@click.argument("data", type=DATA)
@configured
@strategy_option
@device_option
@timing_option
@json_option
def plan(*, data: str, device: str, timing: bool, as_json: bool, **configuration: Any) -> None:
    """Print how many samples of each class would be generated, why, and how long it takes."""
    config, images = request(data, **configuration)
    print_plan(images, config, as_json, device if timing else None)


@click.command()
@click.argument("data", type=DATA)
@out_option
@configured
@strategy_option
@device_option
@resume_option
@track_option
@timing_option
@json_option
def train(
    *,
    data: str,
    out: Path,
    device: str,
    resume: bool,
    callbacks: "list[Progress]",
    timing: bool,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Train only the generator, and save it in OUT/model."""
    from vaeaug.job.pipeline import train_only

    config, images = request(data, beside=out, **configuration)
    expected = told_in_advance(images, config, out, device, training=True) if timing else None
    model = train_only(
        images,
        out,
        config,
        device=device,
        resume=resume,
        progress=progress_enabled(),
        callbacks=callbacks,
        expected=None if expected is None else expected.expected,
    )
    print_document({"model": str(model)}, f"generator: {model}", as_json)


@click.command()
@click.argument("data", type=DATA)
@out_option
@click.option(
    "--vary",
    "varied",
    multiple=True,
    required=True,
    metavar="a.b=c,d,...",
    shell_complete=complete_key,
    help="A configuration key and the values it takes; may be repeated: every combination.",
)
@click.option(
    "--seeds", metavar="N,N,...", help="Seeds of each combination. Default: the run's seed."
)
@configured
@device_option
@json_option
def sweep(
    *,
    data: str,
    out: Path,
    varied: tuple[str, ...],
    seeds: str | None,
    device: str,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Train a generator for every combination of values, and compare rate and distortion.

    The same command goes on where it stopped.
    """
    from vaeaug.job.sweep import sweep as run

    keys = dict(values_of(text, "--vary") for text in varied)
    config, images = request(data, beside=out, **configuration)
    points = run(
        images,
        out,
        keys,
        config,
        seeds=None if seeds is None else seeds_of(seeds),
        device=device,
        progress=progress_enabled(),
    )
    print_sweep(points, out, as_json)


@click.command()
@click.argument("model", type=RunType(("model/", "run.json")))
@click.argument("data", type=DATA)
@out_option
@configured
@strategy_option
@device_option
@resume_option
@track_option
@on_engine
@publish_option
@timing_option
@json_option
def generate(
    *,
    model: Path,
    data: str,
    out: Path,
    device: str,
    resume: bool,
    callbacks: "list[Progress]",
    engine: str | None,
    engine_options: dict[str, Any],
    publish: str | None,
    timing: bool,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Draw a dataset from a trained generator.

    MODEL is a generator or a run folder, and DATA the images that it was trained on. They are
    needed to detect copies of training images.
    """
    from vaeaug.job.pipeline import generate as run

    on = engine_of(engine, configuration["workers"], engine_options)
    config, images = request(data, beside=out, run=model, engine=on, **configuration)
    expected = told_of_draws(model, images, config, out, device, engine=on) if timing else None
    result = run(
        model,
        images,
        out,
        config,
        device=device,
        resume=resume,
        progress=progress_enabled(),
        callbacks=callbacks,
        engine=on,
        expected=None if expected is None else expected.expected,
    )
    if publish is not None:
        pushed(out, publish)
    sys.exit(print_result(result, as_json))


@click.command()
@click.argument("data", type=DATA)
@click.argument("out", type=RUN)
@configured
@device_option
@json_option
def screen(*, data: str, out: Path, device: str, as_json: bool, **configuration: Any) -> None:
    """Screen the finished shards in OUT again with other thresholds, without changing them."""
    from vaeaug.job.inspection import rescreen
    from vaeaug.training import resolve_device

    config, images = request(data, beside=out, run=out, **configuration)
    reports = rescreen(images, out, config, device=resolve_device(device))
    document = {name: report.to_json() for name, report in reports.items()}
    print_document(document, reports_table(document), as_json)
