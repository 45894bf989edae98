"""The probe: a small classifier, trained as a careful user would, with or without synthetic data.

An `Arm` says how; `train_probe` does it. All arms have the same network, steps and schedule, and
the same random numbers as far as they draw the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.config import EvaluationConfig
from vaeaug.data import LabelledImages
from vaeaug.evaluation.gate.arms import Arm
from vaeaug.evaluation.gate.augmentation import augment, mixing
from vaeaug.evaluation.gate.heads import Parts, train_head
from vaeaug.evaluation.gate.probe_networks import ProbeFactory, build_probe, is_head
from vaeaug.memory import blocks
from vaeaug.models import scale_images
from vaeaug.randomness import seeded_torch
from vaeaug.stages import SyntheticSet
from vaeaug.strata import rare_classes
from vaeaug.training.classifier import class_probabilities, fit_network

# Beta of the effective number of samples (Cui et al. 2019, arXiv:1901.05555).
EFFECTIVE_BETA = 0.999
# Batch size of a probe's predictions, at most.
PREDICTED_AT_ONCE = 500


def train_probe(
    train: LabelledImages,
    synthetic: SyntheticSet | None,
    arm: Arm,
    config: EvaluationConfig,
    *,
    seed: int,
    steps: int,
    factory: ProbeFactory | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Train one probe.

    Args:
        train: Real training images.
        synthetic: Synthetic samples; needed where the arm has a recipe.
        arm: How it is trained.
        config: Batch size, learning rate and width.
        seed: Seed of the weights and the draws; arms with the same seed are paired.
        steps: Optimiser steps of an arm of length 1.
        factory: Builds another network: ``factory(image_shape, n_classes)``.
        device: Where to train.

    Returns:
        The network, in evaluation mode: (n, c, *space) in [0, 1] to logits (n, k).

    Raises:
        ValueError: If the arm has a recipe and there are no synthetic samples.
    """
    device = torch.device(device)
    steps = max(1, round(steps * arm.length))
    if is_head(train.image_shape, factory):

        def parts_of(part: LabelledImages) -> Parts:
            batches = _Batches(
                part, synthetic, arm, size=config.batch_size, seed=seed, device=device
            )
            mix = mixing(arm, part.n_classes, 1)
            return Parts(batches.draw, _cross_entropy(arm, part, device), mix)

        return train_head(
            train, synthetic, arm, config, parts_of=parts_of, seed=seed, steps=steps, device=device
        )
    with seeded_torch(seed % 2**63, foreign=factory is not None):
        model = build_probe(
            train.image_shape,
            train.n_classes,
            width=config.width,
            factory=factory,
            spectrogram=train.spectrogram,
        ).to(device)
        batches = _Batches(train, synthetic, arm, size=config.batch_size, seed=seed, device=device)
        fit_network(
            model,
            (batches.draw(step / steps) for step in range(steps)),
            _Loss(model, arm, train, device),
            steps=steps,
            learning_rate=config.learning_rate,
            fused=None,
        )
    return model


def predict(
    model: nn.Module, data: LabelledImages, *, device: torch.device | str = "cpu"
) -> Float[np.ndarray, "n k"]:
    """Predict the classes of images.

    Args:
        model: A probe, on the device.
        data: The images; their labels are not looked at.
        device: Where the probe is.

    Returns:
        Class probabilities of every image.
    """
    parts = blocks(len(data), data.images[:1].size, PREDICTED_AT_ONCE)
    probabilities = class_probabilities(
        model, data.images, data.value_range, device=device, parts=parts
    )
    return probabilities.astype(np.float64)


def train_and_predict(
    train: LabelledImages,
    synthetic: SyntheticSet | None,
    held_out: LabelledImages,
    arm: Arm,
    *,
    config: EvaluationConfig,
    seed: int,
    steps: int,
    factory: ProbeFactory | None = None,
    device: torch.device | str = "cpu",
) -> Float[np.ndarray, "n k"]:
    """Train one probe and predict held-out images; arguments are those of `train_probe`.

    Args:
        train: Real training images.
        synthetic: Synthetic samples; needed where the arm has a recipe.
        held_out: Images to predict.
        arm: How the probe is trained.
        config: Batch size, learning rate and width.
        seed: Seed of the weights and the draws.
        steps: Optimiser steps of an arm of length 1.
        factory: Builds another network.
        device: Where to train.

    Returns:
        Class probabilities of the held-out images.
    """
    model = train_probe(
        train, synthetic, arm, config, seed=seed, steps=steps, factory=factory, device=device
    )
    return predict(model, held_out, device=device)


# -- The loss --------------------------------------------------------------------------------------


