"""Small tasks for workers, which import them by name."""

import hashlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Products:
    """Products of a large matrix, which every worker gets once.

    Attributes:
        matrix: Large enough to be sent apart.
    """

    matrix: np.ndarray

    def __call__(self, job: int) -> dict[str, Any]:
        rng = np.random.default_rng(job)
        a = rng.standard_normal(self.matrix.shape).astype(np.float32)
        product = torch.from_numpy(self.matrix) @ torch.from_numpy(a)
        both = product.numpy() + a @ self.matrix
        return {
            "digest": hashlib.sha256(both.tobytes()).hexdigest(),
            "threads": torch.get_num_threads(),
        }


@dataclass(frozen=True)
class Killed:
    """Its worker is killed in the middle of one task.

    Attributes:
        folder: Where tasks write.
        victim: Which task.
        times: How often it is killed.
    """

    folder: str
    victim: int
    times: int

    def __call__(self, job: int) -> str:
        begun = Path(self.folder) / f"begun-{job}"
        n = len(begun.read_text()) if begun.exists() else 0
        begun.write_text("x" * (n + 1))
        if job == self.victim and n < self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{job}: {n + 1}"


def refuse(job: int) -> int:
    if job == 1:
        raise ValueError(f"expected no {job}")
    return job


def report_and_sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(300)
