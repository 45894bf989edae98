"""The bench: arms trained on splits of one data set, in processes, each outcome remembered.

A split's generator learns from the split's training part alone, so that nothing has seen what the
split holds out.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float

from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.engines import Engine
from vaeaug.evaluation.gate.arms import Arm
from vaeaug.evaluation.gate.probe import train_and_predict
from vaeaug.evaluation.gate.probe_networks import ProbeFactory, default_steps, probe_name
from vaeaug.evaluation.gate.splits import Split, fitting_folds, make_splits
from vaeaug.evaluation.gate.tasks import Results, Task, Trainings
from vaeaug.evaluation.metrics import Scores, class_groups, score
from vaeaug.progress import Progress
from vaeaug.stages import SyntheticSet

log = logging.getLogger("vaeaug")

# Trainings after the baselines, in units of one arm: the combination, that with pseudo-labels, the
# longer one, and merged training both ways.
LATER = 5.5


class EvaluationError(RuntimeError):
    """The evaluation cannot be run on this data."""


@runtime_checkable
class Stages(Protocol):
    """The stages of a job on a split, as `vaeaug.stages.SplitStages` has them."""

    def samples(
        self, train: LabelledImages, folder: Path, recipes: Sequence[Recipe]
    ) -> list[SyntheticSet]:
        """Train a generator on a split and draw samples by each recipe.

        Args:
            train: The training part of the split.
            folder: Keeps what is complete, which is read instead of being drawn again.
            recipes: The recipes.

        Returns:
            One set per recipe.
        """
        ...

    def with_pseudo_labels(self, train: LabelledImages, folder: Path) -> LabelledImages:
        """Add the images of the pool whose class the split's generator came to know.

        Args:
            train: The training part of the split, with its pool.
            folder: Keeps the generator.

        Returns:
            The training part with these images, and without a pool.
        """
        ...


@runtime_checkable
class Learner(Protocol):
    """Trains on one part and predicts the other."""

    def __call__(
        self,
        train: LabelledImages,
        synthetic: SyntheticSet | None,
        held_out: LabelledImages,
        arm: Arm,
        *,
        seed: int,
        steps: int,
    ) -> Float[np.ndarray, "n k"]:
        """Class probabilities of the held-out images."""
        ...


class Bench:
    """Trains arms on splits of one data set and remembers the outcomes; a context manager.

    Args:
        data: The training split.
        stages: Draw a split's synthetic samples; pickled where there are more workers.
        config: Budget, splits, probe.
        folder: Where outcomes and generators are kept and looked up. None: nothing is kept.
        identity: Hash of the job, which with the data decides the synthetic samples.
        among: Rows that may be held out; those of a recipe search may not. None: all.
        factory: Builds the user's own probe: ``factory(image_shape, n_classes)``, a network that
            takes (n, c, *space) in [0, 1] and gives logits.
        learner: Takes the place of the probe and its training altogether.
        device: Where probes are trained.
        engine: Where trainings run. Default: in `config.workers` processes; on CUDA in this process
            alone, where no engine is named.

    Raises:
        EvaluationError: If there are fewer than two classes, or a class has a single image.
    """

    def __init__(
        self,
        data: LabelledImages,
        stages: Stages,
        config: EvaluationConfig,
        *,
        folder: Path | None = None,
        identity: str = "",
        among: Bool[np.ndarray, " n"] | None = None,
        factory: ProbeFactory | None = None,
        learner: Learner | None = None,
        device: torch.device | str = "cpu",
        engine: Engine | None = None,
    ) -> None:
        labels = data.labels if among is None else data.labels[among]
        self.held_counts = np.bincount(labels, minlength=data.n_classes)
        present = data.counts > 0
        if present.sum() < 2 or (self.held_counts[present] < 2).any():
            raise EvaluationError(
                "evaluate: expected at least 2 classes and 2 images of each that may be held out, "
                f"got {dict(zip(data.class_names, self.held_counts.tolist(), strict=True))}"
            )
        self.data, self.config, self.folder, self.among = data, config, folder, among
        self.factory, self.identity, self.learner = factory, identity, learner
        self.device = torch.device(device)
        self.folds = fitting_folds(self.held_counts, config.folds, config.min_held_out)
        self.steps = config.steps or default_steps(len(data))
        if engine is None:
            alone = self.device.type == "cuda"
            engine = Engine("process", workers=1 if alone else config.workers or 1)
        self.n_workers = engine.at_once
        self.results = Results(folder / "results.jsonl" if folder else None)
        work = _SplitWork(
            data,
            stages,
            learner
            or functools.partial(
                train_and_predict, config=config, factory=factory, device=str(device)
            ),
            class_groups(data.counts),
            folder and folder.absolute(),
        )
        self._workers = Trainings(work, results=self.results, engine=engine)

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *error: Any) -> None:
        self._workers.__exit__(*error)

    @property
    def probe(self) -> str:
        """What is trained, in words."""
        if self.learner is not None:
            return str(getattr(self.learner, "__name__", type(self.learner).__name__))
        return probe_name(self.data.image_shape, width=self.config.width, factory=self.factory)

    def place(self, split: Split) -> Path:
        """Name the folder of a split's generator and samples.

        Args:
            split: The split.

        Returns:
            Its folder.
        """
        return _place(self.folder, split)

    def splits(self, n: int) -> list[Split]:
        """Make the first splits.

        Args:
            n: How many.

        Returns:
            The splits; the same however many are asked for.
        """
        return make_splits(self.data, n, folds=self.folds, seed=self.config.seed, among=self.among)

    def splits_in_budget(
        self, arms: Sequence[Arm], recipe: Recipe, progress: Progress | None = None
    ) -> list[Split]:
        """Train generators and baselines of as many splits as the budget allows.

        The first splits say how long the others will take.

        Args:
            arms: The baselines.
            recipe: Recipe of the samples that are drawn.
            progress: Called after every training; the stage is "generators and baselines".

        Returns:
            The splits.
        """
        config = self.config
        first = self.splits(config.min_splits)
        self.prepare(first, arms, recipe, progress)
        generators = self._seconds([self._generator_task(split, [recipe]) for split in first])
        probes = self._seconds(
            [self._probe_task(split, arm, self.steps) for arm in arms for split in first]
        )
        needed = generators + probes * (1 + LATER / len(arms))
        affordable = int(config.budget * self.n_workers * len(first) / max(needed, 1e-9))
        splits = self.splits(max(config.min_splits, min(affordable, config.max_splits)))
        self.prepare(splits, arms, recipe, progress)
        return splits

    def split_seconds(self, splits: Sequence[Split], arms: Sequence[Arm], recipe: Recipe) -> float:
        """Give the time that one split took, its generator and every training on it.

        Args:
            splits: Splits that were measured.
            arms: Arms that were trained on them.
            recipe: Recipe of the samples that were drawn.

        Returns:
            Seconds by the clock, with as many processes as the bench has.
        """
        tasks = [self._generator_task(split, [recipe]) for split in splits]
        tasks += [self._probe_task(split, arm, self.steps) for arm in arms for split in splits]
        return self._seconds(tasks) / (self.n_workers * len(splits))

    def prepare(
        self,
        splits: Sequence[Split],
        arms: Sequence[Arm],
        recipe: Recipe,
        progress: Progress | None = None,
    ) -> None:
        """Train generators, which take longest, and baselines, which need none, at the same time.

        Args:
            splits: The splits.
            arms: The baselines.
            recipe: Recipe of the samples that are drawn.
            progress: Called after every training; the stage is "generators and baselines".
        """
        tasks = [self._generator_task(split, [recipe]) for split in splits]
        tasks += [self._probe_task(split, arm, self.steps) for split in splits for arm in arms]
        n_missing = sum(self.results.get(task) is None for task in tasks)
        if n_missing:
            log.info(
                "evaluation: %d %s, a generator and %d classifiers of %d steps each; %d of "
                "these %d trainings are to be done",
                len(splits),
                "split" if len(splits) == 1 else "splits",
                len(arms),
                self.steps,
                n_missing,
                len(tasks),
            )
        self._workers.run(tasks, stage="generators and baselines", progress=progress)

    def draw_samples(
        self, splits: Sequence[Split], recipes: Sequence[Recipe], progress: Progress | None = None
    ) -> None:
        """Train the generators of splits and draw from them what the recipes need.

        Args:
            splits: The splits.
            recipes: Recipes for drawing.
            progress: Called after every split; the stage is "generators".
        """
        tasks = [self._generator_task(split, recipes) for split in splits]
        self._workers.run(tasks, stage="generators", progress=progress)

    def scores(
        self,
        splits: Sequence[Split],
        arms: Sequence[Arm],
        *,
        steps: int | None = None,
        progress: Progress | None = None,
    ) -> dict[Arm, list[Scores]]:
        """Train arms on splits.

        Args:
            splits: The splits.
            arms: The arms.
            steps: Optimiser steps of an arm of length 1; None: the bench's own number.
            progress: Called after every training; the stage is "probes".

        Returns:
            For every arm its scores on the splits, in their order.
        """
        steps = steps or self.steps
        tasks = [self._probe_task(split, arm, steps) for arm in arms for split in splits]
        outcomes = self._workers.run(tasks, stage="probes", progress=progress)
        scores = [Scores.from_json(outcome["scores"]) for outcome in outcomes]
        n = len(splits)
        return {arm: scores[i * n : (i + 1) * n] for i, arm in enumerate(arms)}

    def hits(
        self, split: Split, arms: Sequence[Arm], *, progress: Progress | None = None
    ) -> dict[Arm, Bool[np.ndarray, " m"]]:
        """Train arms on a split and tell which held-out images they get right.

        Args:
            split: The split.
            arms: The arms.
            progress: Called after every training; the stage is "probes".

        Returns:
            For every arm, whether each of `split.held_out` gets its label.
        """
        tasks = [self._probe_task(split, arm, self.steps) for arm in arms]
        for task in tasks:
            # An earlier version kept the scores alone.
            if "hits" not in (self.results.get(task) or {}):
                self.results.forget(task)
        outcomes = self._workers.run(tasks, stage="probes", progress=progress)
        n = len(split.held_out)
        return {
            arm: _unpacked(outcome["hits"], n) for arm, outcome in zip(arms, outcomes, strict=True)
        }

    def remember(
        self, key: Mapping[str, Any], work: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Do something once and keep its result like the outcome of a training.

        Args:
            key: All that decides the result beside the data and the job.
            work: Gives the result, plain JSON, in this process, where it is not known yet.

        Returns:
            The result.
        """
        task = Task({**key, "data": self.data.fingerprint, "job": self.identity})
        with Trainings(lambda _: work(), results=self.results) as here:
            return here.run([task])[0]

    def _probe_task(self, split: Split, arm: Arm, steps: int) -> Task:
        config = self.config
        key = {
            "what": "probe",
            "data": self.data.fingerprint,
            "split": split.key,
            "arm": _arm_key(arm),
            "steps": steps,
            "probe": self.probe,
            "training": [config.batch_size, config.learning_rate, config.width, config.seed],
            "job": self.identity if arm.recipe is not None or arm.pool else "",
        }
        # Arms of a split share weights and draws: they are paired.
        seed = config.seed * 1_000_003 + split.number
        return Task(key, _ProbeJob(split, arm, seed, steps))

    def _generator_task(self, split: Split, recipes: Sequence[Recipe]) -> Task:
        key = {
            "what": "generator",
            "data": self.data.fingerprint,
            "split": split.key,
            "settings": [recipe.settings() for recipe in recipes],
            "job": self.identity,
        }
        return Task(key, _GeneratorJob(split, tuple(recipes)))

    def _seconds(self, tasks: Sequence[Task]) -> float:
        records = [self.results.get(task) for task in tasks]
        return sum(record["seconds"] for record in records if record is not None)


