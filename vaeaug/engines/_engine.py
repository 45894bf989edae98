"""What an engine is: a name, and how much of the machines its tasks may take."""

import math
import os
from dataclasses import dataclass

ENGINES = ("local", "process", "ray")


class EngineError(RuntimeError):
    """Tasks cannot be run, or one of them ends its worker every time."""


@dataclass(frozen=True)
class Engine:
    """Where tasks run. Whichever it is, they give the same bytes.

    Attributes:
        name: "local": in this process, one after another. "process": in processes of this machine.
            "ray": on a Ray cluster.
        workers: Tasks at once. None: one per core of this machine; with "ray" as many as the
            cluster has room for.
        address: Of the Ray cluster, such as "auto" or "ray://head:10001". None: Ray is started on
            this machine.
        cpus: Cores of the cluster that a task takes; Ray alone counts them.
        gpus: GPUs that a task takes, such as 0.25; Ray alone counts them.

    Raises:
        EngineError: If a value is out of range, or does not go with the name.
    """

    name: str = "local"
    workers: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise EngineError(f"engine: expected one of {', '.join(ENGINES)}, got {self.name!r}")
        if self.workers is not None and self.workers < 1:
            raise EngineError(f"engine: workers: expected 1 or more, got {self.workers}")
        for key, least in (("cpus", "more than 0"), ("gpus", "0 or more")):
            value = getattr(self, key)
            if not math.isfinite(value) or value < 0 or (key == "cpus" and value == 0):
                raise EngineError(f"engine: {key}: expected {least}, got {value}")
        if self.name != "ray" and (self.address is not None or self.gpus or self.cpus != 1):
            raise EngineError(
                f"engine: address, cpus and gpus: expected with 'ray' alone, got {self}"
            )

    @property
    def at_once(self) -> int:
        """Tasks that run at once, as far as this machine knows."""
        if self.name == "local":
            return 1
        return self.workers or cores()


def as_engine(engine: "Engine | str | None") -> Engine | None:
    """Take the name of an engine for the engine.

    Args:
        engine: An engine, its name, or None.

    Returns:
        The engine; None for None.

    Raises:
        EngineError: If there is none of that name.
    """
    return Engine(engine) if isinstance(engine, str) else engine


def cores() -> int:
    """Count the cores that this process may use.

    Returns:
        At least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
