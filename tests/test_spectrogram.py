"""Spectrograms lose nothing, and are inverted from magnitudes alone."""

import math

import numpy as np
import pytest
import torch

from vaeaug.spectrogram import Spectrogram, SpectrogramError

RATE = 8000


def voiced(n: int, length: int, seed: int = 0) -> torch.Tensor:
    """Gliding harmonics with noise and silence around them, as speech has."""
    rng = np.random.default_rng(seed)
    t = np.arange(length) / RATE
    sounds = []
    for _ in range(n):
        phase = 2 * np.pi * np.cumsum(rng.uniform(90, 220) * (1 + 0.3 * np.sin(5 * t))) / RATE
        harmonics = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 12))
        envelope = np.exp(-((t - t[-1] / 2) ** 2) / (2 * (0.15 * t[-1]) ** 2))
        sounds.append(envelope * (0.2 * harmonics + 0.02 * rng.standard_normal(length)))
    return torch.from_numpy(np.stack(sounds)).float()[:, None]


def decibels(wanted: torch.Tensor, got: torch.Tensor) -> float:
    return 10 * math.log10(float(wanted.square().sum() / (wanted - got).square().sum()))


@pytest.mark.parametrize(("length", "window"), [(8000, 256), (4001, 128), (300, 256), (16000, 512)])
def test_there_and_back(length, window):
    spectrogram, x = Spectrogram(length, window), voiced(3, length)
    coefficients = spectrogram.transform(x)
    assert coefficients.shape == (3, 1, spectrogram.bins, spectrogram.frames)
    assert decibels(x, spectrogram.inverse(coefficients)) > 100
    # By log magnitudes and the phase of the recording itself.
    assert decibels(x, spectrogram.sound(spectrogram.log_magnitude(x), x)) > 100
    # Noise has all of its power up to the last frequency, which shares a bin with the first.
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(x.shape)).float()
    assert decibels(noise, spectrogram.inverse(spectrogram.transform(noise))) > 100


def test_a_sine_of_full_scale_has_magnitude_one():
    spectrogram = Spectrogram(8000, 256)
    sine = torch.sin(2 * math.pi * 1000 * torch.arange(8000) / RATE)[None, None]
    middle = spectrogram.transform(sine).abs()[0, 0, :, 60]
    assert middle.argmax() == 32  # 1000 Hz of 31.25 Hz a bin
    assert middle.max() == pytest.approx(1, abs=1e-4)
    assert spectrogram.log_magnitude(sine)[0, 0, 32, 60] == pytest.approx(1, abs=1e-4)
    assert (spectrogram.log_magnitude(torch.zeros(1, 1, 8000)) == 0).all()


def test_log_magnitudes_are_inverted():
    spectrogram = Spectrogram(1024, 64)
    magnitude = torch.logspace(-6, 0, 50)
    back = spectrogram.magnitude(spectrogram.compressed(magnitude))
    torch.testing.assert_close(back, magnitude, rtol=1e-3, atol=1e-9)


def test_magnitudes_alone_give_a_sound_of_these_magnitudes():
    spectrogram, x = Spectrogram(8000, 256), voiced(2, 8000)
    target = spectrogram.transform(x).abs()

    def apart(sound):
        return decibels(target, spectrogram.transform(sound).abs())

    log_magnitude = spectrogram.log_magnitude(x)
    guessed = spectrogram.sound(log_magnitude, iterations=0)
    found = spectrogram.sound(log_magnitude)
    zero = spectrogram.griffin_lim(target, torch.complex(target, torch.zeros_like(target)), 0)
    # Integrated phases are a better start than none, and the iterations improve on them.
    assert apart(guessed) > apart(zero) + 3
    assert apart(found) > apart(guessed) + 6
    assert apart(found) > 15


def test_an_edit_keeps_the_phase_of_its_recording():
    spectrogram, x = Spectrogram(8000, 256), voiced(2, 8000)
    quieter = spectrogram.compressed(0.5 * spectrogram.transform(x).abs())
    like = x.clone()
    like[1] = math.nan  # of no recording
    sounds = spectrogram.sound(quieter, like)
    assert decibels(0.5 * x[0], sounds[0]) > 60
    assert decibels(0.5 * x[1], sounds[1]) < 20  # no phase was known
    assert sounds.isfinite().all()


def test_silence_is_silence():
    spectrogram = Spectrogram(2048, 256)
    silence = torch.zeros(2, 1, 2048)
    assert spectrogram.sound(spectrogram.log_magnitude(silence)).abs().max() < 1e-6
    assert len(spectrogram.sound(spectrogram.log_magnitude(silence[:0]))) == 0


def test_windows_are_about_32_milliseconds():
    windows = {rate: Spectrogram.of(10**5, rate).window for rate in (8000, 16000, 44100, 100)}
    assert windows == {8000: 256, 16000: 512, 44100: 1024, 100: 32}
    assert Spectrogram.of(10**5).window == 256


@pytest.mark.parametrize(
    ("length", "window", "message"),
    [
        (8000, 250, "expected a power of two of 32 to 8192 samples, got 250"),
        (8000, 16, "got 16"),
        (100, 256, "expected at least one window of 256 samples, got 100"),
    ],
)
def test_what_has_no_spectrogram(length, window, message):
    with pytest.raises(SpectrogramError, match=message):
        Spectrogram(length, window)
