"""Does synthetic data help, is it faithful, does it leak: measured, without downloads."""

from vaeaug.evaluation.discriminator import real_or_synthetic_auc
from vaeaug.evaluation.disentanglement import Disentanglement, measure_disentanglement
from vaeaug.evaluation.fidelity.judges import real_features, train_on_synthetic
from vaeaug.evaluation.fidelity.measure import Fidelity, measure_fidelity
from vaeaug.evaluation.gate.arms import Arm
from vaeaug.evaluation.gate.bench import Bench, EvaluationError
from vaeaug.evaluation.gate.cost import cost_of_gate, cost_of_search, seconds_of_probe
from vaeaug.evaluation.gate.prediction import Prediction, predict
from vaeaug.evaluation.gate.probe_networks import FileProbe, ProbeError, ProbeFactory
from vaeaug.evaluation.gate.result import GateResult
from vaeaug.evaluation.gate.run import run_gate
from vaeaug.evaluation.gate.search import SearchResult, default_candidates, search_recipe
from vaeaug.evaluation.gate.splits import halves, make_splits
from vaeaug.evaluation.hearing import as_judged
from vaeaug.evaluation.matching import shared_images
from vaeaug.evaluation.privacy.measure import Privacy, measure_privacy
from vaeaug.evaluation.shortcut import Shortcut, check_shortcut
from vaeaug.stages.neighbours import coverage, density, kernel_distance, precision, recall
from vaeaug.stages.split import SyntheticSet

__all__ = [
    "Arm",
    "Bench",
    "Disentanglement",
    "EvaluationError",
    "Fidelity",
    "FileProbe",
    "GateResult",
    "Prediction",
    "Privacy",
    "ProbeError",
    "ProbeFactory",
    "SearchResult",
    "Shortcut",
    "SyntheticSet",
    "as_judged",
    "check_shortcut",
    "cost_of_gate",
    "cost_of_search",
    "coverage",
    "default_candidates",
    "density",
    "halves",
    "kernel_distance",
    "make_splits",
    "measure_disentanglement",
    "measure_fidelity",
    "measure_privacy",
    "precision",
    "predict",
    "real_features",
    "real_or_synthetic_auc",
    "recall",
    "run_gate",
    "search_recipe",
    "seconds_of_probe",
    "shared_images",
    "train_on_synthetic",
]
