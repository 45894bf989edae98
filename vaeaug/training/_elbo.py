"""The objective of the VAE, its closed-form parameters (sigma, priors), and posterior collapse."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vaeaug.config import AugmentConfig
from vaeaug.memory import blocks
from vaeaug.models import (
    CVAE,
    MIN_SIGMA,
    ElboTerms,
    SmallClassifier,
    feature_distance,
)
from vaeaug.training._batches import Batches
from vaeaug.training._scores import by_class, keep_best, keep_best_rows, mean_finite
from vaeaug.training._state import Stage, StepLoss, TrainState, as_guard

# Maximum number of images to which sigma and the prior of a class are fitted.
SIGMA_IMAGES = 1024
PRIOR_IMAGES = 4096
# Weight of the standard normal in the prior of a class, in images: the moments of a rare class are
# noisy.
PRIOR_WEIGHT = 10.0
# A unit is active when its posterior mean varies by more than this over the data (Burda et al.
# 2016, arXiv:1509.00519).
ACTIVE_VARIANCE = 0.01
# Collapse is checked between these fractions of a stage; earlier, units are still becoming active.
RESCUE_FROM, RESCUE_UNTIL = 0.2, 0.8
# A smaller fraction of active units than this is a collapse.
COLLAPSED = 0.1
# The target of the KL grows over this fraction of the steps.
CAPACITY_WARMUP = 0.5
# The factor of beta is not lowered further than this.
LOWEST_FACTOR = 1 / 64


class ElboObjective:
    """Minus the ELBO per value, for the trunk or for the parameters of single classes.

    Args:
        batches: The data.
        config: The job.
        stage: The stage; it names the classes and says whether they are being adapted.
        judge: A classifier of the real images, for feature matching; None: no feature matching.
    """

    is_repeatable = True
    is_divisible = True
    has_one_loss = True

    def __init__(
        self,
        batches: Batches,
        config: AugmentConfig,
        stage: Stage,
        judge: SmallClassifier | None = None,
    ) -> None:
        self.batches, self.config, self.stage = batches, config, stage
        self.judge = judge if config.training.feature_matching > 0 else None
        if self.judge is not None:
            self.judge.requires_grad_(False)

    def trained(self, model: CVAE) -> Mapping[str, nn.Parameter]:
        """Return the trunk and the embedding; FiLM rows and priors are left to the adaptation."""
        if self.stage.adapt:
            adapted = model.class_parameters()
            if model.style_dim:  # then an embedding is the mean content code of its class
                del adapted["embedding.weight"]
            return adapted
        trained = model.trunk_parameters()
        trained["embedding.weight"] = model.class_parameters()["embedding.weight"]
        return trained

    def start(self, state: TrainState) -> None:
        """Score the initial weights, so that an adaptation can only improve on them."""
        self.evaluate(state, 0.0)

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Estimate the ELBO of a batch from one latent per sample."""
        model = as_cvae(state.model)
        x, y = self.batches.draw(self.stage, step)
        terms = self.terms(model, x, y, step, log_sigma2=self.sigma(state, done))
        loss = self.reduce(terms, state, done)
        if self.judge is not None:
            loss = loss + self.feature_loss(self.judge, x, terms.mean)
        error = terms.squared_error.detach().mean()
        kl = terms.kl.detach().sum(dim=1).mean()
        metrics = {
            "reconstruction": terms.reconstruction.detach().mean(),
            "kl": kl,
            "mean_squared_error": error / x[0].numel(),
        }
        # Per value, so that one clipping norm suits samples of every size; Adam is scale-invariant.
        return StepLoss(loss / x[0].numel(), as_guard(error, kl), metrics)

    def terms(
        self,
        model: CVAE,
        x: Tensor,
        y: Tensor,
        step: int,
        *,
        stream_suffix: str = "",
        log_sigma2: Tensor | None = None,
    ) -> ElboTerms:
        """Compute the ELBO terms of a batch; the encoder's input is corrupted when denoising.

        Args:
            model: The model.
            x: Samples scaled to [0, 1], (n, c, *space).
            y: Class indices, (n,).
            step: Number of the step.
            stream_suffix: Appended to the name of the stage to name the random stream.
            log_sigma2: Log variance of the likelihood; None: the optimal one of the batch, or the
                calibrated one while the classes adapt.

        Returns:
            The terms of the ELBO.
        """
        name = f"{self.stage.name}{stream_suffix}"
        noise = self.batches.noise(name, step, (len(x), model.latent_dim))
        encoder_input = self.encoder_input(x, name, step)
        # The sigma belongs to the trunk and does not change while the classes adapt.
        optimal = not self.stage.adapt and log_sigma2 is None
        return model.elbo(
            encoder_input, y, noise=noise, optimal_sigma=optimal, log_sigma2=log_sigma2, target=x
        )

    def encoder_input(self, x: Tensor, name: str, step: int) -> Tensor:
        """Corrupt samples for the encoder when denoising.

        Args:
            x: Samples scaled to [0, 1], (n, c, *space).
            name: Name of the random stream.
            step: Number of the step.

        Returns:
            The samples with noise, or as they are.
        """
        level = self.config.training.denoise
        if level == 0:
            return x
        return x + level * self.batches.noise(f"{name}/corrupt", step, tuple(x.shape))

    def feature_loss(self, judge: SmallClassifier, x: Tensor, mean: Tensor) -> Tensor:
        """Weigh the distance of samples and their reconstructions in the features of the judge.

        Args:
            judge: The classifier.
            x: Samples scaled to [0, 1], (n, c, *space).
            mean: Their reconstructions.

        Returns:
            The loss, nats per sample.
        """
        weight = self.config.training.feature_matching * x[0].numel()
        return weight * feature_distance([judge.features(x)], [judge.features(mean)])

    def reduce(self, terms: ElboTerms, state: TrainState, done: float) -> Tensor:
        """Average the loss, with the warm-up of beta and the adjustment after a collapse.

        Args:
            terms: The terms of the ELBO of a batch.
            state: The training state.
            done: Completed fraction of the stage.

        Returns:
            The loss, nats per sample.
        """
        if (capacity := self.config.model.capacity) is not None and not self.stage.adapt:
            kl = terms.kl.sum(dim=1).mean()
            return terms.loss(beta=0.0) + self.deviation(kl, capacity, done)
        beta, free_bits = self.kl_cost(state, done)
        return terms.loss(beta=beta, free_bits=free_bits)

    def kl_cost(self, state: TrainState, done: float) -> tuple[float | Tensor, float]:
        """Return the weight of the KL and its free bits, with the adjustment after a collapse.

        Args:
            state: The training state.
            done: Completed fraction of the stage.

        Returns:
            The weight, and nats per unit.
        """
        model, record, tape = self.config.model, state.record, self.batches.tape
        beta = tape.number(
            lambda _, done: model.beta * record.collapse_adjustment[0] * self._kl_weight(done),
            done=done,
        )
        return beta, tape.constant(lambda *_: max(model.free_bits, record.collapse_adjustment[1]))

    def deviation(self, kl: Tensor, capacity: float, done: float) -> Tensor:
        """Penalise the deviation of the KL from its target (Burgess et al. 2018, arXiv:1804.03599).

        Args:
            kl: KL of a batch, nats per sample.
            capacity: The target at the end.
            done: Completed fraction of the stage; the target grows over its first half.

        Returns:
            The penalty, nats per sample.
        """
        target = self.batches.tape.number(
            lambda _, done: capacity * min(1.0, done / CAPACITY_WARMUP), done=done
        )
        return self.config.model.capacity_weight * (kl - target).abs()

    def sigma(self, state: TrainState, done: float) -> Tensor | None:
        """Return the sigma of the second of two stages.

        Args:
            state: The training state, whose average model is calibrated at every evaluation.
            done: Completed fraction of the stage.

        Returns:
            Log variance of the likelihood; None while it is optimal for each batch.
        """
        since, record = self.config.training.fixed_sigma_from, state.record
        if self.batches.tape.constant(lambda _, done: done < since or not record.latest, done=done):
            return None
        return as_cvae(state.average).likelihood.log_sigma2

    @torch.no_grad()
    def evaluate(self, state: TrainState, done: float) -> dict[str, float]:
        """Compute the held-out ELBO: over all images, or for each class while adapting."""
        model = as_cvae(state.average.eval())
        if not self.stage.adapt:
            calibrate_sigma(self.batches, self.stage, model)
        images, labels = self.batches.held_out(self.stage)
        elbo, kl = held_out_terms(self.batches, model, images, labels)
        if self.stage.adapt:
            scores = by_class(elbo, labels, model.n_classes)
            keep_best_rows(state, scores)
            return {"held_out_elbo": mean_finite(scores)}
        keep_best(state, float(elbo.mean()))
        active = active_units(self.batches, model, images, labels)
        metrics = {
            "held_out_elbo": float(elbo.mean()),
            "held_out_kl": float(kl.sum(dim=1).mean()),
            "active_units": float(active.sum()),
        }
        if self.config.training.rescue and RESCUE_FROM <= done < RESCUE_UNTIL:
            self._rescue(state, active, done)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return nothing; the training state holds everything."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""

    def _kl_weight(self, done: float) -> float:
        warmup = self.config.training.kl_warmup
        if self.stage.adapt or warmup == 0:
            return 1.0
        cycles = self.config.training.kl_cycles
        now = min(1.0, done + 1 / self.stage.steps)
        # The last cycle ends at the full weight.
        within = 1.0 if now == 1 else cycles * now % 1
        return min(1.0, within / warmup)

    def _asked_for(self) -> str:
        """The weight of the KL that the job asks for; "" where it leaves it to the default."""
        model = self.config.model
        if model.capacity is not None:
            return f"model.capacity {model.capacity:g}"
        default = type(model).model_fields["beta"].default
        return "" if model.beta == default else f"model.beta {model.beta:g}"

    def _rescue(self, state: TrainState, active: Tensor, done: float) -> None:
        record = state.record
        factor, floor = record.collapse_adjustment
        if float(active.float().mean()) >= COLLAPSED or factor <= LOWEST_FACTOR:
            return
        if asked := self._asked_for():
            note = (
                f"posterior collapse: {int(active.sum())} of {len(active)} latent units were "
                f"active at {done:.0%} of stage {self.stage.name!r}; {asked} was asked for and is "
                "kept"
            )
            if not any(other.startswith("posterior collapse") for other in record.notes):
                record.notes.append(note)
            return
        record.collapse_adjustment = [factor / 4, max(2 * floor, 0.02)]
        # Scores under the larger weight of the KL are not comparable with later ones.
        record.best, record.evaluations_without_gain = [], 0
        record.notes.append(
            f"posterior collapse: {int(active.sum())} of {len(active)} latent units were active at "
            f"{done:.0%} of stage {self.stage.name!r}; beta was lowered to "
            f"{self.config.model.beta * factor / 4:g} and free bits raised to "
            f"{max(self.config.model.free_bits, record.collapse_adjustment[1]):g} nats"
        )


