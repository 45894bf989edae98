"""Write the samples of each class into shards, and remember which classes are whole.

A class is the unit of resuming: its shards are recorded when all of them are on disk.
"""

import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaeaug.config import AugmentConfig
from vaeaug.engines import one_thread
from vaeaug.files import read_whole
from vaeaug.files.json_text import sealed, unsealed
from vaeaug.generator import Synthesizer
from vaeaug.plan import ClassPlan, Plan
from vaeaug.progress import Progress
from vaeaug.screening import Screener, ScreeningReport
from vaeaug.shards import (
    ClassEntry,
    ShardEntry,
    ShardProvenance,
    ShardWriter,
    publish_bytes,
    read_class,
    sha256_file,
    write_rejected,
)
from vaeaug.stages import EarlierSamples, RejectedToKeep, draw_class

log = logging.getLogger("vaeaug")

# Classes whose shards are still on their way to the disk when the next one is drawn.
MOST_WAITING = 2
# Seconds between records of the classes that are whole: a process that is killed loses no more.
SAVE_EVERY = 1.0


def rejected_path(folder: Path, label: int) -> Path:
    """Find where a run keeps rejected samples of a class for looking.

    Args:
        folder: The run folder.
        label: The class.

    Returns:
        A file that is not there where the class has none.
    """
    return folder / "checkpoints" / f"rejected-{label:05d}.h5"


@dataclass(frozen=True)
class WrittenClass:
    """A class whose shards are whole.

    Attributes:
        entry: How many samples were wanted, drawn and accepted.
        shards: Its shards, in order.
        sampler: How they were drawn, such as "interpolate+residual, gmm" where the first fell
            short; "" where there are none.
        near: Samples nearer to a training image than 95 % of real images are to one another.
    """

    entry: ClassEntry
    shards: list[ShardEntry]
    sampler: str
    near: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types.

        Returns:
            A line of ``checkpoints/classes.json``.
        """
        return {
            "class": {**vars(self.entry), "rejected": dict(self.entry.rejected)},
            "shards": [vars(shard) for shard in self.shards],
            "sampler": self.sampler,
            "near": self.near,
        }

    @classmethod
    def from_json(
        cls, content: Mapping[str, Any], class_names: tuple[str, ...], where: str
    ) -> "WrittenClass":
        """The same from what `to_json` gave.

        Args:
            content: A line of ``checkpoints/classes.json``.
            class_names: Of the run.
            where: What it was read from, for messages.

        Returns:
            The class.

        Raises:
            ShardError: If a value is not what it should be; a KeyError, if one is missing.
        """
        entry, shards = read_class(content["class"], content["shards"], class_names, where)
        return cls(entry, shards, str(content["sampler"]), int(content["near"]))


def write_classes(
    written: "WrittenClasses",
    plan: Plan,
    generator: Synthesizer,
    screener: Screener | None,
    config: AugmentConfig,
    *,
    earlier: Mapping[int, EarlierSamples] | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw, screen and write every class of the plan that is not whole yet.

    Args:
        written: The classes that are whole; what is written is added.
        plan: How many samples of each class are wanted.
        generator: Draws them.
        screener: Judges them; may be None where none are missing.
        config: Sampler, budget and shards.
        earlier: By label, what earlier jobs drew; only the rest of the plan is drawn.
        progress: Reports accepted of wanted samples of each class.

    Raises:
        ShardError: If a shard cannot be written.
    """
    waiting: deque[DrawnClass] = deque()

    def record(most: int) -> None:
        """Record the classes that are on disk, in order; wait until at most `most` are not."""
        while waiting and (len(waiting) > most or waiting[0].is_written):
            written.add(waiting.popleft().written())

    # One thread writes and hashes the shards of a class while the next one is drawn.
    with ThreadPoolExecutor(1, "shards") as executor:
        try:
            writer = ClassWriter(
                written.folder,
                generator,
                config,
                written.provenance,
                executor=executor,
                next_shard=written.next_shard,
            )
            for class_plan in plan:
                if class_plan.label not in written.classes:
                    before = (earlier or {}).get(class_plan.label)
                    with one_thread():
                        drawn = writer.write(class_plan, screener, before, progress)
                    waiting.append(drawn)
                    record(MOST_WAITING)
            record(0)
        finally:
            executor.shutdown(cancel_futures=True)
            written.save()


