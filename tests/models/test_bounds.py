"""Bounds on the evidence, against models whose evidence is known."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vaeaug.models import (
    CVAE,
    ElboTerms,
    SeparateCVAE,
    bits_per_dimension,
    gaussian_kl,
    importance_weighted_bound,
    optimal_log_sigma2,
)
from vaeaug.models.networks import Decoded

SIGMA2 = 0.2


class Linear(CVAE):
    """z ~ N(0, I), x|z ~ N(Wz + b, SIGMA2 I), with W of orthogonal columns.

    Posterior and evidence are then known in closed form, and the posterior is diagonal, as an
    encoder's is. q is the posterior, moved and widened as told.
    """

    def __init__(self, shift=0.0, widen: float = 0.0) -> None:
        super().__init__((8, 8, 1), 1, latent_dim=2, width=8)
        generator = torch.Generator().manual_seed(0)
        basis, _ = torch.linalg.qr(torch.randn(64, 2, generator=generator))
        self.weights, self.bias = basis * torch.tensor([1.5, 0.4]), torch.full((64,), 0.5)
        self.shift, self.widen = torch.as_tensor(shift), widen
        self.likelihood.log_sigma2.fill_(math.log(SIGMA2))
        self.variance = 1 / (1 + self.weights.square().sum(dim=0) / SIGMA2)

    def posterior(self, x, y):
        mean = (x.flatten(1) - self.bias) @ self.weights / SIGMA2 * self.variance
        return mean + self.shift, (self.variance.log() + self.widen).expand_as(mean)

    def generate(self, z, y):
        raw = (z @ self.weights.T + self.bias - 0.5).view(-1, 1, 8, 8)
        return Decoded(raw, z, torch.zeros_like(z), torch.zeros_like(z))

    def evidence(self, x: torch.Tensor) -> torch.Tensor:
        covariance = self.weights @ self.weights.T + SIGMA2 * torch.eye(64)
        return MultivariateNormal(self.bias, covariance).log_prob(x.flatten(1))


def images(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(n))
    return x, torch.zeros(n, dtype=torch.long)


# -- KL and ELBO ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_kl_is_that_of_torch_distributions(seed):
    generator = torch.Generator().manual_seed(seed)
    mean, logvar, prior_mean, prior_logvar = torch.randn(4, 6, 3, generator=generator)
    expected = kl_divergence(
        Normal(mean, (logvar / 2).exp()), Normal(prior_mean, (prior_logvar / 2).exp())
    )
    torch.testing.assert_close(gaussian_kl(mean, logvar, prior_mean, prior_logvar), expected)


def test_no_other_sigma_is_likelier_than_the_optimal_one():
    errors = torch.tensor([3.0, 5.0, 1.0])

    def negative_log_likelihood(log_sigma2: torch.Tensor) -> float:
        n = 10 * len(errors)
        return float(0.5 * errors.sum() * torch.exp(-log_sigma2) + 0.5 * n * log_sigma2)

    best = optimal_log_sigma2(errors, 10)
    assert float(best) == pytest.approx(math.log(9 / 30))
    for shift in (-0.5, -0.01, 0.01, 0.5):
        assert negative_log_likelihood(best) < negative_log_likelihood(best + shift)


def test_elbo_of_a_linear_gaussian_model_meets_the_evidence_only_at_the_true_posterior():
    # z ~ N(0, I), x|z ~ N(Wz, s^2 I): evidence and posterior are known in closed form.
    torch.manual_seed(1)
    weights, sigma = torch.randn(5, 2, dtype=torch.float64), 0.7
    x = torch.randn(5, dtype=torch.float64)
    # Orthogonal columns make the posterior diagonal, as an encoder's is.
    q, _ = torch.linalg.qr(weights)
    weights = q * torch.tensor([1.5, 0.8], dtype=torch.float64)
    covariance = weights @ weights.T + sigma**2 * torch.eye(5, dtype=torch.float64)
    evidence = MultivariateNormal(torch.zeros(5, dtype=torch.float64), covariance).log_prob(x)
    precision = 1 + (weights**2).sum(dim=0) / sigma**2
    mean, variance = (weights.T @ x / sigma**2) / precision, 1 / precision

    def elbo(mean: torch.Tensor, variance: torch.Tensor) -> float:
        expected_error = ((x - weights @ mean) ** 2).sum() + (
            (weights**2).sum(dim=0) * variance
        ).sum()
        reconstruction = 0.5 * expected_error / sigma**2 + 2.5 * math.log(2 * math.pi * sigma**2)
        kl = gaussian_kl(mean, variance.log(), torch.zeros(2).double(), torch.zeros(2).double())
        centre = torch.zeros(1, 1, 5, dtype=torch.float64)
        return float(ElboTerms(reconstruction[None], kl[None], expected_error[None], centre).elbo)

    assert elbo(mean, variance) == pytest.approx(float(evidence), abs=1e-9)
    assert elbo(mean + 0.1, variance) < float(evidence) - 1e-3
    assert elbo(mean, variance * 1.5) < float(evidence) - 1e-3


@pytest.mark.parametrize(
    ("shift", "widen"), [(0.0, 0.0), (0.3, 0.0), (-0.1, 0.0), (0.0, 0.5), (0.0, -0.5), (0.2, 1.0)]
)
def test_the_bound_of_the_model_lies_below_the_evidence_by_the_kl_to_the_posterior(shift, widen):
    """`CVAE.elbo` itself, around a linear decoder whose evidence is known."""
    model = Linear(shift, widen)
    x, y = images(9)
    # The estimate is quadratic in the noise, so these four points average it exactly.
    points = math.sqrt(2) * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    with torch.no_grad():
        bounds = [model.elbo(x, y, noise=point.expand(9, 2)).elbo for point in points]
    gap = model.evidence(x) - torch.stack(bounds).mean(dim=0)
    approximate = model.posterior(x, y)
    exact = (approximate[0] - shift, approximate[1] - widen)
    expected = gaussian_kl(*approximate, *exact).sum(dim=1)
    torch.testing.assert_close(gap, expected, rtol=1e-2, atol=2e-3)


# -- The importance-weighted bound ---------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 10, 700])
def test_with_the_true_posterior_every_draw_weighs_the_evidence(k):
    model = Linear()
    x, y = images(5)
    bound = importance_weighted_bound(model, x, y, k=k, seed=3)
    assert bound.dtype == torch.float64
    torch.testing.assert_close(bound.float(), model.evidence(x), rtol=0, atol=1e-3)


def test_the_bound_rises_with_k_to_the_evidence_from_below():
    # q has the posterior's variance and lies a distance d from it, in its standard deviations. A
    # weight over the evidence is then log-normal: E log w = -d^2/2, Var w = exp(d^2) - 1.
    d2, n = 3.0, 300
    model = Linear()
    model.shift = math.sqrt(d2 / 2) * model.variance.sqrt()
    x, y = images(n)
    evidence = model.evidence(x).double()
    spread = math.exp(d2) - 1
    gaps = {}
    for k in (1, 10, 100, 1000):
        bound = importance_weighted_bound(model, x, y, k=k, seed=k)
        gaps[k] = float((evidence - bound).mean())
    assert gaps[1] > gaps[10] > gaps[100] > gaps[1000]
    # Five standard errors of a mean of n: of a normal log weight of variance d^2 ...
    assert gaps[1] == pytest.approx(d2 / 2, abs=5 * math.sqrt(d2 / n))
    # ... and of the log of a mean of 1000 weights: variance spread / k, expectation -spread / 2k by
    # the delta method, twice that for what it leaves out.
    error = 5 * math.sqrt(spread / 1000 / n)
    assert -error < gaps[1000] < spread / 1000 + error


def stirred(model):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.1 * torch.randn(each.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("latent", ["vector", "spatial", "hierarchical"])
def test_one_weight_is_the_densities_of_torch_distributions(latent):
    torch.manual_seed(0)
    model = stirred(CVAE((13, 9, 1), 2, latent=latent, latent_dim=4, width=8))
    x, y = torch.rand(1, 1, 13, 9), torch.tensor([1])
    noise = torch.randn(1, model.latent_dim, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        mean, logvar = model.posterior(x, y)
        posterior = Normal(mean, torch.exp(0.5 * logvar))
        z = mean + posterior.scale * noise
        decoded = model.generate(z, y)
        prior = Normal(decoded.mean, torch.exp(0.5 * decoded.logvar))
        likelihood = Normal(decoded.raw + 0.5, torch.exp(0.5 * model.likelihood.log_sigma2))
        expected = (
            likelihood.log_prob(x).sum() + prior.log_prob(z).sum() - posterior.log_prob(z).sum()
        )
    found = importance_weighted_bound(model, x, y, k=1, seed=9)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_separate_models_have_their_own_bounds():
    torch.manual_seed(0)
    model = SeparateCVAE.build((8, 8, 1), 2, latent_dim=4, width=8).eval()
    x = torch.rand(2, 1, 8, 8)
    alone = torch.tensor([0])
    for label in range(2):
        y = torch.tensor([label])
        ours = importance_weighted_bound(model, x[:1], y, k=20, seed=1)
        theirs = importance_weighted_bound(model.of_class(label), x[:1], alone, k=20, seed=1)
        torch.testing.assert_close(ours, theirs)


def test_no_latents_are_no_bound_and_no_images_no_bounds():
    model = Linear()
    x, y = images(2)
    with pytest.raises(ValueError, match="expected k of at least 1, got 0"):
        importance_weighted_bound(model, x, y, k=0, seed=0)
    assert importance_weighted_bound(model, x[:0], y[:0], k=3, seed=0).shape == (0,)


# -- Bits ----------------------------------------------------------------------------------------


def test_bits_of_a_uniform_density_and_of_uniform_levels():
    # A density of 1 gives each of 255 steps of a gray level the mass 1/255.
    bits = bits_per_dimension(torch.zeros(2), 100)
    torch.testing.assert_close(bits, torch.full((2,), math.log2(255)))
    # A mass of 1/256 for each of 256 levels is a density of 255/256: 8 bits.
    nats = torch.tensor([100 * math.log(255 / 256)])
    assert float(bits_per_dimension(nats, 100)) == pytest.approx(8, abs=1e-5)
    # One nat less per value is log2(e) bits more.
    less = bits_per_dimension(torch.tensor([-100.0]), 100)
    assert float(less) == pytest.approx(math.log2(255) + 1 / math.log(2), abs=1e-5)
