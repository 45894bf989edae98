"""The command line: one command per verb. Results on stdout, progress and logs on stderr.

Exit codes: 0 done; 1 failed; 2 usage or configuration; 3 the evaluation found that the synthetic
data does not help; 4 partial, a class fell short of its target.
Interrupted: 130 (Ctrl-C) or 143 (SIGTERM), and the same command goes on.
"""

import logging
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import click

import vaeaug
from vaeaug.console import (
    print_document,
    print_gate,
    print_plan,
    print_result,
    progress_bars,
    reports_table,
)

if TYPE_CHECKING:
    from vaeaug.config import AugmentConfig, EvaluationConfig
    from vaeaug.data import LabelledImages
    from vaeaug.evaluation.probe import ProbeFactory
    from vaeaug.sampling import Synthesizer

FAILED, USAGE = 1, 2
Command = TypeVar("Command", bound=Callable[..., Any])


class _Group(click.Group):
    """Turns our errors into one line and an exit code; anything else is a bug and shows as one."""

    def invoke(self, ctx: click.Context) -> Any:
        from vaeaug.config import ConfigError
        from vaeaug.data import DataError
        from vaeaug.plan import PlanError

        signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except (ConfigError, PlanError) as error:
            _fail(str(error), USAGE)
        except DataError as error:
            _fail(str(error), FAILED)
        except KeyboardInterrupt as error:
            code = 143 if error.args else 130
            resumable = ctx.invoked_subcommand in ("augment", "train", "generate", "evaluate")
            # --no-resume would delete what there is.
            again = shlex.join(["vaeaug", *(a for a in sys.argv[1:] if a != "--no-resume")])
            hint = f"; nothing is lost, this goes on from here: {again}" if resumable else ""
            _fail(f"interrupted{hint}", code)
        except (RuntimeError, ValueError, OSError) as error:
            if not type(error).__module__.startswith("vaeaug.") and not isinstance(error, OSError):
                raise
            _fail(str(error), FAILED)


