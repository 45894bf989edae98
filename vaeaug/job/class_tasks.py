"""Draw the classes of a run as tasks of an engine: each is drawn by a worker, beside the others.

A task leaves a class in a folder of its own, ``checkpoints/drawn/LABEL``, and says so last, in its
``class.json``. This process alone gives the shards their numbers and names, in the order of the
plan, and records the class: the run is then what one process would have written.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vaeaug.config import AugmentConfig
from vaeaug.engines import Engine, EngineError, run_tasks
from vaeaug.files import fsync_folder, read_whole
from vaeaug.files.json_text import JSONTextError, sealed, unsealed
from vaeaug.generator import Synthesizer
from vaeaug.job.writing import (
    ClassWriter,
    WrittenClass,
    WrittenClasses,
    is_whole,
    rejected_path,
)
from vaeaug.plan import ClassPlan, Plan
from vaeaug.progress import Progress, silent
from vaeaug.screening import Screener
from vaeaug.shards import (
    SHARDS_FOLDER,
    ShardEntry,
    ShardProvenance,
    publish_bytes,
    renumber,
    shard_name,
)
from vaeaug.stages import EarlierSamples

_DRAWN, _DONE = "drawn", "class.json"


def write_classes_on(
    engine: Engine,
    written: WrittenClasses,
    plan: Plan,
    generator: Synthesizer,
    screener: Screener,
    config: AugmentConfig,
    *,
    sample_bytes: int,
    earlier: Mapping[int, EarlierSamples] | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw, screen and write every class of the plan that is not whole yet, side by side.

    Args:
        engine: Where.
        written: The classes that are whole; what is written is added, in the order of the plan.
        plan: How many samples of each class are wanted.
        generator: Draws them.
        screener: Judges them.
        config: Sampler, budget and shards.
        sample_bytes: Size of one sample in a shard.
        earlier: By label, what earlier jobs drew; only the rest of the plan is drawn.
        progress: Reports classes that are done; the stage is "drawing".

    Raises:
        EngineError: If the engine cannot be started, or a class ends its worker every time.
        ShardError: If a shard cannot be written.
    """
    device = generator.device.type
    if engine.name == "ray" and device == "cuda" and not engine.gpus:
        raise EngineError(
            "engine 'ray': gpus: expected more than 0 for tasks on a GPU, got 0; or --device cpu"
        )
    folder = written.folder.absolute()
    jobs = []
    number = written.next_shard
    per_shard = max(1, config.shards.max_bytes // sample_bytes)
    for row in plan:
        if row.label not in written.classes:
            before = (earlier or {}).get(row.label, EarlierSamples())
            jobs.append(ClassJob(row, before, number))
            # Where a class turns out to need more or fewer, the later ones are numbered again.
            number += math.ceil(max(0, row.n_synthetic - before.accepted) / per_shard)
    work = DrawClass(folder, generator, screener, config, written.provenance)
    waiting: dict[int, dict[str, Any]] = {}
    n_recorded, report = 0, progress or silent
    try:
        for n_done, (index, content) in enumerate(run_tasks(work, jobs, engine), 1):
            waiting[index] = content
            report("drawing", n_done, len(jobs), {})
            while n_recorded in waiting:
                drawn = waiting.pop(n_recorded)
                _take(written, drawn, work.place(jobs[n_recorded].plan.label), work.class_names)
                n_recorded += 1
    finally:
        written.save()


def forget_drawn(folder: Path) -> None:
    """Delete what tasks left in a run folder whose classes are all recorded.

    Args:
        folder: The run folder.
    """
    shutil.rmtree(folder / "checkpoints" / _DRAWN, ignore_errors=True)


@dataclass(frozen=True)
class ClassJob:
    """One class that is to be drawn.

    Attributes:
        plan: The class and how many samples of it are wanted.
        earlier: What earlier jobs drew of it.
        first_shard: Number that its first shard is likely to get.
    """

    plan: ClassPlan
    earlier: EarlierSamples
    first_shard: int


@dataclass(frozen=True)
class DrawClass:
    """Draws, screens and writes a class; one that is there already is left as it is.

    Attributes:
        folder: The run folder, as every worker sees it.
        generator: Draws samples.
        screener: Judges them.
        config: Sampler, budget and shards.
        provenance: What the shards say of their origin.
    """

    folder: Path
    generator: Synthesizer
    screener: Screener
    config: AugmentConfig
    provenance: ShardProvenance

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the run."""
        return tuple(self.generator.class_names)

    def place(self, label: int) -> Path:
        """Name the folder in which a task leaves a class.

        Args:
            label: The class.

        Returns:
            Its folder.
        """
        return self.folder / "checkpoints" / _DRAWN / f"{label:05d}"

    def __call__(self, job: ClassJob) -> dict[str, Any]:
        """Do the task.

        Args:
            job: The class.

        Returns:
            What was drawn, with paths and hashes of its shards, as `WrittenClass.to_json` has it.

        Raises:
            EngineError: If the run folder is not there, on a machine that does not share its disk.
            ShardError: If a shard cannot be written.
        """
        if not (self.folder / "run.json").exists():
            raise EngineError(
                f"{self.folder}: expected the run folder on every machine of the cluster, got none "
                "on one of them; give an --out on a disk that they share"
            )
        place, key = self.place(job.plan.label), self._key(job)
        if (known := self._known(place, key)) is not None:
            return known
        shutil.rmtree(place, ignore_errors=True)
        writer = ClassWriter(
            place, self.generator, self.config, self.provenance, next_shard=job.first_shard
        )
        content = writer.write(job.plan, self.screener, job.earlier).written().to_json()
        place.mkdir(parents=True, exist_ok=True)
        publish_bytes(place / _DONE, sealed({"key": key, "drawn": content}))
        return content

    def _known(self, place: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """What an earlier attempt at this very task left, if it came to its end."""
        try:
            document = unsealed(read_whole(place / _DONE))
            if document["key"] != key:
                return None
            drawn = WrittenClass.from_json(document["drawn"], self.class_names, str(place))
        except (OSError, JSONTextError, ValueError, KeyError, TypeError):
            return None
        return drawn.to_json() if all(is_whole(place, shard) for shard in drawn.shards) else None

    def _key(self, job: ClassJob) -> dict[str, Any]:
        """What decides the samples of a class."""
        return {
            "provenance": vars(self.provenance),
            "class": vars(job.plan),
            "earlier": [job.earlier.candidates, job.earlier.accepted],
        }


def _take(
    written: WrittenClasses, content: Mapping[str, Any], place: Path, class_names: tuple[str, ...]
) -> None:
    """Give the shards of a class their numbers and names, and record it."""
    drawn = WrittenClass.from_json(content, class_names, str(place))
    shards: list[ShardEntry] = []
    for number, entry in enumerate(drawn.shards, written.next_shard):
        path, name = place / entry.path, f"{SHARDS_FOLDER}/{shard_name(number)}"
        taken = entry if entry.path == name else renumber(path, entry, number)
        (written.folder / name).parent.mkdir(exist_ok=True)
        path.replace(written.folder / name)
        shards.append(taken)
    if shards:
        fsync_folder(written.folder / SHARDS_FOLDER)
    label = drawn.entry.label
    kept, rejected = rejected_path(written.folder, label), rejected_path(place, label)
    kept.unlink(missing_ok=True)
    if rejected.exists():
        rejected.replace(kept)
    written.add(replace(drawn, shards=shards))
