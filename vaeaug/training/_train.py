"""The training pipeline: its stages, their models and their order."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaeaug.config import CODE_SAMPLERS, AugmentConfig, ConfigError
from vaeaug.data import LabelledImages
from vaeaug.memory import available_memory, kept_memory, sized
from vaeaug.models import (
    CVAE,
    HEAD,
    Discriminator,
    Geometry,
    LatentFlow,
    SeparateCVAE,
    SizeError,
    SmallClassifier,
    groups_of,
    make_likelihood,
)
from vaeaug.progress import Progress
from vaeaug.randomness import seeded_torch
from vaeaug.ranks import ALONE, Ranks
from vaeaug.training._adversarial import AdversarialObjective
from vaeaug.training._batches import Batches, mix, resolve_device
from vaeaug.training._discrete import CodebookObjective, CodePriorObjective
from vaeaug.training._elbo import ElboObjective, match_priors
from vaeaug.training._flow import FlowObjective
from vaeaug.training._loop import Loop
from vaeaug.training._scores import mean_finite
from vaeaug.training._semi_supervised import (
    ClassifierObjective,
    ConsistencyObjective,
    M2Objective,
    pseudo_labels,
)
from vaeaug.training._state import LEARNING_RATE, WEIGHT_DECAY, Stage, StageRecord
from vaeaug.training._style import AddedStyleObjective, StyleObjective, fill_class_codes
from vaeaug.training._together import released, summoned

# Weights by which a time budget is divided among the stages of a job.
SHARES = {
    "classifier": 0.05,
    "trunk": 0.6,
    "adapt": 0.05,
    "sharpen": 0.25,
    "flow": 0.3,
    "prior": 0.6,
}
# Lower bound of the number of arrays of the size of the decoder's output that a step holds.
# Measured were 20 and more, with the features of every level.
STEP_ARRAYS = 12
# Minimum number of labelled images for training a flow by default.
FLOW_IMAGES = 200
# Default number of images that training draws, for a data set of one image.
STEP_IMAGES = 1800
# Default learning rate of the trunk, which a network that is trained already does not bear.
TRUNK_RATE = 4e-3
# Default weight decay of the trunk times its peak learning rate and its steps, and the highest.
TRUNK_DECAY, MAX_DECAY = 0.4, 0.3
# Default number of blocks and learning rate of the flow, and of the prior over codes.
FLOW_DEPTH, FLOW_RATE = 4, 1e-3
PRIOR_DEPTH, PRIOR_RATE = 2, 5e-3
# Classes that are adapted together, at most: a step draws four images of each.
ADAPTED_TOGETHER = 64
# Default length of the style, units; at most half of the latent vector.
STYLE_UNITS = 16
# Learning rate of classes that are added, by that of a training: label control and the bound of an
# added digit were far better with it, and with twice as much no better.
ADDED_RATE = 10
# Fraction of the default steps that a model of style and content takes where samples have at most
# so many values: it learns them sooner.
SMALL_SAMPLE, SMALL_SHARE = 400, 0.75
# Fraction of the default steps of a training that starts from another generator.
INIT_SHARE = 0.25
# Name of the task of the other processes.
TRAINING = "train"


@dataclass(frozen=True)
class Trained:
    """A trained model and the record of its training.

    Attributes:
        model: The model in evaluation mode, with the EMA weights that were best on held-out images.
        stages: Record of each stage by name, in order.
        flow: The density over latents of all classes; None if it was not trained.
        pool_labels: Class of each unlabelled image, -1 if it is not known; empty without a pool.
        notes: Observations about the training for the user.
    """

    model: CVAE | SeparateCVAE
    stages: dict[str, StageRecord]
    flow: LatentFlow | None = None
    pool_labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    notes: tuple[str, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes of the stages, then those of the training as a whole."""
        return tuple(note for record in self.stages.values() for note in record.notes) + self.notes

    def summary(self) -> list[str]:
        """Describe each stage in a line, followed by the remarks.

        Returns:
            The lines.
        """
        lines: list[str] = []
        for name, record in self.stages.items():
            first, best = mean_finite(record.first), mean_finite(record.best)
            if name == "flow":
                progress_text = f"held-out velocity error {-first:.3f} -> {-best:.3f}"
            elif name == "prior":
                progress_text = f"held-out codes {-first:.2f} -> {-best:.2f} nats each"
            elif name == "classifier":
                progress_text = f"held-out log-likelihood {first:.2f} -> {best:.2f} nats"
            elif name.startswith("sharpen"):
                progress_text = "decoder sharpened against a discriminator"
            else:
                progress_text = f"held-out ELBO {first:.1f} -> {best:.1f} nats"
                progress_text += " (mean over classes)" * (len(record.best) > 1)
            skipped = f", {record.skipped} steps skipped" if record.skipped else ""
            lines.append(f"{name}: {record.step} steps, {progress_text}{skipped}")
        return [*lines, *self.remarks]


