from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Tree = Callable[..., Path]


def pixels(seed: int, *shape: int, dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, size=shape, dtype=dtype, endpoint=True)


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """noise(seed, *shape, dtype="uint8"): random pixels."""
    return pixels


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """tree({"a": 3, "b": 2}, "train"): PNG files, a folder for each class; returns the root."""

    def make(counts: dict[str, int], below: str = "", shape: tuple[int, ...] = (5, 7, 3)) -> Path:
        root = tmp_path / "tree"
        for k, (name, n) in enumerate(counts.items()):
            folder = root / below / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(n):
                Image.fromarray(pixels(1000 * k + i, *shape)).save(folder / f"{i:03d}.png")
        return root

    return make
