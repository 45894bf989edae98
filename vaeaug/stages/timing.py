"""How long a job will take on this machine, told before it begins.

A few steps of every stage are taken by the pipeline that trains, on the images of the job, and
thrown away. What they took is kept in the user's cache folder, so that it is measured once.
"""

import hashlib
import json
import logging
import os
import platform
import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.files import publish, read_whole
from vaeaug.files.json_text import parse_strict
from vaeaug.generator import (
    ImageCodec,
    LatentSpace,
    SampleBatch,
    SoundCodec,
    Synthesizer,
    edits_images,
    sample_configured,
)
from vaeaug.memory import sized
from vaeaug.screening import Screener
from vaeaug.stages.planning import bytes_per_sample, plan_of, suited, with_front_end
from vaeaug.training import StageTime, clock_of, resolve_device, time_training, with_steps

log = logging.getLogger("vaeaug")

# Images on which steps are timed, and the images of a pool.
MOST_IMAGES, MOST_POOL = 3000, 512
# Steps of the classifiers of screening of which two trainings are timed.
_CLASSIFIER_STEPS = (1, 5)
# Diagnosis in steps of the trunk of 128 images, and candidates that one such step is worth, as they
# were on digits; seconds for pictures and report.
_DIAGNOSIS_STEPS, _CANDIDATES, _REPORT_SECONDS = 36, 200, 3.0
# Samples drawn at once to time draws; a step of training in bounds of as many images.
_DRAWN, _STEP_IN_BOUNDS = 128, 3
# Jobs that the cache remembers.
_REMEMBERED = 64


@dataclass(frozen=True)
class JobTime:
    """What a job will cost.

    Attributes:
        device: The device, in words.
        n_images: Training images.
        stages: The stages in order.
        memory: Bytes of memory at the peak, as far as training is concerned: of the card on CUDA.
        disk: Bytes of the shards.
        busy: What else the machine does, in words; "" if it has a core to spare.
    """

    device: str
    n_images: int
    stages: tuple[StageTime, ...]
    memory: int
    disk: int
    busy: str = field(default="", compare=False)

    @property
    def seconds(self) -> float:
        """Seconds of the whole job."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def expected(self) -> dict[str, float]:
        """Seconds by the name of the stage, in order."""
        return {stage.name: stage.seconds for stage in self.stages}

    def training_only(self) -> "JobTime":
        """Return the same for `train`, which draws nothing.

        Returns:
            The stages of training alone.
        """
        stages = tuple(stage for stage in self.stages if stage.name not in _LATER)
        return replace(self, stages=stages, disk=0)

    def drawn_by(self, n: int) -> "JobTime":
        """Return the same for classes that are drawn side by side.

        Args:
            n: How many at once.

        Returns:
            The stages, of which drawing takes so many times less.
        """
        stages = tuple(
            replace(stage, step_seconds=stage.step_seconds / n)
            if stage.name == "drawing"
            else stage
            for stage in self.stages
        )
        return replace(self, stages=stages)

    def __str__(self) -> str:
        parts = ", ".join(
            f"{stage.name} {_minutes(stage.seconds)}" for stage in _by_kind(self.stages)
        )
        steps = sum(stage.steps_taken for stage in self.stages if stage.name not in _LATER)
        training = f"{steps:,} training steps, " if steps else ""
        disk = f", {sized(self.disk)} of shards" if self.disk else ""
        return (
            f"{self.device}: {self.n_images:,} images, {training}"
            f"{_minutes(self.seconds)} in all at most ({parts}); memory {sized(self.memory)}{disk}"
            f"{'; ' if self.busy else ''}{self.busy}"
        )

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            One object; seconds and bytes.
        """
        return {
            "device": self.device,
            "images": self.n_images,
            "seconds": round(self.seconds, 1),
            "memory": self.memory,
            "disk": self.disk,
            "stages": [
                {"name": stage.name, "steps": stage.steps_taken, "seconds": round(stage.seconds, 1)}
                for stage in self.stages
            ],
        }


_LATER = ("screening", "diagnosis", "drawing", "report")


