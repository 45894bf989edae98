"""Unlabelled images: pseudo-labels by a classifier, or the ELBO summed over all labels (M2)."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.config import AugmentConfig
from vaeaug.memory import blocks
from vaeaug.models import CVAE, SmallClassifier, optimal_log_sigma2
from vaeaug.randomness import seeded_torch
from vaeaug.training._augmentation import augmented, strongly_augmented
from vaeaug.training._batches import Batches
from vaeaug.training._elbo import ElboObjective, as_cvae
from vaeaug.training._scores import by_class, keep_best, mean_finite
from vaeaug.training._state import Stage, StepLoss, TrainState, as_guard

# Largest shift of the images of the classifier, values per axis.
SHIFT = 2
# Images of the pool in a step of the classifier.
UNLABELLED = 192
# How fast the running mean of what is predicted of the pool follows, per step.
PREDICTED_RATE = 0.03
# Maximum number of classes over which the unlabelled ELBO is summed, the most likely ones first.
MAX_ENUMERATED = 10


def _mask(
    shape: torch.Size, device: torch.device, dtype: torch.dtype, kept: float, seed: int
) -> Tensor:
    """Ones where a value is kept, drawn from a generator of its own."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.empty(shape, dtype=dtype, device=device).bernoulli_(kept, generator=generator)


