"""Class densities against mixtures whose moments are known."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from vaeaug.generator.density import fit_density


def gaussian(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mean = np.array([1.0, -2.0, 0.5])
    root = np.array([[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 0.6]])
    return mean + rng.standard_normal((n, 3)) @ root.T, mean, root @ root.T


def draws(density, n: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    size = density.means.shape[1]
    parts = [density.sample(rng.random(1), rng.standard_normal((1, size))) for _ in range(n)]
    return np.concatenate(parts)


def test_moments_of_a_gaussian_come_back():
    n = 4000
    z, mean, covariance = gaussian(n)
    density = fit_density(z, np.zeros_like(z), seed=0)
    made = draws(density, n)
    # Five standard errors of both means together.
    bound = 5 * np.sqrt(2 * np.diag(covariance) / n)
    assert np.all(np.abs(made.mean(axis=0) - mean) < bound)
    spread = 5 * np.sqrt(2 * 2 / n) * np.diag(covariance).max()
    assert np.all(np.abs(np.cov(made.T) - covariance) < spread)


def test_bic_finds_one_component_and_several():
    z, _, _ = gaussian(600)
    assert len(fit_density(z, np.zeros_like(z), seed=0).weights) == 1
    apart = np.concatenate([z, z + 20, z - 20])
    density = fit_density(apart, np.zeros_like(apart), seed=0)
    assert len(density.weights) == 3
    assert density.weights == pytest.approx([1 / 3] * 3, abs=0.02)
    assert density.kind.startswith("gmm (3 ")


def test_log_prob_is_scipys():
    z, _, _ = gaussian(30)
    density = fit_density(z, np.zeros_like(z), seed=0)
    covariance = density.choleskys[0] @ density.choleskys[0].T
    expected = multivariate_normal(density.means[0], covariance).logpdf(z)
    np.testing.assert_allclose(density.log_prob(z), expected, rtol=1e-6)


def test_the_posterior_variance_is_added():
    z, _, _ = gaussian(500)
    narrow = fit_density(z, np.zeros_like(z), seed=0)
    wide = fit_density(z, np.full_like(z, 2.0), seed=0)
    difference = (
        wide.choleskys[0] @ wide.choleskys[0].T - narrow.choleskys[0] @ narrow.choleskys[0].T
    )
    np.testing.assert_allclose(difference, 2 * np.eye(3), atol=1e-9)


def test_small_classes_fall_back_to_one_normal():
    z, _, _ = gaussian(12)
    assert fit_density(z, np.ones_like(z), seed=0).kind == "normal (small class)"
    one = fit_density(z[:1], np.full((1, 3), 0.25), seed=0)
    assert one.kind == "normal (one image)"
    np.testing.assert_allclose(one.means[0], z[0])
    np.testing.assert_allclose(one.choleskys[0], 0.5 * np.eye(3), atol=1e-5)


def test_the_uniform_number_chooses_the_component():
    z, _, _ = gaussian(300)
    density = fit_density(np.concatenate([z, z + 30]), np.zeros((600, 3)), seed=0)
    assert len(density.weights) == 2
    at = density.weights[0] + np.array([-1e-6, 1e-6])
    np.testing.assert_array_equal(density.sample(at, np.zeros((2, 3))), density.means)


@pytest.mark.parametrize("n", [2, 3])
def test_fewer_images_than_dimensions_still_make_a_density(n):
    z = np.random.default_rng(0).standard_normal((n, 6))
    density = fit_density(z, np.zeros_like(z), seed=0)
    assert density.kind == "normal (small class)"
    assert np.isfinite(density.log_prob(z)).all()


def test_equal_latents_make_a_density():
    z = np.ones((100, 3), np.float32)
    density = fit_density(z, np.full_like(z, 0.01), seed=0)
    np.testing.assert_allclose(density.weights @ density.means, 1, atol=1e-6)
    assert np.isfinite(density.log_prob(z)).all()


def test_the_same_seed_fits_the_same_density():
    z, _, _ = gaussian(120)
    z = np.concatenate([z, z + 4])
    first, second = (fit_density(z, np.zeros_like(z), seed=7) for _ in range(2))
    for name in ("weights", "means", "choleskys"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_log_prob_of_a_mixture_is_that_of_its_parts():
    z, _, _ = gaussian(200)
    density = fit_density(np.concatenate([z, z + 9]), np.zeros((400, 3)), seed=0)
    assert len(density.weights) == 2
    parts = [
        weight * multivariate_normal(mean, cholesky @ cholesky.T).pdf(z)
        for weight, mean, cholesky in zip(
            density.weights, density.means, density.choleskys, strict=True
        )
    ]
    np.testing.assert_allclose(density.log_prob(z), np.log(sum(parts)), rtol=1e-9)


def test_long_latents_get_diagonal_mixtures_whose_moments_come_back():
    # 130 units, over the 128 up to which full covariances are tried; unit j has its own spread.
    n, size = 600, 130
    rng = np.random.default_rng(0)
    spread = np.linspace(0.5, 2.0, size)
    centres = np.stack([np.zeros(size), np.full(size, 12.0)])
    part = np.arange(n) % 2
    z = centres[part] + spread * rng.standard_normal((n, size))
    density = fit_density(z, np.full_like(z, 0.25), seed=0)
    assert density.kind == "gmm (2 diag, by BIC)"
    assert density.choleskys.shape == (2, size, size)
    for k in np.argsort(density.means[:, 0]):
        own = centres[int(density.means[k, 0] > 6)]
        covariance = density.choleskys[k] @ density.choleskys[k].T
        assert np.all(covariance[~np.eye(size, dtype=bool)] == 0)
        # Five standard errors of 300 latents.
        assert np.all(np.abs(density.means[k] - own) < 5 * spread / np.sqrt(n / 2))
        error = np.abs(np.diag(covariance) - (spread**2 + 0.25))
        assert np.all(error < 5 * np.sqrt(2 / (n / 2)) * spread**2)
    assert np.isfinite(density.log_prob(z)).all()


@pytest.mark.parametrize(("size", "kind"), [(12, "full"), (130, "diag")])
def test_only_short_latents_get_full_covariances(size, kind):
    rng = np.random.default_rng(0)
    # One strong common factor, which no diagonal covariance can hold: BIC would take a full one.
    z = 0.1 * rng.standard_normal((1200, size)) + rng.standard_normal((1200, 1))
    assert f" {kind}, by BIC" in fit_density(z, np.zeros_like(z), seed=0).kind


def test_one_normal_where_a_mixture_is_not_wanted():
    z, mean, covariance = gaussian(4000)
    density = fit_density(z, np.full_like(z, 0.5), seed=0, mixture=False)
    assert density.kind == "normal"
    assert np.all(np.abs(density.means[0] - mean) < 5 * np.sqrt(np.diag(covariance) / 4000))
    found = density.choleskys[0] @ density.choleskys[0].T
    bound = 5 * np.sqrt(2 / 4000) * np.diag(covariance).max()
    assert np.all(np.abs(found - covariance - 0.5 * np.eye(3)) < bound)
