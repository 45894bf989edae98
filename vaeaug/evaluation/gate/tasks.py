"""Trainings that do not depend on one another: each is remembered once it is done.

What is remembered is a line of JSON per training, under the hash of all that decides its outcome.
The same evaluation asked for again reads; a longer one adds.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaeaug.engines import Engine, Tasks
from vaeaug.files import append, read_whole
from vaeaug.progress import Progress, silent

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


class Trainings:
    """Does tasks on an engine; a context manager.

    Args:
        work: Does a task's job; sent to every worker once.
        results: Where outcomes are kept.
        engine: Where. Default: in this process. The outcomes are the same wherever it is.
    """

    def __init__(self, work: Work, *, results: Results, engine: Engine | None = None) -> None:
        self.results = results
        self._tasks = Tasks(_Timed(work), engine)

    def __enter__(self) -> "Trainings":
        return self

    def __exit__(self, *_: object) -> None:
        self._tasks.close()

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

        Raises:
            EngineError: If the engine cannot be started, or a task ends its worker every time.
        """
        report = progress or silent
        missing = list({task.digest: task for task in tasks if not self.results.get(task)}.values())
        done = len(tasks) - len(missing)
        for number, (outcome, seconds) in self._tasks.run([task.job for task in missing]):
            self.results.add(missing[number], outcome, seconds)
            done += 1
            report(stage, done, len(tasks), {})
        outcomes = [self.results.get(task) for task in tasks]
        return [outcome for outcome in outcomes if outcome is not None]


@dataclass(frozen=True)
class _Timed:
    """Work, and how long it took."""

    work: Work

    def __call__(self, job: Any) -> tuple[dict[str, Any], float]:
        begin = time.perf_counter()
        outcome = self.work(job)
        return outcome, time.perf_counter() - begin
