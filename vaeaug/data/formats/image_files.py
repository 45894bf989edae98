"""Image files to one array, in this process or in worker processes, with the same result."""

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Shaped

from vaeaug.data import decode
from vaeaug.data.dataset import DataError
from vaeaug.data.decode import BadImageError, How
from vaeaug.data.request import Request
from vaeaug.data.stack import Faults, Stack

# From about here on the workers' start (0.2 s) is small beside the decoding.
PARALLEL_FROM = 2000
_MOST_WORKERS = 8
# Room for a worker to run ahead of the parent; a hint that some systems ignore.
_PIPE_BYTES = 2**20

# An image with notes, or what is wrong with it.
_Decoded = tuple[Shaped[np.ndarray, "h w c"], list[str]] | BadImageError


def is_file(path: str | Path) -> bool:
    """Whether a file is there; no text is too long or too odd to be asked for."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for a name that is too long


def read_files(
    paths: Sequence[str], where: str, request: Request
) -> tuple[Shaped[np.ndarray, "n h w c"], Bool[np.ndarray, " m"], tuple[str, ...]]:
    """Decode image files of one shape and type.

    Args:
        paths: the M files, at least one.
        where: the source, for messages.
        request: how they are decoded, by how many processes, and what a damaged one means.

    Returns:
        The images, shape (N, H, W, C), uint8, uint16 or float32, in the order of `paths`; which of
        the paths they are; and notes. None of it depends on the number of workers.

    Raises:
        DataError: naming all bad files, or two that do not fit together.
    """
    n_workers = _how_many(request.workers, len(paths))
    decoded: Generator[_Decoded, None, None] = (
        _in_workers(paths, n_workers, request.how)
        if n_workers > 1
        else (_one(path, request.how) for path in paths)
    )
    stack, faults = Stack(len(paths), where), Faults(where, request.on_error)
    kept = np.ones(len(paths), dtype=np.bool_)
    try:
        shown = _shown(decoded, len(paths), request.progress)
        for i, (path, each) in enumerate(zip(paths, shown, strict=True)):
            if isinstance(each, BadImageError):
                faults.add(str(each))
                stack.leave_out()
                kept[i] = False
            # Whatever else does not fit, the files that cannot be read at all are told first.
            elif not len(faults) or request.on_error == "skip":
                stack.add(each[0], path, each[1])
    finally:
        # Ends the workers at once when an error leaves images unread.
        decoded.close()
    left_out = faults.settle(len(paths))
    images, notes = stack.finish()
    return images, kept, (*left_out, *notes)


def _one(path: str, how: How) -> _Decoded:
    try:
        return decode.decode_file(path, how)
    except BadImageError as error:
        return error


def _how_many(workers: int | None, n_files: int) -> int:
    if workers is not None:
        if workers < 0:
            raise DataError(f"workers: expected 0 or more, got {workers}")
        return min(workers, n_files)
    if n_files <= PARALLEL_FROM or not sys.executable:
        return 0
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
    return min(os.cpu_count() or 1, _MOST_WORKERS)


def _in_workers(paths: Sequence[str], n_workers: int, how: How) -> Generator[_Decoded, None, None]:
    # Image i comes from worker i modulo n, and the pipes are read in that order: results and
    # errors then come in the order of the files, whatever the number of workers, and a pipe that
    # is full holds back a worker which runs ahead, so that memory stays small.
    with ExitStack() as stack:
        running = []
        for w in range(n_workers):
            worker = stack.enter_context(_worker())
            _send(worker, decode.job_for(list(paths[w::n_workers]), how))
            running.append(worker)
        for i, path in enumerate(paths):
            yield _receive(running[i % n_workers], path)


@contextmanager
def _worker() -> Iterator["subprocess.Popen[bytes]"]:
    # -P keeps this package's folder off the import path of the script.
    command = [sys.executable, "-P", str(Path(decode.__file__))]
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pipesize=_PIPE_BYTES
    )
    try:
        yield worker
    finally:
        worker.kill()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()
        worker.wait()


def _send(worker: "subprocess.Popen[bytes]", job: bytes) -> None:
    assert worker.stdin is not None
    try:
        worker.stdin.write(job)
        worker.stdin.close()
    except BrokenPipeError:
        # It has ended already; reading its answer says so, with its exit code.
        pass


def _receive(worker: "subprocess.Popen[bytes]", path: str) -> _Decoded:
    pipe = cast(io.BufferedReader, worker.stdout)
    line = pipe.readline()
    if line.endswith(b"\n"):
        head: dict[str, Any] = json.loads(line)
        if "error" in head:
            return BadImageError(head["error"])
        flat = np.empty(math.prod(head["shape"]), dtype=head["dtype"])
        if pipe.readinto(flat.data.cast("B")) == flat.nbytes:
            return flat.reshape(head["shape"]), head["notes"]
    raise RuntimeError(
        f"a decoding process ended at {path} (exit code {worker.wait()}); "
        f"pass workers=0 to decode in this process"
    )


def _shown(items: Iterable[_Decoded], total: int, progress: bool) -> Iterator[_Decoded]:
    if not (progress and sys.stderr.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(
        items, description="reading", total=total, console=Console(stderr=True), transient=True
    )
