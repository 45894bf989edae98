"""From images to a head: embed, augment, merge, evaluate, on features alone."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_job import as_options

import vaeaug
from vaeaug.cli import main
from vaeaug.config import EvaluationConfig
from vaeaug.shards import Shard

COUNTS = [24, 20, 12, 8, 8, 8, 8, 8, 8, 8]


def run_cli(*arguments, code=0):
    result = CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Three views of a few digits, by a backbone in a file, from the command line."""
    folder = tmp_path_factory.mktemp("embedded")
    backbone = folder / "backbone.py"
    backbone.write_text(
        "import torch\n"
        "def body():\n"
        "    torch.manual_seed(0)\n"
        "    conv = torch.nn.Conv2d(1, 5, 3, stride=2, padding=1)\n"
        "    return torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.Flatten())\n"
    )
    out = folder / "E.h5"
    said = run_cli(
        *("embed", "digits", "--backbone", f"{backbone}:body", "--out", out, "--views", 3),
        *(f"--set=data.class_counts={COUNTS}", "--json"),
    )
    document = json.loads(said.stdout)
    assert document["n"] == 3 * document["images"] == 3 * sum(COUNTS)
    assert document["features"] == 80
    return out


@pytest.fixture(scope="module")
def run(embedded, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "run"
    options = [option for option in as_options() if "model.width" not in option]
    run_cli("augment", embedded, "--out", out, *options, "--set=recipe.sampler=delta")
    return out


def test_the_run_is_whole_and_made_of_features(embedded, run):
    data = vaeaug.read(embedded)
    assert vaeaug.verify(run).ok
    manifest = vaeaug.Manifest.load(run)
    assert (manifest.image_shape, manifest.dtype) == ((1, 80), "float32")
    with Shard(run / manifest.shards[-1].path) as shard:
        assert (data.labels[shard.arrays["source_index"]] == shard.label).all()
        assert len(shard) > 0
    config = json.loads((run / "run.json").read_text())["config"]
    assert config["model"]["network"] == "mlp"


def test_a_job_for_features_needs_no_setting():
    config = vaeaug.AugmentConfig()
    suited = config.for_features()
    assert (suited.model.network, suited.model.max_width) == ("mlp", 256)
    assert suited.for_features() is suited
    stated = config.changed(**{"model.max_width": 32, "training.batch_size": 16}).for_features()
    assert (stated.model.network, stated.model.max_width) == ("mlp", 32)
    assert stated.training.batch_size == 16


def test_the_report_speaks_of_feature_vectors_and_shows_no_picture(run):
    page = (run / "report.html").read_text()
    assert "95 % of real feature vectors are" in page
    assert not list(run.glob("*.png"))
    assert "<img" not in page


def test_merged_features_are_vectors_for_a_head(embedded, run, tmp_path):
    data = vaeaug.read(embedded)
    merged = vaeaug.merge(data, run, balance="classes")
    x, _ = merged[0]
    assert x.shape == (80,)
    batch = next(iter(torch.utils.data.DataLoader(merged, batch_size=16, shuffle=True)))
    assert torch.nn.Linear(80, 10)(batch[0]).shape == (16, 10)
    real = merged.index[~merged.is_synthetic]
    rows = np.flatnonzero(~merged.is_synthetic)
    np.testing.assert_array_equal(
        torch.stack([merged[int(row)][0] for row in rows[:9]]), data.images[real[:9], 0]
    )
    # The same from a torch dataset of vectors.
    pairs = torch.utils.data.TensorDataset(
        torch.from_numpy(data.images[:, 0].copy()), torch.from_numpy(data.labels)
    )
    names = data.class_names
    other = vaeaug.merge(
        pairs, run, balance="classes", class_names=names, value_range=data.value_range
    )
    for row in (0, len(merged) // 2, len(merged) - 1):
        assert torch.equal(merged[row][0], other[row][0])
    # And from a file, which reads as features again.
    vaeaug.write_merged(data, run, tmp_path / "merged.h5")
    back = vaeaug.read(tmp_path / "merged.h5")
    assert back.are_features
    assert back.image_shape == (1, 80)


@pytest.mark.filterwarnings("ignore:.*not evaluated")
def test_the_gate_trains_heads_and_every_measure_is_taken(embedded, run):
    data = vaeaug.read(embedded)
    config = EvaluationConfig(
        budget=1, min_splits=2, max_splits=2, steps=10, judge_steps=10, workers=1
    )
    gate = vaeaug.evaluate(data, run, config)
    assert gate.settings["probe"] == "linear head on 80 features"
    assert {arm.name for arm in gate.arms} >= {"none", "tau-norm", "nearest mean"}
    document = json.loads((run / "report.json").read_text())
    document = document.get("content", document)
    assert document["fidelity"] is not None
    assert document["privacy"] is not None
    assert vaeaug.verify(run).ok


def test_an_error_names_a_backbone_that_is_none(tmp_path):
    out = tmp_path / "E.h5"
    failed = run_cli("embed", "digits", "--backbone", "resnet18", "--out", out, code=1)
    assert "expected torchvision:NAME:WEIGHTS" in failed.stderr
    assert not out.exists()


def test_features_are_encoded_and_reconstructed_but_not_drawn(embedded, run, tmp_path):
    said = run_cli("encode", run, embedded, "--to", tmp_path / "z.h5").stdout
    assert "reconstruction: PSNR" in said
    assert "SSIM" not in said
    back = json.loads(
        run_cli("reconstruct", run, embedded, "--to", tmp_path / "x.h5", "--json").stdout
    )
    assert back["ssim"] is None
    assert back["psnr"] > 0
    assert vaeaug.read(tmp_path / "x.h5").image_shape == (1, 80)
    failed = run_cli("traverse", run, "--to", tmp_path / "t.png", code=1)
    assert "expected a generator of images, got one of features" in failed.stderr
