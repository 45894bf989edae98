"""The objective that separates style from content, so that the label decides.

A latent that may carry the class will, for it costs next to nothing: the label is then ignored.
Here the latent has two parts. Half of the images are reconstructed from their *style* alone, which
is short and costly, and the content of their class, which other images of the class give. The
*detail* is what these leave open. And a style that is decoded with the content of another class has
to show that class.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.config import AugmentConfig
from vaeaug.memory import blocks
from vaeaug.models import CVAE, SmallClassifier, gaussian_kl, mean_codes, optimal_log_sigma2
from vaeaug.training._augmentation import augmented
from vaeaug.training._batches import Batches
from vaeaug.training._elbo import ElboObjective, as_cvae, held_out_terms
from vaeaug.training._scores import by_class, keep_best_rows, mean_finite
from vaeaug.training._state import Stage, StepLoss, TrainState, as_guard

# Maximum number of images whose mean content code describes a class.
CODE_IMAGES = 256
# Default weight of the KL of the style: 1 for each so many values of a sample, and at most 5.
STYLE_VALUES, HIGHEST_STYLE_BETA = 64, 5.0
# Default weight of the label swap: 1 for each so many values of a sample, and its bounds. A weight
# that is high beside the ELBO of a small sample drowns it in noise.
SWAP_VALUES, LOWEST_SWAP, HIGHEST_SWAP = 40, 1.0, 20.0
# Fraction of the steps over which the weight of the label swap grows to its value.
SWAP_WARMUP = 0.15
# Fraction of a batch whose labels are swapped, and the least number.
SWAP_SHARE, MIN_SWAPPED = 0.25, 8


@dataclass(frozen=True)
class StyleTerms:
    """The terms of the objective, averaged over a batch, nats per sample.

    Attributes:
        from_style: ``-log p(x|style, class)`` of the half that is decoded without its detail.
        reconstruction: ``-log p(x|z, class)`` of the other half.
        style_kl: KL of each unit of the style, (units,).
        detail_kl: KL of each unit of the detail, (units,).
        error: Squared error per sample of the half with its detail.
        style_error: Squared error per sample of the other half.
    """

    from_style: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]
    style_kl: Float[Tensor, " s"]
    detail_kl: Float[Tensor, " d"]
    error: Float[Tensor, ""]
    style_error: Float[Tensor, ""]


class StyleObjective(ElboObjective):
    """The negative ELBO of style and detail, and the label swap.

    Args:
        batches: The data.
        config: The job.
        stage: The trunk.
        judge: A classifier of the real images, for the label swap and feature matching.
    """

    def __init__(
        self, batches: Batches, config: AugmentConfig, stage: Stage, judge: SmallClassifier
    ) -> None:
        super().__init__(batches, config, stage, judge)
        self.swap_judge = judge.requires_grad_(False)
        n_values = batches.images[:1].numel()
        by_size = min(HIGHEST_STYLE_BETA, max(1.0, n_values / STYLE_VALUES))
        self.style_beta = config.model.style_beta or by_size
        self.swap_weight = swap_weight(config, n_values)

    def trained(self, model: CVAE) -> Mapping[str, nn.Parameter]:
        """Return the trunk; the embeddings are means of content codes and are not trained."""
        return model.trunk_parameters()

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Reconstruct a batch, half of it from the style alone, and swap its labels."""
        model = as_cvae(state.model)
        rows = self.batches.rows_of(self.stage, step)
        x, y = self.batches.scaled_rows(rows), self.batches.labels_of(rows)
        z, mean, logvar, code = self._encoded(model, x, y, rows, step)
        terms, centre = self._terms(
            model,
            x,
            y,
            z=z,
            mean=mean,
            logvar=logvar,
            code=code,
            log_sigma2=self.sigma(state, done),
        )
        loss = 0.5 * (terms.from_style + terms.reconstruction) + self._cost(terms, state, done)
        weight = self.batches.tape.number(
            lambda _, done: self.swap_weight * min(1.0, done / SWAP_WARMUP), done=done
        )
        swap = self._swap(model, z, y, code, step)
        loss = loss + weight * swap
        if self.judge is not None:
            loss = loss + self.feature_loss(self.judge, x, centre)
        error, n_values = terms.error.detach(), x[0].numel()
        style_nats = terms.style_kl.detach().sum()
        kl = style_nats + terms.detail_kl.detach().sum()
        metrics = {
            "reconstruction": terms.reconstruction.detach(),
            "kl": kl,
            "mean_squared_error": error / n_values,
            "style_kl": style_nats,
            "style_mean_squared_error": terms.style_error.detach() / n_values,
            "label_swap": swap.detach(),
        }
        return StepLoss(loss / n_values, as_guard(error, kl), metrics)

    def _cost(self, terms: StyleTerms, state: TrainState, done: float) -> Tensor:
        """What the latents cost: style dearer than detail, which half of the batch does without."""
        settings = self.config.model
        if settings.capacity is not None:
            kl = terms.style_kl.sum() + terms.detail_kl.sum()
            return self.deviation(kl, settings.capacity, done)
        weight, free_bits = self.kl_cost(state, done)
        style_kl = terms.style_kl.clamp(min=free_bits).sum()
        detail_kl = terms.detail_kl.clamp(min=free_bits).sum()
        return weight * (self.style_beta * style_kl + 0.5 * detail_kl)

    def evaluate(self, state: TrainState, done: float) -> dict[str, float]:
        """Compute the held-out ELBO with the codes of the classes as they are now."""
        fill_class_codes(self.batches, as_cvae(state.average.eval()))
        return super().evaluate(state, done)

    def _encoded(
        self, model: CVAE, x: Tensor, y: Tensor, rows: Tensor, step: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, their posterior, and the codes of their classes from other images."""
        name, n = self.stage.name, len(x)
        code = self._codes(model, y, rows, step)
        mean, logvar = model.posterior(self.encoder_input(x, name, step), y, code)
        noise = self.batches.noise(name, step, (n, model.latent_dim))
        return mean + torch.exp(0.5 * logvar) * noise, mean, logvar, code

    def _terms(
        self,
        model: CVAE,
        x: Tensor,
        y: Tensor,
        *,
        z: Tensor,
        mean: Tensor,
        logvar: Tensor,
        code: Tensor,
        log_sigma2: Tensor | None,
    ) -> tuple[StyleTerms, Tensor]:
        half = len(x) // 2
        decoded = model.generate(torch.cat([model.style_only(z[:half]), z[half:]]), y, code)
        centre = model.likelihood.mean(decoded.raw)
        squared = (x - centre).square().flatten(1).sum(dim=1)
        kl = gaussian_kl(mean, logvar, decoded.mean, decoded.logvar)

        # The style alone has an error of its own; the calibrated sigma is that of all units.
        sigma_of_style = optimal_log_sigma2(squared[:half], x[0].numel())
        if log_sigma2 is None:
            log_sigma2 = optimal_log_sigma2(squared[half:], x[0].numel())
        from_style = model.likelihood.log_prob(decoded.raw[:half], x[:half], sigma_of_style)
        from_all = model.likelihood.log_prob(decoded.raw[half:], x[half:], log_sigma2)
        terms = StyleTerms(
            from_style=-from_style.mean(),
            reconstruction=-from_all.mean(),
            style_kl=kl[:, : model.style_dim].mean(dim=0),
            detail_kl=kl[half:, model.style_dim :].mean(dim=0),
            error=squared[half:].mean(),
            style_error=squared[:half].mean(),
        )
        return terms, centre

    def _codes(
        self,
        model: CVAE,
        y: Int[Tensor, " n"],
        rows: Int64[Tensor, " n"],
        step: int,
    ) -> Tensor:
        """Codes of the classes of some rows, from one exemplar of each or from several.

        An image is never its own exemplar, for the code would give its style away; only a single
        image of a class is.
        """
        batches, n, purpose = self.batches, len(y), f"{self.stage.name}/exemplars"
        drawn = batches.draw_exemplars(purpose, step, y, rows)
        codes = model.codes_of(augmented(batches, purpose, step, batches.scaled_rows(drawn)))
        share = batches.uniform(f"{purpose}/share", step, (1,))
        shared = batches.uniform(f"{purpose}/shared", step, (n, n)) < share
        shared &= (y[:, None] == y[None]) & (drawn[None] != rows[:, None])
        return mean_codes(codes, shared)

    def _swap(self, model: CVAE, z: Tensor, y: Tensor, code: Tensor, step: int) -> Tensor:
        """How far styles show the classes of other images of the batch, whose codes they get."""
        n = min(len(z), max(MIN_SWAPPED, round(SWAP_SHARE * len(z))))
        rows = drawn_evenly(y, self.batches.uniform(f"{self.stage.name}/swap", step, (len(y),)), n)
        shown = y[rows]
        decoded = model.generate(model.style_only(z[:n]), shown, code[rows])
        return F.cross_entropy(self.swap_judge(model.likelihood.mean(decoded.raw)), shown)


class AddedStyleObjective(ElboObjective):
    """The parameters of classes that are added to a model with a style, its trunk frozen.

    The content of a class that the content encoder never saw begins as the mean of its codes and is
    then learned like the FiLM rows: half of a batch is reconstructed from its style alone, and
    styles of other classes have to show the new one.

    Args:
        batches: Images of the new classes.
        config: The job.
        stage: The stage.
        judge: A classifier of the real images of all classes.
        styles: Latents of images of other classes, (m, z).
    """

    def __init__(
        self,
        batches: Batches,
        config: AugmentConfig,
        stage: Stage,
        judge: SmallClassifier,
        styles: Float[Tensor, "m z"],
    ) -> None:
        super().__init__(batches, config, stage)
        self.swap_judge, self.styles = judge.requires_grad_(False), styles
        self.swap_weight = swap_weight(config, batches.images[:1].numel())
        n = max(MIN_SWAPPED, round(SWAP_SHARE * config.training.batch_size))
        # Made once: a recorded step of a card copies nothing to it.
        self.swapped = torch.from_numpy(np.resize(stage.classes, n)).to(batches.device)

    def trained(self, model: CVAE) -> Mapping[str, nn.Parameter]:
        """Return the rows of the classes, their embeddings included."""
        return model.class_parameters()

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Reconstruct a batch, half of it from the style alone, and show the class in others."""
        model, name = as_cvae(state.model), self.stage.name
        x, y = self.batches.draw(self.stage, step)
        mean, logvar = model.posterior(self.encoder_input(x, name, step), y)
        noise = self.batches.noise(name, step, (len(x), model.latent_dim))
        z, half = mean + torch.exp(0.5 * logvar) * noise, len(x) // 2
        decoded = model.generate(torch.cat([model.style_only(z[:half]), z[half:]]), y)
        squared = (x - model.likelihood.mean(decoded.raw)).square().flatten(1).sum(dim=1)
        sigma_of_style = optimal_log_sigma2(squared[:half], x[0].numel())
        from_style = -model.likelihood.log_prob(decoded.raw[:half], x[:half], sigma_of_style)
        from_all = -model.likelihood.log_prob(decoded.raw[half:], x[half:])
        kl = gaussian_kl(mean, logvar, decoded.mean, decoded.logvar).sum(dim=1).mean()
        weight, _ = self.kl_cost(state, done)
        swap = self._swap(model, step)
        loss = 0.5 * (from_style.mean() + from_all.mean()) + weight * kl
        loss = loss + self.swap_weight * swap
        error = squared[half:].detach().mean()
        metrics = {
            "reconstruction": from_all.detach().mean(),
            "kl": kl.detach(),
            "style_mean_squared_error": squared[:half].detach().mean() / x[0].numel(),
            "label_swap": swap.detach(),
        }
        return StepLoss(loss / x[0].numel(), as_guard(error, kl.detach()), metrics)

    @torch.no_grad()
    def evaluate(self, state: TrainState, done: float) -> dict[str, float]:
        """Score each class by its held-out images: their ELBO, and how well style alone tells."""
        model = as_cvae(state.average.eval())
        images, labels = self.batches.held_out(self.stage)
        elbo, _ = held_out_terms(self.batches, model, images, labels)
        alone = []
        for rows in blocks(len(images), images[:1].numel(), 512):
            x, y = self.batches.scale(images[rows]), labels[rows]
            raw = model.generate(model.style_only(model.posterior(x, y)[0]), y).raw
            error = (x - model.likelihood.mean(raw)).square().flatten(1).sum(dim=1)
            sigma = optimal_log_sigma2(error, x[0].numel())
            alone.append(model.likelihood.log_prob(raw, x, sigma))
        scores = by_class(0.5 * (elbo + torch.cat(alone)), labels, model.n_classes)
        keep_best_rows(state, scores)
        return {"held_out_elbo": float(elbo.mean()), "held_out_score": mean_finite(scores)}

    def _swap(self, model: CVAE, step: int) -> Tensor:
        """How far the styles of other classes show the new ones."""
        y = self.swapped
        drawn = self.batches.uniform(f"{self.stage.name}/swap", step, (len(y),))
        rows = (drawn * len(self.styles)).long()
        decoded = model.generate(model.style_only(self.styles[rows]), y)
        return F.cross_entropy(self.swap_judge(model.likelihood.mean(decoded.raw)), y)


def drawn_evenly(y: Int[Tensor, " n"], quantiles: Float[Tensor, " n"], k: int) -> Tensor:
    """Draw rows without replacement, so that each class is as likely as any other.

    They are the first of exponential arrivals (Efraimidis & Spirakis 2006,
    doi:10.1016/j.ipl.2005.11.003).

    Args:
        y: Class of each row.
        quantiles: Uniform random numbers.
        k: Number of rows, at most n.

    Returns:
        The rows drawn, (k,).
    """
    frequencies = (y[:, None] == y[None]).sum(dim=1)
    return torch.topk(-quantiles.log() * frequencies, k, largest=False).indices


def swap_weight(config: AugmentConfig, n_values: int) -> float:
    """Return the weight of the label swap: that of the job, or the default for samples of a size.

    Args:
        config: The job.
        n_values: Values of a sample.

    Returns:
        The weight, nats.
    """
    if config.training.label_swap is not None:
        return config.training.label_swap
    return min(HIGHEST_SWAP, max(LOWEST_SWAP, n_values / SWAP_VALUES))


@torch.no_grad()
def fill_class_codes(batches: Batches, model: CVAE) -> None:
    """Set the embedding of each class to the mean content code of its images.

    Args:
        batches: The data.
        model: A model with a content encoder, changed in place.
    """
    assert model.content is not None
    for label, rows in enumerate(batches.rows):
        if len(rows):
            index = torch.from_numpy(rows[:CODE_IMAGES]).to(batches.device)
            images = batches.stored(index)
            codes = [
                model.content(batches.scale(images[part]))
                for part in blocks(len(images), images[:1].numel(), 512)
            ]
            model.embedding.weight[label] = torch.cat(codes).mean(dim=0)
