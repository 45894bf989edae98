"""Plots in scikit-learn's manner: a display is made from a result, and keeps what it shows.

``from_...`` computes and draws at once; ``plot`` draws again, such as into other axes. ``ax_`` and
``figure_`` are what was drawn into.
"""

from vaeaug.plot.classes import BeforeAfterDisplay, RecallDisplay
from vaeaug.plot.generator import LatentMapDisplay, TraversalDisplay
from vaeaug.plot.samples import SamplesDisplay
from vaeaug.plot.training import TrainingCurvesDisplay

__all__ = [
    "BeforeAfterDisplay",
    "LatentMapDisplay",
    "RecallDisplay",
    "SamplesDisplay",
    "TrainingCurvesDisplay",
    "TraversalDisplay",
]
