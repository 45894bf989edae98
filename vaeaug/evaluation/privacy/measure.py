"""Do synthetic images give away training images? Distances, copies and attacks.

Every figure stands beside the same one of real images that no generator saw: how near two images
of a data set come is a property of the data set, and only what goes beyond it is copying.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped

from vaeaug.data import LabelledImages
from vaeaug.evaluation.estimates import (
    CONFIDENCE,
    Better,
    Estimate,
    Figure,
    area,
    bootstrapped,
    figure,
    half_of,
)
from vaeaug.evaluation.matching import (
    check_labels,
    check_like,
    first_of_each,
    listed,
    matched_counts,
    random_order,
    without_shared,
)
from vaeaug.evaluation.privacy.nearest import CopySearch, Space, nearest
from vaeaug.generator import Synthesizer

# Images of a kind in figures of distances and attacks.
MOST = 2_000
# Synthetic images that are searched for copies.
MOST_SEARCHED = 20_000
# An image this near to a training image, root mean square per value as a fraction of the value
# range, is a copy of it: noise of 1 % of the range cannot hide one.
COPY_DISTANCE = 0.02
# So is one nearer than this part of the distance that 1 in 100 held-out images comes to one.
NEAR_FACTOR, NEAR_QUANTILE = 0.5, 0.01
# Quantile of held-out images' distances below which an image counts as near.
NEAR_SHARE = 0.05
# A class is a cell of the data-copying test where it has so many images of both kinds.
CELL = 20
# Verdict: how sure an excess of near-copies must be, and from where on nearness is copying.
SURE = 0.01
NEARER, ATTACK = 2 * NEAR_SHARE, 0.55
# Latents per image in the generator's bound on the likelihood.
BOUND_LATENTS = 8
LISTED = 20


@dataclass(frozen=True)
class Privacy:
    """What synthetic images, and the generator, give away of the training images.

    Attributes:
        figures: In the order of a table.
        near_copies: Synthetic images that are a training image, but for noise, a shift by one place
            or a flip.
        near_copy_indices: Rows of the first 20 of them.
        near_copy_sources: The training image of each, row N + i for image i of the pool.
        near_copy_distance: Distance up to which an image is a near-copy.
        held_out_copies: Held-out images that would count as near-copies.
        copying: Whether there are signs of copying, see `measure_privacy`.
        notes: How the figures were computed, and what was not possible.
        warning: What the signs are, and what to do.
    """

    figures: tuple[Figure, ...]
    near_copies: int
    near_copy_indices: tuple[int, ...]
    near_copy_sources: tuple[int, ...]
    near_copy_distance: float
    held_out_copies: int
    copying: bool
    notes: tuple[str, ...] = ()
    warning: str | None = None

    @property
    def verdict(self) -> str:
        """In words."""
        return "signs of copying" if self.copying else "no sign of copying"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "confidence": CONFIDENCE,
            "figures": [each.to_json() for each in self.figures],
            "near_copies": self.near_copies,
            "near_copy_indices": list(self.near_copy_indices),
            "near_copy_sources": list(self.near_copy_sources),
            "near_copy_distance": self.near_copy_distance,
            "held_out_copies": self.held_out_copies,
            "verdict": self.verdict,
            "notes": list(self.notes),
            "warning": self.warning,
        }


def measure_privacy(
    train: LabelledImages,
    held_out: LabelledImages,
    synthetic_images: Shaped[np.ndarray, "m *space c"],
    *,
    synthetic_labels: Int64[np.ndarray, " m"] | None = None,
    generator: Synthesizer | None = None,
    seed: int = 0,
    n_bootstrap: int = 200,
    device: torch.device | str = "cpu",
) -> Privacy:
    """Copies, distances and attacks, beside the same of held-out images.

    Distances are root mean square differences per value, as a fraction of the value range, to the
    nearest training image, labelled or not. With labels, synthetic and held-out images are compared
    in the same numbers of each class. Intervals are percentile bootstraps over images, which is
    sound here: the training images looked among are never resampled, so none repeats.

    - *median distance*, and the *share nearer* than 95 % of held-out images come;
    - *authenticity* (Alaa et al. 2022, arXiv:2102.08921): share of images that are farther from
      their nearest training image than that one is from its nearest other;
    - *data copying* C_T (Meehan, Chaudhuri & Dasgupta 2020, arXiv:2004.05675): z-score of the
      Mann-Whitney U of synthetic against held-out distances; cells are the classes where labels
      are given and cover half of the held-out images, else there is one;
    - *attack by distance* (GAN-Leaks, Chen et al. 2020, arXiv:1909.03935): who has the synthetic
      images alone tells training images by how near the nearest synthetic one is. In the real
      column half of the held-out images are released in their place;
    - *attacks by reconstruction and likelihood*: who has the generator tells them by how well it
      explains them. In the real column the range of a guess.

    A near-copy is nearer than `COPY_DISTANCE`, or than half the distance to which the nearest 1 %
    of held-out images come, at any shift by up to one place along each axis, flipped (pictures) or
    not; see `vaeaug.evaluation.privacy.nearest.CopySearch`.

    Signs of copying are: a near-copy within `COPY_DISTANCE` where no held-out image is one; more
    near-copies than held-out images explain (Fisher's exact test, p < 0.01); C_T surely below 0
    with surely more than twice as many near images; or an attack by distance that surely finds 55
    of 100.

    Args:
        train: Real images that the generator was trained on, with their pool.
        held_out: Real images that it never saw, of the same classes and origin.
        synthetic_images: Like the real ones.
        synthetic_labels: Their classes.
        generator: The generator, for the attacks on it.
        seed: Of the choice of images and the intervals.
        n_bootstrap: Resamples behind each interval; 0 gives none.
        device: Where distances are computed; the generator stays where it is.

    Raises:
        ValueError: If the parts do not belong together, or all held-out images are training images.
    """
    check_like(train, synthetic_images, "measure_privacy: synthetic_images")
    held_out, notes = without_shared(train, held_out, "measure_privacy")
    labels = None
    if synthetic_labels is not None:
        labels = check_labels(
            synthetic_labels, len(synthetic_images), train.n_classes, "measure_privacy"
        )
    audit = _Audit(train, held_out, seed, n_bootstrap, torch.device(device), notes)
    copies = audit.copies(synthetic_images)
    figures = [
        *audit.nearness(synthetic_images, labels),
        audit.attack_by_distance(synthetic_images),
    ]
    if generator is not None:
        figures += audit.attacks_on(generator)
    signs, risks = _signs(copies, {each.name: each for each in figures})
    remedy = (
        " Raise screening.near_copy_factor, or draw from a density (recipe.sampler: gmm or flow,"
        " sampling.residual: false)."
    )
    found = [*signs, *risks]
    return Privacy(
        figures=tuple(figures),
        near_copies=len(copies.rows),
        near_copy_indices=tuple(int(row) for row in copies.rows[:LISTED]),
        near_copy_sources=tuple(int(row) for row in copies.sources[:LISTED]),
        near_copy_distance=copies.limit,
        held_out_copies=copies.held_out,
        copying=bool(signs),
        notes=tuple(audit.notes),
        warning=" ".join(found) + (remedy if signs else "") if found else None,
    )


@dataclass(frozen=True)
class _Copies:
    """Near-copies among the synthetic images that were searched, and among held-out ones."""

    rows: Int64[np.ndarray, " c"]
    sources: Int64[np.ndarray, " c"]
    distances: Float64[np.ndarray, " c"]
    searched: int
    limit: float
    held_out: int
    held_out_searched: int
    held_out_least: float


@dataclass
class _Audit:
    train: LabelledImages
    held_out: LabelledImages
    seed: int
    n_bootstrap: int
    device: torch.device
    notes: list[str]
    parts: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        pool = self.train.unlabelled
        self.parts = [self.train.images, *([] if pool is None else [pool])]
        self.space = Space(self.train.value_range, self.device)
        self.rng = np.random.default_rng([self.seed, 10])
        order = random_order(self.held_out.images, seed=self.seed)
        # Those that are compared, in an order that says nothing.
        self.held = self.held_out.subset(order[:MOST])

    def _nearest(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return nearest(images, self.parts, self.space)

    # -- Copies --------------------------------------------------------------------------------

    def copies(self, images: np.ndarray) -> _Copies:
        """Search the synthetic images, by a distance that held-out images set."""
        search = CopySearch(
            self.parts, value_range=self.train.value_range, seed=self.seed, device=self.device
        )
        own, _ = search.nearest(self.held.images)
        limit = max(COPY_DISTANCE, NEAR_FACTOR * float(np.quantile(own, NEAR_QUANTILE)))
        rows = np.arange(len(images))
        if len(images) > MOST_SEARCHED:
            rows = np.sort(random_order(images, seed=self.seed)[:MOST_SEARCHED])
            self.notes.append(
                f"Copies were looked for among {MOST_SEARCHED:,} of {len(images):,} synthetic "
                "images, taken at random."
            )
        distances, sources = search.nearest(images[rows], limit=limit)
        near = distances <= limit
        held = int((own <= limit).sum())
        self.notes.append(
            f"A near-copy differs from a training image by at most {limit:.3f} of the value range "
            f"(root mean square); {held} of {len(own)} held-out images come as near."
        )
        return _Copies(
            rows=rows[near],
            sources=sources[near],
            distances=distances[near],
            searched=len(rows),
            limit=limit,
            held_out=held,
            held_out_searched=len(own),
            held_out_least=float(own.min()),
        )

    # -- Distances -----------------------------------------------------------------------------

    def nearness(self, images: np.ndarray, labels: np.ndarray | None) -> list[Figure]:
        """Figures of the distances to training images."""
        chosen = random_order(images, seed=self.seed)[:MOST]
        own_labels = None if labels is None else labels[chosen]
        made, made_rows = self._nearest(images[chosen])
        held, held_rows = self._nearest(self.held.images)
        a, b = self._matched(own_labels, len(made))
        cells = self._cells(own_labels)
        copying = self._data_copying(made, held, cells or [(a, b)], by_class=bool(cells))
        authentic = [
            distances > self._apart(rows)
            for distances, rows in ((made[a], made_rows[a]), (held[b], held_rows[b]))
        ]
        border = float(np.quantile(held[b], NEAR_SHARE))
        return [
            self._of_both(
                "median_distance",
                "Distance to the nearest training image",
                "Median; much less than for held-out images is a sign of copying.",
                "higher",
                np.median,
                made[a],
                held[b],
            ),
            self._of_both(
                "share_nearer",
                "Nearer than 95 % of held-out images",
                "Share of images that lie nearer to a training image than 95 % of held-out ones.",
                "lower",
                np.mean,
                (made[a] < border).astype(float),
                (held[b] < border).astype(float),
            ),
            self._of_both(
                "authenticity",
                "Authenticity",
                "Share of images that are farther from a training image than its neighbours are.",
                "higher",
                np.mean,
                authentic[0].astype(float),
                authentic[1].astype(float),
            ),
            *copying,
        ]

    def _of_both(
        self,
        name: str,
        title: str,
        meaning: str,
        better: Better,
        statistic: Callable[[np.ndarray], Any],
        own: np.ndarray,
        real: np.ndarray,
    ) -> Figure:
        estimates = [
            bootstrapped(
                lambda each: float(statistic(each)),
                each,
                n_bootstrap=self.n_bootstrap,
                rng=self.rng,
            )
            for each in (own, real)
        ]
        return figure(name, title, meaning, better, *estimates)

    def _apart(self, rows: np.ndarray) -> np.ndarray:
        """Distance of these training images to their nearest other one."""
        needed, place = np.unique(rows, return_inverse=True)
        images = self.train.images_at(needed)
        return nearest(images, self.parts, self.space, own_rows=needed)[0][place]

    def _matched(self, labels: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of synthetic and held-out images with the same class counts, where possible."""
        everything = np.arange(n), np.arange(len(self.held))
        if labels is None:
            self.notes.append(
                "Distances: without labels, synthetic and held-out images may differ in class."
            )
            return everything
        made = np.bincount(labels, minlength=self.train.n_classes)
        counts = matched_counts([made, self.held.counts])
        if counts.sum() < CELL:
            self.notes.append(
                f"Distances: synthetic and held-out images share fewer than {CELL} images of the "
                "same classes, so all are compared whatever their class."
            )
            return everything
        missing = np.flatnonzero((made > 0) & (self.held.counts == 0))
        if len(missing):
            names = listed(missing, self.train.class_names)
            self.notes.append(f"Distances: no held-out image, so not compared: {names}.")
        self.notes.append(
            f"Distances: {int(counts.sum())} synthetic and as many held-out images, the same "
            "number of each class."
        )
        return (
            np.sort(first_of_each(labels, everything[0], counts)),
            np.sort(first_of_each(self.held.labels, everything[1], counts)),
        )

    def _cells(self, labels: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """Places of synthetic and held-out images in each cell of the data-copying test."""
        if labels is None:
            return []
        pairs = [
            (np.flatnonzero(labels == label), np.flatnonzero(self.held.labels == label))
            for label in range(self.train.n_classes)
        ]
        cells = [pair for pair in pairs if min(map(len, pair)) >= CELL]
        covered = sum(len(held) for _, held in cells)
        return cells if 2 * covered >= len(self.held) else []

    def _data_copying(
        self,
        made: np.ndarray,
        held: np.ndarray,
        cells: list[tuple[np.ndarray, np.ndarray]],
        *,
        by_class: bool,
    ) -> list[Figure]:
        """C_T of the paper: the cells' z-scores, weighted by their held-out images.

        For real images one half of the held-out ones stands for the synthetic ones.
        """
        pairs, halves = [], []
        for own, other in cells:
            first = half_of(self.held.labels[other], self.rng)
            rest = np.delete(other, first)
            pairs.append((made[own], held[other]))
            halves.append((held[other[first]], held[rest]))
        if any(not len(first) for first, _ in halves):
            self.notes.append("Too few held-out images for the data-copying test.")
            return []
        estimates = []
        for column in (pairs, halves):
            flat = [part for pair in column for part in pair]
            estimates.append(
                bootstrapped(_copying_score, *flat, n_bootstrap=self.n_bootstrap, rng=self.rng)
            )
        where = f"in {len(cells)} classes" if by_class else "over all images"
        found = figure(
            "data_copying",
            "Data-copying test (C_T)",
            f"Standard deviations by which distances exceed held-out ones, {where}; below 0 is "
            "nearer.",
            "higher",
            *estimates,
        )
        return [found]

    # -- Attacks -------------------------------------------------------------------------------

    def attack_by_distance(self, images: np.ndarray) -> Figure:
        """From the synthetic images alone."""
        first = half_of(self.held.labels, self.rng)
        rest = np.delete(np.arange(len(self.held)), first)
        estimates = []
        for shown, outside in (
            (images, self.held),
            (self.held.images[first], self.held.subset(rest)),
        ):
            if not len(shown):
                self.notes.append("Too few held-out images to attack with half of them.")
                estimates.append(Estimate(0.5, 0.0, 1.0))
                continue
            near = [nearest(each.images, [shown], self.space)[0] for each in self._alike(outside)]
            estimates.append(self._told(-near[0], -near[1]))
        return figure(
            "attack_by_distance",
            "Attack by distance (AUC)",
            "How often the nearer of two images to a synthetic one is the training image; 0.5 leaks"
            " nothing.",
            "half",
            *estimates,
        )

    def attacks_on(self, generator: Synthesizer) -> list[Figure]:
        """From the generator: what it reconstructs well, and what it finds likely."""
        if generator.class_names != self.train.class_names or (
            generator.image_shape != self.train.image_shape
        ):
            raise ValueError(
                f"measure_privacy: expected a generator of {self.train.class_names} of shape "
                f"{self.train.image_shape}, got one of {generator.class_names} of shape "
                f"{generator.image_shape}"
            )
        kinds = self._alike(self.held)
        guess = self._guess(*map(len, kinds))
        low, high = self.train.value_range
        errors, bounds = [], []
        for each in kinds:
            again = generator.reconstruct(each.images, each.labels).astype(np.float64)
            gap = ((again - each.images) / (high - low)).reshape(len(again), -1)
            errors.append(np.sqrt((gap**2).mean(axis=1)))
            bounds.append(
                generator.bound(each.images, each.labels, k=BOUND_LATENTS, seed=self.seed)
            )
        return [
            figure(
                "attack_by_reconstruction",
                "Attack by reconstruction (AUC)",
                "How often the image that the generator reconstructs better is the training image.",
                "half",
                self._told(-errors[0], -errors[1]),
                guess,
            ),
            figure(
                "attack_by_likelihood",
                "Attack by likelihood (AUC)",
                "How often the image that the generator finds likelier is the training image.",
                "half",
                self._told(bounds[0], bounds[1]),
                guess,
            ),
        ]

    def _alike(self, outside: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
        """Held-out and training images to tell apart, with the same number of each class."""
        counts = np.minimum(self.train.counts, outside.counts)
        order = random_order(self.train.images, seed=self.seed)
        if not counts.any():
            return outside, self.train.subset(order[:MOST])
        return (
            outside.subset(first_of_each(outside.labels, np.arange(len(outside)), counts)),
            self.train.subset(first_of_each(self.train.labels, order, counts)),
        )

    def _told(self, outside: np.ndarray, members: np.ndarray) -> Estimate:
        return bootstrapped(area, outside, members, n_bootstrap=self.n_bootstrap, rng=self.rng)

    def _guess(self, n: int, m: int) -> Estimate:
        """Area of scores that know nothing: 0.5, with the variance of Mann-Whitney's U."""
        reach = 1.96 * float(np.sqrt((n + m + 1) / (12 * n * m)))
        return Estimate(0.5, max(0.0, 0.5 - reach), min(1.0, 0.5 + reach))


def _copying_score(*parts: np.ndarray) -> float:
    """C_T of cells: distances of synthetic and of held-out images, one after the other."""
    total, weight = 0.0, 0
    for own, held in zip(parts[::2], parts[1::2], strict=True):
        n, m = len(own), len(held)
        deviation = np.sqrt((n + m + 1) / (12 * n * m))
        total += m * float((area(held, own) - 0.5) / deviation)
        weight += m
    return total / weight


def _signs(copies: _Copies, figures: dict[str, Figure]) -> tuple[list[str], list[str]]:
    """Sentences on signs of copying in the images, and on what the generator gives away."""
    from scipy.stats import fisher_exact

    signs = []
    n, exact = len(copies.rows), int((copies.distances <= COPY_DISTANCE).sum())
    table = [
        [n, copies.searched - n],
        [copies.held_out, copies.held_out_searched - copies.held_out],
    ]
    more = float(fisher_exact(table, alternative="greater").pvalue) < SURE
    if more or (exact and copies.held_out_least > COPY_DISTANCE):
        signs.append(
            f"{n} of {copies.searched} synthetic images are near-copies of training images, "
            f"against {copies.held_out} of {copies.held_out_searched} held-out images."
        )
    copying, nearer = figures.get("data_copying"), figures["share_nearer"]
    if copying is not None and copying.high < 0 and nearer.low > NEARER:
        signs.append(
            f"{nearer.value:.0%} of the synthetic images lie nearer to a training image than 95 % "
            f"of held-out images do (C_T {copying.value:.1f})."
        )
    if figures["attack_by_distance"].low > ATTACK:
        signs.append(
            "The synthetic images alone tell training images from held-out ones (AUC "
            f"{figures['attack_by_distance'].value:.2f})."
        )
    risks = [
        f"Whoever has the generator can tell training images by {how} (AUC "
        f"{figures[name].value:.2f}): share the images rather than the generator."
        for name, how in (
            ("attack_by_reconstruction", "reconstruction"),
            ("attack_by_likelihood", "likelihood"),
        )
        if name in figures and figures[name].low > ATTACK
    ]
    return signs, risks
