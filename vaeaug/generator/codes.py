"""How discrete latents are drawn: grids of codes by the prior of the model, whole or in part."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaeaug.config import CODE_SAMPLERS
from vaeaug.generator.codec import SamplingError, in_blocks_of
from vaeaug.generator.latents import Latents
from vaeaug.generator.samplers import Drawn, Request, sample_generators
from vaeaug.models import CVAE, in_order, random_order


@dataclass(frozen=True)
class CodeSampler:
    """Draws discrete latents of a class.

    Attributes:
        model: The trained model, for its prior.
        latents: Codes of the training images.
    """

    model: CVAE
    latents: Latents

    def draw(self, request: Request, *, seed: int, first: int, n: int) -> Drawn:
        """Latents of samples first to first + n - 1.

        Args:
            request: Class, sampler ("prior" or "posterior"), its sources and its settings.
            seed: Seed of the run.
            first: Index of the first sample, the beginning of a block of the model.
            n: How many.

        Returns:
            The latents. Each depends on (seed, class, index) alone.
        """
        prior = self.model.code_prior
        assert prior is not None
        cells, is_edit = prior.n_cells, request.sampler == "posterior"
        uniform = np.empty((n, 1 + 2 * cells))
        for row, rng in enumerate(sample_generators(seed, request.label, first, n)):
            uniform[row] = rng.random(1 + 2 * cells)
        sources = np.full(n, -1, np.int64)
        known = np.zeros((n, 1), np.float32)
        if is_edit:
            sources = request.pool[(uniform[:, 0] * len(request.pool)).astype(np.int64)]
            known = self.latents.means[sources]
        n_known = cells - max(1, round(request.redrawn * cells)) if is_edit else 0

        def grids(order: Tensor, codes: Tensor, z: Tensor) -> Tensor:
            drawn = prior.draw(
                codes,
                torch.full((len(z),), request.label, device=z.device),
                random_order(order) if is_edit else in_order(order),
                codes=self.model.codes_at(z) if is_edit else None,
                n_known=n_known,
                temperature=request.temperature,
            )
            return self.model.latents_of(drawn)

        orders, codes = uniform[:, 1 : 1 + cells], uniform[:, 1 + cells :]
        z = in_blocks_of(self.model, grids, orders, codes, known).numpy()
        return Drawn(z, sources, np.full(n, -1, np.int64), np.zeros(n, np.float32))


def check_code_sampler(sampler: str, redrawn: float) -> None:
    """Refuse what has no meaning for codes.

    Args:
        sampler: Name of a sampler.
        redrawn: Fraction of the codes that are drawn anew.

    Raises:
        SamplingError: Naming the samplers that have one, or the range.
    """
    if not 0 < redrawn <= 1:
        raise SamplingError(f"sample: expected redrawn above 0 and up to 1, got {redrawn}")
    if sampler not in CODE_SAMPLERS:
        raise SamplingError(
            f"sample: sampler {sampler!r} moves latents, and those of this generator are codes "
            f"(model.latent discrete); expected one of {', '.join(CODE_SAMPLERS)}, auto"
        )
