"""The stages of a job in memory: plan, train, screen, draw. A run and a split go through the same.

Nothing here knows a run folder: what is drawn is handed out, and whoever asked for it stores it.
"""

from vaeaug.stages.drawing import (
    CHUNK,
    AcceptedSamples,
    EarlierSamples,
    RejectedToKeep,
    draw_class,
)
from vaeaug.stages.following import follow
from vaeaug.stages.planning import bytes_per_sample, plan_of, shards_of, suited, with_front_end
from vaeaug.stages.split import SplitStages, SyntheticSet
from vaeaug.stages.timing import JobTime, before_timing, time_draws, time_job
from vaeaug.stages.training import fit, fit_added, fit_restorer, load_or_train, new_screener

__all__ = [
    "CHUNK",
    "AcceptedSamples",
    "EarlierSamples",
    "JobTime",
    "RejectedToKeep",
    "SplitStages",
    "SyntheticSet",
    "before_timing",
    "bytes_per_sample",
    "draw_class",
    "fit",
    "fit_added",
    "fit_restorer",
    "follow",
    "load_or_train",
    "new_screener",
    "plan_of",
    "shards_of",
    "suited",
    "time_draws",
    "time_job",
    "with_front_end",
]