class _Loss:
    """The loss of a batch: what the arm does to images, classes, logits and batch norm."""

    def __init__(
        self, model: nn.Module, arm: Arm, train: LabelledImages, device: torch.device
    ) -> None:
        self.model, self.arm = model, arm
        self.are_images = len(train.image_shape) == 3
        self.mix = mixing(arm, train.n_classes, len(train.image_shape) - 1)
        self.cross_entropy = _cross_entropy(arm, train, device)
        self.norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.separate = arm.recipe is not None and arm.recipe.separate_batch_norm

    def __call__(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, target, synthetic = batch
        x = augment(self.arm, x, are_images=self.are_images)
        if not (self.separate and self.norms and synthetic.any()):
            return self._sum(x, target) / len(x)
        loss = x.new_zeros(())
        if not synthetic.all():
            loss = loss + self._sum(x[~synthetic], target[~synthetic])
        with _frozen_statistics(self.norms):
            loss = loss + self._sum(x[synthetic], target[synthetic])
        return loss / len(x)

    def _sum(self, x: Tensor, target: Tensor) -> Tensor:
        x, target = self.mix(x, target)
        return self.cross_entropy(self.model(x), target)


def _cross_entropy(
    arm: Arm, train: LabelledImages, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """The summed cross-entropy with what the arm does to logits or classes."""
    counts = torch.from_numpy(train.counts).double().to(device)
    shift = torch.zeros_like(counts)
    weight = torch.ones_like(counts)
    if arm.balance == "logit adjustment":
        # Menon et al. 2021 (arXiv:2007.07314), eq. 10 with tau = 1: logits + log class shares.
        shift = (counts.clamp(min=1) / counts.sum()).log()
    if arm.balance == "effective number":
        # Class-balanced loss, Cui et al. 2019 (arXiv:1901.05555): (1 - beta) / (1 - beta**n).
        weight = torch.where(counts > 0, (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**counts), 0.0)
        # Mean 1 over draws, so that the learning rate keeps its meaning.
        weight = weight * counts.sum() / (weight * counts).sum()
    shift, weight = shift.float(), weight.float()

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return -(weight * target * F.log_softmax(logits + shift, dim=1)).sum()

    return loss


@contextmanager
def _frozen_statistics(norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Batch norm does not update its running statistics here (cf. arXiv:2112.08810)."""
    tracked = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, before in zip(norms, tracked, strict=True):
            norm.track_running_stats = before


# -- The draws -------------------------------------------------------------------------------------


class _Batches:
    """The batches: scaled images, weighted class probabilities, and which are synthetic."""

    def __init__(
        self,
        train: LabelledImages,
        synthetic: SyntheticSet | None,
        arm: Arm,
        *,
        size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.arm, self.size, self.device = arm, size, device
        self.value_range = train.value_range
        # Draws of real images do not depend on whether synthetic ones are drawn too.
        self.rng, self.synthetic_rng = (
            np.random.default_rng([seed, stream]) for stream in (11, 12)
        )
        self.images = torch.from_numpy(train.images).to(device)
        self.targets = F.one_hot(torch.from_numpy(train.labels), train.n_classes).float().to(device)
        self.labels = train.labels
        self.rows = _RowsByClass(train.labels, np.ones(train.n_classes, bool))
        self.present = np.flatnonzero(train.counts)
        recipe = arm.recipe
        self.share = 0.0 if recipe is None or recipe.is_none else recipe.share
        if recipe is None or not self.share:
            return
        if synthetic is None:
            raise ValueError(f"probe: expected synthetic samples for the arm {arm.name!r}")
        k = train.n_classes
        self.synthetic_images = torch.from_numpy(synthetic.images).to(device)
        if recipe.soft and synthetic.soft_labels is not None:
            targets = torch.from_numpy(synthetic.soft_labels)
        else:
            targets = F.one_hot(torch.from_numpy(synthetic.labels), k).float()
        self.synthetic_targets = (targets * recipe.weight).to(device)
        chosen = np.ones(k, bool) if recipe.classes == "all" else rare_classes(train.counts)
        self.synthetic_rows = _RowsByClass(synthetic.labels, chosen)

    def draw(self, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """A batch at this point of the training, 0 to 1."""
        rows = self._real_rows()
        x, target = self.images[rows], self.targets[rows]
        is_synthetic = np.zeros(len(rows), bool)
        recipe = self.arm.recipe
        if recipe is not None and self.share and progress < 1 - recipe.real_only_last:
            if self.arm.beside:
                n_beside = round(self.size * self.share / (1 - self.share))
                classes = self.synthetic_rng.choice(self.labels[rows], n_beside)
                chosen, _ = self._synthetic_rows(classes)
                x = torch.cat([x, self.synthetic_images[chosen]])
                target = torch.cat([target, self.synthetic_targets[chosen]])
                is_synthetic = np.concatenate([is_synthetic, np.ones(len(chosen), bool)])
            else:
                places = np.flatnonzero(self.synthetic_rng.random(len(rows)) < self.share)
                chosen, available = self._synthetic_rows(self.labels[rows[places]])
                places = places[available]
                x[places] = self.synthetic_images[chosen]
                target[places] = self.synthetic_targets[chosen]
                is_synthetic[places] = True
        mask = torch.from_numpy(is_synthetic).to(self.device)
        return scale_images(x, self.value_range), target, mask

    def _real_rows(self) -> np.ndarray:
        if self.arm.balance != "oversampling":
            return self.rng.integers(len(self.labels), size=self.size)
        classes = self.rng.choice(self.present, self.size)
        return self.rows.draw(classes, self.rng)

    def _synthetic_rows(self, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw a synthetic row for each class that has any; also tell which classes have any."""
        available = self.synthetic_rows.counts[classes] > 0
        return self.synthetic_rows.draw(classes[available], self.synthetic_rng), available


class _RowsByClass:
    """Rows by class, to draw at random from any of them at once."""

    def __init__(self, labels: Int64[np.ndarray, " n"], classes: Bool[np.ndarray, " k"]) -> None:
        self.order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels, minlength=len(classes))
        self.starts = np.cumsum(counts) - counts
        self.counts = np.where(classes, counts, 0)

    def draw(
        self, classes: Int64[np.ndarray, " m"], rng: np.random.Generator
    ) -> Int64[np.ndarray, " m"]:
        """Draw a row for each of these classes, all of which have rows."""
        return self.order[self.starts[classes] + rng.integers(self.counts[classes])]
