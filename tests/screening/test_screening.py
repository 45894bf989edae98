"""What is rejected, what is not, and that the order of batches does not matter."""

import copy

import numpy as np
import pytest
import torch

import vaeaug
from vaeaug.config import ScreeningConfig
from vaeaug.screening import (
    REASONS,
    Screener,
    ScreeningReport,
    screen,
)
from vaeaug.screening.screener import BATCH, WIDTH, _cross_fit
from vaeaug.strata import stratified_folds
from vaeaug.training.classifier import class_probabilities, train_classifier


@pytest.fixture(scope="module")
def real():
    """All training digits: enough for calibration."""
    return vaeaug.read("digits")


@pytest.fixture(scope="module")
def screener(real):
    return Screener(real, ScreeningConfig(classifier_steps=120), seed=0)


def test_a_copy_is_rejected_and_a_held_out_image_is_not(real, screener):
    held_out = vaeaug.read("digits", split="test")
    noise = np.random.default_rng(0).integers(-3, 4, size=real.images.shape)
    nearly = np.clip(real.images.astype(int) + noise, 0, 255).astype(np.uint8)
    accepted = 0
    for label in range(10):
        of_class = np.flatnonzero(real.labels == label)
        copied = screen(real.images[of_class], label, screener)
        assert np.all(copied.reason == "near-copy")
        np.testing.assert_allclose(copied.nn_distance, 0, atol=1e-6)
        assert np.all(real.images[copied.nn_index] == real.images[of_class])
        assert np.all(screen(nearly[of_class], label, screener).reason == "near-copy")
        fresh = screen(held_out.images[held_out.labels == label], label, screener)
        accepted += int((fresh.reason != "near-copy").sum())
    assert accepted >= 0.97 * len(held_out)


def test_the_distance_is_that_to_the_nearest_image(real, screener):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, size=(20, 8, 8, 1), dtype=np.uint8)
    verdict = screen(images, 0, screener)
    flat = real.images.reshape(len(real), -1).astype(float) / 255
    for image, distance in zip(images, verdict.nn_distance, strict=True):
        every = np.sqrt(((flat - image.reshape(-1) / 255) ** 2).mean(axis=1))
        # The shortlist may miss the very nearest of far images, never by much.
        assert every.min() - 1e-5 <= distance <= every.min() * 1.1


def test_another_class_is_rejected(real):
    config = ScreeningConfig(classifier_steps=60)
    strict = Screener(real, config, seed=0, min_label_probability=0.3)
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
    config = ScreeningConfig(classifier_steps=5, near_copy_factor=0.01, duplicate_factor=1.0)
    screener = Screener(digits, config, seed=0, min_label_probability=0)
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
    folds = stratified_folds(labels, 3, seed=[0, 2])
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


@pytest.fixture(scope="module")
def held_out():
    return vaeaug.read("digits", split="test")


def with_config(screener, **keys):
    """The same screener with other thresholds, without training its classifiers again."""
    other = copy.copy(screener)
    other.min_label_probability = keys.pop("min_label_probability", other.min_label_probability)
    other.config = screener.config.model_copy(update=keys)
    return other


def test_the_limit_is_a_quantile_of_the_distances_between_real_images(real, screener):
    everything = real.images.reshape(len(real), -1).astype(float) / 255
    of_class = everything[real.labels == 4]
    distances = np.sqrt(np.square(of_class[:, None] - everything[None]).mean(axis=2))
    distances[distances == 0] = np.inf
    expected = 0.5 * np.quantile(distances.min(axis=1), 0.01)
    assert screener.near_copy_distance[4] == pytest.approx(expected, rel=1e-3)


def test_exact_twins_hardly_change_the_calibration(real):
    config = ScreeningConfig(folds=2, classifier_steps=1)
    once = np.flatnonzero(np.isin(real.labels, (0, 1)))
    alone, doubled = (
        Screener(real.subset(np.repeat(once, times)), config, seed=0) for times in (1, 2)
    )
    # Twice the points move a low quantile a little.
    np.testing.assert_allclose(
        doubled.near_copy_distance[:2], alone.near_copy_distance[:2], rtol=0.1
    )


def test_an_unlikely_duplicate_is_called_the_same_in_any_batch(screener, held_out):
    images = held_out.images[held_out.labels == 5]
    image = images[screen(images, 5, screener).accepted][:1]
    close = image.copy()
    close[0, 0, 0, 0] ^= 1
    p = [float(screen(sample, 5, screener).p_label[0]) for sample in (image, close)]
    assert p[0] != p[1]
    likely, unlikely = (image, close) if p[0] > p[1] else (close, image)
    # One of them passes the threshold and the other does not.
    strict = with_config(screener, min_label_probability=(p[0] + p[1]) / 2)
    judge = strict.new_class(5)
    apart = [judge.screen(sample).reason[0] for sample in (likely, unlikely)]
    assert apart == ["", "duplicate"]
    assert list(screen(np.concatenate([likely, unlikely]), 5, strict).reason) == apart
    # What is rejected is no sibling: it does not keep the next one out.
    swapped = screen(np.concatenate([unlikely, likely]), 5, strict)
    assert list(swapped.reason) == ["other class", ""]


