"""What is rejected, what is not, and that the order of batches does not matter."""

import numpy as np
import pytest

import vaeaug
from vaeaug.config import ScreeningConfig
from vaeaug.screening import REASONS, Screener, ScreeningReport, _folds, screen


@pytest.fixture(scope="module")
def real():
    """All training digits: enough for calibration."""
    return vaeaug.read("digits")


@pytest.fixture(scope="module")
def screener(real):
    return Screener(real, ScreeningConfig(classifier_steps=60), seed=0)


def test_a_copy_is_rejected_and_a_held_out_image_is_not(real, screener):
    held_out = vaeaug.read("digits", split="test")
    noise = np.random.default_rng(0).integers(-3, 4, size=real.images.shape)
    nearly = np.clip(real.images.astype(int) + noise, 0, 255).astype(np.uint8)
    accepted = 0
    for label in range(10):
        own = np.flatnonzero(real.labels == label)
        copied = screen(real.images[own], label, screener)
        assert np.all(copied.reason == "near-copy")
        np.testing.assert_allclose(copied.nn_distance, 0, atol=1e-6)
        assert np.all(real.images[copied.nn_index] == real.images[own])
        assert np.all(screen(nearly[own], label, screener).reason == "near-copy")
        fresh = screen(held_out.images[held_out.labels == label], label, screener)
        accepted += int((fresh.reason != "near-copy").sum())
    assert accepted >= 0.97 * len(held_out)


def test_the_distance_is_that_to_the_nearest_image(real, screener):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, size=(20, 8, 8, 1), dtype=np.uint8)
    found = screen(images, 0, screener)
    flat = real.images.reshape(len(real), -1).astype(float) / 255
    for image, distance in zip(images, found.nn_distance, strict=True):
        every = np.sqrt(((flat - image.reshape(-1) / 255) ** 2).mean(axis=1))
        # The shortlist may miss the very nearest of far images, never by much.
        assert every.min() - 1e-5 <= distance <= every.min() * 1.1


def test_another_class_is_rejected(real):
    strict = Screener(real, ScreeningConfig(classifier_steps=60, min_label_probability=0.3), seed=0)
    zeros = vaeaug.read("digits", split="test")
    zeros = zeros.images[zeros.labels == 0]
    assert np.mean(screen(zeros, 1, strict).reason == "other class") > 0.9
    assert np.mean(screen(zeros, 0, strict).reason == "other class") < 0.1


def test_broken_values_are_rejected_with_the_reason(real):
    scaled = vaeaug.LabelledImages(
        real.images.astype(np.float32) / 255, real.labels, real.class_names, (0.0, 1.0)
    )
    screener = Screener(scaled, ScreeningConfig(classifier_steps=5), seed=0)
    images = np.full((3, 8, 8, 1), 0.5, np.float32)
    images[0, 0, 0, 0] = np.nan
    images[1, 3, 3, 0] = 1.5
    reasons = screen(images, 0, screener).reason
    assert list(reasons[:2]) == ["not finite", "out of range"]


def test_duplicates_lose_to_the_first_in_a_batch_and_across(synthesizer, digits):
    config = ScreeningConfig(
        classifier_steps=5, min_label_probability=0, near_copy_factor=0.01, duplicate_factor=1.0
    )
    screener = Screener(digits, config, seed=0)
    images = synthesizer.sample(0, 20, seed=0, sampler="prior").images
    twice = np.concatenate([images, images[:5]])
    screening = screener.new_class(0)
    together = screening.screen(twice)
    assert np.all(together.reason[20:] == "duplicate")
    assert together.reason[0] == ""
    assert np.all(screening.screen(images[together.reason[:20] == ""]).reason == "duplicate")


@pytest.mark.parametrize("size", [1, 7, 50])
def test_the_verdict_does_not_depend_on_batches(size, synthesizer, digits):
    screener = Screener(digits, ScreeningConfig(classifier_steps=20), seed=0)
    images = synthesizer.sample(2, 50, seed=0, sampler="interpolate").images
    whole = screener.new_class(2).screen(images).reason
    parts = screener.new_class(2)
    reasons = np.concatenate(
        [parts.screen(images[begin : begin + size]).reason for begin in range(0, 50, size)]
    )
    assert list(reasons) == list(whole)


def test_twins_in_the_training_data_do_not_hide_copies(real):
    doubled = real.subset(np.concatenate([np.arange(len(real)), np.arange(len(real))]))
    screener = Screener(doubled, ScreeningConfig(classifier_steps=5), seed=0)
    assert np.all(screener.near_copy_distance > 0)
    assert np.all(screen(real.images[:50], 0, screener).reason == "near-copy")


def test_folds_are_stratified():
    labels = np.repeat([0, 1, 2], [31, 9, 2])
    folds = _folds(labels, 3, seed=0)
    for label in range(3):
        sizes = np.bincount(folds[labels == label], minlength=3)
        assert sizes.max() - sizes.min() <= 1


def test_the_report_counts():
    report = ScreeningReport()
    report.add(np.array(["", "near-copy", ""], dtype=object))
    report.add(np.array(["near-copy", "duplicate"], dtype=object))
    assert report.to_json() == {
        "candidates": 5,
        "accepted": 2,
        "rejected": {**dict.fromkeys(REASONS, 0), "near-copy": 2, "duplicate": 1},
    }
