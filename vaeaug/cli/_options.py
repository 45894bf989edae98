"""Options that commands share, and what they are turned into: configuration, data, generator."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from vaeaug.config import AugmentConfig, EvaluationConfig
    from vaeaug.data import LabelledImages
    from vaeaug.evaluation import ProbeFactory
    from vaeaug.generator import Synthesizer
    from vaeaug.merging import Balance

Command = TypeVar("Command", bound=Callable[..., Any])


class DataType(click.ParamType):
    """A path, or the name of built-in data."""

    name = "data"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As it is: the reader says what is wrong with it."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Files and folders, and what is built in."""
        built_in = [CompletionItem("digits")] if "digits".startswith(incomplete) else []
        return [*built_in, CompletionItem(incomplete, type="file")]


DATA = DataType()


def configured(command: Command) -> Command:
    """The options that make up a configuration."""
    options = [
        click.option(
            "--config",
            "config_file",
            type=click.Path(dir_okay=False),
            metavar="FILE.yaml",
            help="Configuration file.",
        ),
        click.option(
            "--set", "overrides", multiple=True, metavar="a.b=c", help="Set one configuration key."
        ),
        click.option("--seed", type=click.IntRange(min=0), help="Seed of the run."),
        click.option("--split", help="Split to read. Default: train."),
        click.option(
            "--size",
            metavar="HxW",
            help="Resize images to this many pixels; cut sounds to samples.",
        ),
        click.option(
            "--resize",
            type=click.Choice(["crop", "pad", "stretch"]),
            help="With --size and another aspect ratio: crop (default), pad or stretch.",
        ),
        click.option(
            "--value-range",
            metavar="LOW,HIGH",
            help="Lowest and highest value that DATA can have. Default: from its type and values.",
        ),
        click.option(
            "--mode",
            type=click.Choice(["RGB", "L"]),
            help="Convert all images to colour or grayscale.",
        ),
        click.option(
            "--on-error",
            type=click.Choice(["raise", "skip"]),
            help="Damaged files: stop and list all (default), or skip them with a note.",
        ),
        click.option(
            "--pool",
            type=DATA,
            metavar="UNLABELLED",
            help="Images without labels that the generator may learn from.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            help="Processes that decode image files. Default: one per core, for large folders.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


# Of the verbs whose plan it decides.
strategy_option = click.option(
    "--sampling-strategy",
    "strategy",
    metavar="S",
    help="As in imbalanced-learn: a rule such as auto, a ratio, or YAML {class: total}.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where networks run; auto takes a GPU where there is one.",
)
resume_option = click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Resume the run in OUT, or delete it and start again.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
out_option = click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Run folder."
)


def evaluated(command: Command) -> Command:
    """The options of an evaluation."""
    options = [
        click.option(
            "--budget",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="Time for the evaluation; more gives more splits. Default: 240.",
        ),
        click.option(
            "--splits", type=click.IntRange(min=2), help="Number of splits; overrides the budget."
        ),
        click.option(
            "--steps", type=click.IntRange(min=1), help="Training steps of each classifier."
        ),
        click.option(
            "--min-effect",
            type=click.FloatRange(0, 1, max_open=True),
            help="Smallest gain in balanced accuracy that counts. Default: 0.005.",
        ),
        click.option(
            "--probe",
            metavar="FILE.py:NAME",
            help="Your classifier: a function (image_shape, n_classes) -> torch Module in a Python "
            "file, which is run with all your rights.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


generator_argument = click.argument(
    "model", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
to_option = click.option(
    "--to",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that is written.",
)
workers_option = click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that decode image files."
)


def wanted_progress() -> bool:
    """Whether to say how far the work is: not with --quiet."""
    return logging.getLogger("vaeaug").isEnabledFor(logging.INFO)


def request(
    source: str, pool: str | None, workers: int | None, **configuration: Any
) -> tuple["AugmentConfig", "LabelledImages"]:
    """The configuration that the options make up, and the data it is for."""
    from vaeaug.data import read_configured

    config = config_of(**configuration)
    return config, read_configured(
        source,
        config.data.model_dump(),
        seed=config.seed,
        pool=pool,
        workers=workers,
        progress=wanted_progress(),
    )


def data_of(source: str, out: Path, pool: str | None, workers: int | None) -> "LabelledImages":
    """Data, read as the run in OUT read it."""
    from vaeaug.config import make_config
    from vaeaug.data import read_configured
    from vaeaug.job.folder import read_run

    config = make_config(read_run(out)["config"], where=f"{out}/run.json", warn=False)
    return read_configured(
        source,
        config.data.model_dump(),
        seed=config.seed,
        pool=pool,
        workers=workers,
        progress=wanted_progress(),
    )


def evaluation_of(
    seed: int,
    workers: int | None,
    *,
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


def probe_of(text: str | None) -> "ProbeFactory | None":
    """The user's classifier, from a file of theirs."""
    if text is None:
        return None
    from vaeaug.evaluation import FileProbe

    path, colon, name = text.rpartition(":")
    if not colon:
        raise click.UsageError(f"--probe: expected FILE.py:NAME, got {text!r}")
    return FileProbe(path, name)


def loaded(model: Path, device: str) -> "Synthesizer":
    from vaeaug.generator import Synthesizer
    from vaeaug.training import resolve_device

    return Synthesizer.load(model).to(resolve_device(device))


def config_of(
    config_file: str | None,
    overrides: tuple[str, ...],
    *,
    strategy: str | None = None,
    seed: int | None,
    split: str | None,
    size: str | None,
    resize: str | None,
    value_range: str | None,
    mode: str | None,
    on_error: str | None,
) -> "AugmentConfig":
    from vaeaug.config import load_config

    keys: dict[str, Any] = {
        "seed": seed,
        "data.split": split,
        "data.resize": resize,
        "data.mode": mode,
        "data.on_error": on_error,
    }
    if strategy is not None:
        overrides = (*overrides, f"plan.sampling_strategy={strategy}")
    if size is not None:
        keys["data.size"] = size_of(size)
    if value_range is not None:
        keys["data.value_range"] = range_of(value_range)
    return load_config(config_file, overrides, **keys)


def size_of(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and (width.isdigit() or not width)):
        raise click.UsageError(f"--size: expected HxW such as 32x32, got {text!r}")
    return int(height), int(width or height)


def range_of(text: str) -> tuple[float, float]:
    parts = text.split(",")
    try:
        low, high = map(float, parts)
    except ValueError:
        raise click.UsageError(
            f"--value-range: expected LOW,HIGH such as 0,4095, got {text!r}"
        ) from None
    return low, high


def share_of(text: str) -> "float | Literal['all']":
    if text == "all":
        return "all"
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"--share: expected a number or `all`, got {text!r}") from None


def balance_of(balance: bool | None) -> "Balance":
    """What `merge` takes for the flag ``--balance/--no-balance``."""
    if balance is None:
        return "plan"
    return "classes" if balance else None
