"""Read data as a job says."""

import logging
from typing import Any

from vaeaug.config import AugmentConfig
from vaeaug.data import LabelledImages, read_by, read_pool

log = logging.getLogger("vaeaug")


def read_data(
    source: Any,
    config: AugmentConfig,
    *,
    pool: Any = None,
    workers: int | None = None,
    progress: bool = False,
) -> LabelledImages:
    """Read a source as ``config.data`` says, and a pool of unlabelled images beside it."""
    wanted = config.data
    data = read_by(
        source, wanted.model_dump(), seed=config.seed, workers=workers, progress=progress
    )
    for note in data.notes:
        log.info("%s", note)
    if pool is not None:
        images = read_pool(
            pool,
            data,
            split=wanted.split,
            size=wanted.size,
            alpha=wanted.alpha,
            layout=wanted.layout,
            value_range=wanted.value_range,
            resize=wanted.resize,
            mode=wanted.mode,
            on_error=wanted.on_error,
            workers=workers,
            progress=progress,
        )
        log.info("pool: %d images without labels", len(images))
        data = data.with_unlabelled(images)
    return data
