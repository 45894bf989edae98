"""Draw, screen and write one class after another, and remember which are whole.

A class is the unit of resuming: its shards are recorded when all of them are on disk.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaeaug.config import AugmentConfig
from vaeaug.files import read_whole
from vaeaug.files.json_text import sealed, unsealed
from vaeaug.generator import (
    BLOCK,
    Synthesizer,
    edits_images,
    keeps_detail,
    sample_configured,
)
from vaeaug.memory import blocks
from vaeaug.plan import ClassPlan
from vaeaug.screening import ClassScreening, Screener, ScreeningReport
from vaeaug.shards import (
    ClassEntry,
    ShardEntry,
    ShardProvenance,
    ShardWriter,
    publish_bytes,
    read_class,
    sha256_file,
)

log = logging.getLogger("vaeaug")

# Candidates drawn and screened at once.
CHUNK = 512


@dataclass(frozen=True)
class FinishedClass:
    """A class whose shards are whole.

    Attributes:
        entry: What was wanted of it, and what came of it.
        shards: Its shards, in order.
        sampler: How they were drawn, such as "interpolate+residual, gmm" where the first fell
            short; "" where none were made.
        near: Samples nearer to a training image than 95 % of real images are to one another.
    """

    entry: ClassEntry
    shards: list[ShardEntry]
    sampler: str
    near: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "class": {**vars(self.entry), "rejected": dict(self.entry.rejected)},
            "shards": [vars(each) for each in self.shards],
            "sampler": self.sampler,
            "near": self.near,
        }


def make_class(
    folder: Path,
    wanted: ClassPlan,
    generator: Synthesizer,
    screener: Screener | None,
    config: AugmentConfig,
    provenance: ShardProvenance,
    *,
    first_shard: int,
    progress: Callable[[int, int], None] | None,
) -> FinishedClass:
    """Draw candidates of one class until enough are accepted or the budgets are spent.

    Args:
        folder: The run folder.
        wanted: The class and how many of it.
        generator: Draws them.
        screener: Judges them; may be None where none are wanted.
        config: Sampler, budget and shards.
        provenance: Written into the shards.
        first_shard: Number of the class's first shard.
        progress: Called as ``progress(accepted, wanted)``.

    """
    report = ScreeningReport()
    shards: list[ShardEntry] = []
    drawn_by: list[str] = []
    if wanted.n_synthetic and screener is not None:
        automatic = config.recipe.sampler == "auto"
        screening = screener.new_class(wanted.label, bounded=automatic)
        for sampler in _samplers(generator, wanted.label, config):
            if report.accepted == wanted.n_synthetic:
                break
            name = f"{sampler}+residual" if keeps_detail(config.sampling, sampler) else sampler
            writer = ShardWriter(
                folder,
                label=wanted.label,
                class_names=generator.class_names,
                sampler=name,
                dtype=str(generator.dtype),
                layout=generator.layout,
                image_shape=generator.image_shape,
                value_range=generator.value_range,
                n_latents=generator.model.latent_dim,
                provenance=provenance,
                max_bytes=config.shards.max_bytes,
                compress=config.shards.compress,
                first_index=first_shard + len(shards),
            )
            with writer:
                _fill(writer, wanted, generator, screening, report, config, sampler, progress)
            if writer.entries:
                shards += writer.entries
                drawn_by.append(name)
    entry = ClassEntry(
        label=wanted.label,
        name=wanted.name,
        real=wanted.real,
        target_count=wanted.target_count,
        n_synthetic=wanted.n_synthetic,
        accepted=report.accepted,
        rejected=report.to_json()["rejected"],
        candidates=report.candidates,
    )
    return FinishedClass(entry, shards, ", ".join(drawn_by), report.near)


def _samplers(generator: Synthesizer, label: int, config: AugmentConfig) -> list[str]:
    """The sampler asked for; where it is "auto", the class's default and then a density.

    Edits of real images can run out: there are so many neighbours, and near-copies are turned away.
    """
    if config.recipe.sampler != "auto":
        return [config.recipe.sampler]
    first = generator.default_sampler(label, residual=edits_images(config.sampling))
    then = "flow" if generator.flow is not None else "gmm"
    return [first] if first == then else [first, then]


def _fill(
    writer: ShardWriter,
    wanted: ClassPlan,
    generator: Synthesizer,
    screening: ClassScreening,
    report: ScreeningReport,
    config: AugmentConfig,
    sampler: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Draw by one sampler until the class is full or the sampler's budget is spent."""
    missing = wanted.n_synthetic - report.accepted
    budget = report.candidates + int(config.screening.max_candidates_ratio * missing)
    while report.accepted < wanted.n_synthetic and report.candidates < budget:
        batch = sample_configured(
            generator,
            config,
            wanted.label,
            _chunk(
                wanted.n_synthetic - report.accepted,
                budget - report.candidates,
                math.prod(generator.image_shape),
            ),
            sampler=sampler,
            seed=config.seed,
            start=report.candidates,
        )
        screened = screening.screen(batch.images)
        rows = np.flatnonzero(screened.accepted)[: wanted.n_synthetic - report.accepted]
        # The candidates after the last one needed were never asked for.
        enough = report.accepted + len(rows) == wanted.n_synthetic
        report.add(screened.reason[: rows[-1] + 1] if enough else screened.reason)
        report.near += int(screened.near[rows].sum())
        kept = batch.select(rows)
        soft_labels = kept.soft_labels
        if soft_labels is None and config.recipe.soft:
            # Half of the label itself, so that no other class exceeds it.
            soft_labels = 0.5 * screened.probabilities[rows]
            soft_labels[:, wanted.label] += 0.5
        writer.append(
            images=kept.images,
            latents=kept.latents,
            source_index=kept.source_index,
            seed=kept.seed,
            p_label=screened.p_label[rows],
            nn_distance=screened.nn_distance[rows],
            nn_index=screened.nn_index[rows],
            soft_labels=soft_labels,
        )
        if progress is not None:
            progress(report.accepted, wanted.n_synthetic)


