"""The README's Python runs, block after block, as a reader would paste it."""

import re
from pathlib import Path

import pytest

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


def test_the_commands_of_the_readme_exist():
    from vaeaug.cli import main

    verbs = set(re.findall(r"^vaeaug (\w+)", README.read_text(encoding="utf-8"), re.M))
    assert verbs >= {"augment", "verify", "merge"}
    assert verbs <= main.commands.keys()
