"""Drawing of the requested number of samples of a class, none of them a copy."""

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
from vaeaug.shapes import are_features

log = logging.getLogger("vaeaug")

# Number of candidates that are drawn and judged at once, and minimum budget of a sampler.
CHUNK = 512
MIN_CANDIDATES = 64
# If a sampler cannot fill a class, samples are drawn at these multiples of the temperature.
WIDER = (1.0, 2.0, 4.0)
# Reasons of rejection. Copies may be used if a class cannot be filled otherwise.
COPY, SIBLING, OTHER = "copy of a real one", "copy of a synthetic one", "unlike its class"


class Judge(Protocol):
    """Decides for each candidate of a class whether it is rejected, and why."""

    def start(self, label: int) -> None:
        """Start judging candidates of a class.

        Args:
            label: Class index.
        """

    def reasons(self, samples: Shaped[np.ndarray, "n *space c"]) -> np.ndarray:
        """Return the reason of rejection of each sample.

        Args:
            samples: Samples as `restored` returned them.

        Returns:
            `COPY`, `SIBLING`, `OTHER`, or "" if the sample is accepted, (n,).
        """

    def restored(
        self, samples: Shaped[np.ndarray, "n *space c"]
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Convert samples of the generator to those that are returned to the user.

        Args:
            samples: Samples of the generator.

        Returns:
            The converted samples.
        """


class ImageJudge:
    """Screening as in a job: near-copies, duplicates, and samples of another class.

    Args:
        screener: Screener fitted to the data.
    """

    def __init__(self, screener: Screener) -> None:
        self._screener = screener

    def start(self, label: int) -> None:
        """Start judging candidates of a class."""
        self._class = self._screener.new_class(label)

    def restored(
        self, samples: Shaped[np.ndarray, "n *space c"]
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Return the samples unchanged."""
        return samples

    def reasons(self, samples: Shaped[np.ndarray, "n *space c"]) -> np.ndarray:
        """Map the reasons of the screening to those that may and may not be relaxed."""
        names = {"": "", "near-copy": COPY, "duplicate": SIBLING}
        reason = self._class.screen(samples).reason
        return np.array([names.get(name, OTHER) for name in reason], dtype=object)


class TableJudge:
    """Rejects rows that are nearer to a real row than real rows are to each other.

    The limit is that of the screening: ``near_copy_factor`` times the ``near_copy_quantile`` of the
    nearest-neighbour distances within the class, in units of the spread of the columns. Rows are
    judged after rounding and clipping, so that exact copies are always found.

    Args:
        data: The scaled table as signals, (n, F, 1).
        columns: The scales of its columns.
        config: The job.
        seed: Seed of the principal components.
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
        self._space.reach(float(self._limits.max()))

    def start(self, label: int) -> None:
        """Start judging candidates of a class."""
        self._limit = self._limits[label]

    def restored(
        self, samples: Shaped[np.ndarray, "n *space c"]
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Convert the samples to rows in the units of the table."""
        return self._columns.restored(samples[..., 0])[..., None]

    def reasons(self, samples: Shaped[np.ndarray, "n *space c"]) -> np.ndarray:
        """Find the rows that are copies."""
        rows = self._columns.scaled(samples[..., 0])[..., None]
        distance, _ = self._space.nearest(rows, self._space.project(rows))
        return np.where(distance <= self._limit, COPY, "").astype(object)


@dataclass(frozen=True)
class Filled:
    """The synthetic rows of one class.

    Attributes:
        samples: The samples as they are returned, (n, *space, C).
        sources: Row of the real sample from which each was made, -1 for none, (n,).
        sampler: The samplers that drew them, for the log.
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

    The requested sampler is tried first. If its budget is spent, real samples are moved by
    increasing noise. If the class is still not filled, samples that copy a synthetic one and, if
    `copies_allowed`, those that copy a real one are used, with a warning that counts them.

    Args:
        generator: The trained generator, with its training data attached.
        judge: The judge of candidates.
        config: The job: seed, temperature, budget.
        label: Class index.
        n: Number of samples.
        sampler: "auto", or a sampler of the generator.
        copies_allowed: Whether copies may be used. They are for tables, whose columns may have so
            few values that nothing new is left.

    Returns:
        The samples.

    Raises:
        ValueError: If the class cannot be filled.
    """
    name = generator.class_names[label]
    judge.start(label)
    accepted: list[tuple[np.ndarray, np.ndarray]] = []
    rejected: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {SIBLING: [], COPY: []}
    used: list[str] = []
    missing, drawn = n, 0
    for candidate_sampler, temperature in _samplers(generator, config, label, sampler):
        if not missing:
            break
        used.append(
            candidate_sampler
            if temperature == 1
            else f"{candidate_sampler} at temperature {temperature:g}"
        )
        recipe = config.recipe.model_copy(update={"temperature": temperature})
        sampling_config = config.with_recipe(recipe)
        budget = max(MIN_CANDIDATES, int(config.screening.max_candidates_ratio * missing))
        budget_end = drawn + budget
        block_size = next(blocks(CHUNK, math.prod(generator.image_shape), CHUNK)).stop
        while missing and drawn < budget_end:
            batch = sample_configured(
                generator,
                sampling_config,
                label,
                min(block_size, missing + missing // 4 + 1, budget_end - drawn),
                sampler=candidate_sampler,
                seed=config.seed,
                start=drawn,
            )
            drawn += len(batch)
            samples = judge.restored(batch.images)
            reasons = judge.reasons(samples)
            accepted_rows = np.flatnonzero(reasons == "")[:missing]
            accepted.append((samples[accepted_rows], batch.source_index[accepted_rows]))
            missing -= len(accepted_rows)
            for reason, parts in rejected.items():
                # No more than may be needed.
                rows = np.flatnonzero(reasons == reason)[:missing]
                parts.append((samples[rows], batch.source_index[rows]))
    if missing:
        accepted += _relaxed(rejected, name, missing, n, copies_allowed)
    samples, sources = (np.concatenate(parts) for parts in zip(*accepted, strict=True))
    log.info("class %r: %d drawn, %d used (%s)", name, drawn, n, ", ".join(used))
    return Filled(samples, sources, ", ".join(used))


def _samplers(
    generator: Synthesizer, config: AugmentConfig, label: int, sampler: str
) -> Iterator[tuple[str, float]]:
    """Yield samplers and temperatures in the order in which they are tried."""
    temperature = config.recipe.temperature
    if sampler == "auto":
        # A class of one sample has no neighbour to move towards.
        sampler = "interpolate" if len(generator.rows[label]) > 1 else "posterior"
        if are_features(generator.image_shape):
            sampler = generator.default_sampler(label, residual=True)
    if not (sampler == "interpolate" and len(generator.rows[label]) == 1):
        yield sampler, temperature
    fallback = "posterior" if sampler in WITH_SOURCE else sampler
    for wider in WIDER:
        if (fallback, wider) != (sampler, 1.0):
            yield fallback, temperature * wider


def _relaxed(
    rejected: dict[str, list[tuple[np.ndarray, np.ndarray]]],
    name: str,
    missing: int,
    n: int,
    copies_allowed: bool,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Use rejected candidates for the missing samples, and warn about them.

    Raises:
        ValueError: If there are too few.
    """
    selected: list[tuple[np.ndarray, np.ndarray]] = []
    for reason in (SIBLING, COPY) if copies_allowed else (SIBLING,):
        if not missing or not rejected[reason]:
            continue
        # The last ones were moved farthest.
        parts = zip(*reversed(rejected[reason]), strict=True)
        samples, sources = (np.concatenate(column) for column in parts)
        count = min(missing, len(samples))
        selected.append((samples[:count], sources[:count]))
        missing -= count
        if count:
            warnings.warn(
                f"VAEOverSampler: class {name!r}: {count} of its {n} synthetic samples are each "
                f"nearly a {reason}, because no others were drawn; request fewer, or resample with "
                "a method that repeats samples on purpose",
                UserWarning,
                stacklevel=6,
            )
    if missing:
        raise ValueError(
            f"VAEOverSampler: class {name!r}: expected {n} new samples, got {n - missing} that are "
            "neither copies of real ones nor unlike their class; request fewer "
            "(sampling_strategy), train longer (steps), or loosen screening.near_copy_factor and "
            "recipe.min_label_probability (config)"
        )
    return selected
