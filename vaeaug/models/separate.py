"""An independent VAE for each class behind the interface of one conditional VAE."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaeaug.models.cvae import CVAE, ElboTerms
from vaeaug.models.networks import Decoded


class SeparateCVAE(nn.Module):
    """K one-class `CVAE`s of the same architecture; a row of a batch goes to its class's own.

    Args:
        models: One model per class, each with ``n_classes == 1``.
    """

    def __init__(self, models: Sequence[CVAE]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        first = models[0]
        self.image_shape, self.geometry = first.image_shape, first.geometry
        self.groups, self.latent_dim = first.groups, first.latent_dim
        self.n_classes = len(models)
        self.architecture = {**first.architecture, "n_classes": len(models)}

    @classmethod
    def build(cls, image_shape: Sequence[int], n_classes: int, **keys: Any) -> "SeparateCVAE":
        """Fresh models; the keywords are those of `CVAE`."""
        return cls([CVAE(image_shape, 1, **keys) for _ in range(n_classes)])

    def posterior(
        self, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        """Mean and log variance of q(z|x,y)."""
        mean, logvar = self._each(y, lambda model, labels, rows: model.posterior(x[rows], labels))
        return mean, logvar

    def prior(self, y: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n z1"], Float[Tensor, "n z1"]]:
        """Mean and log variance of p(z1|y), the first group of latents."""
        mean, logvar = self._each(y, lambda model, labels, rows: model.prior(labels))
        return mean, logvar

    def generate(self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]) -> Decoded:
        """Parameters of p(x|z,y), and the prior of every latent given those before it."""

        def own_part(model: CVAE, labels: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
            decoded = model.generate(z[rows], labels)
            return decoded.raw, decoded.z, decoded.mean, decoded.logvar

        return Decoded(*self._each(y, own_part))

    def decode(self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]) -> Float[Tensor, "n c *space"]:
        """Mean of p(x|z,y), not clipped."""
        return self._each(y, lambda model, labels, rows: (model.decode(z[rows], labels),))[0]

    def draw_prior(
        self, noise: Float[Tensor, "n z"], y: Int[Tensor, " n"], *, temperature: float = 1.0
    ) -> Float[Tensor, "n z"]:
        """Latents of p(z|y) from standard normal draws, group after group."""
        return self._each(
            y,
            lambda model, labels, rows: (
                model.draw_prior(noise[rows], labels, temperature=temperature),
            ),
        )[0]

    def elbo(
        self,
        x: Float[Tensor, "n c *space"],
        y: Int[Tensor, " n"],
        *,
        noise: Float[Tensor, "n z"],
    ) -> ElboTerms:
        """One-sample estimate of the bound under each class's own model."""

        def own_terms(model: CVAE, labels: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
            terms = model.elbo(x[rows], labels, noise=noise[rows])
            return terms.reconstruction, terms.kl, terms.squared_error, terms.mean

        return ElboTerms(*self._each(y, own_terms))

    def log_prob(
        self, decoded: Decoded, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Log p(x|z,y) of what `generate` gave, nats."""
        return self._each(
            y,
            lambda model, labels, rows: (model.likelihood.log_prob(decoded.raw[rows], x[rows]),),
        )[0]

    def log_mass(
        self, decoded: Decoded, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Log probability of the 8-bit gray levels of x, nats."""
        return self._each(
            y,
            lambda model, labels, rows: (model.likelihood.log_mass(decoded.raw[rows], x[rows]),),
        )[0]

    def of_class(self, label: int) -> CVAE:
        """The model of one class; it calls that class 0."""
        return self.models[label]  # type: ignore[return-value]

    def _each(
        self, y: Tensor, part: Callable[[CVAE, Tensor, Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Every model on its own rows, put back in the order of y. No rows: the first model."""
        present = torch.unique(y).tolist() or [0]
        index = [torch.nonzero(y == label).squeeze(1) for label in present]
        parts = [
            part(self.of_class(label), torch.zeros_like(rows), rows)
            for label, rows in zip(present, index, strict=True)
        ]
        back = torch.argsort(torch.cat(index))
        return tuple(torch.cat(part)[back] for part in zip(*parts, strict=True))
