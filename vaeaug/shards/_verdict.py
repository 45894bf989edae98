"""What a user of synthetic data is told of its evaluation."""

import logging
import os
import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaeaug.files import read_whole
from vaeaug.files.json_text import parse_strict
from vaeaug.shards._manifest import Manifest

_log = logging.getLogger("vaeaug")
_said: set[str] = set()


def warn_if_unhelpful(manifest: Manifest, *, stacklevel: int) -> None:
    """Warn where the evaluation found that the samples do not help.

    Args:
        manifest: Of the run whose samples are going to be used.
        stacklevel: Of the warning; 1 is the caller's own line, 2 that of who called it.

    Warns:
        UserWarning: If the evaluation found that they do not help. That nothing was evaluated is
            logged, once a run and process.
    """
    gate = manifest.gate
    where = str(manifest.folder)
    if isinstance(gate, str):
        if where not in _said:
            _said.add(where)
            _log.warning(
                "%s: not evaluated: whether this synthetic data helps is not known; `%s` measures "
                "it",
                where,
                how_to_evaluate(described_run(manifest)["data"].get("source"), where),
            )
    elif gate.get("verdict") == "does not help":
        warnings.warn(
            f"{where}: the evaluation found: {gate.get('sentence')} share=0 trains on real images "
            "alone.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def how_to_evaluate(source: object, out: str) -> str:
    """The command that evaluates a run; in Python where its data came from no path.

    Args:
        source: What ``run.json`` calls the data.
        out: The run folder.
    """
    # Path.exists raises for a text that is too long for a path.
    is_path = isinstance(source, str) and source != "" and os.path.exists(source)  # noqa: PTH110
    if source == "digits" or is_path:
        return shlex.join(["vaeaug", "evaluate", str(source), out])
    return f"vaeaug.evaluate(data, {out!r})"


def described_run(manifest: Manifest) -> Mapping[str, Mapping[str, Any]]:
    """The parts "config" and "data" of a run's ``run.json``; empty where it has none to read.

    Shards that were written by hand have none, and a damaged one is for `verify` to tell.
    """
    try:
        document = parse_strict(read_whole(Path(manifest.folder or ".") / "run.json"))
        parts = {name: document[name] for name in ("config", "data")}
    except (OSError, ValueError, KeyError, TypeError):
        parts = {}
    return {
        name: parts[name] if isinstance(parts.get(name), Mapping) else {}
        for name in ("config", "data")
    }
