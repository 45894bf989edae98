"""Linear heads on feature vectors, trained as someone with a frozen backbone would.

Every head sees standardised features, and its weight decay is chosen on a part of the training
features that is held out for it. The candidates are trained at once, on the same draws: a head is
small beside the drawing of its batches.

With a frozen backbone the second stage of cRT (Kang et al. 2020, arXiv:1910.09217) is a new head on
class-balanced draws, which is the arm of oversampling. Tau-normalisation and the nearest class mean
are from the same paper.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from vaeaug.config import EvaluationConfig
from vaeaug.data import LabelledImages
from vaeaug.evaluation.gate.arms import Arm
from vaeaug.memory import blocks
from vaeaug.models import scale_images
from vaeaug.randomness import seeded_torch
from vaeaug.stages import SyntheticSet
from vaeaug.strata import stratified_folds
from vaeaug.training.optimisers import Adam

# Weight decays to choose from, per unit of learning rate (AdamW).
WEIGHT_DECAYS = (1e-1, 1.0, 3.0, 10.0)
# Exponents of tau-normalisation to choose from.
TAUS = (0.0, 0.25, 0.5, 0.75, 1.0)
# One in so many groups is held out for the choice.
INNER_FOLDS = 5
# Most steps of a head of length 1: it has converged long before.
MOST_STEPS = 800
# Peak learning rate, relative to that of a small network.
RATE = 2.0
# Added to the variance of each feature, as a part of the mean variance: units that are nearly
# constant stay small.
LEAST_PART = 0.01

# draw(progress) gives scaled features (n, f), weighted class probabilities (n, k) and which are
# synthetic (n,).
Draw = Callable[[float], tuple[Tensor, Tensor, Tensor]]
CrossEntropy = Callable[[Tensor, Tensor], Tensor]
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Parts:
    """What an arm needs of a set of training features.

    Attributes:
        draw: The batches.
        cross_entropy: Summed cross-entropy of logits (n, k) with weighted probabilities (n, k).
        mix: Mixup of a batch of one-position samples, (n, f, 1).
    """

    draw: Draw
    cross_entropy: CrossEntropy
    mix: Mix


class LinearHead(nn.Module):
    """Logits of feature vectors.

    Args:
        centre: Subtracted from the features, (f,).
        spread: Divides them then, (f,).
        weight: Weights, (k, f).
        bias: Biases, (k,).
    """

    centre: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        centre: Float[Tensor, " f"],
        spread: Float[Tensor, " f"],
        weight: Float[Tensor, "k f"],
        bias: Float[Tensor, " k"],
    ) -> None:
        super().__init__()
        for name, value in zip(
            ("centre", "spread", "weight", "bias"), (centre, spread, weight, bias), strict=True
        ):
            self.register_buffer(name, value)

    def forward(self, x: Float[Tensor, "n f 1"]) -> Float[Tensor, "n k"]:
        """Class logits of features scaled to [0, 1]."""
        return ((x.flatten(1) - self.centre) / self.spread) @ self.weight.T + self.bias


def train_head(
    train: LabelledImages,
    synthetic: SyntheticSet | None,
    arm: Arm,
    config: EvaluationConfig,
    *,
    parts_of: Callable[[LabelledImages], Parts],
    seed: int,
    steps: int,
    device: torch.device,
) -> LinearHead:
    """Train the head of an arm, with the weight decay that is best on an inner held-out part.

    Args:
        train: Real training features.
        synthetic: Synthetic features, which move the means of the nearest class mean.
        arm: How it is trained.
        config: Learning rate.
        parts_of: Batches and loss of a part of the training features, which need not be all.
        seed: Seed of the weights and of the inner split.
        steps: Optimiser steps.
        device: Where to train.

    Returns:
        The head, on the device.
    """
    steps = min(steps, round(MOST_STEPS * arm.length))
    centre, spread = _standards(train, device)
    if arm.balance == "nearest mean":
        return _nearest_mean(train, synthetic, arm, centre, spread)
    fitted, inner = _inner_split(train, seed)

    def trained(part: LabelledImages, decays: Sequence[float]) -> tuple[Tensor, Tensor]:
        parts = parts_of(part)
        shape = (len(decays), train.n_classes, train.image_shape[-1])
        standardised = _standardised(parts.draw, parts.mix, steps, centre, spread)
        # Mixup alone draws random numbers from torch.
        with seeded_torch(seed % 2**63) if arm.mix else nullcontext():
            return _fit(shape, standardised, parts.cross_entropy, decays, config, steps, device)

    weights, biases = trained(fitted, WEIGHT_DECAYS)
    x = _features(inner, device)
    tau = 0.0
    heads = [LinearHead(centre, spread, w, b) for w, b in zip(weights, biases, strict=True)]
    best = int(np.argmax([_balanced_accuracy(head, x, inner.labels) for head in heads]))
    if arm.balance == "tau-norm":
        by_tau = [
            _balanced_accuracy(_normalised(heads[best], tau), x, inner.labels) for tau in TAUS
        ]
        tau = TAUS[int(np.argmax(by_tau))]
    (weight,), (bias,) = trained(train, WEIGHT_DECAYS[best : best + 1])
    return _normalised(LinearHead(centre, spread, weight, bias), tau)


def _fit(
    shape: tuple[int, int, int],
    batches: Iterator[tuple[Tensor, Tensor]],
    cross_entropy: CrossEntropy,
    decays: Sequence[float],
    config: EvaluationConfig,
    steps: int,
    device: torch.device,
) -> tuple[Float[Tensor, "d k f"], Float[Tensor, "d k"]]:
    """Heads of several weight decays, (d, k, f) and (d, k), trained on the same batches."""
    n_heads, n_classes, n_features = shape
    weight = nn.Parameter(torch.zeros(n_features, n_heads * n_classes, device=device))
    bias = nn.Parameter(torch.zeros(n_heads * n_classes, device=device))
    rate = RATE * config.learning_rate
    optimiser = Adam([weight, bias], lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1)
    strength = torch.tensor(decays, device=device).repeat_interleave(n_classes)
    for x, target in batches:
        optimiser.zero_grad(set_to_none=True)
        logits = torch.addmm(bias, x, weight).view(len(x), n_heads, n_classes).transpose(0, 1)
        loss = cross_entropy(
            logits.reshape(-1, n_classes), target.repeat(n_heads, 1)
        )  # the heads share nothing: their sum trains each by itself
        (loss / len(x)).backward()
        optimiser.step()
        with torch.no_grad():  # decoupled, one strength for each head
            weight.mul_(1 - schedule.get_last_lr()[0] * strength)
        schedule.step()
    weights = weight.detach().T.reshape(n_heads, n_classes, n_features)
    return weights, bias.detach().view(n_heads, n_classes)


def _standardised(
    draw: Draw, mix: Mix, steps: int, centre: Tensor, spread: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    for step in range(steps):
        x, target, _ = draw(step / steps)
        x, target = mix(x, target)
        yield (x.flatten(1) - centre) / spread, target


def _standards(
    train: LabelledImages, device: torch.device
) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"]]:
    """Mean and standard deviation of each scaled feature; every class counts alike."""
    low, high = train.value_range
    flat = train.images.reshape(len(train), -1)
    by_class = [flat[train.labels == label] for label in np.flatnonzero(train.counts)]
    means = np.stack([rows.mean(axis=0, dtype=np.float64) for rows in by_class])
    squares = np.stack([np.square(rows, dtype=np.float64).mean(axis=0) for rows in by_class])
    centre = means.mean(axis=0)
    variance = np.maximum(squares.mean(axis=0) - np.square(centre), 0)
    spread = np.sqrt(variance + max(LEAST_PART * variance.mean(), 1e-12 * (high - low) ** 2))
    centre, spread = (centre - low) / (high - low), spread / (high - low)
    return torch.from_numpy(centre).float().to(device), torch.from_numpy(spread).float().to(device)


def _inner_split(train: LabelledImages, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Parts to fit and to choose by; a class too small for both is in both."""
    folds = stratified_folds(
        train.labels, INNER_FOLDS, seed=[seed % 2**63, 13], groups=train.groups
    )
    inner = folds == 0
    for label in np.flatnonzero(train.counts):
        rows = np.flatnonzero(train.labels == label)
        if not inner[rows].any():
            inner[rows[folds[rows] == folds[rows[0]]]] = True
    fitted = ~inner
    for label in np.flatnonzero(train.counts):
        rows = train.labels == label
        if not fitted[rows].any():
            fitted |= rows
    return replace(train, unlabelled=None).subset(fitted), replace(train, unlabelled=None).subset(
        inner
    )


