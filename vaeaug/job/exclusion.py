"""Publish a finished run without some of its samples, or with them again."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaeaug.config import ConfigError, make_config
from vaeaug.data import DataError, LabelledImages, read_configured
from vaeaug.job.finished import job_of
from vaeaug.job.folder import RunError, RunFolder, read_run
from vaeaug.job.publishing import publish, publish_without_data
from vaeaug.job.result import RunResult
from vaeaug.shards import Manifest, read_list, with_excluded

log = logging.getLogger("vaeaug")

# Redrawn with the report: they may show what is excluded now.
_PICTURES = ("samples.png", "samples.gif")


def exclude(
    out_dir: str | Path,
    samples: Mapping[str, Iterable[int]] | str | Path | None,
    data: LabelledImages | Any = None,
) -> Manifest:
    """Publish a run without some samples. Shards stay as they are, so that it can be undone.

    The manifest names the rows that are left out, and every reader leaves them out. Where the data
    of the run can be read, report and pictures are made again; the card always is.

    Args:
        out_dir: A finished run folder.
        samples: A list that `vaeaug studio` saved, or row numbers by the path of their shard, such
            as ``{"shards/shard-00000.h5": [3, 17]}``. It replaces what was excluded before; None
            or an empty mapping brings every sample back.
        data: The training split that the run was made from, or anything `read` takes. None: what
            ``run.json`` names, if it is still there.

    Returns:
        The manifest as it was written.

    Raises:
        ShardError: If the run is not finished, or the list is damaged, or of another run.
        RunError: If the folder is in use, or the data is not what the run was made from.
    """
    manifest = Manifest.load(out_dir)
    if samples is None:
        samples = {}
    elif not isinstance(samples, Mapping):
        samples = read_list(samples, manifest)
    folder = Path(out_dir)
    if not (folder / "run.json").exists():  # shards that were written by hand
        return with_excluded(manifest, samples).save(folder)
    images = data_of_run(folder, data)
    config = make_config(read_run(folder)["config"], where=f"{folder}/run.json", warn=False)
    with RunFolder(folder, config=config, data=read_run(folder)["data"]) as run:
        result = RunResult.load(run, config)
        result = replace(result, manifest=with_excluded(result.manifest, samples))
        if images is None:
            log.warning(
                "%s: report.html and samples.png are still of the dataset before; `vaeaug exclude` "
                "with --data makes them again",
                folder,
            )
            return publish_without_data(run, result)
        for name in _PICTURES:
            (run.path / name).unlink(missing_ok=True)
        return publish(run, result, images)


def data_of_run(
    out_dir: str | Path, data: LabelledImages | Any = None, *, pool: Any = None
) -> LabelledImages | None:
    """Read the data that a run was made from, where it can be found.

    Args:
        out_dir: The run folder.
        data: The data, or anything `read` takes. None: what ``run.json`` names.
        pool: Unlabelled images that the run was trained on as well.

    Returns:
        The training split; None, with a line in the log, where ``run.json`` names nothing that can
        be read, or that is no longer the data of the run.

    Raises:
        RunError: If `data` was given and is not what the run was made from.
        DataError: If `data` was given and cannot be read.
    """
    if data is not None:
        return job_of(data, out_dir, pool=pool)[1]
    source = read_run(out_dir)["data"].get("source")
    try:
        config = make_config(read_run(out_dir)["config"], warn=False)
        # A name is no path, and `read` says so.
        images = read_configured(
            str(source), config.data.model_dump(), seed=config.seed, pool=pool, progress=False
        )
        return job_of(images, out_dir)[1]
    except (RunError, DataError, ConfigError, OSError) as error:
        log.warning("%s: goes on without the real images of the run: %s", out_dir, error)
        return None
