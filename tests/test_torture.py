"""Commands killed at random points: nothing published is lost, and they end with the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMANDS = ("augment", "augment --add", "generate", "merge", "export", "report")


def test_twenty_killed_commands_end_as_if_nobody_had_touched_them(tmp_path: Path) -> None:
    """Those that measure take minutes and are in `make torture`."""
    words = ["--trials", "20", "--seed", "1", "--out", str(tmp_path), "--commands", *COMMANDS]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.torture", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=900,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, [line for line in lines if line.get("failures")] or done.stderr
    summary = lines[-1]
    assert (summary["trials"], summary["failed"]) == (20, 0)
    assert summary["kills"] >= 20
    assert len(summary["by_phase"]) >= 5
    assert {line["command"] for line in lines if "trial" in line} == set(COMMANDS)
