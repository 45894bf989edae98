"""The engine "process": workers of this machine. One that is killed is replaced."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from vaeaug.engines._engine import EngineError
from vaeaug.engines._one_thread import one_thread
from vaeaug.engines._payload import Payload

# Times that a task is begun before it is given up.
MOST_ATTEMPTS = 3
_READY = "ready"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Processes:
    """Workers that wait for tasks.

    Args:
        work: Does a task; sent to every worker once.
        n: Workers.
    """

    def __init__(self, work: Callable[[Any], Any], n: int) -> None:
        self._n = n
        try:
            self._payload = Payload.of(work)
        except (AttributeError, TypeError) as error:
            raise EngineError(
                f"engine 'process': expected work that can be sent to another process (a function "
                f"at the top of a module, no lambda), got: {error}"
            ) from error
        self._idle: list[_Worker] = []
        self._busy: dict[_Worker, int] = {}

    def run(self, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Do tasks.

        Args:
            jobs: The tasks.

        Yields:
            (number of the task, its outcome), as they are done.

        Raises:
            EngineError: If a task ends its worker every time.
        """
        todo = deque(range(len(jobs)))
        attempts = Counter[int]()
        try:
            while todo or self._busy:
                while todo and len(self._busy) < self._n:
                    worker = self._idle.pop() if self._idle else _Worker(self._payload)
                    if worker.give(jobs[todo[0]]):
                        self._busy[worker] = todo.popleft()
                for worker in _ready(list(self._busy)):
                    number = self._busy.pop(worker)
                    try:
                        outcome = worker.take()
                    except (EOFError, OSError):
                        attempts[number] += 1
                        why = worker.why_it_ended()
                        if attempts[number] == MOST_ATTEMPTS or worker.never_began:
                            raise EngineError(
                                f"engine 'process': task {number + 1} of {len(jobs)}: expected an "
                                f"outcome, but its worker process ended {attempts[number]} "
                                f"{'time' if attempts[number] == 1 else 'times'}: {why}"
                            ) from None
                        todo.appendleft(number)
                        continue
                    self._idle.append(worker)
                    yield number, outcome
        finally:
            # What they would answer belongs to nobody any more.
            for worker in self._busy:
                worker.kill()
            self._busy = {}

    def close(self) -> None:
        """End the workers."""
        for worker in (*self._idle, *self._busy):
            worker.kill()
        self._idle, self._busy = [], {}
        self._payload.discard()


def _ready(workers: Sequence["_Worker"]) -> list["_Worker"]:
    by_connection = {worker.connection: worker for worker in workers}
    return [by_connection[each] for each in wait(list(by_connection))]  # type: ignore[index]


class _Worker:
    """One process."""

    def __init__(self, payload: Payload) -> None:
        # Not fork: a child of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, payload), daemon=True)
        with _undisturbed():
            self._process.start()
        # The end of the pipe is then the worker's alone: reading meets its end with the worker.
        theirs.close()
        self._is_ready = False

    def give(self, job: Any) -> bool:
        """Send a task; False if the worker has ended."""
        try:
            self.connection.send(job)
        except (BrokenPipeError, ConnectionResetError):
            self.kill()
            return False
        except Exception:  # a task that cannot be sent
            self.kill()
            raise
        return True

    def take(self) -> Any:
        """The outcome of the task; its error is raised.

        Raises:
            EOFError: If the worker ended.
        """
        if not self._is_ready:
            self._is_ready = self.connection.recv() == _READY
        is_done, answer = self.connection.recv()
        if is_done:
            return answer
        error, text = answer
        error.add_note(f"in a worker process:\n{text}")
        raise error

    @property
    def never_began(self) -> bool:
        """Whether the process failed before it could take a task, as every other one will."""
        return not self._is_ready and self._process.exitcode == 1

    def why_it_ended(self) -> str:
        self._process.join(10)
        code = self._process.exitcode
        self.kill()
        if self.never_began:
            return (
                "it could not start (its own message is above); a script that starts workers needs "
                'its main part under `if __name__ == "__main__":`'
            )
        if code == -signal.SIGKILL:
            return (
                "it was killed, as the system does where memory runs out; try fewer workers, or "
                "look at the system's log"
            )
        return f"exit code {code}"

    def kill(self) -> None:
        self.connection.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Inside, a process is started whole: signals come afterwards, and it begins with none of them.

    Half of what it is sent to start with, or Ctrl-C while it imports, it would answer with a
    traceback of its own.
    """
    held: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if callable(signal.getsignal(number)):
                before[number] = signal.signal(number, lambda number, _: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for each, handler in before.items():
            signal.signal(each, handler)
        for each in held:
            signal.raise_signal(each)


def _serve(connection: Connection, payload: Payload) -> None:
    """Do tasks until the driver closes the pipe, or ends."""
    # The driver receives Ctrl-C and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    connection.send(_READY)
    work: Any = None
    with one_thread(), suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = connection.recv()
            try:
                work = payload.load() if work is None else work
                answer: tuple[bool, Any] = (True, work(job))
            except Exception as error:
                answer = (False, (_portable(error), traceback.format_exc()))
            connection.send(answer)


def _end_with_the_driver() -> None:
    """A driver that is killed closes no pipe of a worker that computes."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait([driver.sentinel])
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error itself, if it arrives as it is elsewhere."""
    import pickle

    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # made here
    except Exception:
        return EngineError(f"{type(error).__name__}: {error}")
    return error if type(copy) is type(error) else EngineError(f"{type(error).__name__}: {error}")
