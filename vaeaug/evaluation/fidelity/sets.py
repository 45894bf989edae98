"""The images that are compared for fidelity: the same number of each class and kind."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from vaeaug.data import LabelledImages
from vaeaug.evaluation.matching import first_of_each, listed, matched_counts, random_order

# Images of a kind in metrics that compare every one with every other.
MOST = 2_000
# Halves of the compared images are compared too, and need a pair of each kind.
FEWEST = 4
# Fewer compared images than this are worth a note.
FEW = 50


@dataclass(frozen=True)
class ComparedSets:
    """The images that take part.

    Attributes:
        n_compared: Images of each kind that can be compared.
        compared: Held-out, synthetic and training images, with the same class counts; nothing
            where they are too few.
        other_rows: Rows of the training images that are not compared.
        learnt: Synthetic and training images to learn from, with the same class counts.
        tested: Held-out images of the classes that can be learnt.
        notes: Sentences on what was left out.
    """

    n_compared: int
    compared: tuple[LabelledImages, ...]
    other_rows: Int64[np.ndarray, " r"]
    learnt: tuple[LabelledImages, LabelledImages]
    tested: LabelledImages
    notes: list[str]

    @classmethod
    def choose(
        cls,
        train: LabelledImages,
        held_out: LabelledImages,
        synthetic: LabelledImages,
        *,
        keep_half: bool,
        seed: int,
    ) -> "ComparedSets":
        """Choose them at random, whatever their order.

        Args:
            train: Real images that the generator was trained on.
            held_out: Real images that it never saw.
            synthetic: Its images.
            keep_half: Whether to leave half of the training images of a class in `other_rows`.
            seed: Seed of the choice.

        Returns:
            The sets.

        Raises:
            ValueError: If no class has images of all three kinds.
        """
        kinds = (held_out, synthetic, train)
        everywhere = np.logical_and.reduce([kind.counts > 0 for kind in kinds])
        if not everywhere.any():
            raise ValueError(
                "measure_fidelity: expected a class with training, held-out and synthetic images, "
                f"got counts {train.counts.tolist()}, {held_out.counts.tolist()} and "
                f"{synthetic.counts.tolist()}"
            )
        # A single training image cannot both be compared and teach the classifier of features.
        spare = train.counts // 2 if keep_half else train.counts
        counts = matched_counts([held_out.counts, synthetic.counts, spare], MOST)
        learnt_counts = matched_counts([synthetic.counts, train.counts])
        n = int(counts.sum())
        notes = _missing(train, held_out, synthetic)
        alone = np.flatnonzero(everywhere & (counts == 0))
        if len(alone):
            notes.append(
                "Learned from but not compared, for they have a single training image: "
                f"{listed(alone, train.class_names)}."
            )
        notes.append(f"Compared: {n} images of each kind, the same number of each class.")
        if FEWEST <= n < FEW:
            notes.append("These are few images: the metrics are uncertain.")
        if (synthetic.counts > learnt_counts)[everywhere].any():
            notes.append(
                "Learned from: as many synthetic images of a class as it has training images, "
                "though there are more."
            )
        orders = [random_order(kind.images, seed=seed) for kind in kinds]
        rows = [
            first_of_each(kind.labels, order, counts)
            for kind, order in zip(kinds, orders, strict=True)
        ]
        compared = [kind.subset(chosen) for kind, chosen in zip(kinds, rows, strict=True)]
        return cls(
            n_compared=n,
            compared=tuple(compared) if n >= FEWEST else (),
            other_rows=orders[2][~np.isin(orders[2], rows[2])],
            learnt=(
                synthetic.subset(first_of_each(synthetic.labels, orders[1], learnt_counts)),
                train.subset(first_of_each(train.labels, orders[2], learnt_counts)),
            ),
            tested=held_out.subset(orders[0][everywhere[held_out.labels[orders[0]]]]),
            notes=notes,
        )


def _missing(
    train: LabelledImages, held_out: LabelledImages, synthetic: LabelledImages
) -> list[str]:
    notes = []
    for what, counts in (("synthetic", synthetic.counts), ("held-out", held_out.counts)):
        missing = np.flatnonzero((train.counts > 0) & (counts == 0))
        if len(missing):
            names = listed(missing, train.class_names)
            notes.append(f"Not judged for want of {what} images: {names}.")
    return notes


def strata_of(labels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Divide images into strata whose halves have pairs.

    A class of at least 4 images is a stratum; smaller ones are joined. Equal class counts give
    equal strata.

    Args:
        labels: Classes of at least 4 images in all.

    Returns:
        Stratum of each image, from 0.
    """
    counts = np.bincount(labels)
    small = counts < FEWEST
    # Joined classes that are still too small go with the largest class.
    too_few = counts[small].sum() < FEWEST and not small.all()
    number = np.where(small, counts.argmax() if too_few else len(counts), np.arange(len(counts)))
    return np.unique(number[labels], return_inverse=True)[1].astype(np.int64)
