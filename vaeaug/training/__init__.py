"""Training: class-weighted batches, the ELBO, EMA, early stopping, checkpoints and resumption.

Every random draw is a function of (seed, stage, step), so that a run that is killed and restarted
continues exactly from its last checkpoint.
"""

from vaeaug.training._batches import resolve_device
from vaeaug.training._elbo import ACTIVE_VARIANCE
from vaeaug.training._restoration import (
    BUDGET_SHARE,
    RESTORATION,
    follow_restoration,
    restoration_steps,
    train_restorer,
)
from vaeaug.training._state import TrainingError
from vaeaug.training._timing import StageTime, clock_of, time_training, with_steps
from vaeaug.training._together import finish_task, released, summoned, task_of
from vaeaug.training._train import (
    TRAINING,
    Trained,
    check_config,
    default_steps,
    follow_training,
    style_units,
    train,
    train_added,
)

__all__ = [
    "ACTIVE_VARIANCE",
    "BUDGET_SHARE",
    "RESTORATION",
    "TRAINING",
    "StageTime",
    "Trained",
    "TrainingError",
    "check_config",
    "clock_of",
    "default_steps",
    "finish_task",
    "follow_restoration",
    "follow_training",
    "released",
    "resolve_device",
    "restoration_steps",
    "style_units",
    "summoned",
    "task_of",
    "time_training",
    "train",
    "train_added",
    "train_restorer",
    "with_steps",
]
