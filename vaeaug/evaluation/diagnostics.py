"""What a trained generator is like: its latents, its fit, and how much of each class it covers.

Every run writes these figures to ``diagnostics.json``. A class whose samples cover much less of its
real images than real images do of each other has collapsed, and one whose samples are nearly all
turned away cannot be filled; another sampler is then looked for.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.evaluation import coverage
from vaeaug.generator import Synthesizer, edits_images, sample_configured
from vaeaug.screening import NEAR_CLASS, Screener
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
# Overfitting is named when the training bound is so many nats per value above the held-out one.
# How far an interpolation reaches is raised by these steps where more of its samples than this are
# near to training images: screening could not turn so many of them away. It has its price:
# `benchmarks/README.md`.
REACHES, TOO_NEAR = (2, 4, 8), 0.7
WIDE_GAP = 0.05


@dataclass
class Diagnostics:
    """Figures, and what they mean for the user.

    Attributes:
        figures: Plain JSON types; see `diagnose`.
        warnings: A sentence for each thing that is wrong, with what was done about it.
    """

    figures: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Figures and warnings."""
        return {**self.figures, "warnings": list(self.warnings)}

    def summary(self) -> list[str]:
        """A line on the fit, one on the latents, one for each way of drawing, then the warnings."""
        fit, latents = self.figures["fit"], self.figures["latents"]
        bits = fit["bits_per_dimension"]
        lines = [
            f"held-out ELBO {fit['elbo_held_out']:.1f} nats (training {fit['elbo_train']:.1f}), "
            f"importance-weighted bound {fit['bound']:.1f} (K = {fit['bound_samples']})"
            + (f", {bits:.2f} bits per value" if bits is not None else ""),
            f"{latents['active']} of {latents['units']} latent units are active; the unit that "
            f"knows most of the class has {max(latents['class_information']):.2f} nats of it",
        ]
        samplers: dict[str, list[str]] = {}
        for name, figures in self.figures["classes"].items():
            # Classes that are drawn alike, but for their counts, share a line.
            why = figures["why"].replace(f"{figures['images']} images, ", "")
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
    """Look at a generator and the data it was trained on.

    Args:
        generator: Trained on `data`; where a class has collapsed under its default sampler and
            another one covers more, or screening turns nearly all away, another one that does
            better becomes its default.
        data: The training split.
        config: The job, whose held-out part is split off again.
        screener: Judges and gives the feature space for coverage; None: neither is looked at.

    Returns:
        ``fit``: ELBO of training and held-out images (mean and standard error, nats), their gap,
        the importance-weighted bound, bits per value (8-bit data). ``latents``: units, active
        ones, KL of each unit (nats), mutual information of each unit with the class (nats).
        ``classes``: per class its sampler and why, and its coverage beside that of real images.
    """
    # A copy holds the images, which the caller's does not have to; `preferred` is the same one.
    generator = copy.copy(generator).attach(data)
    fit = _fit(generator, data, config)
    latents = _latents(generator, data, config.seed)
    found = Diagnostics(
        {"training": list(generator.notes), "fit": fit, "latents": latents, "classes": {}}
    )
    n_values = math.prod(generator.image_shape)
    if fit["gap"] > WIDE_GAP * n_values:
        found.warnings.append(
            f"overfitting: the training bound is {fit['gap']:.0f} nats above the held-out one; the "
            "best held-out weights were kept; more images or a smaller model.width would help"
        )
    if latents["active"] < max(1, 0.1 * latents["units"]):
        found.warnings.append(
            f"posterior collapse: {latents['active']} of {latents['units']} latent units are "
            "active; a lower model.beta or model.free_bits of 0.05 wakes them"
        )
    for label, name in enumerate(data.class_names):
        if len(generator.rows[label]):
            figures, warning = _class(generator, data, config, label, screener)
            found.figures["classes"][name] = figures
            found.warnings.extend(warning)
    return found


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
        "kl_per_unit": [round(float(each), 4) for each in kl.mean(axis=0)],
        "class_information": [round(each, 4) for each in class_information(means, labels)],
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
    found = []
    for unit in latents.T:
        bins = np.searchsorted(np.quantile(unit, inner), unit, side="right")
        bias = (len(np.unique(bins)) - 1) * (n_classes - 1) / (2 * n)
        found.append(max(0.0, float(mutual_info_score(labels, bins)) - bias))
    return found