def _nearest_mean(
    train: LabelledImages,
    synthetic: SyntheticSet | None,
    arm: Arm,
    centre: Tensor,
    spread: Tensor,
) -> LinearHead:
    """The head whose logits are half the negative squared distances to the class means.

    Samples count in the mean of their class by the recipe's share.
    """
    low, high = train.value_range
    means = np.zeros((train.n_classes, train.image_shape[-1]), np.float32)
    recipe = arm.recipe
    for label in np.flatnonzero(train.counts):
        means[label] = train.images[train.labels == label, 0].mean(axis=0)
        if recipe is None or recipe.is_none or synthetic is None:
            continue
        drawn = synthetic.images[synthetic.labels == label, 0]
        if len(drawn):
            means[label] += recipe.share * (drawn.mean(axis=0) - means[label])
    scaled = torch.from_numpy((means - low) / (high - low)).to(centre)
    weight = (scaled - centre) / spread
    bias = -0.5 * weight.square().sum(dim=1)
    absent = torch.from_numpy(train.counts == 0).to(bias.device)
    return LinearHead(centre, spread, weight, bias.masked_fill(absent, -torch.inf))


def _normalised(head: LinearHead, tau: float) -> LinearHead:
    """Tau-normalisation: weights divided by their norm to the power of tau, without biases."""
    if not tau:
        return head
    norms = head.weight.norm(dim=1, keepdim=True).clamp(min=1e-12)
    # The mean norm is kept, so that probabilities stay on their scale.
    weight = head.weight / (norms / norms.mean()) ** tau
    return LinearHead(head.centre, head.spread, weight, torch.zeros_like(head.bias))


def _features(data: LabelledImages, device: torch.device) -> Tensor:
    return scale_images(torch.from_numpy(data.images).to(device), data.value_range)


@torch.no_grad()
def _balanced_accuracy(head: LinearHead, x: Tensor, labels: Int64[np.ndarray, " n"]) -> float:
    """Mean recall of the classes that there are."""
    called = np.concatenate(
        [head(x[rows]).argmax(dim=1).cpu().numpy() for rows in blocks(len(x), x[0].numel(), 4096)]
    )
    hits = (called == labels).astype(np.float32)
    return float(np.mean(_by_class(hits, labels)))


def _by_class(
    values: Float32[np.ndarray, " n"], labels: Int64[np.ndarray, " n"]
) -> Float[np.ndarray, " c"]:
    counts = np.bincount(labels)
    present = counts > 0
    return np.bincount(labels, weights=values)[present] / counts[present]
