"""Progress of long work: bars on a terminal, elsewhere a log line now and then.

Whatever reports is handed one kind of function, a `Progress`. Work of several equal parts hands
`one_part` of it on.
"""

import inspect
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from vaeaug.files.names import printable

log = logging.getLogger("vaeaug")

# progress(stage, done, total, metrics known so far)
Progress = Callable[[str, int, int, dict[str, float]], None]

# Seconds between two lines where stderr is no terminal.
EVERY = 30.0


def silent(what: str, done: int, total: int, metrics: dict[str, float]) -> None:
    """Report nothing: the `Progress` of work that nobody watches.

    Args:
        what: The stage.
        done: Steps of it that are done.
        total: All its steps.
        metrics: Metrics known so far.
    """


def one_part(progress: Progress | None, part: int, parts: int) -> Progress:
    """Narrow a progress to one of several equal parts of a stage.

    Args:
        progress: Reports on the whole stage; None reports nothing.
        part: Which part, from 0.
        parts: How many there are.

    Returns:
        A progress for the part: its last step of the last part is the last of the stage.
    """
    report = progress or silent

    def report_part(what: str, done: int, total: int, metrics: dict[str, float]) -> None:
        report(what, part * total + done, parts * total, metrics)

    return report_part


def from_two_arguments(progress: Callable[..., None] | None) -> Progress | None:
    """Take a function ``progress(done, total)`` of earlier versions, with a warning.

    Args:
        progress: A `Progress`, None, or a function of two arguments.

    Returns:
        A `Progress`, or None.
    """
    if progress is None:
        return None
    try:
        inspect.signature(progress).bind("", 0, 0, {})
    except TypeError:
        warnings.warn(
            "progress(done, total) is deprecated: give a function of (what, done, total, metrics)",
            DeprecationWarning,
            stacklevel=3,
        )
        return lambda what, done, total, metrics: progress(done, total)
    except ValueError:  # a builtin without a signature
        pass
    return progress


@contextmanager
def shown(
    progress: Progress | bool | None,
    callbacks: Sequence[Progress] = (),
    about: Mapping[str, Any] | None = None,
) -> Iterator[Progress | None]:
    """Show how far long work has come; a context manager.

    Args:
        progress: A function of the user's; None or True for bars on a terminal or in a notebook,
            and elsewhere a log line (logger "vaeaug", level INFO) every 30 seconds, also where
            nothing has changed; False for nothing.
        callbacks: More functions to call. One with a method ``begin(about)`` is told of the work
            before, one with ``end(error)`` after it: None, or the exception that ended it.
        about: What is told of the work: plain JSON.

    Yields:
        What the work calls; None where nothing is shown.
    """
    with ExitStack() as ending:
        for callback in callbacks:
            if hasattr(callback, "begin"):
                callback.begin(dict(about or {}))
            if hasattr(callback, "end"):
                ending.push(_told(callback.end))
        report = ending.enter_context(_displayed(progress))
        functions = [report, *callbacks] if report is not None else list(callbacks)
        if len(functions) < 2:
            yield functions[0] if functions else None
            return

        def report_to_all(what: str, done: int, total: int, metrics: dict[str, float]) -> None:
            for function in functions:
                function(what, done, total, metrics)

        yield report_to_all


def _told(end: Callable[[BaseException | None], None]) -> Callable[..., None]:
    """A callback's method as what leaves a context."""
    return lambda kind, error, traceback: end(error)


@contextmanager
def _displayed(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """Bars, lines or the user's function."""
    if progress is False:
        yield None
        return
    if callable(progress):
        yield progress
        return
    from rich.console import Console

    console = Console(stderr=True)
    with _bars(console) if console.is_terminal or console.is_jupyter else _lines() as report:
        yield report


@contextmanager
def _bars(console: Any) -> Iterator[Progress]:
    """A bar per stage."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    # A class may be called "[/b]", which is no markup.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    metrics_column = TextColumn("{task.fields[metrics]}")
    with Bars(*columns, TimeRemainingColumn(), metrics_column, console=console) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int, metrics: dict[str, float]) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(printable(what), total=total, metrics="")
            bars.update(tasks[what], completed=done, total=total)
            if "held_out_elbo" in metrics:
                bars.update(tasks[what], metrics=f"ELBO {metrics['held_out_elbo']:.1f}")

        yield report


@contextmanager
def _lines() -> Iterator[Progress]:
    """A line every `EVERY` seconds, from a thread: some work calls nothing for minutes."""
    began = time.monotonic()
    latest: list[tuple[str, int, int]] = []
    ended = threading.Event()

    def report(what: str, done: int, total: int, metrics: dict[str, float]) -> None:
        latest[:] = [(what, done, total)]

    def speak() -> None:
        while not ended.wait(EVERY):
            seconds = time.monotonic() - began
            since = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
            if not latest:
                log.info("at work for %s", since)
                continue
            what, done, total = latest[0]
            after = "" if done < total else ", what follows it is under way"
            log.info("%s: %d of %d%s (%s in all)", printable(what), done, total, after, since)

    speaker = threading.Thread(target=speak, name="vaeaug-progress", daemon=True)
    speaker.start()
    try:
        yield report
    finally:
        ended.set()
        speaker.join()
