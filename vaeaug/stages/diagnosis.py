"""What a trained generator is like: its latents, its fit, and how much of each class it covers.

Every run writes these metrics to ``diagnostics.json``.
"""

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.generator import Synthesizer
from vaeaug.mapping import taken
from vaeaug.memory import blocks
from vaeaug.models import CVAE, perplexity
from vaeaug.screening import Screener
from vaeaug.stages.choices import Choices, choices_of, trials_of
from vaeaug.stages.label_control import LabelControl, measure_label_control
from vaeaug.stages.readable import UnitEffect, active_styles, unit_effects
from vaeaug.training import ACTIVE_VARIANCE

# Images scored for the bounds; the importance-weighted one takes many latents of each.
BOUND_IMAGES = 512
WEIGHTED_IMAGES = 100
# Images encoded for active units and mutual information.
LATENT_IMAGES = 2_000
INFORMATION_BINS = 10
# A codebook has collapsed if its perplexity is below this fraction of its codes.
COLLAPSED_CODES = 0.1
# Overfitting is reported when the training bound is this many nats per value above the other.
WIDE_GAP = 0.05


@dataclass
class Diagnostics:
    """Metrics of a generator, what they mean for the user, and the samplers that they suggest.

    Attributes:
        metrics: Plain JSON types; see `diagnose`.
        warnings: A sentence for each thing that is wrong, with what was done about it.
        choices: The classes that another sampler than the default suits better.
        refusal: Why the sampler of the recipe is not to be used; "" where it may.
    """

    metrics: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    choices: Choices = field(default_factory=Choices)
    refusal: str = ""

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
        codes = latents.get("codes")
        lines = [
            f"held-out ELBO {fit['elbo_held_out']:.1f} nats (training {fit['elbo_train']:.1f}), "
            f"importance-weighted bound {fit['bound']:.1f} (K = {fit['bound_samples']})"
            + (f", {bits:.2f} bits per value" if bits is not None else "")
            + f"; held-out reconstructions leave {fit['unexplained']:.0%} of the variance",
            f"{latents['active']} of {latents['units']} latent units are active; the unit that "
            f"knows most of the class has {max(latents['class_information']):.2f} nats of it"
            if codes is None
            else f"{codes['used']} of {codes['codes']} codes are used (perplexity "
            f"{codes['perplexity']:.0f}); the prior takes {codes['nats_per_code']:.2f} nats for "
            f"one, {math.log(codes['codes']):.2f} if it knew nothing",
        ]
        if units := latents.get("style_units"):
            lines.append(f"{latents['style_active']} of {units} units of the style are active")
        effects = [UnitEffect(**effect) for effect in latents.get("effects", [])]
        if named := [str(effect) for effect in effects if effect.attribute]:
            lines.append(
                "what latent units change most, in standard deviations: " + ", ".join(named[:6])
            )
        if "label_control" in self.metrics:
            lines.append(LabelControl(**self.metrics["label_control"]).summary())
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
        the importance-weighted bound, bits per value (8-bit data), and the part of the variance of
        held-out samples that their reconstructions leave. ``latents``: units, active ones, KL of
        each unit (nats; of discrete ones that of each code, and ``codes``, the use of the
        codebook), mutual information of each unit with the class (nats), and the fields of
        `UnitEffect` of the units that vary most.
        ``label_control``, with a screener: the fields of `LabelControl`.
        ``classes``: per class its sampler and why, and its coverage beside that of real images.
    """
    # A copy holds the images and the choices that are tried.
    generator = generator.with_choices().attach(data)
    fit = _fit(generator, data, config)
    latents = _latents(generator, data, config.seed)
    effects = unit_effects(generator, seed=config.seed)
    latents["effects"] = [effect.to_json() for effect in effects]
    control = None
    if screener is not None:
        control = measure_label_control(generator, data, screener, seed=config.seed)
    trials = list(trials_of(generator, data, config, screener, control))
    diagnostics = Diagnostics(
        {
            "training": list(generator.notes),
            "fit": fit,
            "latents": latents,
            "classes": {data.class_names[trial.label]: trial.metrics for trial in trials},
        },
        choices=choices_of(trials),
    )
    if control is not None:
        diagnostics.metrics["label_control"] = control.to_json()
    n_values = math.prod(generator.image_shape)
    if fit["gap"] > WIDE_GAP * n_values:
        diagnostics.warnings.append(
            f"overfitting: the training bound is {fit['gap']:.0f} nats above the held-out one; the "
            "best held-out weights were kept; more images or a smaller model.width would help"
        )
    codes = latents.get("codes")
    if codes is not None and codes["perplexity"] < COLLAPSED_CODES * codes["codes"]:
        diagnostics.warnings.append(
            f"codebook collapse: the use of {codes['used']} of {codes['codes']} codes is that of "
            f"{codes['perplexity']:.0f} equally frequent ones; fewer model.codes would do as well"
        )
    if codes is None and latents["active"] < max(1, 0.1 * latents["units"]):
        diagnostics.warnings.append(
            f"posterior collapse: {latents['active']} of {latents['units']} latent units are "
            "active; a lower model.beta or model.free_bits of 0.05 wakes them"
        )
    if control is not None and (refusal := control.refusal(config.recipe.sampler)):
        diagnostics.refusal = refusal
        diagnostics.warnings.append(refusal)
    diagnostics.warnings.extend(trial.warning for trial in trials if trial.warning)
    return diagnostics


def _fit(generator: Synthesizer, data: LabelledImages, config: AugmentConfig) -> dict[str, Any]:
    parts = data.split_rows(config.training.held_out, seed=config.seed)
    train, held_out = (_some(data, BOUND_IMAGES, rows) for rows in parts)
    on_train = generator.bound(train.images, train.labels, k=1, seed=config.seed)
    on_held_out = generator.bound(held_out.images, held_out.labels, k=1, seed=config.seed)
    few = _some(held_out, WEIGHTED_IMAGES)
    k = config.training.bound_samples
    bound = generator.bound(few.images, few.labels, k=k, seed=config.seed)
    bits = None
    if data.images.dtype == np.uint8 and generator.codec.latent_space is None:
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
        "unexplained": _unexplained(generator, train, held_out),
    }


def _unexplained(generator: Synthesizer, train: LabelledImages, held_out: LabelledImages) -> float:
    """Squared error of held-out reconstructions by the variance around the mean sample.

    Both are of what the generator learns: with a front end, of spectrograms. 1 or more: it has
    learned no more than the mean.
    """
    codec = generator.codec
    mean = torch.cat(
        [
            codec.scaled(train.images[rows]).cpu()
            for rows in blocks(len(train), train.images[:1].size, 64)
        ]
    ).mean(dim=0)
    error = power = 0.0
    for rows in blocks(len(held_out), held_out.images[:1].size, 64):
        x = codec.scaled(held_out.images[rows]).cpu()
        z = generator.encode(held_out.images[rows], held_out.labels[rows])
        rebuilt = codec.decoded(z, held_out.labels[rows])
        error += float((x - rebuilt).square().sum())
        power += float((x - mean).square().sum())
    return error / power if power else 1.0


def _latents(generator: Synthesizer, data: LabelledImages, seed: int) -> dict[str, Any]:
    rows = np.sort(np.random.default_rng(seed).permutation(len(data))[:LATENT_IMAGES])
    means, labels = generator.means[rows], data.labels[rows]
    few = rows[:: max(1, len(rows) // BOUND_IMAGES)]
    kl, _ = generator.rates(taken(data.images, few), data.labels[few], seed=seed, bits=False)
    codes = {} if not generator.model.is_discrete else {"codes": _codes(generator, means, kl)}
    return codes | {
        "units": int(means.shape[1]),
        "active": int((means.var(axis=0) > ACTIVE_VARIANCE).sum()),
        "style_units": generator.model.style_dim,
        "style_active": active_styles(generator),
        "kl_per_unit": [round(float(nats), 4) for nats in kl.mean(axis=0)],
        "class_information": [round(nats, 4) for nats in class_information(means, labels)],
    }


def _codes(
    generator: Synthesizer, latents: Float[np.ndarray, "n z"], nats: Float[np.ndarray, "n cells"]
) -> dict[str, Any]:
    """How discrete latents use their codebook, and what the prior takes for a code."""
    model = generator.model
    assert isinstance(model, CVAE)
    assert model.codebook is not None
    z = torch.from_numpy(latents).to(generator.device)
    uses = torch.bincount(model.codes_at(z).flatten(), minlength=model.codebook.n_codes)
    return {
        "codes": model.codebook.n_codes,
        "used": int((uses > 0).sum()),
        "perplexity": perplexity(uses),
        "nats_per_code": float(nats.mean()),
    }


def class_information(
    latents: Float[np.ndarray, "n z"], labels: Int64[np.ndarray, " n"]
) -> list[float]:
    """Mutual information of each unit with the class, nats.

    Units are cut into ten bins of equal counts; the bias of the plug-in estimate, about
    ``(bins - 1)(classes - 1) / 2n``, is taken off (Miller 1955).

    Args:
        latents: Posterior means.
        labels: Classes.

    Returns:
        Nats per unit, at least 0 and at most the entropy of the class.
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


def _some(
    data: LabelledImages, most: int, rows: Int64[np.ndarray, " n"] | None = None
) -> LabelledImages:
    rows = np.arange(len(data)) if rows is None else rows
    chosen = np.random.default_rng(len(rows)).permutation(len(rows))[:most]
    return data.subset(rows[np.sort(chosen)])
