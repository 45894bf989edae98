"""Draws over several processes: each draws whole blocks, so that the samples are the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages
from vaeaug.generator.batch import SampleBatch
from vaeaug.generator.codec import BLOCK, SamplingError
from vaeaug.generator.configured import sample_configured
from vaeaug.generator.synthesizer import Synthesizer
from vaeaug.ranks import Order, Ranks, current
from vaeaug.training import released, summoned

# Name of the task of the other processes.
DRAWING = "draw"
# Arrays of a batch that differ from sample to sample.
_ROWS = ("images", "labels", "latents", "source_index", "seed", "soft_labels")


@contextmanager
def draws_divided(
    generator: Synthesizer, folder: Path, data: LabelledImages, config: AugmentConfig
) -> Iterator[None]:
    """Inside, `sample_divided` draws in every process of the job, each on a device of its own.

    Args:
        generator: Draws the samples.
        folder: Where it was saved, which every process reads.
        data: The training split.
        config: The job.

    Raises:
        RanksError: If there are fewer cards than processes.
    """
    keys = {"folder": str(folder.resolve()), "sha256": generator.sha256}
    ranks = summoned(DRAWING, data, config, generator.device, **keys)
    ranks.draws = ranks.are_several
    yield
    ranks.draws = False
    released(ranks)


def sample_divided(
    generator: Synthesizer,
    config: AugmentConfig,
    label: int,
    n: int,
    *,
    sampler: str,
    seed: int,
    start: int = 0,
) -> SampleBatch:
    """Draw as `sample_configured` does, the blocks divided over the processes of the job.

    Args:
        generator: Draws them.
        config: The job.
        label: Class index.
        n: Number of samples.
        sampler: Name of the sampler.
        seed: Seed of the run.
        start: Index of the first sample.

    Returns:
        Samples start to start + n - 1.
    """
    ranks = current()
    if not ranks.draws or n <= BLOCK:
        return sample_configured(
            generator, config, label, n, sampler=sampler, seed=seed, start=start
        )
    request = {"label": label, "sampler": sampler, "seed": seed, "start": start, "n": n}
    with ranks.together():
        ranks.order(Order.DRAW)
        parts = ranks.to_leader(_drawn(ranks, generator, config, ranks.share(request)))
    arrays: dict[str, Any] = {
        name: _joined([part[name] for part in parts if part]) for name in _ROWS
    }
    return SampleBatch(
        **arrays,
        sampler=sampler,
        class_names=generator.class_names,
        value_range=generator.value_range,
    )


def follow_drawing(
    data: LabelledImages,
    config: AugmentConfig,
    device: torch.device,
    ranks: Ranks,
    *,
    folder: str,
    sha256: str,
) -> None:
    """Draw the blocks that another process asks for, until it needs no more.

    Args:
        data: The training split.
        config: The job.
        device: The device of this process.
        ranks: The processes.
        folder: Where the generator is.
        sha256: Its hash.

    Raises:
        SamplingError: If the folder holds no generator, or another one.
    """
    generator = Synthesizer.load(folder, codec=config.model.codec).to(device).attach(data)
    if generator.sha256 != sha256:
        raise SamplingError(
            f"{folder}: expected the generator {sha256[:12]} of this job, got "
            f"{generator.sha256[:12]}"
        )
    while ranks.next_order()[0] == Order.DRAW:
        ranks.to_leader(_drawn(ranks, generator, config, ranks.share()))


def _drawn(
    ranks: Ranks, generator: Synthesizer, config: AugmentConfig, request: dict[str, Any]
) -> dict[str, Any]:
    """This process's part of what is asked for; nothing where there are too few blocks."""
    start, end = request["start"], request["start"] + request["n"]
    blocks = np.arange(start // BLOCK, -(-end // BLOCK))
    mine = np.array_split(blocks, ranks.size)[ranks.rank]
    if not len(mine):
        return {}
    first, last = max(start, BLOCK * int(mine[0])), min(end, BLOCK * (int(mine[-1]) + 1))
    batch = sample_configured(
        generator,
        config,
        request["label"],
        last - first,
        sampler=request["sampler"],
        seed=request["seed"],
        start=first,
    )
    arrays = {name: getattr(batch, name) for name in _ROWS}
    return {n: None if each is None else torch.from_numpy(each) for n, each in arrays.items()}


def _joined(parts: list[torch.Tensor | None]) -> np.ndarray | None:
    known = [part.numpy() for part in parts if part is not None]
    return np.concatenate(known) if known else None
