"""Does synthetic data help, is it faithful, does it leak: measured, without downloads."""

from vaeaug.evaluation._splits import halves, make_splits
from vaeaug.evaluation.bench import Bench, EvaluationError
from vaeaug.evaluation.fidelity import (
    Fidelity,
    coverage,
    density,
    kernel_distance,
    measure_fidelity,
    precision,
    real_features,
    real_or_synthetic_auc,
    recall,
    train_on_synthetic,
)
from vaeaug.evaluation.gate import GateResult, run_gate
from vaeaug.evaluation.privacy import Privacy, measure_privacy, shared_images
from vaeaug.evaluation.probe import Arm, FileProbe, ProbeError, SyntheticSet
from vaeaug.evaluation.search import SearchResult, default_candidates, search_recipe
from vaeaug.evaluation.shortcut import Shortcut, check_shortcut

__all__ = [
    "Arm",
    "Bench",
    "EvaluationError",
    "Fidelity",
    "FileProbe",
    "GateResult",
    "Privacy",
    "ProbeError",
    "SearchResult",
    "Shortcut",
    "SyntheticSet",
    "check_shortcut",
    "coverage",
    "default_candidates",
    "density",
    "halves",
    "kernel_distance",
    "make_splits",
    "measure_fidelity",
    "measure_privacy",
    "precision",
    "real_features",
    "real_or_synthetic_auc",
    "recall",
    "run_gate",
    "search_recipe",
    "shared_images",
    "train_on_synthetic",
]