def time_job(
    data: LabelledImages, config: AugmentConfig, *, device: torch.device | str = "auto"
) -> JobTime:
    """Tell what a job will cost, from a few steps of each of its stages.

    It changes no byte of the job: nothing that is trained here is kept, and every draw of a job is
    a function of its own seed. Stages that end early cost less than is told.

    Args:
        data: The training split.
        config: The job.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        Stages with their seconds, memory and disk.

    Raises:
        ConfigError: If the generator or the screening cannot be trained on samples like these.
        PlanError: If the sampling strategy cannot be satisfied.
    """
    device = resolve_device(device)
    job = suited(config, data)
    data = with_front_end(data, job)
    plan = plan_of(data, job)
    key = _key(data, job, device)
    known = _remembered().get(key)
    if known is None:
        stages, memory = _timed(data, job, device)
        _remember(key, {"stages": [asdict(stage) for stage in stages], "memory": memory})
    else:
        stages = [StageTime(**stage) for stage in known["stages"]]
        memory = int(known["memory"])
    trunk = next((each for each in stages if each.name in ("trunk", "class-000")), stages[0])
    step = trunk.step_seconds * 128 / job.training.batch_size
    stages = [
        *stages,
        StageTime("diagnosis", 1, _DIAGNOSIS_STEPS * step),
        StageTime("drawing", 1, 2 * plan.n_synthetic / _CANDIDATES * step),
        StageTime("report", 1, _REPORT_SECONDS),
    ]
    disk = plan.n_synthetic * bytes_per_sample(data, job)
    return JobTime(_named(device), len(data), tuple(stages), memory, disk, _busy(device))


def before_timing(
    data: LabelledImages, config: AugmentConfig, *, device: torch.device | str = "auto"
) -> str | None:
    """Describe a job at once, where `time_job` will take some seconds to tell more.

    Args:
        data: The training split.
        config: The job.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        Device, images and steps; None where the job was timed before.
    """
    device = resolve_device(device)
    job = suited(config, data)
    data = with_front_end(data, job)
    if _key(data, job, device) in _remembered():
        return None
    budget = job.training.budget_seconds
    if budget is not None and job.training.steps is None:
        steps = f"{_minutes(budget)} of training"
    else:
        steps = f"{with_steps(data, job).training.steps:,} training steps"
    return f"{_named(device)}: {len(data):,} images, {steps}; a few of them are timed first"


def time_draws(
    generator: Synthesizer,
    data: LabelledImages,
    config: AugmentConfig,
    *,
    device: torch.device | str = "auto",
) -> JobTime:
    """Tell what drawing a dataset from a trained generator will cost, from a few draws.

    Args:
        generator: The generator, which is moved to the device and given the data.
        data: The training split of the generator.
        config: The job.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        Screening, diagnosis, drawing and report, with memory and disk.

    Raises:
        SamplingError: If the data is not what the generator was trained on.
        PlanError: If the sampling strategy cannot be satisfied.
    """
    device = resolve_device(device)
    job = suited(config, data)
    data = with_front_end(data, job)
    plan, now = plan_of(data, job), clock_of(device)
    some = _some(data)
    generator.to(device).attach(data)
    largest = int(data.counts.argmax())
    sampler: str = job.recipe.sampler
    if sampler == "auto":
        sampler = generator.default_sampler(largest, residual=edits_images(job.sampling))

    def draw(start: int) -> SampleBatch:
        return sample_configured(
            generator, job, largest, _DRAWN, sampler=sampler, seed=job.seed, start=start
        )

    draw(0)  # the first draw prepares neighbours and buffers
    began = now()
    batch = draw(_DRAWN)
    drawn = (now() - began) / _DRAWN
    screening = _screening(data, some, job, device)
    few = job.changed(**{"screening.classifier_steps": 1})
    of_class = Screener.for_job(some, few, device=device).new_class(largest)
    of_class.screen(batch.images[:1])
    began = now()
    of_class.screen(batch.images)
    judged = (now() - began) / _DRAWN
    began = now()
    rows = np.arange(min(128, len(data)))
    generator.bound(data.images[rows], data.labels[rows], k=1)
    step = _STEP_IN_BOUNDS * (now() - began) * 128 / len(rows)
    stages = (
        screening,
        StageTime("diagnosis", 1, _DIAGNOSIS_STEPS * step),
        StageTime("drawing", 1, 2 * plan.n_synthetic * (drawn + judged)),
        StageTime("report", 1, _REPORT_SECONDS),
    )
    disk = plan.n_synthetic * bytes_per_sample(data, job)
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device.type == "cuda":
        memory = int(torch.cuda.max_memory_allocated(device))
    return JobTime(_named(device), len(data), stages, memory, disk, _busy(device))