@dataclass(frozen=True)
class DrawnClass:
    """A class whose samples are drawn, and whose shards are being written.

    Attributes:
        class_plan: How many samples were wanted.
        report: How many were drawn, accepted and rejected.
        writers: What writes its shards, one for each sampler.
        n_earlier: Samples that earlier jobs drew of it.
    """

    class_plan: ClassPlan
    report: ScreeningReport
    writers: list[ShardWriter]
    n_earlier: int

    @property
    def is_written(self) -> bool:
        """Whether its shards are on the disk, or could not be written."""
        return all(writer.is_published for writer in self.writers)

    def written(self) -> WrittenClass:
        """Wait for its shards.

        Returns:
            The class.

        Raises:
            ShardError: If a shard could not be written.
        """
        class_plan, report = self.class_plan, self.report
        entry = ClassEntry(
            label=class_plan.label,
            name=class_plan.name,
            real=class_plan.real,
            target_count=class_plan.target_count,
            n_synthetic=max(0, class_plan.n_synthetic - self.n_earlier),
            accepted=report.accepted,
            rejected=report.to_json()["rejected"],
            candidates=report.candidates,
        )
        shards = [shard for writer in self.writers for shard in writer.entries]
        samplers = ", ".join(writer.sampler for writer in self.writers)
        return WrittenClass(entry, shards, samplers, report.near)


class ClassWriter:
    """Writes the shards of one class after another.

    Args:
        folder: Shards go to ``folder/shards``, rejected samples to ``folder/checkpoints``.
        generator: Draws the samples.
        config: Sampler, budget and shards.
        provenance: What the shards say of their origin.
        executor: Writes shards while the next ones are drawn; None: they are written in between.
        next_shard: Number of the first shard.
    """

    def __init__(
        self,
        folder: Path,
        generator: Synthesizer,
        config: AugmentConfig,
        provenance: ShardProvenance,
        *,
        executor: Executor | None = None,
        next_shard: int = 0,
    ) -> None:
        self.folder, self.provenance = folder, provenance
        self.generator, self.config, self.executor = generator, config, executor
        self._next_shard = next_shard

    def write(
        self,
        class_plan: ClassPlan,
        screener: Screener | None,
        earlier: EarlierSamples | None = None,
        progress: Progress | None = None,
    ) -> DrawnClass:
        """Draw, screen and write a class.

        Args:
            class_plan: The class and how many samples of it are wanted.
            screener: Judges them; may be None where none are missing.
            earlier: What earlier jobs drew of it.
            progress: Reports accepted of wanted samples.

        Returns:
            The class, whose shards may still be on their way to the disk.
        """
        report = ScreeningReport()
        writers: list[ShardWriter] = []
        rejected = RejectedToKeep(class_plan.label, self.config.screening.keep_rejected)
        earlier = earlier or EarlierSamples()
        if class_plan.n_synthetic > earlier.accepted and screener is not None:
            drawn = draw_class(
                class_plan,
                self.generator,
                screener,
                self.config,
                report=report,
                rejected=rejected,
                earlier=earlier,
                progress=progress,
            )
            for sampler, parts in itertools.groupby(drawn, key=lambda part: part.sampler):
                writer = self._shard_writer(class_plan.label, sampler)
                for part in parts:
                    writer.append(
                        images=part.samples.images,
                        latents=part.samples.latents,
                        source_index=part.samples.source_index,
                        seed=part.samples.seed,
                        p_label=part.screened.p_label,
                        nn_distance=part.screened.nn_distance,
                        nn_index=part.screened.nn_index,
                        soft_labels=part.soft_labels,
                    )
                writer.finish()
                self._next_shard += writer.n_shards
                writers.append(writer)
        self._keep(rejected)
        return DrawnClass(class_plan, report, writers, earlier.accepted)

    def _keep(self, rejected: RejectedToKeep) -> None:
        path = rejected_path(self.folder, rejected.label)
        samples = rejected.samples()
        if samples is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_rejected(path, samples)

    def _shard_writer(self, label: int, sampler: str) -> ShardWriter:
        generator, shards = self.generator, self.config.shards
        return ShardWriter(
            self.folder,
            label=label,
            class_names=generator.class_names,
            sampler=sampler,
            dtype=str(generator.dtype),
            layout=generator.layout,
            image_shape=generator.image_shape,
            value_range=generator.value_range,
            n_latents=generator.model.latent_dim,
            provenance=self.provenance,
            max_bytes=shards.max_bytes,
            compress=shards.compress,
            first_index=self._next_shard,
            executor=self.executor,
        )


