"""Benchmarks that are run on other machines: small, so that they do not rot."""

import json
import math
import sys

import pytest

from benchmarks import gpu, neighbours, time_to_quality


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


def test_time_to_quality(tmp_path, capsys, monkeypatch):
    results, picture = tmp_path / "r.jsonl", tmp_path / "p.png"
    words = ["--data", "digits", "--only", "ours", "default", "--budgets", "0.2", "0.4"]
    words += ["--held", "60", "--out", str(tmp_path), "--results", str(results)]
    words += ["--picture", str(picture), "--set", "model.width=8", "training.steps=4"]
    words += ["training.adapt_steps=2", "training.eval_every=2"]
    monkeypatch.setattr(sys, "argv", ["time_to_quality", *words])
    time_to_quality.main()
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["budget"] for line in lines] == [0.2, 0.4, 0.0]
    assert len(lines[-1]["curve"]) >= 2
    assert picture.exists()
    # What is there is not run again.
    time_to_quality.main()
    assert len(results.read_text().splitlines()) == 3
    assert "the default job reaches its final value less 1 %" in capsys.readouterr().out


def test_seconds_until_a_value_is_reached():
    points = [(10.0, 200.0), (40.0, 400.0), (160.0, 500.0)]
    assert time_to_quality.seconds_until(points, 300.0) == pytest.approx(20.0)
    assert time_to_quality.seconds_until(points, 450.0) == pytest.approx(80.0)
    assert time_to_quality.seconds_until(points, 150.0) == 10.0
    assert math.isnan(time_to_quality.seconds_until(points, 501.0))


def test_the_search_for_neighbours_beside_faiss(tmp_path, monkeypatch):
    out = tmp_path / "neighbours.jsonl"
    command = ["neighbours", "--data", "digits", "--copies", "8", "--queries", "60"]
    command += ["--searches", "ours", "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr("vaeaug.screening.nearest_points.MOST", 2000)  # so that there are cells
    neighbours.main()
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["points"] > 8000
    assert row["missed"] == 0
    assert row["nearest_of_test_images_found"] > 0.9
