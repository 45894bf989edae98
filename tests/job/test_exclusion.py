"""Samples are thrown out of a finished run, and come back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import vaeaug
from tests.small_job import contents, digits, tiny_config
from vaeaug.cli import main
from vaeaug.integrations._artefacts import hash_of_run
from vaeaug.shards import save_list


@pytest.fixture(scope="module")
def data() -> vaeaug.LabelledImages:
    return digits((24, 16, 10, 8))


@pytest.fixture(scope="module")
def small_run(
    data: vaeaug.LabelledImages, tmp_path_factory: pytest.TempPathFactory
) -> vaeaug.AugmentResult:
    out = tmp_path_factory.mktemp("small") / "run"
    return vaeaug.augment(data, out, tiny_config(), device="cpu", progress=False)


@pytest.fixture
def run(small_run: vaeaug.AugmentResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run.out_dir, tmp_path / "run"))


def test_thrown_out_samples_are_gone_everywhere_until_they_come_back(
    run: Path, data: vaeaug.LabelledImages, tmp_path: Path
) -> None:
    vaeaug.exclude(run, None, data)
    before = contents(run)
    whole = vaeaug.ShardDataset(run)
    shard = whole.manifest.shards[0]
    thrown_out = whole.images_at([0, 2])

    manifest = vaeaug.exclude(run, {shard.path: [0, 2]}, data)
    assert manifest.n_images == len(whole) - 2
    assert vaeaug.verify(run).ok, str(vaeaug.verify(run))
    assert hash_of_run(manifest) != hash_of_run(whole.manifest)
    merged = vaeaug.merge(data, run, share="all")
    synthetic = merged.synthetic.images_at(range(len(merged.synthetic)))
    assert len(merged) == len(data) + len(whole) - 2
    for image in thrown_out:
        assert not (synthetic == image).reshape(len(synthetic), -1).all(axis=1).any()
    vaeaug.export_dataset(run, tmp_path / "left.npz")
    with np.load(tmp_path / "left.npz") as left:
        assert len(left["images"]) == len(whole) - 2
    row = json.loads((run / "report.json").read_text())["classes"][shard.label]
    assert row["accepted"] == shard.n - 2
    assert (run / "samples.png").read_bytes() != before["samples.png"]
    assert vaeaug.augment(data, run, _config(run)).shortfalls[0].endswith("and 2 excluded")

    vaeaug.exclude(run, None, data)
    assert contents(run) == before


def test_the_command_excludes_a_list_and_undoes_it(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = vaeaug.Manifest.load(run)
    path = manifest.shards[-1].path
    save_list(run / "excluded.json", manifest, {path: [1]})

    done = CliRunner().invoke(main, ["exclude", str(run), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["n"], document["excluded"]) == (manifest.n_images - 1, 1)
    assert vaeaug.Manifest.load(run).excluded == {path: [1]}
    # Part of the digits alone: the built-in data is another split.
    assert "goes on without the real images of the run" in done.stderr
    assert "report.html and samples.png are still of the dataset before" in done.stderr
    assert vaeaug.verify(run).ok
    card = (run / "README.md").read_text()
    assert f"{manifest.n_images - 1}" in card or f"{manifest.n_images - 1:,}" in card

    done = CliRunner().invoke(main, ["exclude", str(run), "--none"])
    assert done.exit_code == 0, done.output
    assert vaeaug.Manifest.load(run).n_images == manifest.n_images
    both = CliRunner().invoke(main, ["exclude", str(run), str(run / "excluded.json"), "--none"])
    assert both.exit_code == 2
    assert "expected no LIST" in both.output


def test_other_data_and_a_run_that_is_not_finished_are_refused(run: Path) -> None:
    with pytest.raises(vaeaug.RunError, match="expected the training split"):
        vaeaug.exclude(run, {}, "digits")
    (run / "manifest.json").unlink()
    with pytest.raises(vaeaug.ShardError, match="the run has not finished"):
        vaeaug.exclude(run, {})


def _config(run: Path) -> vaeaug.AugmentConfig:
    return vaeaug.AugmentConfig.model_validate(json.loads((run / "run.json").read_text())["config"])
