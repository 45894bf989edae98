"""Draw rows of one class until there are as many as asked for, none of them a copy."""

import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Int64, Shaped

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.generator import WITH_SOURCE, Synthesizer, sample_configured
from vaeaug.integrations.oversampling._encoding import Columns
from vaeaug.memory import blocks
from vaeaug.screening import SampleSpace, Screener

log = logging.getLogger("vaeaug")

# Candidates drawn and judged at once, and the fewest that a sampler is given to try.
CHUNK = 512
LEAST_CANDIDATES = 64
# Where a sampler cannot fill a class, its rows are moved by noise so many times the posterior's.
WIDER = (1.0, 2.0, 4.0)
# Rejected candidates that are kept for a class which cannot be filled otherwise.
COPY, SIBLING, OTHER = "copy of a real one", "copy of a synthetic one", "unlike its class"


class Judge(Protocol):
    """Says of each candidate of a class why it is not to be used, "" where it is."""

    def start(self, label: int) -> None:
        """Begin with a class."""

    def reasons(self, samples: Shaped[np.ndarray, "n *space c"]) -> np.ndarray:
        """One of `COPY`, `SIBLING`, `OTHER` and "" for each sample, (n,)."""

    def restored(
        self, samples: Shaped[np.ndarray, "n *space c"]
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Samples as they will be handed out."""


class ImageJudge:
    """Screening as in a job: near-copies, duplicates, and what shows another class.

    Args:
        screener: Fitted to the data.
    """

    def __init__(self, screener: Screener) -> None:
        self._screener = screener

    def start(self, label: int) -> None:
        """Begin with a class."""
        self._class = self._screener.new_class(label)

    def restored(
        self, samples: Shaped[np.ndarray, "n *space c"]
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Samples as they are."""
        return samples

    def reasons(self, samples: Shaped[np.ndarray, "n *space c"]) -> np.ndarray:
        """Screening's reasons, told apart by what may be relaxed."""
        names = {"": "", "near-copy": COPY, "duplicate": SIBLING}
        reason = self._class.screen(samples).reason
        return np.array([names.get(name, OTHER) for name in reason], dtype=object)


class TableJudge:
    """A row nearer to a real one than real ones are to each other is a copy of it.

    The distance is screening's: ``near_copy_factor`` times the ``near_copy_quantile`` of the
    class's own nearest-neighbour distances, in units of the columns' spread. A row is judged after
    it was rounded and clipped, so that an equal row is always found.

    Args:
        data: The scaled table as signals, (n, F, 1).
        columns: Its scales.
        config: The job.
        seed: Of the principal components.
    """

    def __init__(
        self,
        data: LabelledImages,
        columns: Columns,
        config: AugmentConfig,
        *,
        seed: int,
    ) -> None:
        self._columns = columns
        self._space = SampleSpace(data, seed)
        screening = config.screening
        (limits,) = self._space.calibrate(screening.near_copy_quantile)
        self._limits = screening.near_copy_factor * limits

    def start(self, label: int) -> None:
        """Begin with a class."""
        self._limit = self._limits[label]

    def restored(
        self, samples: Shaped[np.ndarray, "n *space c"]
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Rows in the units of the table."""
        return self._columns.restored(samples[..., 0])[..., None]

    def reasons(self, samples: Shaped[np.ndarray, "n *space c"]) -> np.ndarray:
        """Which rows are copies."""
        rows = self._columns.scaled(samples[..., 0])[..., None]
        distance, _ = self._space.nearest(rows, self._space.project(rows))
        return np.where(distance <= self._limit, COPY, "").astype(object)


@dataclass(frozen=True)
class Filled:
    """The synthetic rows of one class.

    Attributes:
        samples: As they are handed out, (n, *space, C).
        sources: Row of the real sample that each was drawn around, -1 for none, (n,).
        sampler: How they were drawn, for the log.
    """

    samples: Shaped[np.ndarray, "n *space c"]
    sources: Int64[np.ndarray, " n"]
    sampler: str


def fill_class(
    generator: Synthesizer,
    judge: Judge,
    config: AugmentConfig,
    label: int,
    n: int,
    *,
    sampler: str,
    copies_allowed: bool,
) -> Filled:
    """Draw n samples of a class.

    The sampler is tried first. Where its budget is spent, real samples are moved by more and more
    noise. Where that does not fill the class either, samples that copy a synthetic one are taken
    and, if `copies_allowed`, those that copy a real one, with a warning that counts them.

    Args:
        generator: Trained, holding its training data.
        judge: Of the candidates.
        config: The job: seed, temperature, budget.
        label: The class.
        n: How many.
        sampler: "auto", or one of the generator's.
        copies_allowed: For tables, whose columns may hold so few values that nothing new is left.

    Raises:
        ValueError: If the class cannot be filled.
    """
    name = generator.class_names[label]
    judge.start(label)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    spare: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {SIBLING: [], COPY: []}
    used: list[str] = []
    missing, drawn = n, 0
    for tried, temperature in _samplers(generator, config, label, sampler):
        if not missing:
            break
        used.append(tried if temperature == 1 else f"{tried} at temperature {temperature:g}")
        recipe = config.recipe.model_copy(update={"temperature": temperature})
        warm = config.with_recipe(recipe)
        budget = max(LEAST_CANDIDATES, int(config.screening.max_candidates_ratio * missing))
        last = drawn + budget
        most = next(blocks(CHUNK, math.prod(generator.image_shape), CHUNK)).stop
        while missing and drawn < last:
            batch = sample_configured(
                generator,
                warm,
                label,
                min(most, missing + missing // 4 + 1, last - drawn),
                sampler=tried,
                seed=config.seed,
                start=drawn,
            )
            drawn += len(batch)
            samples = judge.restored(batch.images)
            reasons = judge.reasons(samples)
            good = np.flatnonzero(reasons == "")[:missing]
            kept.append((samples[good], batch.source_index[good]))
            missing -= len(good)
            for reason, parts in spare.items():
                # Never more than could be needed.
                rows = np.flatnonzero(reasons == reason)[:missing]
                parts.append((samples[rows], batch.source_index[rows]))
    if missing:
        kept += _relaxed(spare, name, missing, n, copies_allowed)
    samples, sources = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    log.info("class %r: %d drawn, %d used (%s)", name, drawn, n, ", ".join(used))
    return Filled(samples, sources, ", ".join(used))


def _samplers(
    generator: Synthesizer, config: AugmentConfig, label: int, sampler: str
) -> Iterator[tuple[str, float]]:
    """Samplers and temperatures in the order in which they are tried."""
    temperature = config.recipe.temperature
    if sampler == "auto":
        # A class of one sample has no neighbour to be moved towards.
        sampler = "interpolate" if len(generator.rows[label]) > 1 else "posterior"
    if not (sampler == "interpolate" and len(generator.rows[label]) == 1):
        yield sampler, temperature
    fallback = "posterior" if sampler in WITH_SOURCE else sampler
    for wider in WIDER:
        if (fallback, wider) != (sampler, 1.0):
            yield fallback, temperature * wider


def _relaxed(
    spare: dict[str, list[tuple[np.ndarray, np.ndarray]]],
    name: str,
    missing: int,
    n: int,
    copies_allowed: bool,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rejected candidates that make up what is missing, with a warning.

    Raises:
        ValueError: If there are too few.
    """
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    for reason in (SIBLING, COPY) if copies_allowed else (SIBLING,):
        if not missing or not spare[reason]:
            continue
        # The last ones were moved the farthest.
        parts = zip(*reversed(spare[reason]), strict=True)
        samples, sources = (np.concatenate(part) for part in parts)
        count = min(missing, len(samples))
        taken.append((samples[:count], sources[:count]))
        missing -= count
        if count:
            warnings.warn(
                f"VAEOverSampler: class {name!r}: {count} of its {n} synthetic samples are each "
                f"nearly a {reason}: nothing else was drawn; ask for fewer, or resample with a "
                "method that repeats samples on purpose",
                UserWarning,
                stacklevel=6,
            )
    if missing:
        raise ValueError(
            f"VAEOverSampler: class {name!r}: expected {n} new samples, got {n - missing} that are "
            "neither copies of real ones nor unlike their class; ask for fewer "
            "(sampling_strategy), train longer (steps), or loosen screening.near_copy_factor and "
            "recipe.min_label_probability (config)"
        )
    return taken
