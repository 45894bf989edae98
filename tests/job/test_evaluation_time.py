"""What an evaluation, a prediction and a search will cost is told in advance, and counted right."""

import json

import pytest
from click.testing import CliRunner
from small_job import as_options, digits, tiny_config

import vaeaug
from vaeaug.cli import main
from vaeaug.config import EvaluationConfig
from vaeaug.job.evaluation import RunEvaluation
from vaeaug.job.timing import EvaluationTime, time_evaluation

COUNTS = (24, 18, 14, 12)
CONFIG = EvaluationConfig(
    steps=6, min_splits=2, max_splits=2, width=4, batch_size=16, judge_steps=4, workers=1
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def trained(path, kind):
    """Trainings that an evaluation remembers: generators, or classifiers by their length."""
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    keys = [key for key in keys if key.get("what") == kind]
    if kind == "generator":
        return len(
            {key["split"] if isinstance(key["split"], str) else str(key["split"]) for key in keys}
        )
    return sum(key["steps"] / CONFIG.steps * key["arm"].get("length", 1.0) for key in keys)


def test_splits_and_trainings_are_those_that_are_done(tmp_path):
    data, job = digits(COUNTS), tiny_config(**{"recipe.sampler": "gmm"})
    told = time_evaluation(data, job, CONFIG, device="cpu")
    measured_by = RunEvaluation(tmp_path, data, job, CONFIG)
    measured_by.gate(job.recipe, searched=None)
    results = tmp_path / "gate" / "results.jsonl"
    assert trained(results, "generator") == told.splits == 2
    assert trained(results, "probe") == pytest.approx(told.trainings, rel=0.15)
    quick = time_evaluation(data, job, CONFIG, quick=True, device="cpu")
    assert (quick.splits, quick.trainings) == (1, 3)
    assert str(quick).startswith("prediction: about ")


def test_a_search_is_counted(tmp_path):
    data, job = digits((30, 24, 20, 20)), tiny_config(**{"recipe.sampler": "gmm"})
    measured_by = RunEvaluation(tmp_path, data, job, CONFIG)
    told = time_evaluation(data, job, CONFIG, search=True, device="cpu")
    measured_by.search()
    results = tmp_path / "search" / "results.jsonl"
    assert trained(results, "generator") == told.splits == 4
    assert trained(results, "probe") == pytest.approx(told.trainings, rel=0.15)


def test_seconds():
    told = EvaluationTime("evaluation", 4, 10.0, 20.0, 2.0, 2, "; more")
    assert told.seconds == 40
    assert str(told) == (
        "evaluation: about 40 s in 2 processes: 4 splits, each with a generator (10 s), and 20 "
        "trainings of classifiers (2 s each); more"
    )
    assert EvaluationTime("prediction", 1, 90.0, 3.0, 1.0, 8).seconds == 90


def test_a_budget_decides_how_many_splits(monkeypatch):
    data, job = digits(COUNTS), tiny_config()
    told = [
        time_evaluation(
            data,
            job,
            CONFIG.model_copy(update={"max_splits": 9, "budget": budget}),
            device="cpu",
        )
        for budget in (1e-3, 1e9)
    ]
    assert [each.splits for each in told] == [2, 9]
    assert "at least 2 splits, at most 9" in str(told[0])


def test_the_command_line_tells_it(monkeypatch, tmp_path):
    monkeypatch.setenv("VAEAUG_TIMING", "1")
    out, run = tmp_path / "more", tmp_path / "run"
    options = [*as_options(), "--set=data.class_counts=[24,18,14,12,0,0,0,0,0,0]"]
    vaeaug.augment("digits", run, vaeaug.load_config(None, [o[6:] for o in options]), device="cpu")
    made = CliRunner().invoke(main, ["generate", str(run), "digits", "--out", str(out), *options])
    assert made.exit_code in (0, 4), made.output
    first = made.stderr.splitlines()[0]
    assert first.startswith("CPU with 1 thread: 68 images, ")
    assert "drawing" in first
    assert "training steps" not in first
    words = ["evaluate", "digits", str(run), "--quick", "--steps", "4", "--workers", "1"]
    quick = CliRunner().invoke(main, words)
    assert quick.exit_code == 0, quick.output
    assert quick.stderr.startswith("prediction: about ")
    without = CliRunner().invoke(main, [*words, "--no-timing"])
    assert "prediction: about" not in without.stderr
