"""Image files to one array, in threads, worker processes or on a cluster, with the same result."""

import contextlib
import io
import json
import math
import os
import statistics
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Shaped

from vaeaug.data import decode
from vaeaug.data.decode import BadImageError, DecodeOptions
from vaeaug.data.request import Request
from vaeaug.data.stack import Decoded, Stack
from vaeaug.engines import Engine, Tasks

# Fewer files are decoded before threads have started.
_PARALLEL_FROM = 64
_MOST_THREADS = 8
# Room for a worker to run ahead of the parent; a hint that some systems ignore.
_PIPE_BYTES = 2**20
# Files of fewer bytes, by the median of some, are decoded by one thread: threads would wait for
# Python's lock (`benchmarks/decoding.py`).
_SMALL_BYTES, _LOOKED_AT = 4096, 16
# Images that a thread decodes at a time.
_TOGETHER = 16
# Parts that a thread may be ahead of the reader.
_AHEAD = 2
# Images that a task of an engine decodes, and the tasks for each of its workers that are handed out
# before their images are laid into the array: what waits for its turn is held in memory.
_IN_A_TASK = 256
_TASKS_AHEAD = 4

# An image or clip with its notes, or why it cannot be used.
_Result = tuple[Shaped[np.ndarray, "*space c"], list[str]] | BadImageError


def decode_images(paths: Sequence[str], where: str, request: Request) -> Decoded:
    """Decode image files of one shape and type.

    Args:
        paths: The M files, at least one.
        where: The source, for messages.
        request: How they are decoded, by how many processes (None: threads, which were measured to
            be faster: `benchmarks/decoding.py`) or on which Ray cluster, and what a damaged one
            means.

    Returns:
        The images, shape (N, H, W, C), or clips of so many frames, shape (N, T, H, W, C), uint8,
        uint16 or float32, in the order of `paths`. Nothing depends on the number of workers.

    Raises:
        DataError: Naming all bad files, or two that do not fit together.
    """
    n_workers = min(request.workers or 0, len(paths))
    n_threads = _threads_for(paths) if request.workers is None else 1
    results: Generator[_Result, None, None]
    # Of this machine's cores threads make more than an engine's processes do.
    if request.engine is not None and request.engine.name == "ray" and len(paths) > _IN_A_TASK:
        results = _on_cluster(paths, request.engine, request.decoding)
    elif n_workers > 1:
        results = _in_workers(paths, n_workers, request.decoding)
    elif n_threads > 1:
        results = _in_threads(paths, n_threads, request.decoding)
    else:
        results = (_decode_one(path, request.decoding) for path in paths)
    stack = Stack(len(paths), where, request.on_error, folder=request.room)
    # Closing ends the workers at once when an error leaves images unread.
    with contextlib.closing(results):
        shown = _with_bar(results, len(paths), request.progress)
        for path, result in zip(paths, shown, strict=True):
            if isinstance(result, BadImageError):
                stack.leave_out(result)
            else:
                image, notes = result
                stack.add(image, path, notes)
    return stack.finish()


def _decode_one(path: str, options: DecodeOptions) -> _Result:
    try:
        return decode.decode_file(path, options)
    except BadImageError as error:
        return error


def _decode_some(paths: Sequence[str], options: DecodeOptions) -> list[_Result]:
    return [_decode_one(path, options) for path in paths]


def _threads_for(paths: Sequence[str]) -> int:
    if len(paths) <= _PARALLEL_FROM:
        return 1
    some = paths[:: len(paths) // _LOOKED_AT]
    # One that is missing is told when it is decoded.
    sizes = [Path(path).stat().st_size for path in some if Path(path).is_file()]
    if not sizes or statistics.median(sizes) < _SMALL_BYTES:
        return 1
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    return min(os.cpu_count() or 1, _MOST_THREADS)


def _in_threads(
    paths: Sequence[str], n_threads: int, options: DecodeOptions
) -> Generator[_Result, None, None]:
    # Pillow decodes and resizes without Python's lock. Threads start at once and share memory. Its
    # list of formats is made by one of them alone.
    decode.known_formats()
    some = [paths[begin : begin + _TOGETHER] for begin in range(0, len(paths), _TOGETHER)]
    with ThreadPoolExecutor(n_threads, "decoding") as executor:
        ahead = deque(
            executor.submit(_decode_some, part, options) for part in some[: _AHEAD * n_threads]
        )
        try:
            for part in some[len(ahead) :]:
                yield from ahead.popleft().result()
                ahead.append(executor.submit(_decode_some, part, options))
            while ahead:
                yield from ahead.popleft().result()
        finally:
            executor.shutdown(cancel_futures=True)


def _on_cluster(
    paths: Sequence[str], engine: Engine, options: DecodeOptions
) -> Generator[_Result, None, None]:
    # Another machine has another working folder, and its GPUs are for those who train.
    whole = [str(Path(path).absolute()) for path in paths]
    parts = [whole[begin : begin + _IN_A_TASK] for begin in range(0, len(whole), _IN_A_TASK)]
    together = _TASKS_AHEAD * engine.at_once
    with Tasks(partial(_decode_some, options=options), replace(engine, gpus=0.0)) as tasks:
        for begin in range(0, len(parts), together):
            decoded, following = dict[int, list[_Result]](), 0
            for number, results in tasks.run(parts[begin : begin + together]):
                decoded[number] = results
                while following in decoded:
                    first = (begin + following) * _IN_A_TASK
                    for result, path in zip(decoded.pop(following), paths[first:], strict=False):
                        yield _named(result, path)
                    following += 1


def _named(result: _Result, path: str) -> _Result:
    """A result whose error names the file as it was given."""
    if not isinstance(result, BadImageError):
        return result
    return BadImageError(path + str(result).removeprefix(str(Path(path).absolute())))


def _in_workers(
    paths: Sequence[str], n_workers: int, options: DecodeOptions
) -> Generator[_Result, None, None]:
    # Image i comes from worker i modulo n, and the pipes are read in that order: results and
    # errors then come in the order of the files, whatever the number of workers, and a pipe that
    # is full holds back a worker which runs ahead, so that memory stays small.
    with ExitStack() as stack:
        workers = []
        for k in range(n_workers):
            worker = stack.enter_context(_worker())
            assert worker.stdin is not None
            # Where it has ended already, reading its answer says so, with its exit code.
            with contextlib.suppress(BrokenPipeError), worker.stdin as pipe:
                pipe.write(decode.encode_job(list(paths[k::n_workers]), options))
            workers.append(worker)
        for i, path in enumerate(paths):
            yield _receive(workers[i % n_workers], path)


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


def _receive(worker: "subprocess.Popen[bytes]", path: str) -> _Result:
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


def _with_bar(results: Iterable[_Result], total: int, progress: bool) -> Iterator[_Result]:
    if not (progress and sys.stderr.isatty()):
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(
        results, description="reading", total=total, console=Console(stderr=True), transient=True
    )
