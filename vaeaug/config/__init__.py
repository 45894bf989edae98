"""One job, declared: every key, its meaning, its default and its bounds."""

from vaeaug.config.evaluation import EvaluationConfig
from vaeaug.config.job import AugmentConfig, ConfigError, known_keys, make_config
from vaeaug.config.loading import (
    as_config,
    as_overrides,
    changed_keys,
    flat,
    json_schema,
    load_config,
)
from vaeaug.config.recipe import CODE_SAMPLERS, Recipe, Sampler
from vaeaug.config.sections import (
    AdversarialConfig,
    DataConfig,
    DensityConfig,
    ModelConfig,
    PlanConfig,
    SamplingConfig,
    ScreeningConfig,
    Section,
    SemiSupervisedConfig,
    ShardConfig,
    TrainingConfig,
)

__all__ = [
    "CODE_SAMPLERS",
    "AdversarialConfig",
    "AugmentConfig",
    "ConfigError",
    "DataConfig",
    "DensityConfig",
    "EvaluationConfig",
    "ModelConfig",
    "PlanConfig",
    "Recipe",
    "Sampler",
    "SamplingConfig",
    "ScreeningConfig",
    "Section",
    "SemiSupervisedConfig",
    "ShardConfig",
    "TrainingConfig",
    "as_config",
    "as_overrides",
    "changed_keys",
    "flat",
    "json_schema",
    "known_keys",
    "load_config",
    "make_config",
]
