"""Draw candidates of a class and screen them, until enough are accepted or the budget is spent."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from vaeaug.config import AugmentConfig
from vaeaug.files.names import printable
from vaeaug.generator import (
    BLOCK,
    SampleBatch,
    Synthesizer,
    edits_images,
    keeps_detail,
    sample_divided,
)
from vaeaug.memory import blocks
from vaeaug.plan import ClassPlan
from vaeaug.progress import Progress
from vaeaug.screening import Screened, Screener, ScreeningReport
from vaeaug.shards import RejectedSamples

log = logging.getLogger("vaeaug")

# Candidates drawn and screened at once.
CHUNK = 512
# Share of duplicates among the first candidates of a density from which it shows one thing alone.
ALIKE = 0.5


@dataclass(frozen=True)
class AcceptedSamples:
    """Samples of one class that passed screening, and what it measured of them.

    Attributes:
        sampler: How they were drawn, such as "interpolate+residual".
        samples: The samples.
        screened: Their verdicts, row by row.
        soft_labels: Probability of each class, (n, K); None where labels are hard.
    """

    sampler: str
    samples: SampleBatch
    screened: Screened
    soft_labels: Float32[np.ndarray, "n k"] | None


class RejectedToKeep:
    """The first rejected samples of a class for each reason, which a run keeps for looking.

    Args:
        label: The class.
        most: Samples for each reason, at most.
        max_bytes: Bytes of their values for each reason, at most; one sample is always kept.
    """

    def __init__(self, label: int, most: int, *, max_bytes: int = 2**20) -> None:
        self.label, self._most, self._max_bytes = label, most, max_bytes
        self._counts: Counter[str] = Counter()
        self._parts: list[tuple[SampleBatch, Screened]] = []

    def add(self, batch: SampleBatch, screened: Screened, judged: int) -> None:
        """Keep what is still missing.

        Args:
            batch: Candidates.
            screened: Their verdicts.
            judged: How many of the first ones count.
        """
        if not self._most or not judged:
            return
        most = min(self._most, max(1, self._max_bytes // batch.images[:1].nbytes))
        rows = []
        for row, reason in enumerate(screened.reason[:judged]):
            if reason and self._counts[reason] < most:
                self._counts[reason] += 1
                rows.append(row)
        if rows:
            index = np.array(rows)
            self._parts.append((batch.select(index), screened.select(index)))

    def samples(self) -> RejectedSamples | None:
        """Give what was kept.

        Returns:
            The samples in the order they were drawn; None if there are none.
        """
        if not self._parts:
            return None
        batches, verdicts = zip(*self._parts, strict=True)

        def joined(parts: tuple[Any, ...], name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        return RejectedSamples(
            label=self.label,
            **{name: joined(batches, name) for name in ("images", "source_index", "seed")},
            **{
                name: joined(verdicts, name)
                for name in ("reason", "p_label", "nn_distance", "nn_index")
            },
        )


@dataclass(frozen=True)
class EarlierSamples:
    """Samples of one class that an earlier job accepted, to go on after them.

    Attributes:
        candidates: Candidates of this seed that were drawn: the index of the next one.
        accepted: Samples of this seed that were accepted; they count towards the plan.
        images: All samples of the class, whatever their seed, in parts: no new one may nearly equal
            one of them.
    """

    candidates: int = 0
    accepted: int = 0
    images: Iterable[Shaped[np.ndarray, "n *space c"]] = ()


def draw_class(
    class_plan: ClassPlan,
    generator: Synthesizer,
    screener: Screener,
    config: AugmentConfig,
    *,
    report: ScreeningReport,
    rejected: "RejectedToKeep | None" = None,
    earlier: EarlierSamples | None = None,
    progress: Progress | None = None,
) -> Iterator[AcceptedSamples]:
    """Draw and screen the samples of one class.

    With ``recipe.sampler: auto`` the default sampler of the class comes first and then a density:
    edits of real images can run out, for there are only so many neighbours, and near-copies are
    rejected. Of a density whose first candidates are mostly duplicates of one another, as where the
    decoder has learned no more than the mean of the class, nothing is taken.

    Args:
        class_plan: The class and how many samples of it are wanted.
        generator: Draws them.
        screener: Judges them.
        config: Sampler, temperature, budget.
        report: Counts candidates, accepted and rejected samples as they are drawn.
        rejected: Keeps some of those that are rejected; None keeps none.
        earlier: What an earlier job drew of the class; only the rest is drawn.
        progress: Reports accepted of wanted samples; None is silent.

    Yields:
        Accepted samples in the order of their seeds, those of one sampler after another.
    """
    automatic = config.recipe.sampler == "auto"
    # Soft labels are what all classifiers say.
    screening = screener.new_class(
        class_plan.label, bounded=automatic, brief=not config.recipe.soft
    )
    earlier = earlier or EarlierSamples()
    for images in earlier.images:
        screening.remember(images)
    wanted, ratio = class_plan.n_synthetic - earlier.accepted, config.screening.max_candidates_ratio
    # The first sampler may judge as many as if all had been asked for at once.
    budget = int(ratio * class_plan.n_synthetic) - earlier.candidates
    for i, sampler in enumerate(_samplers(generator, class_plan.label, config)):
        if i:
            budget = report.candidates + int(ratio * (wanted - report.accepted))
        is_first = True
        while report.accepted < wanted and report.candidates < budget:
            missing = wanted - report.accepted
            n = _chunk(missing, budget - report.candidates, math.prod(generator.image_shape))
            batch = sample_divided(
                generator,
                config,
                class_plan.label,
                n,
                sampler=sampler,
                seed=config.seed,
                start=earlier.candidates + report.candidates,
            )
            screened = screening.screen(batch.images)
            if i and is_first and np.mean(screened.reason == "duplicate") > ALIKE:
                _refuse(class_plan.name, sampler, batch, screened, report, rejected)
                break
            is_first = False
            name = f"{sampler}+residual" if keeps_detail(config.sampling, sampler) else sampler
            accepted = _accepted(name, batch, screened, missing, report, rejected)
            if len(accepted.samples):
                yield accepted if not config.recipe.soft else _softened(accepted, class_plan.label)
            if progress is not None:
                progress(f"drawing {class_plan.name}", report.accepted, wanted, {})


def _samplers(generator: Synthesizer, label: int, config: AugmentConfig) -> list[str]:
    """The sampler of the recipe; where it is "auto", the class's default and then a density."""
    if config.recipe.sampler != "auto":
        return [config.recipe.sampler]
    first = generator.default_sampler(label, residual=edits_images(config.sampling))
    if first == "transfer":  # a density gives detail besides style, another look
        return [first, "prior"]
    then = generator.density_sampler
    return [first] if first == then else [first, then]


