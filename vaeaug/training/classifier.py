"""Small classifier networks: their training loop, and functions that run them block by block.

It trains the classifiers of the screening and the discriminators and probes of the evaluation. It
has no checkpoints, averages or early stopping: such a training takes seconds.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.data import DataError, LabelledImages
from vaeaug.mapping import Touched, as_tensor
from vaeaug.memory import blocks, kept_memory
from vaeaug.models import SmallClassifier, exact_float32, scale_images, small_classifier
from vaeaug.progress import Progress, silent
from vaeaug.randomness import seeded_torch
from vaeaug.training.optimisers import AdamW

LEARNING_RATE, WEIGHT_DECAY = 2e-3, 1e-2
LABEL_SMOOTHING = 0.05
# Maximum batch size outside training, on a card and on a processor, whose caches hold less.
BLOCK, CPU_BLOCK = 512, 128

Batch = TypeVar("Batch")


def fit_network(
    network: nn.Module,
    batches: Iterable[Batch],
    loss: Callable[[Batch], Float[Tensor, ""]],
    *,
    steps: int,
    learning_rate: float = LEARNING_RATE,
    fused: bool | None = True,
    progress: Progress | None = None,
) -> None:
    """Train a network in place and leave it in evaluation mode.

    AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with weight decay 0.01 and the one-cycle
    schedule of the learning rate (Smith & Topin 2019, arXiv:1708.07120).

    Args:
        network: The network, on its device.
        batches: One batch per step, drawn when its step begins.
        loss: Mean loss of a batch.
        steps: Optimiser steps; as many as there are batches.
        learning_rate: Peak learning rate.
        fused: Whether AdamW updates all parameters in one kernel; None lets torch choose.
        progress: Called after every step; the stage is "classifier".
    """
    report = progress or silent
    optimiser = AdamW(
        network.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=fused
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps + 1)
    network.train()
    with exact_float32():
        for step, batch in enumerate(batches, start=1):
            optimiser.zero_grad(set_to_none=True)
            loss(batch).backward()
            optimiser.step()
            schedule.step()
            report("classifier", step, steps, {})
    network.eval()


def train_classifier(
    data: LabelledImages,
    *,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
    batch_size: int = 128,
    rows: Int64[np.ndarray, " m"] | None = None,
    width: int = 32,
    progress: Progress | None = None,
) -> SmallClassifier:
    """Train a small classifier on class-balanced, lightly shifted batches of images.

    Args:
        data: Training images.
        steps: Optimiser steps.
        seed: Seed of weights and batches.
        device: Where to train.
        batch_size: Images per step.
        rows: The images it may see; None: all.
        width: Channels of its first convolution.
        progress: Called after every step; the stage is "classifier".

    Returns:
        The classifier, in evaluation mode on the device: (n, c, *space) in [0, 1] to logits (n, k).

    Raises:
        DataError: If there are no images.
    """
    device = torch.device(device)
    rng = np.random.default_rng([seed, 1])
    rows = np.arange(len(data)) if rows is None else rows
    if not len(rows):
        raise DataError("train_classifier: expected at least one image, got none")
    rows = rows[np.argsort(data.labels[rows], kind="stable")]
    _, first, counts = np.unique(data.labels[rows], return_index=True, return_counts=True)

    touched = Touched(data.images)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(steps):
            classes = rng.integers(len(first), size=batch_size)
            chosen = rows[first[classes] + rng.integers(counts[classes])]
            images = data.images[chosen]
            touched.add(len(images))
            x = as_input(images, data.value_range, device)
            x = shifted(x, rng) if data.spectrogram is None else delayed(x, rng)
            yield x, torch.from_numpy(data.labels[chosen]).to(device)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        x, labels = batch
        return F.cross_entropy(classifier(x), labels, label_smoothing=LABEL_SMOOTHING)

    with seeded_torch(seed), kept_memory(4 * batch_size * data.images[0].size):
        classifier = small_classifier(
            data.image_shape, data.n_classes, width=width, spectrogram=data.spectrogram
        ).to(device)
        fit_network(classifier, batches(), loss, steps=steps, progress=progress)
    return classifier


def shifted(
    x: Float[Tensor, "n c *space"], rng: np.random.Generator
) -> Float[Tensor, "n c *space"]:
    """Shift a batch by up to one pixel: enough to keep a few dozen images from being memorised.

    Args:
        x: The batch.
        rng: Draws one shift per axis in space, the same for the whole batch.

    Returns:
        The batch, rolled along each axis in space.
    """
    space = tuple(range(2, x.ndim))
    return torch.roll(x, tuple(rng.integers(-1, 2, size=len(space)).tolist()), dims=space)


def delayed(x: Float[Tensor, "n c l"], rng: np.random.Generator) -> Float[Tensor, "n c l"]:
    """Shift sounds in time by up to a sixteenth of their length.

    Args:
        x: The batch.
        rng: Draws one shift for the whole batch.

    Returns:
        The batch; what leaves it at one end comes in at the other.
    """
    most = x.shape[-1] // 16
    return torch.roll(x, int(rng.integers(-most, most + 1)), dims=-1)


def as_input(
    images: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
    device: torch.device | str,
) -> Float[Tensor, "n c *space"]:
    """Images as a network takes them.

    Args:
        images: Images.
        value_range: (lowest, highest) value of the images.
        device: Where the network is.

    Returns:
        The images with channels first, scaled to [0, 1], on the device.
    """
    return scale_images(as_tensor(np.ascontiguousarray(images)).to(device), value_range)


def block_size(device: torch.device | str) -> int:
    """How many images go through a network at once outside training.

    Args:
        device: Where the network is.

    Returns:
        The number.
    """
    return CPU_BLOCK if torch.device(device).type == "cpu" else BLOCK


@exact_float32()
@torch.no_grad()
def outputs_by_block(
    network: Callable[[Tensor], Tensor],
    images: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
    *,
    device: torch.device | str,
    parts: Iterable[slice] | None = None,
) -> Float32[np.ndarray, "n ..."]:
    """Run a network over images, block by block, so that a large set is never held as floats.

    Args:
        network: Takes (b, c, *space) in [0, 1].
        images: Images, at least one.
        value_range: (lowest, highest) value of the images.
        device: Where the network is.
        parts: Rows of each block; None: blocks of at most `block_size` images.

    Returns:
        Outputs of the network, on the CPU.
    """
    if parts is None:
        parts = blocks(len(images), images[:1].size, block_size(device))
    outputs = [network(as_input(images[rows], value_range, device)).float().cpu() for rows in parts]
    return torch.cat(outputs).numpy()


def class_probabilities(
    network: Callable[[Tensor], Tensor],
    images: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
    *,
    device: torch.device | str,
    parts: Iterable[slice] | None = None,
) -> Float32[np.ndarray, "n k"]:
    """Compute class probabilities with a network that returns logits; see `outputs_by_block`.

    Args:
        network: Takes (b, c, *space) in [0, 1] and returns logits (b, k).
        images: Images, at least one.
        value_range: (lowest, highest) value of the images.
        device: Where the network is.
        parts: Rows of each block; None: blocks of at most `block_size` images.

    Returns:
        Probabilities; rows sum to 1.
    """
    return outputs_by_block(
        lambda x: torch.softmax(network(x), dim=1), images, value_range, device=device, parts=parts
    )
