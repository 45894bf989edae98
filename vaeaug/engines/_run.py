"""Run tasks on an engine: one function, and the same with workers that are kept in between."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from vaeaug.engines._engine import Engine, as_engine
from vaeaug.engines._one_thread import one_thread

# Does a task and gives its outcome. Begun again, it must give the same: paths and digests of files
# that it writes whole or not at all, or plain values.
Work = Callable[[Any], Any]


class _Runner(Protocol):
    def run(self, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]: ...

    def close(self) -> None: ...


def run_tasks(
    work: Work, jobs: Sequence[Any], engine: Engine | str | None = None
) -> Iterator[tuple[int, Any]]:
    """Do tasks that do not depend on one another.

    Each of them computes with one thread, whatever the engine, so that its outcome is the same
    everywhere. A task whose worker is killed is begun again by another one.

    Args:
        work: Does one task; sent to every worker once, with all that it holds.
        jobs: What it is called with, task by task.
        engine: Where. Default: here.

    Yields:
        (number of the task, its outcome), as they are done.

    Raises:
        EngineError: If the engine cannot be started, or a task ends its worker every time.
    """
    with Tasks(work, engine) as tasks:
        yield from tasks.run(jobs)


class Tasks:
    """The same in several parts, between which the workers wait; a context manager.

    Args:
        work: Does one task.
        engine: Where. Default: here.
    """

    def __init__(self, work: Work, engine: Engine | str | None = None) -> None:
        self.work, self.engine = work, as_engine(engine) or Engine()
        self._runner: _Runner | None = None

    def run(self, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Do tasks.

        Args:
            jobs: What the work is called with, task by task.

        Yields:
            (number of the task, its outcome), as they are done.

        Raises:
            EngineError: If the engine cannot be started, or a task ends its worker every time.
        """
        if not jobs:
            return
        if self._runner is None:
            self._runner = self._started()
        yield from self._runner.run(jobs)

    def close(self) -> None:
        """End the workers, and with them the tasks at which they are."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def __enter__(self) -> "Tasks":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> _Runner:
        if self.engine.name == "local" or (
            self.engine.name == "process" and self.engine.at_once == 1
        ):
            return _Here(self.work)
        if self.engine.name == "process":
            from vaeaug.engines._processes import Processes

            return Processes(self.work, self.engine.at_once)
        from vaeaug.engines._ray import Cluster

        return Cluster(self.work, self.engine)


class _Here:
    """The engine "local"."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def run(self, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for number, job in enumerate(jobs):
            with one_thread():
                outcome = self.work(job)
            yield number, outcome

    def close(self) -> None:
        pass
