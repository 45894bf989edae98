"""Copies are found and real images are not taken for them; attacks against known answers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typechecked import unchecked

import vaeaug
from vaeaug import LabelledImages
from vaeaug.evaluation import measure_privacy, shared_images
from vaeaug.evaluation.privacy.copies import COPY_DISTANCE, CopySearch
from vaeaug.evaluation.privacy.nearest import Space, nearest

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def train():
    """Half of the training images; the other half stands for perfect synthetic ones."""
    return vaeaug.read("digits", split="train").split_off(0.5, seed=0)[0]


@pytest.fixture(scope="module")
def fresh():
    return vaeaug.read("digits", split="train").split_off(0.5, seed=0)[1]


@pytest.fixture(scope="module")
def held_out():
    return vaeaug.read("digits", split="test")


@pytest.fixture(scope="module")
def clean(train, fresh, held_out):
    return measure_privacy(train, held_out, fresh.images, synthetic_labels=fresh.labels)


def by_name(privacy):
    return {metric.name: metric for metric in privacy.metrics}


# -- Nearest images --------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [(12,), (6, 5), (3, 4, 5)])
def test_nearest_is_what_counting_all_distances_gives(space):
    rng = np.random.default_rng(0)
    low, high = -1.0, 3.0
    queries, first, second = (
        rng.uniform(low, high, (n, *space, 2)).astype(np.float32) for n in (30, 50, 20)
    )
    queries[4] = second[7]
    both = np.concatenate([first, second])
    gaps = (queries[:, None].astype(float) - both[None]).reshape(30, 70, -1)
    every = np.sqrt((gaps**2).mean(axis=2)) / (high - low)
    distances, rows = nearest(queries, [first, second], Space((low, high), CPU))
    assert (rows == every.argmin(axis=1)).all()
    np.testing.assert_allclose(distances, every.min(axis=1), rtol=1e-6, atol=1e-12)
    assert distances[4] == 0
    # Of an image of the parts, the nearest other one.
    query_rows = np.array([3, 69, 50])
    gaps = (both[query_rows][:, None].astype(float) - both[None]).reshape(3, 70, -1)
    every = np.sqrt((gaps**2).mean(axis=2)) / (high - low)
    every[np.arange(3), query_rows] = np.inf
    distances, rows = nearest(
        both[query_rows], [first, second], Space((low, high), CPU), query_rows=query_rows
    )
    assert (rows == every.argmin(axis=1)).all()
    alone, _ = nearest(both[:1], [both[:1]], Space((low, high), CPU), query_rows=np.array([0]))
    assert np.isinf(alone).all()


def test_large_images_are_searched_by_components_without_missing_any():
    # A low-rank background, so that components say little of single pixels, and many images that
    # are alike in all components kept.
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.uniform(0.3, 0.7, (400, 4, 4, 1)), 6, axis=1), 6, axis=2)
    images = np.clip(smooth + rng.normal(0, 0.08, smooth.shape), 0, 1).astype(np.float32)
    search = CopySearch([images], value_range=(0, 1), seed=0, device=CPU)
    assert search._projected is not None
    planted = rng.permutation(400)[:60]
    copies = np.clip(images[planted] + rng.normal(0, 0.01, (60, 24, 24, 1)), 0, 1)
    copies[20:40] = np.roll(copies[20:40], (1, -1), axis=(1, 2))
    copies[40:] = copies[40:, :, ::-1]
    distances, rows = search.nearest(copies.astype(np.float32), limit=COPY_DISTANCE)
    assert (distances < COPY_DISTANCE).all()
    assert (rows == planted).all()
    others = np.clip(smooth + rng.normal(0, 0.08, smooth.shape), 0, 1).astype(np.float32)
    assert (search.nearest(others, limit=COPY_DISTANCE)[0] > 0.05).all()


# -- Copies ----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    noise=st.floats(0, 0.01),
    shift=st.tuples(st.integers(-1, 1), st.integers(-1, 1)),
    wrap=st.booleans(),
    flip=st.booleans(),
)
def test_every_planted_copy_is_found(train, fresh, held_out, seed, noise, shift, wrap, flip):
    rng = np.random.default_rng(seed)
    sources = rng.permutation(len(train))[:40]
    copies = train.images[sources].astype(float)
    copies = np.roll(copies, shift, axis=(1, 2))
    if not wrap:
        # What a shift brings in is anything at all.
        for axis, by in enumerate(shift, start=1):
            edge = [slice(None)] * 4
            edge[axis] = 0 if by == 1 else -1
            if by:
                copies[tuple(edge)] = rng.uniform(0, 255, copies[tuple(edge)].shape)
    copies = copies[:, :, ::-1] if flip else copies
    # Both normal and at most twice its deviation in size, or any one pixel could be elsewhere.
    copies = copies + 255 * noise * np.clip(rng.normal(size=copies.shape), -2, 2)
    copies = np.clip(np.rint(copies), 0, 255).astype(np.uint8)
    images = np.concatenate([fresh.images[:100], copies])
    places = rng.permutation(len(images))
    privacy = measure_privacy(train, held_out, images[places], n_bootstrap=0)
    planted = np.flatnonzero(places >= 100)
    assert privacy.near_copies == 40
    assert list(privacy.near_copy_indices) == planted[:20].tolist()
    assert list(privacy.near_copy_sources) == sources[places[planted] - 100][:20].tolist()
    assert privacy.verdict == "signs of copying"


def test_real_images_are_hardly_ever_taken_for_copies(clean, train, fresh, held_out):
    # The distance is half of what the nearest 1 % of held-out images come to: at most 1 % of other
    # real images are expected to come as near as these, and far fewer to half of it.
    assert clean.near_copies <= 0.01 * len(fresh)
    assert clean.held_out_copies <= 0.01 * len(held_out)
    assert clean.verdict == "no sign of copying"
    assert clean.warning is None


def test_one_copy_is_enough(train, fresh, held_out):
    images = np.concatenate([fresh.images, train.images[123:124]])
    privacy = measure_privacy(train, held_out, images, n_bootstrap=20)
    assert len(fresh) in privacy.near_copy_indices
    assert 123 in privacy.near_copy_sources
    assert privacy.verdict == "signs of copying"
    assert "near-copies of training images, against 0 of 355" in privacy.warning


def test_copies_of_unlabelled_images_count(train, fresh, held_out):
    pool = fresh.images[:50]
    privacy = measure_privacy(
        train.with_unlabelled(pool), held_out, fresh.images[40:90], n_bootstrap=0
    )
    assert set(range(10)) <= set(privacy.near_copy_indices)
    assert [len(train) + 40 + i for i in range(10)] == list(privacy.near_copy_sources)[:10]
    assert measure_privacy(train, held_out, fresh.images[40:90], n_bootstrap=0).near_copies == 0


@pytest.mark.parametrize("space", [(16,), (5, 6), (7, 8, 6)])
def test_signals_and_volumes(space):
    rng = np.random.default_rng(0)
    sets = [rng.uniform(-1, 1, (60, *space, 2)).astype(np.float32) for _ in range(3)]
    labels = np.arange(60) % 2
    train, held = (LabelledImages(images, labels, ("a", "b"), (-1, 1)) for images in sets[:2])
    synthetic = sets[2]
    synthetic[7] = sets[0][3]
    shifted = tuple(1 if side >= 6 else 0 for side in space)
    synthetic[8] = np.roll(sets[0][4], shifted, axis=range(len(space)))
    privacy = measure_privacy(train, held, synthetic, synthetic_labels=labels, n_bootstrap=10)
    assert privacy.near_copy_indices == (7, 8)
    assert privacy.near_copy_sources == (3, 4)


# -- Distances -------------------------------------------------------------------------------------


def test_real_images_in_the_place_of_synthetic_ones_leak_nothing(clean):
    metrics = by_name(clean)
    assert list(metrics) == [
        "median_distance",
        "share_nearer",
        "authenticity",
        "data_copying",
        "attack_by_distance",
    ]
    for metric in metrics.values():
        assert metric.low <= metric.value <= metric.high
        assert metric.real_low <= metric.real <= metric.real_high
        assert metric.low <= metric.real_high
        assert metric.real_low <= metric.high
    # z-scores of ten classes, averaged: standard deviation of about 1 / sqrt(10).
    assert abs(metrics["data_copying"].value) < 4 / np.sqrt(10)
    # 355 images each: four standard deviations of a guess.
    assert abs(metrics["attack_by_distance"].value - 0.5) < 4 / np.sqrt(6 * 355)
    assert abs(metrics["share_nearer"].value - 0.05) < 4 * np.sqrt(2 * 0.05 * 0.95 / 355)


def test_noisy_copies_show_in_every_figure(train, held_out):
    # Noise of 4 % of the range: beyond a near-copy for some, and far below any distance between
    # two digits.
    noise = np.random.default_rng(0).normal(0, 0.04 * 255, train.images.shape)
    images = np.clip(train.images + noise, 0, 255).astype(np.uint8)
    privacy = measure_privacy(train, held_out, images, synthetic_labels=train.labels)
    metrics = by_name(privacy)
    assert metrics["median_distance"].high < metrics["median_distance"].real_low
    assert metrics["share_nearer"].low > metrics["share_nearer"].real_high
    assert metrics["authenticity"].high < metrics["authenticity"].real_low
    assert metrics["data_copying"].high < -3
    assert metrics["attack_by_distance"].low > 0.9
    assert privacy.verdict == "signs of copying"
    assert "near_copy_factor" in privacy.warning


def test_noise_is_far_from_everything(train, held_out):
    noise = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)
    privacy = measure_privacy(train, held_out, noise, n_bootstrap=50)
    metrics = by_name(privacy)
    assert metrics["data_copying"].low > 3
    assert metrics["authenticity"].value == 1
    assert metrics["share_nearer"].value == 0
    assert privacy.verdict == "no sign of copying"


def test_authenticity_by_hand():
    # Training values 0, 10, 100: their nearest others are 10, 10 and 90 away.
    line = np.array([0, 10, 100, 9, 25, 200, 90, 150], np.uint8).reshape(-1, 1, 1, 1)
    names, y = ("a",), np.zeros(3, np.int64)
    train = LabelledImages(line[:3], y, names, (0, 255))
    held = LabelledImages(line[3:6], y, names, (0, 255))
    # 9 is 1 from 10 (no), 25 is 15 from 10 (yes), 200 is 100 from 100 (yes); 90 and 150: no.
    figure = by_name(measure_privacy(train, held, line[6:], n_bootstrap=0))["authenticity"]
    assert figure.real == pytest.approx(2 / 3)
    assert figure.value == 0


# -- The generator ---------------------------------------------------------------------------------


def test_a_generator_is_attacked(synthesizer, digits):
    from sklearn.metrics import roc_auc_score

    # The same number of each class, so that all images take part.
    train = digits.imbalanced([12] * 10, seed=0)
    held = vaeaug.read("digits", split="test")
    held = held.subset(np.setdiff1d(np.arange(len(held)), shared_images(digits, held)))
    held = held.imbalanced([12] * 10, seed=0)
    images = np.concatenate([synthesizer.sample(c, 20, seed=0).images for c in range(10)])
    privacy = measure_privacy(train, held, images, generator=synthesizer, n_bootstrap=50)
    metrics = by_name(privacy)
    errors = []
    for kind in (train, held):
        again = synthesizer.reconstruct(kind.images, kind.labels).astype(float)
        errors.append(((again - kind.images) ** 2).mean(axis=(1, 2, 3)))
    is_member = np.repeat([True, False], 120)
    wanted = roc_auc_score(is_member, -np.concatenate(errors))
    assert metrics["attack_by_reconstruction"].value == pytest.approx(wanted)
    for name in ("attack_by_reconstruction", "attack_by_likelihood"):
        metric = metrics[name]
        assert metric.low <= metric.value <= metric.high
        # Variance of U: (n + m + 1) / (12 n m).
        assert metric.real_high - 0.5 == pytest.approx(1.96 * np.sqrt(241 / (12 * 120 * 120)))


def test_a_generator_that_knows_its_images_is_a_risk(synthesizer, digits):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, digits.images.shape, dtype=np.uint8)
    strange = LabelledImages(noise, digits.labels, digits.class_names, digits.value_range)
    images = np.concatenate([synthesizer.sample(c, 5, seed=0).images for c in range(10)])
    privacy = measure_privacy(digits, strange, images, generator=synthesizer, n_bootstrap=50)
    metrics = by_name(privacy)
    assert metrics["attack_by_reconstruction"].low > 0.95
    assert metrics["attack_by_likelihood"].low > 0.95
    assert "tell training images by likelihood" in privacy.warning


def test_a_generator_of_other_classes_is_refused(synthesizer, train, held_out, fresh):
    names = tuple("abcdefghij")
    train, held_out = (
        LabelledImages(data.images, data.labels, names, data.value_range)
        for data in (train, held_out)
    )
    with pytest.raises(ValueError, match="expected a generator of"):
        measure_privacy(train, held_out, fresh.images, generator=synthesizer, n_bootstrap=0)


# -- Shared images ---------------------------------------------------------------------------------


def test_shared_images_are_found_by_value(train, held_out):
    assert not len(shared_images(train, held_out))
    images = np.concatenate([held_out.images[:5], train.images[[3, 9]], held_out.images[5:9]])
    mixed = LabelledImages(
        images, np.zeros(11, np.int64), held_out.class_names, held_out.value_range
    )
    assert shared_images(train, mixed).tolist() == [5, 6]
    pool = train.with_unlabelled(held_out.images[6:8])
    assert shared_images(pool, mixed).tolist() == [5, 6, 8, 9]
    one_off = images.copy()
    one_off[5, 0, 0, 0] ^= 1
    off = LabelledImages(one_off, mixed.labels, mixed.class_names, mixed.value_range)
    assert shared_images(train, off).tolist() == [6]
    privacy = measure_privacy(train, mixed, held_out.images[50:80], n_bootstrap=0)
    assert privacy.notes[0].startswith("Leak: 2 of 11 held-out images")


def test_the_sign_of_zero_is_no_difference():
    zero = np.zeros((1, 4, 4, 1), np.float32)
    keys = {"labels": np.zeros(1, np.int64), "class_names": ("a",), "value_range": (-1, 1)}
    train, held = (LabelledImages(images, **keys) for images in (zero, -zero))
    assert shared_images(train, held).tolist() == [0]


def test_what_does_not_belong_together_is_refused(train, held_out, fresh):
    with pytest.raises(ValueError, match=r"got float32 of shape \(8, 8, 1\)"):
        measure_privacy(train, held_out, fresh.images.astype(np.float32))
    with pytest.raises(ValueError, match="at least one image"):
        measure_privacy(train, held_out, fresh.images[:0])
    with pytest.raises(ValueError, match="one integer label per image"):
        unchecked(measure_privacy)(train, held_out, fresh.images, synthetic_labels=fresh.labels[:3])
    renamed = LabelledImages(
        held_out.images, held_out.labels, tuple("abcdefghij"), held_out.value_range
    )
    with pytest.raises(ValueError, match="classes and value range"):
        measure_privacy(train, renamed, fresh.images)


def test_a_handful_of_images(train, held_out, fresh):
    for n in (1, 2, 5):
        few = held_out.subset(np.arange(n))
        privacy = measure_privacy(
            train.subset(np.arange(2 * n)),
            few,
            fresh.images[:3],
            synthetic_labels=fresh.labels[:3],
            n_bootstrap=5,
        )
        assert "fewer than 20 images" in " ".join(privacy.notes)
        assert privacy.to_json()["verdict"] == privacy.verdict
