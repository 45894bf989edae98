"""Can synthetic images be told from real ones? A cross-fitted discriminator, and its scores."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from vaeaug.data import LabelledImages
from vaeaug.evaluation.hearing import as_judged
from vaeaug.evaluation.metrics import roc_auc
from vaeaug.evaluation.statistics import Interval, bootstrap_interval
from vaeaug.models import SmallClassifier
from vaeaug.randomness import seeded_torch
from vaeaug.training.classifier import as_input, fit_network, outputs_by_block, shifted

# Images of each kind in a step.
HALF_BATCH = 32
WIDTH = 16

# By half: scores of the real and of the synthetic images that the discriminator did not see.
HalfScores = list[tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]]
# Draws the rows of each kind for one batch.
Draw = Callable[[np.random.Generator], Int64[np.ndarray, "2 half"]]


def real_or_synthetic_auc(
    real: Shaped[np.ndarray, "n *space c"],
    synthetic: Shaped[np.ndarray, "m *space c"],
    *,
    value_range: tuple[float, float],
    seed: int,
    steps: int = 300,
    device: torch.device | str = "cpu",
) -> float:
    """Measure how well a small convolutional discriminator tells synthetic images from real ones.

    A classifier two-sample test (Lopez-Paz & Oquab 2017, arXiv:1610.06545). Both kinds are cut to
    equal numbers and into two halves; a discriminator trained on either half is judged on the
    other, and the two areas are averaged. Kinds that are the same give 0.5 with a standard
    deviation of about ``1 / sqrt(6 n)`` for n images of each kind.

    Args:
        real: Real images.
        synthetic: Synthetic images, of the same shape and dtype.
        value_range: (lowest, highest) value of both.
        seed: Seed of the halves, the weights and the batches.
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
    # The first half of either kind is judged last: it is trained on first.
    halves = np.tile(np.arange(n) < n // 2, 2).astype(np.int64)
    is_synthetic = np.repeat([False, True], n)

    def draw_outside(half: int) -> Draw:
        rows = np.stack(
            [np.flatnonzero((halves != half) & (is_synthetic == kind)) for kind in (0, 1)]
        )
        return lambda rng: np.take_along_axis(
            rows, rng.integers(rows.shape[1], size=(2, HALF_BATCH)), axis=1
        )

    scores = _cross_fitted(
        np.concatenate(kinds),
        halves,
        draw_outside,
        value_range=value_range,
        seed=seed,
        steps=steps,
        device=device,
    )
    return mean_auc(_by_half(scores, halves, is_synthetic))


def mean_auc(scores: HalfScores) -> float:
    """Average the areas of both halves: their scores are of two discriminators, so not pooled.

    Args:
        scores: Scores by half.

    Returns:
        Mean area under the ROC curve.
    """
    return sum(roc_auc(real, synthetic) for real, synthetic in scores) / len(scores)


def auc_interval(scores: HalfScores, *, n_resamples: int, rng: np.random.Generator) -> Interval:
    """Bootstrap the judged images; the discriminators are taken as they are.

    Args:
        scores: Scores by half.
        n_resamples: Number of resamples; 0 gives no interval.
        rng: Draws them.

    Returns:
        `mean_auc` with its interval.
    """

    def statistic(*samples: np.ndarray) -> float:
        return mean_auc(list(zip(samples[::2], samples[1::2], strict=True)))

    samples = [of_kind for half in scores for of_kind in half]
    return bootstrap_interval(statistic, *samples, n_resamples=n_resamples, rng=rng)


def scores_within_classes(
    kinds: tuple[LabelledImages, LabelledImages],
    *,
    seed: int,
    steps: int,
    device: torch.device | str = "cpu",
) -> HalfScores:
    """Score two kinds of images with the same number of each class; see `looks_synthetic`.

    Where both kinds have the same class counts, a half with more real images of a class leaves more
    synthetic ones to the other half, so a discriminator that goes by class is wrong more often than
    not and the area comes out below 0.5. Hence halves, too, have the same number of each class.

    Args:
        kinds: Both kinds; the second counts as synthetic.
        seed: Seed of the halves, the weights and the batches.
        steps: Optimiser steps of each of the two discriminators.
        device: Where to train.

    Returns:
        Scores by half.
    """
    second = np.repeat([False, True], [len(kind) for kind in kinds])
    images, value_range = as_judged(
        np.concatenate([kind.images for kind in kinds]),
        kinds[0].value_range,
        kinds[0].spectrogram,
    )
    scores, halves = looks_synthetic(
        images,
        np.concatenate([kind.labels for kind in kinds]),
        second,
        value_range=value_range,
        seed=seed,
        steps=steps,
        device=device,
    )
    return _by_half(scores, halves, second)


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
    """Answer "does this image look synthetic" out of fold, such that no class makes it likelier.

    Each batch draws a class that has both kinds in the half, and as many real as synthetic images
    of it. So what a class shows is no cue, only what synthetic images of a class show that its real
    ones do not.

    Args:
        images: Real and synthetic images.
        labels: Their classes.
        is_synthetic: Which are synthetic. Some class has at least two of each kind.
        value_range: (lowest, highest) value.
        seed: Seed of the halves, the weights and the batches.
        steps: Optimiser steps of each of the two discriminators.
        device: Where to train.

    Returns:
        (score of each image by the discriminator that did not see it; its half, 0 or 1). Scores of
        the two halves are of different discriminators.
    """
    halves = _stratified_halves(labels, is_synthetic, np.random.default_rng([seed, 6]))

    def draw_outside(half: int) -> Draw:
        strata = []
        for label in np.unique(labels):
            in_class = (labels == label) & (halves != half)
            pair = [np.flatnonzero(in_class & (is_synthetic == kind)) for kind in (False, True)]
            if min(map(len, pair)):
                strata.append(pair)

        def draw(rng: np.random.Generator) -> Int64[np.ndarray, "2 half"]:
            chosen = rng.integers(len(strata), size=HALF_BATCH)
            return np.array(
                [[rng.choice(strata[stratum][kind]) for stratum in chosen] for kind in (0, 1)],
                np.int64,
            )

        return draw

    scores = _cross_fitted(
        images,
        halves,
        draw_outside,
        value_range=value_range,
        seed=seed,
        steps=steps,
        device=device,
    )
    return scores, halves


def _cross_fitted(
    images: np.ndarray,
    halves: np.ndarray,
    draw_outside: Callable[[int], Draw],
    *,
    value_range: tuple[float, float],
    seed: int,
    steps: int,
    device: torch.device | str,
) -> Float[np.ndarray, " n"]:
    """Score of each image by a discriminator that was trained on the other half."""
    scores = np.empty(len(images), np.float64)
    for half in (0, 1):
        discriminator = train_discriminator(
            images,
            value_range,
            draw=draw_outside(half),
            seed=[seed, half],
            steps=steps,
            device=device,
        )
        judged = halves == half
        logits = outputs_by_block(discriminator, images[judged], value_range, device=device)
        scores[judged] = logits[:, 0]
    return scores


def _by_half(scores: np.ndarray, halves: np.ndarray, is_synthetic: np.ndarray) -> HalfScores:
    return [
        (scores[(halves == half) & ~is_synthetic], scores[(halves == half) & is_synthetic])
        for half in (0, 1)
    ]


def train_discriminator(
    images: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
    *,
    draw: Draw,
    seed: list[int],
    steps: int,
    device: torch.device | str,
) -> SmallClassifier:
    """Train a network to tell two kinds of images apart; both are shifted alike.

    Args:
        images: Images of both kinds.
        value_range: (lowest, highest) value.
        draw: Draws the rows of each kind for one batch.
        seed: Seed of the weights and the batches.
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
            rows = draw(rng).ravel()
            yield shifted(as_input(images[rows], value_range, device), rng)

    with seeded_torch(int(rng.integers(2**31))):
        discriminator = SmallClassifier(images.shape[1:], 1, width=WIDTH).to(device)
        is_second = torch.tensor([0.0, 1.0], device=device).repeat_interleave(HALF_BATCH)

        def loss(x: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(discriminator(x)[:, 0], is_second)

        fit_network(discriminator, batches(), loss, steps=steps)
    return discriminator


def _stratified_halves(
    labels: np.ndarray, is_synthetic: np.ndarray, rng: np.random.Generator
) -> Int64[np.ndarray, " n"]:
    """Half (0 or 1) of each image: every class and kind is divided evenly, an odd image at random.

    The odd ones of both kinds of a class fall alike, so equal counts stay equal.
    """
    halves = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        first = rng.integers(2)
        for kind in (False, True):
            rows = rng.permutation(np.flatnonzero((labels == label) & (is_synthetic == kind)))
            halves[rows] = (np.arange(len(rows)) + first) % 2
    return halves