def train(
    data: LabelledImages,
    config: AugmentConfig,
    *,
    device: str | torch.device = "auto",
    folder: Path | None = None,
    progress: Progress | None = None,
    start: CVAE | SeparateCVAE | None = None,
) -> Trained:
    """Train a generator as configured.

    The stages that the configuration enables run in this order: a classifier of the real images
    (for unlabelled images and feature matching); the trunk, one model of all classes; its
    adaptation, which trains the parameters of each class with the trunk frozen; the sharpening of
    the decoder against a discriminator; the flow over the latents. With "separate" grouping, one
    model per class replaces trunk and adaptation.

    Args:
        data: The training split. A part of it is held out for early stopping.
        config: The job.
        device: "auto", "cpu", "cuda", "cuda:N" or a torch device.
        folder: Run folder for ``checkpoints`` and ``metrics.jsonl``; training resumes from existing
            ones. None: nothing is written.
        progress: Called after every step.
        start: The model of other data, from which the parameters that all classes share start.

    Returns:
        The trained model and its record.

    Raises:
        ConfigError: If parts of the configuration are incompatible with one another, with the data
            or with `start`.
        TrainingError: If the loss stays non-finite or exploding, or a checkpoint cannot be used.
    """
    device = resolve_device(device)
    check_config(data, config)
    ranks = summoned(TRAINING, data, config, device)
    batches = Batches(data, config, device)
    pipeline = TrainingPipeline(data, config, batches, folder, progress, start, ranks)
    with kept_memory(4 * config.training.batch_size * math.prod(data.image_shape)):
        trained = pipeline.run()
    released(ranks)
    return trained


def follow_training(
    data: LabelledImages, config: AugmentConfig, device: torch.device, ranks: Ranks
) -> None:
    """Take part in the training of another process, which keeps what comes of it.

    Args:
        data: The training split.
        config: The job.
        device: The device of this process.
        ranks: The processes.

    Raises:
        TrainingError: If a step does not fit into the memory of the device.
    """
    batches = Batches(data, config, device)
    pipeline = TrainingPipeline(data, config, batches, None, None, ranks=ranks)
    with kept_memory(4 * config.training.batch_size * math.prod(data.image_shape)):
        pipeline.run()


