"""Reading as the configuration of a job states it."""

import logging
from collections.abc import Mapping
from typing import Any

from vaeaug.data.dataset import LabelledImages
from vaeaug.data.pool import read_pool
from vaeaug.data.reading import read
from vaeaug.data.request import Cache
from vaeaug.engines import Engine

log = logging.getLogger("vaeaug")

# Settings that `read_pool` takes by the same name, and those that only `read` takes.
_SHARED = (
    *("split", "size", "frames", "frame_step", "alpha", "layout", "value_range", "resize", "mode"),
    *("on_error", "sample_rate"),
)
_LABELLED = ("keys", "class_names", "front_end")


def read_by(
    source: Any,
    settings: Mapping[str, Any],
    *,
    seed: int,
    workers: int | None = None,
    progress: bool = True,
    cache: Cache | None = None,
    engine: Engine | None = None,
) -> LabelledImages:
    """Read a source as the part `data` of a job's configuration states.

    Args:
        source: Anything that `read` takes.
        settings: The part, as plain data: what ``run.json`` holds, or a dumped model.
        seed: Seed of the choice of images where ``class_counts`` keeps some of each class and
            the part has no seed of its own.
        workers: As for `read`.
        progress: As for `read`.
        cache: As for `read`.
        engine: As for `read`.

    Returns:
        The labelled images.

    Raises:
        DataError: As for `read`.
    """
    options = _options(settings, (*_SHARED, *_LABELLED))
    data = read(source, workers=workers, progress=progress, cache=cache, engine=engine, **options)
    counts = settings.get("class_counts")
    if counts is None:
        return data
    if isinstance(counts, Mapping):  # JSON has texts alone for keys
        counts = {int(label): n for label, n in counts.items()}
    own_seed = settings.get("seed")
    return data.imbalanced(counts, seed=seed if own_seed is None else own_seed)


def read_configured(
    source: Any,
    settings: Mapping[str, Any],
    *,
    seed: int,
    pool: Any = None,
    workers: int | None = None,
    progress: bool = True,
    cache: Cache | None = None,
    engine: Engine | None = None,
) -> LabelledImages:
    """Read a source, and a pool beside it, as a job's configuration states, and log the notes.

    Args:
        source: As for `read_by`.
        settings: As for `read_by`.
        seed: As for `read_by`.
        pool: Images without labels: anything that `read_pool` takes; None for no pool.
        workers: As for `read`.
        progress: As for `read`.
        cache: As for `read`.
        engine: As for `read`.

    Returns:
        The labelled images, with the pool.

    Raises:
        DataError: As for `read` and `read_pool`.
    """
    where: dict[str, Any] = {
        "workers": workers,
        "progress": progress,
        "cache": cache,
        "engine": engine,
    }
    data = read_by(source, settings, seed=seed, **where)
    for note in data.notes:
        log.info("%s", note)
    if pool is None:
        return data
    options = _options(settings, _SHARED)
    images = read_pool(pool, data, **where, **options)
    log.info("pool: %d images without labels", len(images))
    return data.with_unlabelled(images)


def _options(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: settings[name] for name in names if settings.get(name) is not None}
