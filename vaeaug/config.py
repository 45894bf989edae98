"""One job, declared: every key, its meaning, its default and its bounds.

The configuration is plain data. It is written to ``run.json`` and hashed into every shard, so two
runs with equal configurations and equal data make equal shards. Unknown keys are refused and the
nearest right one is named.
"""

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.json_schema import SkipJsonSchema

from vaeaug.yaml_text import MOST_CHARACTERS, NOT_VALID, YAMLTextError, load_yaml

Grouping = Literal["adapted", "separate", "shared"]
Sampler = Literal["prior", "posterior", "interpolate", "gmm", "flow", "transfer", "blend"]
Network = Literal["conv", "mlp"]
Latent = Literal["vector", "spatial", "hierarchical"]
LikelihoodName = Literal["gaussian", "gaussian_per_pixel", "bernoulli", "logistic_mixture"]
DensityKind = Literal["auto", "normal", "gmm", "flow"]
SamplingStrategy = (
    Literal["auto", "minority", "not minority", "not majority", "all"]
    | float
    | dict[int | str, int]
    | list[int | str]
    | SkipJsonSchema[Callable[..., Any]]  # from Python alone; no file can hold one
)

_STRATEGIES = (
    "a rule (auto, minority, not minority, not majority, all), a number, a mapping {class: total} "
    "or a list of classes"
)


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names the key, what was expected and got."""


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


class DataConfig(_Part):
    """What of the data is read, and how."""

    split: str = Field("train", description="Split to learn from; never the test split.")
    size: tuple[int, int] | None = Field(
        None, description="Resize to (height, width), pixels; of sounds twice the samples."
    )
    resize: Literal["crop", "pad", "stretch"] = Field(
        "crop", description="Another aspect than that of size: cut the edges, fill up or distort."
    )
    value_range: tuple[float, float] | None = Field(
        None,
        description="Lowest and highest value that the data can have. Default: by type and values.",
    )
    mode: Literal["RGB", "L"] | None = Field(
        None, description="Read all images as colour (RGB) or as gray (L), whatever they are."
    )
    alpha: Literal["composite", "drop", "keep"] = Field(
        "composite", description="RGBA: composite on white, drop the alpha channel, or keep it."
    )
    keys: dict[Literal["images", "labels"], str] | None = Field(
        None, description="Names of the arrays in an .npz or HDF5 file, or columns of a table."
    )
    class_names: list[str] | None = Field(
        None, description="Names in the order of the labels, or the folders that are classes."
    )
    on_error: Literal["raise", "skip"] = Field(
        "raise",
        description="Damaged files: an error that lists all, or leave them out with a note.",
    )
    layout: str | None = Field(
        None,
        description="Axes of arrays where their number leaves a doubt, such as NLC for signals.",
    )
    class_counts: dict[int, int] | list[int] | None = Field(
        None,
        description="Keep only so many images of each class, drawn by the seed: makes a balanced "
        "set long-tailed for a trial.",
    )

    @field_validator("value_range")
    @classmethod
    def _low_is_below_high(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError("expected (low, high), low < high")
        return value


class PlanConfig(_Part):
    """How many samples to make of each class."""

    sampling_strategy: SamplingStrategy = Field(
        "auto",
        description="How large each class is to be, in imbalanced-learn's words: a rule, "
        "{class: total}, or [classes].",
    )
    target_ratio: float | None = Field(
        None, gt=0, le=1, description="Bring each class to this fraction of the largest one."
    )
    max_synthetic_ratio: float | None = Field(
        None, gt=0, description="At most this many synthetic samples per real image of a class."
    )
    min_class_count: int = Field(
        8, ge=2, description="A class with fewer real images gets no synthetic ones."
    )
    share: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Synthetic part of every class when it is merged; real images are repeated up "
        "to the size that a rule asks for. 0: as imbalanced-learn, all that is missing is "
        "synthetic. Default: 0.3 for rules, 0 where the strategy names exact classes or totals.",
    )

    @field_validator("sampling_strategy", mode="before")
    @classmethod
    def _digits_are_indices(cls, value: object) -> object:
        """JSON has text alone for keys, so a key of digits is the index of a class."""
        if isinstance(value, bool):
            raise ValueError("not a strategy")  # noqa: TRY004 - pydantic wants ValueError
        if isinstance(value, Mapping):
            return {_index_or_name(key): total for key, total in value.items()}
        return value


class ModelConfig(_Part):
    """The network and its likelihood."""

    grouping: Grouping = Field("adapted", description="How classes share parameters.")
    conditional: bool = Field(
        True, description="False: a plain VAE, whose network never sees the class."
    )
    network: Network = Field(
        "conv",
        description="conv: convolutions. mlp: dense layers, for tables and samples of any size; a "
        "vector alone.",
    )
    latent: Latent = Field(
        "vector",
        description="vector: one code. spatial: a grid, sharper. hierarchical: a vector and grids.",
    )
    latent_dim: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Length of the vector in z. Default: 32, or 64 for samples of more than 400 "
        "values, 128 for large ones; mlp: no more than values.",
    )
    latent_channels: int | None = Field(
        None, ge=1, le=256, description="Channels of the grid in z. Default: by the image size."
    )
    levels: Literal[2, 3] = Field(2, description="Levels of hierarchical latents.")
    likelihood: LikelihoodName = Field(
        "gaussian",
        description="p(x given z): one optimal sigma, a sigma per value, Bernoulli, or a mixture "
        "of discretised logistics.",
    )
    width: int = Field(24, ge=8, le=512, description="Channels at the highest resolution.")
    max_width: int = Field(
        128, ge=8, le=1024, description="Channels are doubled up to this; mlp: hidden units."
    )
    class_embedding: int = Field(32, ge=1, le=512, description="Length of the class embedding.")
    beta: float = Field(1.0, gt=0, description="Weight of the KL term.")
    free_bits: float = Field(0.0, ge=0, description="Nats per unit of z that cost nothing.")


class TrainingConfig(_Part):
    """The loop."""

    steps: int | None = Field(
        None, ge=1, description="Steps of the trunk. Default: by the number of images."
    )
    adapt_steps: int | None = Field(
        None, ge=1, description="Steps of the per-class fit. Default: a quarter of `steps`."
    )
    batch_size: int = Field(64, ge=2, le=65536, description="Images per step.")
    learning_rate: float = Field(2e-3, gt=0, description="Of AdamW, at its highest.")
    weight_decay: float = Field(1e-4, ge=0, description="Of AdamW.")
    lr_warmup: int = Field(100, ge=0, description="Steps of linear learning-rate warm-up.")
    kl_warmup: float = Field(
        0.1, ge=0, le=1, description="Fraction of steps over which beta grows."
    )
    clip: float = Field(10.0, gt=0, description="Largest gradient norm, nats per dimension.")
    ema_decay: float = Field(
        0.999, ge=0, lt=1, description="Of the running mean of the weights, which is what is kept."
    )
    class_power: float = Field(
        0.5, ge=0, le=1, description="A class is drawn in proportion to count**class_power."
    )
    held_out: float = Field(
        0.1, gt=0, lt=0.5, description="Part of the training split kept for early stopping."
    )
    eval_every: int = Field(200, ge=1, description="Steps between held-out evaluations.")
    patience: int = Field(10, ge=1, description="Evaluations without gain before stopping.")
    checkpoint_every: int = Field(200, ge=1, description="Steps between checkpoints.")
    max_bad_steps: int = Field(
        25, ge=1, description="Steps in a row with a non-finite or exploding loss before failure."
    )
    budget_seconds: float | None = Field(
        None,
        gt=0,
        description="Stop after so many seconds of all stages together: processor time on the CPU, "
        "clock time on CUDA. What is learned then depends on the machine.",
    )
    denoise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Train to clean up: noise of this standard deviation, as a fraction of the "
        "value range, is added to what the encoder sees.",
    )
    feature_matching: float = Field(
        0.0,
        ge=0,
        description="Weight of likeness in the features of a classifier of the real images.",
    )
    rescue: bool = Field(
        True, description="Lower beta and raise free bits where the posterior collapses."
    )
    bound_samples: int = Field(
        50, ge=1, le=5000, description="Latents per image of the reported bound."
    )


class AdversarialConfig(_Part):
    """VAE-GAN: the trained decoder is sharpened against a discriminator."""

    steps: int = Field(0, ge=0, description="Steps of sharpening; 0: a VAE without adversary.")
    weight: float = Field(
        0.5, ge=0, description="Of the adversary, relative to the likelihood's own gradient."
    )
    features: float = Field(
        1.0, ge=0, description="Weight of the likelihood in the discriminator's features."
    )
    r1: float = Field(1.0, ge=0, description="Gradient penalty on real images.")
    learning_rate: float = Field(5e-4, gt=0, description="Of decoder and discriminator.")


class SemiSupervisedConfig(_Part):
    """What is done with images without labels."""

    mode: Literal["pseudo_label", "m2"] = Field(
        "pseudo_label",
        description="pseudo_label: a classifier labels what it is sure of. m2: the bound of "
        "unlabelled images, over all classes.",
    )
    threshold: float = Field(
        0.9, gt=0, lt=1, description="An image is given the label of at least this probability."
    )
    classifier_steps: int = Field(600, ge=1, description="Steps of the classifier.")
    classifier_weight: float = Field(
        1.0, ge=0, description="m2: weight of the classifier's loss, nats per value."
    )
    unlabelled_share: float = Field(
        0.25, gt=0, le=4, description="m2: unlabelled images per labelled one in a step."
    )


class DensityConfig(_Part):
    """The densities fitted to the latents of each class after training."""

    kind: DensityKind = Field("auto", description="auto: by the latents and the class sizes.")
    steps: int | None = Field(
        None, ge=1, description="Training steps of the flow. Default: those of the trunk."
    )
    batch_size: int = Field(256, ge=2, le=65536, description="Latents per step of the flow.")
    width: int = Field(64, ge=8, le=1024, description="Channels of the flow.")
    depth: int = Field(4, ge=1, le=64, description="Residual blocks of the flow.")
    learning_rate: float = Field(1e-3, gt=0, description="Of the flow, at its highest.")


class SamplingConfig(_Part):
    """How z is drawn."""

    sampler: Literal["auto", Sampler] = Field("auto", description="auto: by class size.")
    temperature: float = Field(1.0, gt=0, le=4, description="Scale of the noise.")
    guidance: float = Field(
        1.0, ge=0, le=10, description="flow: 1 draws from the class; more stresses it."
    )
    solver_steps: int = Field(12, ge=1, le=1000, description="flow: steps of Heun's method.")
    residual: Literal["auto"] | bool = Field(
        "auto",
        description="Edit real images: add to a sample what the decoder lost of its source, so "
        "that detail stays. auto: for samplers that start from an image, and makes one the "
        "default.",
    )


class ScreeningConfig(_Part):
    """Which samples are turned away. Loose: strict label filters were measured to hurt."""

    near_copy_quantile: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Quantile of the real images' own nearest-neighbour distances, by class, that "
        "a near-copy is measured against.",
    )
    near_copy_factor: float = Field(
        0.5,
        ge=0,
        description="Reject a sample nearer to a training image than this multiple of that "
        "quantile. 1.0 where privacy matters more than numbers.",
    )
    max_near_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Of a class of 50 images or more, at most this part of the samples may be "
        "nearer to a training image than 95 % of real images are to one another; 1: no bound. With "
        "sampling.sampler auto alone.",
    )
    duplicate_factor: float = Field(
        0.25, ge=0, description="Reject below this multiple of the near-copy distance to a sibling."
    )
    min_label_probability: float = Field(
        0.02, ge=0, lt=1, description="Reject below this p(label) of the real-only classifier."
    )
    max_candidates_ratio: float = Field(
        5.0,
        ge=1,
        description="Draw at most this many candidates per missing sample, by each sampler.",
    )
    soft_labels: bool = Field(
        False,
        description="Store labels that are half the label and half what the classifiers of the "
        "real images say (a distilled label).",
    )
    folds: int = Field(3, ge=2, le=20, description="Folds of the cross-fitted classifier.")
    classifier_steps: int = Field(300, ge=1, description="Training steps of each fold.")


class ShardConfig(_Part):
    """The files written."""

    max_bytes: int = Field(256 * 2**20, ge=2**16, description="Largest shard, bytes.")
    compress: Literal["gzip"] | None = Field(None, description="gzip for archives; slower to read.")


class Recipe(_Part):
    """How synthetic samples are drawn and how a trainer uses them. `share` 0 is "none"."""

    share: float = Field(0.3, ge=0, lt=1, description="Part of a class's draws that is synthetic.")
    classes: Literal["all", "rare"] = Field(
        "all", description="rare: classes with fewer images than the mean of all."
    )
    sampler: Literal["auto", Sampler] = Field("auto", description="As sampling.sampler.")
    temperature: float = Field(1.0, gt=0, le=4, description="As sampling.temperature.")
    min_label_probability: float = Field(
        0.02, ge=0, lt=1, description="As screening.min_label_probability."
    )
    soft: bool = Field(
        False, description="Labels are half those of a classifier of the real images."
    )
    weight: float = Field(1.0, gt=0, le=1, description="Loss weight of a synthetic sample.")
    separate_batch_norm: bool = Field(
        False, description="Synthetic samples do not touch the statistics of batch norm."
    )
    real_only_last: float = Field(
        0.0, ge=0, le=1, description="Part of the training, at its end, on real images alone."
    )

    @property
    def is_none(self) -> bool:
        """Whether real images alone are used."""
        return self.share == 0 or self.real_only_last == 1

    def settings(self) -> dict[str, Any]:
        """The keys of a job that draws by this recipe."""
        return {
            "sampling.sampler": self.sampler,
            "sampling.temperature": self.temperature,
            "screening.min_label_probability": self.min_label_probability,
            "screening.soft_labels": self.soft,
        }

    @classmethod
    def of(cls, config: "AugmentConfig", **keys: Any) -> "Recipe":
        """The recipe that a job stands for where none was searched."""
        return cls.model_validate(
            {
                **({"share": config.plan.share} if config.plan.share else {}),
                "sampler": config.sampling.sampler,
                "temperature": config.sampling.temperature,
                "min_label_probability": config.screening.min_label_probability,
                "soft": config.screening.soft_labels,
                **keys,
            }
        )

    def __str__(self) -> str:
        if self.is_none:
            return "none"
        rest = self.model_dump(exclude_defaults=True, exclude={"share", "classes"})
        words = [f"{self.share:.0%} of {self.classes} classes"]
        words += [
            name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {value}"
            for name, value in rest.items()
        ]
        return ", ".join(words)


class EvaluationConfig(_Part):
    """The measurement of whether synthetic data helps. It changes no byte of the dataset."""

    budget: float = Field(
        240.0,
        gt=0,
        description="Seconds to spend; decides how many splits are run, at least `min_splits`.",
    )
    folds: int = Field(5, ge=2, le=50, description="A split holds out one of so many parts.")
    min_splits: int = Field(3, ge=2, description="Splits that are run whatever the budget.")
    max_splits: int = Field(10, ge=2, le=1000, description="Splits at most.")
    steps: int | None = Field(
        None, ge=1, description="Steps of each probe. Default: by the number of images."
    )
    batch_size: int = Field(128, ge=4, le=65536, description="Draws per step of a probe.")
    learning_rate: float = Field(2e-3, gt=0, description="Of AdamW, at its highest.")
    width: int = Field(16, ge=4, le=512, description="Channels of the small probe.")
    min_effect: float = Field(
        0.005, ge=0, lt=1, description="Smallest gain in balanced accuracy that counts."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the intervals.")
    min_held_out: int = Field(
        3, ge=1, description="A class with fewer held-out images makes the verdict unsure."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Of the splits and the probes.")
    workers: int | None = Field(
        None, ge=1, description="Processes; default: the cores. 1: no process is started."
    )


class AugmentConfig(_Part):
    """One augmentation job. `AugmentConfig()` is a complete, sensible job."""

    seed: int = Field(0, ge=0, lt=2**63, description="The run: the same seed gives the same bytes.")
    data: DataConfig = DataConfig()
    plan: PlanConfig = PlanConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    semi_supervised: SemiSupervisedConfig = SemiSupervisedConfig()
    density: DensityConfig = DensityConfig()
    sampling: SamplingConfig = SamplingConfig()
    screening: ScreeningConfig = ScreeningConfig()
    shards: ShardConfig = ShardConfig()

    @field_validator("seed", mode="before")
    @classmethod
    def _seed_is_a_number(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("a seed is a whole number")  # noqa: TRY004 - pydantic wants ValueError
        return value

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON types. A callable strategy becomes its name."""
        strategy = self.plan.sampling_strategy
        if callable(strategy):
            named = self.plan.model_copy(update={"sampling_strategy": "auto"})
            document = self.model_copy(update={"plan": named}).model_dump(mode="json")
            name = getattr(strategy, "__qualname__", type(strategy).__qualname__)
            document["plan"]["sampling_strategy"] = f"callable:{name}"
            return document
        return self.model_dump(mode="json")

    @property
    def sha256(self) -> str:
        """Hash of the whole configuration, as hex."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def changed(self, **keys: Any) -> "AugmentConfig":
        """A copy with dotted keys set, e.g. ``config.changed(**{"model.beta": 2.0})``.

        Raises:
            ConfigError: If a key is unknown or a value is out of bounds.
        """
        document = self.model_dump()
        for key, value in keys.items():
            _set(document, key, value)
        return make_config(document)


def make_config(document: Mapping[str, Any], *, where: str = "configuration") -> AugmentConfig:
    """Validate a nested mapping.

    Args:
        document: Nested mapping of the keys of `AugmentConfig`.
        where: Named in the error, such as the file it came from.

    Raises:
        ConfigError: Naming every wrong key, with the nearest right one for an unknown key.
    """
    try:
        return AugmentConfig.model_validate(dict(document))
    except ValidationError as error:
        lines = dict.fromkeys(line for problem in error.errors() for line in _explain(problem))
        raise ConfigError(f"{where}: " + "; ".join(lines)) from None


def as_config(given: "AugmentConfig | Mapping[str, Any] | str | Path | None") -> AugmentConfig:
    """A configuration from what people have of one.

    Args:
        given: One; a mapping of its keys, nested or dotted (``{"training.steps": 500}``); the path
            of a YAML file; or None for the defaults.

    Raises:
        ConfigError: If it is none of these, or holds a wrong key or value.
    """
    if given is None:
        return AugmentConfig()
    if isinstance(given, AugmentConfig):
        return given
    if isinstance(given, str | Path):
        return load_config(given)
    if not isinstance(given, Mapping):
        raise ConfigError(
            "config: expected an AugmentConfig, a mapping of its keys, the path of a YAML file or "
            f"None, got {type(given).__name__}"
        )
    document: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(key, str):
            raise ConfigError(f"config: expected the names of keys, got {key!r}")
        own = document.get(key)
        if isinstance(value, Mapping) and isinstance(own, dict) and "." not in key:
            value = {**own, **value}
        _set(document, key, value)
    return make_config(document)


def load_config(
    path: str | Path | None = None, overrides: Iterable[str] = (), **keys: Any
) -> AugmentConfig:
    """Read YAML, apply ``a.b=c`` overrides, then `keys` (dotted names; None is left out).

    Raises:
        ConfigError: If the file cannot be read, is not a mapping, or holds a wrong key or value.
    """
    document: dict[str, Any] = {}
    if path is not None:
        document = _read_yaml(Path(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set: expected key=value such as model.beta=2, got {override!r}")
        try:
            value = load_yaml(text)
        except YAMLTextError as error:
            why = "" if str(error).startswith(NOT_VALID) else f": {error}"
            raise ConfigError(f"--set {key}: {_short(text)} is not a YAML value{why}") from None
        _set(document, key.strip(), value)
    for key, value in keys.items():
        if value is not None:
            _set(document, key, value)
    return make_config(document, where="configuration" if path is None else str(path))


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a configuration file, for editors and other programs."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **AugmentConfig.model_json_schema(),
    }


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines ``key: old -> new`` for every key that differs between two JSON configurations."""
    before, after = _flat(old), _flat(new)
    missing = "(absent)"
    return [
        f"{key}: {before.get(key, missing)!r} -> {after.get(key, missing)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, missing) != after.get(key, missing)
    ]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            # One more than is read: a file of gigabytes, or without an end, is never loaded whole.
            text = file.read(MOST_CHARACTERS + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected a UTF-8 text file of YAML") from None
    try:
        document = load_yaml(text)
    except YAMLTextError as error:
        raise ConfigError(f"{path}: {error}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(document).__name__}")
    return document


def _set(document: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place = document
    for parent in parents:
        inner = place.get(parent)
        if inner is None:
            inner = place[parent] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {parent!r} is a value, not a group of keys")
        place = inner
    place[last] = value


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name.count(".") < 1:
            flat.update(_flat(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _explain(problem: Mapping[str, Any]) -> list[str]:
    """A line per wrong key."""
    location = [str(part) for part in problem["loc"]]
    # A union reports one problem per branch; the branch is not a key that the user wrote.
    key = ".".join(location[:2] if location[0] in AugmentConfig.model_fields else location)
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        # Of an unknown group, the keys that the user wrote in it.
        wrong = (
            [f"{key}.{each}" for each in value] if isinstance(value, Mapping) and value else [key]
        )
        return [_unknown(each) for each in wrong]
    if key == "plan.sampling_strategy":
        # The first branch has the whole value; what the others say is the same.
        is_first = len(location) == 2 or location[2].startswith("literal")
        return [f"{key}: expected {_STRATEGIES}, got {_short(value)}"] if is_first else []
    return [f"{key}: {problem['msg']}, got {_short(value)}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _unknown(key: str) -> str:
    known = _known_keys()
    last = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or [
        name
        for match in difflib.get_close_matches(
            last, [name.rpartition(".")[2] for name in known], n=1, cutoff=0.6
        )
        for name in known
        if name.rpartition(".")[2] == match
    ]
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def _index_or_name(key: object) -> object:
    return int(key) if isinstance(key, str) and key.isdecimal() else key


def _known_keys() -> list[str]:
    keys: list[str] = []
    for name, field in AugmentConfig.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            keys.extend(f"{name}.{inner}" for inner in part.model_fields)
        else:
            keys.append(name)
    return keys
