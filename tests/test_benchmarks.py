"""Benchmarks that are run on other machines: small, so that they do not rot."""

import json
import sys

from benchmarks import gpu


def test_the_table_of_a_card(tmp_path, capsys, monkeypatch):
    out = tmp_path / "gpu.jsonl"
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--small", "--out", str(out)])
    gpu.main()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["what"].split(",")[0] for row in rows} >= {
        "launches",
        "training",
        "training of the restorer",
        "sampling",
        "screening",
    }
    assert all(row["value"] > 0 for row in rows)
    assert all(row["bare"] > 0 for row in rows if row["unit"] == "images/s")
    assert "cpu, torch" in capsys.readouterr().out
