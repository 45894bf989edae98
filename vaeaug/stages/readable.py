"""What the units of a latent vector change in the samples, so that they have readable names."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from vaeaug.attributes import attributes_of
from vaeaug.generator import Synthesizer
from vaeaug.training import ACTIVE_VARIANCE

# Samples that each unit is moved in, of the largest classes; fewer of samples with many values.
MOVED, MOVED_CLASSES, MIN_MOVED, MOVED_VALUES = 48, 4, 8, 400_000
# Units are moved so far to either side, in standard deviations.
STEP = 1.0
# Units that are looked at.
MOST_UNITS = 24
# A unit that changes nothing by more has no name, standard deviations of the attribute.
LEAST_EFFECT = 0.2
# An attribute that varies less within classes is the same in all samples but for their noise, and
# what is large beside that noise is nothing: fractions of a side or of the value range, or pixels.
LEAST_SPREAD = 0.005
# Nor does it change what goes up in some samples and down in others: the least part that agrees.
LEAST_AGREEMENT = 0.75


@dataclass(frozen=True)
class UnitEffect:
    """What a latent unit changes most.

    Attributes:
        unit: Index of the unit.
        attribute: Name of the attribute, such as "slant"; "" where it changes none.
        effect: By how much it changes as the unit goes up by one standard deviation, in standard
            deviations that the attribute has within classes.
    """

    unit: int
    attribute: str
    effect: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types.

        Returns:
            The fields.
        """
        return asdict(self)

    def __str__(self) -> str:
        if not self.attribute:
            return f"unit {self.unit}"
        return f"unit {self.unit}: {self.attribute} {self.effect:+.1f}"


def units_in_order(
    generator: Synthesizer, spread: Float32[np.ndarray, " z"]
) -> Int64[np.ndarray, " z"]:
    """Units of a latent vector, the active ones of the style first, then those that vary most.

    Args:
        generator: The generator.
        spread: Standard deviation of the posterior mean of each unit.

    Returns:
        Their indices.
    """
    in_style = np.arange(len(spread)) < generator.model.style_dim
    return np.lexsort((-spread, ~(in_style & (spread**2 > ACTIVE_VARIANCE))))


def active_styles(generator: Synthesizer) -> int:
    """Count the units of the style whose posterior means vary over the training samples.

    Args:
        generator: The generator.

    Returns:
        The number; 0 also for a generator without a style.
    """
    styles = generator.means[: generator.n_real, : generator.model.style_dim]
    return int((styles.var(axis=0) > ACTIVE_VARIANCE).sum())


def unit_effects(generator: Synthesizer, *, seed: int = 0) -> list[UnitEffect]:
    """Move each unit of a latent vector in samples of all classes, and measure what changes.

    Args:
        generator: The generator.
        seed: Of the choice of samples.

    Returns:
        A line per unit, those of the style first and then those that vary most; none for latents
        on a grid, in levels, and for feature vectors.
    """
    (first, *more) = generator.model.groups
    encoded = generator.means[: generator.n_real]
    if more or first.is_grid or not len(encoded):
        return []
    rows = _rows(generator, seed)
    z, labels = encoded[rows], generator.labels[rows]
    spread = encoded.std(axis=0)
    measured = attributes_of(generator.decode(z, labels), generator.value_range)
    scale = {name: float(within(values, labels).std()) for name, values in measured.items()}
    effects = []
    for unit in units_in_order(generator, spread)[:MOST_UNITS].tolist():
        ends = []
        for sign in (-1, 1):
            moved = z.copy()
            moved[:, unit] += sign * STEP * spread[unit]
            ends.append(attributes_of(generator.decode(moved, labels), generator.value_range))
        changes = {
            name: (ends[1][name] - ends[0][name]) / (2 * STEP * scale[name])
            for name in scale
            if scale[name] > LEAST_SPREAD
        }
        if not changes:
            return []
        means = {name: float(change.mean()) for name, change in changes.items()}
        agreed = [
            name
            for name, change in changes.items()
            if (change * means[name] > 0).mean() >= LEAST_AGREEMENT
        ]
        name = max(agreed or changes, key=lambda attribute: abs(means[attribute]))
        told = bool(agreed) and abs(means[name]) >= LEAST_EFFECT
        effects.append(UnitEffect(unit, name if told else "", round(means[name], 3)))
    return effects


def _rows(generator: Synthesizer, seed: int) -> Int64[np.ndarray, " n"]:
    """Rows of a few large classes, so that there is a spread within each."""
    n = min(MOVED, max(MIN_MOVED, MOVED_VALUES // int(np.prod(generator.image_shape))))
    largest = sorted(generator.rows, key=len, reverse=True)[:MOVED_CLASSES]
    rng = np.random.default_rng(seed)
    each = max(2, n // len(largest))
    real = [rows[rows < generator.n_real] for rows in largest]
    return np.concatenate([np.sort(rng.permutation(rows)[:each]) for rows in real])


def within(
    values: Float64[np.ndarray, "n *z"], labels: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n *z"]:
    """Subtract the means of the classes.

    Args:
        values: A value or a vector of each sample.
        labels: Their classes.

    Returns:
        What is left of each.
    """
    centred = np.empty_like(values)
    for label in np.unique(labels):
        of_class = labels == label
        centred[of_class] = values[of_class] - values[of_class].mean(axis=0)
    return centred
