"""The bound and the networks, against known answers."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vaeaug.models import CVAE, ElboTerms, SeparateCVAE, SmallClassifier
from vaeaug.models.cvae import gaussian_kl, optimal_log_sigma2

SHAPES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (13, 9, 1), (64, 48, 4), (128, 128, 3)]


def small(shape=(8, 8, 1), n_classes=3, **keys) -> CVAE:
    torch.manual_seed(0)
    return CVAE(shape, n_classes, latent_dim=4, width=8, class_embedding=4, **keys)


@pytest.mark.parametrize("seed", range(5))
def test_kl_is_that_of_torch_distributions(seed):
    generator = torch.Generator().manual_seed(seed)
    mean, logvar, prior_mean, prior_logvar = torch.randn(4, 6, 3, generator=generator)
    expected = kl_divergence(
        Normal(mean, (logvar / 2).exp()), Normal(prior_mean, (prior_logvar / 2).exp())
    )
    torch.testing.assert_close(gaussian_kl(mean, logvar, prior_mean, prior_logvar), expected)


def test_reconstruction_is_the_gaussian_log_likelihood_in_nats():
    model = small().eval()
    model.log_sigma2.fill_(math.log(0.3**2))
    x, y, noise = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1]), torch.randn(5, 4)
    terms = model.elbo(x, y, noise=noise)
    mean, logvar = model.posterior(x, y)
    decoded = model.decode(mean + (logvar / 2).exp() * noise, y)
    expected = -Normal(decoded, 0.3).log_prob(x).sum(dim=(1, 2, 3))
    torch.testing.assert_close(terms.reconstruction, expected)
    torch.testing.assert_close(terms.elbo, -(terms.reconstruction + terms.kl.sum(dim=1)))


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
        terms = ElboTerms(reconstruction[None], kl[None], expected_error[None])
        return float(terms.elbo)

    assert elbo(mean, variance) == pytest.approx(float(evidence), abs=1e-9)
    assert elbo(mean + 0.1, variance) < float(evidence) - 1e-3
    assert elbo(mean, variance * 1.5) < float(evidence) - 1e-3


def test_free_bits_and_beta():
    kl = torch.tensor([[0.1, 3.0], [0.3, 1.0]])
    terms = ElboTerms(torch.tensor([1.0, 3.0]), kl, torch.zeros(2))
    assert float(terms.loss()) == pytest.approx(2 + 0.2 + 2.0)
    assert float(terms.loss(beta=4.0)) == pytest.approx(2 + 4 * 2.2)
    assert float(terms.loss(free_bits=0.5)) == pytest.approx(2 + 0.5 + 2.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_from_8_to_128_odd_and_oblong(shape):
    model = small(shape)
    x, y = torch.rand(2, shape[2], *shape[:2]), torch.tensor([0, 2])
    mean, logvar = model.posterior(x, y)
    assert mean.shape == logvar.shape == (2, 4)
    assert model.decode(mean, y).shape == x.shape
    assert max(model.grid) <= 7
    assert SmallClassifier(shape, 3)(x).shape == (2, 3)


@pytest.mark.parametrize("shape", [(7, 8, 1), (8, 129, 1)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="expected sides from 8 to 128 pixels, got"):
        small(shape)


def test_parameters_are_either_the_trunks_or_one_classes():
    model = small()
    trunk, rows = model.trunk_parameters(), model.class_parameters()
    assert trunk.keys() | rows.keys() == dict(model.named_parameters()).keys()
    assert not trunk.keys() & rows.keys()
    assert all(each.shape[0] == 3 for each in rows.values())
    assert {"embedding.weight", "prior_mean.weight", "prior_logvar.weight"} < rows.keys()


def test_a_class_moves_its_own_rows_alone():
    model = small()
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([1, 1, 1, 1])
    model.elbo(x, y, noise=torch.randn(4, 4)).loss().backward()
    for name, parameter in model.class_parameters().items():
        assert parameter.grad is not None, name
        assert parameter.grad[[0, 2]].abs().max() == 0, name
        if name != "embedding.weight" and "encoder" not in name:
            assert parameter.grad[1].abs().max() > 0, name


def test_separate_models_answer_for_their_class():
    torch.manual_seed(0)
    model = SeparateCVAE.build((8, 8, 1), 3, latent_dim=4, width=8, class_embedding=4).eval()
    x, y = torch.rand(6, 1, 8, 8), torch.tensor([2, 0, 1, 2, 0, 1])
    noise = torch.randn(6, 4)
    terms = model.elbo(x, y, noise=noise)
    for row in range(6):
        one = slice(row, row + 1)
        alone = model.of_class(int(y[row])).elbo(
            x[one], torch.zeros(1, dtype=torch.long), noise=noise[one]
        )
        torch.testing.assert_close(terms.elbo[one], alone.elbo, rtol=1e-4, atol=1e-3)
    mean, logvar = model.prior(y)
    assert np.all(mean.detach().numpy() == 0)
    assert np.all(logvar.detach().numpy() == 0)


@pytest.mark.parametrize(
    ("shift", "widen"), [(0.0, 0.0), (0.3, 0.0), (-0.1, 0.0), (0.0, 0.5), (0.0, -0.5), (0.2, 1.0)]
)
def test_the_bound_of_the_model_lies_below_the_evidence_by_the_kl_to_the_posterior(shift, widen):
    """`CVAE.elbo` itself, around a linear decoder whose evidence is known."""

    class Linear(CVAE):
        def posterior(self, x, y):
            variance = 1 / (1 + weights.square().sum(dim=0) / sigma2)
            mean = (x.flatten(1) - bias) @ weights / sigma2 * variance
            return mean + shift, (variance.log() + widen).expand_as(mean)

        def decode(self, z, y):
            return (z @ weights.T + bias).view(-1, 1, 8, 8)

    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(64, 2, generator=generator))
    weights, bias, sigma2 = basis * torch.tensor([1.5, 0.4]), torch.full((64,), 0.5), 0.2
    x = torch.rand(9, 1, 8, 8, generator=generator)
    model = Linear((8, 8, 1), 1, latent_dim=2, width=8)
    model.log_sigma2.fill_(math.log(sigma2))
    y = torch.zeros(9, dtype=torch.long)
    # The estimate is quadratic in the noise, so these four points average it exactly.
    points = math.sqrt(2) * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    with torch.no_grad():
        bounds = [model.elbo(x, y, noise=point.expand(9, 2)).elbo for point in points]
    covariance = weights @ weights.T + sigma2 * torch.eye(64)
    evidence = MultivariateNormal(bias, covariance).log_prob(x.flatten(1))
    gap = evidence - torch.stack(bounds).mean(dim=0)
    approximate = model.posterior(x, y)
    exact = (approximate[0] - shift, approximate[1] - widen)
    expected = gaussian_kl(*approximate, *exact).sum(dim=1)
    torch.testing.assert_close(gap, expected, rtol=1e-2, atol=2e-3)


def test_training_uses_the_optimal_sigma_of_its_batch():
    model, y = small(), torch.tensor([0, 1, 2])
    x, noise = torch.rand(3, 1, 8, 8), torch.randn(3, 4)
    optimal = model.elbo(x, y, noise=noise, optimal_sigma=True)
    calibrated = model.elbo(x, y, noise=noise)
    assert optimal.reconstruction.mean() < calibrated.reconstruction.mean()
    model.log_sigma2.copy_(optimal_log_sigma2(calibrated.squared_error, 64))
    again = model.elbo(x, y, noise=noise)
    torch.testing.assert_close(optimal.reconstruction, again.reconstruction)


def test_a_new_class_is_its_embedding_alone():
    model = small()
    rows = [each for name, each in model.named_parameters() if ".rows." in name]
    assert len(rows) == len(model.encoder_blocks) + len(model.decoder_blocks) + 1
    assert not any(each.any() for each in [*rows, *model.prior(torch.arange(3))])


def test_log_variances_are_bounded():
    model, y = small(), torch.tensor([0, 1, 2])
    with torch.no_grad():
        model.to_posterior.bias.fill_(1e6)
        model.prior_logvar.weight.fill_(-1e6)
    assert model.posterior(torch.rand(3, 1, 8, 8), y)[1].max() == 10
    assert model.prior(y)[1].min() == -10
    assert model.elbo(torch.rand(3, 1, 8, 8), y, noise=torch.randn(3, 4)).kl.isfinite().all()
