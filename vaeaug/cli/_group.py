"""The group of all commands; it turns errors into one line and an exit code."""

import json
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any, NoReturn

import click

import vaeaug
from vaeaug.cli.console import said_that_it_starts
from vaeaug.files.names import for_stream

FAILED, USAGE = 1, 2
# Commands by what they are for, in the order of `--help`.
SECTIONS = {
    "Job": ("augment", "plan", "train", "generate", "evaluate", "sweep", "config"),
    "Data": ("merge", "exclude", "export", "push", "embed", "verify", "screen"),
    "Generator": ("denoise", "encode", "decode", "reconstruct", "coder", "compress", "decompress"),
    "Look": ("studio", "report", "inspect", "traverse", "styles"),
}
# Commands that go on where they were interrupted.
RESUMABLE = ("augment", "train", "generate", "evaluate", "sweep")
# Commands whose work is divided over the processes of `torchrun`.
DIVIDED = ("augment", "train", "generate")


class _Group(click.Group):
    """Turns the package's errors into one line and an exit code; others show a traceback."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List every command with its complete sentence, which click would truncate, in groups."""
        left = list(self.list_commands(ctx))
        for title, names in (*SECTIONS.items(), ("Other", tuple(left))):
            rows = []
            for name in names:
                command = self.get_command(ctx, name) if name in left else None
                if command is not None and not command.hidden:
                    left.remove(name)
                    rows.append((name, command.get_short_help_str(limit=200)))
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def main(self, *args: Any, **keys: Any) -> Any:
        """Run a command; of several processes that torchrun started, the first one does."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
            return super().main(*args, **keys)
        try:
            from vaeaug.cli._ranks import divided_main
        except KeyboardInterrupt:  # torch is being imported, by all of them
            sys.exit(130)
        return divided_main(lambda: super(_Group, self).main(*args, **keys))

    def invoke(self, ctx: click.Context) -> Any:
        from vaeaug.config import ConfigError
        from vaeaug.data import DataError
        from vaeaug.plan import PlanError

        if not _is_divided():  # else what torchrun passes on is handled already
            signal.signal(signal.SIGTERM, _terminate)
        failure = _Failure(as_json="--json" in (*ctx._protected_args, *ctx.args))
        try:
            is_long = ctx._protected_args[:1] and ctx._protected_args[0] in RESUMABLE
            with _interrupts_behind_errors(), said_that_it_starts(in_a_line=bool(is_long)):
                _refuse_several_processes(ctx._protected_args)
                return super().invoke(ctx)
        except click.UsageError as error:
            if not _logs_json():
                error.show()
            failure.end(type(error).__name__, error.format_message(), USAGE, is_said=True)
        except (ConfigError, PlanError) as error:
            failure.end(type(error).__name__, str(error), USAGE)
        except DataError as error:
            failure.end(type(error).__name__, str(error), FAILED)
        except KeyboardInterrupt as error:
            code = 143 if error.args else 130
            resumable = ctx.invoked_subcommand in RESUMABLE
            # --no-resume would delete the unfinished run.
            words = ["vaeaug", *(a for a in sys.argv[1:] if a != "--no-resume")]
            if _is_divided():
                words = [*sys.modules["vaeaug.ranks"].launcher(), *words]
            command = shlex.join(words)
            if type(error).__name__ == "TrainingInterrupted":
                message, kept = str(error), ""
            else:
                message, kept = "interrupted", "finished parts are kept; "
            message = f"{message}; {kept}resume with: {command}" if resumable else message
            failure.end("Interrupted", message, code)
        except (RuntimeError, ValueError, OSError) as error:
            if not type(error).__module__.startswith("vaeaug.") and not isinstance(error, OSError):
                raise
            failure.end(type(error).__name__, str(error), FAILED)


@contextmanager
def _interrupts_behind_errors() -> Iterator[None]:
    """Raise the interrupt itself where compiled code made another error of it.

    An import of a compiled module fails as an ImportError, caused by what was raised in it; other
    compiled code, such as a conversion to a tensor, forgets what was raised.
    """
    raised: list[KeyboardInterrupt] = []

    def noted(handle: Callable[[int, FrameType | None], Any]) -> Callable[..., Any]:
        def handle_and_note(number: int, frame: FrameType | None) -> None:
            try:
                handle(number, frame)
            except KeyboardInterrupt as error:
                raised.append(error)
                raise

        return handle_and_note

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    is_main = threading.current_thread() is threading.main_thread()
    handled = {number: each for number, each in before.items() if is_main and callable(each)}
    for number, handle in handled.items():
        signal.signal(number, noted(handle))
    try:
        yield
    except Exception as error:
        behind: BaseException | None = error
        imports = False
        while behind is not None and not isinstance(behind, KeyboardInterrupt):
            imports = imports or isinstance(behind, ImportError)
            behind = behind.__cause__
        if behind is not None and imports:
            raise behind from None
        if raised:
            raise raised[-1] from error
        raise
    finally:
        for number, handle in handled.items():
            signal.signal(number, handle)


@dataclass(frozen=True)
class _Failure:
    """How a command fails: a line on stderr, and on stdout as JSON what would have been JSON."""

    as_json: bool

    def end(self, kind: str, message: str, code: int, *, is_said: bool = False) -> NoReturn:
        if self.as_json:
            document = {"error": {"kind": kind, "message": message, "exit_code": code}}
            click.echo(json.dumps(document, indent=2))
        if _logs_json():
            logging.getLogger("vaeaug").error("%s", message)
        elif not is_said:
            click.echo(for_stream(f"vaeaug: {message}", sys.stderr), err=True)
        sys.exit(code)


def _logs_json() -> bool:
    handlers = logging.getLogger().handlers
    return any(isinstance(handler, _Stderr) and handler.as_json for handler in handlers)


class _Stderr(logging.StreamHandler[Any]):
    """Writes to the current ``sys.stderr``, so that lines appear above a progress bar."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        if not self.as_json:
            return for_stream(super().format(record), sys.stderr)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = logging.Formatter().formatException(record.exc_info)
        return json.dumps(line)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(vaeaug.__version__, prog_name="vaeaug")
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Lines on stderr: for people, or one JSON object each.",
)
def main(quiet: bool, log_format: str) -> None:
    """Train a class-conditional VAE, draw labelled samples, screen them, write HDF5 shards."""
    logging.basicConfig(
        level=logging.ERROR if quiet else logging.WARNING,
        format="%(message)s",
        handlers=[_Stderr(as_json=log_format == "json")],
        force=True,
    )
    logging.getLogger("vaeaug").setLevel(logging.ERROR if quiet else logging.INFO)


def _is_divided() -> bool:
    ranks = sys.modules.get("vaeaug.ranks")
    return ranks is not None and ranks.current().are_several


def _refuse_several_processes(words: list[str]) -> None:
    if _is_divided() and words and words[0] not in DIVIDED:
        raise click.UsageError(
            f"{words[0]}: expected one process, got {os.environ['WORLD_SIZE']} by torchrun; "
            f"{', '.join(DIVIDED)} are divided over several"
        )


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt("SIGTERM")
