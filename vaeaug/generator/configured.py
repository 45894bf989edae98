"""Drawing as a job's configuration says: one way for the trial of a sampler and for the dataset."""

from vaeaug.config import AugmentConfig, SamplingConfig
from vaeaug.generator.batch import SampleBatch
from vaeaug.generator.samplers import EDITING
from vaeaug.generator.synthesizer import Synthesizer


def edits_images(config: SamplingConfig) -> bool:
    """Whether samples that start from an image keep its detail.

    Args:
        config: Settings of the samplers.

    Returns:
        True unless residuals are switched off.
    """
    return config.residual is not False


def keeps_detail(config: SamplingConfig, sampler: str) -> bool:
    """Whether samples of a sampler are residual edits.

    Args:
        config: Settings of the samplers.
        sampler: Name of the sampler.

    Returns:
        True if residuals are on and the sampler starts from an image of the class.
    """
    return edits_images(config) and sampler in EDITING


def sample_configured(
    generator: Synthesizer,
    config: AugmentConfig,
    label: int,
    n: int,
    *,
    sampler: str,
    seed: int,
    start: int = 0,
) -> SampleBatch:
    """Draw samples of a class with a job's temperature, guidance and edits.

    Args:
        generator: Draws them.
        config: The job.
        label: Class index.
        n: Number of samples.
        sampler: Name of the sampler.
        seed: Seed of the run.
        start: Index of the first sample.

    Returns:
        Samples start to start + n - 1.
    """
    return generator.sample(
        label,
        n,
        seed=seed,
        sampler=sampler,
        temperature=config.recipe.temperature,
        guidance=config.sampling.guidance,
        solver_steps=config.sampling.solver_steps,
        redrawn=config.sampling.redrawn,
        residual=keeps_detail(config.sampling, sampler),
        start=start,
    )
