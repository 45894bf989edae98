"""Trainings over several processes: what the leader tells the others, and what those then do."""

import functools
from typing import Any

import numpy as np
import torch

from vaeaug.config import AugmentConfig, make_config
from vaeaug.data import LabelledImages
from vaeaug.mapping import room_for
from vaeaug.ranks import ALONE, Order, Ranks, RanksError, current

# Fields of a data set that are arrays; the others are plain types.
_ARRAYS = ("images", "labels", "unlabelled", "groups")
_PLAIN = ("class_names", "value_range", "split", "source", "notes", "sample_rate", "front_end")


def summoned(
    task: str, data: LabelledImages, config: AugmentConfig, device: torch.device, **keys: Any
) -> Ranks:
    """Set the other processes of the job to a task, which ends with the order `DONE`.

    Args:
        task: Its name.
        data: The data of the task, which the others are given where they do not have it.
        config: The job.
        device: Where this process computes; the others take a device of the same kind.
        **keys: What else the task needs, plain types.

    Returns:
        The processes that take part; `ALONE` where there are no others, or they are at a task.

    Raises:
        RanksError: If there are fewer cards than processes.
    """
    ranks = current()
    if not ranks.are_several or ranks.is_busy:
        return ALONE
    check_device(ranks, device)
    about = {
        "task": task,
        "config": config.to_json(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "data": _identity(data),
        **keys,
    }
    with ranks.together():
        ranks.order(Order.TASK)
        ranks.share(about)
        _share_data(ranks, data, about["data"])
    ranks.is_busy = True
    return ranks


def released(ranks: Ranks) -> None:
    """End a task: the others wait for the next one.

    Args:
        ranks: What `summoned` returned.
    """
    ranks.is_busy = False
    ranks.order(Order.DONE)


def task_of(ranks: Ranks) -> tuple[dict[str, Any], AugmentConfig, LabelledImages, torch.device]:
    """Receive a task, in a process that follows.

    Args:
        ranks: This process.

    Returns:
        What `summoned` was told, the job, the data, and the device of this process.
    """
    about: dict[str, Any] = ranks.share()
    torch.set_num_threads(about["threads"])
    data = _share_data(ranks, None, about["data"])
    config = make_config(about["config"], where="rank 0", warn=False)
    name = f"cuda:{ranks.local_rank}" if about["device"] == "cuda" else about["device"]
    return about, config, data, torch.device(name)


def finish_task(ranks: Ranks) -> None:
    """Wait for the end of a task, in a process that follows.

    Args:
        ranks: This process.
    """
    order, *_ = ranks.next_order()
    if order != Order.DONE:
        raise RanksError(f"rank {ranks.rank}: expected the end of a task, got {order.name}")


def check_device(ranks: Ranks, device: torch.device) -> None:
    """Refuse more processes than there are cards, and one card for all.

    Args:
        ranks: The processes.
        device: Where this process computes.

    Raises:
        RanksError: If the processes cannot have a card each.
    """
    if device.type != "cuda":
        return
    n_cards = torch.cuda.device_count()
    if ranks.size > n_cards:
        raise RanksError(
            f"torchrun: expected at most {n_cards} processes, one for each card, got {ranks.size}; "
            f"give --nproc-per-node {n_cards}"
        )
    if device.index not in (None, ranks.local_rank):
        raise RanksError(
            f"--device {device}: expected auto, cpu or cuda under torchrun, where every process "
            "has a card of its own"
        )


def _identity(data: LabelledImages) -> list[str]:
    """What a data set is, as far as a training or a draw can tell."""
    return [data.fingerprint, str(data.front_end), str(data.sample_rate), str(data.split)]


def _share_data(ranks: Ranks, data: LabelledImages | None, identity: list[str]) -> LabelledImages:
    """Give data to all; what they were given last is not sent again."""
    if ranks.kept is not None and ranks.kept[0] == identity:
        return ranks.kept[1] if data is None else data
    plain = ranks.share(None if data is None else {name: getattr(data, name) for name in _PLAIN})
    arrays: dict[str, Any] = dict.fromkeys(_ARRAYS)
    for name in _ARRAYS:
        array = None if data is None else getattr(data, name)
        if ranks.share(array is not None):
            make = functools.partial(_room, what=f"{name} of {plain['source']}")
            arrays[name] = ranks.share_array(array, make)
    if data is None:
        plain = {**plain, **{name: tuple(plain[name]) for name in ("class_names", "notes")}}
        data = LabelledImages(**arrays, **plain)
        ranks.kept = identity, data
    else:
        ranks.kept = identity, None
    return data


def _room(shape: tuple[int, ...], dtype: np.dtype, *, what: str) -> np.ndarray:
    return room_for(shape, dtype, "torchrun", what, RanksError)
