"""Accept or reject each synthetic sample, with the reason and the values it was judged by.

Thresholds are loose: a filter that keeps only what a classifier is sure of was measured to shrink
rare classes to their easy middle. What must not pass is what is broken, what copies a training
image, what copies a sibling, and what plainly shows another class.
"""

from vaeaug.screening.sample_space import SampleSpace
from vaeaug.screening.screener import NEAR_CLASS, ClassScreening, Screener, screen
from vaeaug.screening.verdicts import REASONS, Screened, ScreeningReport

__all__ = [
    "NEAR_CLASS",
    "REASONS",
    "ClassScreening",
    "SampleSpace",
    "Screened",
    "Screener",
    "ScreeningReport",
    "screen",
]
