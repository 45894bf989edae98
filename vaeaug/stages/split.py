"""The stages on the training part of a split: a generator of its own, and samples in memory."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from vaeaug.config import AugmentConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.files import new_file, open_regular
from vaeaug.generator import Synthesizer
from vaeaug.screening import Screener, ScreeningReport
from vaeaug.stages.choices import choose_samplers
from vaeaug.stages.drawing import draw_class
from vaeaug.stages.planning import plan_of
from vaeaug.stages.training import load_or_train, new_screener


@dataclass(frozen=True)
class SyntheticSet:
    """Synthetic samples in memory.

    Attributes:
        images: Like the real ones, (m, *space, c).
        labels: In the order of the real classes, (m,).
        soft_labels: Class probabilities, (m, k); None: one-hot.
    """

    images: Shaped[np.ndarray, "m *space c"]
    labels: Int64[np.ndarray, " m"]
    soft_labels: Float32[np.ndarray, "m k"] | None = None


@dataclass(frozen=True)
class SplitStages:
    """What an evaluation needs of a job: its stages, on any part of its data. Can be pickled.

    Whatever is finished in a split's folder is read from there, and what was begun is resumed. The
    folder belongs to one process at a time.

    Attributes:
        config: The job.
        device: Where the networks run.
    """

    config: AugmentConfig
    device: str = "cpu"

    def generator(self, train: LabelledImages, folder: Path) -> Synthesizer:
        """The generator of a split, trained on its training part alone by the job's own steps.

        Args:
            train: The training part.
            folder: Of the split.

        Returns:
            The generator, on the device.
        """
        place = folder / "generator"
        job = self.config.changed(**{"restoration.steps": 0})  # samples are all that is wanted
        return load_or_train(place, train, job, checkpoints=place, device=self.device)

    def samples(
        self, train: LabelledImages, folder: Path, recipes: Sequence[Recipe]
    ) -> list[SyntheticSet]:
        """The synthetic samples that each recipe needs for a split.

        Args:
            train: The training part of the split.
            folder: Of the split.
            recipes: Recipes; those that draw the same samples share them.

        Returns:
            A set for each recipe.
        """
        screener = None
        synthetic_sets = []
        for recipe in recipes:
            # Soft labels change no sample; a recipe without them leaves them unread.
            settings = {**recipe.settings(), "recipe.soft": True}
            path = folder / f"samples-{_digest(settings)}.npz"
            if not path.exists():
                job = self.config.changed(**settings)
                if screener is None:
                    screener = new_screener(train, job, device=self.device)
                screener = screener.with_label_threshold(recipe.min_label_probability)
                folder.mkdir(parents=True, exist_ok=True)
                with new_file(path) as file:
                    np.savez(file, **self._drawn(train, folder, job, screener))
            synthetic_sets.append(_load(path))
        return synthetic_sets

    def with_pseudo_labels(self, train: LabelledImages, folder: Path) -> LabelledImages:
        """Add the images of the pool whose class the split's generator came to know.

        Args:
            train: The training part, with its pool.
            folder: Of the split.

        Returns:
            The training part with these images, and without a pool.
        """
        if train.unlabelled is None:
            return train
        labels = self.generator(train, folder).latents.labels[len(train) :]
        known = np.flatnonzero(labels >= 0)
        groups = train.groups
        if groups is not None:  # each is a group of its own
            groups = np.concatenate([groups, groups.max(initial=-1) + 1 + known])
        return replace(
            train,
            images=np.concatenate([train.images, train.unlabelled[known]]),
            labels=np.concatenate([train.labels, labels[known]]),
            groups=groups,
            unlabelled=None,
        )

    def _drawn(
        self, train: LabelledImages, folder: Path, job: AugmentConfig, screener: Screener
    ) -> dict[str, Any]:
        """The samples of a job as arrays, and what they were made from."""
        generator = self.generator(train, folder).attach(train)
        if job.recipe.sampler == "auto":  # a fixed sampler needs no trial
            generator = choose_samplers(generator, train, job, screener).apply(generator)
        parts = [
            part
            for class_plan in plan_of(train, job)
            for part in draw_class(class_plan, generator, screener, job, report=ScreeningReport())
        ]
        no_soft_labels = np.empty((0, train.n_classes), np.float32)
        samples = [part.samples for part in parts]
        return {
            "images": np.concatenate([train.images[:0], *(batch.images for batch in samples)]),
            "labels": np.concatenate([train.labels[:0], *(batch.labels for batch in samples)]),
            "soft_labels": np.concatenate([no_soft_labels, *(part.soft_labels for part in parts)]),
            "source_index": np.concatenate(
                [np.empty(0, np.int64), *(batch.source_index for batch in samples)]
            ),
            "data_fingerprint": np.array(train.fingerprint),
        }


def _load(path: Path) -> SyntheticSet:
    with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
        return SyntheticSet(arrays["images"], arrays["labels"], arrays["soft_labels"])


def _digest(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
