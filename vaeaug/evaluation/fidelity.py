"""Figures of how good synthetic samples are.

Images are arrays of shape (n, *space, c), uint8 or float32, with the value range they are in.
Features are arrays of shape (n, f). Nothing is downloaded: the judges are small networks trained
here, so figures compare only where real images, numbers of images and seed are the same.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from vaeaug.data import LabelledImages
from vaeaug.models import SmallClassifier
from vaeaug.screening import train_classifier

# Images a network takes at a time outside training.
_BLOCK = 512
# Of each kind in a step of the discriminator.
_HALF_BATCH = 32
_DISCRIMINATOR_WIDTH = 16

# -- Can they be told from real images? ------------------------------------------------------------


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
    from sklearn.metrics import roc_auc_score

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
    areas = []
    for fold, (train, held) in enumerate((halves, halves[::-1])):
        model = _train_discriminator(train, value_range, [seed, fold], steps, device)
        scores = [_by_block(model, images, value_range, device)[:, 0] for images in held]
        truth = np.repeat([0, 1], [len(images) for images in held])
        areas.append(float(roc_auc_score(truth, np.concatenate(scores))))
    return sum(areas) / len(areas)


def _train_discriminator(
    kinds: list[np.ndarray],
    value_range: tuple[float, float],
    seed: list[int],
    steps: int,
    device: torch.device | str,
) -> SmallClassifier:
    """One logit: high for the second kind. Both kinds are shifted alike, by up to a pixel."""
    rng = np.random.default_rng([*seed, 4])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        shape = kinds[0].shape[1:]
        model = SmallClassifier(shape, 1, width=_DISCRIMINATOR_WIDTH).to(device)
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps + 1)
        target = torch.tensor([0.0, 1.0], device=device).repeat_interleave(_HALF_BATCH)
        dims = tuple(range(2, len(shape) + 1))
        model.train()
        for _ in range(steps):
            rows = rng.integers(len(kinds[0]), size=(2, _HALF_BATCH))
            batch = np.concatenate([images[own] for images, own in zip(kinds, rows, strict=True)])
            shifts = tuple(int(shift) for shift in rng.integers(-1, 2, size=len(dims)))
            x = torch.roll(_scaled(batch, value_range, device), shifts, dims)
            loss = F.binary_cross_entropy_with_logits(model(x)[:, 0], target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


# -- Can a classifier learn from them? -------------------------------------------------------------


def train_on_synthetic(
    synthetic_images: Shaped[np.ndarray, "n *space c"],
    synthetic_labels: Int64[np.ndarray, " n"],
    test: LabelledImages,
    *,
    seed: int,
    steps: int = 600,
    device: torch.device | str = "cpu",
) -> float:
    """Balanced accuracy on real images of a classifier that saw synthetic ones alone.

    The classification accuracy score of Ravuri & Vinyals 2019 (arXiv:1905.10887), with batches that
    hold all classes alike. Real training images in place of the synthetic ones give its ceiling.

    Args:
        synthetic_images: Images to learn from, in the value range of `test`.
        synthetic_labels: Their labels.
        test: Real images that no generator saw.
        seed: Of the weights and the batches.
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
    )
    model = train_classifier(learnt, steps=steps, seed=seed, device=device)
    predicted = _by_block(model, test.images, test.value_range, device).argmax(axis=1)
    right = predicted == test.labels
    return float(np.mean([right[test.labels == label].mean() for label in np.unique(test.labels)]))


# -- Are they where the real images are, and everywhere there? -------------------------------------


def real_features(
    classifier: SmallClassifier,
    images: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
    device: torch.device | str = "cpu",
) -> Float[np.ndarray, "n f"]:
    """Penultimate layer of a classifier that was trained on real images alone.

    Args:
        classifier: See `vaeaug.screening.train_classifier`; on `device`.
        images: Images to describe.
        value_range: (lowest, highest) value of `images`.
        device: Where the classifier is.
    """
    return _by_block(classifier.features, images, value_range, device)


