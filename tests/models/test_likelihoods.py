"""p(x|z), against torch.distributions, against sums over all gray levels, at the extremes."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch.distributions import Bernoulli, Normal

from vaeaug.models import LIKELIHOODS, MIN_SIGMA, bits_per_dimension, optimal_log_sigma2
from vaeaug.models.likelihoods import make_likelihood

DISCRETE = ("gaussian", "gaussian_per_pixel", "logistic_mixture")
GRAY = torch.arange(256, dtype=torch.uint8).float().div(255).view(256, 1, 1)


def raw_of(likelihood, n: int, shape: tuple[int, ...], *, scale: float = 1.0, seed: int = 0):
    channels, *space = shape
    generator = torch.Generator().manual_seed(seed)
    size = (n, likelihood.n_outputs * channels, *space)
    return scale * torch.randn(size, generator=generator)


def gray(n: int, shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, *shape), generator=generator).float() / 255


@pytest.mark.parametrize("shape", [(1, 12), (3, 8, 9), (2, 4, 5, 6)])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_shapes(name, shape):
    likelihood = make_likelihood(name)
    raw, x = raw_of(likelihood, 2, shape), gray(2, shape)
    assert likelihood.mean(raw).shape == x.shape
    assert likelihood.log_prob(raw, x).shape == likelihood.log_mass(raw, x).shape == (2,)


# -- Densities -----------------------------------------------------------------------------------


def test_gaussian_is_that_of_torch_distributions():
    likelihood = make_likelihood("gaussian")
    likelihood.log_sigma2.fill_(math.log(0.3**2))
    raw, x = raw_of(likelihood, 4, (3, 8, 9)), gray(4, (3, 8, 9))
    for sigma, log_sigma2 in ((0.3, None), (0.07, torch.tensor(math.log(0.07**2)))):
        expected = Normal(raw + 0.5, sigma).log_prob(x).sum(dim=(1, 2, 3))
        torch.testing.assert_close(likelihood.log_prob(raw, x, log_sigma2), expected)
    torch.testing.assert_close(likelihood.mean(raw), raw + 0.5)


def test_gaussian_per_pixel_is_that_of_torch_distributions():
    likelihood = make_likelihood("gaussian_per_pixel")
    raw, x = raw_of(likelihood, 4, (3, 8, 9)), gray(4, (3, 8, 9))
    sigma = torch.exp(0.5 * (raw[:, 3:] - 3.2))
    expected = Normal(raw[:, :3] + 0.5, sigma).log_prob(x).sum(dim=(1, 2, 3))
    torch.testing.assert_close(likelihood.log_prob(raw, x), expected)
    torch.testing.assert_close(likelihood.mean(raw), raw[:, :3] + 0.5)


def test_bernoulli_is_that_of_torch_distributions():
    likelihood = make_likelihood("bernoulli")
    raw, x = raw_of(likelihood, 4, (1, 8, 9)), gray(4, (1, 8, 9)).round()
    expected = Bernoulli(logits=raw).log_prob(x).sum(dim=(1, 2, 3))
    torch.testing.assert_close(likelihood.log_prob(raw, x), expected)
    torch.testing.assert_close(likelihood.log_mass(raw, x), expected)
    torch.testing.assert_close(likelihood.mean(raw), Bernoulli(logits=raw).mean)


@pytest.mark.parametrize("seed", range(3))
def test_the_optimal_sigma_maximises_the_likelihood(seed):
    likelihood = make_likelihood("gaussian")
    raw, x = raw_of(likelihood, 6, (1, 8, 8), scale=0.2, seed=seed), gray(6, (1, 8, 8), seed)
    errors = (x - likelihood.mean(raw)).square().flatten(1).sum(dim=1)
    best = optimal_log_sigma2(errors, 64)

    def total(log_sigma2: torch.Tensor) -> float:
        return float(likelihood.log_prob(raw, x, log_sigma2).double().sum())

    for shift in (-1.0, -0.05, 0.05, 1.0):
        assert total(best) > total(best + shift)
    # At a maximum the slope vanishes.
    variable = best.clone().requires_grad_()
    likelihood.log_prob(raw, x, variable).sum().backward()
    assert abs(float(variable.grad)) < 1e-2
    assert float(optimal_log_sigma2(torch.zeros(2), 64)) == pytest.approx(2 * math.log(MIN_SIGMA))


# -- Gray levels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [0.3, 3.0])
@pytest.mark.parametrize("name", DISCRETE)
def test_the_masses_of_all_gray_levels_are_one(name, scale, seed):
    likelihood = make_likelihood(name)
    likelihood.log_sigma2.fill_(-1.0 - 3 * seed)
    raw = raw_of(likelihood, 1, (1, 1), scale=scale, seed=seed)
    masses = likelihood.log_mass(raw.expand(256, -1, -1), GRAY).double().exp()
    assert float(masses.sum()) == pytest.approx(1, abs=2e-4)
    assert float(masses.min()) >= 0


def test_gaussian_masses_are_differences_of_the_distribution_function():
    likelihood = make_likelihood("gaussian")
    likelihood.log_sigma2.fill_(math.log(0.01))
    raw = torch.tensor([[[-0.2]]])
    normal = Normal(torch.tensor(0.3, dtype=torch.float64), 0.1)
    edges = (torch.arange(257, dtype=torch.float64) - 0.5) / 255
    cdf = normal.cdf(edges)
    cdf[0], cdf[-1] = 0, 1
    found = likelihood.log_mass(raw.expand(256, -1, -1), GRAY).double().exp()
    torch.testing.assert_close(found, cdf.diff(), rtol=1e-3, atol=1e-7)


def direct_logistic_mixture(raw: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Log mass of each value; raw (15,), x (n,), all in float64."""
    logits, means, log_scales = raw.astype(np.float64).reshape(3, 5)
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    means = means + np.linspace(0, 1, 5)
    scales = np.exp(np.clip(log_scales - 2, math.log(MIN_SIGMA / 4), 1.0))
    x = x[:, None]
    high = np.where(x > 254.5 / 255, 1.0, expit((x + 0.5 / 255 - means) / scales))
    low = np.where(x < 0.5 / 255, 0.0, expit((x - 0.5 / 255 - means) / scales))
    return np.log(((high - low) * weights).sum(axis=1))