def _chunk(missing: int, left: int, n_values: int) -> int:
    """Candidates to draw next: a few more than are missing, in whole blocks, within the budget."""
    some_more = -(-(missing + missing // 4) // BLOCK) * BLOCK
    most = next(blocks(CHUNK, n_values, CHUNK)).stop
    return min(max(BLOCK, most // BLOCK * BLOCK), some_more, left)


class ClassProgress:
    """``checkpoints/classes.json``: the classes that are finished, in the order of the plan.

    Reading it deletes shards that belong to no finished class: they were left by a process that
    ended in the middle of one, and its samples are drawn again, the same.

    Args:
        folder: The run folder.
        class_names: Of the run, in the order of the labels.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.folder = folder
        self.path = folder / "checkpoints" / "classes.json"
        self.classes: dict[int, FinishedClass] = {}
        for finished in self._recorded(tuple(class_names)):
            if not all(_is_whole(folder, each) for each in finished.shards):
                # Shards are numbered on across classes: what follows is made again too.
                log.warning("class %r: its shards are not whole; made again", finished.entry.name)
                break
            self.classes[finished.entry.label] = finished
        recorded = {folder / each.path for each in self.shards}
        for path in (folder / "shards").glob("shard-*"):
            if path not in recorded:
                path.unlink()

    @property
    def shards(self) -> list[ShardEntry]:
        """All shards, in order."""
        return [shard for each in self.classes.values() for shard in each.shards]

    def add(self, finished: FinishedClass) -> None:
        """Record a class."""
        self.classes[finished.entry.label] = finished
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"classes": [each.to_json() for each in self.classes.values()]}
        publish_bytes(self.path, sealed(content))

    def _recorded(self, class_names: tuple[str, ...]) -> list[FinishedClass]:
        if not self.path.exists():
            return []
        found = []
        try:
            for content in unsealed(read_whole(self.path))["classes"]:
                where, sampler = str(self.path), content["sampler"]
                entry, shards = read_class(content["class"], content["shards"], class_names, where)
                found.append(FinishedClass(entry, shards, str(sampler), int(content["near"])))
        # What is damaged is not gone by: its samples are drawn again, the same.
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s: cannot be read (%s); every class is made again", self.path, error)
            return []
        return found


def _is_whole(folder: Path, entry: ShardEntry) -> bool:
    path = folder / entry.path
    return (
        path.exists() and path.stat().st_size == entry.bytes and sha256_file(path) == entry.sha256
    )
