"""The training sets of the protocol, and the images that judge."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import vaeaug
from pipelines.balance_rare_classes import COUNTS, FASHION_MNIST

DEVELOPMENT = 1000  # images a class
LOW_SAMPLE = 25
DIGITS_COUNTS = [140, 110, 90, 70, 55, 45, 35, 28, 22, 16]
Parts = tuple[vaeaug.LabelledImages, vaeaug.LabelledImages, vaeaug.LabelledImages]


@dataclass(frozen=True)
class Regime:
    """A way to make training, development and test images of a seed.

    Attributes:
        name: On the command line.
        data: Of a seed: (training, development, test) images.
        steps: Of the probes.
        config: Of the job that makes the synthetic samples.
    """

    name: str
    data: Callable[[int], Parts]
    steps: int
    config: dict[str, Any] = field(default_factory=dict)


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


REGIMES = {
    regime.name: regime
    for regime in (
        Regime("long-tailed", lambda s: _fashion(COUNTS, s), 1600, {"plan.target_ratio": 0.25}),
        Regime(
            "low-sample",
            lambda s: _fashion([LOW_SAMPLE] * 10, s),
            800,
            {"plan.sampling_strategy": dict.fromkeys(range(10), 225)},
        ),
        Regime("digits", _digits, 600, {"plan.share": 0.5}),
    )
}
