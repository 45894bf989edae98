"""Does synthetic data help? Classifiers with and without it, paired by split, and a verdict."""

from vaeaug.evaluation.gate.bench import Bench, EvaluationError
from vaeaug.evaluation.gate.probe import Arm, FileProbe, ProbeError, SyntheticSet
from vaeaug.evaluation.gate.run import GateResult, run_gate
from vaeaug.evaluation.gate.search import SearchResult, default_candidates, search_recipe
from vaeaug.evaluation.gate.splits import halves, make_splits

__all__ = [
    "Arm",
    "Bench",
    "EvaluationError",
    "FileProbe",
    "GateResult",
    "ProbeError",
    "SearchResult",
    "SyntheticSet",
    "default_candidates",
    "halves",
    "make_splits",
    "run_gate",
    "search_recipe",
]
