"""Membership attacks: guessing training images from the synthetic ones, or from the generator.

In the real column of the attack by distance half of the held-out images are released in the place
of the synthetic ones; in that of the attacks on the generator stands the range of a guess.
"""

import numpy as np
from jaxtyping import Shaped

from vaeaug.evaluation.metrics import Description, Metric
from vaeaug.evaluation.privacy.audit import Audit
from vaeaug.evaluation.privacy.nearest import nearest
from vaeaug.evaluation.statistics import Interval, half_of
from vaeaug.generator import Synthesizer

# Latents per image in the generator's bound on the likelihood.
BOUND_LATENTS = 8

_BY_DISTANCE = Description(
    "Attack by distance (AUC)",
    "How often the nearer of two images to a synthetic one is the training image; 0.5 leaks"
    " nothing.",
    "half",
)
_BY_RECONSTRUCTION = Description(
    "Attack by reconstruction (AUC)",
    "How often the image that the generator reconstructs better is the training image.",
    "half",
)
_BY_LIKELIHOOD = Description(
    "Attack by likelihood (AUC)",
    "How often the image that the generator finds likelier is the training image.",
    "half",
)


def attack_by_distance(audit: Audit, images: Shaped[np.ndarray, "m *space c"]) -> Metric:
    """Attack with the synthetic images alone: the image nearer to one is guessed to be the member.

    GAN-Leaks, Chen et al. 2020 (arXiv:1909.03935).

    Args:
        audit: The audit; notes are added to it.
        images: The synthetic images.

    Returns:
        The area under the curve of the attack.
    """
    held_out = audit.held_out
    first = half_of(held_out.labels, audit.rng)
    rest = np.delete(np.arange(len(held_out)), first)
    columns = []
    for released, outside in (
        (images, held_out),
        (held_out.images[first], held_out.subset(rest)),
    ):
        if not len(released):
            audit.notes.append("Too few held-out images to attack with half of them.")
            columns.append(Interval(0.5, 0.0, 1.0))
            continue
        scores = [
            -nearest(kind.images, [released], audit.space)[0] for kind in audit.alike(outside)
        ]
        columns.append(audit.attack_auc(*scores))
    return Metric.of("attack_by_distance", _BY_DISTANCE, *columns)


def attacks_on(audit: Audit, generator: Synthesizer) -> list[Metric]:
    """Attack with the generator: it explains training images better than others.

    Args:
        audit: The audit.
        generator: The generator.

    Returns:
        The areas under the curves of the attacks by reconstruction and by likelihood.

    Raises:
        ValueError: If the generator has other classes or another image shape.
    """
    train = audit.train
    if (generator.class_names, generator.image_shape) != (train.class_names, train.image_shape):
        raise ValueError(
            f"measure_privacy: expected a generator of {train.class_names} of shape "
            f"{train.image_shape}, got one of {generator.class_names} of shape "
            f"{generator.image_shape}"
        )
    kinds = audit.alike(audit.held_out)
    low, high = train.value_range
    by_reconstruction, by_likelihood = [], []
    for kind in kinds:
        rebuilt = generator.reconstruct(kind.images, kind.labels).astype(np.float64)
        gap = ((rebuilt - kind.images) / (high - low)).reshape(len(rebuilt), -1)
        by_reconstruction.append(-np.sqrt((gap**2).mean(axis=1)))
        by_likelihood.append(
            generator.bound(kind.images, kind.labels, k=BOUND_LATENTS, seed=audit.seed)
        )
    guess = _guess(*map(len, kinds))
    return [
        Metric.of(
            "attack_by_reconstruction",
            _BY_RECONSTRUCTION,
            audit.attack_auc(*by_reconstruction),
            guess,
        ),
        Metric.of("attack_by_likelihood", _BY_LIKELIHOOD, audit.attack_auc(*by_likelihood), guess),
    ]


def _guess(n: int, m: int) -> Interval:
    """AUC of a guess: 0.5, with the variance of Mann-Whitney's U."""
    reach = 1.96 * float(np.sqrt((n + m + 1) / (12 * n * m)))
    return Interval(0.5, max(0.0, 0.5 - reach), min(1.0, 0.5 + reach))
