"""A whole job that takes about a second: real digits of a few classes, a tiny model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages, read

# Screening lets everything pass, so that what is planned is what is made. With this rate and this
# weight of the swap so few steps do not end in samples that are nearly all alike.
TINY: dict[str, Any] = {
    "model.width": 8,
    "model.latent_dim": 4,
    "model.class_embedding": 4,
    "training.steps": 12,
    "training.learning_rate": 0.002,
    "training.label_swap": 20.0,
    "training.adapt_steps": 6,
    "training.batch_size": 8,
    "training.eval_every": 4,
    "training.checkpoint_every": 5,
    "restoration.steps": 0,
    "screening.folds": 2,
    "screening.classifier_steps": 4,
    "screening.near_copy_factor": 0.0,
    "screening.duplicate_factor": 0.0,
    "recipe.min_label_probability": 0.0,
    "plan.min_class_count": 8,
}
COUNTS = (24, 16, 10, 5)
NAMES = ("zero", "one", "two", "three")


def faint(data: LabelledImages) -> LabelledImages:
    """The images nearly drowned in noise: no latent is worth its nats, and the posterior collapses.

    Returns:
        Images of the same classes, uint8.
    """
    noise = 90 * np.random.default_rng(0).standard_normal(data.images.shape)
    pixels = 128 + 0.1 * (data.images.astype(float) - 128) + noise
    return read((pixels.clip(0, 255).astype(np.uint8), data.labels))


def tiny_config(**keys: Any) -> AugmentConfig:
    """The tiny job with dotted keys changed."""
    return AugmentConfig().changed(**(TINY | keys))


def as_options(**keys: Any) -> list[str]:
    """The same for the command line."""
    return [f"--set={key}={value}" for key, value in (TINY | keys).items()]


def digits(
    counts: Sequence[int] = COUNTS, *, dtype: str = "uint8", channels: int = 1
) -> LabelledImages:
    """Real digits of the first classes, so many of each."""
    data = read("digits").imbalanced([*counts, *[0] * (10 - len(counts))], seed=0)
    images = np.repeat(data.images, channels, axis=3)
    if dtype == "float32":
        images = (images / 255).astype(np.float32)
    return LabelledImages(
        images=images,
        labels=data.labels,
        class_names=NAMES[: len(counts)],
        value_range=(0, 255) if dtype == "uint8" else (0, 1),
        split="train",
        source="four digits",
    )


def contents(folder: Path) -> dict[str, bytes]:
    """All that a run publishes, byte for byte; its checkpoints and the lock are not published."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "checkpoints" not in path.parts and path.name != ".lock"
    }
