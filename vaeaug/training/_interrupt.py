"""Ctrl-C in the middle of a step waits for its end, so that what was learned is saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted between two steps.

    Attributes:
        stage: Name of the stage.
        step: Steps of it that were taken.
        saved: Whether a checkpoint holds them.
    """

    def __init__(self, *cause: Any, stage: str, step: int, saved: bool) -> None:
        super().__init__(*cause)
        self.stage, self.step, self.saved = stage, step, saved

    def __str__(self) -> str:
        where = f"after step {self.step} of stage {self.stage!r}"
        return f"interrupted {where}, which is saved" if self.saved else f"interrupted {where}"


class Interruption:
    """SIGINT, and SIGTERM where Python handles it, noted and asked for between steps.

    A second signal is handled as it was before. Outside the main thread, where Python delivers no
    signals, it does nothing.
    """

    def __init__(self) -> None:
        self._found: int | None = None
        self._at_once = False
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if callable(before):
                self._before[number] = before
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @property
    def found(self) -> KeyboardInterrupt | None:
        """What was asked for, if anything was."""
        if self._found is None:
            return None
        try:
            self._before[self._found](self._found, None)
        except KeyboardInterrupt as error:
            return error
        return None  # whoever handles the signal wants to continue

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal interrupts: for work that is long and is simply done again."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._at_once or self._found is not None:
            self._before[number](number, frame)
        else:
            self._found = number
