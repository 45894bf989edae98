"""What a job will cost is told in advance, and telling it changes nothing."""

import json
import os

import pytest
import torch
from click.testing import CliRunner
from small_job import as_options, contents, digits, tiny_config

import vaeaug
from vaeaug.cli import main
from vaeaug.stages import time_draws, time_job, timing
from vaeaug.training import StageTime


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vaeaug" / "timing.json"


def test_every_stage_of_the_job_is_told_and_in_its_order(tmp_path):
    config = tiny_config(**{"restoration.steps": 5, "density.kind": "flow"})
    told = time_job(digits(), config, device="cpu")
    seen = []

    def progress(what, done, total, metrics):
        if not seen or seen[-1][0] != what:
            seen.append((what, total))

    vaeaug.augment(digits(), tmp_path / "run", config, device="cpu", progress=progress)
    trained = [
        (stage.name, stage.steps) for stage in told.stages if stage.name not in timing._LATER
    ]
    assert trained == seen[: len(trained)]
    assert ("flow", 12) in trained
    assert trained[-1] == ("restorer", 5)
    assert list(told.expected)[len(trained) :] == ["screening", "diagnosis", "drawing", "report"]
    assert all(seconds > 0 for seconds in told.expected.values())
    assert told.seconds == pytest.approx(sum(told.expected.values()))
    assert told.n_images == 55
    assert "CPU with 1 thread: 55 images" in str(told)


def test_it_changes_no_byte_and_no_random_state(tmp_path):
    config = tiny_config()
    vaeaug.augment(digits(), tmp_path / "before", config, device="cpu", progress=False)
    state = torch.get_rng_state()
    time_job(digits(), config, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    vaeaug.augment(digits(), tmp_path / "after", config, device="cpu", progress=False)
    assert contents(tmp_path / "before") == contents(tmp_path / "after")


def test_it_is_measured_once(cache, monkeypatch):
    data, config = digits(), tiny_config()
    first = time_job(data, config, device="cpu")
    assert len(json.loads(cache.read_text())) == 1

    def measured(*_, **__):
        raise AssertionError("it was measured before")

    with monkeypatch.context() as patch:
        patch.setattr(timing, "_timed", measured)
        assert time_job(data, config, device="cpu") == first
        # What is drawn and how often does not decide what a step costs.
        many = tiny_config(**{"plan.max_synthetic_ratio": 0.1})
        assert time_job(data, many, device="cpu").disk < first.disk
        with pytest.raises(AssertionError):
            time_job(data, tiny_config(**{"model.width": 16}), device="cpu")
    for damaged in (b"", b"[]", b"{", b"\xff"):
        cache.write_bytes(damaged)
        assert time_job(data, config, device="cpu").expected.keys() == first.expected.keys()


@pytest.mark.skipif(os.name != "posix", reason="a file where a folder should be")
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert time_job(digits(), tiny_config(), device="cpu").seconds > 0


def test_many_images_are_timed_on_some_of_every_class(monkeypatch):
    monkeypatch.setattr(timing, "MOST_IMAGES", 30)
    data = digits()
    some = timing._some(data)
    assert len(some) == 30
    assert (some.counts >= 2).all()
    told = time_job(data, tiny_config(), device="cpu")
    assert told.n_images == len(data)


def test_a_budget_bounds_a_stage():
    stage = StageTime("trunk", 1000, 0.5, 20, 1.0)
    assert stage.seconds == 520
    assert StageTime("trunk", 10**7, 0.5, budget=60.0).seconds == 60
    assert StageTime("trunk", 10**7, 0.5, budget=60.0).steps_taken == 120
    assert StageTime("trunk", 100, 0.5, budget=60.0).steps_taken == 100
    config = tiny_config(**{"training.steps": None, "training.budget_seconds": 3.0})
    told = time_job(digits(), config, device="cpu")
    trained = [seconds for name, seconds in told.expected.items() if name not in timing._LATER]
    assert sum(trained) == pytest.approx(3.0, rel=0.35)


def test_models_of_the_classes_are_timed_once_and_all_counted():
    told = time_job(digits(), tiny_config(**{"model.grouping": "separate"}), device="cpu")
    names = [name for name in told.expected if name.startswith("class-")]
    assert names == [f"class-{label:03d}" for label in range(4)]
    assert str(told).count("class ") == 1


def test_the_command_line_tells_it(monkeypatch, tmp_path):
    monkeypatch.setenv("VAEAUG_TIMING", "1")
    options = [*as_options(), "--set=data.class_counts=[24,16,10,8,0,0,0,0,0,0]"]
    plan = CliRunner().invoke(main, ["plan", "digits", *options, "--json"])
    assert plan.exit_code == 0, plan.output
    told = json.loads(plan.stdout)["time"]
    assert told["images"] == 58
    assert told["seconds"] == pytest.approx(
        sum(stage["seconds"] for stage in told["stages"]), abs=1
    )
    assert "a few of them are timed first" in plan.stderr
    text = CliRunner().invoke(main, ["plan", "digits", *options]).stdout
    assert "CPU with 1 thread: 58 images" in text.splitlines()[-1]
    without = CliRunner().invoke(main, ["plan", "digits", *options, "--no-timing", "--json"])
    assert "time" not in json.loads(without.stdout)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    words = ["train", "digits", "--out", str(tmp_path / "run"), *options]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0
    first = result.stderr.splitlines()[0]
    # At once, and then in full; the second time nothing is timed.
    assert first == "CPU with 1 thread: 58 images, 12 training steps; a few of them are timed first"
    full = result.stderr.splitlines()[1]
    assert full.startswith("CPU with 1 thread: 58 images, ")
    assert "drawing" not in full
    again = CliRunner().invoke(main, words)
    assert "timed first" not in again.stderr
    assert full.split(";")[0] in again.stderr


def test_draws_of_a_generator_are_told(synthesizer, small_config, request):
    data = request.getfixturevalue("digits")
    generator = synthesizer.with_choices()
    told = time_draws(generator, data, small_config, device="cpu")
    assert list(told.expected) == ["screening", "diagnosis", "drawing", "report"]
    assert all(seconds > 0 for seconds in told.expected.values())
    assert told.disk > 0
    other = data.subset(range(20))
    with pytest.raises(vaeaug.SamplingError, match="that the generator was trained on"):
        time_draws(generator, other, small_config, device="cpu")


def test_classes_that_are_drawn_side_by_side_take_less():
    stages = (StageTime("trunk", 5, 2.0), StageTime("drawing", 1, 8.0))
    told = timing.JobTime("CPU", 10, stages, memory=1, disk=1)
    assert told.drawn_by(4).expected == {"trunk": 10.0, "drawing": 2.0}