class _Stderr(logging.StreamHandler[Any]):
    """Writes to what stderr is at the moment, so that lines appear above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(vaeaug.__version__, prog_name="vaeaug")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
def main(quiet: bool) -> None:
    """Learn a conditional VAE per class, draw labelled samples, screen them, write HDF5 shards."""
    logging.basicConfig(
        level=logging.ERROR if quiet else logging.WARNING,
        format="%(message)s",
        handlers=[_Stderr()],
        force=True,
    )
    logging.getLogger("vaeaug").setLevel(logging.ERROR if quiet else logging.INFO)


def _configured(command: Command) -> Command:
    """The options that make up a configuration."""
    options = [
        click.option(
            "--config",
            "config_file",
            type=click.Path(dir_okay=False),
            metavar="FILE.yaml",
            help="Configuration.",
        ),
        click.option(
            "--set", "overrides", multiple=True, metavar="a.b=c", help="Set one configuration key."
        ),
        click.option(
            "--sampling-strategy",
            "strategy",
            metavar="S",
            help="imbalanced-learn's: a rule such as auto, a ratio, or YAML {class: total}.",
        ),
        click.option("--seed", type=click.IntRange(min=0), help="The run's seed."),
        click.option("--split", help="Split to read. Default: train."),
        click.option("--size", metavar="HxW", help="Resize the images, pixels."),
        click.option(
            "--pool",
            metavar="UNLABELLED",
            help="Images without labels that the generator may learn from.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            help="Processes that decode image files. Default: the cores, for large folders.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


_device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
_resume = click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on with the run in OUT, or delete it and start again.",
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
_out = click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Run folder."
)


def _evaluated(command: Command) -> Command:
    """The options of an evaluation."""
    options = [
        click.option(
            "--budget",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="Time for the evaluation; more gives more splits. Default: 240.",
        ),
        click.option("--splits", type=click.IntRange(min=2), help="Splits; overrides the budget."),
        click.option("--steps", type=click.IntRange(min=1), help="Steps of each classifier."),
        click.option(
            "--min-effect",
            type=click.FloatRange(0, 1, max_open=True),
            help="Smallest gain in balanced accuracy that counts. Default: 0.005.",
        ),
        click.option(
            "--probe",
            metavar="FILE.py:NAME",
            help="Your classifier: a function (image_shape, n_classes) -> torch Module.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@click.argument("data")
@_out
@_configured
@_device
@_resume
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--search", is_flag=True, help="Search how to draw and use the samples, first.")
@click.option("--evaluate", is_flag=True, help="Measure whether they help, afterwards.")
@_evaluated
@_json
def augment(
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
    from vaeaug.job import augment as run

    config, images = _request(data, **configuration)
    if dry_run:
        print_plan(images, config, as_json)
        return
    workers = configuration["workers"]
    with progress_bars() as progress:
        result = run(
            images,
            out,
            config,
            evaluation=_evaluation(config.seed, workers, budget, splits, steps, min_effect),
            search_first=search,
            evaluate_after=evaluate,
            probe=_probe(probe),
            device=device,
            resume=resume,
            progress=progress,
        )
    sys.exit(print_result(result, as_json))


@main.command()
@click.argument("data")
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_evaluated
@click.option("--share", type=click.FloatRange(0, 1, max_open=True), help="Another share.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Of the splits and the classifiers. Default: the run's.",
)
@click.option(
    "--pool", metavar="UNLABELLED", help="Images without labels, if the run learned from them."
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes. Default: the cores.")
@_device
@_json
def evaluate(
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
    from vaeaug.job import evaluate as run
    from vaeaug.job import recipe_of_run
    from vaeaug.run_folder import read_run

    images = _data_of(data, out, pool, workers)
    recipe = None if share is None else recipe_of_run(out).model_copy(update={"share": share})
    with progress_bars() as progress:
        result = run(
            images,
            out,
            _evaluation(
                read_run(out)["config"]["seed"] if seed is None else seed,
                workers,
                budget,
                splits,
                steps,
                min_effect,
            ),
            recipe=recipe,
            probe=_probe(probe),
            device=device,
            progress=progress,
        )
    sys.exit(print_gate(result, out, as_json))


@main.command()
@click.argument("data")
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--pool", metavar="UNLABELLED", help="Images without labels, if the run learned from them."
)
def report(data: str, out: Path, pool: str | None) -> None:
    """Write report.html of OUT again; DATA is what the run was made from."""
    from vaeaug.job import report as write

    click.echo(str(write(_data_of(data, out, pool, None), out)))


@main.command()
@click.argument("data")
@_configured
@_json
def plan(data: str, as_json: bool, **configuration: Any) -> None:
    """Print how many samples of each class would be made, and why."""
    config, images = _request(data, **configuration)
    print_plan(images, config, as_json)


@main.command()
@click.argument("data")
@_out
@_configured
@_device
@_resume
@_json
def train(
    data: str, out: Path, device: str, resume: bool, as_json: bool, **configuration: Any
) -> None:
    """Train the generator only; it is saved in OUT/model."""
    from vaeaug.job import train_only

    config, images = _request(data, **configuration)
    with progress_bars() as progress:
        model = train_only(images, out, config, device=device, resume=resume, progress=progress)
    print_document({"model": str(model)}, f"generator: {model}", as_json)


@main.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("data")
@_out
@_configured
@_device
@_resume
@_json
def generate(
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
    from vaeaug.job import generate as run

    config, images = _request(data, **configuration)
    with progress_bars() as progress:
        result = run(model, images, out, config, device=device, resume=resume, progress=progress)
    sys.exit(print_result(result, as_json))


@main.command()
@click.argument("data")
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_configured
@_device
@_json
def screen(data: str, out: Path, device: str, as_json: bool, **configuration: Any) -> None:
    """Judge the finished shards in OUT again, by other thresholds; changes nothing."""
    from vaeaug.inspection import rescreen
    from vaeaug.training import resolve_device

    config, images = _request(data, **configuration)
    reports = rescreen(images, out, config, device=resolve_device(device))
    document = {name: report.to_json() for name, report in reports.items()}
    print_document(document, reports_table(document), as_json)


@main.command()
@click.argument("real")
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--share",
    help="Synthetic part of every class, or `all`: every synthetic image once. Default: as the "
    "run's recipe says, 0.3 without a search.",
)
@click.option("--balance", is_flag=True, help="Repeat images until every class is as large.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@click.option("--workers", type=click.IntRange(min=0))
@_json
def merge(
    real: str,
    out: Path,
    to: Path,
    share: str | None,
    balance: bool,
    overwrite: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Write REAL and the synthetic images of OUT into one HDF5 file.

    REAL is read as the run in OUT read it.
    """
    import h5py

    from vaeaug.merging import write_merged

    images = _data_of(real, out, None, workers)
    path = write_merged(
        images,
        out,
        to,
        share=None if share is None else _share(share),
        balance="classes" if balance else None,
        overwrite=overwrite,
    )
    with h5py.File(path, "r") as file:
        is_synthetic = file["is_synthetic"][:]
    counts = {"real": int((~is_synthetic).sum()), "synthetic": int(is_synthetic.sum())}
    print_document(
        {"file": str(to), **counts},
        f"{to}: {counts['real']} real and {counts['synthetic']} synthetic images",
        as_json,
    )


