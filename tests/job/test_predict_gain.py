"""A quick evaluation through the job and the command line, on a run of about a second."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_job import digits, tiny_config

import vaeaug
from vaeaug.cli import main
from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.evaluation import make_splits
from vaeaug.evaluation.gate.prediction import PredictedClass
from vaeaug.evaluation.statistics import Interval
from vaeaug.files.json_text import unsealed
from vaeaug.job import finished
from vaeaug.shards import Manifest, verify

CONFIG = EvaluationConfig(
    steps=4, min_splits=2, max_splits=2, width=4, batch_size=16, judge_steps=10, workers=1
)
COUNTS = (24, 18, 14, 12)


@pytest.fixture(scope="module")
def data() -> vaeaug.LabelledImages:
    return digits(COUNTS)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """A finished run with a prediction and without a verdict."""
    out = tmp_path_factory.mktemp("predicted") / "run"
    vaeaug.augment(data, out, tiny_config(), device="cpu")
    vaeaug.predict_gain(data, out, CONFIG, device="cpu")
    return out


def kept(run: Path) -> dict:
    return unsealed((run / "evaluation" / "prediction.json").read_bytes())


def test_a_prediction_is_kept_and_shown_and_the_run_stays_not_evaluated(run):
    manifest = Manifest.load(run)
    assert not manifest.evaluated
    assert manifest.gate == "not evaluated"
    assert verify(run).ok
    prediction = kept(run)
    assert prediction["sentence"].startswith("Prediction from one split, no verdict: ")
    assert prediction["n_splits"] == 1
    assert "verdict" not in prediction
    gain = prediction["gain"]
    assert -1 <= gain["low"] < gain["mean"] < gain["high"] <= 1
    merged = prediction["balanced_accuracy"]
    assert len(merged) == 3
    baseline, *_ = (value for name, value in merged.items() if name == prediction["baseline"])
    assert gain["mean"] == pytest.approx([*merged.values()][2] - baseline)
    assert [row["class"] for row in prediction["classes"] if row["rare"]] == ["three"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Not evaluated: there is no verdict, only a prediction." in page
    assert prediction["sentence"] in page
    assert prediction["limits"] in page
    document = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert document["gate"] is None
    assert document["prediction"] == prediction
    folders = [path for path in (run / "evaluation" / "gate").iterdir() if path.is_dir()]
    assert [path.name[:8] for path in folders] == ["split-00"]


def test_its_generator_saw_nothing_that_is_held_out(run, data):
    (split,) = make_splits(data, 1, folds=4, seed=0)
    (folder,) = (run / "evaluation" / "gate").glob("split-*")
    learnt = vaeaug.load(folder / "generator").data_fingerprint
    assert learnt == data.subset(split.train).fingerprint


def test_a_damaged_prediction_is_left_out_of_the_report(run, data, tmp_path, caplog):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    path = out / "evaluation" / "prediction.json"
    path.write_text(path.read_text().replace("no verdict", "a verdict", 1))
    finished.report(data, out)
    assert "prediction.json: cannot be read" in caplog.text
    assert "Prediction from one split" not in (out / "report.html").read_text(encoding="utf-8")


def test_another_recipe_may_be_predicted(run, data, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    none = vaeaug.predict_gain(data, out, CONFIG, recipe=Recipe(share=0), device="cpu")
    assert none.gain is None
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Nothing to predict" in page
    assert kept(out)["gain"] is None


def test_the_command_prints_it_and_never_exits_with_a_verdict(run, data, monkeypatch):
    monkeypatch.setattr("vaeaug.cli._job.data_of", lambda *_: data)
    options = ["evaluate", "digits", str(run), "--quick"]

    def harmful(*_: object, **__: object) -> vaeaug.Prediction:
        classes = (PredictedClass("zero", False, 0, None, None),)
        return vaeaug.Prediction(
            "It harms.",
            Recipe(),
            Interval(-0.3, -0.4, -0.2),
            classes=classes,
            warnings=("look",),
        )

    called = [*options, "--steps", "4", "--workers", "1", "--device", "cpu"]
    done = CliRunner().invoke(main, called)
    assert done.exit_code == 0, done.output
    assert "Prediction from one split, no verdict" in done.stdout
    assert "rare class" in done.stdout
    assert "recall without" in done.stdout
    assert f"For a verdict: `vaeaug evaluate digits {run}`." in done.stdout
    as_json = CliRunner().invoke(main, [*called, "--json"])
    assert json.loads(as_json.stdout)["sentence"] == kept(run)["sentence"]
    monkeypatch.setattr("vaeaug.job.finished.predict_gain", harmful)
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    assert "look" in done.stdout


@pytest.mark.parametrize(
    ("option", "value"), [("--splits", "3"), ("--budget", "60"), ("--min-effect", "0.01")]
)
def test_options_of_the_verdict_are_refused(run, option, value):
    done = CliRunner().invoke(main, ["evaluate", "digits", str(run), "--quick", option, value])
    assert done.exit_code == 2
    assert "--quick: expected none of the options of a verdict" in done.stderr
    assert f"got {option}" in done.stderr


def test_other_data_and_unfinished_runs_are_refused(run, tmp_path):
    with pytest.raises(vaeaug.RunError, match="expected the training split that the run was made"):
        vaeaug.predict_gain(digits((24, 18, 14, 11)), run, CONFIG, device="cpu")
    with pytest.raises(vaeaug.RunError, match=r"run\.json is missing"):
        vaeaug.predict_gain(digits(COUNTS), tmp_path, CONFIG, device="cpu")
