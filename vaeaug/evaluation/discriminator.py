"""Can synthetic images be told from real ones? A cross-fitted discriminator, and its scores."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from vaeaug.data import LabelledImages
from vaeaug.evaluation.estimates import Estimate, area, from_resamples
from vaeaug.models import SmallClassifier
from vaeaug.randomness import seeded_torch
from vaeaug.training.classifier import as_input, fit_network, outputs_by_block, shifted

# Images of each kind in a step.
HALF_BATCH = 32
WIDTH = 16

Draw = Callable[[np.random.Generator], Int64[np.ndarray, "2 half"]]

# By half: scores of the real and of the synthetic images that the discriminator did not see.
Scores = list[tuple[np.ndarray, np.ndarray]]


def real_or_synthetic_auc(
    real: Shaped[np.ndarray, "n *space c"],
    synthetic: Shaped[np.ndarray, "m *space c"],
    *,
    value_range: tuple[float, float],
    seed: int,
    steps: int = 300,
    device: torch.device | str = "cpu",
) -> float:
    """How well a small convolutional discriminator tells synthetic images from real ones.

    A classifier two-sample test (Lopez-Paz & Oquab 2017, arXiv:1610.06545). Both kinds are cut to
    equal numbers and into two halves; a discriminator trained on either half is judged on the
    other, and the two figures are averaged. Kinds that are the same give 0.5 with a standard
    deviation of about ``1 / sqrt(6 n)`` for n images of each kind.

    Args:
        real: Real images.
        synthetic: Synthetic images, of the same shape and dtype.
        value_range: (lowest, highest) value of both.
        seed: Of the halves, the weights and the batches.
        steps: Optimiser steps of each discriminator.
        device: Where to train.

    Returns:
        Area under the ROC curve: 0.5 where they cannot be told apart, 1.0 where always.

    Raises:
        ValueError: If the images differ in shape or dtype, or there are fewer than 4 of a kind.
    """
    if real.shape[1:] != synthetic.shape[1:] or real.dtype != synthetic.dtype:
        raise ValueError(
            f"real_or_synthetic_auc: expected synthetic images like the real ones, {real.dtype} of "
            f"shape {real.shape[1:]}, got {synthetic.dtype} of shape {synthetic.shape[1:]}"
        )
    n = min(len(real), len(synthetic))
    if n < 4:
        raise ValueError(f"real_or_synthetic_auc: expected at least 4 images of a kind, got {n}")
    rng = np.random.default_rng([seed, 3])
    kinds = [images[rng.permutation(len(images))[:n]] for images in (real, synthetic)]
    halves = [[images[: n // 2] for images in kinds], [images[n // 2 :] for images in kinds]]
    found: Scores = []
    for fold, (train, held) in enumerate((halves, halves[::-1])):

        def draw(
            rng: np.random.Generator, size: int = len(train[0])
        ) -> Int64[np.ndarray, "2 half"]:
            return rng.integers(size, size=(2, HALF_BATCH))

        model = train_discriminator(
            (train[0], train[1]),
            value_range,
            draw=draw,
            seed=[seed, fold],
            steps=steps,
            device=device,
        )
        scores = [
            outputs_by_block(model, images, value_range, device=device)[:, 0] for images in held
        ]
        found.append((scores[0], scores[1]))
    return auc_of(found)


def train_discriminator(
    kinds: tuple[Shaped[np.ndarray, "n *space c"], Shaped[np.ndarray, "m *space c"]],
    value_range: tuple[float, float],
    *,
    draw: Draw,
    seed: list[int],
    steps: int,
    device: torch.device | str,
) -> SmallClassifier:
    """Train a network to tell two kinds of images apart; both are shifted alike.

    Args:
        kinds: Images of each kind.
        value_range: (lowest, highest) value of both.
        draw: Rows of each kind for one batch.
        seed: Of the weights and the batches.
        steps: Optimiser steps.
        device: Where to train.

    Returns:
        The network, in evaluation mode: (n, c, *space) in [0, 1] to one logit, high for the second
        kind.
    """
    device = torch.device(device)
    rng = np.random.default_rng([*seed, 4])

    def batches() -> Iterator[Tensor]:
        for _ in range(steps):
            chosen = [images[rows] for images, rows in zip(kinds, draw(rng), strict=True)]
            yield shifted(as_input(np.concatenate(chosen), value_range, device), rng)

    with seeded_torch(int(rng.integers(2**31))):
        discriminator = SmallClassifier(kinds[0].shape[1:], 1, width=WIDTH).to(device)
        is_second = torch.tensor([0.0, 1.0], device=device).repeat_interleave(HALF_BATCH)

        def loss(x: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(discriminator(x)[:, 0], is_second)

        fit_network(discriminator, batches(), loss, steps=steps)
    return discriminator


def auc_of(scores: Scores) -> float:
    """Mean area of the halves: their scores are of two discriminators, so they are not pooled."""
    return sum(area(real, synthetic) for real, synthetic in scores) / len(scores)


def auc_estimate(scores: Scores, *, n_bootstrap: int, rng: np.random.Generator) -> Estimate:
    """With an interval over the judged images; the discriminators are taken as they are."""
    drawn = [
        auc_of(
            [
                (
                    real[rng.integers(len(real), size=len(real))],
                    synthetic[rng.integers(len(synthetic), size=len(synthetic))],
                )
                for real, synthetic in scores
            ]
        )
        for _ in range(n_bootstrap)
    ]
    return from_resamples(auc_of(scores), np.array(drawn))


def scores_within_classes(
    kinds: tuple[LabelledImages, LabelledImages],
    *,
    seed: int,
    steps: int,
    device: torch.device | str = "cpu",
) -> Scores:
    """Scores by half of two kinds with the same number of each class; see `looks_synthetic`.

    Where both kinds have the same class counts, a half with more real images of a class leaves more
    synthetic ones to the other half, so a discriminator that goes by class is wrong more often than
    not and the area comes out below 0.5. Hence halves, too, have the same number of each class.
    """
    labels = np.concatenate([each.labels for each in kinds])
    second = np.repeat([False, True], [len(each) for each in kinds])
    scores, halves = looks_synthetic(
        np.concatenate([each.images for each in kinds]),
        labels,
        second,
        value_range=kinds[0].value_range,
        seed=seed,
        steps=steps,
        device=device,
    )
    return [
        (scores[(halves == half) & ~second], scores[(halves == half) & second]) for half in (0, 1)
    ]


def looks_synthetic(
    images: Shaped[np.ndarray, "n *space c"],
    labels: Int64[np.ndarray, " n"],
    is_synthetic: Bool[np.ndarray, " n"],
    *,
    value_range: tuple[float, float],
    seed: int,
    steps: int,
    device: torch.device | str = "cpu",
) -> tuple[Float[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Out-of-fold answer to "does this image look synthetic", which no class makes likelier.

    Each batch draws a class that has both kinds in the half, and as many real as synthetic images
    of it. So what a class shows is no cue, only what synthetic images of a class show that its real
    ones do not.

    Args:
        images: Real and synthetic images.
        labels: Their classes.
        is_synthetic: Which are synthetic. Some class has at least two of each kind.
        value_range: (lowest, highest) value.
        seed: Of the halves, the weights and the batches.
        steps: Optimiser steps of each of the two discriminators.
        device: Where to train.

    Returns:
        (score of each image by the discriminator that did not see it; its half, 0 or 1). Scores of
        the two halves are of different discriminators.
    """
    halves = _stratified_halves(labels, is_synthetic, np.random.default_rng([seed, 6]))
    scores = np.empty(len(images), np.float64)
    for half in (0, 1):
        strata = []
        for label in np.unique(labels):
            own = (labels == label) & (halves != half)
            pair = np.flatnonzero(own & ~is_synthetic), np.flatnonzero(own & is_synthetic)
            if min(map(len, pair)):
                strata.append(pair)

        def draw(rng: np.random.Generator, strata: list = strata) -> Int64[np.ndarray, "2 half"]:
            chosen = rng.integers(len(strata), size=HALF_BATCH)
            return np.array(
                [[rng.choice(strata[each][kind]) for each in chosen] for kind in (0, 1)], np.int64
            )

        model = train_discriminator(
            (images, images),
            value_range,
            draw=draw,
            seed=[seed, half],
            steps=steps,
            device=device,
        )
        judged = halves == half
        scores[judged] = outputs_by_block(model, images[judged], value_range, device=device)[:, 0]
    return scores, halves


def _stratified_halves(
    labels: np.ndarray, is_synthetic: np.ndarray, rng: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """0 or 1 for each image, as many of each class and kind; an odd one falls at random.

    The odd ones of both kinds of a class fall alike, so equal counts stay equal.
    """
    halves = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        first = rng.integers(2)
        for kind in (False, True):
            rows = rng.permutation(np.flatnonzero((labels == label) & (is_synthetic == kind)))
            halves[rows] = (np.arange(len(rows)) + first) % 2
    return halves
