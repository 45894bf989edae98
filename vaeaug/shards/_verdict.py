"""Messages about the evaluation of a run to the users of its synthetic data."""

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
_logged: set[str] = set()


def warn_if_unhelpful(manifest: Manifest, *, stacklevel: int) -> None:
    """Warn if the evaluation found that the samples do not help.

    Args:
        manifest: Manifest of the run whose samples are going to be used.
        stacklevel: Stack level of the warning; 1 is the line of the caller, 2 that of its caller.

    Warns:
        UserWarning: If the evaluation found that they do not help. If the run was not evaluated,
            this is logged once per run and process.
    """
    gate = manifest.gate
    where = str(manifest.folder)
    if isinstance(gate, str):
        if where not in _logged:
            _logged.add(where)
            _log.warning(
                "%s: not evaluated: it is not known whether this synthetic data helps; `%s` "
                "measures it",
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
    """Return the command that evaluates a run, in Python if its data came from no path.

    Args:
        source: The name of the data in ``run.json``.
        out: The run folder.

    Returns:
        A shell command or a Python expression.
    """
    # Path.exists raises for a string that is too long for a path.
    is_path = isinstance(source, str) and source != "" and os.path.exists(source)  # noqa: PTH110
    if source == "digits" or is_path:
        return shlex.join(["vaeaug", "evaluate", str(source), out])
    return f"vaeaug.evaluate(data, {out!r})"


def described_run(manifest: Manifest) -> Mapping[str, Mapping[str, Any]]:
    """Read the parts "config" and "data" of the ``run.json`` of a run.

    Hand-written shards have no ``run.json``, and `verify` reports a damaged one.

    Args:
        manifest: Manifest of the run.

    Returns:
        The parts by name; empty if there is no readable ``run.json``.
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
