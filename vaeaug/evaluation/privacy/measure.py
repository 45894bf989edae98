"""Do synthetic images give away training images? Distances, copies and attacks.

Every metric stands beside the same one of real images that no generator saw: how near two images
of a data set come is a property of the data set, and only what goes beyond it is copying.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped

from vaeaug._moved import renamed_attribute
from vaeaug.data import LabelledImages
from vaeaug.evaluation.matching import check_labels, check_like, without_shared
from vaeaug.evaluation.metrics import Metric
from vaeaug.evaluation.privacy.attacks import attack_by_distance, attacks_on
from vaeaug.evaluation.privacy.audit import Audit
from vaeaug.evaluation.privacy.copies import COPY_DISTANCE, NearCopies, find_copies
from vaeaug.evaluation.privacy.distances import NEAR_SHARE, distance_metrics
from vaeaug.evaluation.statistics import CONFIDENCE
from vaeaug.generator import Synthesizer

# Thresholds of the verdict: p-value of an excess of near-copies; share of near images; AUC of an
# attack.
SURE = 0.01
NEARER, ATTACK = 2 * NEAR_SHARE, 0.55
# Near-copies that are listed.
LISTED = 20
_REMEDY = (
    "Raise screening.near_copy_factor, or draw from a density (recipe.sampler: gmm or flow,"
    " sampling.residual: false)."
)


@dataclass(frozen=True)
class Privacy:
    """What synthetic images, and the generator, give away of the training images.

    Attributes:
        metrics: In the order of a table.
        near_copies: Synthetic images that are a training image, but for noise, a shift by one place
            or a flip.
        near_copy_indices: Rows of the first 20 of them.
        near_copy_sources: The training image of each, row N + i for image i of the pool.
        near_copy_distance: Distance up to which an image is a near-copy.
        held_out_copies: Held-out images that would count as near-copies.
        copying: Whether there are signs of copying, see `measure_privacy`.
        notes: How the metrics were computed, and what was not possible.
        warning: Sentences on the signs, and what to do; None where there are none.
    """

    metrics: tuple[Metric, ...]
    near_copies: int
    near_copy_indices: tuple[int, ...]
    near_copy_sources: tuple[int, ...]
    near_copy_distance: float
    held_out_copies: int
    copying: bool
    notes: tuple[str, ...] = ()
    warning: str | None = None

    figures = renamed_attribute("figures", "metrics")

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return "signs of copying" if self.copying else "no sign of copying"

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            The object of report.json.
        """
        return {
            "confidence": CONFIDENCE,
            "figures": [metric.to_json() for metric in self.metrics],
            "near_copies": self.near_copies,
            "near_copy_indices": list(self.near_copy_indices),
            "near_copy_sources": list(self.near_copy_sources),
            "near_copy_distance": self.near_copy_distance,
            "held_out_copies": self.held_out_copies,
            "verdict": self.verdict,
            "notes": list(self.notes),
            "warning": self.warning,
        }


