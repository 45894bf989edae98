"""How good synthetic samples are, without downloads: told from real, useful, faithful, diverse."""

from vaeaug.evaluation.fidelity import (
    coverage,
    density,
    precision,
    real_features,
    real_or_synthetic_auc,
    recall,
    train_on_synthetic,
)

__all__ = [
    "coverage",
    "density",
    "precision",
    "real_features",
    "real_or_synthetic_auc",
    "recall",
    "train_on_synthetic",
]
