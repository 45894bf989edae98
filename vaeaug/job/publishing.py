"""Publish a run: pictures, report and card, and then the manifest, which is the commit point."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from vaeaug.data import LabelledImages
from vaeaug.evaluation import Prediction
from vaeaug.files import read_whole
from vaeaug.files.json_text import JSONTextError, parse_strict, sealed, unsealed
from vaeaug.generator import Synthesizer
from vaeaug.job.applications import write_latents, write_styles, write_traversal
from vaeaug.job.folder import RunFolder, read_run
from vaeaug.job.result import MEASURES, RunResult, plain, read_json
from vaeaug.memory import blocks
from vaeaug.merging import counts_of_run
from vaeaug.report import (
    COLUMNS,
    MAX_CLASSES,
    SPECTROGRAM_RANGE,
    ClassPanel,
    are_clips,
    players,
    spectrogram_panels,
    write_card,
    write_report,
    write_samples,
)
from vaeaug.shards import Manifest, Shard, ShardEntry, kept_rows, publish_bytes, sha256_file

log = logging.getLogger("vaeaug")

# Hashed when a run is first published, and again with each report.
_ONCE = (
    "run.json",
    "diagnostics.json",
    "model/config.json",
    "model/model.safetensors",
    "model/densities.safetensors",
    "traversals.png",
    "traversals.gif",
    "latents.png",
    "styles.png",
)
# Images that samples are compared with at once.
_COMPARED = 1024
_REPORT = ("report.html", "report.json", "README.md", "samples.png", "samples.gif")


def publish(run: RunFolder, result: RunResult, data: LabelledImages) -> Manifest:
    """Write everything that is made from a result, the manifest last.

    Args:
        run: The run folder, whose shards and model are whole.
        result: What the run came to.
        data: The training split.

    Returns:
        The manifest as it was written.

    Raises:
        ShardError: If a file cannot be written.
    """
    panels = [] if data.are_features else panels_of(run.path, result.manifest, data)
    shown_range, heard = data.value_range, {}
    if data.spectrogram is not None:
        if data.sample_rate is not None:
            heard = dict(players(panels, data.sample_rate, data.value_range))
        panels = spectrogram_panels(panels, data.spectrogram, data.value_range)
        shown_range = SPECTROGRAM_RANGE
    _write_pictures(run, panels, data, shown_range, codec=result.config.model.codec)
    if result.measures:
        run.measures.parent.mkdir(exist_ok=True)
        # In their order: the report shows classes as the data has them.
        publish_bytes(run.measures, sealed(result.measures, sort_keys=False))
    document = _document(run, result)
    write_report(
        run.path,
        document,
        panels=panels,
        value_range=shown_range,
        heard=heard,
        traversals=_there(run.path / "traversals.gif") or _there(run.path / "traversals.png"),
        latent_map=_there(run.path / "latents.png"),
    )
    write_card(run.path, document)
    files = dict(result.manifest.files)
    files |= _hashes(run, [name for name in _ONCE if name not in files])
    files |= _hashes(run, _REPORT)
    return replace(result.manifest, files=files).save(run.path)


def publish_without_data(run: RunFolder, result: RunResult) -> Manifest:
    """Write the card and the manifest; the report and the pictures stay as they are.

    Args:
        run: The run folder.
        result: What the run came to.

    Returns:
        The manifest as it was written.

    Raises:
        ShardError: If a file cannot be written.
    """
    write_card(run.path, _document(run, result))
    files = dict(result.manifest.files) | _hashes(run, ("README.md",))
    return replace(result.manifest, files=files).save(run.path)


def _hashes(run: RunFolder, names: Sequence[str]) -> dict[str, str]:
    return {name: sha256_file(run.path / name) for name in names if (run.path / name).exists()}


def keep_prediction(run: RunFolder, prediction: Prediction) -> None:
    """Keep a prediction in the run folder, where reports find it; it is not in the manifest.

    Args:
        run: The run folder.
        prediction: Takes the place of an earlier one.

    Raises:
        ShardError: If the file cannot be written.
    """
    run.prediction.parent.mkdir(exist_ok=True)
    publish_bytes(run.prediction, sealed(plain(prediction.to_json()), sort_keys=False))


def panels_of(folder: Path, manifest: Manifest, data: LabelledImages) -> list[ClassPanel]:
    """Real and synthetic images of each class; a seeded, not a chosen, selection.

    Args:
        folder: The run folder.
        manifest: Of the run.
        data: The training split.

    Returns:
        A panel for each class, the rarest classes first where there are many.
    """
    first_shards: dict[int, ShardEntry] = {}
    for shard_entry in manifest.shards:
        first_shards.setdefault(shard_entry.label, shard_entry)
    origins = {path: each.data_fingerprint for path, each in manifest.generation_of.items()}
    entries = {entry.label: entry for entry in manifest.classes}
    panels = []
    for label in _by_interest(data):
        entry = entries[label]
        rng = np.random.default_rng([manifest.run_seed, label])
        rows = rng.permutation(np.flatnonzero(data.labels == label))
        synthetic = nearest = data.images[:0]
        if label in first_shards:
            with Shard(folder / first_shards[label].path) as shard:
                kept = kept_rows(manifest, first_shards[label].path, len(shard))
                shown = (np.arange(len(shard)) if kept is None else kept)[:COLUMNS]
                synthetic = shard.images_at(shown)
                if origins[first_shards[label].path] == manifest.data_fingerprint:
                    nearest = data.images_at(shard.nn_index[shown])
                else:  # its rows are those of the data before it grew
                    of_class = np.flatnonzero(data.labels == label)
                    nearest = _nearest(synthetic, data.images, of_class)
        panels.append(
            ClassPanel(
                name=entry.name,
                note=f"{entry.real} real, {entry.accepted} synthetic",
                real=data.images[rows[:COLUMNS]],
                synthetic=synthetic,
                nearest=nearest,
            )
        )
    return panels


def _nearest(
    samples: Shaped[np.ndarray, "n *space c"],
    images: Shaped[np.ndarray, "m *space c"],
    rows: Int64[np.ndarray, " r"],
) -> Shaped[np.ndarray, "n *space c"]:
    """The nearest of some rows to each sample, by the squared difference of their values."""
    least, nearest = np.full(len(samples), np.inf), np.zeros(len(samples), np.int64)
    for part in blocks(len(rows), images[:1].size, _COMPARED):
        block = images[rows[part]].reshape(-1, images[:1].size).astype(np.float32)
        for i, sample in enumerate(samples):
            squares = np.square(block - sample.reshape(-1).astype(np.float32)).sum(axis=1)
            if squares.min() < least[i]:
                least[i], nearest[i] = squares.min(), rows[part][squares.argmin()]
    return images[nearest]


def _write_pictures(
    run: RunFolder,
    panels: Sequence[ClassPanel],
    data: LabelledImages,
    value_range: tuple[float, float],
    *,
    codec: str | None,
) -> None:
    """The pictures of samples and traversals, which no evaluation changes; none of features."""
    if data.are_features:
        return
    endings = (".gif", ".png") if are_clips(data.image_shape) else (".png",)

    def missing(*names: str) -> list[Path]:
        """Those that a process which was killed has not come to."""
        return [path for name in names if not (path := run.path / name).exists()]

    for path in missing(*(f"samples{ending}" for ending in endings)):
        write_samples(path, panels, value_range=value_range)
    traversals = missing(*(f"traversals{ending}" for ending in endings))
    latents, styles = missing("latents.png"), missing("styles.png")
    if not (traversals or latents or styles):
        return
    shown = [label for label in _by_interest(data) if data.counts[label]][:MAX_CLASSES]
    n_units = 2 if len(shown) > 4 else 6
    generator = Synthesizer.load(run.model, codec=codec)
    for path in traversals:
        write_traversal(path, generator, shown, n_units=n_units)
    for path in latents:
        write_latents(path, generator)
    if generator.model.style_dim:
        for path in styles:
            write_styles(path, generator, data, shown)


def _there(path: Path) -> Path | None:
    """A picture, where the run has it: runs of earlier versions lack some."""
    return path if path.exists() else None


def _by_interest(data: LabelledImages) -> list[int]:
    """Classes in their order; the rarest first where there are too many to show."""
    if data.n_classes > MAX_CLASSES:
        return [int(label) for label in np.argsort(data.counts, kind="stable")]
    return list(range(data.n_classes))


def _document(run: RunFolder, result: RunResult) -> dict[str, Any]:
    """report.json: all that is known of a run."""
    manifest, described = result.manifest, read_run(run.path)
    content = json.loads(manifest.to_bytes())
    origin = "default" if result.searched is None else "search"
    recipe = result.recipe.model_dump(mode="json")
    return {
        "title": Path(str(described["data"].get("source") or "dataset")).name,
        # The same job gives the same bytes wherever it lies.
        "out": "OUT",
        "gate": content["gate"] if manifest.evaluated else None,
        "recipe": recipe | {"name": str(result.recipe), "origin": origin},
        "classes": content["classes"],
        "plan": content["extra"].get("plan"),
        "samplers": content["extra"].get("samplers"),
        "nearness": content["extra"].get("nearness"),
        "generations": [str(generation) for generation in manifest.generations],
        # What the merge line of the report gives.
        "merged": [counts._asdict() for counts in counts_of_run(manifest)],
        "prediction": read_json(run.prediction, unsealed),
        **{name: result.measures.get(name) for name in MEASURES},
        "diagnostics": read_json(run.diagnostics, unsealed),
        "curves": logged_rows(run.path / "metrics.jsonl"),
        "provenance": {
            "seed": manifest.run_seed,
            "data": described["data"],
            "model_sha256": manifest.model_sha256,
            "config_sha256": manifest.config_sha256,
            # In the order of a manifest on disk: a report that is written again has the same bytes.
            "versions": dict(sorted(manifest.versions.items())),
            "config": result.config.to_json(),
            "layout": manifest.layout,
            "image_shape": list(manifest.image_shape),
            "dtype": manifest.dtype,
        },
    }


def logged_rows(path: Path) -> list[Mapping[str, Any]]:
    """The lines of JSON of a log.

    Args:
        path: ``metrics.jsonl`` of a run.

    Returns:
        Its lines; those that were cut off or damaged are left out, with a warning in the log.
    """
    lines = []
    for line in read_whole(path).splitlines() if path.exists() else ():
        try:
            lines.append(parse_strict(line))
        except JSONTextError as error:
            log.warning("%s: a line cannot be read (%s); left out of the report", path, error)
    return lines
