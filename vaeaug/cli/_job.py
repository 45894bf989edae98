"""Commands of the job: plan, train, generate, the whole of it, and whether it helps."""

import sys
from pathlib import Path
from typing import Any

import click

from vaeaug.cli._options import (
    DATA,
    configured,
    data_of,
    device_option,
    evaluated,
    evaluation_of,
    json_option,
    out_option,
    probe_of,
    request,
    resume_option,
    strategy_option,
    wanted_progress,
)
from vaeaug.cli.console import (
    print_document,
    print_gate,
    print_plan,
    print_result,
    reports_table,
)


@click.command()
@click.argument("data", type=DATA)
@out_option
@configured
@strategy_option
@device_option
@resume_option
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--search", is_flag=True, help="Search how to draw and use the samples, first.")
@click.option("--evaluate", is_flag=True, help="Measure whether they help, afterwards.")
@evaluated
@json_option
def augment(
    *,
    data: str,
    out: Path,
    device: str,
    resume: bool,
    dry_run: bool,
    search: bool,
    evaluate: bool,
    budget: float | None,
    splits: int | None,
    steps: int | None,
    min_effect: float | None,
    probe: str | None,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Train on DATA, draw, screen and write synthetic shards to OUT.

    DATA is a path or the built-in `digits`.
    """
    from vaeaug.job.pipeline import augment as run

    config, images = request(data, **configuration)
    if dry_run:
        print_plan(images, config, as_json)
        return
    workers = configuration["workers"]
    result = run(
        images,
        out,
        config,
        evaluation=evaluation_of(
            config.seed,
            workers,
            budget=budget,
            splits=splits,
            steps=steps,
            min_effect=min_effect,
        ),
        search_first=search,
        evaluate_after=evaluate,
        probe=probe_of(probe),
        device=device,
        resume=resume,
        progress=wanted_progress(),
    )
    sys.exit(print_result(result, as_json))


@click.command()
@click.argument("data", type=DATA)
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@evaluated
@click.option("--share", type=click.FloatRange(0, 1, max_open=True), help="Another share.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Of the splits and the classifiers. Default: the run's.",
)
@click.option(
    "--pool",
    type=DATA,
    metavar="UNLABELLED",
    help="Images without labels, if the run learned from them.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes. Default: the cores.")
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
    share: float | None,
    seed: int | None,
    pool: str | None,
    workers: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure whether the synthetic data of OUT helps on DATA, which it was made from.

    Trains classifiers with and without it on splits of DATA, each split with a generator of its
    own. The verdict goes into OUT's manifest and report; exit code 3: it does not help.
    """
    from vaeaug.job.finished import evaluate as run
    from vaeaug.job.finished import recipe_of_run
    from vaeaug.job.folder import read_run

    images = data_of(data, out, pool, workers)
    recipe = None if share is None else recipe_of_run(out).model_copy(update={"share": share})
    result = run(
        images,
        out,
        evaluation_of(
            read_run(out)["config"]["seed"] if seed is None else seed,
            workers,
            budget=budget,
            splits=splits,
            steps=steps,
            min_effect=min_effect,
        ),
        recipe=recipe,
        probe=probe_of(probe),
        device=device,
        progress=wanted_progress(),
    )
    sys.exit(print_gate(result, out, as_json))


@click.command()
@click.argument("data", type=DATA)
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--pool",
    type=DATA,
    metavar="UNLABELLED",
    help="Images without labels, if the run learned from them.",
)
def report(data: str, out: Path, pool: str | None) -> None:
    """Write report.html of OUT again; DATA is what the run was made from."""
    from vaeaug.job.finished import report as write

    click.echo(str(write(data_of(data, out, pool, None), out)))


@click.command()
@click.argument("data", type=DATA)
@configured
@strategy_option
@json_option
def plan(*, data: str, as_json: bool, **configuration: Any) -> None:
    """Print how many samples of each class would be made, and why."""
    config, images = request(data, **configuration)
    print_plan(images, config, as_json)


@click.command()
@click.argument("data", type=DATA)
@out_option
@configured
@strategy_option
@device_option
@resume_option
@json_option
def train(
    *, data: str, out: Path, device: str, resume: bool, as_json: bool, **configuration: Any
) -> None:
    """Train the generator only; it is saved in OUT/model."""
    from vaeaug.job.pipeline import train_only

    config, images = request(data, **configuration)
    model = train_only(
        images, out, config, device=device, resume=resume, progress=wanted_progress()
    )
    print_document({"model": str(model)}, f"generator: {model}", as_json)


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("data", type=DATA)
@out_option
@configured
@strategy_option
@device_option
@resume_option
@json_option
def generate(
    *,
    model: Path,
    data: str,
    out: Path,
    device: str,
    resume: bool,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Draw a dataset from a trained generator.

    MODEL is a generator or a run folder, DATA the images it was trained on: without them a copy of
    a training image could not be told.
    """
    from vaeaug.job.pipeline import generate as run

    config, images = request(data, **configuration)
    result = run(
        model, images, out, config, device=device, resume=resume, progress=wanted_progress()
    )
    sys.exit(print_result(result, as_json))


@click.command()
@click.argument("data", type=DATA)
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@configured
@device_option
@json_option
def screen(*, data: str, out: Path, device: str, as_json: bool, **configuration: Any) -> None:
    """Judge the finished shards in OUT again, by other thresholds; changes nothing."""
    from vaeaug.job.inspection import rescreen
    from vaeaug.training import resolve_device

    config, images = request(data, **configuration)
    reports = rescreen(images, out, config, device=resolve_device(device))
    document = {name: report.to_json() for name, report in reports.items()}
    print_document(document, reports_table(document), as_json)
