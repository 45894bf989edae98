"""The files beside exported samples: class names, provenance and a dataset card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vaeaug.export._publish import PROVENANCE_FILE
from vaeaug.export._samples import Samples
from vaeaug.files.names import for_code, for_markdown

_TASKS = {"NHWC": "image-classification"}


def write_beside(
    samples: Samples,
    folder: Path,
    *,
    load: str,
    classes: Mapping[str, Any] | None = None,
    front: Mapping[str, Any] | None = None,
) -> None:
    """Write `classes.json`, `provenance.json` and `README.md`.

    Args:
        samples: The samples in the folder.
        folder: The folder.
        load: Python code that reads the folder without vaeaug, for the card.
        classes: Additional content of `classes.json`, besides the names in the order of the labels.
        front: Additional front matter of the card, as the Hugging Face Hub reads it.
    """
    _write_json(
        folder / "classes.json", {"class_names": list(samples.class_names), **(classes or {})}
    )
    _write_json(folder / PROVENANCE_FILE, samples.provenance)
    card = _card(samples, load, front or {})
    (folder / "README.md").write_text(card, encoding="utf-8")


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def _card(samples: Samples, load: str, front: Mapping[str, Any]) -> str:
    import yaml

    provenance = samples.provenance
    n, n_synthetic = len(samples), int(samples.is_synthetic.sum())
    metadata = {
        "pretty_name": "Synthetic samples" if n == n_synthetic else "Real and synthetic samples",
        "tags": ["synthetic", "vaeaug", "augmentation"],
        "task_categories": [_TASKS.get(str(provenance["layout"]), "other")],
        **front,
    }
    header = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    k = len(samples.class_names)
    real = np.bincount(samples.labels[~samples.is_synthetic], minlength=k)
    synthetic = np.bincount(samples.labels[samples.is_synthetic], minlength=k)
    rows = [
        f"| {label} | {for_markdown(name)} | {real[label]} | {synthetic[label]} |"
        for label, name in enumerate(samples.class_names)
    ]
    origin = [
        f"| {key} | {for_code(provenance[key])} |"
        for key in ("data_fingerprint", "model_sha256", "config_sha256", "run_seed")
    ]
    return "\n".join(
        [
            "---",
            "# license: choose one; it has to be compatible with that of the real data",
            f"{header}---",
            "",
            f"# {metadata['pretty_name']}",
            "",
            f"{n:,} samples of shape {'x'.join(map(str, samples.image_shape))} ({samples.dtype}), "
            f"of which {n_synthetic:,} are **synthetic**, made by vaeaug "
            f"{for_markdown(provenance['vaeaug_version'])} "
            "(`is_synthetic`). Synthetic samples are derived from real ones: treat them as such.",
            "",
            f"Whether they help a classifier: {for_markdown(provenance['evaluation'])}.",
            "",
            "| label | class | real | synthetic |",
            "|---|---|---|---|",
            *rows,
            "",
            "```python",
            load.strip(),
            "```",
            "",
            "`source_index` is the row of the real image (for a synthetic sample that which it was "
            "made from, -1 for a draw from a density), `weight` the weight in the loss.",
            "",
            "| from | |",
            "|---|---|",
            *origin,
            "",
        ]
    )
