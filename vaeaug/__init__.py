"""vaeaug: dataset-level generative augmentation that says whether it helps.

The names below are the public API. Each is loaded when first used, so ``import vaeaug`` costs
nothing and needs none of the heavy libraries.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vaeaug import _moved

if TYPE_CHECKING:
    from vaeaug.compression import (
        CompressionError,
        ImageCoder,
        LossyCoder,
        compress,
        decompress,
        fit_coder,
        fit_lossy_coder,
        load_coder,
    )
    from vaeaug.config import (
        AugmentConfig,
        ConfigError,
        EvaluationConfig,
        Recipe,
        load_config,
    )
    from vaeaug.data import DataError, LabelledImages, read, read_pool
    from vaeaug.embedding import EmbeddingError, embed
    from vaeaug.engines import Engine, EngineError
    from vaeaug.evaluation import EvaluationError, GateResult, Prediction
    from vaeaug.export import Exported, ExportError, export_dataset
    from vaeaug.generator import SampleBatch, SamplingError, Synthesizer
    from vaeaug.generator.export import export_decoder
    from vaeaug.integrations.oversampling import VAEOverSampler
    from vaeaug.job.applications import ApplicationError
    from vaeaug.job.exclusion import exclude
    from vaeaug.job.finished import evaluate, predict_gain
    from vaeaug.job.folder import RunError
    from vaeaug.job.pipeline import augment, generate
    from vaeaug.job.result import AugmentResult
    from vaeaug.job.sweep import SweepPoint, sweep
    from vaeaug.merging import (
        BalancedSampler,
        MergedDataset,
        MergeError,
        collate,
        merge,
        write_merged,
    )
    from vaeaug.plan import ClassPlan, Plan, PlanError, make_plan
    from vaeaug.remote import RemoteError
    from vaeaug.screening import Screener, ScreeningReport, screen
    from vaeaug.shards import Manifest, ShardDataset, ShardError, ShardWriter, push, verify
    from vaeaug.stages import fit, fit_restorer
    from vaeaug.stages.diagnosis import Diagnostics, diagnose
    from vaeaug.training import TrainingError

__version__ = "0.1.0"

_moved.install()

_HOME = {
    "ApplicationError": "job.applications",
    "AugmentConfig": "config",
    "AugmentResult": "job.result",
    "BalancedSampler": "merging",
    "ClassPlan": "plan",
    "CompressionError": "compression",
    "ConfigError": "config",
    "DataError": "data",
    "Diagnostics": "stages.diagnosis",
    "EmbeddingError": "embedding",
    "Engine": "engines",
    "EngineError": "engines",
    "EvaluationConfig": "config",
    "EvaluationError": "evaluation",
    "ExportError": "export",
    "Exported": "export",
    "GateResult": "evaluation",
    "ImageCoder": "compression",
    "LabelledImages": "data",
    "LossyCoder": "compression",
    "Manifest": "shards",
    "MergeError": "merging",
    "MergedDataset": "merging",
    "Plan": "plan",
    "PlanError": "plan",
    "Prediction": "evaluation",
    "Recipe": "config",
    "RemoteError": "remote",
    "RunError": "job.folder",
    "SampleBatch": "generator",
    "SamplingError": "generator",
    "Screener": "screening",
    "ScreeningReport": "screening",
    "ShardDataset": "shards",
    "ShardError": "shards",
    "ShardWriter": "shards",
    "SweepPoint": "job.sweep",
    "Synthesizer": "generator",
    "TrainingError": "training",
    "VAEOverSampler": "integrations.oversampling",
    "augment": "job.pipeline",
    "collate": "merging",
    "compress": "compression",
    "decompress": "compression",
    "diagnose": "stages.diagnosis",
    "embed": "embedding",
    "evaluate": "job.finished",
    "exclude": "job.exclusion",
    "export_dataset": "export",
    "export_decoder": "generator.export",
    "fit": "stages",
    "fit_restorer": "stages",
    "fit_coder": "compression",
    "fit_lossy_coder": "compression",
    "generate": "job.pipeline",
    "load_coder": "compression",
    "load_config": "config",
    "make_plan": "plan",
    "merge": "merging",
    "predict_gain": "job.finished",
    "push": "shards",
    "read": "data",
    "read_pool": "data",
    "screen": "screening",
    "sweep": "job.sweep",
    "verify": "shards",
    "write_merged": "merging",
}

__all__ = [
    "ApplicationError",
    "AugmentConfig",
    "AugmentResult",
    "BalancedSampler",
    "ClassPlan",
    "CompressionError",
    "ConfigError",
    "DataError",
    "Diagnostics",
    "EmbeddingError",
    "Engine",
    "EngineError",
    "EvaluationConfig",
    "EvaluationError",
    "ExportError",
    "Exported",
    "GateResult",
    "ImageCoder",
    "LabelledImages",
    "LossyCoder",
    "Manifest",
    "MergeError",
    "MergedDataset",
    "Plan",
    "PlanError",
    "Prediction",
    "Recipe",
    "RemoteError",
    "RunError",
    "SampleBatch",
    "SamplingError",
    "Screener",
    "ScreeningReport",
    "ShardDataset",
    "ShardError",
    "ShardWriter",
    "SweepPoint",
    "Synthesizer",
    "TrainingError",
    "VAEOverSampler",
    "__version__",
    "augment",
    "collate",
    "compress",
    "decompress",
    "diagnose",
    "embed",
    "evaluate",
    "exclude",
    "export_dataset",
    "export_decoder",
    "fit",
    "fit_coder",
    "fit_lossy_coder",
    "fit_restorer",
    "generate",
    "load",
    "load_coder",
    "load_config",
    "make_plan",
    "merge",
    "predict_gain",
    "push",
    "read",
    "read_pool",
    "screen",
    "sweep",
    "verify",
    "write_merged",
]


def load(folder: Any, *, codec: Any = None) -> "Synthesizer":
    """Read a generator that `Synthesizer.save` wrote.

    Args:
        folder: The generator's folder, or a run folder.
        codec: The image codec that the generator was trained with ("FILE.py:NAME"), where there was
            one in a Python file: such a file is run only where it is named.

    Returns:
        The generator, on the CPU.

    Raises:
        SamplingError: If there is none or it cannot be read.
    """
    from vaeaug.generator import Synthesizer

    return Synthesizer.load(folder, codec=codec)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vaeaug' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vaeaug.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
