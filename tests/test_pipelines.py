"""The recipes run, on a small size."""

import runpy
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parent.parent / "pipelines" / "balance_rare_classes.py"
FASHION = Path("/usr/share/datasets/fashion-mnist")
SMALL = [
    *("--set", "model.width=8", "--set", "training.steps=10", "--set", "training.adapt_steps=4"),
    *("--set", "screening.classifier_steps=4", "--set", "plan.target_ratio=0.5", "--steps", "4"),
]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *map(str, arguments)])
    runpy.run_path(str(RECIPE), run_name="__main__")


@pytest.mark.fashion_mnist
def test_balance_rare_classes_on_fashion_mnist(monkeypatch, capsys, tmp_path):
    if not FASHION.exists():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    counts = [60, 40, 30, 30, 20, 20, 16, 12, 10, 8]
    run(monkeypatch, "--out", tmp_path / "run", *SMALL, "--counts", *counts)
    printed = capsys.readouterr().out
    assert "real: balanced accuracy" in printed
    assert "merged: balanced accuracy" in printed
    assert "Merged training was" in printed


def test_balance_rare_classes_on_digits(monkeypatch, capsys, tmp_path):
    counts = [24, 20, 16, 14, 12, 12, 10, 10, 9, 8]
    run(monkeypatch, "--out", tmp_path / "run", *SMALL, "--data", "digits", "--counts", *counts)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(int(line.split()[1]) for line in lines[:10]) == sorted(counts)
    assert [line.split(":")[0].strip() for line in lines[10:12]] == ["real", "merged"]
    assert lines[12].startswith("Merged training was ")
