"""The group of all commands; it turns errors into one line and an exit code."""

import logging
import shlex
import signal
import sys
from typing import Any, NoReturn

import click

import vaeaug
from vaeaug.files.names import for_stream

FAILED, USAGE = 1, 2
# Commands that go on where they were interrupted.
RESUMABLE = ("augment", "train", "generate", "evaluate", "sweep")


class _Group(click.Group):
    """Turns the package's errors into one line and an exit code; others show a traceback."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List every command with its complete sentence, which click would truncate."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=200)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

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
            resumable = ctx.invoked_subcommand in RESUMABLE
            # --no-resume would delete the unfinished run.
            command = shlex.join(["vaeaug", *(a for a in sys.argv[1:] if a != "--no-resume")])
            if type(error).__name__ == "TrainingInterrupted":
                message, kept = str(error), ""
            else:
                message, kept = "interrupted", "finished parts are kept; "
            _fail(f"{message}; {kept}resume with: {command}" if resumable else message, code)
        except (RuntimeError, ValueError, OSError) as error:
            if not type(error).__module__.startswith("vaeaug.") and not isinstance(error, OSError):
                raise
            _fail(str(error), FAILED)


class _Stderr(logging.StreamHandler[Any]):
    """Writes to the current ``sys.stderr``, so that lines appear above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return for_stream(super().format(record), sys.stderr)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(vaeaug.__version__, prog_name="vaeaug")
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
def main(quiet: bool) -> None:
    """Train a class-conditional VAE, draw labelled samples, screen them, write HDF5 shards."""
    logging.basicConfig(
        level=logging.ERROR if quiet else logging.WARNING,
        format="%(message)s",
        handlers=[_Stderr()],
        force=True,
    )
    logging.getLogger("vaeaug").setLevel(logging.ERROR if quiet else logging.INFO)


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt("SIGTERM")


def _fail(message: str, code: int) -> NoReturn:
    click.echo(for_stream(f"vaeaug: {message}", sys.stderr), err=True)
    sys.exit(code)