@torch.no_grad()
def calibrate_sigma(batches: Batches, stage: Stage, model: CVAE) -> None:
    """Set the sigma of the decoder to its optimum for a fixed sample of the training images.

    Args:
        batches: The data.
        stage: The stage; it names the classes.
        model: The model to change.
    """
    images, labels = batches.of_classes(stage, SIGMA_IMAGES)
    errors = [terms.squared_error for terms in _terms(batches, model, images, labels, "sigma")]
    mean_square = float(torch.cat(errors).double().mean()) / images[0].numel()
    model.likelihood.log_sigma2.fill_(math.log(max(mean_square, MIN_SIGMA**2)))


@torch.no_grad()
def match_priors(batches: Batches, model: CVAE) -> None:
    """Set the prior of each class to the normal nearest in KL to its aggregate posterior.

    The moments of the aggregate posterior are shrunk towards those of a standard normal.

    Args:
        batches: The data.
        model: The model to change.
    """
    if model.is_discrete:  # its prior has a stage of its own
        return
    model.eval()
    size = model.groups[0].size
    for label, rows in enumerate(batches.rows):
        if len(rows) < 2:
            continue
        index = torch.from_numpy(rows[:PRIOR_IMAGES]).to(batches.device)
        y = torch.full((len(index),), label, device=batches.device)
        mean, logvar = encode(batches, model, batches.stored(index), y)
        mean, variance = mean[:, :size], logvar[:, :size].exp()
        share = len(mean) / (len(mean) + PRIOR_WEIGHT)
        spread = variance.mean(dim=0) + mean.var(dim=0, correction=0)
        model.prior_mean.weight[label] = share * mean.mean(dim=0)
        model.prior_logvar.weight[label] = (share * spread + (1 - share)).log()