@pytest.mark.parametrize("seed", range(5))
def test_logistic_mixture_is_the_direct_sum_in_double_precision(seed):
    likelihood = make_likelihood("logistic_mixture")
    raw = raw_of(likelihood, 1, (1, 1), seed=seed)
    expected = direct_logistic_mixture(
        raw.flatten().numpy(), GRAY.flatten().double().mul(255).round().div(255).numpy()
    )
    found = likelihood.log_mass(raw.expand(256, -1, -1), GRAY).double().numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    # As a density on [0, 1]: a level is 1/255 wide.
    density = likelihood.log_prob(raw.expand(256, -1, -1), GRAY).double().numpy()
    np.testing.assert_allclose(density, expected + math.log(255), rtol=2e-4, atol=2e-4)


def test_each_channel_of_a_logistic_mixture_has_its_own_components():
    likelihood = make_likelihood("logistic_mixture")
    raw, x = raw_of(likelihood, 2, (3, 2, 2)), gray(2, (3, 2, 2))
    own = raw.view(2, 15, 3, 2, 2)
    expected = np.zeros(2)
    for n, c, i, j in np.ndindex(2, 3, 2, 2):
        value = x[n, c, i, j].double().mul(255).round().div(255).reshape(1).numpy()
        expected[n] += direct_logistic_mixture(own[n, :, c, i, j].numpy(), value)[0]
    np.testing.assert_allclose(likelihood.log_mass(raw, x).numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_of_a_mixture_lies_within_its_means(seed):
    likelihood = make_likelihood("logistic_mixture")
    raw = raw_of(likelihood, 50, (1, 4), scale=2.0, seed=seed)
    means = raw.view(50, 3, 5, 4)[:, 1] + torch.linspace(0, 1, 5).view(1, 5, 1)
    means = means.clamp(0, 1)
    found = likelihood.mean(raw)[:, 0]
    assert torch.all(found >= means.amin(dim=1) - 1e-6)
    assert torch.all(found <= means.amax(dim=1) + 1e-6)
    # One component of all the weight: its mean, whatever the others.
    sure = raw.clone().view(50, 15, 1, 4)
    sure[:, 2] = 100
    expected = sure[:, 7, 0].add(0.5).clamp(0, 1)
    torch.testing.assert_close(likelihood.mean(sure.view(50, 15, 4))[:, 0], expected)


def test_bits_of_densities_are_those_of_masses():
    likelihood = make_likelihood("logistic_mixture")
    raw, x = raw_of(likelihood, 3, (1, 8, 8)), gray(3, (1, 8, 8))
    exact = -likelihood.log_mass(raw, x) / (64 * math.log(2))
    found = bits_per_dimension(likelihood.log_prob(raw, x), 64)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)
    # A Gaussian much wider than a level has nearly its density times the width, inside.
    wide = make_likelihood("gaussian")
    wide.log_sigma2.fill_(math.log(0.2**2))
    raw, x = raw_of(wide, 3, (1, 8, 8), scale=0.1), gray(3, (1, 8, 8)).clamp(1 / 255, 254 / 255)
    exact = -wide.log_mass(raw, x) / (64 * math.log(2))
    torch.testing.assert_close(
        bits_per_dimension(wide.log_prob(raw, x), 64), exact, rtol=1e-3, atol=1e-3
    )


# -- Extremes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0.0, 5.0, 100.0, 1e4])
@pytest.mark.parametrize("value", [0.0, 1 / 255, 0.5, 1.0])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradients_are_finite_at_the_extremes(name, value, size):
    likelihood = make_likelihood(name)
    likelihood.log_sigma2.fill_(2 * math.log(MIN_SIGMA))
    rows = torch.cat([-torch.eye(likelihood.n_outputs), torch.eye(likelihood.n_outputs)])
    rows = torch.cat([rows, -torch.ones_like(rows[:1]), torch.ones_like(rows[:1])])
    raw = (size * rows)[:, :, None].clone().requires_grad_()
    x = torch.full((len(rows), 1, 1), value)
    for part in (likelihood.log_prob, likelihood.log_mass):
        found = part(raw, x)
        assert found.isfinite().all()
        (gradient,) = torch.autograd.grad(found.sum(), raw)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", DISCRETE)
def test_a_mean_far_away_is_pulled_towards_the_value(name):
    """The gradient of the mass does not vanish where the mass is too small for a float."""
    likelihood = make_likelihood(name)
    likelihood.log_sigma2.fill_(2 * math.log(MIN_SIGMA))
    for away in (-30.0, 30.0):
        raw = torch.zeros(1, likelihood.n_outputs, 1)
        raw[:, 5:10] = away  # the means of the mixture
        if name != "logistic_mixture":
            raw[:, 0] = away
        raw.requires_grad_()
        (gradient,) = torch.autograd.grad(
            likelihood.log_mass(raw, torch.full((1, 1, 1), 0.5)).sum(), raw
        )
        means = gradient[0, 5:10] if name == "logistic_mixture" else gradient[0, :1]
        assert torch.all(means.sum() * -math.copysign(1, away) > 0)
