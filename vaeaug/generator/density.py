"""Class densities in latent space, fitted after training.

The aggregate posterior of a trained VAE is not its prior, and samples from a density fitted to it
are better (Ghosh et al. 2020, arXiv:1903.12436). Each class gets a normal or a Gaussian mixture.
"""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped

# Components tried for a mixture; the Bayesian information criterion chooses.
COMPONENTS = (1, 2, 3, 5, 8)
# A mixture component must have at least so many latents to stand on.
LATENTS_PER_COMPONENT = 20
# Latents used to fit one class: more does not change the chosen mixture.
MAX_LATENTS = 5_000
# Longer latents get diagonal mixtures only.
MAX_FULL = 128


@dataclass(frozen=True)
class ClassDensity:
    """A Gaussian mixture over z; a normal is a mixture of one.

    Attributes:
        weights: Mixture weights, shape (k,), summing to 1.
        means: Component means, shape (k, z).
        choleskys: Lower Cholesky factors of the covariances, shape (k, z, z).
        kind: "normal" or "gmm", and how it was chosen, for the run's output.
    """

    weights: Float64[np.ndarray, " k"]
    means: Float64[np.ndarray, "k z"]
    choleskys: Float64[np.ndarray, "k z z"]
    kind: str

    def sample(
        self,
        uniform: Float64[np.ndarray, " n"],
        normal: Shaped[np.ndarray, "n z"],
        *,
        temperature: float = 1.0,
    ) -> Float64[np.ndarray, "n z"]:
        """Draws, each a function of one uniform number and z standard normal ones.

        Args:
            uniform: In [0, 1); they choose the components.
            normal: Standard normal draws.
            temperature: Scale of the noise within the component.

        Returns:
            Latents.
        """
        edges = np.cumsum(self.weights)
        chosen = np.minimum(np.searchsorted(edges, uniform, side="right"), len(edges) - 1)
        noise = np.empty(normal.shape)
        for row, component in enumerate(chosen.tolist()):
            # One by one: a product of many rows could round differently with their number.
            noise[row] = self.choleskys[component] @ normal[row]
        return self.means[chosen] + temperature * noise

    def log_prob(self, z: Shaped[np.ndarray, "n z"]) -> Float64[np.ndarray, " n"]:
        """Compute the log density.

        Args:
            z: Latents.

        Returns:
            Nats per latent.
        """
        from scipy.linalg import solve_triangular
        from scipy.special import logsumexp

        parts = []
        for weight, mean, cholesky in zip(self.weights, self.means, self.choleskys, strict=True):
            white = solve_triangular(cholesky, (z - mean).T, lower=True)
            log_det = np.log(np.diag(cholesky)).sum()
            quadratic = 0.5 * np.square(white).sum(axis=0)
            parts.append(
                math.log(max(weight, 1e-300))
                - quadratic
                - log_det
                - 0.5 * len(mean) * math.log(2 * math.pi)
            )
        return logsumexp(np.stack(parts), axis=0)


