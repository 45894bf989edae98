"""How far an unfinished run has come, what it lacks, and the command that goes on with it."""

import shlex
from pathlib import Path
from typing import Any

from vaeaug.config import AugmentConfig, ConfigError, as_overrides, make_config
from vaeaug.files import is_claimed, read_whole
from vaeaug.files.json_text import JSONTextError, parse_strict, unsealed
from vaeaug.job.folder import LOCK, processes_of, read_run, threads_of
from vaeaug.ranks import launcher


def state_of(out_dir: str | Path) -> dict[str, Any]:
    """Describe a run folder without a manifest. Nothing in it is changed.

    Args:
        out_dir: A folder with ``run.json``.

    Returns:
        Plain JSON types: ``state`` is "running" or "not finished"; ``stage`` and ``step`` are the
        last that the training logged; ``done`` and ``missing`` are the steps of the job in order;
        ``next`` is the command that resumes it.

    Raises:
        RunError: If the folder is no run.
    """
    path = Path(out_dir)
    run = read_run(path)
    running = is_claimed(path / LOCK)
    names = list(run["data"].get("class_names") or [])
    written = _classes_written(path)
    left = [name for name in names if name not in written]
    steps = {
        "training": (path / "model" / "config.json").exists(),
        "diagnostics": (path / "diagnostics.json").exists(),
        f"samples of {', '.join(left) or 'every class'}": not left,
        "report and manifest": False,
    }
    return {
        "run": str(path),
        "state": "running" if running else "not finished",
        **_last_logged(path / "metrics.jsonl"),
        "done": [step for step, is_done in steps.items() if is_done],
        "missing": [step for step, is_done in steps.items() if not is_done],
        "classes written": f"{len(written)} of {len(names)}",
        "next": "wait, or stop it" if running else _command(path, run),
        "data": run["data"],
        "versions": run["versions"],
        "threads": threads_of(run),
        "processes": processes_of(run),
    }


def _classes_written(path: Path) -> set[str]:
    """Names of the classes whose shards were recorded as whole."""
    try:
        document = unsealed(read_whole(path / "checkpoints" / "classes.json"))
        return {row["class"]["name"] for row in document["classes"]}
    except (OSError, JSONTextError, KeyError, TypeError):
        return set()


def _last_logged(path: Path) -> dict[str, Any]:
    """Stage and step of the last line of a log that is whole."""
    lines = read_whole(path).splitlines() if path.exists() else []
    for line in reversed(lines):
        try:
            content = parse_strict(line)
            return {"stage": content["stage"], "step": content["step"]}
        except (JSONTextError, KeyError, TypeError):
            continue
    return {}


def _command(path: Path, run: dict[str, Any]) -> str:
    """The command line that the run would have been started with."""
    source = str(run["data"].get("source") or "DATA")
    if "generator" in run["data"]:
        words = ["vaeaug", "generate", str(path / "model"), source]
    else:
        words = ["vaeaug", "augment", source]
    try:
        config = make_config(run["config"], where=f"{path}/run.json", warn=False)
    except ConfigError:
        config = AugmentConfig()
    for override in as_overrides(config):
        words += ["--set", override]
    return shlex.join([*launcher(processes_of(run)), *words, "--out", str(path)])
