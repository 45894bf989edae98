"""An independent VAE for each class behind the interface of one conditional VAE."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaeaug.models.cvae import CVAE, ElboTerms


class SeparateCVAE(nn.Module):
    """K one-class `CVAE`s of the same architecture; a row of a batch goes to its class's own.

    Args:
        models: One model per class, each with ``n_classes == 1``.
    """

    def __init__(self, models: Sequence[CVAE]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        first = models[0]
        self.image_shape = first.image_shape
        self.latent_dim = first.latent_dim
        self.n_classes = len(models)
        self.architecture = {**first.architecture, "n_classes": len(models)}

    @classmethod
    def build(
        cls, image_shape: tuple[int, int, int], n_classes: int, **keys: int
    ) -> "SeparateCVAE":
        """Fresh models; the keywords are those of `CVAE`."""
        return cls([CVAE(image_shape, 1, **keys) for _ in range(n_classes)])

    def posterior(
        self, x: Float[Tensor, "n c height width"], y: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        """Mean and log variance of q(z|x,y)."""
        mean = x.new_empty(len(x), self.latent_dim)
        logvar = torch.empty_like(mean)
        for model, rows, own in self._by_class(y):
            mean[rows], logvar[rows] = model.posterior(x[rows], own)
        return mean, logvar

    def prior(self, y: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        """Mean and log variance of p(z|y)."""
        mean = torch.stack([model.prior_mean.weight[0] for model in self._models()])[y]
        logvar = torch.stack([model.prior_logvar.weight[0] for model in self._models()])[y]
        return mean, logvar

    def decode(
        self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]
    ) -> Float[Tensor, "n c height width"]:
        """Mean of p(x|z,y), not clipped."""
        height, width, channels = self.image_shape
        x = z.new_empty(len(z), channels, height, width)
        for model, rows, own in self._by_class(y):
            x[rows] = model.decode(z[rows], own)
        return x

    def elbo(
        self,
        x: Float[Tensor, "n c height width"],
        y: Int[Tensor, " n"],
        *,
        noise: Float[Tensor, "n z"],
    ) -> ElboTerms:
        """One-sample estimate of the bound under each class's own model."""
        reconstruction, squared_error = x.new_empty(len(x)), x.new_empty(len(x))
        kl = x.new_empty(len(x), self.latent_dim)
        for model, rows, own in self._by_class(y):
            terms = model.elbo(x[rows], own, noise=noise[rows])
            reconstruction[rows], kl[rows] = terms.reconstruction, terms.kl
            squared_error[rows] = terms.squared_error
        return ElboTerms(reconstruction, kl, squared_error)

    def of_class(self, label: int) -> CVAE:
        """The model of one class; it calls that class 0."""
        return self._models()[label]

    def _models(self) -> list[CVAE]:
        return [model for model in self.models if isinstance(model, CVAE)]

    def _by_class(self, y: Tensor) -> list[tuple[CVAE, Tensor, Tensor]]:
        models = self._models()
        present = torch.unique(y).tolist()
        rows = [(label, torch.nonzero(y == label).squeeze(1)) for label in present]
        return [(models[label], index, torch.zeros_like(index)) for label, index in rows]
