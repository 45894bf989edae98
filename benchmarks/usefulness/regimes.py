"""The training sets of the protocol, and the images that judge."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

import vaeaug
from benchmarks.usefulness import glyphs, signals
from pipelines.balance_rare_classes import COUNTS, FASHION_MNIST

DEVELOPMENT = 1000  # images a class
LOW_SAMPLE = 25
DIGITS_COUNTS = [140, 110, 90, 70, 55, 45, 35, 28, 22, 16]
GLYPH_COUNTS = [400] * 28 + [40] * 14 + [5] * 14
FEW_SHOTS = (1, 2, 5, 20)
Parts = tuple[vaeaug.LabelledImages, vaeaug.LabelledImages, vaeaug.LabelledImages]


@dataclass(frozen=True)
class Regime:
    """A way to make training, development and test images of a seed.

    Attributes:
        name: On the command line.
        data: Of a seed: (training, development, test) images.
        steps: Of the probes.
        config: Of the job that makes the synthetic samples.
        against: How arms are compared: by the gate's probe with its recipes, or with the tuned
            opponents for images or for signals (`opponents.py`).
        batch: Batch size, against tuned opponents.
    """

    name: str
    data: Callable[[int], Parts]
    steps: int
    config: dict[str, Any] = field(default_factory=dict)
    against: Literal["gate", "images", "signals"] = "gate"
    batch: int = 128


def _fashion(counts: list[int], seed: int) -> Parts:
    whole = vaeaug.read(FASHION_MNIST, split="train")
    order = np.random.default_rng(seed).permutation(whole.n_classes)
    wanted = {int(label): count for label, count in zip(order, counts, strict=True)}
    # As `imbalanced` draws: of a class the first so many of its shuffled images.
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(whole.labels == c)) for c in range(10)]
    train = whole.imbalanced(wanted, seed=seed)
    development = whole.subset(np.sort(np.concatenate([rows[-DEVELOPMENT:] for rows in shuffled])))
    return train, development, vaeaug.read(FASHION_MNIST, split="test")


def _digits(seed: int) -> Parts:
    whole = vaeaug.read("digits", split="train")
    order = np.random.default_rng(seed).permutation(10)
    wanted = {int(label): n for label, n in zip(order, DIGITS_COUNTS, strict=True)}
    test, development = vaeaug.read("digits", split="test").split_off(0.2, seed=seed)
    return whole.imbalanced(wanted, seed=seed), development, test


def regimes(glyphs_file: Path = glyphs.DEFAULT) -> dict[str, Regime]:
    """Every regime by name.

    Args:
        glyphs_file: What `python -m benchmarks.usefulness.glyphs` wrote; read when a seed of a
            regime of glyphs is asked for.

    Returns:
        Name to regime.
    """
    found = [
        Regime("long-tailed", partial(_fashion, COUNTS), 1600, {"plan.target_ratio": 0.25}),
        Regime(
            "low-sample",
            partial(_fashion, [LOW_SAMPLE] * 10),
            800,
            {"plan.sampling_strategy": dict.fromkeys(range(10), 225)},
        ),
        Regime("digits", _digits, 600, {"plan.share": 0.5}),
        Regime(
            "glyphs-long-tailed",
            partial(glyphs.parts, glyphs_file, GLYPH_COUNTS),
            600,
            against="images",
        ),
    ]
    found += [
        Regime(
            f"glyphs-few-{k}",
            partial(glyphs.parts, glyphs_file, [400] * 28 + [k] * 28),
            600,
            against="images",
        )
        for k in FEW_SHOTS
    ]
    found += [
        Regime(f"signals-{name}", partial(signals.parts, name), 300, against="signals", batch=32)
        for name in signals.NAMES
    ]
    return {regime.name: regime for regime in found}


REGIMES = regimes()