@torch.no_grad()
def encode(batches: Batches, model: Any, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the posteriors of stored images, block by block.

    Args:
        batches: Scales the images.
        model: A model with `posterior`.
        images: Images as stored, (n, *space, c).
        labels: Class indices, (n,).

    Returns:
        Means and log variances, (n, z) each.
    """
    shape = (len(images), model.latent_dim)
    means, logvars = (
        torch.empty(shape, dtype=torch.float32, device=labels.device) for _ in range(2)
    )
    for rows in blocks(len(images), images[:1].numel(), 512):
        means[rows], logvars[rows] = model.posterior(batches.scale(images[rows]), labels[rows])
    return means, logvars


def active_units(batches: Batches, model: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Determine the units whose posterior means vary over these images.

    Args:
        batches: Scales the images.
        model: A model with `posterior`.
        images: Images as stored, (n, *space, c).
        labels: Class indices, (n,).

    Returns:
        Whether each unit is active, (z,).
    """
    means, _ = encode(batches, model, images, labels)
    return means.var(dim=0, correction=0) > ACTIVE_VARIANCE


def held_out_terms(
    batches: Batches, model: Any, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the ELBO per image, and the KL per image and unit.

    Args:
        batches: Scales the images and draws the noise.
        model: A model with `elbo`.
        images: Images as stored, (n, *space, c).
        labels: Class indices, (n,).

    Returns:
        ELBO, (n,), and KL, (n, z), in nats.
    """
    parts = [(terms.elbo, terms.kl) for terms in _terms(batches, model, images, labels, "held-out")]
    elbos, kls = zip(*parts, strict=True)
    return torch.cat(elbos), torch.cat(kls)


@torch.no_grad()
def _terms(
    batches: Batches, model: Any, images: Tensor, labels: Tensor, purpose: str
) -> Iterator[ElboTerms]:
    for rows in blocks(len(images), images[:1].numel(), 512):
        block, y = images[rows], labels[rows]
        noise = batches.noise(purpose, rows.start, (len(block), model.latent_dim))
        with batches.precision():
            yield model.elbo(batches.scale(block), y, noise=noise)


def as_cvae(module: nn.Module) -> CVAE:
    """Narrow the type of a module to the model that the stages of the VAE train.

    Args:
        module: A `CVAE`.

    Returns:
        The same module.
    """
    assert isinstance(module, CVAE)
    return module
