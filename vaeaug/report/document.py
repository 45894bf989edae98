"""The content of a report as typed objects, which are validated once.

A part that was not measured is None or empty. Numbers that are not finite count as absent, because
JSON has none. A part that is invalid is left out, with a warning in the log.
"""

import logging
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

log = logging.getLogger("vaeaug")


def _number(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else str(value)


Number = Annotated[float | None, BeforeValidator(_number)]
Count = Annotated[int | float, BeforeValidator(lambda value: _number(value) or 0)]
Text = Annotated[str, BeforeValidator(_text)]


class Part(BaseModel):
    """A part of the document. Unknown keys are ignored; null is the same as absent."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: item for key, item in value.items() if item is not None}
        return value


class Estimate(Part):
    """A mean with its interval."""

    mean: Number = None
    low: Number = None
    high: Number = None


class Recall(Part):
    """Recall of one class, pooled over the splits."""

    name: Text = Field("", alias="class")
    value: Number = None
    low: Number = None
    high: Number = None
    n: Number = None


class Arm(Part):
    """One training condition."""

    name: Text = ""
    kind: Text = ""
    metrics: dict[str, Estimate] = {}
    recall: list[Recall] = []

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric over the splits.

        Args:
            metric: Name of the metric.

        Returns:
            The mean, or None if it is not known.
        """
        estimate = self.metrics.get(metric)
        return None if estimate is None else estimate.mean


class Comparison(Part):
    """A comparison of merged training with the best training without synthetic data."""

    name: Text = ""
    arm: Text = ""
    baseline: Text = ""
    verdict: Text = ""
    difference: Number = None
    low: Number = None
    high: Number = None
    p_value: Number = None


class OutlookPart(Part):
    """What it would take to tell."""

    splits: int | None = None
    limit: int = 0
    seconds: Number = None


class Gate(Part):
    """The evaluation: whether the data helps."""

    verdict: Text = ""
    sentence: Text = ""
    # None in runs of earlier versions, whose sentence is shown as it is.
    reason: Text | None = None
    outlook: OutlookPart | None = None
    baseline: Text = ""
    metric: Text = "balanced accuracy"
    interval: Text = ""
    confidence: Number = None
    min_effect: Number = None
    comparisons: list[Comparison] = []
    arms: list[Arm] = []
    n_splits: Number = None
    steps: Number = None
    probe: Text = ""
    seconds: Number = None
    converged: bool | None = None
    warnings: list[Text] = []


class PredictedClass(Part):
    """Recall of one class on the split of a prediction."""

    name: Text = Field("", alias="class")
    rare: bool = False
    n: Number = None
    baseline: Estimate = Estimate()
    merged: Estimate = Estimate()


class Prediction(Part):
    """What one split predicts; no verdict."""

    sentence: Text = ""
    limits: Text = ""
    metric: Text = "balanced accuracy"
    interval: Text = ""
    confidence: Number = None
    gain: Estimate | None = None
    rare_gain: Estimate | None = None
    baseline: Text = ""
    classes: list[PredictedClass] = []
    warnings: list[Text] = []


class RecipePart(Part):
    """The recipe for merging."""

    name: Text = "this recipe"
    origin: Text = ""
    share: Number = None
    classes: Text | list[Text] | None = None
    sampler: Text | list[Text] | None = None
    temperature: Number = None
    min_label_probability: Number = None
    soft: bool = False
    weight: Number = None
    separate_batch_norm: bool = False
    real_only_last: Number = None


class Candidate(Part):
    """A recipe in one round of a search."""

    name: Text = ""
    score: Number = None
    low: Number = None
    high: Number = None
    kept: bool = False


class Round(Part):
    """One round of a search."""

    round: int | None = None
    steps: Number = None
    splits: Number = None
    candidates: list[Candidate] = []


class Search(Part):
    """The search for the recipe."""

    sentence: Text = ""
    chosen: Text = ""
    rounds: list[Round] = []


class ClassPart(Part):
    """Numbers of samples of one class that were requested, drawn and accepted."""

    name: Text = ""
    real: Count = 0
    n_synthetic: Count = 0
    accepted: Count = 0
    candidates: Count = 0
    rejected: dict[str, Count] = {}

    @property
    def fell_short(self) -> bool:
        """Whether fewer samples were accepted than planned."""
        return self.accepted < self.n_synthetic


class PlannedClass(Part):
    """The reason for the number of samples of a class."""

    name: Text = ""
    reason: Text | None = None


class MergedClass(Part):
    """Numbers of images of one class after the default merge of the run."""

    name: Text = ""
    real: Count = 0
    synthetic: Count = 0
    repeated: Count = 0
    together: Count = 0


class Nearness(Part):
    """The number of samples near training images."""

    sentence: Text = ""


class Metric(Part):
    """A metric of synthetic images, and its value for real ones."""

    name: Text = ""
    title: Text = ""
    meaning: Text = ""
    better: Text = ""
    value: Number = None
    low: Number = None
    high: Number = None
    real: Number = None
    real_low: Number = None
    real_high: Number = None


class Fidelity(Part):
    """Likeness to real images."""

    features: Text = ""
    n_synthetic: Number = None
    n_held_out: Number = None
    figures: list[Metric] = []
    notes: list[Text] = []


class Privacy(Part):
    """Closeness to training images."""

    figures: list[Metric] = []
    near_copies: Number = None
    verdict: Text = ""
    warning: Text = ""
    notes: list[Text] = []


class Shortcut(Part):
    """Whether "looks synthetic" carries information about the class."""

    mutual_information: Number = None
    low: Number = None
    high: Number = None
    real_only: Number = None
    excess: Number = None
    p_value: Number = None
    label_entropy: Number = None
    detector_auc: Number = None
    synthetic_share: dict[str, Number] = {}
    warning: Text = ""
    remedy: Text = ""


class Fit(Part):
    """How well the generator fits."""

    unit: Text = ""
    elbo_held_out: Number = None
    elbo_held_out_error: Number = None
    elbo_train: Number = None
    bound: Number = None
    bound_samples: Number = None
    bound_images: Number = None
    bits_per_dimension: Number = None


class UnitEffect(Part):
    """What a latent unit changes most."""

    unit: Number = None
    attribute: Text = ""
    effect: Number = None


class LatentUse(Part):
    """The use of latent units."""

    active: Number = None
    units: Number = None
    class_information: list[Number] = []
    effects: list[UnitEffect] = []


class LabelControl(Part):
    """Whether the label decides the class of a decoded sample."""

    control: Number = None
    prior: Number = None
    real: Number = None
    source: Number = None
    probe: Number = None
    probe_chance: Number = None


class ClassMeasures(Part):
    """Samples of a class beside its real images."""

    coverage: Number = None
    coverage_of_real: Number = None
    spread: Number = None
    sharpness: Number = None


class Diagnostics(Part):
    """The content of ``diagnostics.json``."""

    fit: Fit = Fit()
    latents: LatentUse = LatentUse()
    label_control: LabelControl = LabelControl()
    classes: dict[str, ClassMeasures] = {}
    training: list[Text] = []
    warnings: list[Text] = []


class Data(Part):
    """The description of the data in ``run.json``."""

    source: Text | None = None
    split: Text | None = None
    fingerprint: Text | None = None
    layout: Text | None = None
    image_shape: list[int] | None = None


class Provenance(Part):
    """The origin of a run."""

    command: Text | None = None
    seed: int | None = None
    model_sha256: Text | None = None
    config_sha256: Text | None = None
    layout: Text | None = None
    image_shape: list[int] | None = None
    data: Data = Data()
    described_data: dict[str, Any] = {}
    config: dict[str, Any] = {}
    versions: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _keep_data(cls, value: Any) -> Any:
        """Keep unknown keys of the data, because its table shows every key."""
        if isinstance(value, Mapping) and isinstance(value.get("data"), Mapping):
            return {**value, "described_data": value["data"]}
        return value


class Document(Part):
    """All information about a run, as in ``report.json``."""

    title: Text = ""
    out: Text = "OUT"
    gate: Gate | None = None
    prediction: Prediction | None = None
    recipe: RecipePart | None = None
    classes: list[ClassPart] = []
    plan: list[PlannedClass] = []
    samplers: dict[str, Text | None] = {}
    nearness: Nearness = Nearness()
    merged: list[MergedClass] = []
    search: Search | None = None
    fidelity: Fidelity | None = None
    privacy: Privacy | None = None
    shortcut: Shortcut | None = None
    diagnostics: Diagnostics | None = None
    curves: list[dict[str, Any]] = []
    generations: list[Text] = []
    provenance: Provenance = Provenance()

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> "Document":
        """Validate a document.

        Args:
            content: JSON types.

        Returns:
            The document without its invalid parts, which the log names.
        """
        # An empty part counts as absent.
        content = {name: part for name, part in content.items() if part not in (None, {}, [])}
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            invalid = {str(problem["loc"][0]): problem for problem in error.errors()}
        for name, problem in invalid.items():
            place = ".".join(map(str, problem["loc"]))
            log.warning("report: %s: %s; %s is left out", place, problem["msg"], name)
        return cls.model_validate(
            {name: part for name, part in content.items() if name not in invalid}
        )