def _accepted(
    sampler: str,
    batch: SampleBatch,
    screened: Screened,
    missing: int,
    report: ScreeningReport,
    rejected: "RejectedToKeep | None",
) -> AcceptedSamples:
    """Keep as many accepted samples of a batch as are missing."""
    rows = np.flatnonzero(screened.accepted)[:missing]
    # The candidates after the last one needed were never asked for.
    enough = len(rows) == missing
    judged = int(rows[-1]) + 1 if enough else len(batch)
    report.add(screened.reason[:judged])
    if rejected is not None:
        rejected.add(batch, screened, judged)
    report.near += int(screened.near[rows].sum())
    samples = batch.select(rows)
    return AcceptedSamples(sampler, samples, screened.select(rows), samples.soft_labels)


def _refuse(
    name: str,
    sampler: str,
    batch: SampleBatch,
    screened: Screened,
    report: ScreeningReport,
    rejected: "RejectedToKeep | None",
) -> None:
    """Take nothing of a batch: what passes is like what does not."""
    reason = np.where(screened.accepted, "duplicate", screened.reason)
    report.add(reason)
    if rejected is not None:
        rejected.add(batch, replace(screened, reason=reason), len(batch))
    log.warning(
        "class %r: the samples of %r are nearly all alike, so that none is taken",
        printable(name),
        sampler,
    )


def _softened(accepted: AcceptedSamples, label: int) -> AcceptedSamples:
    """Soft labels, where the sampler gave none: half the label, half what the classifiers say."""
    if accepted.soft_labels is not None:
        return accepted
    # Half of the label itself, so that no other class exceeds it.
    soft_labels = 0.5 * accepted.screened.probabilities
    soft_labels[:, label] += 0.5
    return AcceptedSamples(accepted.sampler, accepted.samples, accepted.screened, soft_labels)


def _chunk(missing: int, left: int, n_values: int) -> int:
    """Candidates to draw next: a few more than are missing, in whole blocks, within the budget."""
    some_more = -(-(missing + missing // 4) // BLOCK) * BLOCK
    most = next(blocks(CHUNK, n_values, CHUNK)).stop
    return min(max(BLOCK, most // BLOCK * BLOCK), some_more, left)