def coverage(
    real: Float[np.ndarray, "n f"], synthetic: Float[np.ndarray, "m f"], *, k: int = 5
) -> float:
    """Share of real samples that have a synthetic one among their neighbourhood.

    Naeem et al. 2020 (arXiv:2002.09797), eq. 4. A real sample's neighbourhood reaches to its k-th
    nearest other real sample. Two samples of one distribution give about
    ``1 - (n / (n + m))**k``, which is 0.97 for equal numbers and k = 5; compare equal numbers only.

    Args:
        real: Features of real images.
        synthetic: Features of synthetic images.
        k: Neighbour to which the neighbourhood reaches.

    Raises:
        ValueError: If the features do not match or there are not more than k of them.
    """
    from sklearn.neighbors import NearestNeighbors

    _check_features(real, synthetic, k)
    nearest, _ = NearestNeighbors(n_neighbors=1).fit(synthetic).kneighbors(real)
    return float((nearest[:, 0] <= _radii(real, k)).mean())


def density(
    real: Float[np.ndarray, "n f"], synthetic: Float[np.ndarray, "m f"], *, k: int = 5
) -> float:
    """Mean number of real neighbourhoods around a synthetic sample, divided by k.

    Naeem et al. 2020, eq. 3. About 1 for two samples of one distribution; more where the synthetic
    ones crowd where real ones are dense. Arguments and errors as for `coverage`.
    """
    _check_features(real, synthetic, k)
    inside = sum(int(block.sum()) for block in _inside(synthetic, real, _radii(real, k)))
    return inside / (k * len(synthetic))


def precision(
    real: Float[np.ndarray, "n f"], synthetic: Float[np.ndarray, "m f"], *, k: int = 5
) -> float:
    """Share of synthetic samples within the neighbourhood of any real one.

    Kynkäänniemi et al. 2019 (arXiv:1904.06991). Arguments and errors as for `coverage`.
    """
    _check_features(real, synthetic, k)
    hits = sum(int(block.any(axis=1).sum()) for block in _inside(synthetic, real, _radii(real, k)))
    return hits / len(synthetic)


def recall(
    real: Float[np.ndarray, "n f"], synthetic: Float[np.ndarray, "m f"], *, k: int = 5
) -> float:
    """Share of real samples within the neighbourhood of any synthetic one: `precision`, reversed.

    An outlying synthetic sample has a wide neighbourhood, so `coverage` is the sterner figure.
    """
    return precision(synthetic, real, k=k)


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Distance of each point to its k-th nearest other point."""
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=k).fit(points).kneighbors()
    return distances[:, -1]


def _inside(
    points: np.ndarray, centres: np.ndarray, radii: np.ndarray
) -> Iterator[Bool[np.ndarray, "block n"]]:
    """Which points lie in which balls, in blocks of points."""
    from sklearn.metrics import pairwise_distances_chunked

    for distances in pairwise_distances_chunked(points, centres):
        yield distances <= radii


def _check_features(real: np.ndarray, synthetic: np.ndarray, k: int) -> None:
    if real.ndim != 2 or synthetic.ndim != 2 or real.shape[1] != synthetic.shape[1]:
        raise ValueError(
            "features: expected real (n, f) and synthetic (m, f), got shapes "
            f"{real.shape} and {synthetic.shape}"
        )
    if not 1 <= k < min(len(real), len(synthetic)):
        raise ValueError(
            f"k: expected 1 up to less than the number of samples, {len(real)} real and "
            f"{len(synthetic)} synthetic, got {k}"
        )


# -- Networks on arrays ----------------------------------------------------------------------------


@torch.no_grad()
def _by_block(
    network: Callable[[Tensor], Tensor],
    images: np.ndarray,
    value_range: tuple[float, float],
    device: torch.device | str,
) -> np.ndarray:
    parts = [
        network(_scaled(images[begin : begin + _BLOCK], value_range, device)).float().cpu()
        for begin in range(0, len(images), _BLOCK)
    ]
    return torch.cat(parts).numpy()


def _scaled(
    images: np.ndarray, value_range: tuple[float, float], device: torch.device | str
) -> Tensor:
    """Channels first, [0, 1]."""
    low, high = value_range
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return x.movedim(-1, 1).float().sub(low).div(high - low)
