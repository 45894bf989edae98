"""The images that take part in the figures of fidelity: the same number of each class and kind."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from vaeaug.data import LabelledImages
from vaeaug.evaluation.matching import first_of_each, listed, matched_counts, random_order

# Images of a kind in figures that compare every one with every other.
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
        notes: What was left out.
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
            seed: Of the choice.

        Raises:
            ValueError: If no class has images of all three kinds.
        """
        kinds = (held_out, synthetic, train)
        everywhere = np.logical_and.reduce([each.counts > 0 for each in kinds])
        if not everywhere.any():
            raise ValueError(
                "measure_fidelity: expected a class with training, held-out and synthetic images, "
                f"got counts {train.counts.tolist()}, {held_out.counts.tolist()} and "
                f"{synthetic.counts.tolist()}"
            )
        notes = _missing(train, held_out, synthetic)
        # A single training image cannot both be compared and teach the classifier of features.
        spare = train.counts // 2 if keep_half else train.counts
        counts = matched_counts([held_out.counts, synthetic.counts, spare], MOST)
        n = int(counts.sum())
        unfit = np.flatnonzero(everywhere & (counts == 0))
        if len(unfit):
            notes.append(
                "Learned from but not compared, for they have a single training image: "
                f"{listed(unfit, train.class_names)}."
            )
        notes.append(f"Compared: {n} images of each kind, the same number of each class.")
        if FEWEST <= n < FEW:
            notes.append("These are few images: the figures are uncertain.")
        learnt = matched_counts([synthetic.counts, train.counts])
        if (synthetic.counts > learnt)[everywhere].any():
            notes.append(
                "Learned from: as many synthetic images of a class as it has training images, "
                "though there are more."
            )
        orders = [random_order(each.images, seed=seed) for each in kinds]
        rows = [
            first_of_each(each.labels, order, counts)
            for each, order in zip(kinds, orders, strict=True)
        ]
        return cls(
            n_compared=n,
            compared=tuple(each.subset(own) for each, own in zip(kinds, rows, strict=True))
            if n >= FEWEST
            else (),
            other_rows=orders[2][~np.isin(orders[2], rows[2])],
            learnt=(
                synthetic.subset(first_of_each(synthetic.labels, orders[1], learnt)),
                train.subset(first_of_each(train.labels, orders[2], learnt)),
            ),
            tested=held_out.subset(orders[0][everywhere[held_out.labels[orders[0]]]]),
            notes=notes,
        )


def _missing(
    train: LabelledImages, held_out: LabelledImages, synthetic: LabelledImages
) -> list[str]:
    notes = []
    for what, there in (("synthetic", synthetic.counts), ("held-out", held_out.counts)):
        missing = np.flatnonzero((train.counts > 0) & (there == 0))
        if len(missing):
            names = listed(missing, train.class_names)
            notes.append(f"Not judged for want of {what} images: {names}.")
    return notes


def strata_of(labels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Classes of at least 4 images, whose halves have pairs; smaller ones are joined.

    Equal class counts give equal strata. Expects at least 4 images in all.
    """
    counts = np.bincount(labels)
    small = counts < FEWEST
    # What is joined and still small goes with the largest class.
    alone = counts[small].sum() < FEWEST and not small.all()
    number = np.where(small, counts.argmax() if alone else len(counts), np.arange(len(counts)))
    return np.unique(number[labels], return_inverse=True)[1].astype(np.int64)
