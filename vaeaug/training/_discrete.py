"""The objectives of discrete latents: first the codebook and its network, then the prior."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.config import AugmentConfig
from vaeaug.memory import blocks
from vaeaug.models import CVAE, CodePrior, in_order, optimal_log_sigma2, perplexity, random_order
from vaeaug.training._batches import Batches
from vaeaug.training._elbo import ElboObjective, as_cvae, calibrate_sigma, held_out_terms
from vaeaug.training._scores import keep_best
from vaeaug.training._state import Stage, StepLoss, TrainState, as_guard

# Maximum number of images whose features the codes start at.
START_IMAGES = 1024


class CodebookObjective(ElboObjective):
    """Minus the likelihood per value and the commitment to codes (van den Oord et al. 2017, eq. 3).

    The gradient passes the codes straight through. The codes themselves have none: they move to the
    means of their features.
    """

    def start(self, state: TrainState) -> None:
        """Place the codes at features of training images, and score the initial weights."""
        model = as_cvae(state.model)
        if not self.stage.adapt:
            assert model.codebook is not None
            images, labels = self.batches.of_classes(self.stage, START_IMAGES)
            with torch.no_grad():
                features = [
                    model.features(self.batches.scale(images[rows]), labels[rows])
                    for rows in blocks(len(images), images[:1].numel(), 512)
                ]
                cells = model.by_cell(torch.cat(features))
            picks = self.batches.uniform(f"{self.stage.name}/codes", 0, (model.codebook.n_codes,))
            model.codebook.start(cells, picks)
            self._follow(state)
        super().start(state)

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Reconstruct a batch through its codes, and move the codes."""
        model = as_cvae(state.model)
        assert model.codebook is not None
        x, y = self.batches.draw(self.stage, step)
        features = model.features(self.encoder_input(x, self.stage.name, step), y)
        codes = model.codes_at(features.detach())
        z = model.latents_of(codes)
        raw = model.generate_from(features + (z - features).detach(), y).raw
        mean = model.likelihood.mean(raw)
        squared_error = (x - mean).square().flatten(1).sum(dim=1)
        log_sigma2 = self.sigma(state, done)
        if log_sigma2 is None and not self.stage.adapt:
            log_sigma2 = optimal_log_sigma2(squared_error, x[0].numel())
        reconstruction = -model.likelihood.log_prob(raw, x, log_sigma2).mean()
        # Relative to the codes' own variance: their scale is the encoder's to choose.
        commitment = F.mse_loss(features, z) / model.codebook.codes.var().clamp(min=1e-6)
        loss = reconstruction / x[0].numel() + self.config.model.commitment * commitment
        if self.judge is not None:
            loss = loss + self.feature_loss(self.judge, x, mean) / x[0].numel()
        if not self.stage.adapt:
            picks = self.batches.uniform(
                f"{self.stage.name}/codes", step + 1, (model.codebook.n_codes,)
            )
            model.codebook.update(model.by_cell(features.detach()), codes.flatten(), picks)
            self._follow(state)
        error = squared_error.detach().mean()
        metrics = {
            "reconstruction": reconstruction.detach(),
            "commitment": commitment.detach(),
            "mean_squared_error": error / x[0].numel(),
        }
        return StepLoss(loss, as_guard(error), metrics)

    @torch.no_grad()
    def evaluate(self, state: TrainState, done: float) -> dict[str, float]:
        """Compute the held-out ELBO under equally likely codes, and how the codes are used."""
        if self.stage.adapt:
            return super().evaluate(state, done)
        model = as_cvae(state.average.eval())
        assert model.codebook is not None
        calibrate_sigma(self.batches, self.stage, model)
        images, labels = self.batches.held_out(self.stage)
        elbo, _ = held_out_terms(self.batches, model, images, labels)
        keep_best(state, float(elbo.mean()))
        uses = code_uses(self.batches, model, images, labels)
        return {
            "held_out_elbo": float(elbo.mean()),
            "codes_used": float((uses > 0).sum()),
            "perplexity": perplexity(uses),
        }

    def _follow(self, state: TrainState) -> None:
        codebook = as_cvae(state.model).codebook
        average = as_cvae(state.average).codebook
        assert codebook is not None
        assert average is not None
        average.follow(codebook)