# -- What the processes do -------------------------------------------------------------------------


@dataclass(frozen=True)
class _GeneratorJob:
    """Train the split's generator, and draw from it what the recipes need."""

    split: Split
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True)
class _ProbeJob:
    """Train an arm on a split."""

    split: Split
    arm: Arm
    seed: int
    steps: int


@dataclass(frozen=True)
class _SplitWork:
    """Does the jobs of a bench, in this process or another.

    Attributes:
        data: The training split.
        stages: Draw a split's synthetic samples.
        learner: Trains and predicts.
        groups: Classes whose recalls are averaged, by the group's name.
        folder: Folder of the bench.
    """

    data: LabelledImages
    stages: Stages
    learner: Learner
    groups: Mapping[str, Sequence[int]]
    folder: Path | None

    def __call__(self, job: _GeneratorJob | _ProbeJob) -> dict[str, Any]:
        train = self.data.subset(job.split.train)
        place = _place(self.folder, job.split)
        if isinstance(job, _GeneratorJob):
            sets = self.stages.samples(train, place, job.recipes)
            return {"made": [len(synthetic.labels) for synthetic in sets]}
        synthetic, recipe = None, job.arm.recipe
        if recipe is not None and not recipe.is_none:
            (synthetic,) = self.stages.samples(train, place, [recipe])
        if job.arm.pool:
            train = self.stages.with_pseudo_labels(train, place)
        held_out = replace(self.data, unlabelled=None).subset(job.split.held_out)
        probabilities = self.learner(
            train, synthetic, held_out, job.arm, seed=job.seed, steps=job.steps
        )
        return {
            "scores": asdict(score(probabilities, held_out.labels, groups=self.groups)),
            "hits": _packed(probabilities.argmax(axis=1) == held_out.labels),
        }


def _arm_key(arm: Arm) -> dict[str, Any]:
    """What identifies an arm; as before there were pools in arms, where it has none."""
    key = {**asdict(arm), "recipe": arm.recipe and arm.recipe.model_dump(mode="json")}
    return key if arm.pool else {name: value for name, value in key.items() if name != "pool"}


def _place(folder: Path | None, split: Split) -> Path:
    return (folder or Path()) / f"split-{split.number:02d}-{split.key}"


def _packed(hits: Bool[np.ndarray, " m"]) -> str:
    """Eight images a byte, in hexadecimal digits."""
    return np.packbits(hits).tobytes().hex()


def _unpacked(text: str, n: int) -> Bool[np.ndarray, " m"]:
    packed = np.frombuffer(bytes.fromhex(text), np.uint8)
    return np.unpackbits(packed, count=n).astype(bool)
