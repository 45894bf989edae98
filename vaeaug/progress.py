"""How far long work has come: bars where someone watches, a line now and then where no one does."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vaeaug.files.names import printable

log = logging.getLogger("vaeaug")

# progress(stage, done, total, what is known so far)
Progress = Callable[[str, int, int, dict[str, float]], None]

# Seconds between two lines where stderr is no terminal.
EVERY = 30.0


@contextmanager
def shown(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """What long work calls to say how far it has come.

    Args:
        progress: A function of one's own; None or True for bars on a terminal or in a notebook,
            and elsewhere a log line (logger "vaeaug", level INFO) every 30 seconds, also where
            nothing new is to be said; False for nothing.
    """
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
    figures_column = TextColumn("{task.fields[figures]}")
    with Bars(*columns, TimeRemainingColumn(), figures_column, console=console) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int, figures: dict[str, float]) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(printable(what), total=total, figures="")
            bars.update(tasks[what], completed=done, total=total)
            if "held_out_elbo" in figures:
                bars.update(tasks[what], figures=f"ELBO {figures['held_out_elbo']:.1f}")

        yield report


@contextmanager
def _lines() -> Iterator[Progress]:
    """A line every `EVERY` seconds, from a thread: some work calls nothing for minutes."""
    began = time.monotonic()
    latest: list[tuple[str, int, int]] = []
    ended = threading.Event()

    def report(what: str, done: int, total: int, figures: dict[str, float]) -> None:
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
