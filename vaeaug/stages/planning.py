"""How many samples a job makes of each class, and what room they take."""

from vaeaug.config import AugmentConfig, ConfigError
from vaeaug.data import LabelledImages
from vaeaug.models import groups_of
from vaeaug.plan import Plan, make_plan
from vaeaug.training import check_config, style_units

# The fewest images of a class that gets samples where no other class lends it styles.
MIN_CLASS_COUNT = 8


def suited(config: AugmentConfig, data: LabelledImages) -> AugmentConfig:
    """The job as this kind of data needs it: feature vectors have nothing to convolve.

    Args:
        config: The job.
        data: The training split.

    Returns:
        The job itself, or its copy for feature vectors.
    """
    return config.for_features() if data.are_features else config


def with_front_end(data: LabelledImages, config: AugmentConfig) -> LabelledImages:
    """The data with the front end and the sample rate that the job states.

    Args:
        data: The training split.
        config: The job.

    Returns:
        The data itself where the job states none, or none but its own.

    Raises:
        ConfigError: If a front end and an image codec are asked for.
        DataError: If the sample rate is another, or the samples are no signals, or too short.
    """
    data = data.as_sounds(config.data.sample_rate, config.data.front_end)
    if data.front_end is not None and config.model.codec is not None:
        raise ConfigError(
            f"model.codec: expected none with data.front_end {data.front_end}, got "
            f"{config.model.codec!r}"
        )
    return data


def plan_of(data: LabelledImages, config: AugmentConfig) -> Plan:
    """The plan that a configuration makes for this data.

    Args:
        data: The training split.
        config: The job.

    Returns:
        The plan of every class.

    Raises:
        ConfigError: If the generator or the screening cannot be trained on samples like these.
        PlanError: If the sampling strategy cannot be satisfied.
    """
    config = suited(config, data)
    data = with_front_end(data, config)
    check_config(data, config, for_convolutions=True)
    if config.recipe.sampler == "calibrated" and not data.are_features:
        raise ConfigError(
            f"recipe.sampler: expected calibrated for feature vectors alone, got {data.noun}"
        )
    share, strategy = config.plan.share, config.plan.sampling_strategy
    if share is None and isinstance(strategy, str | float):
        share = config.recipe.share
    return make_plan(
        data.labels,
        strategy,
        class_names=data.class_names,
        target_ratio=config.plan.target_ratio,
        max_synthetic_ratio=config.plan.max_synthetic_ratio,
        min_class_count=_min_class_count(data, config),
        share=share,
    )


def _min_class_count(data: LabelledImages, config: AugmentConfig) -> int:
    """The fewest images of a class that gets samples."""
    if config.plan.min_class_count is not None:
        return config.plan.min_class_count
    borrows = data.are_features or style_units(data, config) > 0
    return 1 if borrows else MIN_CLASS_COUNT


def bytes_per_sample(data: LabelledImages, config: AugmentConfig) -> int:
    """Size of one sample in an uncompressed shard: image, latent, soft label and seven numbers.

    Args:
        data: The training split.
        config: The job.

    Returns:
        Bytes.
    """
    model = suited(config, data).model
    groups = groups_of(
        data.image_shape,
        network=model.network,
        latent=model.latent,
        latent_dim=model.latent_dim,
        latent_channels=model.latent_channels,
        levels=model.levels,
    )
    n_latents = groups[-1].start + groups[-1].size
    has_soft_labels = config.recipe.sampler == "blend" or config.recipe.soft
    soft_labels = 4 * data.n_classes if has_soft_labels else 0
    return data.images[:1].nbytes + 4 * n_latents + 44 + soft_labels


def shards_of(n_samples: int, sample_bytes: int, config: AugmentConfig) -> int:
    """How many shards the samples of one class fill.

    Args:
        n_samples: Samples of the class.
        sample_bytes: Size of each; see `bytes_per_sample`.
        config: The job, whose ``shards.max_bytes`` bounds a shard.

    Returns:
        The number of shards.
    """
    per_shard = max(1, (config.shards.max_bytes - 2**14) // sample_bytes)
    return -(-n_samples // per_shard)
