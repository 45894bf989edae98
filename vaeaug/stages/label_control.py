"""Label control: whether the label, and not the latent, decides the class of a decoded sample.

A latent loses nothing by carrying the class as well. Where it does, a decoder ignores the label,
and latents of one class that are decoded as another still show their own: samples of `transfer` and
`prior` are then mislabelled, and a run that asks for them is refused.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from vaeaug.data import LabelledImages
from vaeaug.generator import Synthesizer
from vaeaug.memory import blocks
from vaeaug.screening import Screener

# Latents decoded under another label, about equally many to each class, and at least this many.
DECODES, MIN_PER_CLASS = 1_000, 4
# Latents of each class that the linear probe is fitted to, at most.
PROBE_LATENTS = 200
PROBE_FOLDS = 3
# Label control below this fraction of the same figure of real images is low.
LOW_CONTROL = 0.5


@dataclass(frozen=True)
class LabelControl:
    """Who decides the class of a decoded sample.

    Attributes:
        control: Of latents of class i decoded under a label j other than i, as `transfer` decodes
            them, the fraction that a real-only classifier calls j, averaged over j.
        prior: Of samples of `prior` of class j, the fraction that it calls j, likewise.
        real: Of held-out real images of class j, the fraction that it calls j, likewise.
        source: Of those decodes, the fraction that still shows class i.
        probe: Balanced accuracy, on held-out latents, of a linear probe that reads the class from
            the posterior mean; None where too few classes have enough images.
        probe_chance: Balanced accuracy of a probe that knows nothing.
    """

    control: float
    prior: float
    real: float
    source: float
    probe: float | None
    probe_chance: float | None

    def refusal(self, sampler: str) -> str:
        """Why a sampler that relies on the label is not to be used.

        Args:
            sampler: Name of a sampler.

        Returns:
            A sentence with the figure; "" for a sampler that may be used.
        """
        figures = {"transfer": self.control, "prior": self.prior}
        if sampler not in figures or figures[sampler] >= LOW_CONTROL * self.real:
            return ""
        return (
            f"recipe.sampler {sampler}: label control is low: {figures[sampler]:.0%} of its "
            "samples show the class that they are labelled with, by a classifier of the real "
            f"images that recognises {self.real:.0%} of held-out ones; expected at least "
            f"{LOW_CONTROL * self.real:.0%}. recipe.sampler auto starts from images of the class; "
            "a style (model.style_dim), more training.steps or more images raise label control"
        )

    def to_json(self) -> dict[str, Any]:
        """The figures for ``diagnostics.json``.

        Returns:
            Plain JSON types.
        """
        return asdict(self)

    def summary(self) -> str:
        """The figures in a sentence.

        Returns:
            One line.
        """
        text = (
            f"label control {self.control:.0%} (real images {self.real:.0%}): so many latents of "
            f"other classes show the label they are decoded under; {self.source:.0%} show their "
            f"own; of samples from the prior {self.prior:.0%} show their label"
        )
        if self.probe is None:
            return text
        return text + f"; a linear probe reads {self.probe:.0%} of the classes from z"


def measure_label_control(
    generator: Synthesizer, data: LabelledImages, screener: Screener, *, seed: int
) -> LabelControl | None:
    """Decode latents of training images under other labels, and ask a real-only classifier.

    Args:
        generator: Trained on `data`.
        data: The training split.
        screener: Its cross-fitted classifiers judge.
        seed: Of the choice of images.

    Returns:
        The figures; None with fewer than two classes that have images.
    """
    present = np.flatnonzero(data.counts)
    if len(present) < 2:
        return None
    rng = np.random.default_rng([seed, len(data)])
    per_class = max(MIN_PER_CLASS, -(-DECODES // len(present)))
    rows_of = {label: np.flatnonzero(data.labels == label) for label in present.tolist()}
    sources, targets = [], []
    for label in present.tolist():
        # A class as often as another, not an image as often as another.
        classes = rng.choice(present[present != label], size=per_class)
        chosen = [rng.choice(rows_of[other]) for other in classes.tolist()]
        sources.append(np.array(chosen, np.int64))
        targets.append(np.full(per_class, label, np.int64))
    rows, wanted = np.concatenate(sources), np.concatenate(targets)
    called = _called(generator, screener, rows, wanted)
    by_label = [float((called[wanted == label] == label).mean()) for label in present]
    from_prior = [
        float((_classes(screener, batch.images) == batch.labels).mean())
        for batch in (
            generator.sample(label, per_class, seed=seed, sampler="prior")
            for label in present.tolist()
        )
    ]
    real = [float(screener.real_hit[of_class].mean()) for of_class in rows_of.values()]
    probe, chance = _probe(generator.means[: len(data)], data.labels, rng)
    return LabelControl(
        control=float(np.mean(by_label)),
        prior=float(np.mean(from_prior)),
        real=float(np.mean(real)),
        source=float((called == data.labels[rows]).mean()),
        probe=probe,
        probe_chance=chance,
    )


def _called(
    generator: Synthesizer,
    screener: Screener,
    rows: Int64[np.ndarray, " n"],
    wanted: Int64[np.ndarray, " n"],
) -> Int64[np.ndarray, " n"]:
    """Classes that the classifiers give to decodes, a block at a time."""
    n_values = int(np.prod(generator.image_shape))
    styles = generator.style_of(generator.means[rows])
    parts = [
        _classes(screener, generator.decode(styles[part], wanted[part]))
        for part in blocks(len(rows), n_values, 256)
    ]
    return np.concatenate(parts)


def _classes(
    screener: Screener, images: Shaped[np.ndarray, "n *space c"]
) -> Int64[np.ndarray, " n"]:
    """Classes that the classifiers give to samples."""
    return screener.probabilities(images).argmax(axis=1)


def _probe(
    means: Shaped[np.ndarray, "n z"], labels: Int64[np.ndarray, " n"], rng: np.random.Generator
) -> tuple[float | None, float | None]:
    """Cross-validated balanced accuracy of linear discriminant analysis, and that of chance."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    kept = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) >= PROBE_FOLDS:
            kept.append(rows[:PROBE_LATENTS])
    if len(kept) < 2:
        return None, None
    chosen = np.concatenate(kept)
    probe = LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage="auto", priors=np.full(len(kept), 1 / len(kept))
    )
    scores = cross_val_score(
        probe,
        means[chosen].astype(np.float64),
        labels[chosen],
        scoring="balanced_accuracy",
        cv=StratifiedKFold(PROBE_FOLDS, shuffle=True, random_state=0),
    )
    return float(scores.mean()), 1 / len(kept)
