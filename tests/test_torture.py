"""Commands killed at random points: nothing published is lost, and they end with the same bytes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Commands are forked from a process that has imported what they import late.
FORKING = """
import h5py, jinja2.environment, jinja2.loaders, matplotlib.backends.backend_agg, matplotlib.legend
import matplotlib.figure, safetensors.torch
from PIL import Image
from benchmarks.torture import main

Image.preinit()
main()
"""
COMMANDS = ("augment", "augment --add", "generate", "merge", "export", "report")


def can_mount(folder: Path) -> bool:
    """Whether a disk in memory may be mounted here, which root alone may."""
    place = folder / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        return False
    subprocess.run(["umount", place], check=True)
    return True


def test_twenty_killed_commands_end_as_if_nobody_had_touched_them(tmp_path: Path) -> None:
    """Those that measure take minutes and are in `make torture`, as are more full disks."""
    disks = 2 if can_mount(tmp_path) else 0
    trials = ["--trials", "20", "--full-disks", str(disks), "--seed", "1"]
    words = [*trials, "--out", str(tmp_path / "torture"), "--commands", *COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", FORKING, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=3600,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, [line for line in lines if line.get("failures")] or done.stderr
    summary = lines[-1]
    assert (summary["trials"], summary["failed"]) == (20, 0)
    assert summary["kills"] >= 20
    assert len(summary["by_phase"]) >= 5
    assert {line["command"] for line in lines if "trial" in line} == set(COMMANDS)
    assert sum("disk" in line for line in lines) == disks
