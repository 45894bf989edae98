"""Small networks as judges of synthetic images: what they learn from them, and their features."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from vaeaug.data import LabelledImages
from vaeaug.models import SmallClassifier
from vaeaug.training.classifier import outputs_by_block, train_classifier


def train_on_synthetic(
    synthetic_images: Shaped[np.ndarray, "n *space c"],
    synthetic_labels: Int64[np.ndarray, " n"],
    test: LabelledImages,
    *,
    seed: int,
    steps: int = 600,
    device: torch.device | str = "cpu",
) -> float:
    """Measure balanced accuracy on real images of a classifier that saw synthetic ones alone.

    The classification accuracy score of Ravuri & Vinyals 2019 (arXiv:1905.10887), with batches that
    hold all classes alike. Real training images in place of the synthetic ones give its ceiling.

    Args:
        synthetic_images: Images to learn from, in the value range of `test`.
        synthetic_labels: Their labels.
        test: Real images that no generator saw.
        seed: Seed of the weights and the batches.
        steps: Optimiser steps.
        device: Where to train.

    Returns:
        Mean recall of the classes in `test`, 0 to 1.

    Raises:
        DataError: If the synthetic images do not fit the value range or classes of `test`.
    """
    learnt = LabelledImages(
        synthetic_images,
        synthetic_labels,
        test.class_names,
        test.value_range,
        source="train_on_synthetic",
        sample_rate=test.sample_rate,
        front_end=test.front_end,
    )
    model = train_classifier(learnt, steps=steps, seed=seed, device=device)
    right, n = right_by_class(model, test, device)
    return float((right / n).mean())


def right_by_class(
    model: SmallClassifier, test: LabelledImages, device: torch.device | str
) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " c"]]:
    """Count the images of each class that a classifier gets right.

    Args:
        model: The classifier, on `device`.
        test: Images with labels.
        device: Where the classifier is.

    Returns:
        (right answers, images) of each class that has images.
    """
    logits = outputs_by_block(model, test.images, test.value_range, device=device)
    n = test.counts
    right_labels = test.labels[logits.argmax(axis=1) == test.labels]
    right = np.bincount(right_labels, minlength=test.n_classes)
    return right[n > 0], n[n > 0]


def real_features(
    classifier: SmallClassifier,
    images: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
    device: torch.device | str = "cpu",
) -> Float[np.ndarray, "n f"]:
    """Compute the penultimate layer of a classifier that was trained on real images alone.

    Args:
        classifier: See `vaeaug.training.classifier.train_classifier`; on `device`.
        images: Images to describe.
        value_range: (lowest, highest) value of `images`.
        device: Where the classifier is.

    Returns:
        The features.
    """
    return outputs_by_block(classifier.features, images, value_range, device=device)


def extracted_features(
    extractor: Callable[[Tensor], Tensor],
    images: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
    device: torch.device | str,
) -> Float[np.ndarray, "n f"]:
    """Compute features of images and check them.

    Args:
        extractor: (n, c, *space) float in [0, 1] to (n, f), on `device`.
        images: Images to describe.
        value_range: (lowest, highest) value of `images`.
        device: Where the extractor is.

    Returns:
        The features.

    Raises:
        ValueError: If their shape is another one, or one is not finite.
    """
    features = outputs_by_block(extractor, images, value_range, device=device).astype(np.float64)
    if features.ndim != 2 or len(features) != len(images) or not features.shape[1]:
        raise ValueError(
            f"measure_fidelity: expected features of shape ({len(images)}, f) from the extractor, "
            f"got {features.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError("measure_fidelity: expected finite features from the extractor")
    return features
