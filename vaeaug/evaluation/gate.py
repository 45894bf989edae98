"""Does it help? Classifiers with and without synthetic data, paired by split, and a verdict.

Every split of the user's own training data holds out images that neither its classifiers nor its
generator sees: the generator is trained anew on each split's training part. The opponent is the
best of many ways to train without synthetic data, found on the same splits: that choice can only
raise the bar. Merged training uses the same techniques, so that synthetic data is all that differs.
"""

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.evaluation._splits import Split, fitting_folds, make_splits
from vaeaug.evaluation._tasks import Results, Task, Work, Workers
from vaeaug.evaluation.metrics import Scores, class_groups, score
from vaeaug.evaluation.privacy import shared_images
from vaeaug.evaluation.probe import (
    Arm,
    ProbeFactory,
    SyntheticSet,
    default_steps,
    fixed_arms,
    predict,
    probe_name,
    train_probe,
)
from vaeaug.evaluation.statistics import (
    Interval,
    Verdict,
    corrected_t_interval,
    judge,
    wilson_interval,
)

log = logging.getLogger("vaeaug")

INTERVAL = "corrected resampled t (Nadeau & Bengio 2003)"
EQUAL_STEPS, EQUAL_REAL = "equal steps", "equal real draws"
# What a doubling of the steps may give before the baselines count as not converged.
LONGER = 2.0
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


@dataclass(frozen=True)
class Comparison:
    """Merged training against the best without synthetic data.

    Attributes:
        name: "equal steps" (synthetic draws take the place of real ones) or "equal real draws"
            (they stand beside them).
        arm: Name of the merged arm.
        baseline: Name of the best baseline.
        difference: Of balanced accuracy, merged - baseline, by `INTERVAL`.
        verdict: What it says.
    """

    name: str
    arm: str
    baseline: str
    difference: Interval
    verdict: Verdict


@dataclass(frozen=True)
class ArmResult:
    """One way to train, over all splits.

    Attributes:
        name: Of the arm.
        kind: "baseline", "merged", or "check" (the best baseline with more steps).
        figures: By name, the mean over splits with its interval.
        recall: Per class, pooled over the splits, with Wilson's interval; None: never held out.
        held_out: Held-out images of each class, over all splits.
        by_split: Balanced accuracy of each split.
    """

    name: str
    kind: str
    figures: Mapping[str, Interval]
    recall: tuple[Interval | None, ...]
    held_out: tuple[int, ...]
    by_split: tuple[float, ...]


@dataclass(frozen=True)
class GateResult:
    """Whether synthetic data helps on this data.

    Attributes:
        verdict: "helps", "does not help" or "unsure".
        sentence: The verdict in words, with its figures.
        comparisons: Both ways to compare; the first decides.
        arms: Every way to train.
        recipe: What was measured.
        settings: How it was measured.
        warnings: What the reader has to know.
        class_names: Names of the classes.
    """

    verdict: Verdict
    sentence: str
    comparisons: tuple[Comparison, ...]
    arms: tuple[ArmResult, ...]
    recipe: Recipe
    settings: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    class_names: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return self.sentence

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; figures that cannot be computed are null."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "metric": "balanced accuracy",
            "interval": INTERVAL,
            "comparisons": [
                {
                    "name": each.name,
                    "arm": each.arm,
                    "baseline": each.baseline,
                    "difference": each.difference.mean,
                    "low": each.difference.low,
                    "high": each.difference.high,
                    "p_value": each.difference.p_value,
                    "verdict": each.verdict,
                }
                for each in self.comparisons
            ],
            "arms": [
                {
                    "name": each.name,
                    "kind": each.kind,
                    "metrics": {name: _interval(value) for name, value in each.figures.items()},
                    "recall": [
                        {
                            "class": name,
                            "value": recall and recall.mean,
                            "low": recall and recall.low,
                            "high": recall and recall.high,
                            "n": n,
                        }
                        for name, recall, n in zip(
                            self.class_names, each.recall, each.held_out, strict=True
                        )
                    ],
                    "by_split": list(each.by_split),
                }
                for each in self.arms
            ],
            "recipe": self.recipe.model_dump(mode="json"),
            "warnings": list(self.warnings),
            **self.settings,
        }


