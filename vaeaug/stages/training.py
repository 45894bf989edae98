"""Train what a job needs: the generator with its class densities, and the screener."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaeaug.config import AugmentConfig, as_config
from vaeaug.data import LabelledImages
from vaeaug.generator import ImageCodec, LatentSpace, SamplingError, SoundCodec, Synthesizer
from vaeaug.models import scale_images
from vaeaug.progress import Progress, shown
from vaeaug.screening import Screener
from vaeaug.stages.planning import suited, with_front_end
from vaeaug.training import (
    BUDGET_SHARE,
    resolve_device,
    restoration_steps,
    train,
    train_added,
    train_restorer,
)

log = logging.getLogger("vaeaug")

# Latents of one image, encoded in other company, differ less.
_SAME_LATENT = 1e-4
# Sounds on which the front end is measured.
_SOUNDS = 32


def fit(
    data: LabelledImages,
    config: AugmentConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    folder: str | Path | None = None,
    progress: Progress | bool | None = None,
    callbacks: Sequence[Progress] = (),
) -> Synthesizer:
    """Train the generator and the restorer, and fit the class densities.

    Args:
        data: The training split.
        config: The job; a mapping of its keys or the path of a YAML file will do.
        device: "auto", "cpu", "cuda" or "cuda:N".
        folder: Checkpoints go there and are resumed from there. None: nothing is written.
        progress: None shows bars on a terminal and elsewhere logs a line every 30 seconds; False
            is silent; a function is called as ``progress(what, done, total, metrics)``.
        callbacks: Functions that are called as `progress` is, besides it, such as
            `vaeaug.integrations.tracking.TensorBoard`.

    Returns:
        The generator, on `device`.

    Raises:
        ConfigError: If parts of the configuration are incompatible with one another, with the data
            or with the generator that training starts from.
        SamplingError: If that generator cannot be read.
        TrainingError: If training fails.
    """
    job = suited(as_config(config), data)
    data = with_front_end(data, job)
    space, samples = None, data
    if job.model.codec is not None:
        codec = ImageCodec.load(job.model.codec)
        space, samples = LatentSpace.fitted(codec, data, device=resolve_device(device))
    elif data.spectrogram is not None:
        sounds = SoundCodec(data.spectrogram)
        space, samples = LatentSpace.fitted(sounds, data, device=resolve_device(device))
        log.info("%s", sounds.summary(_some_sounds(data)))
    restorer, path = None, None if folder is None else Path(folder)
    start = None
    if job.training.init is not None:
        start = Synthesizer.load(Path(job.training.init), codec=job.model.codec)
    restores, budget = restoration_steps(data, job) > 0, job.training.budget_seconds
    timed = job
    if restores and budget is not None:
        timed = job.changed(**{"training.budget_seconds": (1 - BUDGET_SHARE) * budget})
    about = {"config": job.to_json(), "data": {"source": data.source}}
    with shown(progress, callbacks, about) as report:
        where: dict[str, Any] = {"device": device, "folder": path, "progress": report}
        trained = train(samples, timed, start=start.model if start else None, **where)
        lines = trained.summary()
        notes = trained.remarks
        if start is not None:
            source = f"started from {job.training.init}, data {start.data_fingerprint[:12]}"
            lines.append(source)
            notes += (source,)
        if restores:
            restorer, line = train_restorer(
                data, job, start=start.restorer if start else None, **where
            )
            lines.append(line)
    for line in lines:
        log.info("%s", line)
    return Synthesizer.from_training(
        trained.model,
        data,
        seed=job.seed,
        flow=trained.flow,
        pool_labels=trained.pool_labels if data.unlabelled is not None else None,
        kind=job.density.kind,
        notes=notes,
        latent_space=space,
        encoded=None if space is None else samples,
        restorer=restorer,
    )


def fit_added(
    start: Synthesizer,
    data: LabelledImages,
    config: AugmentConfig,
    *,
    device: str | torch.device = "auto",
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Synthesizer:
    """Fit what is new in data that has more classes or images than a generator knows.

    New classes are adapted with the trunk frozen, and the densities of classes with other images
    are fitted anew; what the generator makes of its other classes stays the same.

    Args:
        start: The generator.
        data: The training split; it has all classes of the generator.
        config: The job of the generator.
        device: "auto", "cpu", "cuda" or "cuda:N".
        folder: As for `fit`.
        progress: Reports on the training; None is silent.

    Returns:
        A generator of this data, on `device`; `start` is not changed.

    Raises:
        TrainingError: If training fails.
    """
    space, samples = start.codec.latent_space, data
    if space is not None:
        samples = space.encoded(data, device=resolve_device(device))
    known = {
        data.class_names.index(name): label
        for label, name in enumerate(start.class_names)
        if len(start.rows[label])
    }
    trained = train_added(
        samples,
        config,
        start=start.model,
        known=known,
        latents=start.means[start.labels >= 0],
        with_flow=start.flow is not None,
        device=device,
        folder=None if folder is None else Path(folder),
        progress=progress,
    )
    counts = data.counts
    added = [name for c, name in enumerate(data.class_names) if c not in known and counts[c]]
    line = f"classes added to a trained generator, its trunk frozen: {', '.join(added)}"
    for text in (*trained.summary(), *([line] if added else [])):
        log.info("%s", text)
    generator = Synthesizer.from_training(
        trained.model,
        data,
        seed=config.seed,
        flow=trained.flow,
        pool_labels=_pool_labels(start, data),
        kind=config.density.kind,
        notes=(*start.notes, *trained.remarks, *([line] if added else [])),
        latent_space=space,
        encoded=None if space is None else samples,
        restorer=start.restorer,
    )
    densities = list(generator.densities)
    for label, before in known.items():
        ours, theirs = generator.means[generator.rows[label]], start.means[start.rows[before]]
        if ours.shape == theirs.shape and np.allclose(ours, theirs, atol=_SAME_LATENT):
            densities[label] = start.densities[before]
    generator.densities = tuple(densities)
    return generator


def _pool_labels(start: Synthesizer, data: LabelledImages) -> np.ndarray | None:
    """Classes of the pool as the generator knows them; none where it is another pool."""
    pool = start.labels[start.n_real :]
    if data.unlabelled is None or len(pool) != len(data.unlabelled):
        return None
    now = np.array([data.class_names.index(name) for name in start.class_names])
    return np.where(pool < 0, -1, now[pool.clip(0)]).astype(np.int64)


def _some_sounds(data: LabelledImages) -> torch.Tensor:
    """Training sounds in [0, 1] to say of what the front end keeps."""
    rows = np.linspace(0, len(data) - 1, min(len(data), _SOUNDS)).astype(np.int64)
    return scale_images(torch.from_numpy(data.images[rows]), data.value_range)


def fit_restorer(
    generator: Synthesizer,
    data: LabelledImages,
    config: AugmentConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    progress: Progress | bool | None = None,
) -> Synthesizer:
    """Train the restorer that `Synthesizer.denoise` uses, for a generator that has none.

    Args:
        generator: A trained generator; it is given the restorer.
        data: Clean samples of its shape and value range, such as its training split.
        config: The job, whose section ``restoration`` and number of steps are used.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: As for `fit`.

    Returns:
        The generator.

    Raises:
        SamplingError: If the samples are of another shape or value range, or no restorer can be
            trained on them.
        TrainingError: If training fails.
    """
    job = as_config(config)
    got = (data.image_shape, tuple(data.value_range))
    expected = (generator.image_shape, tuple(generator.value_range))
    if got != expected:
        raise SamplingError(
            f"fit_restorer: expected samples of shape {expected[0]} and range {expected[1]}, got "
            f"{got[0]} and {got[1]}"
        )
    if not restoration_steps(data, job):
        raise SamplingError(
            "fit_restorer: expected samples with an axis in space and restoration.steps of 1 or "
            f"more, got shape {data.image_shape} and {job.restoration.steps} steps"
        )
    with shown(progress) as report:
        restorer, line = train_restorer(data, job, device=device, progress=report)
    log.info("%s", line)
    return generator.with_restorer(restorer)


def load_or_train(
    model: Path,
    data: LabelledImages,
    config: AugmentConfig,
    *,
    checkpoints: Path,
    device: torch.device | str,
    progress: Progress | None = None,
) -> Synthesizer:
    """The generator in a folder; it is trained, or its training resumed, where there is none.

    Args:
        model: Folder of the generator.
        data: The training split.
        config: The job.
        checkpoints: Folder of the training state and its log.
        device: Where the networks run.
        progress: Reports on the training; None is silent.

    Returns:
        The generator, on `device`.

    Raises:
        TrainingError: If training fails.
        SamplingError: If the generator in the folder is damaged.
    """
    if (model / "config.json").exists():
        return Synthesizer.load(model, codec=config.model.codec).to(device)
    generator = fit(data, config, device=device, folder=checkpoints, progress=progress or False)
    generator.save(model)
    return generator


def new_screener(
    data: LabelledImages,
    config: AugmentConfig,
    *,
    device: torch.device | str,
    progress: Progress | None = None,
) -> Screener:
    """Train the classifiers of screening, and log how sure they are of real images.

    Args:
        data: The training split.
        config: The job.
        device: Where the classifiers run.
        progress: Reports on the training; None is silent.

    Returns:
        The screener.
    """
    screener = Screener.for_job(data, config, device=device, progress=progress)
    log.info(
        "screening: the real-only classifier gives held-out real images their label with "
        "probability %.2f on average",
        screener.real_p_label.mean(),
    )
    return screener
