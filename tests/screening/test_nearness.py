"""How near samples lie to training images: measured in every run, bounded, and said up front."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small_job import digits, tiny_config

import vaeaug
from vaeaug.job.result import nearness
from vaeaug.screening import NEAR_CLASS, SampleSpace, Screener
from vaeaug.shards import ClassEntry


@pytest.fixture(scope="module")
def data():
    return digits((120, 60, 30))


@pytest.fixture(scope="module")
def screener(data):
    return Screener.for_job(data, tiny_config())


def test_by_definition_one_real_image_in_twenty_is_near(data, screener):
    space = SampleSpace(data, 0)
    distances, _ = space.nearest(data.images, space.projected, other=True)
    for label, n in enumerate(data.counts):
        near = screener.is_near(label, distances[data.labels == label])
        assert abs(near.mean() - 0.05) < 1.001 / n


def mixed(data, label, n, seed=0):
    """Real images of a class under noise: every other one so little that it is near."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(np.flatnonzero(data.labels == label), n)
    noise = (
        rng.normal(size=(n, *data.image_shape))
        * np.where(np.arange(n) % 2, 60, 4)[:, None, None, None]
    )
    return np.clip(data.images[rows] + noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("sizes", [[96], [1] * 96, [5, 40, 51]])
def test_the_share_of_near_samples_is_bounded_however_they_are_batched(data, screener, sizes):
    images = mixed(data, 0, 96)
    free = screener.new_class(0).screen(images)
    assert free.accepted.all()
    assert 0.4 < free.near.mean() < 0.6
    bounded = screener.new_class(0, bounded=True)
    parts = np.split(images, np.cumsum(sizes)[:-1])
    reasons = np.concatenate([bounded.screen(part).reason for part in parts])
    accepted = reasons == ""
    assert set(reasons) == {"", "too near"}
    assert accepted[~free.near].all()
    assert free.near[accepted].mean() <= 0.25
    # As many near ones as the bound allows: one for every three others that came before it.
    assert free.near[accepted].sum() >= np.floor((~free.near).sum() / 3) - 1
    whole = screener.new_class(0, bounded=True).screen(images)
    assert np.array_equal(whole.reason, reasons)


def test_small_classes_have_no_bound(data, screener):
    assert data.counts[2] < NEAR_CLASS
    images = mixed(data, 2, 40)
    assert screener.new_class(2, bounded=True).screen(images).accepted.all()


def test_a_run_says_it_and_keeps_the_bound(data, tmp_path):
    """By default, in classes of 50 images or more."""
    config = tiny_config(**{"training.steps": 150, "model.latent_dim": 16})
    result = vaeaug.augment(data, tmp_path / "out", config, progress=False)
    found = result.manifest.extra["nearness"]
    shards = vaeaug.ShardDataset(tmp_path / "out")
    borders = SampleSpace(data, config.seed).calibrate(0.05)[0]
    for label, name in enumerate(data.class_names):
        own = shards.labels == label
        share = float((shards.nn_distance[own] < borders[label]).mean())
        assert found["classes"][name] == pytest.approx(share)
        if data.counts[label] >= NEAR_CLASS:
            assert share <= 0.25
    assert found["sentence"].startswith(f"{100 * found['share']:.0f} % of the samples are nearer")
    page = (tmp_path / "out" / "report.html").read_text()
    assert found["sentence"].split(";")[0] in page
    assert found["sentence"][:40] in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["nearness"] == found
    # Without the bound the same edits are nearer.
    free = config.changed(**{"screening.max_near_share": 1.0})
    other = vaeaug.augment(data, tmp_path / "free", free, progress=False)
    assert other.manifest.extra["nearness"]["share"] >= found["share"]


def test_the_sentence_names_small_classes_whose_samples_are_nearer():
    entry = ClassEntry(
        label=0,
        name="many",
        real=80,
        target_count=100,
        n_synthetic=20,
        accepted=20,
        rejected={},
        candidates=20,
    )
    few = replace(entry, label=1, name="[few]\n", real=9)
    none = replace(entry, label=2, name="none", accepted=0)
    found = nearness([entry, few, none], {0: 3, 1: 17, 2: 0})
    assert found["classes"] == {"many": 0.15, "[few]\n": 0.85}
    assert found["share"] == 0.5
    assert found["sentence"].startswith("50 % of the samples are nearer to a training image than")
    assert found["sentence"].endswith("little room to move, more: '[few]\\n' 85 %.")