def fit_densities(
    means: Shaped[np.ndarray, "n z"],
    variances: Shaped[np.ndarray, "n z"],
    labels: Int64[np.ndarray, " n"],
    n_classes: int,
    *,
    seed: int,
    mixture: bool = True,
    threads: int = 1,
) -> list[ClassDensity | None]:
    """Fit the aggregate posterior of every class, as `fit_density` does.

    Args:
        means: Posterior means of the training images.
        variances: Their posterior variances.
        labels: Their classes; -1 for an unknown one.
        n_classes: How many there are.
        seed: Of the mixtures' initialisation.
        mixture: False: one normal, whatever the size of the class.
        threads: Classes that are fitted at once, which changes nothing else.

    Returns:
        By class, the density; None for a class without images.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    def fit(label: int) -> ClassDensity | None:
        rows = np.flatnonzero(labels == label)
        if not len(rows):
            return None
        return _fitted(means[rows], variances[rows], seed, mixture)

    # The many small matrix products of a mixture take several times as long where threads share
    # each of them (seven times on two cores; minutes in place of seconds on sixteen).
    with (
        warnings.catch_warnings(),
        threadpool_limits(1),
        ThreadPoolExecutor(threads, "densities") as executor,
    ):
        # A mixture that has not converged is still compared by its BIC.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return list(executor.map(fit, range(n_classes)))


def fit_density(
    means: Shaped[np.ndarray, "n z"],
    variances: Shaped[np.ndarray, "n z"],
    *,
    seed: int,
    mixture: bool = True,
) -> ClassDensity:
    """Fit the aggregate posterior of one class.

    A mixture is fitted to the posterior means; the average posterior variance is then added to each
    component, which is the exact convolution when every posterior has that variance. Components and
    covariance shape are chosen by BIC where there are enough latents; a small class gets one
    normal, shrunk towards a diagonal (Ledoit & Wolf 2004).

    Args:
        means: Posterior means of the class's training images.
        variances: Their posterior variances.
        seed: Of the mixture's initialisation.
        mixture: False: one normal, whatever the size of the class.

    Returns:
        The density.
    """
    labels = np.zeros(len(means), np.int64)
    (density,) = fit_densities(means, variances, labels, 1, seed=seed, mixture=mixture)
    assert density is not None
    return density


def _fitted(means: np.ndarray, variances: np.ndarray, seed: int, mixture: bool) -> ClassDensity:
    mean_variance = np.diag(variances.mean(axis=0, dtype=np.float64))
    latents = means.astype(np.float64)
    if len(latents) < 2:
        return _normal(latents.mean(axis=0), mean_variance, "normal (one image)")
    n_fit = min(len(latents), MAX_LATENTS)
    if len(latents) > n_fit:
        latents = latents[np.random.default_rng(seed).permutation(len(latents))[:n_fit]]
    largest = n_fit // LATENTS_PER_COMPONENT
    if largest < 2 or not mixture:
        from sklearn.covariance import ledoit_wolf

        covariance, _ = ledoit_wolf(latents)
        kind = "normal (small class)" if largest < 2 else "normal"
        return _normal(latents.mean(axis=0), covariance + mean_variance, kind)
    return _mixture(latents, mean_variance, largest, seed)


def _mixture(
    latents: np.ndarray, mean_variance: np.ndarray, largest: int, seed: int
) -> ClassDensity:
    from sklearn.mixture import GaussianMixture

    best = None
    best_bic = math.inf
    # A full covariance of so many units has more parameters than any class has latents.
    types = ("full", "diag") if latents.shape[1] <= MAX_FULL else ("diag",)
    for covariance_type in types:
        last_bic = math.inf
        for n_components in (n for n in COMPONENTS if n <= largest):
            mixture = GaussianMixture(
                n_components,
                covariance_type=covariance_type,
                reg_covar=1e-4,
                max_iter=60,
                random_state=seed % 2**32,
            ).fit(latents)
            bic = mixture.bic(latents)
            if bic < best_bic:
                best, best_bic = mixture, bic
            elif bic > last_bic:
                break  # it has turned up: larger mixtures are not tried
            last_bic = bic
    assert best is not None
    covariances = best.covariances_
    if best.covariance_type == "diag":
        covariances = np.stack([np.diag(variances) for variances in covariances])
    return ClassDensity(
        weights=np.asarray(best.weights_, dtype=np.float64),
        means=np.asarray(best.means_, dtype=np.float64),
        choleskys=np.linalg.cholesky(covariances + mean_variance),
        kind=f"gmm ({best.n_components} {best.covariance_type}, by BIC)",
    )


def _normal(mean: np.ndarray, covariance: np.ndarray, kind: str) -> ClassDensity:
    jitter = 1e-6 * np.eye(len(mean))
    return ClassDensity(np.ones(1), mean[None], np.linalg.cholesky(covariance + jitter)[None], kind)