@main.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_json
def verify(out: Path, as_json: bool) -> None:
    """Check every byte of a finished run; say which file is wrong and how."""
    from vaeaug.shards import verify as check

    report = check(out)
    click.echo(report.to_json() if as_json else str(report))
    if not report.ok:
        sys.exit(FAILED)


@main.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@_json
def inspect(path: Path, as_json: bool) -> None:
    """Describe a run folder, a generator or one shard."""
    from vaeaug.inspection import describe

    document = describe(path)
    text = "\n".join(f"{key}: {value}" for key, value in document.items())
    print_document(document, text, as_json)


@main.command("config")
@click.option("--schema", is_flag=True, help="The JSON Schema of a configuration file.")
@click.option(
    "--config", "config_file", type=click.Path(dir_okay=False), metavar="FILE.yaml", help="Checked."
)
@click.option("--set", "overrides", multiple=True, metavar="a.b=c", help="Set one key.")
def show_config(schema: bool, config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Print a configuration whole, with every default, as YAML; or the schema of one."""
    import json

    import yaml

    from vaeaug.config import json_schema, load_config

    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    document = load_config(config_file, overrides).to_json()
    click.echo(yaml.safe_dump(document, sort_keys=False), nl=False)


_generator = click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
_to = click.option("--to", required=True, type=click.Path(dir_okay=False, path_type=Path))


@main.command()
@_generator
@click.argument("data")
@_to
@_configured
@_device
@_json
def encode(
    model: Path, data: str, to: Path, device: str, as_json: bool, **configuration: Any
) -> None:
    """Compress DATA to latents, an HDF5 file, by the generator MODEL."""
    from vaeaug.applications import encode_to

    _, images = _request(data, **configuration)
    figures = encode_to(to, _loaded(model, device), images)
    loss = figures["reconstruction"]
    bits = figures["bits_per_value"]
    text = (
        f"{to}: {figures['n']} samples, {figures['stored_bits_per_value']:.2f} bits per value as "
        f"stored (original {figures['original_bits_per_value']})"
        + (f", {bits:.2f} by lossless coding with this model" if bits is not None else "")
        + f"; reconstruction: PSNR {loss['psnr']:.1f} dB, SSIM {loss['ssim']:.3f}"
    )
    print_document(figures, text, as_json)


@main.command()
@click.argument("latents", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_generator
@_to
@_device
@_json
def decode(latents: Path, model: Path, to: Path, device: str, as_json: bool) -> None:
    """Turn LATENTS, a file of `encode`, into an HDF5 file of images."""
    from vaeaug.applications import decode_from, write_images

    generator = _loaded(model, device)
    images, labels = decode_from(latents, generator)
    write_images(to, generator, images, labels)
    print_document({"file": str(to), "n": len(images)}, f"{to}: {len(images)} samples", as_json)


@main.command()
@_generator
@click.argument("data")
@_to
@_configured
@_device
@_json
def reconstruct(
    model: Path, data: str, to: Path, device: str, as_json: bool, **configuration: Any
) -> None:
    """Pass DATA through the generator MODEL and back, into an HDF5 file of images."""
    from vaeaug.applications import check_fits, likeness, write_images

    _, images = _request(data, **configuration)
    generator = _loaded(model, device)
    check_fits(generator, images)
    rebuilt = generator.reconstruct(images.images, images.labels)
    write_images(to, generator, rebuilt, images.labels)
    figures = vars(likeness(rebuilt, images.images, images.value_range))
    text = f"{to}: PSNR {figures['psnr']:.1f} dB, SSIM {figures['ssim']:.3f}"
    print_document({"file": str(to), "n": len(rebuilt), **figures}, text, as_json)


@main.command()
@_generator
@click.argument("data")
@_to
@_configured
@click.option(
    "--noise",
    type=click.FloatRange(min=0),
    help="DATA is clean: add noise of this standard deviation (fraction of the value range).",
)
@click.option("--use-labels", is_flag=True, help="Trust DATA's labels; else the likeliest is used.")
@_device
@_json
def denoise(
    model: Path,
    data: str,
    to: Path,
    noise: float | None,
    use_labels: bool,
    device: str,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Clean up the noisy images of DATA, into an HDF5 file of images.

    With --noise the clean images are known, and PSNR and SSIM are given before and after.
    """
    from vaeaug.applications import add_noise, check_fits, likeness, write_images

    config, images = _request(data, **configuration)
    generator = _loaded(model, device)
    check_fits(generator, images)
    noisy = images.images
    if noise is not None:
        noisy = add_noise(noisy, images.value_range, sigma=noise, seed=config.seed)
    labels = images.labels if use_labels else generator.likeliest_labels(noisy)
    cleaned = generator.denoise(noisy, labels)
    write_images(to, generator, cleaned, labels)
    document: dict[str, Any] = {"file": str(to), "n": len(cleaned)}
    text = f"{to}: {len(cleaned)} samples"
    if noise is not None:
        before = likeness(noisy, images.images, images.value_range)
        after = likeness(cleaned, images.images, images.value_range)
        document |= {"noisy": vars(before), "cleaned": vars(after)}
        text += (
            f"; PSNR {before.psnr:.1f} -> {after.psnr:.1f} dB, SSIM {before.ssim:.3f} -> "
            f"{after.ssim:.3f} (noisy -> cleaned)"
        )
    print_document(document, text, as_json)


@main.command()
@_generator
@_to
@click.option("--class", "names", multiple=True, metavar="NAME", help="Default: every class.")
@click.option("--units", default=8, show_default=True, type=click.IntRange(min=1, max=64))
@_device
def traverse(model: Path, to: Path, names: tuple[str, ...], units: int, device: str) -> None:
    """Draw what each latent of the generator MODEL does, into a PNG file."""
    from vaeaug.applications import write_traversal

    generator = _loaded(model, device)
    shown = names or [
        name for name, rows in zip(generator.class_names, generator.rows, strict=True) if len(rows)
    ]
    click.echo(str(write_traversal(to, generator, list(shown), n_units=units)))


@main.command()
@_generator
@click.option("--to", required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["npz", "webdataset", "imagefolder", "huggingface"]),
    help="Default: by the ending of --to, .npz or .tar; a folder needs it.",
)
@click.option("--real", metavar="DATA", help="Merge with these real images. Default: synthetic.")
@click.option("--share", help="With --real, as for `merge`.")
@click.option("--balance", is_flag=True, help="With --real, as for `merge`.")
@click.option("--overwrite", is_flag=True, help="Replace what an export left there.")
@click.option("--workers", type=click.IntRange(min=0))
@_json
def export(
    model: Path,
    to: Path,
    format_: Literal["npz", "webdataset", "imagefolder", "huggingface"] | None,
    real: str | None,
    share: str | None,
    balance: bool,
    overwrite: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Write the samples of the run MODEL for other programs, or its decoder (--to NAME.pt2).

    The decoder is a torch.export program. Samples go to an .npz file, WebDataset archives, a
    folder of PNG files by class, or a Hugging Face dataset.
    """
    from vaeaug.exporting import export_decoder
    from vaeaug.interchange import export_dataset

    if to.suffix == ".pt2":
        if format_ or real or share or balance:
            raise click.UsageError("--to NAME.pt2 writes the decoder: expected no other options")
        path = export_decoder(_loaded(model, "cpu"), to)
        print_document({"file": str(path)}, str(path), as_json)
        return
    written = export_dataset(
        model,
        to,
        format=format_,
        real=None if real is None else _data_of(real, model, None, workers),
        share=None if share is None else _share(share),
        balance="classes" if balance else None,
        overwrite=overwrite,
    )
    counts = {"n": written.n, "synthetic": written.n_synthetic}
    print_document(
        {"path": str(to), "format": written.format, **counts},
        f"{to}: {written.n} samples, {written.n_synthetic} of them synthetic ({written.format})",
        as_json,
    )


# -- Between the command line and the library ---------------------------------------------------


def _request(
    source: str, pool: str | None, workers: int | None, **configuration: Any
) -> tuple["AugmentConfig", "LabelledImages"]:
    """The configuration that the options make up, and the data it is for."""
    from vaeaug.job import read_data

    config = _config(**configuration)
    bar = sys.stderr.isatty()
    return config, read_data(source, config, pool=pool, workers=workers, progress=bar)


def _data_of(source: str, out: Path, pool: str | None, workers: int | None) -> "LabelledImages":
    """Data, read as the run in OUT read it."""
    from vaeaug.config import make_config
    from vaeaug.job import read_data
    from vaeaug.run_folder import read_run

    config = make_config(read_run(out)["config"], where=f"{out}/run.json")
    bar = sys.stderr.isatty()
    return read_data(source, config, pool=pool, workers=workers, progress=bar)


def _evaluation(
    seed: int,
    workers: int | None,
    budget: float | None,
    splits: int | None,
    steps: int | None,
    min_effect: float | None,
) -> "EvaluationConfig":
    import os

    from vaeaug.config import EvaluationConfig

    given: dict[str, Any] = {"budget": budget, "steps": steps, "min_effect": min_effect}
    if splits is not None:
        given |= {"min_splits": splits, "max_splits": splits}
    keys = {name: value for name, value in given.items() if value is not None}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return EvaluationConfig(seed=seed, workers=workers or cores or 1, **keys)


def _probe(text: str | None) -> "ProbeFactory | None":
    """The user's classifier, from a file of theirs."""
    if text is None:
        return None
    from vaeaug.evaluation import FileProbe

    path, colon, name = text.rpartition(":")
    if not colon:
        raise click.UsageError(f"--probe: expected FILE.py:NAME, got {text!r}")
    return FileProbe(path, name)


def _loaded(model: Path, device: str) -> "Synthesizer":
    from vaeaug.sampling import Synthesizer
    from vaeaug.training import resolve_device

    return Synthesizer.load(model).to(resolve_device(device))


def _config(
    config_file: str | None,
    overrides: tuple[str, ...],
    strategy: str | None,
    seed: int | None,
    split: str | None,
    size: str | None,
) -> "AugmentConfig":
    from vaeaug.config import load_config

    keys: dict[str, Any] = {"seed": seed, "data.split": split}
    if strategy is not None:
        overrides = (*overrides, f"plan.sampling_strategy={strategy}")
    if size is not None:
        keys["data.size"] = _size(size)
    return load_config(config_file, overrides, **keys)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and (width.isdigit() or not width)):
        raise click.UsageError(f"--size: expected HxW such as 32x32, got {text!r}")
    return int(height), int(width or height)


def _share(text: str) -> "float | Literal['all']":
    if text == "all":
        return "all"
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"--share: expected a number or `all`, got {text!r}") from None


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt("SIGTERM")


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"vaeaug: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
