"""The parts that all metrics of a privacy audit share: images, samples of them, and notes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped

from vaeaug.data import LabelledImages
from vaeaug.evaluation.matching import first_of_each, random_order
from vaeaug.evaluation.metrics import roc_auc
from vaeaug.evaluation.privacy.nearest import Space, nearest
from vaeaug.evaluation.statistics import Interval, bootstrap_interval

# Images of a kind in metrics of distances and attacks.
MOST = 2_000


class Audit:
    """The images of one audit.

    Args:
        train: Real images that the generator was trained on, with their pool.
        held_out: Real images that it never saw.
        seed: Seed of the choice of images and the intervals.
        n_resamples: Resamples behind each interval.
        device: Where distances are computed.
        notes: Gets what the reader has to know.
    """

    def __init__(
        self,
        train: LabelledImages,
        held_out: LabelledImages,
        *,
        seed: int,
        n_resamples: int,
        device: torch.device,
        notes: list[str],
    ) -> None:
        self.train, self.seed, self.n_resamples = train, seed, n_resamples
        self.device, self.notes = device, notes
        self.parts = [train.images, *([] if train.unlabelled is None else [train.unlabelled])]
        self.space = Space(train.value_range, device)
        self.rng = np.random.default_rng([seed, 10])
        # A random choice, which does not depend on the order of the held-out images.
        self.held_out = held_out.subset(random_order(held_out.images, seed=seed)[:MOST])

    def nearest(
        self, images: Shaped[np.ndarray, "n *space c"]
    ) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Find the nearest training image, labelled or not.

        Args:
            images: Images.

        Returns:
            (distance to it; its row, N + i for image i of the pool).
        """
        return nearest(images, self.parts, self.space)

    def interval(self, statistic: Callable[..., Any], *samples: np.ndarray) -> Interval:
        """Bootstrap a statistic.

        Args:
            statistic: Function of the samples.
            samples: Independent samples.

        Returns:
            The statistic with its interval.
        """
        return bootstrap_interval(statistic, *samples, n_resamples=self.n_resamples, rng=self.rng)

    def attack_auc(
        self, outside: Float64[np.ndarray, " n"], members: Float64[np.ndarray, " m"]
    ) -> Interval:
        """Measure how well scores tell training images from others.

        Args:
            outside: Scores of images that are no training images.
            members: Scores of training images, which should be higher.

        Returns:
            The area under the ROC curve with its interval.
        """
        return self.interval(roc_auc, outside, members)

    def alike(self, outside: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
        """Choose images to tell apart, with the same number of each class.

        Args:
            outside: Images that are no training images.

        Returns:
            (some of them, training images).
        """
        counts = np.minimum(self.train.counts, outside.counts)
        order = random_order(self.train.images, seed=self.seed)
        if not counts.any():
            return outside, self.train.subset(order[:MOST])
        return (
            outside.subset(first_of_each(outside.labels, np.arange(len(outside)), counts)),
            self.train.subset(first_of_each(self.train.labels, order, counts)),
        )
