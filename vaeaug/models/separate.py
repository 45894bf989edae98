"""An independent VAE for each class behind the interface of one conditional VAE."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaeaug.models.cvae import CVAE, ElboTerms, gaussian_kl
from vaeaug.models.networks import Decoded


class SeparateCVAE(nn.Module):
    """K one-class `CVAE`s of one architecture; each row of a batch goes to the model of its class.

    Args:
        models: One model per class, each with ``n_classes == 1``.
    """

    def __init__(self, models: Sequence[CVAE]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        first = models[0]
        self.image_shape, self.geometry = first.image_shape, first.geometry
        self.groups, self.latent_dim = first.groups, first.latent_dim
        self.n_classes, self.style_dim, self.is_discrete = len(models), 0, False
        self.architecture = {**first.architecture, "n_classes": len(models)}

    @classmethod
    def build(cls, image_shape: Sequence[int], n_classes: int, **keys: Any) -> "SeparateCVAE":
        """Create untrained models.

        Args:
            image_shape: (space..., channels) of a sample.
            n_classes: Number of classes.
            **keys: Keywords of `CVAE`.

        Returns:
            The models of all classes.
        """
        return cls([CVAE(image_shape, 1, **keys) for _ in range(n_classes)])

    def posterior(
        self, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        """Compute q(z|x,y).

        Args:
            x: Samples scaled to [0, 1].
            y: Class indices.

        Returns:
            Mean and log variance.
        """
        mean, logvar = self._by_class(
            y, lambda model, labels, rows: model.posterior(x[rows], labels)
        )
        return mean, logvar

    def style_only(self, z: Float[Tensor, "n z"]) -> Float[Tensor, "n z"]:
        """Return the latents: a model of one class has no style apart from it.

        Args:
            z: Latents.

        Returns:
            The same latents.
        """
        return z

    def codes_of(self, exemplars: Float[Tensor, "n c *space"]) -> Float[Tensor, "n e"]:
        """Refuse: models of one class each share no content encoder.

        Args:
            exemplars: Samples scaled to [0, 1].

        Raises:
            ValueError: Always.
        """
        raise ValueError("codes_of: expected a model with a style (style_dim), got one without")

    def decode_code(
        self, z: Float[Tensor, "n z"], code: Float[Tensor, "n e"]
    ) -> Float[Tensor, "n c *space"]:
        """Refuse, as `codes_of` does.

        Args:
            z: Latents.
            code: Content codes.

        Raises:
            ValueError: Always.
        """
        raise ValueError("decode_code: expected a model with a style, got one without")

    def prior(self, y: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n z1"], Float[Tensor, "n z1"]]:
        """Compute p(z1|y), the prior of the first (or only) group of latents.

        Args:
            y: Class indices.

        Returns:
            Mean and log variance.
        """
        mean, logvar = self._by_class(y, lambda model, labels, rows: model.prior(labels))
        return mean, logvar

    def generate(self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]) -> Decoded:
        """Compute p(x|z,y) and the prior of every latent given the preceding ones.

        Args:
            z: Latents.
            y: Class indices.

        Returns:
            The parameters of both distributions.
        """

        def decode_rows(model: CVAE, labels: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
            decoded = model.generate(z[rows], labels)
            return decoded.raw, decoded.z, decoded.mean, decoded.logvar

        return Decoded(*self._by_class(y, decode_rows))

    def decode(self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]) -> Float[Tensor, "n c *space"]:
        """Compute the mean of p(x|z,y), not clipped.

        Args:
            z: Latents.
            y: Class indices.

        Returns:
            Samples, on the scale [0, 1].
        """
        return self._by_class(y, lambda model, labels, rows: (model.decode(z[rows], labels),))[0]

    def draw_prior(
        self, noise: Float[Tensor, "n z"], y: Int[Tensor, " n"], *, temperature: float = 1.0
    ) -> Float[Tensor, "n z"]:
        """Turn standard normal draws into latents of p(z|y), group after group.

        Args:
            noise: Standard normal draws.
            y: Class indices.
            temperature: Scale of the noise.

        Returns:
            Latents.
        """
        return self._by_class(
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
        """Estimate the ELBO of the model of each row's class from one latent per sample.

        Args:
            x: Samples scaled to [0, 1].
            y: Class indices.
            noise: Standard normal draws for the reparameterisation.

        Returns:
            The terms of the ELBO.
        """

        def terms_of_rows(model: CVAE, labels: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
            terms = model.elbo(x[rows], labels, noise=noise[rows])
            return terms.reconstruction, terms.kl, terms.squared_error, terms.mean

        return ElboTerms(*self._by_class(y, terms_of_rows))

    def kl(
        self,
        mean: Float[Tensor, "n z"],
        logvar: Float[Tensor, "n z"],
        decoded: Decoded,
        y: Int[Tensor, " n"],
    ) -> Float[Tensor, "n z"]:
        """Compute ``KL(q(z|x,y) || p(z|y))`` per unit.

        Args:
            mean: Mean of q.
            logvar: Log variance of q.
            decoded: Output of `generate`.
            y: Class indices.

        Returns:
            Nats.
        """
        return gaussian_kl(mean, logvar, decoded.mean, decoded.logvar)

    def log_prob(
        self, decoded: Decoded, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Compute log p(x|z,y).

        Args:
            decoded: Output of `generate`.
            x: Samples scaled to [0, 1].
            y: Class indices.

        Returns:
            Log density per sample, nats.
        """
        return self._by_class(
            y,
            lambda model, labels, rows: (model.likelihood.log_prob(decoded.raw[rows], x[rows]),),
        )[0]

    def log_mass(
        self, decoded: Decoded, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Compute the log probability of the 8-bit gray levels of x.

        Args:
            decoded: Output of `generate`.
            x: Samples scaled to [0, 1].
            y: Class indices.

        Returns:
            Log probability per sample, nats.
        """
        return self._by_class(
            y,
            lambda model, labels, rows: (model.likelihood.log_mass(decoded.raw[rows], x[rows]),),
        )[0]

    def of_class(self, label: int) -> CVAE:
        """Return the model of one class, which calls that class 0.

        Args:
            label: Class index.

        Returns:
            The model.
        """
        return self.models[label]  # type: ignore[return-value]

    def _by_class(
        self, y: Tensor, run_model: Callable[[CVAE, Tensor, Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Run each model on the rows of its class, and restore the order of y.

        Without rows, the first model is run, so that the outputs have the right shapes.
        """
        present = torch.unique(y).tolist() or [0]
        index = [torch.nonzero(y == label).squeeze(1) for label in present]
        parts = [
            run_model(self.of_class(label), torch.zeros_like(rows), rows)
            for label, rows in zip(present, index, strict=True)
        ]
        original_order = torch.argsort(torch.cat(index))
        return tuple(torch.cat(output)[original_order] for output in zip(*parts, strict=True))
