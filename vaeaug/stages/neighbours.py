"""Are synthetic samples where the real ones are, and everywhere there? Nearest neighbours say."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int64

# Neighbours kept of each point, in multiples of k: the k-th of half of the points is among them
# but for a chance below 1e-12, and is looked for among all then.
_KEPT = 12


def coverage(
    real: Float[np.ndarray, "n f"], synthetic: Float[np.ndarray, "m f"], *, k: int = 5
) -> float:
    """Share of real samples that have a synthetic one in their neighbourhood.

    Naeem et al. 2020 (arXiv:2002.09797), eq. 4. A real sample's neighbourhood reaches to its k-th
    nearest other real sample. Two samples of one distribution give about
    ``1 - (n / (n + m))**k``, which is 0.97 for equal numbers and k = 5; compare equal numbers only.

    Args:
        real: Features of real images.
        synthetic: Features of synthetic images.
        k: Neighbour to which the neighbourhood reaches.

    Returns:
        The share, 0 to 1.

    Raises:
        ValueError: If the features do not match or there are not more than k of them.
    """
    from sklearn.neighbors import NearestNeighbors

    _check_features(real, synthetic, k)
    nearest, _ = NearestNeighbors(n_neighbors=1).fit(synthetic).kneighbors(real)
    return float((nearest[:, 0] <= _radii(real, k)).mean())


def density(
    real: Float[np.ndarray, "n f"], synthetic: Float[np.ndarray, "m f"], *, k: int = 5
) -> float:
    """Mean number of real neighbourhoods around a synthetic sample, divided by k.

    Naeem et al. 2020 (arXiv:2002.09797), eq. 3. About 1 for two samples of one distribution; more
    where the synthetic ones crowd where real ones are dense.

    Args:
        real: Features of real images.
        synthetic: Features of synthetic images.
        k: Neighbour to which the neighbourhood reaches.

    Returns:
        The density, at least 0.

    Raises:
        ValueError: If the features do not match or there are not more than k of them.
    """
    _check_features(real, synthetic, k)
    n_inside = sum(int(block.sum()) for block in _inside(synthetic, real, _radii(real, k)))
    return n_inside / (k * len(synthetic))


def precision(
    real: Float[np.ndarray, "n f"], synthetic: Float[np.ndarray, "m f"], *, k: int = 5
) -> float:
    """Share of synthetic samples within the neighbourhood of any real one.

    Kynkäänniemi et al. 2019 (arXiv:1904.06991), eq. 2.

    Args:
        real: Features of real images.
        synthetic: Features of synthetic images.
        k: Neighbour to which the neighbourhood reaches.

    Returns:
        The share, 0 to 1.

    Raises:
        ValueError: If the features do not match or there are not more than k of them.
    """
    _check_features(real, synthetic, k)
    hits = sum(int(block.any(axis=1).sum()) for block in _inside(synthetic, real, _radii(real, k)))
    return hits / len(synthetic)


def recall(
    real: Float[np.ndarray, "n f"], synthetic: Float[np.ndarray, "m f"], *, k: int = 5
) -> float:
    """Share of real samples within the neighbourhood of any synthetic one: `precision`, reversed.

    An outlying synthetic sample has a wide neighbourhood, so `coverage` is the stricter metric.

    Args:
        real: Features of real images.
        synthetic: Features of synthetic images.
        k: Neighbour to which the neighbourhood reaches.

    Returns:
        The share, 0 to 1.

    Raises:
        ValueError: If the features do not match or there are not more than k of them.
    """
    _check_features(real, synthetic, k)
    return precision(synthetic, real, k=k)


class Neighbourhoods:
    """The four metrics of two sets and of parts of them, from distances that are computed once.

    Holds three matrices of n * m distances, so both sets should be of some thousands at most.

    Args:
        real: Features of real images.
        synthetic: Features of synthetic images.
        k: Neighbour to which a neighbourhood reaches.

    Raises:
        ValueError: If the features do not match or there are not more than k of them.
    """

    def __init__(
        self, real: Float[np.ndarray, "n f"], synthetic: Float[np.ndarray, "m f"], *, k: int
    ) -> None:
        from sklearn.metrics import pairwise_distances

        _check_features(real, synthetic, k)
        self.k = k
        self._across = pairwise_distances(real, synthetic)
        self._real, self._synthetic = _DistancesWithin(real, k), _DistancesWithin(synthetic, k)

    def metrics(
        self,
        real_rows: Int64[np.ndarray, " a"] | None = None,
        synthetic_rows: Int64[np.ndarray, " b"] | None = None,
    ) -> dict[str, float]:
        """Compute precision, recall, density and coverage.

        Args:
            real_rows: Rows of the real set, more than k; None: all.
            synthetic_rows: Rows of the synthetic set, more than k; None: all.

        Returns:
            The metrics of these rows, by name.
        """
        n, m = self._across.shape
        real_rows = np.arange(n) if real_rows is None else real_rows
        synthetic_rows = np.arange(m) if synthetic_rows is None else synthetic_rows
        across = self._across[np.ix_(real_rows, synthetic_rows)]
        in_real = across <= self._real.radii(real_rows)[:, None]
        in_synthetic = across <= self._synthetic.radii(synthetic_rows)
        return {
            "precision": float(in_real.any(axis=0).mean()),
            "recall": float(in_synthetic.any(axis=1).mean()),
            "density": float(in_real.sum() / (self.k * len(synthetic_rows))),
            "coverage": float(in_real.any(axis=1).mean()),
        }


class _DistancesWithin:
    """Distances within one set, sorted as far as they are needed."""

    def __init__(self, points: np.ndarray, k: int) -> None:
        from sklearn.metrics import pairwise_distances

        self.k = k
        self._distances = pairwise_distances(points)
        np.fill_diagonal(self._distances, np.inf)
        kept = min(len(points) - 1, _KEPT * k)
        nearest = np.argpartition(self._distances, kept - 1, axis=1)[:, :kept]
        order = np.argsort(np.take_along_axis(self._distances, nearest, axis=1), axis=1)
        self._nearest = np.take_along_axis(nearest, order, axis=1)

    def radii(self, rows: np.ndarray) -> np.ndarray:
        """Distance of each of these points to its k-th nearest other one of them."""
        among = np.zeros(len(self._distances), bool)
        among[rows] = True
        nearest = self._nearest[rows]
        n_among = among[nearest].cumsum(axis=1)
        column = (n_among >= self.k).argmax(axis=1)
        radii = self._distances[rows, nearest[np.arange(len(rows)), column]]
        for short in np.flatnonzero(n_among[:, -1] < self.k):
            distances = self._distances[rows[short], rows]
            radii[short] = np.partition(distances, self.k - 1)[self.k - 1]
        return radii


def kernel_distance(real: Float[np.ndarray, "n f"], synthetic: Float[np.ndarray, "m f"]) -> float:
    """Kernel distance (KID): unbiased squared maximum mean discrepancy, cubic polynomial kernel.

    Binkowski et al. 2018 (arXiv:1801.01401), ``k(a, b) = (a . b / f + 1)**3``. Equal distributions
    give 0 on average, at any number of samples, hence sometimes less. Features are taken as they
    are; `measure_fidelity` standardises them first.

    Args:
        real: Features of real images.
        synthetic: Features of synthetic images.

    Returns:
        The squared distance.

    Raises:
        ValueError: If the features do not match or there are fewer than 2 of a kind.
    """
    _check_features(real, synthetic, 1)
    one_stratum = [np.zeros(len(features), np.int64) for features in (real, synthetic)]
    return Kernel(real, synthetic, *one_stratum).distance()


class Kernel:
    """Kernel distance of two sets that were drawn by strata, and of parts of them.

    Where both sets have the same number of each class, two images of one set are less often of one
    class than two of different sets, as an image is not paired with itself; the plain estimate is
    then below 0 for equal distributions. Averaging pairs by strata, and strata by their share,
    takes that bias away. With one stratum it is `kernel_distance`.

    Args:
        real: Features of real images.
        synthetic: Features of synthetic images.
        real_strata: Stratum of each real image, 0 up to the number of strata.
        synthetic_strata: Stratum of each synthetic image; a stratum has at least 2 images of
            either kind.
    """

    def __init__(
        self,
        real: Float[np.ndarray, "n f"],
        synthetic: Float[np.ndarray, "m f"],
        real_strata: Int64[np.ndarray, " n"],
        synthetic_strata: Int64[np.ndarray, " m"],
    ) -> None:
        real, synthetic = np.asarray(real, np.float64), np.asarray(synthetic, np.float64)
        n_features = real.shape[1]
        self._within = [(kind @ kind.T / n_features + 1) ** 3 for kind in (real, synthetic)]
        for kernel in self._within:
            np.fill_diagonal(kernel, 0)
        self._across = (real @ synthetic.T / n_features + 1) ** 3
        one_hot = np.eye(int(real_strata.max()) + 1)
        self._strata = [one_hot[real_strata], one_hot[synthetic_strata]]
        self._share = self._strata[0].mean(axis=0)

    def distance(
        self,
        real_rows: Int64[np.ndarray, " a"] | None = None,
        synthetic_rows: Int64[np.ndarray, " b"] | None = None,
    ) -> float:
        """Compute the distance.

        Args:
            real_rows: Rows of the real set, at least 2 of each stratum; None: all.
            synthetic_rows: Rows of the synthetic set, likewise; None: all.

        Returns:
            The squared distance of these rows.
        """
        rows = [
            np.arange(len(kernel)) if given is None else given
            for kernel, given in zip(self._within, (real_rows, synthetic_rows), strict=True)
        ]
        strata = [strata[chosen] for strata, chosen in zip(self._strata, rows, strict=True)]
        n, m = (of_kind.sum(axis=0) for of_kind in strata)
        # Gretton et al. 2012, eq. 3: pairs within either set, less twice the pairs across.
        total = -2 * self._mean(self._across[np.ix_(*rows)], strata[0], strata[1], np.outer(n, m))
        for kernel, chosen, of_kind, size in zip(self._within, rows, strata, (n, m), strict=True):
            pairs = np.outer(size, size) - np.diag(size)
            total += self._mean(kernel[np.ix_(chosen, chosen)], of_kind, of_kind, pairs)
        return total

    def _mean(
        self, kernel: np.ndarray, left: np.ndarray, right: np.ndarray, pairs: np.ndarray
    ) -> float:
        return float(self._share @ (left.T @ kernel @ right / pairs) @ self._share)


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Distance of each point to its k-th nearest other point."""
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=k).fit(points).kneighbors()
    return distances[:, -1]


def _inside(
    points: np.ndarray, centres: np.ndarray, radii: np.ndarray
) -> Iterator[Bool[np.ndarray, "block n"]]:
    """Which points lie in which balls, in blocks of points."""
    from sklearn.metrics import pairwise_distances_chunked

    for distances in pairwise_distances_chunked(points, centres):
        yield distances <= radii


def _check_features(real: np.ndarray, synthetic: np.ndarray, k: int) -> None:
    if real.ndim != 2 or synthetic.ndim != 2 or real.shape[1] != synthetic.shape[1]:
        raise ValueError(
            "features: expected real (n, f) and synthetic (m, f), got shapes "
            f"{real.shape} and {synthetic.shape}"
        )
    if not 1 <= k < min(len(real), len(synthetic)):
        raise ValueError(
            f"k: expected 1 up to less than the number of samples, {len(real)} real and "
            f"{len(synthetic)} synthetic, got {k}"
        )
