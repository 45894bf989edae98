"""The objective of the flow over the latents of a trained model."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vaeaug.config import AugmentConfig
from vaeaug.models import LatentFlow
from vaeaug.training._batches import Batches
from vaeaug.training._elbo import encode
from vaeaug.training._scores import keep_best
from vaeaug.training._state import Stage, StepLoss, TrainState, as_guard


class FlowObjective:
    """Flow matching on draws of q(z|x,y); the class is dropped from some rows.

    Args:
        batches: The data.
        config: The job.
        stage: The stage of the flow.
        model: The trained model; it encodes the images once.
    """

    is_repeatable = True
    is_divisible = True
    has_one_loss = True

    def __init__(
        self, batches: Batches, config: AugmentConfig, stage: Stage, model: nn.Module
    ) -> None:
        self.batches, self.config, self.stage = batches, config, stage
        self.mean, self.logvar = encode(batches, model, batches.images, batches.labels)
        held_out, self.held_labels = batches.held_out(stage)
        self.held_mean, self.held_logvar = encode(batches, model, held_out, self.held_labels)

    def trained(self, model: nn.Module) -> Mapping[str, nn.Parameter]:
        """Return all parameters."""
        return dict(model.named_parameters())

    def start(self, state: TrainState) -> None:
        """Standardise by the training latents, and score the initial weights."""
        for flow in (state.model, state.average):
            rows = self.batches.all_rows
            _flow(flow).standardise(self.mean[rows], self.logvar[rows].exp())
        self.evaluate(state, 0.0)

    def loss(self, state: TrainState, step: int, done: float) -> StepLoss:
        """Compute the squared error of the velocity."""
        rows = self.batches.rows_of(self.stage, step, self.config.density.batch_size)
        posterior = self.mean[rows], self.logvar[rows], self.batches.labels[rows]
        loss = self._loss(_flow(state.model), *posterior, stream=(self.stage.name, step)).mean()
        return StepLoss(loss, as_guard(loss), {})

    @torch.no_grad()
    def evaluate(self, state: TrainState, done: float) -> dict[str, float]:
        """Compute the same error on held-out latents, with fixed draws."""
        flow = _flow(state.average.eval())
        parts = [
            self._loss(
                flow,
                self.held_mean[begin : begin + 512],
                self.held_logvar[begin : begin + 512],
                self.held_labels[begin : begin + 512],
                stream=(f"{self.stage.name}/held-out", begin),
            )
            for begin in range(0, len(self.held_mean), 512)
        ]
        error = float(torch.cat(parts).mean())
        keep_best(state, -error)
        return {"held_out_error": error}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing; the training state holds everything."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing."""

    def _loss(
        self, flow: LatentFlow, mean: Tensor, logvar: Tensor, y: Tensor, *, stream: tuple[str, int]
    ) -> Tensor:
        """Compute the loss of latents; `stream` names their random numbers."""
        name, step = stream
        shape = tuple(mean.shape)
        z = mean + torch.exp(0.5 * logvar) * self.batches.noise(f"{name}/posterior", step, shape)
        uniform = self.batches.uniform(f"{name}/time", step, (2, len(z)))
        noise = self.batches.noise(name, step, shape)
        return flow.loss(z, y, noise=noise, time=uniform[0], drop=uniform[1])


def _flow(module: nn.Module) -> LatentFlow:
    assert isinstance(module, LatentFlow)
    return module
