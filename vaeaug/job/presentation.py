"""What a notebook shows of a run."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeaug.merging import counts_of_run
from vaeaug.notebook import COLUMNS, MAX_ROWS, Bar, Card, Picture, Table, counted, strip
from vaeaug.shards import Manifest, Shard, ShardError, kept_rows

if TYPE_CHECKING:
    from vaeaug.job.result import AugmentResult


def result_card(result: "AugmentResult") -> Card:
    """Describe a run: verdict, shortfalls, and the first samples of each class.

    Args:
        result: The run.

    Returns:
        What is shown; where shards cannot be read, it says so.
    """
    manifest = result.manifest
    merged = counts_of_run(manifest)
    largest = max(counts.together for counts in merged) or 1
    samplers = manifest.extra.get("samplers") or {}
    rows = []
    for number, (entry, counts) in enumerate(zip(manifest.classes, merged, strict=True)):
        parts = (counts.real, counts.repeated, counts.synthetic)
        title = "merged: {} real, {} repeated, {} synthetic".format(*parts)
        bar = Bar(tuple(part / largest for part in parts), title)
        picture = (
            _picture(result.out_dir, manifest, entry.label, entry.name)
            if number < MAX_ROWS
            else None
        )
        sampler = str(samplers.get(entry.name) or "")
        rows.append((entry.name, entry.real, entry.accepted, bar, sampler, picture))
    n = sum(entry.accepted for entry in manifest.classes)
    gate = manifest.gate
    verdict = gate if isinstance(gate, str) else str(gate.get("sentence", ""))
    lines = [f"Whether they help: {verdict}" if isinstance(gate, str) else verdict]
    lines += result.shortfalls
    nearness = manifest.extra.get("nearness") or {}
    notes = [str(nearness["sentence"])] if nearness.get("sentence") else []
    notes.append(f"The report: {result.out_dir / 'report.html'}")
    headers = ("class", "real", "synthetic", "", "sampler", "")
    table = Table(headers, rows, ("real", "repeated", "synthetic"))
    title = f"{counted(n, 'synthetic samples')} in {result.out_dir}"
    if not result.complete:
        title += ", fewer than planned"
    return Card(title, lines, [table], notes=notes)


def _picture(folder: Path, manifest: Manifest, label: int, name: str) -> Picture | str | None:
    first = next((shard for shard in manifest.shards if shard.label == label), None)
    if first is None:
        return None
    try:
        with Shard(folder / first.path) as shard:
            kept = kept_rows(manifest, first.path, len(shard))
            shown = (np.arange(len(shard)) if kept is None else kept)[:COLUMNS]
            images = shard.images_at(shown)
    except (ShardError, OSError) as error:
        return f"cannot be read: {error}"
    return strip(images, manifest.value_range, alt=f"Synthetic {name}")