class CodePriorObjective:
    """Minus the log probability of the codes of images, per code.

    Half of the rows have their cells in order, as whole grids are drawn, which is learned sooner;
    the others in random orders, as parts of grids are.

    Args:
        batches: The data.
        config: The job.
        stage: The stage of the prior.
        model: The trained model; it encodes the images once.
    """

    is_repeatable = True
    is_divisible = True
    has_one_loss = True

    def __init__(self, batches: Batches, config: AugmentConfig, stage: Stage, model: CVAE) -> None:
        self.batches, self.config, self.stage = batches, config, stage
        self.codes = codes_of(batches, model, batches.images, batches.labels)
        held_out, self.held_labels = batches.held_out(stage)
        self.held_codes = codes_of(batches, model, held_out, self.held_labels)

    def trained(self, model: CVAE) -> Mapping[str, nn.Parameter]:
        """Return the parameters of the prior."""
        return {
            name: parameter
            for name, parameter in model.named_parameters()
            if name.startswith("code_prior.")
        }

    def start(self, state: TrainState) -> None:
        """Score the initial weights."""
        self.evaluate(state, 0.0)
        for model in (state.model, state.average):
            _prior(model).is_trained.fill_(True)

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Compute the mean over a batch and its codes."""
        rows = self.batches.rows_of(self.stage, step)
        loss = self._nats(
            _prior(state.model),
            self.codes[rows],
            self.batches.labels_of(rows),
            stream=(self.stage.name, step),
        ).mean()
        return StepLoss(loss, as_guard(loss), {})

    @torch.no_grad()
    def evaluate(self, state: TrainState, done: float) -> dict[str, float]:
        """Compute the same of held-out images, half of them in order."""
        prior = _prior(state.average.eval())
        parts = [
            self._nats(
                prior,
                self.held_codes[rows],
                self.held_labels[rows],
                stream=(f"{self.stage.name}/held-out", rows.start),
            )
            for rows in blocks(len(self.held_codes), self.held_codes.shape[1], 256)
        ]
        nats = float(torch.cat(parts).mean())
        keep_best(state, -nats)
        return {"held_out_nats_per_code": nats}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing; the training state holds everything."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""

    def _nats(
        self, prior: CodePrior, codes: Tensor, y: Tensor, *, stream: tuple[str, int]
    ) -> Tensor:
        """Nats per code of each row; `stream` names the random numbers of the orders."""
        order = random_order(self.batches.uniform(*stream, tuple(codes.shape)))
        order[: len(order) // 2] = in_order(order[: len(order) // 2])
        with self.batches.precision():
            return -prior.log_prob(codes.long(), y, order).mean(dim=1)


@torch.no_grad()
def codes_of(batches: Batches, model: CVAE, images: Tensor, labels: Tensor) -> Tensor:
    """Encode stored images, block by block.

    Args:
        batches: Scales the images.
        model: A model with a codebook.
        images: Images as stored, (n, *space, c).
        labels: Class indices, (n,).

    Returns:
        Indices of codes, int16, (n, cells).
    """
    parts = [
        model.codes_at(model.features(batches.scale(images[rows]), labels[rows])).short()
        for rows in blocks(len(images), images[:1].numel(), 512)
    ]
    return torch.cat(parts)


def code_uses(batches: Batches, model: CVAE, images: Tensor, labels: Tensor) -> Tensor:
    """Count how often stored images use each code.

    Args:
        batches: Scales the images.
        model: A model with a codebook.
        images: Images as stored, (n, *space, c).
        labels: Class indices, (n,).

    Returns:
        A count for each code, (k,).
    """
    assert model.codebook is not None
    codes = codes_of(batches, model, images, labels).flatten().long()
    return torch.bincount(codes, minlength=model.codebook.n_codes)


def _prior(module: nn.Module) -> CodePrior:
    prior = as_cvae(module).code_prior
    assert prior is not None
    return prior