def _class(
    generator: Synthesizer,
    data: LabelledImages,
    config: AugmentConfig,
    label: int,
    screener: Screener | None,
) -> tuple[dict[str, Any], list[str]]:
    """Figures of one class; another sampler for it where the default one does badly."""
    sampler = config.recipe.sampler
    automatic, residual = sampler == "auto", edits_images(config.sampling)
    chosen = generator.default_sampler(label, residual=residual) if automatic else sampler
    figures: dict[str, Any] = {
        "images": int(data.counts[label]),
        "sampler": chosen,
        "why": generator.sampler_reason(label, residual=residual)
        if automatic
        else f"{sampler}: as configured",
    }
    if screener is None:
        return figures, []
    trial = _Trial(generator, data, config, label, screener)
    own = trial.of(chosen)
    if automatic and residual and chosen == "interpolate" and data.counts[label] >= NEAR_CLASS:
        own = trial.reach_out(own)
    figures |= trial.figures(own)
    if not trial.fails(own):
        return figures, []
    what = f"class {data.class_names[label]!r}: {trial.fault(chosen, own)}"
    if not automatic:
        return figures, [f"{what}; recipe.sampler auto would look for a better one"]
    others = [
        each
        for each in ("flow", "gmm", "interpolate", "prior")
        if each != chosen and (each != "flow" or generator.flow is not None)
    ]
    found = {each: trial.of(each) for each in others}
    best = max(found, key=lambda each: found[each].merit)
    if found[best].merit <= own.merit:
        return figures, [f"{what}; no other sampler does better: train longer"]
    reason = f"{trial.fault(chosen, own)}; {trial.praise(found[best])}"
    generator.preferred[label] = (best, reason)
    figures |= {"sampler": best, "why": f"{best}: {reason}", **trial.figures(found[best])}
    return figures, [f"{what}; {best!r} is used in its place ({trial.praise(found[best])})"]


@dataclass(frozen=True)
class _Outcome:
    """What a sampler gives of a class."""

    acceptance: float
    coverage: float | None
    near: float

    @property
    def merit(self) -> float:
        """Coverage, as far as its samples pass at all."""
        passing = min(1.0, self.acceptance / LOW_ACCEPTANCE)
        return passing * (1.0 if self.coverage is None else self.coverage)


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
            self.generator.set_reach(self.label, reach)
            farther = self.of("interpolate")
            if farther.near < outcome.near:
                chosen, outcome = reach, farther
        self.generator.set_reach(self.label, chosen)
        return outcome

    def fails(self, outcome: _Outcome) -> bool:
        return outcome.acceptance < LOW_ACCEPTANCE or self._collapsed(outcome)

    def fault(self, sampler: str, outcome: _Outcome) -> str:
        if self._collapsed(outcome):
            return (
                f"mode collapse? samples of {sampler!r} cover {outcome.coverage:.0%} of its real "
                f"images, where real ones cover {self.reference:.0%} of each other"
            )
        return f"screening turns away {1 - outcome.acceptance:.0%} of the samples of {sampler!r}"

    def praise(self, outcome: _Outcome) -> str:
        passing = f"{outcome.acceptance:.0%} pass"
        return passing + ("" if outcome.coverage is None else f", {outcome.coverage:.0%} covered")

    def figures(self, outcome: _Outcome) -> dict[str, Any]:
        reach = self.generator.reach.get(self.label, 1)
        figures: dict[str, Any] = {
            "acceptance": outcome.acceptance,
            "near": outcome.near,
            "reach": reach,
        }
        if outcome.coverage is not None:
            figures |= {"coverage": outcome.coverage, "coverage_of_real": self.reference}
        return figures

    def _collapsed(self, outcome: _Outcome) -> bool:
        return (
            outcome.coverage is not None
            and self.reference is not None
            and outcome.coverage < COLLAPSED * self.reference
        )


def _some(data: LabelledImages, most: int) -> LabelledImages:
    rows = np.random.default_rng(len(data)).permutation(len(data))[:most]
    return data.subset(np.sort(rows))
