"""Search and gate through the job and the command line, on a run of about a second."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_job import digits, tiny_config

import vaeaug
from vaeaug.cli import main
from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.evaluation import halves
from vaeaug.job import finished
from vaeaug.job import pipeline as job
from vaeaug.job.evaluation import GATE_PART
from vaeaug.shards import Manifest, ShardDataset, verify

QUICK = EvaluationConfig(
    steps=4, min_splits=2, max_splits=2, width=4, batch_size=16, judge_steps=10
)
COUNTS = (24, 18, 14, 12)
RECIPE_FIELDS = set(Recipe.model_fields)


@pytest.fixture(scope="module")
def data() -> vaeaug.LabelledImages:
    return digits(COUNTS)


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("made") / "run"
    vaeaug.augment(data, out, tiny_config(), device="cpu")
    return out


@pytest.fixture(scope="module")
def run(made, data, tmp_path_factory) -> Path:
    """A finished run, evaluated."""
    out = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(made, out)
    vaeaug.evaluate(data, out, QUICK, device="cpu")
    return out


def test_the_answer_is_in_the_manifest_the_report_and_the_card(run):
    manifest = Manifest.load(run)
    assert manifest.evaluated
    assert manifest.gate["verdict"] in ("helps", "does not help", "unsure")
    assert manifest.gate["n_splits"] == 2
    names = [arm["name"] for arm in manifest.gate["arms"]]
    assert names[:2] == ["none", "oversampling"]
    assert len([arm for arm in manifest.gate["arms"] if arm["kind"] == "merged"]) == 2
    assert verify(run).ok
    metrics = [metric for arm in manifest.gate["arms"] for metric in arm["metrics"].values()]
    assert all(0 <= metric["low"] <= metric["mean"] <= metric["high"] <= 1 for metric in metrics)
    described = CliRunner().invoke(main, ["inspect", str(run)]).stdout
    assert f"gate: {manifest.gate['sentence']}" in described
    sentence = manifest.gate["sentence"]
    assert sentence.split(":")[0] in (run / "report.html").read_text(encoding="utf-8")
    assert manifest.gate["verdict"] in (run / "README.md").read_text(encoding="utf-8")
    document = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert document["gate"]["sentence"] == sentence
    metric_names = {metric["name"] for metric in document["fidelity"]["figures"]}
    assert {"coverage", "kernel_distance", "real_or_synthetic_auc"} <= metric_names
    assert "median_distance" in {metric["name"] for metric in document["privacy"]["figures"]}
    assert document["shortcut"]["label_entropy"] > 0


def test_no_generator_of_a_split_saw_what_the_split_holds_out(run, data):
    """The splits' own records: each generator's data is the training part, to the byte."""
    from vaeaug.evaluation import make_splits

    splits = make_splits(data, 2, folds=4, seed=0)
    for split in splits:
        (folder,) = (run / "evaluation" / "gate").glob(f"split-{split.number:02d}-*")
        learnt = vaeaug.load(folder / "generator").data_fingerprint
        assert learnt == data.subset(split.train).fingerprint
        drawn = list(folder.glob("samples-*.npz"))
        assert drawn
        for path in drawn:
            samples = np.load(path)
            assert str(samples["data_fingerprint"]) == learnt
            assert 0 <= samples["source_index"].max() < len(split.train)


def test_evaluating_again_reads_and_other_data_is_refused(run, data, monkeypatch):
    before = (run / "manifest.json").read_bytes()

    def no_training(*_: object, **__: object) -> None:
        raise AssertionError("all of it was measured")

    monkeypatch.setattr("vaeaug.evaluation.gate.probe.train_probe", no_training)
    monkeypatch.setattr("vaeaug.stages.training.train", no_training)
    vaeaug.evaluate(data, run, QUICK, device="cpu")
    assert (run / "manifest.json").read_bytes() == before
    with pytest.raises(vaeaug.RunError, match="expected the training split that the run was made"):
        vaeaug.evaluate(digits((24, 18, 14, 11)), run, QUICK, device="cpu")


def test_the_evaluation_after_a_prediction_reuses_it_and_gives_the_verdict(
    made, run, data, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    shutil.copytree(made, out)
    prediction = vaeaug.predict_gain(data, out, QUICK, device="cpu").to_json()
    (before,) = (out / "evaluation" / "gate").glob("split-00*/generator/model.safetensors")
    at = before.stat().st_mtime_ns
    gate = vaeaug.evaluate(data, out, QUICK, device="cpu")
    manifest = Manifest.load(out)
    assert manifest.gate == Manifest.load(run).gate
    assert before.stat().st_mtime_ns == at
    assert manifest.evaluated
    assert manifest.gate["verdict"] == gate.verdict
    page = (out / "report.html").read_text(encoding="utf-8")
    assert gate.sentence.split(":")[0] in page
    assert prediction["sentence"] in page

    # After it a prediction trains nothing, and the verdict stays.
    def no_training(*_: object, **__: object) -> None:
        raise AssertionError("all of it was measured")

    monkeypatch.setattr("vaeaug.evaluation.gate.probe.train_probe", no_training)
    monkeypatch.setattr("vaeaug.stages.training.train", no_training)
    assert vaeaug.predict_gain(data, out, QUICK, device="cpu").to_json() == prediction
    assert Manifest.load(out).to_bytes() == manifest.to_bytes()


def test_the_report_is_written_again_the_same(run, data):
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert not verify(run).ok
    finished.report(data, run)
    assert (run / "report.html").read_bytes() == before
    assert verify(run).ok


def test_soft_labels_are_stored_and_merged_where_the_job_asks_for_them(data, tmp_path):
    config = tiny_config(**{"recipe.soft": True})
    result = vaeaug.augment(data, tmp_path / "soft", config, device="cpu")
    shards = ShardDataset(result.out_dir)
    own_probability = shards.soft_labels[np.arange(len(shards)), shards.labels]
    assert (own_probability >= 0.5).all()
    assert (own_probability < 1).any()
    assert np.allclose(shards.soft_labels.sum(axis=1), 1, atol=1e-5)
    assert verify(result.out_dir).ok
    merged = vaeaug.merge(data, result.out_dir)
    assert merged[0][1].shape == (4,)
    # The images are those of hard labels.
    hard = ShardDataset(vaeaug.augment(data, tmp_path / "hard", tiny_config()).out_dir)
    rows = np.arange(len(hard))
    assert np.array_equal(hard.images_at(rows), shards.images_at(rows))


def test_a_screener_takes_other_bounds_on_the_label_and_nothing_else(data):
    screener = vaeaug.Screener.for_job(data, tiny_config())
    strict = screener.with_label_threshold(0.999)
    images = 255 - data.images[data.labels == 0][:6]  # no copies
    assert "other class" in set(vaeaug.screen(images, 0, strict).reason)
    assert "other class" not in set(vaeaug.screen(images, 0, screener).reason)
    assert strict.config == screener.config
    assert strict.near_copy_distance is screener.near_copy_distance


def test_a_run_without_a_manifest_is_not_evaluated(data, tmp_path):
    job.train_only(data, tmp_path / "trained", tiny_config(), device="cpu")
    with pytest.raises(vaeaug.ShardError, match="no manifest"):
        vaeaug.evaluate(data, tmp_path / "trained", QUICK, device="cpu")


@pytest.fixture(scope="module")
def searched(data, tmp_path_factory) -> Path:
    """A run with a search, whose probes are too short to tell: what comes out is chance."""
    out = tmp_path_factory.mktemp("searched") / "run"
    vaeaug.augment(
        data,
        out,
        tiny_config(),
        evaluation=QUICK,
        search_first=True,
        evaluate_after=True,
        device="cpu",
    )
    return out


def test_the_search_chooses_and_the_gate_holds_out_what_it_never_saw(searched, data):
    manifest = Manifest.load(searched)
    recipe = dict(manifest.extra["recipe"])
    assert recipe.pop("origin") == "search"
    assert set(recipe) == RECIPE_FIELDS
    assert manifest.gate["recipe"] == recipe
    if recipe["share"]:
        assert manifest.extra["samplers"]
        merged = vaeaug.merge(data, replace(manifest, gate={"verdict": "unsure"}), balance=None)
        assert merged.recipe["share"] == recipe["share"]
    searched_rows, gates = halves(data, GATE_PART, seed=QUICK.seed)
    looked_at = data.subset(searched_rows)
    for folder in (searched / "evaluation" / "search").glob("split-*"):
        assert vaeaug.load(folder / "generator").data_fingerprint != data.fingerprint
    results = (searched / "evaluation" / "search" / "results.jsonl").read_text().splitlines()
    assert {json.loads(line)["key"]["data"] for line in results} == {looked_at.fingerprint}
    images = {image.tobytes() for image in looked_at.images}
    assert not images & {image.tobytes() for image in data.subset(gates).images}
    document = json.loads((searched / "report.json").read_text(encoding="utf-8"))
    assert len(document["search"]["rounds"]) == 3


def test_another_seed_of_the_gate_still_holds_out_only_what_the_search_never_saw(
    searched, data, monkeypatch
):
    looked_at = {
        image.tobytes() for image in data.subset(halves(data, GATE_PART, seed=0)[0]).images
    }
    held: list[set[bytes]] = []

    def watching(bench, recipe, **_):
        for split in bench.splits(4):
            held.append({image.tobytes() for image in data.images[split.held_out]})
        raise InterruptedError

    monkeypatch.setattr("vaeaug.job.evaluation.run_gate", watching)
    with pytest.raises(InterruptedError):
        vaeaug.evaluate(data, searched, QUICK.model_copy(update={"seed": 7}), device="cpu")
    assert len(held) == 4
    assert all(part and not part & looked_at for part in held)


def test_the_same_search_again_is_read_and_another_job_is_refused(searched, data):
    again = vaeaug.augment(
        data,
        searched,
        tiny_config(),
        evaluation=QUICK,
        search_first=True,
        evaluate_after=True,
        device="cpu",
    )
    assert again.resumed
    with pytest.raises(vaeaug.ConfigError, match="search: True -> False"):
        vaeaug.augment(data, searched, tiny_config(), device="cpu")


def test_processes_give_what_one_process_gives(made, run, tmp_path):
    """In a process of its own: workers start anew and must find all they need."""
    code = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
from small_job import digits
import vaeaug, torch
torch.set_num_threads(1)
from vaeaug.config import EvaluationConfig
if __name__ == "__main__":
    data = digits((24, 18, 14, 12))
    out = pathlib.Path(sys.argv[1])
    config = EvaluationConfig(
        steps=4, min_splits=2, max_splits=2, width=4, batch_size=16, judge_steps=10, workers=2
    )
    print(vaeaug.evaluate(data, out, config, device="cpu").verdict)
"""
    shutil.copytree(made, tmp_path / "run")
    path = tmp_path / "script.py"
    path.write_text(code)
    done = subprocess.run(
        [sys.executable, path, tmp_path / "run", Path(__file__).parent.parent],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, two = Manifest.load(run).gate, Manifest.load(tmp_path / "run").gate
    figures = [
        [arm["metrics"]["balanced_accuracy"]["mean"] for arm in result["arms"]]
        for result in (one, two)
    ]
    assert np.allclose(*figures)


@pytest.mark.parametrize(("verdict", "code"), [("does not help", 3), ("helps", 0), ("unsure", 0)])
def test_exit_codes_say_the_verdict(verdict, code, run, data, monkeypatch):
    content = Manifest.load(run).gate

    def measured(*_: object, **__: object) -> vaeaug.GateResult:
        return vaeaug.GateResult(
            verdict, content["sentence"], (), (), Recipe(), {}, ("a warning",), ("zero",)
        )

    monkeypatch.setattr("vaeaug.cli._job.data_of", lambda *_: data)
    monkeypatch.setattr("vaeaug.job.finished.evaluate", measured)
    result = CliRunner().invoke(main, ["evaluate", "digits", str(run)])
    assert result.exit_code == code, result.output
    assert content["sentence"] in result.stdout
    assert "a warning" in result.stdout
    as_json = CliRunner().invoke(main, ["evaluate", "digits", str(run), "--json"])
    assert json.loads(as_json.stdout)["verdict"] == verdict


def test_a_probe_of_ones_own_and_what_is_wrong_with_it(run, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def net(shape, k):\n    return 3\n")
    wrong = CliRunner().invoke(main, ["evaluate", "digits", str(run), "--probe", "net"])
    assert wrong.exit_code == 2
    assert "expected FILE.py:NAME, got 'net'" in wrong.stderr
