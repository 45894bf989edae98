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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vaeaug.files import append, read_whole
from vaeaug.progress import Progress, silent
from vaeaug.threads import torch_threads

# Does a task's job and gives its outcome, plain JSON.
Work = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
        key: All that decides its outcome, as JSON.
        job: Handed to the function that does the work.
    """

    key: Mapping[str, Any]
    job: Any = None

    @property
    def digest(self) -> str:
        """Hash of the key, 32 hexadecimal digits."""
        text = json.dumps(self.key, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Results:
    """Outcomes by task, kept in a file of JSON lines.

    Args:
        path: The file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._records: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            for line in read_whole(path).decode(errors="replace").splitlines():
                try:
                    record = json.loads(line)
                    self._records[record["task"]] = record
                # The last line of a process that was killed, or a damaged one.
                except (ValueError, RecursionError, KeyError, TypeError):
                    continue

    def get(self, task: Task) -> dict[str, Any] | None:
        """Look a task up.

        Args:
            task: The task.

        Returns:
            Its outcome, with the "seconds" that it took; None if it has not been done.
        """
        return self._records.get(task.digest)

    def forget(self, task: Task) -> None:
        """Let a task be done again; what it gives then counts.

        Args:
            task: The task.
        """
        self._records.pop(task.digest, None)

    def add(self, task: Task, outcome: Mapping[str, Any], seconds: float) -> None:
        """Remember a task.

        Args:
            task: The task.
            outcome: Plain JSON.
            seconds: Time that it took.
        """
        record = {
            "task": task.digest,
            "key": dict(task.key),
            "seconds": round(seconds, 3),
            **outcome,
        }
        line = json.dumps(record, sort_keys=True)
        # Kept as it will be read from the file, down to the order of keys.
        self._records[task.digest] = json.loads(line)
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # After a line that was cut off, a new one is begun.
        start = "" if _ends_with_a_newline(self.path) else "\n"
        append(self.path, f"{start}{line}\n".encode(), sync=True)


def _ends_with_a_newline(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return True
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


class Workers:
    """Runs tasks, in this process or in others; a context manager.

    Args:
        work: Does a task's job; sent to the processes once.
        n: Processes; 1 runs everything here, with one thread on the CPU as well: the outcomes are
            the same however many there are.
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
        self, tasks: Sequence[Task], *, stage: str = "tasks", progress: Progress | None = None
    ) -> list[dict[str, Any]]:
        """Do tasks; those that are remembered are not done again.

        Args:
            tasks: The tasks.
            stage: Their name in the progress.
            progress: Called after every task.

        Returns:
            The outcomes, in the order of the tasks.
        """
        report = progress or silent
        missing = {task.digest: task for task in tasks if self.results.get(task) is None}
        done = len(tasks) - len(missing)
        for task, outcome, seconds in self._outcomes(list(missing.values())):
            self.results.add(task, outcome, seconds)
            done += 1
            report(stage, done, len(tasks), {})
        outcomes = [self.results.get(task) for task in tasks]
        return [outcome for outcome in outcomes if outcome is not None]

    def _outcomes(self, tasks: list[Task]) -> Iterator[tuple[Task, dict[str, Any], float]]:
        if self.n == 1 or not tasks:
            for task in tasks:
                with torch_threads(1):
                    outcome, seconds = _timed(self.work, task.job)
                yield task, outcome, seconds
            return
        if self._pool is None:
            # Not fork: a child of a process with threads may hang.
            self._pool = ProcessPoolExecutor(
                self.n,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_process,
                initargs=(self.work,),
            )
        by_future = {self._pool.submit(_in_process, task.job): task for task in tasks}
        for future in as_completed(by_future):
            yield (by_future[future], *future.result())


_work: Work | None = None


def _start_process(work: Work) -> None:
    global _work
    _work = work
    # The parent receives Ctrl-C and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _in_process(job: Any) -> tuple[dict[str, Any], float]:
    assert _work is not None
    return _timed(_work, job)


def _timed(work: Work, job: Any) -> tuple[dict[str, Any], float]:
    begin = time.perf_counter()
    outcome = work(job)
    return outcome, time.perf_counter() - begin