def train_added(
    data: LabelledImages,
    config: AugmentConfig,
    *,
    start: CVAE | SeparateCVAE,
    known: Mapping[int, int],
    latents: np.ndarray,
    with_flow: bool = False,
    device: str | torch.device = "auto",
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Give a trained model more classes; what it knows stays as it is.

    The trunk is frozen, and the parameters of the new classes are trained on their images alone, as
    in the adaptation of a full training; a model per class is trained for each new one. A flow, and
    the prior over codes, describe all classes together and are trained anew.

    Args:
        data: The training split, with the classes that the model knows and the new ones.
        config: The job.
        start: The trained model.
        known: By label, the label in `start` of the classes that it knows.
        latents: Of images of the known classes, (m, z): their styles have to show the new classes.
        with_flow: Whether to train a flow.
        device: "auto", "cpu", "cuda", "cuda:N" or a torch device.
        folder: As for `train`.
        progress: Called after every step.

    Returns:
        The model of all classes, and the record of its training.

    Raises:
        TrainingError: If the loss stays non-finite or exploding, or a checkpoint cannot be used.
    """
    device = resolve_device(device)
    new = np.flatnonzero(~np.isin(data.labels, list(known)))
    labels = tuple(np.unique(data.labels[new]).tolist())
    model = _extended(start, data.n_classes, known, config).to(device)
    stages: dict[str, StageRecord] = {}
    if labels:
        judge = None
        if isinstance(model, CVAE) and model.style_dim:
            labelled = replace(data, unlabelled=None)
            of_all = Batches(labelled, config, device)
            judging = TrainingPipeline(labelled, config, of_all, folder, progress)
            judge = judging.classifier()
            stages |= judging.stages
        own = replace(data.subset(new), unlabelled=None)
        pipeline = TrainingPipeline(own, config, Batches(own, config, device), folder, progress)
        pipeline.add(model, labels, judge, torch.from_numpy(latents).to(device))
        stages |= pipeline.stages
    flow, with_codes = None, model.is_discrete and bool(labels)
    if with_flow or with_codes:
        whole = TrainingPipeline(data, config, Batches(data, config, device), folder, progress)
        if with_flow:
            flow = whole.flow(model)
        if with_codes and isinstance(model, CVAE):
            whole.code_prior(model)
        stages |= whole.stages
    return Trained(model.eval(), stages, flow)


def wants_flow(data: LabelledImages, config: AugmentConfig) -> bool:
    """Decide whether a flow is trained.

    "auto" trains one if z is a grid or a hierarchy, which a mixture of normals describes poorly,
    and there are enough images to learn from.

    Args:
        data: The training split.
        config: The job.

    Returns:
        Whether a flow is trained.
    """
    if config.density.kind == "auto":
        is_described = config.model.latent in ("vector", "discrete")  # discrete by its prior
        return not is_described and len(data) >= FLOW_IMAGES
    return config.density.kind == "flow"


def style_units(data: LabelledImages, config: AugmentConfig) -> int:
    """Return the length of the style.

    Args:
        data: The training split.
        config: The job.

    Returns:
        Units; 0 for a model whose latent is not split into style and detail.
    """
    model = config.model
    if model.style_dim is not None:
        return model.style_dim
    if _missing_for_style(data, config):
        return 0
    groups = groups_of(
        data.image_shape,
        network=model.network,
        latent=model.latent,
        latent_dim=model.latent_dim,
        latent_channels=model.latent_channels,
        levels=model.levels,
    )
    return min(STYLE_UNITS, groups[0].size // 2)


def training_steps(data: LabelledImages, config: AugmentConfig) -> int:
    """Return the number of steps of the trunk: those of the job, or the default.

    Args:
        data: The training split.
        config: The job.

    Returns:
        Optimiser steps.
    """
    training = config.training
    if training.steps is not None:
        return training.steps
    steps = usual_steps(data, config)
    is_small = math.prod(data.image_shape) <= SMALL_SAMPLE
    return round(SMALL_SHARE * steps) if is_small and style_units(data, config) else steps


def usual_steps(data: LabelledImages, config: AugmentConfig) -> int:
    """Return the default number of steps by the number of images, and by what training starts from.

    Args:
        data: The training split.
        config: The job.

    Returns:
        Optimiser steps.
    """
    steps = default_steps(len(data), config.training.batch_size)
    return steps if config.training.init is None else round(INIT_SHARE * steps)


def default_steps(n_images: int, batch_size: int) -> int:
    """Return the default number of steps, in proportion to the square root of the number of images.

    That is 70 passes over 600 images and 7 over 60,000; see ``benchmarks/README.md`` for what more
    steps bring.

    Args:
        n_images: Number of images.
        batch_size: Images per step.

    Returns:
        Optimiser steps, 500 to 20,000.
    """
    return min(20_000, max(500, round(STEP_IMAGES * math.sqrt(n_images) / batch_size)))


class TrainingPipeline:
    """The stages of a training; each method runs one.

    Args:
        data: The training split.
        config: The job.
        batches: The data on the device.
        folder: The run folder; None: nothing is written.
        progress: Called after every step.
        start: A model to start from.
        ranks: The processes over which its steps are divided. What stages begin with is the
            leader's, so that those that follow need no start.
    """

    def __init__(
        self,
        data: LabelledImages,
        config: AugmentConfig,
        batches: Batches,
        folder: Path | None,
        progress: Progress | None,
        start: CVAE | SeparateCVAE | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.data, self.config, self.batches, self.start = data, config, batches, start
        self.ranks = ranks
        self.loop = Loop(batches, config, folder, progress, ranks)
        self.steps = training_steps(data, config)
        if config.training.budget_seconds is not None and config.training.steps is None:
            self.steps = 10**7  # the budget ends it
        self.stages: dict[str, StageRecord] = {}
        self.notes: list[str] = []
        planned = self._planned()
        self.shares = {
            name: SHARES[name] / sum(SHARES[stage] for stage in planned) for name in planned
        }

    def run(self) -> Trained:
        """Run every stage that the configuration enables.

        Returns:
            The trained model and its record.
        """
        data, config = self.data, self.config
        classifier = self.classifier()
        rows, labels = self.label_pool(classifier)
        model = self.vae(classifier)
        m2 = config.semi_supervised.mode == "m2"
        if isinstance(model, CVAE) and m2 and classifier is not None:
            rows, labels = self.pool_labels(classifier)  # with the further trained classifier
        if config.adversarial.steps:
            self.sharpen(model)
        flow = self.flow(model) if wants_flow(data, config) else None
        if isinstance(model, CVAE) and model.is_discrete:
            self.code_prior(model)
        pool = np.full(0 if data.unlabelled is None else len(data.unlabelled), -1, np.int64)
        pool[rows] = labels
        return Trained(model.eval(), self.stages, flow, pool, tuple(self.notes))

    def classifier(self) -> SmallClassifier | None:
        """Train the classifier of real images, if a later stage needs it.

        Returns:
            The classifier, or None.
        """
        if "classifier" not in self.shares:
            return None
        model = self._fresh(
            "classifier", SmallClassifier, self.data.image_shape, self.data.n_classes
        )
        steps = self.config.semi_supervised.classifier_steps
        if self.batches.pool is None:  # it only judges
            steps = max(1, min(steps, self.steps // 2))
        stage = self._stage("classifier", steps, power=0.0)
        settings = self.config.semi_supervised
        objective = ClassifierObjective(self.batches, stage)
        if self.batches.pool is not None and settings.consistency:
            objective = ConsistencyObjective(
                self.batches,
                stage,
                weight=settings.consistency,
                threshold=settings.threshold,
                is_aligned=settings.alignment,
            )
        self.stages["classifier"] = self.loop.run(stage, model, objective)
        return model.eval()

    def label_pool(self, classifier: SmallClassifier | None) -> tuple[np.ndarray, np.ndarray]:
        """Label the unlabelled pool, and add the labelled images to the training images.

        Args:
            classifier: The classifier of real images, or None.

        Returns:
            Row numbers of the pool and their class indices, (m,) each.
        """
        if classifier is None or self.batches.pool is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        if self.config.semi_supervised.mode == "m2":
            return np.empty(0, np.int64), np.empty(0, np.int64)
        rows, labels = self.pool_labels(classifier)
        self.batches.adopt(rows, labels)
        return rows, labels

    def pool_labels(self, classifier: SmallClassifier) -> tuple[np.ndarray, np.ndarray]:
        """Label the images of the pool of whose class the classifier is certain.

        Args:
            classifier: The classifier of real images.

        Returns:
            Row numbers of the pool and their class indices, (m,) each.
        """
        assert self.batches.pool is not None
        settings, found = self.config.semi_supervised, None
        if self.ranks.is_leader:  # another device may round a probability to the other side
            labelled = pseudo_labels(
                classifier, self.batches, settings.threshold, is_aligned=settings.alignment
            )
            found = list(map(torch.from_numpy, labelled))
        with self.ranks.together():
            rows, labels = (each.numpy() for each in self.ranks.share(found))
        self.notes.append(
            f"unlabelled pool: {len(rows)} of {len(self.batches.pool)} images were given a label "
            f"(probability {settings.threshold:g} or more"
            f"{', classes as frequent as the labelled ones' if settings.alignment else ''})"
        )
        return rows, labels

    def vae(self, classifier: SmallClassifier | None) -> CVAE | SeparateCVAE:
        """Train the VAE with the configured grouping.

        Args:
            classifier: The classifier of real images, or None.

        Returns:
            The model.
        """
        model = _new_model(self.data, self.config).to(self.batches.device)
        if self.start is not None:
            _start_from(model, self.start, str(self.config.training.init))
        if isinstance(model, SeparateCVAE):
            by_class = _separate_steps(self.data.counts, training_steps(self.data, self.config))
            for label, steps_of_class in enumerate(by_class):
                if self.data.counts[label]:
                    share = steps_of_class / sum(by_class)
                    stage = self._stage(
                        f"class-{label:03d}",
                        steps_of_class,
                        classes=(label,),
                        is_one_class=True,
                        share=share * (self.shares["trunk"] + self.shares["adapt"]),
                    )
                    objective = ElboObjective(self.batches, self.config, stage, classifier)
                    self.stages[stage.name] = self.loop.run(stage, model.of_class(label), objective)
            return model
        stage = self._stage("trunk", self.steps)
        kind = CodebookObjective if model.is_discrete else ElboObjective
        objective = kind(self.batches, self.config, stage, classifier)
        if model.style_dim:
            assert classifier is not None
            objective = StyleObjective(self.batches, self.config, stage, classifier)
        elif self.config.semi_supervised.mode == "m2" and self.batches.pool is not None:
            assert classifier is not None
            # The classifier is trained further; the judge must not be, or it would learn to
            # ignore differences.
            judge = copy.deepcopy(classifier)
            objective = M2Objective(self.batches, self.config, stage, classifier, judge)
        self.stages["trunk"] = self.loop.run(stage, model, objective)
        if self.config.model.grouping == "adapted":
            match_priors(self.batches, model)
            blocks = self._adapted_blocks()
            share = self.shares["adapt"] / max(1, len(blocks))
            steps = self._adapt_steps()
            for number, classes in enumerate(blocks):
                name = "adapt" if len(blocks) == 1 else f"adapt-{number:03d}"
                stage = self._stage(name, steps, classes=classes, adapt=True, share=share)
                objective = kind(self.batches, self.config, stage, classifier)
                self.stages[name] = self.loop.run(stage, model, objective)
        return model

    def _adapted_blocks(self) -> list[tuple[int, ...]]:
        """Classes whose parameters are fitted together; what a class learns depends on it alone.

        Without held-out images it is not known whether a class has gained, and it keeps what it
        has: such classes are left out.
        """
        scored = self.batches.held_labels.unique().tolist()
        size = math.ceil(len(scored) / max(1, math.ceil(len(scored) / ADAPTED_TOGETHER)))
        return [tuple(scored[begin : begin + size]) for begin in range(0, len(scored), size or 1)]

    def _adapt_steps(self) -> int:
        """A tenth of the steps of a trunk that has the images of one block alone.

        The cost of a class is then the same however many there are. More steps gained nothing: see
        ``benchmarks/README.md``.
        """
        part = min(1.0, ADAPTED_TOGETHER / self.data.n_classes)
        default = max(100, int(self.steps / 10 * math.sqrt(part)))
        return self.config.training.adapt_steps or default

    def add(
        self,
        model: CVAE | SeparateCVAE,
        labels: tuple[int, ...],
        judge: SmallClassifier | None,
        latents: Tensor,
    ) -> None:
        """Train what belongs to new classes alone.

        Args:
            model: The model of all classes, trained in place.
            labels: The new classes, of which the data of this pipeline is.
            judge: A classifier of the real images of all classes, for a model with a style.
            latents: Of images of other classes, (m, z).
        """
        if isinstance(model, SeparateCVAE):
            for label, steps in enumerate(_separate_steps(self.data.counts, self.steps)):
                if label in labels:
                    share = 1 / len(labels)
                    name = f"class-{label:03d}"
                    stage = self._stage(
                        name, steps, classes=(label,), is_one_class=True, share=share
                    )
                    alone = ElboObjective(self.batches, self.config, stage)
                    self.stages[name] = self.loop.run(stage, model.of_class(label), alone)
            return
        if not model.conditional:  # it never sees the class
            return
        if model.style_dim:
            fill_class_codes(self.batches, model)
        steps = self.config.training.adapt_steps or max(100, self.steps // 2)
        rate = ADDED_RATE * self._learning_rate("added")
        stage = self._stage("added", steps, classes=labels, adapt=True, share=1.0, rate=rate)
        match_priors(self.batches, model)
        before = _rows_beside(model, labels)
        objective: ElboObjective
        if model.style_dim:
            assert judge is not None
            objective = AddedStyleObjective(self.batches, self.config, stage, judge, latents)
        else:
            kind = CodebookObjective if model.is_discrete else ElboObjective
            objective = kind(self.batches, self.config, stage)
        self.stages["added"] = self.loop.run(stage, model, objective)
        # Weight decay and averages move rows that no image trains.
        for name, (rows, values) in before.items():
            model.get_parameter(name).data[rows] = values

    def sharpen(self, model: CVAE | SeparateCVAE) -> None:
        """Train the decoder against a discriminator.

        Args:
            model: The model, trained in place.
        """
        settings = self.config.adversarial
        if isinstance(model, CVAE):
            stage = self._stage("sharpen", settings.steps, rate=settings.learning_rate)
            self._sharpen(stage, model)
            return
        by_class = _separate_steps(self.data.counts, settings.steps)
        for label, steps in enumerate(by_class):
            if self.data.counts[label]:
                stage = self._stage(
                    f"sharpen-{label:03d}",
                    steps,
                    classes=(label,),
                    is_one_class=True,
                    rate=settings.learning_rate,
                    share=steps / sum(by_class) * self.shares["sharpen"],
                )
                self._sharpen(stage, model.of_class(label))

    def _sharpen(self, stage: Stage, model: CVAE) -> None:
        """Train the decoder of one model against a discriminator of its own."""
        discriminator = self._fresh(
            "discriminator",
            Discriminator,
            self.data.image_shape,
            1 if stage.is_one_class else self.data.n_classes,
            width=self.config.model.width,
            max_width=self.config.model.max_width,
        )
        objective = AdversarialObjective(self.batches, self.config, stage, discriminator)
        self.stages[stage.name] = self.loop.run(stage, model, objective)

    def flow(self, model: CVAE | SeparateCVAE) -> LatentFlow:
        """Train the density over the latents of all classes.

        Args:
            model: The trained model.

        Returns:
            The flow.
        """
        settings = self.config.density
        shape = model.groups[0].shape if len(model.groups) == 1 else (model.latent_dim,)
        flow = self._fresh(
            "flow",
            LatentFlow,
            shape,
            self.data.n_classes,
            width=settings.width,
            depth=settings.depth or FLOW_DEPTH,
        )
        rate = settings.learning_rate or FLOW_RATE
        stage = self._stage("flow", settings.steps or self.steps, rate=rate)
        objective = FlowObjective(self.batches, self.config, stage, model.eval())
        self.stages["flow"] = self.loop.run(stage, flow, objective)
        return flow.eval()

    def code_prior(self, model: CVAE) -> None:
        """Train the prior over the codes of all classes.

        Args:
            model: The trained model; its prior is trained in place.
        """
        settings = self.config.density
        rate = settings.learning_rate or PRIOR_RATE
        stage = self._stage("prior", settings.steps or self.steps, rate=rate)
        objective = CodePriorObjective(self.batches, self.config, stage, model.eval())
        self.stages["prior"] = self.loop.run(stage, model, objective)

    def _planned(self) -> list[str]:
        names = ["trunk", "adapt"] if self.config.model.grouping != "shared" else ["trunk"]
        if (
            self.batches.pool is not None
            or self.config.training.feature_matching > 0
            or style_units(self.data, self.config)
        ):
            names.append("classifier")
        if self.config.adversarial.steps:
            names.append("sharpen")
        if wants_flow(self.data, self.config):
            names.append("flow")
        if self.config.model.latent == "discrete":
            names.append("prior")
        return names

    def _stage(
        self,
        name: str,
        steps: int,
        *,
        classes: tuple[int, ...] | None = None,
        adapt: bool = False,
        is_one_class: bool = False,
        rate: float | None = None,
        power: float | None = None,
        share: float | None = None,
    ) -> Stage:
        training = self.config.training
        share = self.shares[name] if share is None else share
        return Stage(
            name,
            steps,
            tuple(range(self.data.n_classes)) if classes is None else classes,
            adapt=adapt,
            is_one_class=is_one_class,
            learning_rate=self._learning_rate(name) if rate is None else rate,
            class_power=training.class_power if power is None else power,
            budget=None if training.budget_seconds is None else share * training.budget_seconds,
            weight_decay=self._weight_decay(name),
        )

    def _learning_rate(self, name: str) -> float:
        training = self.config.training
        if training.learning_rate is not None:
            return training.learning_rate
        is_new = name == "trunk" and self.start is None
        has_style = style_units(self.data, self.config) > 0
        return TRUNK_RATE if is_new and has_style else LEARNING_RATE

    def _weight_decay(self, name: str) -> float:
        training = self.config.training
        if training.weight_decay is not None:
            return training.weight_decay
        if name != "trunk" or self.config.model.network != "conv":
            return WEIGHT_DECAY
        steps = training_steps(self.data, self.config)
        return min(MAX_DECAY, TRUNK_DECAY / (self._learning_rate(name) * steps))

    def _fresh(self, purpose: str, kind, *arguments, **keys):  # type: ignore[no-untyped-def]
        with seeded_torch(mix(self.config.seed, f"weights/{purpose}", 0)):
            return kind(*arguments, **keys).to(self.batches.device)


def check_config(
    data: LabelledImages, config: AugmentConfig, *, for_convolutions: bool = False
) -> None:
    """Reject a job that cannot be trained on this data, before any work is done.

    Args:
        data: The training split.
        config: The job.
        for_convolutions: Whether convolutions will process the samples even if the generator has
            none.

    Raises:
        ConfigError: If parts of the configuration are incompatible with one another, with the data
            or with the available memory.
    """
    model = config.model
    problems = []
    if data.are_features:
        if model.network == "conv":
            problems.append("model.network: expected mlp for feature vectors, got conv")
    elif model.network == "conv" or for_convolutions:
        try:
            Geometry.of(data.image_shape)
        except SizeError as error:
            raise ConfigError(str(error)) from None
    if not model.conditional and model.grouping != "shared":
        problems.append(
            "model.conditional false: a network that never sees the class has nothing to adapt; "
            f"expected model.grouping shared, got {model.grouping}"
        )
    if model.network == "mlp" and model.latent != "vector":
        problems.append(f"model.network mlp: expected model.latent vector, got {model.latent}")
    if model.latent == "discrete":
        problems.extend(_against_codes(data, config))
    if model.convolution == "factorised" and (model.network == "mlp" or len(data.image_shape) != 4):
        problems.append(
            "model.convolution factorised: expected volumes or clips and model.network conv, got "
            f"samples of shape {data.image_shape} and model.network {model.network}"
        )
    if model.network == "mlp" and config.adversarial.steps:
        problems.append("adversarial.steps: expected model.network conv, got mlp")
    unlabelled = data.unlabelled is not None
    if unlabelled and config.semi_supervised.mode == "m2" and model.grouping == "separate":
        problems.append(
            "semi_supervised.mode m2: expected model.grouping adapted or shared, got separate"
        )
    if model.style_dim and (missing := _missing_for_style(data, config)):
        problems.append(
            f"model.style_dim: a style of {model.style_dim} units needs {', '.join(missing)}"
        )
    if model.likelihood == "logistic_mixture" and data.images.dtype != np.uint8:
        problems.append(
            f"model.likelihood logistic_mixture: expected uint8 data, got {data.images.dtype}"
        )
    if problems:
        raise ConfigError("; ".join(problems))
    batch = config.training.batch_size
    available, needed = available_memory(), batch * step_bytes(data, config)
    if available is not None and needed > available:
        raise ConfigError(
            f"training.batch_size: expected a batch that memory can hold, got {batch} samples of "
            f"shape {data.image_shape}, for which a step takes at least {sized(needed)}; "
            f"{sized(available)} are available: --set training.batch_size="
            f"{max(2, batch * available // (2 * needed))}"
        )


def _against_codes(data: LabelledImages, config: AugmentConfig) -> list[str]:
    """What a job asks for that discrete latents do not have."""
    model, m2 = config.model, data.unlabelled is not None and config.semi_supervised.mode == "m2"
    sampler, width = config.recipe.sampler, config.density.width
    needed = {
        f"model.grouping adapted or shared, got {model.grouping}": model.grouping != "separate",
        f"density.kind auto, got {config.density.kind}": config.density.kind == "auto",
        f"density.width a multiple of {HEAD}, got {width}": width % HEAD == 0,
        f"adversarial.steps 0, got {config.adversarial.steps}": not config.adversarial.steps,
        f"model.beta 1, got {model.beta:g}: no KL is minimised": model.beta == 1,
        f"model.free_bits 0, got {model.free_bits:g}": model.free_bits == 0,
        f"no model.capacity, got {model.capacity}": model.capacity is None,
        "semi_supervised.mode pseudo_label, got m2": not m2,
        f"recipe.sampler {', '.join(CODE_SAMPLERS)} or auto, got {sampler}": sampler
        in (*CODE_SAMPLERS, "auto"),
    }
    return [
        f"model.latent discrete: expected {what}" for what, holds in needed.items() if not holds
    ]


def _missing_for_style(data: LabelledImages, config: AugmentConfig) -> list[str]:
    """What a job lacks that a style needs."""
    model, m2 = config.model, data.unlabelled is not None and config.semi_supervised.mode == "m2"
    needed = {
        "model.latent vector": model.latent == "vector",
        "model.network conv": model.network == "conv",
        "model.grouping adapted or shared": model.grouping != "separate",
        "model.conditional true": model.conditional,
        "semi_supervised.mode pseudo_label": not m2,
        "images of two classes or more": np.count_nonzero(data.counts) >= 2,
    }
    return [what for what, holds in needed.items() if not holds]


def step_bytes(data: LabelledImages, config: AugmentConfig) -> int:
    """Return a lower bound of the bytes that a training step holds per sample.

    Args:
        data: The training split.
        config: The job.

    Returns:
        Bytes per sample.
    """
    outputs = make_likelihood(config.model.likelihood).n_outputs
    return STEP_ARRAYS * outputs * 4 * math.prod(data.image_shape)


def _new_model(data: LabelledImages, config: AugmentConfig) -> CVAE | SeparateCVAE:
    settings = config.model
    keys: dict[str, Any] = {
        "network": settings.network,
        "latent": settings.latent,
        "latent_dim": settings.latent_dim,
        "latent_channels": settings.latent_channels,
        "levels": settings.levels,
        "likelihood": settings.likelihood,
        "conditional": settings.conditional,
        "width": settings.width,
        "max_width": settings.max_width,
        "class_embedding": settings.class_embedding,
        "style_dim": style_units(data, config),
        "convolution": convolution_of(data, config),
        "n_codes": settings.codes,
        "prior_width": config.density.width,
        "prior_depth": config.density.depth or PRIOR_DEPTH,
    }
    with seeded_torch(mix(config.seed, "weights", 0)):
        if settings.grouping == "separate":
            return SeparateCVAE.build(data.image_shape, data.n_classes, **keys)
        return CVAE(data.image_shape, data.n_classes, **keys)


def _extended(
    start: CVAE | SeparateCVAE, n_classes: int, known: Mapping[int, int], config: AugmentConfig
) -> CVAE | SeparateCVAE:
    """A model of more classes that is the same for those that it knows."""
    keys: dict[str, Any] = dict(start.architecture)
    image_shape = keys.pop("image_shape")
    del keys["n_classes"]
    model: CVAE | SeparateCVAE
    with seeded_torch(mix(config.seed, "weights/added", 0)), torch.no_grad():
        if isinstance(start, SeparateCVAE):
            model = SeparateCVAE.build(image_shape, n_classes, **keys)
            for label, before in known.items():
                model.of_class(label).load_state_dict(start.of_class(before).state_dict())
            return model
        model = CVAE(image_shape, n_classes, **keys)
        shared = _shared(start)
        for name, tensor in _shared(model).items():
            tensor.copy_(shared[name])
        rows = start.class_parameters()
        now, before_rows = list(known), list(known.values())
        for name, parameter in model.class_parameters().items():
            if model.conditional:
                parameter[now] = rows[name][before_rows].to(parameter.device)
            else:
                parameter.copy_(rows[name])
    return model


def _rows_beside(model: CVAE, labels: tuple[int, ...]) -> dict[str, tuple[Tensor, Tensor]]:
    """By name of class parameters, the rows of all other classes and copies of their values."""
    found = {}
    for name, parameter in model.class_parameters().items():
        is_named = torch.zeros(len(parameter), dtype=torch.bool)
        is_named[list(labels)] = True
        rows = torch.nonzero(~is_named)[:, 0].to(parameter.device)
        found[name] = (rows, parameter.detach()[rows].clone())
    return found


def _start_from(model: CVAE | SeparateCVAE, start: CVAE | SeparateCVAE, where: str) -> None:
    """Copy what all classes share, which needs networks that are alike but for their classes."""
    if not (isinstance(model, CVAE) and isinstance(start, CVAE)):
        raise ConfigError(
            f"training.init {where}: expected generators of model.grouping shared or adapted, got "
            f"{'one' if isinstance(start, CVAE) else 'a start'} of grouping separate"
        )
    differing = [
        f"{key} {value}, got {start.architecture.get(key)}"
        for key, value in model.architecture.items()
        if key != "n_classes" and start.architecture.get(key) != value
    ]
    if differing:
        raise ConfigError(f"training.init {where}: expected {'; '.join(differing)}")
    source = _shared(start)
    with torch.no_grad():
        for name, tensor in _shared(model).items():
            tensor.copy_(source[name])


def _shared(model: CVAE) -> dict[str, torch.Tensor]:
    """What a model holds that does not depend on its classes."""
    buffers = {
        name: buffer for name, buffer in model.named_buffers() if not name.startswith("code_prior.")
    }
    return model.trunk_parameters() | buffers


def convolution_of(data: LabelledImages, config: AugmentConfig) -> str:
    """Return the kind of convolution.

    Args:
        data: The training split.
        config: The job.

    Returns:
        "full" or "factorised".
    """
    if config.model.convolution != "auto":
        return config.model.convolution
    are_volumes = len(data.image_shape) == 4 and config.model.network == "conv"
    return "factorised" if are_volumes else "full"


def _separate_steps(counts: np.ndarray, steps: int) -> list[int]:
    """Return the number of steps of the model of each class.

    In total, they are twice the steps of the trunk, divided in proportion to the square root of the
    counts. The groupings then cost about the same, and the models of rare classes overfit less.
    """
    roots = np.sqrt(counts)
    min_steps = min(250, steps)
    return [max(min_steps, math.ceil(2 * steps * root / roots.sum())) for root in roots]
