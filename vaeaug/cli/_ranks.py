"""A command in several processes: the first one runs it, the others do their part in silence."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import click

from vaeaug.files.names import for_stream
from vaeaug.ranks import Dismissed, Ranks, RanksError, joined

FAILED = 1


def divided_main(command: Callable[[], Any]) -> Any:
    """Run a command in the process of rank 0; all processes end with its exit code.

    Args:
        command: Runs it, and ends with `SystemExit`.

    Returns:
        What the command returns.
    """
    try:
        ranks = Ranks.from_environment()
    except (RanksError, RuntimeError, ValueError) as error:  # the last two are torch's
        _say(str(error).splitlines()[0])
        sys.exit(FAILED)
    if ranks is None:
        return command()
    if not ranks.is_leader:
        _follow(ranks)
    handler = _First(ranks)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
    code = FAILED
    try:
        with joined(ranks):
            result = command()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else FAILED
        raise
    finally:
        # Torchrun stops all when one has ended, which must not undo how this one ends.
        _ignore_signals()
        ranks.end(code)
        if ranks.is_broken:
            _exit(code)
    return result


class _First:
    """Handles the first signal; the launcher sends what the terminal has sent once more."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self._is_handled = ranks, False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._is_handled:
            return
        self._is_handled = True
        # Torchrun stops all when one has failed.
        if (message := self.ranks.failure()) is not None:
            raise RanksError(message)
        raise KeyboardInterrupt(*(["SIGTERM"] if number == signal.SIGTERM else []))


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _follow(ranks: Ranks) -> NoReturn:
    """Do what the leader asks for, and end as it does; only the leader minds signals."""
    _ignore_signals()
    try:
        from vaeaug.stages import follow

        follow(ranks)
    except Dismissed as ended:
        code = ended.code if isinstance(ended.code, int) else FAILED
    except RanksError as error:
        code = FAILED
        _say(str(error))
    except Exception as error:
        is_known = type(error).__module__.startswith("vaeaug.") or isinstance(error, OSError)
        told = str(error) if is_known else traceback.format_exc()
        message = f"process {ranks.rank} of {ranks.size}: {told}"
        code = FAILED
        ranks.is_broken = True
        if ranks.fail(message):
            _say(message)
    ranks.leave()
    _exit(code)


def _exit(code: int) -> NoReturn:
    """End at once: what other processes have left unfinished is not waited for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _say(message: str) -> None:
    click.echo(for_stream(f"vaeaug: {message}", sys.stderr), err=True)
