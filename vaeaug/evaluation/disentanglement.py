"""How well latent units separate known factors of variation: MIG, SAP and DCI."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

# Values are cut into so many bins of equal width for mutual information, as Locatello et al. do.
BINS = 20
# Samples that the predictors are fitted to; the others judge.
TRAINED = 0.7


@dataclass(frozen=True)
class Disentanglement:
    """The figures, each from 0 to 1, higher is better.

    Attributes:
        mig: Mutual information gap (Chen et al. 2018, arXiv:1802.04942): the gap between the two
            units that know most of a factor, as a part of its entropy, averaged over factors.
        sap: Separated attribute predictability (Kumar et al. 2018, arXiv:1711.00848): the gap
            between the two units from which a linear regression predicts a factor best.
        disentanglement: DCI (Eastwood & Williams 2018): whether a unit serves one factor.
        completeness: DCI: whether one unit serves a factor.
        informativeness: DCI: R^2 of factors predicted from all units, on held-out samples.
    """

    mig: float
    sap: float
    disentanglement: float
    completeness: float
    informativeness: float


def measure_disentanglement(
    latents: Float[np.ndarray, "n z"], factors: Float[np.ndarray, "m f"], *, seed: int = 0
) -> Disentanglement:
    """Compare latents with the factors that samples were made from.

    Args:
        latents: Posterior means.
        factors: Numeric values of the known factors, m = n.
        seed: Of the split and of the trees.

    Returns:
        The figures.

    Raises:
        ValueError: If there are fewer than two units, other numbers of rows, or a factor that does
            not vary.
    """
    if latents.ndim != 2 or factors.ndim != 2 or len(latents) != len(factors):
        raise ValueError(
            "measure_disentanglement: expected latents (n, z) and factors (n, f), got shapes "
            f"{latents.shape} and {factors.shape}"
        )
    if latents.shape[1] < 2:
        raise ValueError(
            f"measure_disentanglement: expected two latent units or more, got {latents.shape[1]}"
        )
    if constant := np.flatnonzero(factors.std(axis=0) == 0).tolist():
        raise ValueError(f"measure_disentanglement: factors {constant} do not vary")
    latents, factors = latents.astype(np.float64), factors.astype(np.float64)
    importance, score = _importance(latents, factors, seed)
    return Disentanglement(
        mig=_information_gap(latents, factors),
        sap=_predictability_gap(latents, factors),
        disentanglement=_one_sidedness(importance),
        completeness=_one_sidedness(importance.T),
        informativeness=score,
    )


def _gap(of_units: Float64[np.ndarray, "z f"]) -> Float64[np.ndarray, " f"]:
    ordered = np.sort(of_units, axis=0)
    return ordered[-1] - ordered[-2]


def _information_gap(
    latents: Float64[np.ndarray, "n z"], factors: Float64[np.ndarray, "n f"]
) -> float:
    from sklearn.metrics import mutual_info_score

    units, known = (np.stack([_binned(v) for v in each.T]) for each in (latents, factors))
    information = np.array([[mutual_info_score(k, u) for k in known] for u in units])
    entropy = np.array([mutual_info_score(k, k) for k in known])
    return float((_gap(information) / entropy).mean())


def _binned(values: Float64[np.ndarray, " n"]) -> np.ndarray:
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        return np.searchsorted(distinct, values)
    return np.digitize(values, np.histogram_bin_edges(values, BINS)[1:-1])


def _predictability_gap(
    latents: Float64[np.ndarray, "n z"], factors: Float64[np.ndarray, "n f"]
) -> float:
    spread = latents.std(axis=0)
    z = (latents - latents.mean(axis=0)) / np.where(spread > 0, spread, 1)
    v = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    return float(_gap((z.T @ v / len(z)) ** 2).mean())


def _importance(
    latents: Float64[np.ndarray, "n z"], factors: Float64[np.ndarray, "n f"], seed: int
) -> tuple[Float64[np.ndarray, "z f"], float]:
    """Importance of each unit for each factor, and how well all units predict the factors."""
    from sklearn.ensemble import GradientBoostingRegressor

    order = np.random.default_rng(seed).permutation(len(latents))
    train, test = np.split(order, [int(TRAINED * len(order))])
    importance, scores = [], []
    for factor in factors.T:
        trees = GradientBoostingRegressor(random_state=seed, subsample=0.5)
        trees.fit(latents[train], factor[train])
        importance.append(trees.feature_importances_)
        scores.append(max(0.0, trees.score(latents[test], factor[test])))
    return np.stack(importance, axis=1), float(np.mean(scores))


def _one_sidedness(importance: Float64[np.ndarray, "a b"]) -> float:
    """1 minus the entropy over b of each a, to base b, weighted by the importance of a."""
    totals = importance.sum(axis=1)
    parts = importance / np.where(totals > 0, totals, 1)[:, None]
    logs = np.log(parts, out=np.zeros_like(parts), where=parts > 0)
    entropy = -(parts * logs).sum(axis=1) / np.log(importance.shape[1]) if len(parts[0]) > 1 else 0
    return float(((1 - entropy) * totals).sum() / totals.sum())
