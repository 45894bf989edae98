"""Drawing as a job's configuration says: one way for the trial of a sampler and for the dataset."""

from vaeaug.config import AugmentConfig, SamplingConfig
from vaeaug.generator.batch import SampleBatch
from vaeaug.generator.samplers import WITH_SOURCE
from vaeaug.generator.synthesizer import Synthesizer


def edits_images(config: SamplingConfig) -> bool:
    """Whether samples that start from an image keep its detail."""
    return config.residual is not False


def keeps_detail(config: SamplingConfig, sampler: str) -> bool:
    """Whether samples of this sampler are residual edits."""
    return edits_images(config) and sampler in WITH_SOURCE


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
    """Samples start to start + n - 1 of a class, with a job's temperature, guidance and edits."""
    return generator.sample(
        label,
        n,
        seed=seed,
        sampler=sampler,
        temperature=config.recipe.temperature,
        guidance=config.sampling.guidance,
        solver_steps=config.sampling.solver_steps,
        residual=keeps_detail(config.sampling, sampler),
        start=start,
    )
