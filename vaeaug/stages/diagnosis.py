"""What a trained generator is like: its latents, its fit, and how much of each class it covers.

Every run writes these metrics to ``diagnostics.json``. A class whose samples cover much less of its
real images than real images do of each other has collapsed, and one whose samples are nearly all
rejected cannot be filled; another sampler is then looked for.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.generator import Synthesizer, edits_images, sample_configured
from vaeaug.screening import NEAR_CLASS, Screener
from vaeaug.stages.neighbours import coverage
from vaeaug.training import ACTIVE_VARIANCE

# Images scored for the bounds; the importance-weighted one takes many latents of each.
BOUND_IMAGES = 512
WEIGHTED_IMAGES = 100
# Images encoded for active units and mutual information.
LATENT_IMAGES = 2_000
INFORMATION_BINS = 10
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
# Overfitting is reported when the training bound is this many nats per value above the other.
WIDE_GAP = 0.05


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


@dataclass
class Diagnostics:
    """Metrics of a generator, what they mean for the user, and the samplers that they suggest.

    Attributes:
        metrics: Plain JSON types; see `diagnose`.
        warnings: A sentence for each thing that is wrong, with what was done about it.
        choices: The classes that another sampler than the default suits better.
    """

    metrics: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    choices: Choices = field(default_factory=Choices)

    @property
    def figures(self) -> dict[str, Any]:
        """Deprecated name of `metrics`."""
        warnings.warn(
            "Diagnostics.figures is deprecated: use metrics", DeprecationWarning, stacklevel=2
        )
        return self.metrics

    def to_json(self) -> dict[str, Any]:
        """The content of ``diagnostics.json``.

        Returns:
            Metrics and warnings.
        """
        return {**self.metrics, "warnings": list(self.warnings)}

    def summary(self) -> list[str]:
        """The diagnostics in words.

        Returns:
            A line on the fit, one on the latents, one for each way of drawing, then the warnings.
        """
        fit, latents = self.metrics["fit"], self.metrics["latents"]
        bits = fit["bits_per_dimension"]
        lines = [
            f"held-out ELBO {fit['elbo_held_out']:.1f} nats (training {fit['elbo_train']:.1f}), "
            f"importance-weighted bound {fit['bound']:.1f} (K = {fit['bound_samples']})"
            + (f", {bits:.2f} bits per value" if bits is not None else ""),
            f"{latents['active']} of {latents['units']} latent units are active; the unit that "
            f"knows most of the class has {max(latents['class_information']):.2f} nats of it",
        ]
        samplers: dict[str, list[str]] = {}
        for name, metrics in self.metrics["classes"].items():
            # Classes that are drawn alike, but for their counts, share a line.
            why = metrics["why"].replace(f"{metrics['images']} images, ", "")
            samplers.setdefault(why, []).append(name)
        lines.extend(f"drawing {', '.join(names)}: {why}" for why, names in samplers.items())
        return lines + self.warnings


def diagnose(
    generator: Synthesizer,
    data: LabelledImages,
    config: AugmentConfig,
    *,
    screener: Screener | None = None,
) -> Diagnostics:
    """Measure a generator on the data it was trained on, and choose how each class is drawn.

    Where a class has collapsed under its default sampler, or screening rejects nearly all of its
    samples, the choices name another sampler that does better. The generator is not changed:
    ``diagnostics.choices.apply(generator)`` gives one that draws by them.

    Args:
        generator: Trained on `data`.
        data: The training split.
        config: The job, whose held-out part is split off again.
        screener: Judges and gives the feature space for coverage; None: neither is looked at.

    Returns:
        ``fit``: ELBO of training and held-out images (mean and standard error, nats), their gap,
        the importance-weighted bound, bits per value (8-bit data). ``latents``: units, active
        ones, KL of each unit (nats), mutual information of each unit with the class (nats).
        ``classes``: per class its sampler and why, and its coverage beside that of real images.
    """
    # A copy holds the images and the choices that are tried.
    generator = generator.with_choices().attach(data)
    fit = _fit(generator, data, config)
    latents = _latents(generator, data, config.seed)
    trials = list(_trials(generator, data, config, screener))
    diagnostics = Diagnostics(
        {
            "training": list(generator.notes),
            "fit": fit,
            "latents": latents,
            "classes": {data.class_names[trial.label]: trial.metrics for trial in trials},
        },
        choices=_choices(trials),
    )
    n_values = math.prod(generator.image_shape)
    if fit["gap"] > WIDE_GAP * n_values:
        diagnostics.warnings.append(
            f"overfitting: the training bound is {fit['gap']:.0f} nats above the held-out one; the "
            "best held-out weights were kept; more images or a smaller model.width would help"
        )
    if latents["active"] < max(1, 0.1 * latents["units"]):
        diagnostics.warnings.append(
            f"posterior collapse: {latents['active']} of {latents['units']} latent units are "
            "active; a lower model.beta or model.free_bits of 0.05 wakes them"
        )
    diagnostics.warnings.extend(trial.warning for trial in trials if trial.warning)
    return diagnostics


def _fit(generator: Synthesizer, data: LabelledImages, config: AugmentConfig) -> dict[str, Any]:
    train, held_out = data.split_off(config.training.held_out, seed=config.seed)
    train, held_out = _some(train, BOUND_IMAGES), _some(held_out, BOUND_IMAGES)
    on_train = generator.bound(train.images, train.labels, k=1, seed=config.seed)
    on_held_out = generator.bound(held_out.images, held_out.labels, k=1, seed=config.seed)
    few = _some(held_out, WEIGHTED_IMAGES)
    k = config.training.bound_samples
    bound = generator.bound(few.images, few.labels, k=k, seed=config.seed)
    bits = None
    if data.images.dtype == np.uint8:
        bits = float(generator.rates(held_out.images, held_out.labels, seed=config.seed)[1].mean())
    return {
        "unit": "nats per image of values scaled to [0, 1]",
        "likelihood": str(generator.model.architecture["likelihood"]),
        "elbo_train": float(on_train.mean()),
        "elbo_held_out": float(on_held_out.mean()),
        "elbo_held_out_error": float(on_held_out.std() / math.sqrt(len(on_held_out))),
        "gap": float(on_train.mean() - on_held_out.mean()),
        "bound": float(bound.mean()),
        "bound_samples": k,
        "bound_images": len(few),
        "bits_per_dimension": bits,
    }


def _latents(generator: Synthesizer, data: LabelledImages, seed: int) -> dict[str, Any]:
    rows = np.sort(np.random.default_rng(seed).permutation(len(data))[:LATENT_IMAGES])
    means, labels = generator.means[rows], data.labels[rows]
    few = rows[:: max(1, len(rows) // BOUND_IMAGES)]
    kl, _ = generator.rates(data.images[few], data.labels[few], seed=seed, bits=False)
    return {
        "units": int(means.shape[1]),
        "active": int((means.var(axis=0) > ACTIVE_VARIANCE).sum()),
        "kl_per_unit": [round(float(nats), 4) for nats in kl.mean(axis=0)],
        "class_information": [round(nats, 4) for nats in class_information(means, labels)],
    }


def class_information(
    latents: Float[np.ndarray, "n z"], labels: Int64[np.ndarray, " n"]
) -> list[float]:
    """Mutual information of each unit with the class, nats.

    Units are cut into ten bins of equal counts; the bias of the plug-in estimate, about
    ``(bins - 1)(classes - 1) / 2n``, is taken off (Miller 1955). At most the entropy of the class.

    Args:
        latents: Posterior means.
        labels: Classes.
    """
    from sklearn.metrics import mutual_info_score

    n = len(latents)
    n_classes = len(np.unique(labels))
    inner = np.linspace(0, 1, INFORMATION_BINS + 1)[1:-1]
    information = []
    for unit in latents.T:
        bins = np.searchsorted(np.quantile(unit, inner), unit, side="right")
        bias = (len(np.unique(bins)) - 1) * (n_classes - 1) / (2 * n)
        information.append(max(0.0, float(mutual_info_score(labels, bins)) - bias))
    return information


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
    trials = _trials(generator.with_choices().attach(data), data, config, screener)
    return _choices(list(trials))


@dataclass(frozen=True)
class _Outcome:
    """What a sampler gives of a class.

    Attributes:
        acceptance: Share of its samples that pass screening.
        coverage: Share of the real images that its samples cover; None where there are too few.
        near: Share of its samples that are near to a training image.
    """

    acceptance: float
    coverage: float | None
    near: float

    @property
    def merit(self) -> float:
        """Coverage, as far as its samples pass at all."""
        passing = min(1.0, self.acceptance / LOW_ACCEPTANCE)
        return passing * (1.0 if self.coverage is None else self.coverage)


@dataclass(frozen=True)
class _ClassTrial:
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


def _trials(
    generator: Synthesizer,
    data: LabelledImages,
    config: AugmentConfig,
    screener: Screener | None,
) -> Iterator[_ClassTrial]:
    """A trial of each class that has images; `generator` is changed on the way."""
    for label in range(data.n_classes):
        if len(generator.rows[label]):
            yield _try_class(generator, data, config, label, screener)


def _choices(trials: Sequence[_ClassTrial]) -> Choices:
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
) -> _ClassTrial:
    """Metrics of one class; another sampler for it where the default one does badly."""
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
        return _ClassTrial(label, metrics)
    trial = _Trial(generator, data, config, label, screener)
    outcome = trial.of(chosen)
    if automatic and residual and chosen == "interpolate" and data.counts[label] >= NEAR_CLASS:
        outcome = trial.reach_out(outcome)
    reach = generator.reach.get(label, 1)
    metrics |= trial.metrics(outcome)
    if not trial.fails(outcome):
        return _ClassTrial(label, metrics, reach=reach)
    what = f"class {data.class_names[label]!r}: {trial.fault(chosen, outcome)}"
    if not automatic:
        warning = f"{what}; recipe.sampler auto would look for a better one"
        return _ClassTrial(label, metrics, warning, reach=reach)
    others = [
        name
        for name in ("flow", "gmm", "interpolate", "prior")
        if name != chosen and (name != "flow" or generator.flow is not None)
    ]
    outcomes = {name: trial.of(name) for name in others}
    best = max(outcomes, key=lambda name: outcomes[name].merit)
    if outcomes[best].merit <= outcome.merit:
        warning = f"{what}; no other sampler does better: train longer"
        return _ClassTrial(label, metrics, warning, reach=reach)
    praise = trial.praise(outcomes[best])
    reason = f"{trial.fault(chosen, outcome)}; {praise}"
    metrics |= {"sampler": best, "why": f"{best}: {reason}", **trial.metrics(outcomes[best])}
    warning = f"{what}; {best!r} is used in its place ({praise})"
    return _ClassTrial(label, metrics, warning, preferred=(best, reason), reach=reach)


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
        rng = np.random.default_rng([config.seed, label])
        images = data.images[rng.permutation(rows)[: 2 * COVERAGE_IMAGES]]
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
        if self.real is not None:
            covered = coverage(self.real, self.screener.features(batch.images), k=NEIGHBOURS)
        return _Outcome(float(screened.accepted.mean()), covered, float(screened.near.mean()))

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

    def fails(self, outcome: _Outcome) -> bool:
        return outcome.acceptance < LOW_ACCEPTANCE or self._collapsed(outcome)

    def fault(self, sampler: str, outcome: _Outcome) -> str:
        if self._collapsed(outcome):
            return (
                f"mode collapse? samples of {sampler!r} cover {outcome.coverage:.0%} of its real "
                f"images, where real ones cover {self.reference:.0%} of each other"
            )
        return f"screening rejects {1 - outcome.acceptance:.0%} of the samples of {sampler!r}"

    def praise(self, outcome: _Outcome) -> str:
        passing = f"{outcome.acceptance:.0%} pass"
        return passing + ("" if outcome.coverage is None else f", {outcome.coverage:.0%} covered")

    def metrics(self, outcome: _Outcome) -> dict[str, Any]:
        reach = self.generator.reach.get(self.label, 1)
        metrics: dict[str, Any] = {
            "acceptance": outcome.acceptance,
            "near": outcome.near,
            "reach": reach,
        }
        if outcome.coverage is not None:
            metrics |= {"coverage": outcome.coverage, "coverage_of_real": self.reference}
        return metrics

    def _collapsed(self, outcome: _Outcome) -> bool:
        return (
            outcome.coverage is not None
            and self.reference is not None
            and outcome.coverage < COLLAPSED * self.reference
        )


def _some(data: LabelledImages, most: int) -> LabelledImages:
    rows = np.random.default_rng(len(data)).permutation(len(data))[:most]
    return data.subset(np.sort(rows))
