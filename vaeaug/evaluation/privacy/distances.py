"""Metrics of the distances from synthetic images to training images."""

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from vaeaug.evaluation.matching import first_of_each, listed, matched_counts, random_order
from vaeaug.evaluation.metrics import Description, Metric, roc_auc
from vaeaug.evaluation.privacy.audit import MOST, Audit
from vaeaug.evaluation.privacy.nearest import nearest
from vaeaug.evaluation.statistics import half_of

# Quantile of held-out images' distances below which an image counts as near.
NEAR_SHARE = 0.05
# Images of either kind that make a class a cell of the data-copying test.
CELL = 20

_MEDIAN = Description(
    "Distance to the nearest training image",
    "Median; much less than for held-out images is a sign of copying.",
    "higher",
)
_NEARER = Description(
    "Nearer than 95 % of held-out images",
    "Share of images that lie nearer to a training image than 95 % of held-out ones.",
    "lower",
)
_AUTHENTICITY = Description(
    "Authenticity",
    "Share of images that are farther from a training image than its neighbours are.",
    "higher",
)

# Positions of synthetic and of held-out images that are compared.
Pair = tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]


def distance_metrics(
    audit: Audit,
    images: Shaped[np.ndarray, "m *space c"],
    labels: Int64[np.ndarray, " m"] | None,
) -> list[Metric]:
    """Measure the distances of synthetic images to training images.

    Args:
        audit: The audit; notes are added to it.
        images: The synthetic images.
        labels: Their classes; None where they are not known.

    Returns:
        Median distance, share nearer, authenticity and, where there are enough images, C_T.
    """
    chosen = random_order(images, seed=audit.seed)[:MOST]
    labels = None if labels is None else labels[chosen]
    synthetic, synthetic_rows = audit.nearest(images[chosen])
    held_out, held_out_rows = audit.nearest(audit.held_out.images)
    in_synthetic, in_held_out = _matched(audit, labels, len(synthetic))
    cells = _cells(audit, labels)
    copying = _data_copying(
        audit, synthetic, held_out, cells or [(in_synthetic, in_held_out)], by_class=bool(cells)
    )
    authentic = [
        distances[matched] > _to_nearest_other(audit, rows[matched])
        for distances, rows, matched in (
            (synthetic, synthetic_rows, in_synthetic),
            (held_out, held_out_rows, in_held_out),
        )
    ]
    matched = [synthetic[in_synthetic], held_out[in_held_out]]
    border = float(np.quantile(matched[1], NEAR_SHARE))
    near = [distances < border for distances in matched]
    return [
        Metric.of(
            "median_distance", _MEDIAN, *[audit.interval(np.median, part) for part in matched]
        ),
        Metric.of("share_nearer", _NEARER, *[audit.interval(np.mean, part) for part in near]),
        Metric.of(
            "authenticity", _AUTHENTICITY, *[audit.interval(np.mean, part) for part in authentic]
        ),
        *copying,
    ]


def _to_nearest_other(audit: Audit, rows: np.ndarray) -> np.ndarray:
    """Distance of these training images to their nearest other one."""
    needed, place = np.unique(rows, return_inverse=True)
    images = audit.train.images_at(needed)
    return nearest(images, audit.parts, audit.space, query_rows=needed)[0][place]


def _matched(audit: Audit, labels: np.ndarray | None, n: int) -> Pair:
    """Positions of synthetic and held-out images with the same class counts, where possible."""
    everything = np.arange(n), np.arange(len(audit.held_out))
    if labels is None:
        audit.notes.append(
            "Distances: without labels, synthetic and held-out images may differ in class."
        )
        return everything
    n_synthetic = np.bincount(labels, minlength=audit.train.n_classes)
    counts = matched_counts([n_synthetic, audit.held_out.counts])
    if counts.sum() < CELL:
        audit.notes.append(
            f"Distances: synthetic and held-out images share fewer than {CELL} images of the "
            "same classes, so all are compared whatever their class."
        )
        return everything
    missing = np.flatnonzero((n_synthetic > 0) & (audit.held_out.counts == 0))
    if len(missing):
        names = listed(missing, audit.train.class_names)
        audit.notes.append(f"Distances: no held-out image, so not compared: {names}.")
    audit.notes.append(
        f"Distances: {int(counts.sum())} synthetic and as many held-out images, the same "
        "number of each class."
    )
    return (
        np.sort(first_of_each(labels, everything[0], counts)),
        np.sort(first_of_each(audit.held_out.labels, everything[1], counts)),
    )


def _cells(audit: Audit, labels: np.ndarray | None) -> list[Pair]:
    """Positions of synthetic and held-out images in each cell of the data-copying test."""
    if labels is None:
        return []
    pairs = [
        (np.flatnonzero(labels == label), np.flatnonzero(audit.held_out.labels == label))
        for label in range(audit.train.n_classes)
    ]
    cells = [pair for pair in pairs if min(map(len, pair)) >= CELL]
    covered = sum(len(held_out) for _, held_out in cells)
    return cells if 2 * covered >= len(audit.held_out) else []


def _data_copying(
    audit: Audit,
    synthetic: np.ndarray,
    held_out: np.ndarray,
    cells: list[Pair],
    *,
    by_class: bool,
) -> list[Metric]:
    """C_T of Meehan et al. 2020 (arXiv:2004.05675); nothing where images are too few.

    For real images one half of the held-out ones stands for the synthetic ones.
    """
    of_synthetic: list[np.ndarray] = []
    of_halves: list[np.ndarray] = []
    for in_synthetic, in_held_out in cells:
        first = half_of(audit.held_out.labels[in_held_out], audit.rng)
        rest = np.delete(in_held_out, first)
        of_synthetic += [synthetic[in_synthetic], held_out[in_held_out]]
        of_halves += [held_out[in_held_out[first]], held_out[rest]]
    if not all(map(len, of_halves[::2])):
        audit.notes.append("Too few held-out images for the data-copying test.")
        return []
    where = f"in {len(cells)} classes" if by_class else "over all images"
    description = Description(
        "Data-copying test (C_T)",
        f"Standard deviations by which distances exceed held-out ones, {where}; below 0 is nearer.",
        "higher",
    )
    columns = [audit.interval(_copying_score, *samples) for samples in (of_synthetic, of_halves)]
    return [Metric.of("data_copying", description, *columns)]


def _copying_score(*samples: Float64[np.ndarray, " _"]) -> float:
    """The cells' z-scores of Mann-Whitney's U, weighted by their held-out images.

    Args:
        samples: Distances of synthetic and of held-out images, cell after cell.
    """
    total, weight = 0.0, 0
    for synthetic, held_out in zip(samples[::2], samples[1::2], strict=True):
        n, m = len(synthetic), len(held_out)
        deviation = np.sqrt((n + m + 1) / (12 * n * m))
        total += m * float((roc_auc(held_out, synthetic) - 0.5) / deviation)
        weight += m
    return total / weight