def _timed(
    data: LabelledImages, job: AugmentConfig, device: torch.device
) -> tuple[list[StageTime], int]:
    """Seconds of training and screening, and bytes of memory."""
    some, now = _some(data), clock_of(device)
    fixed = with_steps(data, job)
    stages: list[StageTime] = []
    samples = some
    codec: ImageCodec | SoundCodec | None = None
    if job.model.codec is not None:
        codec = ImageCodec.load(job.model.codec)
    elif data.spectrogram is not None:
        codec = SoundCodec(data.spectrogram)
    if codec is not None:
        began = now()
        _, samples = LatentSpace.fitted(codec, some, device=device)
        seconds = (now() - began) * len(data) / len(some)
        stages.append(StageTime("encoding", 1, seconds))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    stages += time_training(samples, fixed, device=device, n_images=len(data))
    stages.append(_screening(data, some, job, device))
    if device.type == "cuda":
        return stages, int(torch.cuda.max_memory_allocated(device))
    # The highest so far, of a process that has the images and has taken steps of every network.
    return stages, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _screening(
    data: LabelledImages, some: LabelledImages, job: AugmentConfig, device: torch.device
) -> StageTime:
    """The classifiers of screening: what their steps take, and what does not depend on them."""
    seconds, now = [], clock_of(device)
    few = [min(steps, job.screening.classifier_steps) for steps in _CLASSIFIER_STEPS]
    for steps in few:
        began = now()
        Screener.for_job(some, job.changed(**{"screening.classifier_steps": steps}), device=device)
        seconds.append(now() - began)
    each = max(0.0, seconds[1] - seconds[0]) / max(1, few[1] - few[0])
    fixed = max(0.0, seconds[0] - few[0] * each) * len(data) / len(some)
    return StageTime("screening", job.screening.classifier_steps, each, 1, fixed)


def _some(data: LabelledImages) -> LabelledImages:
    """A part of the images with every class; all where they are few."""
    if data.unlabelled is not None and len(data.unlabelled) > MOST_POOL:
        data = replace(data, unlabelled=data.unlabelled[:MOST_POOL])
    if len(data) <= MOST_IMAGES:
        return data
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(data))
    _, first = np.unique(data.labels[shuffled], return_index=True)
    # Two of each class, which holding out and folds need.
    rest = np.delete(shuffled, first)
    _, second = np.unique(data.labels[rest], return_index=True)
    needed = np.concatenate([shuffled[first], rest[second]])
    others = np.setdiff1d(shuffled, needed, assume_unique=True)
    rng.shuffle(others)
    rows = np.concatenate([needed, others[: max(0, MOST_IMAGES - len(needed))]])
    return data.subset(np.sort(rows))


# -- The cache -------------------------------------------------------------------------------------


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vaeaug" / "timing.json"


def _remembered() -> dict[str, Any]:
    """What was timed on this machine; what cannot be read counts as nothing."""
    try:
        content = parse_strict(read_whole(_cache()))
    except (OSError, RuntimeError, ValueError):
        return {}
    return dict(content) if isinstance(content, Mapping) else {}


def _remember(key: str, value: Mapping[str, Any]) -> None:
    kept = {name: old for name, old in _remembered().items() if name != key}
    kept = dict(list(kept.items())[-(_REMEMBERED - 1) :]) | {key: value}
    try:
        _cache().parent.mkdir(parents=True, exist_ok=True)
        publish(_cache(), json.dumps(kept).encode())
    except (OSError, RuntimeError) as error:
        log.debug(
            "timing: %s cannot be written (%s); it is measured again next time", _cache(), error
        )


def _key(data: LabelledImages, job: AugmentConfig, device: torch.device) -> str:
    """What decides the cost: machine, device, software, data and networks."""
    sections = job.to_json()
    for name in ("plan", "sampling", "shards", "recipe", "seed"):
        sections.pop(name, None)
    decisive = {
        "machine": [platform.node(), platform.machine(), os.cpu_count()],
        "device": _named(device),
        "torch": torch.__version__,
        "shape": [len(data), *data.image_shape, str(data.images.dtype), data.n_classes],
        "pool": 0 if data.unlabelled is None else len(data.unlabelled),
        "job": sections,
    }
    text = json.dumps(decisive, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _named(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    n = torch.get_num_threads()
    return f"CPU with {n} {'thread' if n == 1 else 'threads'}"


def _busy(device: torch.device) -> str:
    """Whether other processes keep the cores busy, which lengthens the job."""
    if device.type != "cpu" or not hasattr(os, "getloadavg"):
        return ""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load < cores + 0.5:
        return ""
    return f"longer while the machine is busy, as now (load {load:.1f} on {cores} cores)"


def _by_kind(stages: Sequence[StageTime]) -> list[StageTime]:
    """Stages of several classes as one."""
    merged: dict[str, StageTime] = {}
    for stage in stages:
        kind = stage.name.rsplit("-", 1)[0]
        before = merged.get(kind)
        seconds = stage.seconds + (before.seconds if before else 0.0)
        merged[kind] = StageTime(kind, 1, seconds)
    return list(merged.values())


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
