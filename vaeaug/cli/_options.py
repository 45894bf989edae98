"""Options that commands share, and their conversion to configuration, data and generator."""

import functools
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem

from vaeaug.cli.console import timed_job, waiting

if TYPE_CHECKING:
    from vaeaug.config import AugmentConfig, EvaluationConfig
    from vaeaug.data import LabelledImages
    from vaeaug.data.request import Cache
    from vaeaug.engines import Engine
    from vaeaug.evaluation import ProbeFactory
    from vaeaug.generator import Synthesizer
    from vaeaug.merging import Balance
    from vaeaug.shards import Pushed
    from vaeaug.stages import JobTime

Command = TypeVar("Command", bound=Callable[..., Any])


class DataType(click.ParamType):
    """A path, or the name of built-in data."""

    name = "data"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value unchanged; the reader checks it."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete files, folders and the names of built-in data."""
        built_in = [CompletionItem("digits")] if "digits".startswith(incomplete) else []
        return [*built_in, CompletionItem(incomplete, type="file")]


DATA = DataType()


def complete_key(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the keys of a configuration; shells that can show what each one means.

    Args:
        ctx: The context of the command.
        parameter: The option.
        incomplete: What is typed of it.

    Returns:
        The keys that begin so.
    """
    from vaeaug.config import known_keys

    return [
        CompletionItem(f"{key}=", help=meaning)
        for key, meaning in known_keys().items()
        if key.startswith(incomplete)
    ]


class RunType(click.ParamType):
    """A run folder; or the address of a run in an object store, which is copied to this machine.

    For commands that change nothing in it.

    Args:
        only: Beginnings of the names of files that are needed. None: all.
        is_copied: False gives the address itself, as text.
        file_okay: Whether a file will do.
    """

    name = "run"

    def __init__(
        self,
        only: tuple[str, ...] | None = None,
        *,
        is_copied: bool = True,
        file_okay: bool = False,
    ) -> None:
        self._only, self._is_copied = only, is_copied
        self._folder = click.Path(exists=True, file_okay=file_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the folder."""
        if "://" in str(value):
            from vaeaug.remote import is_url
            from vaeaug.shards import fetch

            if is_url(value):
                return fetch(value, only=self._only) if self._is_copied else value
        return self._folder.convert(value, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete files and folders."""
        return [CompletionItem(incomplete, type="file")]


RUN = RunType()


# Key of --codec in the context of a command.
_CODEC = "vaeaug.codec"


def _with_codec(command: Command) -> Command:
    """Add --codec once; `config_of` and `loaded` look it up."""
    if any(parameter.name == "codec" for parameter in getattr(command, "__click_params__", ())):
        return command
    return click.option(
        "--codec",
        metavar="FILE.py:NAME|FOLDER",
        expose_value=False,
        callback=lambda context, _, value: context.meta.update({_CODEC: value}),
        help="Frozen autoencoder of images in whose latents the generator works.",
    )(command)


def _codec() -> str | None:
    """The value of --codec of the running command."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_CODEC)


def configured(command: Command) -> Command:
    """Add the options that make up a configuration.

    Args:
        command: The command.

    Returns:
        The command with these options.
    """
    options = [
        click.option(
            "--config",
            "config_file",
            type=click.Path(dir_okay=False),
            metavar="FILE.yaml",
            help="Configuration file.",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="a.b=c",
            shell_complete=complete_key,
            help="Set one configuration key.",
        ),
        click.option("--seed", type=click.IntRange(min=0), help="Seed of the run."),
        click.option(
            "--init",
            metavar="RUN",
            help="Start training from the generator of a run on similar data; classes may differ.",
        ),
        click.option("--split", help="Split to read. Default: train."),
        click.option(
            "--size",
            metavar="HxW",
            help="Resize images to this many pixels; cut audio to this many samples.",
        ),
        click.option(
            "--frames",
            type=click.IntRange(min=1),
            help="Read this many frames of each video or animated GIF, as --resize says.",
        ),
        click.option(
            "--resize",
            type=click.Choice(["crop", "pad", "stretch"]),
            help="With --size and a different aspect ratio: crop (default), pad or stretch.",
        ),
        click.option(
            "--value-range",
            metavar="LOW,HIGH",
            help="Lowest and highest possible value of DATA. Default: from its type and values.",
        ),
        click.option(
            "--mode",
            type=click.Choice(["RGB", "L"]),
            help="Convert all images to colour or grayscale.",
        ),
        click.option(
            "--sample-rate",
            type=click.IntRange(min=1, max=1_000_000),
            metavar="HZ",
            help="Resample audio files to this rate.",
        ),
        click.option(
            "--front-end",
            type=click.Choice(["stft"]),
            help="Learn and judge sounds by their spectrograms.",
        ),
        click.option(
            "--on-error",
            type=click.Choice(["raise", "skip"]),
            help="Damaged files: stop and list them all (default), or skip them with a note.",
        ),
        click.option(
            "--pool",
            type=DATA,
            metavar="UNLABELLED",
            help="Unlabelled images that the generator is trained on as well.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            help="Processes that decode image files, train for --search and --evaluate, and draw "
            "with --engine process. Default: one per core.",
        ),
        click.option(
            "--cache",
            envvar="VAEAUG_CACHE",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Keep decoded files in DIR for the next command. Default: beside OUT, if they are "
            "more than memory has room for.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return _with_codec(command)


# For commands that make a plan.
strategy_option = click.option(
    "--sampling-strategy",
    "strategy",
    metavar="S",
    help="As in imbalanced-learn: a rule such as auto, a ratio, or YAML {class: total}.",
)


class _Device(click.ParamType):
    """A device by name; whether there is one like it is found where torch is loaded."""

    name = "device"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "[auto|cpu|cuda|cuda:N]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch("auto|cpu|cuda(:[0-9]+)?", value):
            self.fail(f"expected auto, cpu, cuda or cuda:N (a number), got {value!r}", param, ctx)
        return value


device_option = click.option(
    "--device",
    type=_Device(),
    default="auto",
    show_default=True,
    help="Device of the networks; auto uses a GPU if there is one.",
)
resume_option = click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Resume the run in OUT, or delete it and start again.",
)
timing_option = click.option(
    "--timing/--no-timing",
    default=True,
    envvar="VAEAUG_TIMING",
    help="Tell from a few steps how long it will take. Default: yes.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
out_option = click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Run folder."
)


def evaluated(command: Command) -> Command:
    """Add the options of an evaluation.

    Args:
        command: The command.

    Returns:
        The command with these options.
    """
    options = [
        click.option(
            "--budget",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="Time for the evaluation; more time allows more splits. Default: 240.",
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


def pushed(out: Path, url: str) -> "Pushed":
    """Send a finished run to an object store, with progress on a terminal.

    Args:
        out: The run folder.
        url: Where to.

    Returns:
        What was sent.
    """
    from vaeaug.progress import shown
    from vaeaug.shards import push

    with shown(progress_enabled()) as report:
        return push(out, url, progress=report)


def refuse_with_quick(**options: float | None) -> None:
    """Refuse options of the verdict where --quick asks for a prediction.

    Args:
        **options: Their values by parameter name; None: not given.

    Raises:
        UsageError: If one was given.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise click.UsageError(
            f"--quick: expected none of the options of a verdict, which one split cannot give, got "
            f"{', '.join(given)}; leave out --quick for a verdict"
        )


def generator_argument(command: Command) -> Command:
    """Add the argument MODEL, the folder of a generator or a run.

    Args:
        command: The command.

    Returns:
        The command with the argument.
    """
    return click.argument("model", type=RunType(("model/", "run.json")))(_with_codec(command))


def run_argument(command: Command) -> Command:
    """Add the argument MODEL where the samples of the run are needed too.

    Args:
        command: The command.

    Returns:
        The command with the argument.
    """
    return click.argument("model", type=RUN)(_with_codec(command))


publish_option = click.option(
    "--publish",
    metavar="URL",
    help="Afterwards send the run to an object store, as `push` does.",
)


def on_engine(command: Command) -> Command:
    """Add the options of an engine; the command gets ``engine`` and ``engine_options``.

    Args:
        command: The command.

    Returns:
        The command with these options.
    """

    @functools.wraps(command)
    def with_options(
        *args: Any,
        address: str | None,
        task_cpus: float | None,
        task_gpus: float | None,
        **values: Any,
    ) -> Any:
        options = {"address": address, "cpus": task_cpus, "gpus": task_gpus}
        return command(*args, engine_options=options, **values)

    options = [
        click.option(
            "--engine",
            type=click.Choice(["local", "process", "ray"]),
            help="Where classes are drawn and evaluations train: in this process, in --workers "
            "processes, or on Ray. It changes no byte. Default: here, and processes that train.",
        ),
        click.option(
            "--address",
            metavar="ADDRESS",
            help="Of the Ray cluster, such as auto or ray://host:10001. Default: Ray is started "
            "here.",
        ),
        click.option(
            "--task-cpus",
            type=click.FloatRange(min=0, min_open=True),
            metavar="N",
            help="Cores of the Ray cluster that a task takes. Default: 1.",
        ),
        click.option(
            "--task-gpus",
            type=click.FloatRange(min=0),
            metavar="N",
            help="GPUs of the Ray cluster that a task takes, such as 0.25. Default: 0.",
        ),
    ]
    wrapped: Any = with_options
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def engine_of(name: str | None, workers: int | None, options: Mapping[str, Any]) -> "Engine | None":
    """Build the engine from the options of `on_engine`.

    Args:
        name: Its name; None: each part of the job has its own default.
        workers: Tasks at once.
        options: Address, cores and GPUs; None where they were not given.

    Returns:
        The engine; None where none was named.

    Raises:
        UsageError: If the options do not go together.
    """
    from vaeaug.engines import Engine, EngineError

    given = {key: value for key, value in options.items() if value is not None}
    if name is None and not given:
        return None
    try:
        return Engine(name or "local", workers=workers or None, **given)
    except EngineError as error:
        raise click.UsageError(str(error)) from None


to_option = click.option(
    "--to",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write.",
)
pool_option = click.option(
    "--pool",
    type=DATA,
    metavar="UNLABELLED",
    help="Unlabelled images, if the run was trained on them.",
)
workers_option = click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that decode image files."
)


def _trackers(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> list[Any]:
    if not texts:
        return []
    from vaeaug.integrations.tracking import tracker

    try:
        return [tracker(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


track_option = click.option(
    "--track",
    "callbacks",
    multiple=True,
    metavar="NAME:WHERE",
    callback=_trackers,
    help="Write metrics to tensorboard:FOLDER, mlflow:URI or wandb:PROJECT.",
)


def progress_enabled() -> bool:
    """Check whether progress is shown, which --quiet disables.

    Returns:
        Whether it is.
    """
    return logging.getLogger("vaeaug").isEnabledFor(logging.INFO)


def told_in_advance(
    data: "LabelledImages",
    config: "AugmentConfig",
    out: Path,
    device: str,
    *,
    training: bool = False,
    engine: "Engine | None" = None,
) -> "JobTime | None":
    """Log what a job will cost, before it begins.

    Args:
        data: The training split.
        config: The job.
        out: The run folder; nothing is said of a run that is finished.
        device: Where it will run.
        training: Whether the generator alone is trained.
        engine: Where classes are drawn.

    Returns:
        What it will cost; None if it is not told.
    """
    log = logging.getLogger("vaeaug")
    if (out / "manifest.json").exists() or not log.isEnabledFor(logging.INFO):
        return None
    expected = timed_job(data, config, device)
    expected = expected.training_only() if training else _side_by_side(expected, data, engine)
    log.info("%s", expected)
    return expected


def _side_by_side(
    expected: "JobTime", data: "LabelledImages", engine: "Engine | None"
) -> "JobTime":
    if engine is None or not (engine.name == "process" or engine.workers):
        return expected
    return expected.drawn_by(min(engine.at_once, data.n_classes))


def told_of_draws(
    model: Path,
    data: "LabelledImages",
    config: "AugmentConfig",
    out: Path,
    device: str,
    *,
    engine: "Engine | None" = None,
) -> "JobTime | None":
    """Log what drawing a dataset from a generator will cost, before it begins.

    Args:
        model: Folder of the generator, or a run folder.
        data: The training split.
        config: The job.
        out: The run folder; nothing is said of a run that is finished.
        device: Where it will run.
        engine: Where classes are drawn.

    Returns:
        What it will cost; None if it is not told.

    Raises:
        SamplingError: If the generator cannot be read.
    """
    from vaeaug.stages import time_draws

    log = logging.getLogger("vaeaug")
    if (out / "manifest.json").exists() or not log.isEnabledFor(logging.INFO):
        return None
    generator = loaded(model, device)
    if generator.data_fingerprint != data.fingerprint:
        return None  # that is refused
    with waiting("timing a few draws"):
        expected = time_draws(generator, data, config, device=device)
    expected = _side_by_side(expected, data, engine)
    log.info("%s", expected)
    return expected


def told_of_evaluation(
    data: "LabelledImages",
    job: "AugmentConfig",
    config: "EvaluationConfig",
    device: str,
    **keys: Any,
) -> None:
    """Log what an evaluation or a search will cost, before it begins.

    Args:
        data: The training split.
        job: The job.
        config: Settings of the evaluation.
        device: Where it will run.
        **keys: What else `time_evaluation` takes.
    """
    from vaeaug.job.timing import time_evaluation

    log = logging.getLogger("vaeaug")
    if log.isEnabledFor(logging.INFO):
        with waiting("timing a few steps"):
            expected = time_evaluation(data, job, config, device=device, **keys)
        log.info("%s", expected)


def request(
    source: str,
    pool: str | None,
    workers: int | None,
    cache: Path | None,
    *,
    beside: Path | None = None,
    run: Path | None = None,
    engine: "Engine | None" = None,
    **configuration: Any,
) -> tuple["AugmentConfig", "LabelledImages"]:
    """Build the configuration from the options, and read the data.

    Args:
        source: A path or the name of built-in data.
        pool: Path of unlabelled images.
        workers: Processes that decode image files.
        cache: Folder that keeps decoded files.
        beside: The run folder beside which it is otherwise.
        run: A run folder, or the generator in it, whose images these are: `data.class_counts` keeps
            the same of them whatever the seed.
        engine: Where image files are decoded.
        **configuration: Arguments of `config_of`.

    Returns:
        The configuration and the data.
    """
    from vaeaug.data import read_configured

    config = config_of(**configuration)
    if run is not None:
        from vaeaug.job.growing import with_images_of

        config = with_images_of(run, config)
    return config, read_configured(
        source,
        config.data.model_dump(),
        seed=config.seed,
        pool=pool,
        workers=workers,
        progress=progress_enabled(),
        cache=_cache(cache, beside),
        engine=engine,
    )


def data_of(
    source: str,
    out: Path,
    pool: str | None,
    workers: int | None,
    engine: "Engine | None" = None,
) -> "LabelledImages":
    """Read data as the run in OUT read it.

    Args:
        source: A path or the name of built-in data.
        out: The run folder.
        pool: Path of unlabelled images.
        workers: Processes that decode image files.
        engine: Where they are decoded.

    Returns:
        The data.
    """
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
        progress=progress_enabled(),
        cache=_cache(None, out),
        engine=engine,
    )


def _cache(folder: Path | None, beside: Path | None) -> "Cache | None":
    """Where decoded files are kept: a folder that was asked for, or one beside a run folder."""
    from vaeaug.data.request import Cache
    from vaeaug.mapping import CACHE

    if folder is not None:
        return Cache(folder)
    if beside is None or os.environ.get(CACHE):
        return None  # or the one that the environment names
    return Cache(beside.with_name(f"{beside.name}.cache"), only_large=True)


def evaluation_of(
    seed: int,
    workers: int | None,
    *,
    budget: float | None,
    splits: int | None,
    steps: int | None,
    min_effect: float | None,
) -> "EvaluationConfig":
    """Build the configuration of an evaluation; None stands for a default.

    Args:
        seed: Seed of splits and classifiers.
        workers: Number of processes.
        budget: Time in seconds.
        splits: Number of splits.
        steps: Training steps of each classifier.
        min_effect: Smallest gain in balanced accuracy that counts.

    Returns:
        The configuration.
    """
    from vaeaug.config import EvaluationConfig
    from vaeaug.engines import cores

    options: dict[str, Any] = {"budget": budget, "steps": steps, "min_effect": min_effect}
    if splits is not None:
        options |= {"min_splits": splits, "max_splits": splits}
    keys = {name: value for name, value in options.items() if value is not None}
    return EvaluationConfig(seed=seed, workers=workers or cores(), **keys)


def probe_of(text: str | None) -> "ProbeFactory | None":
    """Load the user's classifier from a file.

    Args:
        text: "FILE.py:NAME", or None.

    Returns:
        The classifier, or None.

    Raises:
        UsageError: If the text has a different form.
    """
    if text is None:
        return None
    from vaeaug.evaluation import FileProbe

    path, colon, name = text.rpartition(":")
    if not colon:
        raise click.UsageError(f"--probe: expected FILE.py:NAME, got {text!r}")
    return FileProbe(path, name)


def loaded(model: Path, device: str) -> "Synthesizer":
    """Load a generator.

    Args:
        model: Folder of a generator, or a run folder.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        The generator on the device.
    """
    from vaeaug.generator import Synthesizer
    from vaeaug.training import resolve_device

    return Synthesizer.load(model, codec=_codec()).to(resolve_device(device))


def config_of(
    config_file: str | None,
    overrides: tuple[str, ...],
    *,
    strategy: str | None = None,
    seed: int | None,
    init: str | None = None,
    split: str | None,
    size: str | None,
    frames: int | None,
    resize: str | None,
    value_range: str | None,
    mode: str | None,
    on_error: str | None,
    sample_rate: int | None = None,
    front_end: str | None = None,
) -> "AugmentConfig":
    """Build the configuration from the options; None stands for the file's value or the default.

    Args:
        config_file: Path of a YAML file.
        overrides: "key=value" pairs.
        strategy: Sampling strategy.
        seed: Seed of the run.
        init: Folder of a generator to start from.
        split: Split to read.
        size: "HxW", in pixels or samples.
        frames: Frames of a clip.
        resize: "crop", "pad" or "stretch".
        value_range: "LOW,HIGH".
        mode: "RGB" or "L".
        on_error: "raise" or "skip".
        sample_rate: Of sounds, Hz.
        front_end: "stft", for sounds.

    Returns:
        The configuration.
    """
    from vaeaug.config import load_config

    keys: dict[str, Any] = {
        "seed": seed,
        "training.init": init,
        "data.split": split,
        "data.frames": frames,
        "data.resize": resize,
        "data.mode": mode,
        "data.on_error": on_error,
        "data.sample_rate": sample_rate,
        "data.front_end": front_end,
        "model.codec": _codec(),
    }
    if strategy is not None:
        overrides = (*overrides, f"plan.sampling_strategy={strategy}")
    if size is not None:
        keys["data.size"] = size_of(size)
    if value_range is not None:
        keys["data.value_range"] = range_of(value_range)
    return load_config(config_file, overrides, **keys)


def values_of(text: str, option: str) -> tuple[str, list[Any]]:
    """Parse a configuration key and its values.

    Args:
        text: "a.b=c,d", the values in YAML.
        option: Named in the error.

    Returns:
        The key and the values.

    Raises:
        click.BadParameter: If it is no key with values.
    """
    from vaeaug.files.yaml_text import load_yaml

    key, equals, values = text.partition("=")
    try:
        found = load_yaml(f"[{values}]")
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}", param_hint=option) from None
    if not (key and equals and found):
        raise click.BadParameter(
            f"expected key=value,value, got {text!r}; such as model.beta=0.5,1,2", param_hint=option
        )
    return key.strip(), found


def seeds_of(text: str) -> list[int]:
    """Parse a list of seeds.

    Args:
        text: "0,1,2".

    Returns:
        The seeds.

    Raises:
        click.BadParameter: If it is no such list.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise click.BadParameter(
            f"expected different whole numbers, at least 0, such as 0,1,2; got {text!r}",
            param_hint="--seeds",
        )
    return seeds


def size_of(text: str) -> tuple[int, int]:
    """Parse a size such as 32x32.

    Args:
        text: The option.

    Returns:
        Height and width; a single number stands for both.

    Raises:
        UsageError: If it has a different form.
    """
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and (width.isdigit() or not width)):
        raise click.UsageError(f"--size: expected HxW such as 32x32, got {text!r}")
    return int(height), int(width or height)


def range_of(text: str) -> tuple[float, float]:
    """Parse a value range such as 0,4095.

    Args:
        text: The option.

    Returns:
        Lowest and highest value.

    Raises:
        UsageError: If it has a different form.
    """
    parts = text.split(",")
    try:
        low, high = map(float, parts)
    except ValueError:
        raise click.UsageError(
            f"--value-range: expected LOW,HIGH such as 0,4095, got {text!r}"
        ) from None
    return low, high


def share_of(text: str) -> "float | Literal['all']":
    """Parse a synthetic share.

    Args:
        text: The option.

    Returns:
        The share, or "all".

    Raises:
        UsageError: If it is neither a number nor "all".
    """
    if text == "all":
        return "all"
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"--share: expected a number or `all`, got {text!r}") from None


def balance_of(balance: bool | None) -> "Balance":
    """Convert the flag ``--balance/--no-balance`` to the argument of `merge`.

    Args:
        balance: The flag; None if it is absent.

    Returns:
        "plan", "classes" or None.
    """
    if balance is None:
        return "plan"
    return "classes" if balance else None
