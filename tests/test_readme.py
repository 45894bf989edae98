"""The README's Python runs, block after block, as a reader would paste it."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import vaeaug
from vaeaug.cli import main

README = Path(__file__).parent.parent / "README.md"


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 3, "one for each use"
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        try:
            exec(compile(block, f"README.md, block {number + 1}", "exec"), names)
        except Exception as error:
            pytest.fail(f"README.md, block {number + 1}: {type(error).__name__}: {error}")
    assert (tmp_path / "runs" / "rare" / "samples.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "('0', '1', '2'" in printed
    # The first block prints the classes as they are merged, the third the share of the whole.
    rows = [line.split() for line in printed.splitlines() if len(line.split()) == 5]
    assert [int(row[-1]) for row in rows[:10]] == [143] * 10
    assert [int(row[1]) for row in rows[:10]] == [100, 80, 60, 50, 40, 35, 30, 25, 20, 15]
    assert float(printed.splitlines()[-1].split()[0]) == pytest.approx(0.3, abs=0.01)


QUICK = [
    *("--set", "training.steps=40", "--set", "model.width=8"),
    *("--set", "screening.classifier_steps=20", "--set", "screening.near_copy_factor=0"),
]


def test_the_lines_of_the_first_use_balance(tmp_path, monkeypatch):
    """Each command as it stands; the first one with less training. Counts as README prints them."""
    text = README.read_text(encoding="utf-8")
    use = text[text.index("### 1.") : text.index("### 2.")]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", use, re.M | re.S)
    block, shown = (next(text for kind, text in blocks if kind == each) for each in ("sh", ""))
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    commands = [line for line in lines if line]
    assert [each[:2] for each in commands] == [
        ["vaeaug", "augment"],
        ["vaeaug", "verify"],
        ["vaeaug", "merge"],
    ]
    # The job of `make demo`, and nothing of the repository is needed for it.
    assert "--config pipelines/demo.yaml" in (README.parent / "Makefile").read_text()
    settings = [value for option, value in pairwise(commands[0]) if option == "--set"]
    demo = vaeaug.load_config(README.parent / "pipelines" / "demo.yaml")
    assert vaeaug.load_config(None, settings) == demo
    monkeypatch.chdir(tmp_path)
    plan = CliRunner().invoke(main, [*commands[0][1:], *QUICK, "--dry-run", "--json"])
    planned = json.loads(plan.stdout)["classes"]
    outs = []
    for number, command in enumerate(commands):
        done = CliRunner().invoke(main, [*command[1:], *(QUICK if number == 0 else [])])
        assert done.exit_code == 0, done.output
        outs.append(done.stdout)
    printed = {tuple(line.split()) for line in outs[-1].splitlines()}
    for line in shown.splitlines():
        assert line == "..." or tuple(line.split()) in printed, line
    with h5py.File("merged.h5", "r") as file:
        labels, made = file["labels"][:], file["is_synthetic"][:]
    assert np.bincount(labels).tolist() == [200] * 10
    assert np.bincount(labels[made]).tolist() == [60] * 10
    assert [each["target_count"] for each in planned] == [200] * 10
    assert [each["n_synthetic"] for each in planned] == [60] * 10
    merged = json.loads(Path("runs/demo/report.json").read_text())["merged"]
    assert [each["together"] for each in merged] == [200] * 10
    assert [each["repeated"] for each in merged] == [each["repeated"] for each in planned]
    data = vaeaug.read("digits").imbalanced([each["real"] for each in planned], seed=0)
    assert [each._asdict() for each in vaeaug.merge(data, "runs/demo").counts] == merged
    exported = vaeaug.export_dataset("runs/demo", "merged.npz", real=data)
    assert [each._asdict() for each in exported.classes] == merged
    with np.load("merged.npz") as arrays:
        assert np.bincount(arrays["labels"]).tolist() == [200] * 10


def test_the_commands_of_the_readme_exist():
    verbs = set(re.findall(r"^vaeaug (\w+)", README.read_text(encoding="utf-8"), re.M))
    assert verbs >= {"augment", "verify", "merge"}
    assert verbs <= main.commands.keys()
