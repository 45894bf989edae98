"""`AugmentConfig`, one job, and what is said of a wrong key or value.

The configuration is plain data. It is written to ``run.json`` and hashed into every shard, so two
runs with equal configurations and equal data make equal shards.
"""

import difflib
import hashlib
import json
import warnings
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from vaeaug.config.recipe import Recipe
from vaeaug.config.sections import (
    AdversarialConfig,
    DataConfig,
    DensityConfig,
    ModelConfig,
    PlanConfig,
    RestorationConfig,
    SamplingConfig,
    ScreeningConfig,
    Section,
    SemiSupervisedConfig,
    ShardConfig,
    TrainingConfig,
)

# Keys of earlier versions, and where they are now.
RENAMED = {
    "sampling.sampler": "recipe.sampler",
    "sampling.temperature": "recipe.temperature",
    "screening.min_label_probability": "recipe.min_label_probability",
    "screening.soft_labels": "recipe.soft",
}
_STRATEGIES = (
    "a rule (auto, minority, not minority, not majority, all), a number, a mapping {class: total} "
    "or a list of classes"
)


# Hidden units and batch size for feature vectors, of which there are many and each is small.
FEATURE_WIDTH, FEATURE_BATCH = 256, 128


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names the key, what was expected and got."""


class AugmentConfig(Section):
    """One augmentation job. `AugmentConfig()` is a complete, sensible job."""

    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the run: the same seed gives the same bytes."
    )
    data: DataConfig = DataConfig()
    plan: PlanConfig = PlanConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    semi_supervised: SemiSupervisedConfig = SemiSupervisedConfig()
    density: DensityConfig = DensityConfig()
    restoration: RestorationConfig = RestorationConfig()
    recipe: Recipe = Recipe()
    sampling: SamplingConfig = SamplingConfig()
    screening: ScreeningConfig = ScreeningConfig()
    shards: ShardConfig = ShardConfig()

    @field_validator("seed", mode="before")
    @classmethod
    def _seed_is_a_number(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("a seed is a whole number")  # noqa: TRY004 - pydantic wants ValueError
        return value

    @model_validator(mode="after")
    def _one_share(self) -> "AugmentConfig":
        """The share of the plan is that of the recipe."""
        if self.plan.share and self.plan.share != self.recipe.share:
            recipe = self.recipe.model_copy(update={"share": self.plan.share})
            object.__setattr__(self, "recipe", recipe)
        return self

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON types.

        Returns:
            A nested mapping; a callable strategy is in it by its name.
        """
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
        """A copy with keys set, e.g. ``config.changed(**{"model.beta": 2.0})``.

        Args:
            **keys: Dotted keys and their values.

        Returns:
            The changed copy.

        Raises:
            ConfigError: If a key is unknown or a value is out of bounds.
        """
        document = self.model_dump()
        for key, value in keys.items():
            set_key(document, key, value)
        return make_config(document)

    def for_features(self) -> "AugmentConfig":
        """The job for feature vectors: a dense network, and wider, where the job states none.

        Returns:
            The changed copy; a job that is for feature vectors already is returned as it is.
        """
        defaults: dict[str, dict[str, tuple[Any, Any]]] = {
            "model": {"network": ("conv", "mlp"), "max_width": (128, FEATURE_WIDTH)},
            "training": {"batch_size": (64, FEATURE_BATCH)},
        }
        if self.model.network == "mlp":
            return self
        update = {
            section: getattr(self, section).model_copy(
                update={
                    key: suited
                    for key, (default, suited) in keys.items()
                    if getattr(getattr(self, section), key) == default
                }
            )
            for section, keys in defaults.items()
        }
        return self.model_copy(update=update)

    def with_recipe(self, recipe: Recipe) -> "AugmentConfig":
        """The same job by another recipe.

        Args:
            recipe: How samples are drawn and used. Where its share is another one than the job's,
                the plan follows it.

        Returns:
            The changed copy.
        """
        update: dict[str, Any] = {"recipe": recipe}
        if recipe.share != self.recipe.share:
            update["plan"] = self.plan.model_copy(update={"share": recipe.share})
        return self.model_copy(update=update)


def make_config(
    document: Mapping[str, Any], *, where: str = "configuration", warn: bool = True
) -> AugmentConfig:
    """Validate a nested mapping.

    Args:
        document: Nested mapping of the keys of `AugmentConfig`.
        where: Named in the error, such as the file it came from.
        warn: False takes keys of earlier versions without a word: a run that is there has them.

    Returns:
        The configuration.

    Raises:
        ConfigError: Naming every wrong key, with the nearest right one for an unknown key.

    Warns:
        DeprecationWarning: For keys of earlier versions.
    """
    document, renamed = _with_present_names(document)
    if renamed and warn:
        changes = ", ".join(f"{old} is now {RENAMED[old]}" for old in renamed)
        warnings.warn(f"{where}: {changes}", DeprecationWarning, stacklevel=3)
    try:
        return AugmentConfig.model_validate(document)
    except ValidationError as error:
        lines = dict.fromkeys(line for problem in error.errors() for line in _explain(problem))
        raise ConfigError(f"{where}: " + "; ".join(lines)) from None


def _with_present_names(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A copy in which keys of earlier versions have their present names, and which they were."""
    present, renamed = dict(document), []
    for old, new in RENAMED.items():
        section, key = old.split(".")
        settings = present.get(section)
        if isinstance(settings, Mapping) and key in settings:
            present[section] = {name: value for name, value in settings.items() if name != key}
            group, name = new.split(".")
            recipe = present.get(group)
            known = recipe if isinstance(recipe, Mapping) else {}
            present[group] = {**known, name: settings[key]}
            renamed.append(old)
    return present, renamed


def set_key(document: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a nested mapping, whose groups are made where they are missing.

    Args:
        document: The mapping, changed in place.
        key: Such as "training.steps".
        value: Its new value.
    """
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


def _explain(problem: Mapping[str, Any]) -> list[str]:
    """A line per wrong key."""
    location = [str(part) for part in problem["loc"]]
    # A union reports one problem per branch; the branch is not a key that the user wrote.
    key = ".".join(location[:2] if location[0] in AugmentConfig.model_fields else location)
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        # Of an unknown group, the keys that the user wrote in it.
        wrong = (
            [f"{key}.{name}" for name in value] if isinstance(value, Mapping) and value else [key]
        )
        return [_unknown(name) for name in wrong]
    if key == "plan.sampling_strategy":
        # The first branch has the whole value; what the others say is the same.
        is_first = len(location) == 2 or location[2].startswith("literal")
        return [f"{key}: expected {_STRATEGIES}, got {short(value)}"] if is_first else []
    return [f"{key}: {problem['msg']}, got {short(value)}"]


def _unknown(key: str) -> str:
    known = list(known_keys())
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


def known_keys() -> dict[str, str]:
    """All keys of a job.

    Returns:
        What each one means, by key, in the order of the configuration.
    """
    keys: dict[str, str] = {}
    for name, field in AugmentConfig.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            for inner, inner_field in part.model_fields.items():
                keys[f"{name}.{inner}"] = inner_field.description or ""
        else:
            keys[name] = field.description or ""
    return keys


def short(value: Any) -> str:
    """A value as an error shows it.

    Args:
        value: Anything.

    Returns:
        The first 200 characters of its `repr`.
    """
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
