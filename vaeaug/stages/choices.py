"""How each class is drawn: samplers are tried, and the one that serves a class best is chosen.

A class whose samples cover much less of its real images than real images do of each other has
collapsed, one whose samples vary much less than its real images has half collapsed, and one whose
samples are nearly all rejected cannot be filled; another sampler is then looked for.

Where many classes are rare and the label decides what a sample shows, all classes are drawn in the
styles of the frequent ones: all, because a look that only rare classes have is a shortcut. A rare
class whose styled samples are not recognised is drawn by differences of a frequent class, `delta`,
if those are; what is borrowed less then is recognised more.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.generator import FROM_DATA, Synthesizer, edits_images, sample_configured
from vaeaug.mapping import taken
from vaeaug.screening import NEAR_CLASS, Screener
from vaeaug.stages.dispersion import MOST_IMAGES, Dispersion, dispersion
from vaeaug.stages.label_control import LOW_CONTROL, LabelControl, measure_label_control
from vaeaug.stages.neighbours import coverage
from vaeaug.stages.readable import active_styles

# Per class: images compared for coverage, and the fewest that say something.
COVERAGE_IMAGES = 200
MIN_COVERAGE_IMAGES = 20
NEIGHBOURS = 5
# A class whose coverage is below this part of the real images' own has collapsed.
COLLAPSED = 0.5
# A sampler of which fewer candidates pass the screening cannot fill the plan.
LOW_ACCEPTANCE = 0.3
# Where more of the interpolated samples of a class than TOO_NEAR are near to training images,
# they are moved towards farther neighbours, in these steps: screening could not reject so many. It
# has its price: `benchmarks/README.md`.
REACHES, TOO_NEAR = (2, 4, 8), 0.7
# Styles are lent where at least the part MANY of the classes has fewer images than RARE, the
# lenders have at least LENT images in all, and label control is at most CLOSE below the figure of
# real images. Rare classes gain by it and frequent ones lose, so few rare ones do not pay for it:
# `benchmarks/usefulness`.
RARE, MANY, LENT, CLOSE = 50, 0.25, 500, 0.05


@dataclass(frozen=True)
class Choices:
    """The classes that are drawn otherwise than by default.

    Attributes:
        preferred: By class, the sampler that does better than the default, and why.
        reach: By class, how far away the neighbours are that an interpolation moves towards.
    """

    preferred: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    reach: Mapping[int, int] = field(default_factory=dict)

    def apply(self, generator: Synthesizer) -> Synthesizer:
        """A generator that draws by these choices.

        Args:
            generator: The generator; it is not changed.

        Returns:
            A copy that shares its networks and latents.
        """
        return generator.with_choices(self.preferred, self.reach)


def choose_samplers(
    generator: Synthesizer, data: LabelledImages, config: AugmentConfig, screener: Screener
) -> Choices:
    """How each class is drawn, without the other measurements of `diagnose`.

    Args:
        generator: Trained on `data`.
        data: The training split.
        config: The job.
        screener: Judges trial samples and gives the feature space for coverage.

    Returns:
        The classes that are drawn otherwise than by default.
    """
    generator = generator.with_choices().attach(data)
    control = None
    if lends_to(generator, data):  # nothing else here asks for it
        control = measure_label_control(generator, data, screener, seed=config.seed)
    return choices_of(list(trials_of(generator, data, config, screener, control)))


def lent_styles(
    generator: Synthesizer, data: LabelledImages, control: LabelControl | None
) -> tuple[str, str] | None:
    """Decide whether all classes are drawn in the styles of the frequent ones.

    The rule was learned from benchmarks (`benchmarks/usefulness`): it helps where there are many
    rare classes, enough images to learn styles from, and a label that decides.

    Args:
        generator: The generator.
        data: The training split.
        control: Its label control; None: it was not measured.

    Returns:
        The sampler and why; None where each class has its own default.
    """
    rare, present = lends_to(generator, data), np.count_nonzero(data.counts)
    if not rare or rare < MANY * present:
        return None
    if control is None or control.control < control.real - CLOSE:
        return None
    return "transfer", (
        f"{rare} of {present} classes have fewer than {RARE} images, and "
        f"label control is {control.control:.0%} (real images {control.real:.0%}): every class in "
        f"the styles of {len(generator.latents.lenders(-1))} images of the frequent ones"
    )


def lends_to(generator: Synthesizer, data: LabelledImages) -> int:
    """Count the rare classes that the frequent ones could lend their styles to.

    Args:
        generator: The generator.
        data: The training split.

    Returns:
        The number; 0 also where there is no style, where none of its units is active, or where too
        few images would lend theirs.
    """
    if not active_styles(generator) or len(generator.latents.lenders(-1)) < LENT:
        return 0
    return int(((data.counts > 0) & (data.counts < RARE)).sum())


@dataclass(frozen=True)
class _Outcome:
    """What a sampler gives of a class.

    Attributes:
        acceptance: Share of its samples that pass screening.
        agreement: Share of its samples that the classifiers of real images call by its label.
        coverage: Share of the real images that its samples cover; None where there are too few.
        near: Share of its samples that are near to a training image.
        dispersion: How widely the samples that pass vary, beside the real images; None where there
            are too few.
    """

    acceptance: float
    agreement: float
    coverage: float | None
    near: float
    dispersion: Dispersion | None

    @property
    def merit(self) -> float:
        """Coverage, as far as its samples pass at all and vary as real images do."""
        passing = min(1.0, self.acceptance / LOW_ACCEPTANCE)
        spread = 1.0 if self.dispersion is None else min(1.0, self.dispersion.spread)
        return passing * spread * (1.0 if self.coverage is None else self.coverage)

    @property
    def narrow(self) -> bool:
        """Whether the samples are too much alike."""
        return self.dispersion is not None and self.dispersion.narrow


@dataclass(frozen=True)
class ClassTrial:
    """What was tried of one class, and what was chosen.

    Attributes:
        label: The class.
        metrics: For ``diagnostics.json``.
        warning: What is wrong, "" where nothing is.
        preferred: Another sampler than the default and why; None for the default.
        reach: How far away the neighbours of an interpolation are.
    """

    label: int
    metrics: dict[str, Any]
    warning: str = ""
    preferred: tuple[str, str] | None = None
    reach: int = 1


def trials_of(
    generator: Synthesizer,
    data: LabelledImages,
    config: AugmentConfig,
    screener: Screener | None,
    control: LabelControl | None,
) -> Iterator[ClassTrial]:
    """Try each class that has images.

    Args:
        generator: Changed on the way: a copy with choices of its own.
        data: The training split.
        config: The job.
        screener: Judges the samples; None: nothing is tried.
        control: Label control of the generator; None: it was not measured.

    Yields:
        What was tried of each class.
    """
    automatic = config.recipe.sampler == "auto"
    lent = lent_styles(generator, data, control) if automatic else None
    lenders = lends_to(generator, data)
    if lent is not None:
        everywhere = dict.fromkeys(range(data.n_classes), lent)
        generator = generator.with_choices(everywhere).attach(data)
    for label in range(data.n_classes):
        if len(generator.rows[label]):
            borrows = automatic and lenders and data.counts[label] < RARE
            least = LOW_CONTROL * control.real if borrows and control is not None else None
            trial = _try_class(generator, data, config, label, screener, agreement=least)
            yield trial if lent is None or trial.preferred else replace(trial, preferred=lent)


def choices_of(trials: Sequence[ClassTrial]) -> Choices:
    """The choices that trials suggest.

    Args:
        trials: Of the classes.

    Returns:
        The classes that are drawn otherwise than by default.
    """
    return Choices(
        preferred={trial.label: trial.preferred for trial in trials if trial.preferred},
        reach={trial.label: trial.reach for trial in trials if trial.reach != 1},
    )


def _try_class(
    generator: Synthesizer,
    data: LabelledImages,
    config: AugmentConfig,
    label: int,
    screener: Screener | None,
    *,
    agreement: float | None = None,
) -> ClassTrial:
    """Metrics of one class; another sampler for it where the default one does badly.

    A rare class has an `agreement`: it is drawn by the sampler that borrows most from the frequent
    classes and whose samples agree with the label so often.
    """
    sampler = config.recipe.sampler
    automatic, residual = sampler == "auto", edits_images(config.sampling)
    chosen = generator.default_sampler(label, residual=residual) if automatic else sampler
    reason = f"{sampler}: as configured"
    metrics: dict[str, Any] = {
        "images": int(data.counts[label]),
        "sampler": chosen,
        "why": generator.sampler_reason(label, residual=residual) if automatic else reason,
    }
    if screener is None:
        return ClassTrial(label, metrics)
    trial = _Trial(generator, data, config, label, screener)
    outcome = trial.of(chosen)
    if automatic and residual and chosen == "interpolate" and data.counts[label] >= NEAR_CLASS:
        outcome = trial.reach_out(outcome)
    reach = generator.reach.get(label, 1)
    if agreement is not None and not (chosen == "transfer" and outcome.agreement >= agreement):
        borrowed = trial.of("delta")
        if borrowed.agreement >= agreement:
            reason = trial.borrowing(chosen, outcome, borrowed)
            metrics |= {"sampler": "delta", "why": f"delta: {reason}", **trial.metrics(borrowed)}
            return ClassTrial(label, metrics, preferred=("delta", reason))
    metrics |= trial.metrics(outcome)
    if not trial.fails(chosen, outcome):
        return ClassTrial(label, metrics, reach=reach)
    what = f"class {data.class_names[label]!r}: {trial.fault(chosen, outcome)}"
    if not automatic:
        warning = f"{what}; recipe.sampler auto would look for a better one"
        return ClassTrial(label, metrics, warning, reach=reach)
    others = [name for name in generator.alternatives if name != chosen]
    outcomes = {name: trial.of(name) for name in others}
    best = max(outcomes, key=lambda name: outcomes[name].merit)
    if outcomes[best].merit <= outcome.merit:
        warning = f"{what}; no other sampler does better: train longer"
        return ClassTrial(label, metrics, warning, reach=reach)
    praise = trial.praise(outcomes[best])
    reason = f"{trial.fault(chosen, outcome)}; {praise}"
    metrics |= {"sampler": best, "why": f"{best}: {reason}", **trial.metrics(outcomes[best])}
    warning = f"{what}; {best!r} is used in its place ({praise})"
    return ClassTrial(label, metrics, warning, preferred=(best, reason), reach=reach)


class _Trial:
    """Samples of one class by any sampler, screened, and set beside its real images."""

    def __init__(
        self,
        generator: Synthesizer,
        data: LabelledImages,
        config: AugmentConfig,
        label: int,
        screener: Screener,
    ) -> None:
        self.generator, self.config = generator, config
        self.label, self.screener = label, screener
        rows = np.flatnonzero(data.labels == label)
        if data.groups is not None:
            # Views of one image cover each other: one of each says how well images do.
            rows = rows[np.unique(data.groups[rows], return_index=True)[1]]
        rng = np.random.default_rng([config.seed, label])
        images = taken(data.images, rng.permutation(rows)[: 2 * COVERAGE_IMAGES])
        self.images = images[:MOST_IMAGES]
        self.n = max(MIN_COVERAGE_IMAGES, len(images) // 2)
        self.real: np.ndarray | None = None
        self.reference: float | None = None
        if len(images) >= 2 * MIN_COVERAGE_IMAGES:
            features = screener.features(images)
            self.real = features[: self.n]
            self.reference = coverage(self.real, features[self.n : 2 * self.n], k=NEIGHBOURS)

    def of(self, sampler: str) -> _Outcome:
        batch = sample_configured(
            self.generator,
            self.config,
            self.label,
            self.n,
            sampler=sampler,
            seed=self.config.seed,
        )
        screened = self.screener.new_class(self.label).screen(batch.images)
        covered = None
        # Samples made of differences vary more than their class does: that is no collapse.
        if self.real is not None and sampler not in FROM_DATA:
            covered = coverage(self.real, self.screener.features(batch.images), k=NEIGHBOURS)
        return _Outcome(
            acceptance=float(screened.accepted.mean()),
            agreement=float((screened.probabilities.argmax(axis=1) == self.label).mean()),
            coverage=covered,
            near=float(screened.near.mean()),
            dispersion=dispersion(batch.images[screened.accepted], self.images),
        )

    def reach_out(self, outcome: _Outcome) -> _Outcome:
        """Move towards farther neighbours until few enough samples are near to training images."""
        chosen = self.generator.reach.get(self.label, 1)
        for reach in REACHES:
            if self.config.screening.max_near_share == 1 or outcome.near <= TOO_NEAR:
                break
            self.generator.reach[self.label] = reach
            farther = self.of("interpolate")
            if farther.near < outcome.near:
                chosen, outcome = reach, farther
        self.generator.reach[self.label] = chosen
        return outcome

    def fails(self, sampler: str, outcome: _Outcome) -> bool:
        # Styles that a class never had cannot cover it as its own images do.
        collapsed = sampler != "transfer" and self._collapsed(outcome)
        return outcome.acceptance < LOW_ACCEPTANCE or collapsed or outcome.narrow

    def fault(self, sampler: str, outcome: _Outcome) -> str:
        faults = []
        if self._collapsed(outcome):
            faults.append(
                f"mode collapse? samples of {sampler!r} cover {outcome.coverage:.0%} of its real "
                f"images, where real ones cover {self.reference:.0%} of each other"
            )
        if outcome.dispersion is not None and outcome.narrow:
            faults.append(
                f"samples of {sampler!r} are too much alike: their standard deviation is "
                f"{outcome.dispersion.spread:.0%} of that of the real images, the distance of two "
                f"of them {outcome.dispersion.distance:.0%}"
            )
        if outcome.acceptance < LOW_ACCEPTANCE:
            faults.append(
                f"screening rejects {1 - outcome.acceptance:.0%} of the samples of {sampler!r}"
            )
        return "; ".join(faults)

    def praise(self, outcome: _Outcome) -> str:
        passing = f"{outcome.acceptance:.0%} pass"
        if outcome.dispersion is not None:
            passing += f", {outcome.dispersion.spread:.0%} of the real spread"
        return passing + ("" if outcome.coverage is None else f", {outcome.coverage:.0%} covered")

    def borrowing(self, default: str, outcome: _Outcome, borrowed: _Outcome) -> str:
        return (
            f"{len(self.generator.rows[self.label])} images, each moved by a difference within a "
            f"similar frequent class; {borrowed.agreement:.0%} show the label, of {default!r} "
            f"{outcome.agreement:.0%}"
        )

    def metrics(self, outcome: _Outcome) -> dict[str, Any]:
        reach = self.generator.reach.get(self.label, 1)
        metrics: dict[str, Any] = {
            "acceptance": outcome.acceptance,
            "agreement": outcome.agreement,
            "near": outcome.near,
            "reach": reach,
        }
        if outcome.coverage is not None:
            metrics |= {"coverage": outcome.coverage, "coverage_of_real": self.reference}
        if outcome.dispersion is not None:
            metrics |= outcome.dispersion.to_json()
        return metrics

    def _collapsed(self, outcome: _Outcome) -> bool:
        return (
            outcome.coverage is not None
            and self.reference is not None
            and outcome.coverage < COLLAPSED * self.reference
        )
