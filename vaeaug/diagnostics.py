"""What a trained generator is like: its latents, its fit, and how much of each class it covers.

Every run writes these figures to ``diagnostics.json``. A class whose samples cover much less of its
real images than real images do of each other has collapsed; another sampler is then looked for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Shaped

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.evaluation import coverage
from vaeaug.sampling import WITH_SOURCE, Synthesizer

# Images scored for the bounds; the importance-weighted one takes many latents of each.
BOUND_IMAGES = 512
WEIGHTED_IMAGES = 100
# Images encoded for active units and mutual information.
LATENT_IMAGES = 2_000
ACTIVE_VARIANCE = 0.01
INFORMATION_BINS = 10
# Per class: images compared for coverage, and the fewest that say something.
COVERAGE_IMAGES = 200
MIN_COVERAGE_IMAGES = 20
NEIGHBOURS = 5
# A class whose coverage is below this part of the real images' own has collapsed.
COLLAPSED = 0.5
# Overfitting is named when the training bound is so many nats per value above the held-out one.
WIDE_GAP = 0.05

Features = Callable[[Shaped[np.ndarray, "n *space c"]], Float[np.ndarray, "n f"]]


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
        """A line on the fit, a line on the latents, then the warnings."""
        fit, latents = self.figures["fit"], self.figures["latents"]
        bits = fit["bits_per_dimension"]
        lines = [
            f"held-out ELBO {fit['elbo_held_out']:.1f} nats (training {fit['elbo_train']:.1f}), "
            f"importance-weighted bound {fit['bound']:.1f} (K = {fit['bound_samples']})"
            + (f", {bits:.2f} bits per value" if bits is not None else ""),
            f"{latents['active']} of {latents['units']} latent units are active; the unit that "
            f"knows most of the class has {max(latents['class_information']):.2f} nats of it",
        ]
        return lines + self.warnings


def diagnose(
    generator: Synthesizer,
    data: LabelledImages,
    config: AugmentConfig,
    *,
    features: Features | None = None,
) -> Diagnostics:
    """Look at a generator and the data it was trained on.

    Args:
        generator: Trained on `data`; where a class has collapsed under its default sampler and
            another one covers more, that one becomes its default.
        data: The training split.
        config: The job, whose held-out part is split off again.
        features: A feature space for coverage, such as `Screener.features`; None: no coverage.

    Returns:
        ``fit``: ELBO of training and held-out images (mean and standard error, nats), their gap,
        the importance-weighted bound, bits per value (8-bit data). ``latents``: units, active
        ones, KL of each unit (nats), mutual information of each unit with the class (nats).
        ``classes``: per class its sampler and why, and its coverage beside that of real images.
    """
    generator.attach(data)
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
            figures, warning = _class(generator, data, config, label, features)
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
    kl, _ = generator.rates(data.images[few], data.labels[few], seed=seed)
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
    features: Features | None,
) -> tuple[dict[str, Any], list[str]]:
    sampler = config.sampling.sampler
    automatic, residual = sampler == "auto", config.sampling.residual is not False
    chosen = generator.default_sampler(label, residual=residual) if automatic else sampler
    figures: dict[str, Any] = {
        "images": int(data.counts[label]),
        "sampler": chosen,
        "why": generator.sampler_reason(label, residual=residual) if automatic else "as configured",
    }
    rows = np.flatnonzero(data.labels == label)
    if features is None or len(rows) < MIN_COVERAGE_IMAGES:
        return figures, []
    rng = np.random.default_rng([config.seed, label])
    real = features(data.images[rng.permutation(rows)[: 2 * COVERAGE_IMAGES]])
    half = len(real) // 2
    reference = coverage(real[:half], real[half : 2 * half], k=NEIGHBOURS)

    def covered(name: str) -> float:
        batch = generator.sample(
            label,
            half,
            seed=config.seed,
            sampler=name,
            temperature=config.sampling.temperature,
            guidance=config.sampling.guidance,
            solver_steps=config.sampling.solver_steps,
            residual=residual and name in WITH_SOURCE,
        )
        return coverage(real[:half], features(batch.images), k=NEIGHBOURS)

    own = covered(chosen)
    figures |= {"coverage": own, "coverage_of_real": reference}
    if own >= COLLAPSED * reference:
        return figures, []
    what = (
        f"class {data.class_names[label]!r}: samples of {chosen!r} cover {own:.0%} of its real "
        f"images, where real ones cover {reference:.0%} of each other"
    )
    others = [each for each in ("flow", "gmm", "posterior", "interpolate") if each != chosen]
    if not automatic:
        return figures, [f"mode collapse? {what}; sampling.sampler auto would look for a better"]
    scores = {
        each: covered(each) for each in others if each != "flow" or generator.flow is not None
    }
    best = max(scores, key=lambda each: scores[each])
    if scores[best] <= own:
        return figures, [f"mode collapse? {what}; no other sampler covers more: train longer"]
    reason = f"covers {scores[best]:.0%} of the real images, {chosen} {own:.0%}"
    generator.preferred[label] = (best, reason)
    figures |= {"sampler": best, "why": f"{best}: {reason}", "coverage": scores[best]}
    return figures, [f"mode collapse? {what}; {best!r} covers {scores[best]:.0%} and is used"]


def _some(data: LabelledImages, most: int) -> LabelledImages:
    rows = np.random.default_rng(len(data)).permutation(len(data))[:most]
    return data.subset(np.sort(rows))
