"""Held-out ELBO, the best weights by it, and what is set in closed form: sigma and the priors."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vaeaug.models import CVAE, MIN_SIGMA, ElboTerms
from vaeaug.training._batches import Batches
from vaeaug.training._state import Stage, Trainee

# Images that sigma and the priors are fitted to.
SIGMA_IMAGES = 1024
PRIOR_IMAGES = 4096
# Weight of the standard normal in a class's prior, in images: a rare class's own moments are noise.
PRIOR_WEIGHT = 10.0


@torch.no_grad()
def evaluate(batches: Batches, stage: Stage, trainee: Trainee) -> dict[str, float]:
    """Score the averaged weights and keep the best: as a whole, or class by class while adapting.

    A class keeps its own parameters where they were best for its own held-out images; one without
    held-out images keeps those it started with.
    """
    average, state = trainee.average.eval(), trainee.state
    if not stage.adapt:
        calibrate_sigma(batches, stage, average)
    elbo, labels = _held_out_elbo(batches, stage, average)
    scores = [float(elbo.mean())]
    if stage.adapt:
        own = [elbo[labels == label] for label in range(average.n_classes)]
        scores = [float(each.mean()) if len(each) else -math.inf for each in own]
    if not state.best:
        state.first = scores
        state.best = [-math.inf] * len(scores)
    better = [now > best for now, best in zip(scores, state.best, strict=True)]
    # Not max(): a score that is not a number must neither win nor be kept.
    state.best = [
        now if gained else best
        for now, best, gained in zip(scores, state.best, better, strict=True)
    ]
    state.evaluations_without_gain = 0 if any(better) else state.evaluations_without_gain + 1
    if stage.adapt:
        rows = [label for label, gained in enumerate(better) if gained]
        for name, parameter in average.class_parameters().items():
            trainee.best[name][rows] = parameter[rows]
    elif better[0]:
        trainee.best = {name: each.clone() for name, each in average.state_dict().items()}
    return {"held_out_elbo": mean_finite(scores)}


def calibrate_sigma(batches: Batches, stage: Stage, model: CVAE) -> None:
    """Set the decoder's sigma to its optimum for a fixed sample of the training images."""
    images, labels = batches.of_classes(stage, SIGMA_IMAGES)
    errors = [each.squared_error for each in _terms(batches, model, images, labels, "sigma")]
    mean_square = float(torch.cat(errors).double().mean()) / images[0].numel()
    model.log_sigma2.fill_(math.log(max(mean_square, MIN_SIGMA**2)))


@torch.no_grad()
def match_priors(batches: Batches, model: CVAE) -> None:
    """Start each class's prior at the normal nearest in KL to its aggregate posterior."""
    model.eval()
    for label, rows in enumerate(batches.rows):
        if len(rows) < 2:
            continue
        index = torch.from_numpy(rows[:PRIOR_IMAGES]).to(batches.device)
        means, variances = [], []
        for block in batches.images[index].split(512):
            y = torch.full((len(block),), label, device=batches.device)
            mean, logvar = model.posterior(batches.scale(block), y)
            means.append(mean)
            variances.append(logvar.exp())
        mean, variance = torch.cat(means), torch.cat(variances)
        share = len(mean) / (len(mean) + PRIOR_WEIGHT)
        spread = variance.mean(dim=0) + mean.var(dim=0, correction=0)
        model.prior_mean.weight[label] = share * mean.mean(dim=0)
        model.prior_logvar.weight[label] = (share * spread + (1 - share)).log()


def mean_finite(scores: list[float]) -> float:
    """Mean over the classes that have a score."""
    finite = [score for score in scores if math.isfinite(score)]
    return sum(finite) / len(finite) if finite else math.nan


def _held_out_elbo(batches: Batches, stage: Stage, model: CVAE) -> tuple[Tensor, Tensor]:
    images, labels = batches.held_out(stage)
    scores = [each.elbo for each in _terms(batches, model, images, labels, "held-out")]
    return torch.cat(scores), labels


def _terms(
    batches: Batches, model: CVAE, images: Tensor, labels: Tensor, purpose: str
) -> Iterator[ElboTerms]:
    for start in range(0, len(images), 512):
        block, y = images[start : start + 512], labels[start : start + 512]
        noise = batches.noise(purpose, start, (len(block), model.latent_dim))
        with batches.precision():
            yield model.elbo(batches.scale(block), y, noise=noise)
