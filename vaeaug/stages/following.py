"""What a process of a job does that does not lead: tasks of the leader, until it ends."""

from typing import NoReturn

from vaeaug.generator import DRAWING, follow_drawing
from vaeaug.ranks import Order, Ranks, RanksError
from vaeaug.training import (
    RESTORATION,
    TRAINING,
    finish_task,
    follow_restoration,
    follow_training,
    task_of,
)


def follow(ranks: Ranks) -> NoReturn:
    """Do what the leader asks for: train with it, and draw its blocks.

    Args:
        ranks: This process.

    Raises:
        Dismissed: When the leader ends.
        RanksError: If it ended without a word.
        TrainingError: If a step does not fit into the memory of this process's device.
        SamplingError: If the generator to draw from cannot be read.
    """
    while True:
        order, *_ = ranks.next_order()
        if order != Order.TASK:
            raise RanksError(f"rank {ranks.rank}: expected a task, got {order.name}")
        about, config, data, device = task_of(ranks)
        if about["task"] == TRAINING:
            follow_training(data, config, device, ranks)
            finish_task(ranks)
        elif about["task"] == RESTORATION:
            follow_restoration(data, config, device, ranks)
            finish_task(ranks)
        elif about["task"] == DRAWING:
            follow_drawing(
                data, config, device, ranks, folder=about["folder"], sha256=about["sha256"]
            )
        else:
            raise RanksError(f"rank {ranks.rank}: unknown task {about['task']!r}")
