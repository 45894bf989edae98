"""Does synthetic data help? Classifiers with and without it, paired by split, and a verdict."""

from vaeaug.evaluation.gate.arms import Arm
from vaeaug.evaluation.gate.bench import Bench, EvaluationError
from vaeaug.evaluation.gate.networks import FileProbe, ProbeError, ProbeFactory
from vaeaug.evaluation.gate.result import GateResult
from vaeaug.evaluation.gate.run import run_gate
from vaeaug.evaluation.gate.search import SearchResult, default_candidates, search_recipe
from vaeaug.evaluation.gate.splits import halves, make_splits
from vaeaug.stages import SyntheticSet

__all__ = [
    "Arm",
    "Bench",
    "EvaluationError",
    "FileProbe",
    "GateResult",
    "ProbeError",
    "ProbeFactory",
    "SearchResult",
    "SyntheticSet",
    "default_candidates",
    "halves",
    "make_splits",
    "run_gate",
    "search_recipe",
]
