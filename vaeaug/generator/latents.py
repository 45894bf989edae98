"""`Latents`: the posteriors of the training images, by class, and who is near to whom."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

# Nearest neighbours within the class that an interpolation may move towards: at least this many,
# and in a large class this fraction of it. Farther ones make edits that are easier to tell from
# real images, nearer ones make near-copies; `benchmarks/README.md` has the trade-off.
NEIGHBOURS = 20
NEIGHBOUR_SHARE = 0.02
# Neighbours in a class of more images are looked for among so many of them, drawn at random: as
# near as before, as a share of the class; neither time nor memory grow with its square.
LARGE_CLASS, CANDIDATES = 20_000, 2_500
# Classes with at least this fraction of the images of the largest other class lend their styles.
FREQUENT = 0.5


@dataclass(frozen=True)
class Latents:
    """Diagonal normal posteriors q(z|x,y) of training images, those of the unlabelled pool last.

    Attributes:
        means: Posterior means, (N, z).
        variances: Posterior variances, (N, z).
        labels: Classes, (N,); -1 for an image of unknown class.
        n_classes: Number of classes.
    """

    means: Float32[np.ndarray, "n z"]
    variances: Float32[np.ndarray, "n z"]
    labels: Int64[np.ndarray, " n"]
    n_classes: int
    _neighbours: dict[tuple[int, int], np.ndarray] = field(
        default_factory=dict, repr=False, compare=False
    )

    @cached_property
    def rows(self) -> list[Int64[np.ndarray, " k"]]:
        """Rows of each class."""
        return [np.flatnonzero(self.labels == label) for label in range(self.n_classes)]

    @cached_property
    def centres(self) -> Float32[np.ndarray, "c z"]:
        """Mean latent of each class, (classes, z); NaN for a class without images."""
        centres = np.full((self.n_classes, self.means.shape[1]), np.nan, np.float32)
        for label, rows in enumerate(self.rows):
            if len(rows):
                centres[label] = self.means[rows].mean(axis=0)
        return centres

    def lenders(self, label: int) -> Int64[np.ndarray, " k"]:
        """Rows whose style another class may take over: those of the frequent classes.

        Rare classes have few styles, and the best place to learn how samples vary is where there
        are many.

        Args:
            label: The class that takes styles over; -1 for one that has no images.

        Returns:
            Rows of the other classes with at least half as many images as the largest of them.
        """
        counts = {other: len(rows) for other, rows in enumerate(self.rows) if other != label}
        least = max(1.0, FREQUENT * max(counts.values(), default=0))
        frequent = [self.rows[other] for other, count in counts.items() if count >= least]
        return np.concatenate(frequent) if frequent else np.empty(0, np.int64)

    def neighbour(
        self,
        rows: Int64[np.ndarray, " n"],
        uniform: Float64[np.ndarray, " n"],
        *,
        reach: int = 1,
    ) -> Int64[np.ndarray, " n"]:
        """Choose a neighbour of each row within its class; the only image of a class has itself.

        Args:
            rows: Rows of known class.
            uniform: In [0, 1); they choose.
            reach: 1 for the nearest neighbours, r for the r-th such group of them.

        Returns:
            Rows.
        """
        chosen = np.empty_like(rows)
        for label in np.unique(self.labels[rows]).tolist():
            if (label, reach) not in self._neighbours:
                self._neighbours[label, reach] = self._neighbours_in(label, reach)
            neighbours = self._neighbours[label, reach]
            of_class = self.labels[rows] == label
            places = np.searchsorted(self.rows[label], rows[of_class])
            which = (uniform[of_class] * neighbours.shape[1]).astype(np.int64)
            chosen[of_class] = neighbours[places, which]
        return chosen

    def _neighbours_in(self, label: int, reach: int) -> Int[np.ndarray, "n k"]:
        from sklearn.neighbors import NearestNeighbors

        rows = self.rows[label]
        if len(rows) == 1:
            return rows[:, None]
        is_large = len(rows) > LARGE_CLASS
        rng = np.random.default_rng(label)
        among = np.sort(rng.choice(rows, CANDIDATES, replace=False)) if is_large else rows
        k = neighbour_count(len(among))
        # Beyond the nearer half there are outliers.
        first = min((reach - 1) * k, len(among) // 2)
        last = min(first + k, len(among) - 1)
        search = NearestNeighbors(n_neighbors=last).fit(self.means[among])
        if not is_large:
            return among[search.kneighbors(return_distance=False)[:, first:]]
        found = np.empty((len(rows), last - first), np.int32)
        for begin in range(0, len(rows), LARGE_CLASS):
            part = rows[begin : begin + LARGE_CLASS]
            near = among[search.kneighbors(self.means[part], last + 1, return_distance=False)]
            # An image is no neighbour of its own.
            order = np.argsort(near == part[:, None], axis=1, kind="stable")
            found[begin : begin + len(part)] = np.take_along_axis(near, order, 1)[:, first:last]
        return found


def neighbour_count(n_images: int) -> int:
    """How many neighbours an interpolation may move towards, in a class that has that many.

    Args:
        n_images: Images of the class.

    Returns:
        The number, which may exceed that of the other images.
    """
    return max(NEIGHBOURS, round(NEIGHBOUR_SHARE * n_images))
