"""The bench: arms trained on splits of one data set, in processes, each outcome remembered.

A split's generator learns from the split's training part alone, so that nothing has seen what the
split holds out.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.evaluation.gate.probe import (
    Arm,
    ProbeFactory,
    SyntheticSet,
    default_steps,
    predict,
    probe_name,
    train_probe,
)
from vaeaug.evaluation.gate.splits import Split, fitting_folds, make_splits
from vaeaug.evaluation.gate.tasks import Results, Task, Work, Workers
from vaeaug.evaluation.metrics import Scores, class_groups, score

log = logging.getLogger("vaeaug")

# Trainings that follow the first ones: combination, the longer one, merged both ways.
_LATER = 5.5

Progress = Callable[[str, int, int], None]


class EvaluationError(RuntimeError):
    """The evaluation cannot be run on this data."""


class Synthesise(Protocol):
    """Makes the synthetic samples of a split, from its training part alone."""

    def __call__(
        self, train: LabelledImages, folder: Path, recipes: Sequence[Recipe]
    ) -> list[SyntheticSet]:
        """One set per recipe; what is in `folder` already is not made again."""
        ...


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
    """Trains arms on splits of one data set and remembers what came of it; a context manager.

    Args:
        data: The training split.
        synthesise: Makes a split's synthetic samples; pickled where there are more workers.
        config: Budget, splits, probe.
        folder: Outcomes and generators are kept there and found again. None: nothing is kept.
        identity: What decides the synthetic samples beside the data: hash of the job.
        among: Rows that may be held out (n,) bool; those of a recipe search may not. None: all.
        factory: Builds the user's own probe: ``factory(image_shape, n_classes)``, a network that
            takes (n, c, *space) in [0, 1] and gives logits.
        learner: Takes the place of the probe and its training altogether.
        device: Where probes are trained; on CUDA in this process alone.

    Raises:
        EvaluationError: If there are fewer than two classes, or a class has a single image.
    """

    def __init__(
        self,
        data: LabelledImages,
        synthesise: Synthesise,
        config: EvaluationConfig,
        *,
        folder: Path | None = None,
        identity: str = "",
        among: np.ndarray | None = None,
        factory: ProbeFactory | None = None,
        learner: Learner | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        held = data.labels if among is None else data.labels[among]
        self.held_counts = np.bincount(held, minlength=data.n_classes)
        present = data.counts > 0
        if present.sum() < 2 or (self.held_counts[present] < 2).any():
            raise EvaluationError(
                "evaluate: expected at least 2 classes and 2 images of each that may be held out, "
                f"got {dict(zip(data.class_names, self.held_counts.tolist(), strict=True))}"
            )
        self.data, self.config, self.folder, self.among = data, config, folder, among
        self.factory, self.identity = factory, identity
        self.folds = fitting_folds(self.held_counts, config.folds, config.min_held_out)
        self.steps = config.steps or default_steps(len(data))
        self.groups = class_groups(data.counts)
        device = torch.device(device)
        self.device = device
        self.learner = learner
        work: Work = functools.partial(
            _work,
            data,
            synthesise,
            learner
            or functools.partial(_probe, config=config, factory=factory, device=str(device)),
            self.groups,
            folder,
        )
        n = 1 if device.type == "cuda" else config.workers or 1
        self.results = Results(folder / "results.jsonl" if folder else None)
        self._workers = Workers(work, n=n, results=self.results)
        self.n_workers = n
        self.seconds = 0.0

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
        """Where what belongs to a split is kept."""
        return _place(self.folder, split)

    def splits(self, n: int) -> list[Split]:
        """The first splits."""
        return make_splits(self.data, n, folds=self.folds, seed=self.config.seed, among=self.among)

    def splits_in_budget(
        self, arms: Sequence[Arm], recipe: Recipe, progress: Progress | None
    ) -> list[Split]:
        """As many splits as the budget allows, by what the first ones took; all is made of them."""
        config = self.config
        first = self.splits(config.min_splits)
        self._prepare(first, arms, recipe, progress)
        making = self._seconds([self._making(split, [recipe]) for split in first])
        trainings = self._seconds(
            [self._training(split, arm, self.steps) for arm in arms for split in first]
        )
        unit = making + trainings * (1 + _LATER / len(arms))
        affordable = int(config.budget * self.n_workers * len(first) / max(unit, 1e-9))
        splits = self.splits(max(config.min_splits, min(affordable, config.max_splits)))
        self._prepare(splits, arms, recipe, progress)
        return splits

    def _prepare(
        self,
        splits: Sequence[Split],
        arms: Sequence[Arm],
        recipe: Recipe,
        progress: Progress | None,
    ) -> None:
        """Generators, which take longest, and baselines, which need none, at the same time."""
        tasks = [self._making(split, [recipe]) for split in splits]
        tasks += [self._training(split, arm, self.steps) for split in splits for arm in arms]
        missing = sum(self.results.get(task) is None for task in tasks)
        if missing:
            log.info(
                "evaluation: %d splits, a generator and %d classifiers of %d steps each; %d of "
                "these %d trainings are to be done",
                len(splits),
                len(arms),
                self.steps,
                missing,
                len(tasks),
            )
        self._workers.run(tasks, _named(progress, "generators and baselines"))

    def synthesise(
        self, splits: Sequence[Split], recipes: Sequence[Recipe], progress: Progress | None
    ) -> None:
        """Train the generators of the splits and draw from them what the recipes need."""
        tasks = [self._making(split, recipes) for split in splits]
        self._workers.run(tasks, _named(progress, "generators"))

    def scores(
        self,
        splits: Sequence[Split],
        arms: Sequence[Arm],
        *,
        steps: int | None = None,
        progress: Progress | None = None,
    ) -> dict[Arm, list[Scores]]:
        """What each arm reached on each split."""
        tasks = [
            self._training(split, arm, steps or self.steps) for arm in arms for split in splits
        ]
        found = [
            Scores(**each["scores"])
            for each in self._workers.run(tasks, _named(progress, "probes"))
        ]
        n = len(splits)
        return {arm: found[i * n : (i + 1) * n] for i, arm in enumerate(arms)}

    def remember(self, key: Mapping[str, Any], work: Callable[[], dict[str, Any]]) -> Any:
        """What `work` gives, plain JSON, kept like the outcome of a training.

        Args:
            key: All that decides it beside the data and the job.
            work: Does it, in this process, where it is not known yet.
        """
        task = Task({**key, "data": self.data.fingerprint, "job": self.identity}, ())
        with Workers(work, n=1, results=self.results) as here:
            return here.run([task])[0]

    def _training(self, split: Split, arm: Arm, steps: int) -> Task:
        config = self.config
        key = {
            "what": "probe",
            "data": self.data.fingerprint,
            "split": split.key,
            "arm": {**asdict(arm), "recipe": arm.recipe and arm.recipe.model_dump(mode="json")},
            "steps": steps,
            "probe": self.probe,
            "training": [config.batch_size, config.learning_rate, config.width, config.seed],
            "job": self.identity if arm.recipe is not None else "",
        }
        # Arms of a split share weights and draws: they are paired.
        seed = config.seed * 1_000_003 + split.number
        return Task(key, ("probe", split, arm, seed, steps))

    def _making(self, split: Split, recipes: Sequence[Recipe]) -> Task:
        key = {
            "what": "generator",
            "data": self.data.fingerprint,
            "split": split.key,
            "settings": [each.settings() for each in recipes],
            "job": self.identity,
        }
        return Task(key, ("generator", split, list(recipes), 0, 0))

    def _seconds(self, tasks: Sequence[Task]) -> float:
        found = [self.results.get(task) for task in tasks]
        return sum(each["seconds"] for each in found if each is not None)


def _work(
    data: LabelledImages,
    synthesise: Synthesise,
    learner: Learner,
    groups: Mapping[str, Sequence[int]],
    folder: Path | None,
    what: str,
    split: Split,
    subject: Any,
    seed: int,
    steps: int,
) -> dict[str, Any]:
    """One task, in whichever process."""
    train = data.subset(split.train)
    place = _place(folder, split)
    if what == "generator":
        made = synthesise(train, place, subject)
        return {"made": [len(each.labels) for each in made]}
    arm: Arm = subject
    synthetic = None
    if arm.recipe is not None and not arm.recipe.is_none:
        (synthetic,) = synthesise(train, place, [arm.recipe])
    held_out = replace(data, unlabelled=None).subset(split.held_out)
    probabilities = learner(train, synthetic, held_out, arm, seed=seed, steps=steps)
    return {"scores": asdict(score(probabilities, held_out.labels, groups=groups))}


def _place(folder: Path | None, split: Split) -> Path:
    return (folder or Path()) / f"split-{split.number:02d}-{split.key}"


def _probe(
    train: LabelledImages,
    synthetic: SyntheticSet | None,
    held_out: LabelledImages,
    arm: Arm,
    *,
    seed: int,
    steps: int,
    config: EvaluationConfig,
    factory: ProbeFactory | None,
    device: str,
) -> Float[np.ndarray, "n k"]:
    model = train_probe(
        train, synthetic, arm, config, seed=seed, steps=steps, factory=factory, device=device
    )
    return predict(model, held_out, device=device)


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else functools.partial(progress, what)
