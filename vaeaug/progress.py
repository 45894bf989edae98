"""Progress of long work: bars on a terminal, elsewhere a log line now and then.

Whatever reports is handed one kind of function, a `Progress`. Work of several equal parts hands
`one_part` of it on.
"""

import html
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
# Seconds between two states of a bar in a notebook.
REFRESH = 0.5


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


class Whole:
    """How far a job of several stages has come, and how long the rest will take.

    Args:
        expected: Seconds that its stages are expected to take, by name, in order.
    """

    def __init__(self, expected: Mapping[str, float]) -> None:
        self._names, self._seconds = list(expected), list(expected.values())
        self._at, self._part = 0, 0.0
        self._began = time.monotonic()

    def report(self, what: str, done: int, total: int) -> None:
        """Take note of a stage.

        Args:
            what: The stage, as a `Progress` is called with it.
            done: Steps of it that are done.
            total: All its steps.
        """
        for number in range(self._at, len(self._names)):
            if self._is(what, self._names[number]):
                part = done / max(1, total)
                # Of classes that are drawn one after another, each has a stage of its own.
                is_one = self._names[number] == what or what == "classifier"
                self._at, self._part = number, part if is_one else 0.5
                return
        self._at, self._part = len(self._names), 0.0

    @staticmethod
    def _is(what: str, name: str) -> bool:
        if what == "classifier":
            return name in ("classifier", "screening")
        return what == name or (name == "drawing" and what.startswith("drawing "))

    @property
    def done(self) -> float:
        """Fraction that is done, 0 to 1."""
        return self._behind() / max(1e-9, sum(self._seconds))

    @property
    def seconds_left(self) -> float:
        """Seconds that are left: as expected, corrected by the pace so far."""
        behind, everything = self._behind(), sum(self._seconds)
        elapsed = time.monotonic() - self._began
        # The pace of the first seconds says little.
        trust = min(1.0, elapsed / 20)
        pace = 1.0 if behind < 1 else min(5.0, max(0.2, elapsed / behind))
        return (everything - behind) * (1 - trust + trust * pace)

    @property
    def is_known(self) -> bool:
        """Whether the present stage is one of those expected."""
        return self._at < len(self._names)

    @property
    def left(self) -> str:
        """How much time is left, in words; that it is not known in a stage that was not timed."""
        return str(self) if self.is_known else "what follows was not timed"

    def _behind(self) -> float:
        now = self._part * self._seconds[self._at] if self.is_known else 0.0
        return sum(self._seconds[: self._at]) + now

    def __str__(self) -> str:
        return f"{_lasting(self.seconds_left)} left"


