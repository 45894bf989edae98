"""Classes by their numbers of images: rare ones, and folds that deal every class out evenly."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64


def rare_classes(counts: Int64[np.ndarray, " k"]) -> Bool[np.ndarray, " k"]:
    """Tell which classes are rare.

    Args:
        counts: Images of each class.

    Returns:
        True for classes with fewer images than the mean of those that have any.
    """
    return (counts > 0) & (counts < counts[counts > 0].mean())


def stratified_folds(
    labels: Int64[np.ndarray, " n"],
    n_folds: int,
    *,
    seed: Sequence[int],
    among: Bool[np.ndarray, " n"] | None = None,
    groups: Int64[np.ndarray, " n"] | None = None,
) -> Int64[np.ndarray, " n"]:
    """Deal the images of every class out to folds at random, as evenly as its number allows.

    scikit-learn's `StratifiedGroupKFold` would deal them out otherwise, and the folds decide the
    bytes of published samples and verdicts.

    Args:
        labels: Class of each image.
        n_folds: Folds.
        seed: Seed of the shuffles.
        among: The images that are dealt out; None: all of them.
        groups: Images with the same number are dealt to the same fold; None: each by itself.

    Returns:
        Fold of each image, 0 up to `n_folds`; -1 for those that are not dealt out.
    """
    among = np.ones(len(labels), bool) if among is None else among
    if groups is not None:
        _, first, member = np.unique(groups, return_index=True, return_inverse=True)
        folds = stratified_folds(labels[first], n_folds, seed=seed, among=among[first])[member]
        return np.where(among, folds, -1)
    rng = np.random.default_rng(seed)
    folds = np.full(len(labels), -1, np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero((labels == label) & among))
        folds[rows] = (np.arange(len(rows)) + rng.integers(n_folds)) % n_folds
    return folds
