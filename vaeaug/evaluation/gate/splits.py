"""Repeated stratified k-fold splits in which equal images never lie on both sides."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from vaeaug.data import LabelledImages
from vaeaug.strata import stratified_folds


@dataclass(frozen=True)
class Split:
    """One way to hold a part out.

    Attributes:
        number: From 0; splits are the same however many are asked for.
        train: Rows to learn from.
        held_out: Rows to judge by.
    """

    number: int
    train: Int64[np.ndarray, " n"]
    held_out: Int64[np.ndarray, " m"]

    @property
    def key(self) -> str:
        """Short hash of the rows, under which outcomes are remembered."""
        digest = hashlib.sha256(self.train.tobytes())
        digest.update(self.held_out.tobytes())
        return digest.hexdigest()[:16]


def make_splits(
    data: LabelledImages,
    n_splits: int,
    *,
    folds: int,
    seed: int,
    among: Bool[np.ndarray, " n"] | None = None,
) -> list[Split]:
    """Make the first splits of repeated stratified k-fold cross-validation.

    Split i holds out fold ``i % folds`` of repetition ``i // folds``. Images that are equal byte
    for byte stay together, whatever their labels: a copy in the training part would be a leak.

    Args:
        data: The data to split.
        n_splits: Number of splits.
        folds: Parts of a repetition.
        seed: Seed of the shuffles.
        among: Only these rows are ever held out; all others always train. None: every row.

    Returns:
        The splits, in their order.
    """
    first = _first_equal(data)
    among = np.ones(len(data), bool) if among is None else among
    splits = []
    for number in range(n_splits):
        repetition, fold = divmod(number, folds)
        fold_of_row = stratified_folds(data.labels, folds, seed=[seed, 7, repetition], among=among)
        held_out = (fold_of_row[first] == fold) & among
        # A row that is never held out keeps its copies from being held out.
        held_out &= ~np.isin(first, first[~among])
        splits.append(Split(number, np.flatnonzero(~held_out), np.flatnonzero(held_out)))
    return splits


def fitting_folds(counts: Int64[np.ndarray, " k"], folds: int, min_held_out: int) -> int:
    """Find the number of folds that leaves every class enough held-out images.

    Args:
        counts: Images of each class that may be held out.
        folds: Folds wished for.
        min_held_out: Held-out images that each class should have in a split.

    Returns:
        At most `folds`, at least 2.
    """
    smallest = int(counts[counts > 0].min())
    return max(2, min(folds, smallest // min_held_out))


def halves(
    data: LabelledImages, fraction: float, *, seed: int
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Divide data into two stratified parts; equal images stay together.

    Args:
        data: The data to divide; classes of 2 or more images have at least one in each part.
        fraction: Size of the second part, 0 to 1, which is kept approximately.
        seed: Seed of the choice.

    Returns:
        Masks of both parts.
    """
    first = _first_equal(data)
    rng = np.random.default_rng([seed, 8])
    second = np.zeros(len(data), bool)
    for label in np.unique(data.labels):
        rows = rng.permutation(np.flatnonzero(data.labels == label))
        n_second = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        second[rows[:n_second]] = True
    second = second[first]
    return ~second, second


def _first_equal(data: LabelledImages) -> Int64[np.ndarray, " n"]:
    """For each image the first row that holds the same bytes, or is of the same group."""
    first_rows: dict[bytes, int] = {}
    first = np.array(
        [
            first_rows.setdefault(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), row)
            for row, image in enumerate(data.images)
        ],
        np.int64,
    )
    return first if data.groups is None else _joined(first, data.groups)


def _joined(
    first: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """For each row the first one that it is connected to, by equal bytes or by its group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(first)
    of_group, member = np.unique(groups, return_index=True, return_inverse=True)[1:]
    rows = np.arange(n)
    edges = (np.tile(rows, 2), np.concatenate([first, of_group[member]]))
    graph = coo_array((np.ones(2 * n, bool), edges), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    return np.unique(component, return_index=True)[1][component]