class ClassifierObjective:
    """Cross-entropy of class-balanced labelled images, shifted or under small affine maps.

    Args:
        batches: The data.
        stage: The stage; its class_power should be 0.
    """

    is_repeatable = True
    is_divisible = False  # dropout draws for the batch as a whole
    has_one_loss = True

    def __init__(self, batches: Batches, stage: Stage) -> None:
        self.batches, self.stage = batches, stage

    def trained(self, model: nn.Module) -> Mapping[str, nn.Parameter]:
        """Return all parameters."""
        return dict(model.named_parameters())

    def start(self, state: TrainState) -> None:
        """Score the initial weights."""
        self.evaluate(state, 0.0)

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Compute the cross-entropy with label smoothing."""
        x, y = self.batches.draw(self.stage, step, 128)
        # A judge of styles must not mind how an image is turned; one that labels a pool has to be
        # sure of what is there.
        moved = augmented if self.batches.pool is None else shifted
        with self._seeded(step):
            logits = state.model(moved(self.batches, self.stage.name, step, x))
        loss = F.cross_entropy(logits, y, label_smoothing=0.05)
        accuracy = (logits.detach().argmax(dim=1) == y).float().mean()
        return StepLoss(loss, as_guard(loss), {"accuracy": accuracy})

    def _seeded(self, step: int) -> AbstractContextManager[None]:
        """Make dropout a function of the step."""
        return seeded_torch(
            step,
            masks=lambda values, kept: self.batches.tape.tensor(
                lambda step, _: _mask(values.shape, values.device, values.dtype, kept, step),
                step=step,
            ),
        )

    @torch.no_grad()
    def evaluate(self, state: TrainState, done: float) -> dict[str, float]:
        """Compute the held-out log-likelihood, averaged over classes."""
        images, labels = self.batches.held_out(self.stage)
        logits = class_logits(state.average.eval(), self.batches, images)
        log_p = F.log_softmax(logits, dim=1)[torch.arange(len(labels)), labels]
        score = mean_finite(by_class(log_p, labels, self.batches.n_classes))
        keep_best(state, score)
        right = (logits.argmax(dim=1) == labels).float()
        accuracy = mean_finite(by_class(right, labels, self.batches.n_classes))
        return {"held_out_log_likelihood": score, "held_out_accuracy": accuracy}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing; the training state holds everything."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""


class ConsistencyObjective(ClassifierObjective):
    """FixMatch (Sohn et al. 2020, arXiv:2001.07685): what is sure of an image holds for its views.

    The average of the weights so far predicts the class of a slightly shifted image of the pool;
    where it is sure, the classifier has to say the same of a strongly augmented view. Predictions
    may be aligned with the frequencies of the labelled classes (Berthelot et al. 2020,
    arXiv:1911.09785): a classifier that learns from itself takes hard classes for easy ones
    otherwise, ever more often.

    Args:
        batches: The data, with an unlabelled pool.
        stage: The stage; its class_power should be 0.
        weight: Weight of the unlabelled images.
        threshold: Lowest probability that counts as sure.
        is_aligned: Whether predictions are aligned.
    """

    def __init__(
        self, batches: Batches, stage: Stage, *, weight: float, threshold: float, is_aligned: bool
    ) -> None:
        super().__init__(batches, stage)
        self.weight, self.threshold, self.is_aligned = weight, threshold, is_aligned
        self.frequency = class_frequency(batches)
        # What was predicted of the pool, on average over the last steps; made where it is changed.
        self.predicted: Tensor | None = None

    def start(self, state: TrainState) -> None:
        """Score the initial weights, and begin with the frequencies of the labelled classes."""
        super().start(state)
        self.predicted = self.frequency.clone()

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Add the cross-entropy of unlabelled views to that of the labelled images."""
        labelled = super().loss(state, step, done)
        name = self.stage.name
        x = self.batches.draw_pool(self.stage, step, UNLABELLED)
        with torch.no_grad():
            weak = shifted(self.batches, f"{name}/weak", step, x)
            probability = torch.softmax(state.average.eval()(weak), dim=1)
            if self.is_aligned:
                assert self.predicted is not None
                self.predicted.lerp_(probability.float().mean(dim=0), PREDICTED_RATE)
                probability = aligned(probability, self.predicted, self.frequency)
            sure, y = probability.max(dim=1)
        told = (sure >= self.threshold).float()
        with self._seeded(step):
            logits = state.model(strongly_augmented(self.batches, f"{name}/strong", step, x))
        loss = (told * F.cross_entropy(logits, y, reduction="none")).mean()
        metrics = {"consistency": loss.detach(), "sure": told.mean()}
        return StepLoss(
            labelled.loss + self.weight * loss, labelled.guard, labelled.metrics | metrics
        )

    @torch.no_grad()
    def evaluate(self, state: TrainState, done: float) -> dict[str, float]:
        """Compute the held-out log-likelihood, and keep the latest weights.

        With few labels the held-out images are too few to choose by, and they are surest early.
        """
        metrics = super().evaluate(state, done)
        state.record.best = []
        keep_best(state, done)
        state.record.evaluations_without_gain = 0
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return the mean prediction."""
        assert self.predicted is not None
        return {"predicted": self.predicted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.predicted = state["predicted"].to(self.batches.device).clone()


class M2Objective(ElboObjective):
    """The semi-supervised bound of Kingma et al. 2014 (arXiv:1406.5298), eq. 6 to 9.

    A labelled image contributes its ELBO and the loss of the classifier q(y|x); an unlabelled one
    contributes ``sum_y q(y|x) ELBO(x,y) + H(q(y|x))``.

    Args:
        batches: The data, with an unlabelled pool.
        config: The job.
        stage: The stage of the trunk.
        classifier: q(y|x), trained on the labelled images; its training continues here.
        judge: A classifier for feature matching; None: no feature matching.
    """

    def __init__(
        self,
        batches: Batches,
        config: AugmentConfig,
        stage: Stage,
        classifier: SmallClassifier,
        judge: SmallClassifier | None = None,
    ) -> None:
        super().__init__(batches, config, stage, judge)
        self.classifier = classifier.requires_grad_(True)
        # Log frequencies of the classes, which are assumed to hold for the pool as well.
        counts = torch.tensor([len(rows) for rows in batches.rows], device=batches.device)
        self.log_class = torch.log((counts + 1.0) / (counts + 1.0).sum())

    def trained(self, model: CVAE) -> Mapping[str, nn.Parameter]:
        """Return the trunk of the model and the classifier."""
        parameters = {
            f"classifier.{name}": parameter
            for name, parameter in self.classifier.named_parameters()
        }
        return {**super().trained(model), **parameters}

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Add up the labelled, the unlabelled and the classifier's loss."""
        step_loss = super().loss(state, step, done)
        settings, stage = self.config.semi_supervised, self.stage
        size = self.config.training.batch_size
        x, y = self.batches.draw(stage, step)
        logits = self.classifier(shifted(self.batches, stage.name, step, x))
        supervised = F.cross_entropy(logits, y, label_smoothing=0.05)
        pool = self.batches.draw_pool(stage, step, max(1, round(size * settings.unlabelled_share)))
        # The sigma of the labelled images: averaged over wrong classes too, it would be too large.
        sigma = optimal_log_sigma2(step_loss.guard[:1], x[0].numel())
        unlabelled = self._unlabelled(state, pool, step, done, sigma) / pool[0].numel()
        n_pool = len(pool) / size
        loss = step_loss.loss + n_pool * unlabelled + settings.classifier_weight * supervised
        metrics = {
            **step_loss.metrics,
            "classifier_loss": supervised.detach(),
            "unlabelled_loss": unlabelled.detach(),
        }
        return StepLoss(loss, step_loss.guard, metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return the classifier."""
        return {"classifier": self.classifier.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.classifier.load_state_dict(state["classifier"])

    def _unlabelled(
        self, state: TrainState, x: Tensor, step: int, done: float, log_sigma2: Tensor
    ) -> Tensor:
        model = as_cvae(state.model)
        log_q = F.log_softmax(self.classifier(x), dim=1)
        k = min(MAX_ENUMERATED, log_q.shape[1])
        log_q, classes = log_q.topk(k, dim=1)
        log_q = F.log_softmax(log_q, dim=1)
        terms = self.terms(
            model,
            x.repeat_interleave(k, dim=0),
            classes.flatten(),
            step,
            stream_suffix="/unlabelled",
            log_sigma2=log_sigma2,
        )
        beta, _ = self.kl_cost(state, done)
        negative = terms.reconstruction + beta * terms.kl.sum(dim=1)
        negative = negative.view(len(x), k) - self.log_class[classes]
        return (log_q.exp() * (negative + log_q)).sum(dim=1).mean()


def class_frequency(batches: Batches) -> Tensor:
    """Compute how frequent each class is among the labelled images.

    Args:
        batches: The data.

    Returns:
        Shares of all, (k,).
    """
    counts = [len(rows) for rows in batches.rows]
    frequency = torch.tensor(counts, dtype=torch.float32, device=batches.device)
    return frequency / frequency.sum()


def aligned(probability: Tensor, predicted: Tensor, frequency: Tensor) -> Tensor:
    """Correct predictions for classes that are predicted more or less often than they occur.

    Args:
        probability: Of each class, (n, k).
        predicted: Mean prediction, (k,).
        frequency: Share of each class, (k,).

    Returns:
        Probabilities, (n, k).
    """
    weighted = probability * (frequency / predicted.clamp(min=1e-6))
    return weighted / weighted.sum(dim=1, keepdim=True)


def pseudo_labels(
    classifier: nn.Module, batches: Batches, threshold: float, *, is_aligned: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Label the images of the pool of whose class the classifier is certain.

    Args:
        classifier: Images to logits (n, k).
        batches: The data, with an unlabelled pool.
        threshold: Lowest probability of the most likely class.
        is_aligned: Whether the pool's classes are as frequent as the labelled ones.

    Returns:
        Row numbers of the pool and their class indices, (m,) each.
    """
    assert batches.pool is not None
    probability = torch.softmax(class_logits(classifier.eval(), batches, batches.pool), dim=1)
    if is_aligned:
        probability = probability.float()
        probability = aligned(probability, probability.mean(dim=0), class_frequency(batches))
    top, label = probability.max(dim=1)
    rows = torch.nonzero(top >= threshold).squeeze(1)
    return rows.cpu().numpy(), label[rows].cpu().numpy()


@torch.no_grad()
def class_logits(classifier: nn.Module, batches: Batches, images: Tensor) -> Tensor:
    """Compute the logits of stored images, block by block.

    Args:
        classifier: Images to logits (n, k).
        batches: Scales the images.
        images: Images as stored, (n, *space, c).

    Returns:
        Logits, (n, k).
    """
    return torch.cat(
        [
            classifier(batches.scale(images[rows]))
            for rows in blocks(len(images), images[:1].numel(), 512)
        ]
    )


def shifted(batches: Batches, name: str, step: int, x: Tensor) -> Tensor:
    """Shift every image by up to `SHIFT` values along each axis, independently; edges are repeated.

    Args:
        batches: Draws the shifts.
        name: Name of the stage.
        step: Number of the step.
        x: Images, (n, c, *space).

    Returns:
        The shifted images, of the same shape.
    """
    rank, n = x.ndim - 2, len(x)
    draws = batches.uniform(f"{name}/shift", step, (n, rank))
    shift = (draws * (2 * SHIFT + 1)).long() - SHIFT
    for axis in range(rank):
        size = x.shape[2 + axis]
        index = torch.arange(size, device=x.device)[None] + shift[:, axis : axis + 1]
        index = index.clamp(0, size - 1)
        shape = [n, 1] + [1] * rank
        shape[2 + axis] = size
        x = torch.gather(x, 2 + axis, index.view(shape).expand_as(x))
    return x
