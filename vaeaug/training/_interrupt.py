"""Ctrl-C during a training step takes effect at its end, so that progress can be saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted between two steps.

    Attributes:
        stage: Name of the stage.
        step: Number of completed steps of the stage.
        saved: Whether a checkpoint holds them.
    """

    def __init__(self, *cause: Any, stage: str, step: int, saved: bool) -> None:
        super().__init__(*cause)
        self.stage, self.step, self.saved = stage, step, saved

    def __str__(self) -> str:
        where = f"after step {self.step} of stage {self.stage!r}"
        return f"interrupted {where}, which is saved" if self.saved else f"interrupted {where}"


class Interruption:
    """A context that defers SIGINT, and SIGTERM where Python handles it, to the end of a step.

    A second signal is handled by the previous handler. Outside the main thread, where Python
    delivers no signals, the context does nothing.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._at_once = False
        self._previous: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            previous = signal.getsignal(number)
            if callable(previous):
                self._previous[number] = previous
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    @property
    def requested(self) -> KeyboardInterrupt | None:
        """The interruption that was requested, or None."""
        if self._received is None:
            return None
        try:
            self._previous[self._received](self._received, None)
        except KeyboardInterrupt as error:
            return error
        return None  # the previous handler chose to continue

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let signals interrupt immediately: for long work that is simply repeated later."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._at_once or self._received is not None:
            self._previous[number](number, frame)
        else:
            self._received = number