def measure_privacy(
    train: LabelledImages,
    held_out: LabelledImages,
    synthetic_images: Shaped[np.ndarray, "m *space c"],
    *,
    synthetic_labels: Int64[np.ndarray, " m"] | None = None,
    generator: Synthesizer | None = None,
    seed: int = 0,
    n_bootstrap: int = 200,
    device: torch.device | str = "cpu",
) -> Privacy:
    """Look for copies, measure distances and attack, beside the same of held-out images.

    Distances are root mean square differences per value, as a fraction of the value range, to the
    nearest training image, labelled or not. With labels, synthetic and held-out images are compared
    in the same numbers of each class. Intervals are percentile bootstraps over images, which is
    sound here: the training images looked among are never resampled, so none repeats.

    - *median distance*, and the *share nearer* than 95 % of held-out images come;
    - *authenticity* (Alaa et al. 2022, arXiv:2102.08921): share of images that are farther from
      their nearest training image than that one is from its nearest other;
    - *data copying* C_T (Meehan, Chaudhuri & Dasgupta 2020, arXiv:2004.05675): z-score of the
      Mann-Whitney U of synthetic against held-out distances; cells are the classes where labels
      are given and cover half of the held-out images, else there is one;
    - *attack by distance* (GAN-Leaks, Chen et al. 2020, arXiv:1909.03935): who has the synthetic
      images alone tells training images by how near the nearest synthetic one is. In the real
      column half of the held-out images are released in their place;
    - *attacks by reconstruction and likelihood*: who has the generator tells them by how well it
      explains them. In the real column the range of a guess.

    A near-copy is nearer than `COPY_DISTANCE`, or than half the distance to which the nearest 1 %
    of held-out images come, at any shift by up to one place along each axis, flipped (pictures) or
    not; see `vaeaug.evaluation.privacy.copies.CopySearch`.

    Signs of copying are: a near-copy within `COPY_DISTANCE` where no held-out image is one; more
    near-copies than held-out images explain (Fisher's exact test, p < 0.01); C_T surely below 0
    with surely more than twice as many near images; or an attack by distance that surely finds 55
    of 100.

    Args:
        train: Real images that the generator was trained on, with their pool.
        held_out: Real images that it never saw, of the same classes and origin.
        synthetic_images: Images of the shape and type of the real ones.
        synthetic_labels: Their classes.
        generator: The generator, for the attacks on it.
        seed: Seed of the choice of images and the intervals.
        n_bootstrap: Resamples behind each interval; 0 gives none.
        device: Where distances are computed; the generator stays where it is.

    Returns:
        The metrics and the verdict.

    Raises:
        ValueError: If the parts do not belong together, or all held-out images are training images.
    """
    check_like(train, synthetic_images, "measure_privacy: synthetic_images")
    held_out, notes = without_shared(train, held_out, "measure_privacy")
    labels = None
    if synthetic_labels is not None:
        labels = check_labels(
            synthetic_labels, len(synthetic_images), train.n_classes, "measure_privacy"
        )
    audit = Audit(
        train,
        held_out,
        seed=seed,
        n_resamples=n_bootstrap,
        device=torch.device(device),
        notes=notes,
    )
    copies = find_copies(audit, synthetic_images)
    metrics = distance_metrics(audit, synthetic_images, labels)
    metrics.append(attack_by_distance(audit, synthetic_images))
    if generator is not None:
        metrics += attacks_on(audit, generator)
    by_name = {metric.name: metric for metric in metrics}
    signs = _signs(copies, by_name)
    sentences = [*signs, *_risks(by_name), *[_REMEDY] * bool(signs)]
    return Privacy(
        metrics=tuple(metrics),
        near_copies=len(copies.rows),
        near_copy_indices=tuple(copies.rows[:LISTED].tolist()),
        near_copy_sources=tuple(copies.sources[:LISTED].tolist()),
        near_copy_distance=copies.limit,
        held_out_copies=copies.held_out,
        copying=bool(signs),
        notes=tuple(notes),
        warning=" ".join(sentences) or None,
    )


def _signs(copies: NearCopies, metrics: Mapping[str, Metric]) -> list[str]:
    """Sentences on signs of copying in the images."""
    from scipy.stats import fisher_exact

    signs = []
    n, exact = len(copies.rows), int((copies.distances <= COPY_DISTANCE).sum())
    table = [
        [n, copies.searched - n],
        [copies.held_out, copies.held_out_searched - copies.held_out],
    ]
    more = float(fisher_exact(table, alternative="greater").pvalue) < SURE
    if more or (exact and copies.held_out_least > COPY_DISTANCE):
        signs.append(
            f"{n} of {copies.searched} synthetic images are near-copies of training images, "
            f"against {copies.held_out} of {copies.held_out_searched} held-out images."
        )
    copying, nearer = metrics.get("data_copying"), metrics["share_nearer"]
    if copying is not None and copying.high < 0 and nearer.low > NEARER:
        signs.append(
            f"{nearer.value:.0%} of the synthetic images lie nearer to a training image than 95 % "
            f"of held-out images do (C_T {copying.value:.1f})."
        )
    if metrics["attack_by_distance"].low > ATTACK:
        signs.append(
            "The synthetic images alone tell training images from held-out ones (AUC "
            f"{metrics['attack_by_distance'].value:.2f})."
        )
    return signs


def _risks(metrics: Mapping[str, Metric]) -> list[str]:
    """Sentences on what the generator gives away."""
    return [
        f"Whoever has the generator can tell training images by {how} (AUC "
        f"{metrics[name].value:.2f}): share the images rather than the generator."
        for name, how in (
            ("attack_by_reconstruction", "reconstruction"),
            ("attack_by_likelihood", "likelihood"),
        )
        if name in metrics and metrics[name].low > ATTACK
    ]
