"""How close do synthetic images come to real ones that the generator never saw?"""

from vaeaug.evaluation.discriminator import real_or_synthetic_auc
from vaeaug.evaluation.fidelity.judges import real_features, train_on_synthetic
from vaeaug.evaluation.fidelity.measure import Fidelity, measure_fidelity
from vaeaug.stages.neighbours import (
    coverage,
    density,
    kernel_distance,
    precision,
    recall,
)

__all__ = [
    "Fidelity",
    "coverage",
    "density",
    "kernel_distance",
    "measure_fidelity",
    "precision",
    "real_features",
    "real_or_synthetic_auc",
    "recall",
    "train_on_synthetic",
]
