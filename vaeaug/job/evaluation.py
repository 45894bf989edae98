"""A run, measured: the recipe search, the gate, fidelity, privacy and the shortcut check.

Whatever is measured is measured on images that no generator saw: the run's own generator saw the
whole training split, so each split of it gets a generator of its own, trained by the same job.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaeaug.config import AugmentConfig, EvaluationConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.engines import Engine
from vaeaug.evaluation import (
    Bench,
    GateResult,
    Prediction,
    ProbeFactory,
    SearchResult,
    as_judged,
    check_shortcut,
    default_candidates,
    halves,
    measure_fidelity,
    measure_privacy,
    predict,
    run_gate,
    search_recipe,
)
from vaeaug.job.result import RunResult, plain
from vaeaug.merging import channels_last, merge
from vaeaug.progress import Progress
from vaeaug.shards import Manifest
from vaeaug.stages import SplitStages

log = logging.getLogger("vaeaug")

# Fraction of the images that the gate holds out, where a search came before it.
GATE_PART = 0.4
# Images that the shortcut check looks at.
SHORTCUT_IMAGES = 4000


@dataclass(frozen=True)
class RunEvaluation:
    """Measures recipes on splits of the data that a run is made from.

    Outcomes are kept in the run folder: what was measured before is read.

    Attributes:
        folder: ``evaluation`` in the run folder.
        data: The training split.
        job: The job, by which each split trains a generator of its own.
        config: Probe, splits, budget.
        probe: Builds the user's own classifier; None for the built-in one.
        device: Where to train.
        progress: Reports on the trainings; None is silent.
        engine: Where they run. Default: in `config.workers` processes.
    """

    folder: Path
    data: LabelledImages
    job: AugmentConfig
    config: EvaluationConfig
    probe: ProbeFactory | None = None
    device: torch.device | str = "cpu"
    progress: Progress | None = None
    engine: Engine | None = None

    @property
    def stages(self) -> SplitStages:
        """The stages of the job, for the generators of the splits."""
        return SplitStages(self.job, str(self.device))

    def check(self) -> None:
        """Refuse data that is too small to be evaluated, before anything is trained.

        Raises:
            EvaluationError: If there are too few classes or images.
        """
        self._gate_bench(None)

    def search(self, candidates: Sequence[Recipe] | None = None) -> SearchResult:
        """Find a recipe on the part of the data that the gate will not hold out.

        Args:
            candidates: Recipes; None is `default_candidates` around the job's own.

        Returns:
            The choice and how it came about.

        Raises:
            EvaluationError: If the data is too small to be split.
        """
        rows, _ = self._parts(self.config.seed)
        with self._bench(self.data.subset(rows), self.folder / "search") as bench:
            result = search_recipe(
                bench,
                candidates
                or default_candidates(
                    self.job.recipe,
                    features=self.data.are_features,
                    codes=self.job.model.latent == "discrete",
                ),
                progress=self.progress,
            )
        log.info("search: %s", result.sentence)
        return result

    def gate(self, recipe: Recipe, *, searched: int | None) -> GateResult:
        """Whether a recipe helps, on splits of the training data.

        Args:
            recipe: What is measured.
            searched: Seed of the search that found the recipe on this data: only images that it
                never saw are held out. None: no search was made.

        Returns:
            The verdict with its interval.

        Raises:
            EvaluationError: If the data is too small to be split.
        """
        with self._gate_bench(searched) as bench:
            result = run_gate(bench, recipe, progress=self.progress)
        for line in (result.sentence, *result.warnings):
            log.info("gate: %s", line)
        return result

    def prediction(self, recipe: Recipe, *, searched: int | None) -> Prediction:
        """What the first split of the gate says of a recipe, which is no verdict.

        Args:
            recipe: The recipe.
            searched: As for `gate`.

        Returns:
            The prediction. The gate reads the trainings behind it.

        Raises:
            EvaluationError: If the data is too small to be split.
        """
        with self._gate_bench(searched) as bench:
            result = predict(bench, recipe, progress=self.progress)
        for line in (result.sentence, *result.warnings):
            log.info("prediction: %s", line)
        return result

    def evaluated(self, result: RunResult, recipe: Recipe) -> tuple[RunResult, GateResult]:
        """Evaluate a run: the gate, and the measures beside it.

        Args:
            result: The run.
            recipe: What is measured. Whoever gives one by hand may have seen the search: what it
                looked at is not held out.

        Returns:
            (the result with both, the gate by itself).

        Raises:
            EvaluationError: If the data is too small to be split.
        """
        gate = self.gate(recipe, searched=result.searched)
        measures = self.measure(recipe, result.manifest, searched=result.searched)
        return result.with_evaluation(gate, measures), gate

    def measure(
        self, recipe: Recipe, manifest: Manifest, *, searched: int | None
    ) -> dict[str, Any]:
        """Fidelity, privacy and the shortcut check.

        The first two are measured on the gate's first split: its held-out images were seen by no
        generator, so real images stand beside synthetic ones on equal terms.

        Args:
            recipe: What is measured.
            manifest: Of the run, whose merged data is checked for shortcuts.
            searched: As for `gate`.

        Returns:
            ``fidelity``, ``privacy`` and ``shortcut`` as JSON.
        """
        bench = self._gate_bench(searched)
        (split,) = bench.splits(1)
        key = {
            "what": "measures",
            "split": split.key,
            "recipe": recipe.model_dump(mode="json"),
            "model": manifest.model_sha256,
            "seed": self.config.seed,
            **self._judge_steps,
        }
        measures = bench.remember(
            key,
            lambda: plain(
                self._measure_split(recipe, bench) | {"shortcut": self._shortcut(recipe, manifest)}
            ),
        )
        return {name: measures[name] for name in ("fidelity", "privacy", "shortcut")}

    def _measure_split(self, recipe: Recipe, bench: Bench) -> dict[str, Any]:
        (split,) = bench.splits(1)
        train = self.data.subset(split.train)
        held_out = replace(self.data, unlabelled=None).subset(split.held_out)
        folder = bench.place(split)
        drawn_by = self.job.recipe if recipe.is_none else recipe
        (synthetic,) = self.stages.samples(train, folder, [drawn_by])
        settings: dict[str, Any] = {"seed": self.config.seed, "device": self.device}
        fidelity = measure_fidelity(
            train,
            held_out,
            synthetic.images,
            synthetic.labels,
            **self._judge_steps,
            **settings,
        )
        privacy = measure_privacy(
            train,
            held_out,
            synthetic.images,
            synthetic_labels=synthetic.labels,
            generator=self.stages.generator(train, folder),
            **settings,
        )
        return {"fidelity": fidelity.to_json(), "privacy": privacy.to_json()}

    @property
    def _judge_steps(self) -> dict[str, Any]:
        """Training steps of the judges as an argument; none where theirs are the default."""
        steps = self.config.judge_steps
        return {} if steps is None else {"steps": steps}

    def _shortcut(self, recipe: Recipe, manifest: Manifest) -> dict[str, Any] | None:
        """Of the data as a trainer would get it; None where it gets no synthetic samples."""
        if recipe.is_none:
            return None
        # What the gate found is being written: merging has nothing to warn of.
        extra = {**manifest.extra, "recipe": recipe.model_dump(mode="json")}
        unjudged = replace(manifest, gate={"verdict": "unsure"}, extra=extra)
        merged = merge(self.data, unjudged, balance="classes", soft=False)
        rng = np.random.default_rng([self.config.seed, 9])
        rows = np.sort(rng.permutation(len(merged))[:SHORTCUT_IMAGES])
        stacked = torch.stack([merged[int(row)][0] for row in rows])
        images = channels_last(stacked, self.data.image_shape)
        judged, value_range = as_judged(
            np.ascontiguousarray(images), self.data.value_range, self.data.spectrogram
        )
        result = check_shortcut(
            judged,
            merged.labels[rows],
            merged.is_synthetic[rows],
            value_range=value_range,
            class_names=self.data.class_names,
            seed=self.config.seed,
            device=self.device,
            **self._judge_steps,
        )
        if result.warning:
            log.warning("shortcut: %s; %s", result.warning, result.remedy)
        return result.to_json()

    def _parts(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """What a search of this seed looks at, and what is kept for the gate that follows it."""
        return halves(self.data, GATE_PART, seed=seed)

    def _gate_bench(self, searched: int | None) -> Bench:
        among = None if searched is None else self._parts(searched)[1]
        return self._bench(self.data, self.folder / "gate", among)

    def _bench(self, data: LabelledImages, folder: Path, among: np.ndarray | None = None) -> Bench:
        return Bench(
            data,
            self.stages,
            self.config,
            folder=folder,
            identity=self.job.sha256,
            among=among,
            factory=self.probe,
            device=self.device,
            engine=self.engine,
        )
