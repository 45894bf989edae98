"""Trainings that do not depend on one another: run in processes, each remembered once it is done.

What is remembered is a line of JSON per training, under the hash of all that decides its outcome.
The same evaluation asked for again reads; a longer one adds.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vaeaug.files import append, read_whole


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
        key: All that decides its outcome, as JSON.
        arguments: Handed to the worker's function.
    """

    key: Mapping[str, Any]
    arguments: tuple[Any, ...]

    @property
    def digest(self) -> str:
        """Hash of the key."""
        text = json.dumps(self.key, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Results:
    """Outcomes by task, kept in a file of JSON lines.

    Args:
        path: The file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._found: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            for line in read_whole(path).decode(errors="replace").splitlines():
                try:
                    record = json.loads(line)
                    self._found[record["task"]] = record
                # The last line of a process that was killed, or a damaged one.
                except (ValueError, RecursionError, KeyError, TypeError):
                    continue

    def get(self, task: Task) -> dict[str, Any] | None:
        """What came of a task, with the "seconds" it took; None if it has not been done."""
        return self._found.get(task.digest)

    def add(self, task: Task, outcome: Mapping[str, Any], seconds: float) -> None:
        """Remember a task."""
        record = {
            "task": task.digest,
            "key": dict(task.key),
            "seconds": round(seconds, 3),
            **outcome,
        }
        line = json.dumps(record, sort_keys=True)
        # As it will be read: the same in memory and from the file, to the order of keys.
        self._found[task.digest] = json.loads(line)
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # After a line that was cut off, a new one is begun.
        start = "" if self._ends_whole() else "\n"
        append(self.path, f"{start}{line}\n".encode(), sync=True)

    def _ends_whole(self) -> bool:
        assert self.path is not None
        if not self.path.exists() or not self.path.stat().st_size:
            return True
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


Work = Callable[..., dict[str, Any]]


class Workers:
    """Runs tasks, in this process or in others; a context manager.

    Args:
        work: ``work(*arguments)`` gives a task's outcome, plain JSON; sent to the processes once.
        n: Processes; 1 runs everything here.
        results: Where outcomes are kept.
    """

    def __init__(self, work: Work, *, n: int, results: Results) -> None:
        self.work, self.results, self.n = work, results, n
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is None:
            return
        if kind is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None

    def run(
        self, tasks: Sequence[Task], progress: Callable[[int, int], None] | None = None
    ) -> list[dict[str, Any]]:
        """The outcomes of tasks, in their order; those that are remembered are not run."""
        missing = {task.digest: task for task in tasks if self.results.get(task) is None}
        done = len(tasks) - len(missing)
        for task, outcome, seconds in self._outcomes(list(missing.values())):
            self.results.add(task, outcome, seconds)
            done += 1
            if progress is not None:
                progress(done, len(tasks))
        found = [self.results.get(task) for task in tasks]
        return [each for each in found if each is not None]

    def _outcomes(self, tasks: list[Task]) -> Iterator[tuple[Task, dict[str, Any], float]]:
        if self.n == 1 or not tasks:
            for task in tasks:
                yield (task, *_timed(self.work, task.arguments))
            return
        if self._pool is None:
            # Not fork: a child of a process with threads may hang.
            self._pool = ProcessPoolExecutor(
                self.n,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(self.work,),
            )
        waiting: dict[Future[Any], Task] = {
            self._pool.submit(_in_worker, task.arguments): task for task in tasks
        }
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield (waiting.pop(future), *future.result())


_work: Work | None = None


def _start(work: Work) -> None:
    global _work
    _work = work
    # The parent hears Ctrl-C and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _in_worker(arguments: tuple[Hashable, ...]) -> tuple[dict[str, Any], float]:
    assert _work is not None
    return _timed(_work, arguments)


def _timed(work: Work, arguments: tuple[Any, ...]) -> tuple[dict[str, Any], float]:
    begin = time.perf_counter()
    outcome = work(*arguments)
    return outcome, time.perf_counter() - begin
