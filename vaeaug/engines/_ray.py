"""The engine "ray": tasks on a Ray cluster, or on cores of this machine that Ray looks after."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from vaeaug.engines._engine import Engine, EngineError
from vaeaug.engines._one_thread import one_thread
from vaeaug.engines._payload import pickled, unpickled

# Times that a task is begun again where its worker, or its machine, was lost.
RETRIES = 2
# The work of the driver that this process of the cluster last worked for: (its number, the work).
_known: tuple[str, Any] | None = None


class Cluster:
    """Ray, connected.

    Args:
        work: Does a task; laid into Ray's object store once.
        engine: Address, and what a task takes.

    Raises:
        EngineError: If Ray is not installed, cannot be reached, or has no machine for a task.
    """

    def __init__(self, work: Callable[[Any], Any], engine: Engine) -> None:
        self._ray = _imported()
        self._workers = engine.workers
        self._began = False if self._ray.is_initialized() else self._connect(engine)
        try:
            self._check_room(engine)
            data, buffers = pickled(work)
            # As arrays of bytes, which Ray lays into memory that the processes of a machine share.
            parts = [np.frombuffer(part, np.uint8) for part in (memoryview(data), *buffers)]
            self._work = self._ray.put(parts)
            self._task = self._ray.remote(_on_worker).options(
                num_cpus=engine.cpus, num_gpus=engine.gpus, max_retries=RETRIES
            )
        except BaseException:
            self.close()
            raise

    def run(self, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Do tasks.

        Args:
            jobs: The tasks.

        Yields:
            (number of the task, its outcome), as they are done.

        Raises:
            EngineError: If a task ends its worker every time.
        """
        ray, waiting = self._ray, list(enumerate(jobs))[::-1]
        most = self._workers or len(jobs)
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    number, job = waiting.pop()
                    reference = self._task.remote([self._work], _versions(), pickled(job)[0])
                    running[reference] = number
                done, _ = ray.wait(list(running), num_returns=1)
                for reference in done:
                    number = running.pop(reference)
                    yield number, self._outcome(reference, number, len(jobs))
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._began:
            self._ray.shutdown()
            self._began = False

    def _connect(self, engine: Engine) -> bool:
        # What is asked of a machine on which Ray starts is not asked of a program.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if engine.address is None:
            options |= {"num_cpus": engine.at_once, "include_dashboard": False}
        try:
            self._ray.init(address=engine.address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = (
                "to start on this machine"
                if engine.address is None
                else (
                    f"to answer at {engine.address!r} (RAY_AUTH_MODE has to be the same everywhere)"
                )
            )
            raise EngineError(f"engine 'ray': expected Ray {where}, got: {error}") from error
        return True

    def _check_room(self, engine: Engine) -> None:
        """A task that no machine has room for would wait for ever."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(
            node.get("CPU", 0) >= engine.cpus and node.get("GPU", 0) >= engine.gpus
            for node in nodes
        ):
            return
        rooms = [f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes]
        raise EngineError(
            f"engine 'ray': expected a machine with {engine.cpus:g} cores and {engine.gpus:g} GPUs "
            f"for a task, got machines with {', '.join(rooms) or 'nothing'}"
        )

    def _outcome(self, reference: Any, number: int, n: int) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from error
        except self._ray.exceptions.RayError as error:
            raise EngineError(
                f"engine 'ray': task {number + 1} of {n}: expected an outcome, but its worker "
                f"ended {RETRIES + 1} times: {error}"
            ) from error


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            "engine 'ray': expected Ray, which is not installed: pip install 'vaeaug[ray]'"
        ) from error
    return ray


def _on_worker(work: list[Any], versions: dict[str, str], job: bytes) -> Any:
    """Do a task in a process of the cluster, which unpacks the work once."""
    global _known
    mine = _versions()
    if mine != versions:
        raise EngineError(
            f"engine 'ray': expected the driver's versions {versions} on every machine, got {mine}"
        )
    import ray

    name = work[0].hex()
    if _known is None or _known[0] != name:
        data, *buffers = ray.get(work[0])
        # Copied, since what lies in the store is read-only.
        _known = (name, unpickled(data.tobytes(), [bytearray(buffer) for buffer in buffers]))
    with one_thread():
        return _known[1](unpickled(job, []))


def _versions() -> dict[str, str]:
    """What must be the same on every machine for the same bytes."""
    from importlib.metadata import version

    return {name: version(name) for name in ("vaeaug", "numpy", "torch")}
