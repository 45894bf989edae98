"""Spread, distance and sharpness of samples beside real images, and what a run does about them."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import vaeaug
from tests.small_job import digits as some_digits
from tests.small_job import tiny_config
from vaeaug.screening import ScreeningReport
from vaeaug.stages import draw_class, drawing, new_screener
from vaeaug.stages.choices import trials_of
from vaeaug.stages.dispersion import UNDERDISPERSED, dispersion


@pytest.fixture(scope="module")
def digits():
    return vaeaug.read("digits")


@pytest.fixture(scope="module")
def ones(digits):
    return digits.images[digits.labels == 1].astype(float)


def test_another_half_of_the_real_images_is_alike(ones):
    found = dispersion(ones[::2], ones[1::2])
    assert found.spread == pytest.approx(1, abs=0.1)
    assert found.distance == pytest.approx(1, abs=0.1)
    assert found.sharpness == pytest.approx(1, abs=0.1)
    assert not found.narrow


@pytest.mark.parametrize("factor", [0.38, 0.58])
def test_images_drawn_towards_their_mean_are_narrow(ones, factor):
    mean = ones.mean(axis=0)
    found = dispersion(mean + factor * (ones[::2] - mean), ones[1::2])
    assert found.spread == pytest.approx(factor, rel=0.1)
    assert found.distance == pytest.approx(factor, rel=0.1)
    assert found.narrow


def test_two_modes_of_which_one_is_left_are_narrow():
    rng = np.random.default_rng(0)
    modes = np.where(np.arange(200) % 2, 1.0, -1.0)[:, None, None, None]
    real = modes + 0.2 * rng.standard_normal((200, 6, 6, 1))
    assert dispersion(real[::2], real).narrow
    assert not dispersion(real[:100], real).narrow


def test_blurred_images_are_less_sharp_but_not_narrow(ones):
    found = dispersion(gaussian_filter(ones, (0, 0.7, 0.7, 0)), ones)
    assert found.sharpness < 0.6
    assert not found.narrow


@pytest.mark.parametrize("shape", [(40, 16, 2), (40, 8, 8, 3), (40, 4, 6, 6, 1)])
def test_signals_images_and_volumes_have_a_sharpness(shape):
    x = np.random.default_rng(0).random(shape)
    assert dispersion(0.5 * x, x).sharpness == pytest.approx(0.5)


def test_features_have_none():
    x = np.random.default_rng(0).random((40, 1, 16))
    assert dispersion(x, x).sharpness is None


def test_too_few_or_equal_images_are_not_compared(ones):
    assert dispersion(ones[:9], ones) is None
    assert dispersion(ones, np.ones_like(ones)) is None


def test_a_class_whose_samples_are_too_much_alike_is_told_and_drawn_otherwise(digits):
    config = tiny_config()
    generator = vaeaug.fit(digits, config, device="cpu").attach(digits)
    screener = new_screener(digits, config, device="cpu")
    # A decoder of a few steps gives nearly the same image for every latent; edits of real images
    # keep their detail. Without the images a density is the default.
    plain = config.changed(**{"sampling.residual": False})
    trials = list(trials_of(generator, digits, plain, screener, None))
    told = [trial for trial in trials if "too much alike" in trial.warning]
    assert told
    assert all("standard deviation is" in trial.warning for trial in told)
    for trial in trials_of(generator, digits, config, screener, None):
        assert trial.metrics["spread"] > UNDERDISPERSED
        assert "too much alike" not in trial.warning


def test_a_density_that_shows_one_thing_gives_no_samples(monkeypatch, caplog):
    """Where edits are near-copies too, the class falls short and is told."""
    digits = some_digits((60, 50, 12, 8))
    config = tiny_config(
        **{
            "training.steps": 2,
            "training.adapt_steps": 1,
            "screening.near_copy_factor": 1.0,
            "screening.duplicate_factor": 1.0,
        }
    )
    generator = vaeaug.fit(digits, config, device="cpu", progress=False).attach(digits)
    screener = new_screener(digits, config, device="cpu")
    row = next(iter(vaeaug.make_plan(digits.labels, {0: 120})))

    def drawn() -> tuple[set[str], ScreeningReport]:
        report = ScreeningReport()
        parts = list(draw_class(row, generator, screener, config, report=report))
        return {part.sampler for part in parts}, report

    before, of_before = drawn()
    assert before == {"interpolate+residual", "gmm"}
    assert of_before.rejected["duplicate"] > 10
    monkeypatch.setattr(drawing, "ALIKE", 0.0)
    after, report = drawn()
    assert after == {"interpolate+residual"}
    assert report.accepted < of_before.accepted
    assert report.candidates == report.accepted + sum(report.rejected.values())
    assert "the samples of 'gmm' are nearly all alike, so that none is taken" in caplog.text