class WrittenClasses:
    """``checkpoints/classes.json``: the classes that are whole, in the order of the plan.

    Reading it deletes shards that belong to no whole class: they were left by a process that ended
    in the middle of one, or by another version, and their samples are drawn again.

    Args:
        folder: The run folder.
        class_names: Of the run, in the order of the labels.
        provenance: Of the run; classes of another model or configuration are not taken.
        first_shard: Number of the first shard: after those that the dataset has already.
    """

    def __init__(
        self,
        folder: Path,
        class_names: Sequence[str],
        provenance: ShardProvenance,
        *,
        first_shard: int = 0,
    ) -> None:
        self.folder, self.provenance, self.first_shard = folder, provenance, first_shard
        self.path = folder / "checkpoints" / "classes.json"
        self.classes: dict[int, WrittenClass] = {}
        self._unsaved, self._saved_at = False, -math.inf
        for finished in self._recorded(tuple(class_names)):
            if not all(is_whole(folder, shard) for shard in finished.shards):
                # Shards are numbered on across classes: what follows is made again too.
                log.warning("class %r: its shards are not whole; made again", finished.entry.name)
                break
            self.classes[finished.entry.label] = finished
        recorded = {folder / shard.path for shard in self.shards}
        for path in (folder / "shards").glob("shard-*"):
            if path not in recorded:
                path.unlink()

    @property
    def shards(self) -> list[ShardEntry]:
        """All shards, in order."""
        return [shard for finished in self.classes.values() for shard in finished.shards]

    @property
    def next_shard(self) -> int:
        """Number of the next shard: they are numbered on across classes."""
        return self.first_shard + len(self.shards)

    def lacks(self, plan: Plan) -> bool:
        """Whether samples of some class are still to be drawn.

        Args:
            plan: How many samples of each class are wanted.

        Returns:
            True if a class that gets samples is not whole.
        """
        return any(
            class_plan.n_synthetic and class_plan.label not in self.classes for class_plan in plan
        )

    def add(self, finished: WrittenClass) -> None:
        """Record a class; on disk after a while, so that thousands of classes are not slower.

        Args:
            finished: The class, whose shards are on disk.
        """
        self.classes[finished.entry.label] = finished
        self._unsaved = True
        if time.monotonic() - self._saved_at >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write what was recorded since the last time.

        Raises:
            ShardError: If it cannot be written.
        """
        if not self._unsaved:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "provenance": vars(self.provenance),
            "classes": [finished.to_json() for finished in self.classes.values()],
        }
        publish_bytes(self.path, sealed(content))
        self._unsaved, self._saved_at = False, time.monotonic()

    def _recorded(self, class_names: tuple[str, ...]) -> list[WrittenClass]:
        if not self.path.exists():
            return []
        recorded = []
        # Nothing is taken from what is damaged: its samples are drawn again, the same.
        try:
            document = unsealed(read_whole(self.path))
            for content in document["classes"]:
                recorded.append(WrittenClass.from_json(content, class_names, str(self.path)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s: cannot be read (%s); every class is made again", self.path, error)
            return []
        if document.get("provenance") != vars(self.provenance):
            log.warning(
                "%s: of another model or configuration; every class is made again", self.path
            )
            return []
        return recorded


def is_whole(folder: Path, entry: ShardEntry) -> bool:
    """Tell whether a shard is there, with the bytes that it was written with.

    Args:
        folder: The run folder.
        entry: The shard.

    Returns:
        False if it is missing or another one.
    """
    path = folder / entry.path
    return (
        path.exists() and path.stat().st_size == entry.bytes and sha256_file(path) == entry.sha256
    )
