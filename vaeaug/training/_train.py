"""Training as a whole: which stages, of which models, in which order."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.models import CVAE, SeparateCVAE
from vaeaug.training._batches import Batches, mix, resolve_device
from vaeaug.training._held_out import mean_finite
from vaeaug.training._loop import Loop, Progress
from vaeaug.training._state import Stage, State


@dataclass(frozen=True)
class Trained:
    """A trained model and what is known of its training.

    Attributes:
        model: In evaluation mode, with the averaged weights that were best on held-out images.
        stages: By name, in order.
    """

    model: CVAE | SeparateCVAE
    stages: dict[str, State]

    def summary(self) -> list[str]:
        """A line per stage."""
        return [
            f"{name}: {state.step} steps, held-out ELBO {mean_finite(state.first):.1f} -> "
            f"{mean_finite(state.best):.1f} nats{' (mean over classes)' * (len(state.best) > 1)}"
            + (f", {state.skipped} steps skipped" if state.skipped else "")
            for name, state in self.stages.items()
        ]


def train(
    data: LabelledImages,
    config: AugmentConfig,
    *,
    device: str | torch.device = "auto",
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train the generator on `data` as ``config.model.grouping`` says.

    "shared" trains one model on all classes. "adapted" then freezes its trunk and fits each class's
    own parameters. "separate" trains a model of its own for each class.

    Args:
        data: The training split. A part of it is held out for early stopping.
        config: The job.
        device: "auto", "cpu", "cuda" or a torch device.
        folder: Checkpoints go to ``folder/checkpoints``, the log to ``folder/metrics.jsonl``; what
            is there is resumed. None: nothing is written.
        progress: Called after every step.

    Raises:
        TrainingError: If the loss stays non-finite or exploding, or a checkpoint cannot be used.
    """
    device = resolve_device(device)
    loop = Loop(Batches(data, config, device), config, folder, progress)
    model = _new_model(data, config).to(device)
    steps = config.training.steps or default_steps(len(data), config.training.batch_size)
    stages: dict[str, State] = {}
    if isinstance(model, SeparateCVAE):
        for label, steps_of_class in enumerate(_separate_steps(data.counts, steps)):
            if data.counts[label]:
                stage = Stage(f"class-{label:03d}", steps_of_class, (label,), is_one_class=True)
                stages[stage.name] = loop.run(stage, model.of_class(label))
        return Trained(model.eval(), stages)
    classes = tuple(range(data.n_classes))
    stages["trunk"] = loop.run(Stage("trunk", steps, classes), model)
    if config.model.grouping == "adapted":
        adapt_steps = config.training.adapt_steps or max(100, steps // 4)
        stages["adapt"] = loop.run(Stage("adapt", adapt_steps, classes, adapt=True), model)
    return Trained(model.eval(), stages)


def default_steps(n_images: int, batch_size: int) -> int:
    """About 20 passes over the images, between 2,000 and 20,000 steps."""
    return min(20_000, max(2_000, round(20 * n_images / batch_size)))


def _new_model(data: LabelledImages, config: AugmentConfig) -> CVAE | SeparateCVAE:
    keys = {
        "latent_dim": config.model.latent_dim,
        "width": config.model.width,
        "max_width": config.model.max_width,
        "class_embedding": config.model.class_embedding,
    }
    # Initial weights come from torch's global generator; what it was is put back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(config.seed, "weights", 0))
        if config.model.grouping == "separate":
            return SeparateCVAE.build(data.image_shape, data.n_classes, **keys)
        return CVAE(data.image_shape, data.n_classes, **keys)


def _separate_steps(counts: np.ndarray, steps: int) -> list[int]:
    """Steps of each class's own model.

    Twice the trunk's in all, split by the root of the counts, so that the groupings cost about the
    same and a rare class is not trained for longer than it can bear.
    """
    roots = np.sqrt(counts)
    least = min(250, steps)
    return [max(least, math.ceil(2 * steps * root / roots.sum())) for root in roots]