def _lasting(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


@contextmanager
def shown(
    progress: Progress | bool | None,
    callbacks: Sequence[Progress] = (),
    about: Mapping[str, Any] | None = None,
    expected: Mapping[str, float] | None = None,
) -> Iterator[Progress | None]:
    """Show how far long work has come; a context manager.

    Args:
        progress: A function of the user's; None or True for bars on a terminal or in a notebook,
            and elsewhere a log line (logger "vaeaug", level INFO) every 30 seconds, also where
            nothing has changed; False for nothing.
        callbacks: More functions to call. One with a method ``begin(about)`` is told of the work
            before, one with ``end(error)`` after it: None, or the exception that ended it.
        about: What is told of the work: plain JSON.
        expected: Seconds that the stages are expected to take, by name, in order: bars and lines
            then say how much time is left in all. None: not known.

    Yields:
        What the work calls; None where nothing is shown.
    """
    with ExitStack() as ending:
        for callback in callbacks:
            if hasattr(callback, "begin"):
                callback.begin(dict(about or {}))
            if hasattr(callback, "end"):
                ending.push(_told(callback.end))
        report = ending.enter_context(_displayed(progress, expected))
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
def _displayed(
    progress: Progress | bool | None, expected: Mapping[str, float] | None
) -> Iterator[Progress | None]:
    """Bars, lines or the user's function."""
    if progress is False:
        yield None
        return
    if callable(progress):
        yield progress
        return
    from rich.console import Console

    console = Console(stderr=True)
    whole = Whole(expected) if expected else None
    if console.is_jupyter:
        display = _in_notebook(whole)
    else:
        display = _bars(console, whole) if console.is_terminal else _lines(whole)
    with display as report:
        yield report


@contextmanager
def _bars(console: Any, whole: Whole | None) -> Iterator[Progress]:
    """A bar per stage; where the whole is known, a bar of it and below it the present stage's."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Count(MofNCompleteColumn):
        def render(self, task: Any) -> Text:
            is_whole = task.fields["left"] is not None
            return Text(f"{task.completed:.0f} %") if is_whole else super().render(task)

    class Left(TimeRemainingColumn):
        max_refresh = 0.5

        def render(self, task: Any) -> Text:
            left = task.fields["left"]
            return super().render(task) if left is None else Text(left)

    # A class may be called "[/b]", which is no markup.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), Count(), Left())
    metrics_column = TextColumn("{task.fields[metrics]}")
    with Bars(*columns, metrics_column, console=console) as bars:
        tasks: dict[str, Any] = {}
        fields: dict[str, Any] = {"metrics": "", "left": None}
        in_all = None
        if whole is not None:
            in_all = bars.add_task("in all", total=100, **(fields | {"left": str(whole)}))

        def report(what: str, done: int, total: int, metrics: dict[str, float]) -> None:
            if what not in tasks:
                if whole is not None:
                    for task in tasks.values():
                        bars.update(task, visible=False)
                tasks[what] = bars.add_task(printable(what), total=total, **fields)
            if whole is not None and in_all is not None:
                whole.report(what, done, total)
                bars.update(in_all, completed=100 * whole.done, left=whole.left)
                bars.update(tasks[what], visible=True)
            bars.update(tasks[what], completed=done, total=total)
            if "held_out_elbo" in metrics:
                bars.update(tasks[what], metrics=f"ELBO {metrics['held_out_elbo']:.1f}")

        yield report
        if in_all is not None:
            bars.update(in_all, completed=100, left="")


@contextmanager
def _in_notebook(whole: Whole | None) -> Iterator[Progress]:
    """One output of the cell, which is replaced: needs no widgets, and little is stored of it."""
    from IPython.display import HTML, display

    bars: dict[str, str] = {}
    output = display(HTML(""), display_id=True)
    drawn = 0.0

    def draw() -> None:
        nonlocal drawn
        drawn = time.monotonic()
        output.update(HTML("<br>".join(bars.values())))

    def report(what: str, done: int, total: int, metrics: dict[str, float]) -> None:
        is_new = what not in bars
        if whole is not None:
            whole.report(what, done, total)
            bars.clear()  # of the stages the present one alone
            bars["in all"] = _bar("in all", whole.done, f"{whole.done:.0%}, {whole.left}")
        elbo = f", ELBO {metrics['held_out_elbo']:.1f}" if "held_out_elbo" in metrics else ""
        bars[what] = _bar(printable(what), done / max(1, total), f"{done} of {total}{elbo}")
        if is_new or time.monotonic() - drawn > REFRESH:
            draw()

    began = time.monotonic()
    yield report
    if whole is not None:
        bars.clear()
        bars["in all"] = _bar("in all", 1.0, f"done in {time.monotonic() - began:.0f} s")
    draw()


def _bar(name: str, part: float, text: str) -> str:
    """HTML of a bar with its name and what there is to say of it."""
    name, text = html.escape(name), html.escape(text)
    return (
        f'<progress max="1" value="{part:.3f}" aria-label="{name}" style="width:16em"></progress> '
        f"{name}: {text}"
    )


@contextmanager
def _lines(whole: Whole | None) -> Iterator[Progress]:
    """A line every `EVERY` seconds, from a thread: some work calls nothing for minutes."""
    began = time.monotonic()
    latest: list[tuple[str, int, int]] = []
    ended = threading.Event()

    def report(what: str, done: int, total: int, metrics: dict[str, float]) -> None:
        latest[:] = [(what, done, total)]
        if whole is not None:
            whole.report(what, done, total)

    def speak() -> None:
        while not ended.wait(EVERY):
            seconds = time.monotonic() - began
            since = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
            left = f"; {whole}" if whole is not None and whole.is_known else ""
            if not latest:
                log.info("at work for %s%s", since, left)
                continue
            what, done, total = latest[0]
            after = "" if done < total else ", what follows it is under way"
            name = printable(what)
            log.info("%s: %d of %d%s (%s in all%s)", name, done, total, after, since, left)

    speaker = threading.Thread(target=speak, name="vaeaug-progress", daemon=True)
    speaker.start()
    try:
        yield report
    finally:
        ended.set()
        speaker.join()
