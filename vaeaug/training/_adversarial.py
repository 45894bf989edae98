"""VAE-GAN: the decoder of a trained VAE is sharpened against a discriminator.

Larsen et al. 2016 (arXiv:1512.09300), stabilised by later techniques: a warm start from the trained
VAE, spectral normalisation, a gradient penalty on real images (Mescheder et al. 2018,
arXiv:1801.04406), and an adversarial weight set by the ratio of gradients at the last layer (Esser
et al. 2021, arXiv:2012.09841, eq. 7).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.config import AugmentConfig
from vaeaug.memory import blocks
from vaeaug.models import CVAE, Discriminator, feature_distance
from vaeaug.training._batches import Batches
from vaeaug.training._elbo import as_cvae, calibrate_sigma, encode, held_out_terms
from vaeaug.training._scores import keep_best
from vaeaug.training._state import Stage, StepLoss, TrainState, as_guard
from vaeaug.training.optimisers import Adam

# The gradient penalty is computed every `PENALTY_EVERY` steps, with a weight multiplied by as much.
PENALTY_EVERY = 8
# Fraction of the stage in which only the discriminator is trained.
HEAD_START = 0.1
# An error beyond this multiple of the initial error means that the decoder no longer fits its
# latents.
WORST_ERROR = 2.0
# Upper bound of the adaptive weight, which a vanishing adversarial gradient would make explode.
MAX_WEIGHT = 100.0


class AdversarialObjective:
    """The likelihood of pixels and of discriminator features, plus the adversarial loss.

    The encoder is not trained, so that latents and their densities keep their meaning. The
    discriminator sees reconstructions and decoded latents between two images of a class, because
    samples are drawn from there.

    Args:
        batches: The data.
        config: The job.
        stage: The stage; it names the classes.
        discriminator: The discriminator, which is trained along with the decoder.
    """

    is_repeatable = False  # the discriminator is penalised now and then
    is_divisible = False  # it has an optimiser of its own
    has_one_loss = False  # the discriminator has another

    def __init__(
        self, batches: Batches, config: AugmentConfig, stage: Stage, discriminator: Discriminator
    ) -> None:
        self.batches, self.config, self.stage = batches, config, stage
        self.settings = config.adversarial
        self.discriminator = discriminator
        self.optimiser = Adam(
            discriminator.parameters(), lr=self.settings.learning_rate, betas=(0.0, 0.99)
        )
        self.weight = self.settings.weight
        self.first_error = 0.0

    def trained(self, model: CVAE) -> Mapping[str, nn.Parameter]:
        """Return the decoder without the parameters that belong to one class alone."""
        return {
            name: parameter
            for name, parameter in model.named_parameters()
            if name.startswith("decoder.") and ".rows." not in name and ".prior_heads." not in name
        }

    def start(self, state: TrainState) -> None:
        """Record the error of the warm start."""
        self.first_error = self._error(state.model.eval())

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Train the discriminator for one step, then compute the loss of the decoder."""
        model = as_cvae(state.model)
        x, y = self.batches.draw(self.stage, step)
        with torch.no_grad():
            mean, logvar = model.posterior(x, y)
        noise = self.batches.noise(self.stage.name, step, tuple(mean.shape))
        z = mean + torch.exp(0.5 * logvar) * noise
        decoded = model.generate(z, y)
        reconstruction = model.likelihood.mean(decoded.raw)
        between = self._between(mean, y, step)
        drawn = model.decode(between, y)
        self._train_discriminator(x, y, reconstruction.detach(), drawn.detach(), step)

        n_values = x[0].numel()
        pixels = -model.likelihood.log_prob(decoded.raw, x).mean() / n_values
        self.discriminator.requires_grad_(False)
        with torch.no_grad():
            _, real = self.discriminator(x, y)
        score, features = self.discriminator(reconstruction, y)
        score_drawn, _ = self.discriminator(drawn, y)
        self.discriminator.requires_grad_(True)
        likeness = self.settings.features * feature_distance(real, features)
        likelihood = pixels + likeness
        adversarial = -0.5 * (score.mean() + score_drawn.mean())
        last_layer = model.decoder.last_layer
        weight = (
            self._adaptive_weight(likelihood, adversarial, last_layer) if done > HEAD_START else 0.0
        )
        error = (reconstruction.detach() - x).square().flatten(1).sum(dim=1).mean()
        metrics = {
            "mean_squared_error": error / n_values,
            "feature_distance": likeness.detach(),
            "adversarial": adversarial.detach(),
            "adversarial_weight": torch.as_tensor(weight, device=x.device),
        }
        return StepLoss(likelihood + weight * adversarial, as_guard(error), metrics)

    @torch.no_grad()
    def evaluate(self, state: TrainState, done: float) -> dict[str, float]:
        """Keep the latest weights, unless the decoder no longer fits its latents."""
        error = self._error(state.average.eval())
        calibrate_sigma(self.batches, self.stage, as_cvae(state.average))
        record = state.record
        if error > WORST_ERROR * self.first_error:
            state.model.load_state_dict(state.best)
            state.average.load_state_dict(state.best)
            self.weight /= 2
            record.notes.append(
                f"adversarial training drifted at {done:.0%}: held-out error {error:.4g} per value "
                f"against {self.first_error:.4g} at its start; the last good weights were restored "
                f"and adversarial.weight was lowered to {self.weight:g}"
            )
            keep_best(state, -1.0)
        else:
            keep_best(state, done)
        images, labels = self.batches.held_out(self.stage)
        elbo, _ = held_out_terms(self.batches, state.average, images, labels)
        return {"held_out_elbo": float(elbo.mean()), "held_out_error": error}

    def state_dict(self) -> dict[str, Any]:
        """Return the discriminator, its optimiser and the adversarial weight."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "weight": self.weight,
            "first_error": self.first_error,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.weight, self.first_error = state["weight"], state["first_error"]

    def _between(self, mean: Tensor, y: Tensor, step: int) -> Tensor:
        """Interpolate each row's latents with those of a random row of the same class.

        The latents of a row that is alone in its class stay unchanged.
        """
        same = y[:, None] == y[None, :]
        draws = self.batches.uniform(f"{self.stage.name}/partner", step, tuple(same.shape))
        partner = (draws * same).argmax(dim=1)
        share = self.batches.uniform(f"{self.stage.name}/share", step, (len(y), 1))
        return torch.lerp(mean, mean[partner], share)

    def _train_discriminator(
        self, x: Tensor, y: Tensor, reconstruction: Tensor, drawn: Tensor, step: int
    ) -> None:
        self.discriminator.train()
        penalised = self.settings.r1 > 0 and step % PENALTY_EVERY == 0
        real_images = x.detach().clone().requires_grad_(penalised)
        on_real, _ = self.discriminator(real_images, y)
        on_rebuilt, _ = self.discriminator(reconstruction, y)
        on_drawn, _ = self.discriminator(drawn, y)
        loss = F.relu(1 - on_real).mean() + 0.5 * (
            F.relu(1 + on_rebuilt).mean() + F.relu(1 + on_drawn).mean()
        )
        if penalised:
            (gradient,) = torch.autograd.grad(on_real.sum(), real_images, create_graph=True)
            penalty = gradient.square().flatten(1).sum(dim=1).mean() / x[0].numel()
            loss = loss + 0.5 * self.settings.r1 * PENALTY_EVERY * penalty
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def _adaptive_weight(
        self, likelihood: Tensor, adversarial: Tensor, last_layer: Tensor
    ) -> float:
        likelihood_norm = torch.autograd.grad(likelihood, last_layer, retain_graph=True)[0].norm()
        adversarial_norm = torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0].norm()
        return self.weight * float(
            (likelihood_norm / (adversarial_norm + 1e-6)).clamp(max=MAX_WEIGHT)
        )

    @torch.no_grad()
    def _error(self, model: nn.Module) -> float:
        """Compute the squared error per value of held-out images, decoded from posterior means."""
        images, labels = self.batches.held_out(self.stage)
        means, _ = encode(self.batches, model, images, labels)
        total = 0.0
        for rows in blocks(len(images), images[:1].numel(), 512):
            decoded = as_cvae(model).decode(means[rows], labels[rows])
            total += float((decoded - self.batches.scale(images[rows])).square().sum())
        return total / images.numel()
