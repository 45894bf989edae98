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
    shares = result.manifest.extra["nearness"]
    shards = vaeaug.ShardDataset(tmp_path / "out")
    borders = SampleSpace(data, config.seed).calibrate(0.05)[0]
    for label, name in enumerate(data.class_names):
        of_class = shards.labels == label
        share = float((shards.nn_distance[of_class] < borders[label]).mean())
        assert shares["classes"][name] == pytest.approx(share)
        if data.counts[label] >= NEAR_CLASS:
            assert share <= 0.25
    assert shares["sentence"].startswith(f"{100 * shares['share']:.0f} % of the samples are nearer")
    page = (tmp_path / "out" / "report.html").read_text()
    assert shares["sentence"].split(";")[0] in page
    assert shares["sentence"][:40] in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["nearness"] == shares
    # Without the bound the same edits are nearer.
    free = config.changed(**{"screening.max_near_share": 1.0})
    other = vaeaug.augment(data, tmp_path / "free", free, progress=False)
    assert other.manifest.extra["nearness"]["share"] >= shares["share"]


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
    shares = nearness([entry, few, none], {0: 3, 1: 17, 2: 0})
    assert shares["classes"] == {"many": 0.15, "[few]\n": 0.85}
    assert shares["share"] == 0.5
    assert shares["sentence"].startswith("50 % of the samples are nearer to a training image than")
    assert shares["sentence"].endswith("little room to move, more: '[few]\\n' 85 %.")


def test_views_of_one_image_do_not_make_the_limits(data):
    """The limits of images in six near-equal views are those of the images alone."""
    rng = np.random.default_rng(0)
    views = data.images[:, None].astype(np.float32).repeat(6, axis=1)
    views += rng.normal(0, 0.01, views.shape).astype(np.float32)
    many = vaeaug.LabelledImages(
        images=views.reshape(-1, *data.image_shape).clip(0, 255),
        labels=data.labels.repeat(6),
        class_names=data.class_names,
        value_range=(0, 255),
        groups=np.arange(len(data)).repeat(6),
    )
    alone, together, apart = (
        SampleSpace(each, 0).calibrate(0.05)[0] for each in (data, many, replace(many, groups=None))
    )
    np.testing.assert_allclose(together, alone, rtol=0.1)
    assert (apart < 0.01 * alone).all()