@pytest.mark.parametrize("size", [1, 7, 40])
def test_every_reason_is_the_same_in_any_batch(size, screener, real, held_out):
    rng = np.random.default_rng(0)
    images = np.concatenate(
        [
            held_out.images[held_out.labels == 2],
            held_out.images[held_out.labels == 9][:10],
            real.images[real.labels == 2][:10],
            rng.integers(0, 256, (10, 8, 8, 1), dtype=np.uint8),
        ]
    )
    images = images[rng.permutation(np.repeat(np.arange(len(images)), 2))]
    strict = with_config(screener, min_label_probability=0.05)
    whole = screen(images, 2, strict)
    assert set(whole.reason) == {"", "near-copy", "duplicate", "other class"}
    judge = strict.new_class(2)
    parts = [judge.screen(images[at : at + size]) for at in range(0, len(images), size)]
    assert [reason for verdict in parts for reason in verdict.reason] == list(whole.reason)
    for name in ("p_label", "nn_distance", "nn_index"):
        got = np.concatenate([getattr(verdict, name) for verdict in parts])
        np.testing.assert_allclose(got, getattr(whole, name), rtol=1e-4, atol=1e-5)


def test_a_brief_verdict_is_that_of_all_classifiers(screener, held_out):
    noise = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    images = np.concatenate([held_out.images[::4], noise])
    strict = with_config(screener, min_label_probability=0.2)
    whole = strict.new_class(3).screen(images)
    brief = strict.new_class(3, brief=True).screen(images)
    assert list(brief.reason) == list(whole.reason)
    assert {"", "other class"} <= set(whole.reason)
    decided = brief.p_label >= 0.6
    assert decided.any()
    assert not np.allclose(brief.p_label[decided], whole.p_label[decided], rtol=1e-3)
    np.testing.assert_allclose(brief.p_label[~decided], whole.p_label[~decided], rtol=1e-4)
    np.testing.assert_allclose(brief.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_garbage_is_no_class_at_all(screener):
    noise = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    verdicts = [screen(noise, label, screener) for label in range(10)]
    p = np.stack([verdict.p_label for verdict in verdicts])
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)
    rejected = np.stack([verdict.reason for verdict in verdicts]) == "other class"
    np.testing.assert_array_equal(rejected, p < 0.02)
    assert rejected.mean() > 0.1


def test_the_label_threshold_is_that_of_the_configuration(screener, held_out):
    images = held_out.images[held_out.labels == 8]
    p_label = screen(images, 8, screener).p_label
    for least in (0.0, 0.3, 0.9):
        reason = screen(images, 8, with_config(screener, min_label_probability=least)).reason
        considered = (reason == "") | (reason == "other class")
        np.testing.assert_array_equal(
            reason[considered] == "other class", p_label[considered] < least
        )
    assert (reason == "other class").any()


def test_no_image_is_judged_by_a_classifier_that_saw_it(digits):
    config, cpu = ScreeningConfig(folds=2, classifier_steps=4), torch.device("cpu")
    _, p_label, _ = _cross_fit(digits, config, seed=5, device=cpu, progress=None)
    folds = stratified_folds(digits.labels, 2, seed=[5, 2])
    for fold in range(2):
        held = folds == fold
        classifier = train_classifier(
            digits.subset(~held), steps=4, seed=5 + fold, width=WIDTH, batch_size=BATCH
        )
        expected = class_probabilities(classifier, digits.images[held], (0, 255), device=cpu)
        expected = expected[np.arange(held.sum()), digits.labels[held]]
        np.testing.assert_allclose(p_label[held], expected, rtol=1e-5)


def test_progress_counts_the_steps_of_all_folds(digits):
    seen = []
    config = ScreeningConfig(folds=2, classifier_steps=2)
    Screener(digits, config, seed=0, progress=lambda *at: seen.append(at))
    assert seen == [("classifier", step, 4, {}) for step in (1, 2, 3, 4)]


def test_progress_of_two_arguments_still_works(digits):
    seen = []
    config = ScreeningConfig(folds=2, classifier_steps=1)
    with pytest.warns(DeprecationWarning, match="of \\(what, done, total, metrics\\)"):
        Screener(digits, config, seed=0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_an_empty_batch_has_an_empty_verdict(screener):
    verdict = screen(np.empty((0, 8, 8, 1), np.uint8), 0, screener)
    assert verdict.accepted.shape == verdict.p_label.shape == verdict.nn_index.shape == (0,)


def test_the_bound_and_the_steps_are_those_of_ten_classes_or_suit_more():
    rng, n = np.random.default_rng(0), 40
    data = vaeaug.LabelledImages(
        images=rng.integers(0, 256, (2 * n, 8, 8, 1), dtype=np.uint8),
        labels=np.arange(2 * n) % n,
        class_names=tuple(map(str, range(n))),
        value_range=(0, 255),
    )
    seen = []
    screener = Screener(
        data,
        ScreeningConfig(folds=2, classifier_steps=3),
        seed=0,
        min_label_probability=0.08,
        progress=lambda *at: seen.append(at[2]),
    )
    assert set(seen) == {2 * 6}
    assert screener.least_p_label == pytest.approx(0.02)
    verdict = screen(data.images, 0, screener)
    judged = (verdict.reason == "") | (verdict.reason == "other class")
    np.testing.assert_array_equal(
        verdict.reason[judged] == "other class", verdict.p_label[judged] < 0.02
    )
    few = data.subset(data.labels < 10)
    few = vaeaug.LabelledImages(few.images, few.labels, data.class_names[:10], (0, 255))
    ten = Screener(few, ScreeningConfig(folds=2, classifier_steps=1), seed=0)
    assert ten.least_p_label == 0.02
