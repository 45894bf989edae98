"""The commands that show the promises, small: they run, and end no worse than doing nothing."""

import json

from benchmarks.promises import denoising


def test_denoising(tmp_path, capsys):
    out = tmp_path / "denoising.jsonl"
    command = ["--data", "digits", "--steps", "60", "--generator-steps", "20", "--images", "24"]
    command += ["--opponents", "tv", "--runs", str(tmp_path / "runs"), "--out", str(out)]
    assert denoising.main(command) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["method"] for row in rows} >= {
        "input",
        "ours",
        "tv",
        "biharmonic",
        "reconstruction",
    }
    assert all(row["ours_ahead"] >= 0 for row in rows if row["method"] == "input")
    before = out.read_bytes()
    assert denoising.main(command) == 0  # what is there is not run again
    assert out.read_bytes() == before
    assert "| digits | gaussian 0.3 |" in capsys.readouterr().out
