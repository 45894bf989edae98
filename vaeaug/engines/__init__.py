"""Engines: where tasks that do not depend on one another run. They change no result."""

from vaeaug.engines._engine import ENGINES, Engine, EngineError, as_engine, cores
from vaeaug.engines._one_thread import one_thread
from vaeaug.engines._run import Tasks, Work, run_tasks

__all__ = [
    "ENGINES",
    "Engine",
    "EngineError",
    "Tasks",
    "Work",
    "as_engine",
    "cores",
    "one_thread",
    "run_tasks",
]
