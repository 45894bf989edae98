"""Unlabelled pools and blends of classes through the whole job and the command line."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import vaeaug
from tests.small_job import TINY, as_options, digits, tiny_config
from vaeaug.cli import main
from vaeaug.shards import ShardDataset


@pytest.fixture(scope="module")
def pool():
    """Real digits of the same classes, their labels forgotten."""
    data = vaeaug.read("digits")
    return data.images[np.isin(data.labels, [0, 1, 2, 3])][200:320]


@pytest.mark.parametrize("mode", ["pseudo_label", "m2"])
def test_a_job_with_a_pool(mode, pool, tmp_path):
    data = digits().with_unlabelled(pool)
    config = tiny_config(
        **{
            "semi_supervised.mode": mode,
            "semi_supervised.classifier_steps": 60,
            "semi_supervised.threshold": 0.5,
        }
    )
    result = vaeaug.augment(data, tmp_path / "run", config, device="cpu")
    assert result.complete
    generator = vaeaug.load(tmp_path / "run")
    assert generator.n_real == len(data)
    assert len(generator.labels) == len(data) + len(pool)
    assert any("of 120 images were given a label" in note for note in generator.notes)
    # Sources may be pool images: rows from the number of labelled ones on.
    sources = ShardDataset(tmp_path / "run").source_index
    assert sources.max() < len(data) + len(pool)
    assert (sources >= len(data)).any()


def test_the_pool_comes_in_by_an_option(pool, tmp_path):
    np.savez(tmp_path / "labelled.npz", images=digits().images, labels=digits().labels)
    np.savez(tmp_path / "pool.npz", images=pool)
    command = ["augment", str(tmp_path / "labelled.npz"), "--out", str(tmp_path / "run")]
    options = as_options(**{"semi_supervised.classifier_steps": 4})
    result = CliRunner().invoke(
        main, [*command, "--pool", str(tmp_path / "pool.npz"), "--device", "cpu", *options]
    )
    assert result.exit_code == 0, result.output
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["data"]["unlabelled"] == len(pool)


def test_label_minus_one_is_the_same_pool(pool):
    data = digits()
    images = np.concatenate([data.images, pool])
    labels = np.concatenate([data.labels, np.full(len(pool), -1)])
    both = vaeaug.read((images, labels), class_names=data.class_names)
    assert both.fingerprint == data.with_unlabelled(pool).fingerprint


def test_another_pool_is_another_job(pool, tmp_path):
    config = tiny_config(**{"semi_supervised.classifier_steps": 4})
    vaeaug.augment(digits().with_unlabelled(pool), tmp_path / "run", config, device="cpu")
    with pytest.raises(vaeaug.ConfigError, match="changed: data:"):
        vaeaug.augment(digits().with_unlabelled(pool[:50]), tmp_path / "run", config, device="cpu")


def test_a_copy_of_a_pool_image_is_turned_away(pool):
    data = digits().with_unlabelled(pool)
    config = vaeaug.AugmentConfig().changed(
        **(TINY | {"screening.near_copy_factor": 0.5, "screening.classifier_steps": 4})
    )
    screener = vaeaug.Screener.for_job(data, config)
    found = vaeaug.screen(pool[:10], 0, screener)
    assert set(found.reason) <= {"near-copy"}
    assert (found.nn_index >= len(data)).all()


@pytest.mark.parametrize("kind", ["gmm", "flow"])
def test_blends_carry_soft_labels_into_training(kind, tmp_path):
    data = digits((24, 16, 12, 10))
    config = tiny_config(**{"recipe.sampler": "blend", "density.kind": kind, "density.steps": 10})
    result = vaeaug.augment(data, tmp_path / "run", config, device="cpu")
    shards = ShardDataset(result.out_dir)
    soft = shards.soft_labels_at(np.arange(len(shards)))
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(soft.argmax(axis=1), shards.labels)
    second = np.sort(soft, axis=1)[:, -2]
    assert second.max() <= 0.45 + 1e-6
    assert second.max() > 0.2
    assert vaeaug.verify(result.out_dir).ok
    merged = vaeaug.merge(data, result.out_dir, 0.5, soft=True)
    labels = np.stack([merged[i][1] for i in range(len(merged))])
    assert (labels[merged.is_synthetic].max(axis=1) < 1).any()
    assert (labels[~merged.is_synthetic].max(axis=1) == 1).all()


def test_what_is_drawn_and_why_is_told(tmp_path, caplog):
    caplog.set_level("INFO", logger="vaeaug")
    vaeaug.augment(digits(), tmp_path / "run", tiny_config(), device="cpu")
    document = json.loads((tmp_path / "run" / "diagnostics.json").read_text())
    reasons = {each["why"] for each in document["classes"].values()}
    assert any("its detail kept" in reason for reason in reasons)
    assert any("its detail kept" in record.message for record in caplog.records)