def run_gate(
    data: LabelledImages,
    recipe: Recipe,
    synthesise: Synthesise,
    config: EvaluationConfig,
    *,
    folder: Path | None = None,
    identity: str = "",
    among: np.ndarray | None = None,
    factory: ProbeFactory | None = None,
    learner: Learner | None = None,
    baselines: Sequence[Arm] | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> GateResult:
    """Measure a recipe on the training split.

    Args:
        data: The training split.
        recipe: What is measured.
        synthesise: Makes a split's synthetic samples; pickled where there are more workers.
        config: Budget, splits, probe, smallest effect.
        folder: Outcomes and generators are kept there and found again. None: nothing is kept.
        identity: What decides the synthetic samples beside the data: hash of the job.
        among: Rows that may be held out (n,) bool; those of a recipe search may not.
        factory: Builds the user's own probe: ``factory(image_shape, n_classes)``, a network that
            takes (n, c, *space) in [0, 1] and gives logits.
        learner: Takes the place of the probe and its training altogether.
        baselines: Takes the place of the usual baselines.
        device: Where probes are trained; on CUDA in this process alone.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        EvaluationError: If there are fewer than two classes, or a class has a single image.
    """
    bench = Bench(
        data,
        synthesise,
        config,
        folder=folder,
        identity=identity,
        among=among,
        factory=factory,
        learner=learner,
        device=device,
    )
    if recipe.is_none:
        return _nothing_to_measure(bench, recipe)
    baselines = list(baselines or fixed_arms(data))
    with bench:
        splits = bench.splits_in_budget(baselines, recipe, progress)
        scores = bench.scores(splits, baselines, progress=progress)
        combined = _combination(scores)
        scores |= bench.scores(splits, [combined], progress=progress)
        best = _best(scores)
        longer = replace(best, length=LONGER)
        merged = [best.with_recipe(recipe), best.with_recipe(recipe, beside=True)]
        scores |= bench.scores(splits, [longer, *merged], progress=progress)
    return _result(bench, splits, scores, best, longer, merged, recipe)


class Bench:
    """Trains arms on splits of one data set and remembers what came of it; a context manager."""

    def __init__(
        self,
        data: LabelledImages,
        synthesise: Synthesise,
        config: EvaluationConfig,
        *,
        folder: Path | None,
        identity: str,
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


def _mean(scores: Sequence[Scores]) -> float:
    return float(np.mean([each.balanced_accuracy for each in scores]))


def _best(scores: Mapping[Arm, Sequence[Scores]]) -> Arm:
    """The arm of the highest mean; of equals the first, which is the simpler one."""
    return max(scores, key=lambda arm: _mean(scores[arm]))


def _combination(scores: Mapping[Arm, Sequence[Scores]]) -> Arm:
    """The best technique of each kind, together: balance, flips, mixing."""

    def best_of(arms: list[Arm]) -> Arm:
        return max(arms, key=lambda arm: _mean(scores[arm]))

    plain = [arm for arm in scores if arm.mix is None and not arm.flip]
    first = best_of(plain)
    if not first.classic:
        return first
    among = [arm for arm in scores if arm.classic and arm.balance == "oversampling"]
    if not among:
        return first
    flip = best_of([arm for arm in among if arm.mix is None]).flip
    mix = best_of([arm for arm in among if not arm.flip]).mix
    return replace(first, flip=flip, mix=mix)


def _result(
    bench: Bench,
    splits: Sequence[Split],
    scores: Mapping[Arm, list[Scores]],
    best: Arm,
    longer: Arm,
    merged: Sequence[Arm],
    recipe: Recipe,
) -> GateResult:
    config, data = bench.config, bench.data
    ratio = len(splits[0].held_out) / len(splits[0].train)
    fewest = int(min(_fewest_held_out(data, each) for each in splits))
    # What a single held-out image of the smallest class changes.
    resolution = 1 / (max(1, fewest) * int((data.counts > 0).sum()))

    def difference(arm: Arm, other: Arm) -> Interval:
        pairs = zip(scores[arm], scores[other], strict=True)
        return corrected_t_interval(
            [a.balanced_accuracy - b.balanced_accuracy for a, b in pairs],
            test_to_train=ratio,
            confidence=config.confidence,
            resolution=resolution,
        )

    comparisons = []
    for name, arm in zip((EQUAL_STEPS, EQUAL_REAL), merged, strict=True):
        found = difference(arm, best)
        verdict = judge(found, min_effect=config.min_effect)
        comparisons.append(Comparison(name, arm.name, best.name, found, verdict))
    more = difference(longer, best)
    converged = judge(more, min_effect=config.min_effect) != "helps"
    verdict = comparisons[0].verdict
    warnings = []
    # Copies among the labelled images stay on one side of a split; those in a pool do not.
    leaks = sum(
        len(shared_images(data.subset(split.train), data.subset(split.held_out)))
        for split in splits
    )
    if leaks:
        warnings.append(
            f"leak: {leaks} held-out images are also in the pool of unlabelled images, which the "
            "generators learn from; take them out of the pool"
        )
    if not converged:
        warnings.append(
            f"the baselines had not converged: {LONGER:g} times the steps gave the best one "
            f"{100 * more.mean:+.1f} points; raise the steps"
        )
    if comparisons[1].verdict != verdict:
        warnings.append(
            f"with synthetic samples beside all real draws ({EQUAL_REAL}), at more computing: "
            f"{_signed(comparisons[1].difference)}, {comparisons[1].verdict}"
        )
    why = ""
    if fewest < config.min_held_out:
        verdict, why = "unsure", f"too few: a class has {fewest} held-out images in a split"
        warnings.append(
            f"a class has {fewest} held-out images, fewer than {config.min_held_out}: its recall "
            "says little"
        )
    elif verdict == "helps" and leaks:
        verdict, why = "unsure", "held-out images are in the pool that the generators learn from"
    elif verdict == "helps" and not converged:
        verdict, why = "unsure", "the baselines had not converged"
    elif verdict == "unsure":
        why = "more splits would narrow it: a larger budget"
    kinds = {longer: "check", **dict.fromkeys(merged, "merged")}
    arms = tuple(
        _arm_result(arm, kinds.get(arm, "baseline"), found, ratio, bench)
        for arm, found in scores.items()
    )
    settings = {
        "n_splits": len(splits),
        "folds": bench.folds,
        "steps": bench.steps,
        "probe": bench.probe,
        "min_effect": config.min_effect,
        "confidence": config.confidence,
        "converged": converged,
        "longer": _interval(more),
        "min_held_out": fewest,
        "seed": config.seed,
        "baseline": best.name,
    }
    return GateResult(
        verdict,
        _sentence(verdict, comparisons[0], len(splits), why),
        tuple(comparisons),
        arms,
        recipe,
        settings,
        tuple(warnings),
        data.class_names,
    )


def _sentence(verdict: Verdict, first: Comparison, n_splits: int, why: str) -> str:
    begin = {
        "helps": "Synthetic data helps",
        "does not help": "Synthetic data does not help",
        "unsure": "Unsure whether synthetic data helps",
    }[verdict]
    return (
        f"{begin}: balanced accuracy {_signed(first.difference)} against {first.baseline}, the "
        f"best training without it, over {n_splits} splits{'; ' + why if why else ''}."
    )


def _signed(interval: Interval) -> str:
    return (
        f"{100 * interval.mean:+.1f} points ({100 * interval.low:+.1f} to "
        f"{100 * interval.high:+.1f})"
    )


def _arm_result(
    arm: Arm, kind: str, scores: Sequence[Scores], ratio: float, bench: "Bench"
) -> ArmResult:
    confidence = bench.config.confidence
    figures = {
        name: corrected_t_interval(
            [each.figures()[name] for each in scores], test_to_train=ratio, confidence=confidence
        )
        for name in scores[0].figures()
        if all(math.isfinite(each.figures().get(name, math.nan)) for each in scores)
    }
    right = np.sum([each.right for each in scores], axis=0)
    held_out = np.sum([each.held_out for each in scores], axis=0)
    # An image that repetitions hold out again is no further image.
    worth = np.minimum(1.0, bench.held_counts / np.maximum(held_out, 1))
    return ArmResult(
        name=arm.name,
        kind=kind,
        figures=figures,
        recall=tuple(
            wilson_interval(hits * each, n * each, confidence=confidence) if n else None
            for hits, n, each in zip(right, held_out, worth, strict=True)
        ),
        held_out=tuple(int(n) for n in held_out),
        by_split=tuple(each.balanced_accuracy for each in scores),
    )


def _nothing_to_measure(bench: Bench, recipe: Recipe) -> GateResult:
    """Where the recipe is "none" the answer is known."""
    return GateResult(
        "does not help",
        "Synthetic data does not help: of all recipes tried, training without it was the best.",
        (),
        (),
        recipe,
        {
            "n_splits": 0,
            "folds": bench.folds,
            "steps": bench.steps,
            "probe": bench.probe,
            "min_effect": bench.config.min_effect,
            "confidence": bench.config.confidence,
        },
        (),
        bench.data.class_names,
    )


def _fewest_held_out(data: LabelledImages, split: Split) -> int:
    """Held-out images of the class that has fewest, of those that have images at all."""
    held = np.bincount(data.labels[split.held_out], minlength=data.n_classes)
    return int(held[data.counts > 0].min())


def _interval(value: Interval) -> dict[str, float]:
    return {"mean": value.mean, "low": value.low, "high": value.high}


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else functools.partial(progress, what)
