"""Screening of signals and volumes, against the pool too, and what it leaves untouched."""

import numpy as np
import pytest
import torch

import vaeaug
from vaeaug.config import ScreeningConfig
from vaeaug.data import LabelledImages
from vaeaug.randomness import seeded_torch
from vaeaug.screening import SampleSpace, Screener, screen
from vaeaug.training.classifier import train_classifier

SHAPES = {"NLC": (40, 2), "NHWC": (9, 8, 1), "NDHWC": (8, 9, 8, 1)}
CONFIG = ScreeningConfig(folds=2, classifier_steps=8)


def blobs(layout, n_each=40, *, dtype="float32", seed=0, n_classes=3):
    """Classes that differ by where in the first axis their values are high, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_classes), n_each)
    shape = SHAPES[layout]
    images = rng.normal(0.3, 0.08, (len(labels), *shape))
    for c in range(n_classes):
        begin = c * shape[0] // n_classes
        images[labels == c, begin : begin + max(1, shape[0] // n_classes)] += 0.4
    images = images.clip(0, 1)
    names = tuple("abc"[:n_classes])
    if dtype == "uint8":
        return LabelledImages((images * 255).astype("uint8"), labels, names, (0, 255))
    return LabelledImages(images.astype("float32"), labels, names, (0, 1))


@pytest.mark.parametrize(
    ("layout", "dtype"), [("NLC", "uint8"), ("NHWC", "float32"), ("NDHWC", "uint8")]
)
def test_copies_are_rejected_and_fresh_samples_are_not(layout, dtype):
    data, fresh = blobs(layout, dtype=dtype), blobs(layout, 10, dtype=dtype, seed=1)
    screener = Screener(data, ScreeningConfig(folds=2, classifier_steps=25), seed=0)
    for label in range(3):
        own = np.flatnonzero(data.labels == label)[:10]
        copied = screen(data.images[own], label, screener)
        assert set(copied.reason) == {"near-copy"}
        np.testing.assert_array_equal(copied.nn_index, own)
        verdict = screen(fresh.images[fresh.labels == label], label, screener)
        assert "near-copy" not in verdict.reason
        assert verdict.p_label.mean() > 0.5
    broken = data.images[:3].astype("float32") / data.value_range[1]
    broken[1].flat[5] = np.nan
    assert screen(broken, 0, screener).reason[1] == "not finite"


@pytest.mark.parametrize("layout", SHAPES)
def test_a_copy_of_an_unlabelled_image_is_a_near_copy(layout):
    data, pool = blobs(layout), blobs(layout, 5, seed=2).images
    full = data.with_unlabelled(pool)
    without, within = (Screener(each, CONFIG, seed=0) for each in (data, full))
    rows = np.array([3, 0, 4])
    assert "near-copy" not in screen(pool[rows], 0, without).reason
    verdict = screen(pool[rows], 0, within)
    assert set(verdict.reason) == {"near-copy"}
    np.testing.assert_array_equal(verdict.nn_index, len(data) + rows)
    np.testing.assert_array_equal(full.images_at(verdict.nn_index), pool[rows])
    np.testing.assert_allclose(verdict.nn_distance, 0, atol=1e-6)
    # A labelled image is still found by its own row.
    assert screen(data.images[[7]], 0, within).nn_index.tolist() == [7]


def test_a_far_pool_changes_no_limit_and_no_classifier():
    data = blobs("NHWC")
    pool = 1 - np.zeros((4, *SHAPES["NHWC"]), "float32")
    screeners = [Screener(each, CONFIG, seed=0) for each in (data, data.with_unlabelled(pool))]
    np.testing.assert_allclose(
        screeners[1].near_copy_distance, screeners[0].near_copy_distance, rtol=1e-4
    )
    np.testing.assert_array_equal(screeners[1].real_p_label, screeners[0].real_p_label)


def test_blocks_change_nothing(monkeypatch):
    data = blobs("NDHWC").with_unlabelled(blobs("NDHWC", 3, seed=4).images)
    images = blobs("NDHWC", 5, seed=3).images

    def distances():
        space = SampleSpace(data, seed=0)
        return space.nearest(images, space.project(images))

    whole = distances()
    monkeypatch.setattr("vaeaug.screening.BLOCK_VALUES", 3 * images[0].size + 1)
    for got, expected in zip(distances(), whole, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("layout", SHAPES)
def test_the_random_shift_is_over_every_axis_of_space(layout, monkeypatch):
    seen = []
    roll = torch.roll
    monkeypatch.setattr(
        torch, "roll", lambda x, shifts, dims: seen.append((shifts, dims)) or roll(x, shifts, dims)
    )
    train_classifier(blobs(layout, 4), steps=30, seed=0)
    rank = len(SHAPES[layout]) - 1
    assert {dims for _, dims in seen} == {tuple(range(2, 2 + rank))}
    for axis in range(rank):
        assert {shifts[axis] for shifts, _ in seen} == {-1, 0, 1}


def test_training_leaves_the_random_state_as_it_was_and_ignores_it():
    data = blobs("NLC", 4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train_classifier(data, steps=2, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for name, value in train_classifier(data, steps=2, seed=5).state_dict().items():
        assert torch.equal(value, first[name])


def test_seeding_is_that_of_torch():
    with seeded_torch(7):
        got = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(got, torch.rand(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_training_on_a_gpu_leaves_its_random_state_as_it_was():
    data = blobs("NLC", 4)
    torch.cuda.manual_seed_all(1)
    before = torch.cuda.get_rng_state_all()
    train_classifier(data, steps=2, seed=5, device="cuda")
    for was, now in zip(before, torch.cuda.get_rng_state_all(), strict=True):
        assert torch.equal(was, now)


def test_digits_with_a_pool_of_their_own_test_images():
    real, test = vaeaug.read("digits"), vaeaug.read("digits", split="test")
    full = real.with_unlabelled(test.images[:40])
    screener = Screener(full, CONFIG, seed=0)
    verdict = screen(test.images[:40], 0, screener)
    assert set(verdict.reason) == {"near-copy"}
    np.testing.assert_array_equal(full.images_at(verdict.nn_index), test.images[:40])
