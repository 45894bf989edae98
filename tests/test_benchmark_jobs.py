"""The timing of default jobs, on one that takes seconds."""

import json
import sys

import pytest
from small_job import TINY, digits

from benchmarks import jobs


def test_a_default_job_is_timed_by_stage(tmp_path, monkeypatch):
    out = tmp_path / "jobs.jsonl"
    quick = [f"{key}={value}" for key, value in {**TINY, "restoration.steps": 2}.items()]
    monkeypatch.setitem(jobs.JOBS, "digits", (digits, 20))
    words = ["--only", "digits", "--out", str(out), "--set", *quick]
    monkeypatch.setattr(sys, "argv", ["jobs", *words])
    jobs.main()
    (line,) = [json.loads(text) for text in out.read_text().splitlines()]
    stages = ["classifier", "trunk", "adapt", "restorer", "screening", "diagnosis", "drawing"]
    assert list(line["stages"]) == [*stages, "report"]
    assert sum(line["stages"].values()) == pytest.approx(line["cpu_seconds"], abs=0.5)
    assert line["accepted"] > 0
