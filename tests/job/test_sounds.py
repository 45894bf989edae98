"""Sounds from files to sound files: read, learned as spectrograms, judged, drawn and exported."""

import base64
import io
import json
import wave
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import vaeaug
from tests.small_job import as_options, tiny_config
from vaeaug.cli import main
from vaeaug.data import LabelledImages
from vaeaug.evaluation import as_judged
from vaeaug.evaluation.discriminator import mean_auc, scores_within_classes
from vaeaug.export._as_sounds import check_sounds
from vaeaug.export._samples import synthetic_samples
from vaeaug.generator import ClassMover, draw_batch
from vaeaug.report import ClassPanel, as_pictures, players
from vaeaug.spectrogram import Spectrogram

soundfile = pytest.importorskip("soundfile")

RATE, LENGTH = 4000, 600
PITCHES = {"low": 150, "high": 700}


def tone(pitch: float, length: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """A few harmonics that swell and fade, with noise."""
    t = np.arange(length) / rate
    at = rng.uniform(0.4, 0.6) * t[-1]
    swell = np.exp(-(((t - at) / (0.2 * t[-1])) ** 2))
    f = pitch * rng.uniform(0.9, 1.1)
    harmonics = sum(np.sin(2 * np.pi * k * f * t + rng.uniform(0, 6)) / k for k in (1, 2))
    noise = 0.002 * rng.standard_normal(length)
    return (0.4 * swell * harmonics + noise).astype(np.float32)


def tones(n: int = 16) -> LabelledImages:
    rng = np.random.default_rng(0)
    sounds = [tone(pitch, LENGTH, RATE, rng) for pitch in PITCHES.values() for _ in range(n)]
    return LabelledImages(
        np.stack(sounds)[..., None],
        np.repeat(np.arange(2), n),
        tuple(PITCHES),
        (-1.0, 1.0),
        sample_rate=RATE,
        front_end="stft",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """WAV and FLAC files of two rates and several lengths."""
    root, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(1)
    for name, pitch in PITCHES.items():
        (root / name).mkdir()
        for i in range(10):
            rate = (RATE, 2 * RATE)[i % 2]
            sound = tone(pitch, (LENGTH + 50 * (i % 3)) * rate // RATE, rate, rng)
            soundfile.write(root / name / f"{i}.{('wav', 'flac')[i % 2]}", sound, rate)
    return root


@pytest.fixture(scope="module")
def generator():
    config = tiny_config(**{"training.steps": 30})
    return vaeaug.fit(tones(), config, progress=False)


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run by the command line, and what it said."""
    out = tmp_path_factory.mktemp("run") / "out"
    command = ["augment", str(folder), "--out", str(out), "--front-end", "stft"]
    command += ["--size", str(LENGTH), "--sample-rate", str(RATE), "--sampling-strategy", "all"]
    command += as_options(**{"plan.target_ratio": 1.0, "plan.share": 0.4, "recipe.share": 0.4})
    result = CliRunner().invoke(main, command)
    assert result.exit_code in (0, 4), result.output
    return out, result.stderr


def test_a_run_of_sound_files(run):
    out, said = run
    assert "windows of 128 samples, 64 x 24 log magnitudes" in said
    assert f"resampled to {RATE} Hz (10 of 20 signals)" in said
    manifest = vaeaug.Manifest.load(out)
    assert manifest.image_shape == (LENGTH, 1)
    assert manifest.extra["sample_rate"] == RATE
    assert manifest.n_images > 0
    assert vaeaug.verify(out).ok
    shards = vaeaug.ShardDataset(out)
    sounds = shards.images_at(np.arange(len(shards)))
    assert sounds.dtype == np.float32
    assert np.abs(sounds).max() <= 1
    diagnostics = json.loads((out / "diagnostics.json").read_text())
    assert diagnostics["fit"]["unexplained"] > 0
    page = (out / "report.html").read_text()
    assert page.count('<audio controls preload="none" src="data:audio/wav;base64,') >= 2
    assert (out / "samples.png").exists()


def test_the_round_trip_is_said(run):
    _, said = run
    decibels = float(said.split("with the phase of the recording ")[1].split(" dB")[0])
    assert decibels > 40


@pytest.mark.parametrize(("format", "step"), [("wav", 0.0), ("flac", 2.0**-23)])
def test_exported_files_hold_the_samples(run, tmp_path, format, step):
    out, _ = run
    exported = vaeaug.export_dataset(out, tmp_path / "sounds", format=format)
    shards = vaeaug.ShardDataset(out)
    assert exported.n == len(shards)
    back = vaeaug.read(exported.path, value_range=(-1, 1))
    assert back.sample_rate == RATE
    assert back.class_names == ("high", "low")
    sounds = shards.images_at(np.arange(len(shards)))
    order = np.argsort(shards.labels, kind="stable")
    np.testing.assert_array_equal(back.labels, shards.labels[order])
    assert np.abs(back.images - sounds[order]).max() <= step
    table = (exported.path / "metadata.csv").read_text().splitlines()
    assert len(table) == 1 + len(shards)
    again = vaeaug.export_dataset(out, tmp_path / "again", format=format).path
    for path in sorted(exported.path.rglob(f"*.{format}")):
        assert (again / path.relative_to(exported.path)).read_bytes() == path.read_bytes()


def test_other_programs_read_the_wav_files(run, tmp_path):
    path = vaeaug.export_dataset(run[0], tmp_path / "sounds", format="wav").path
    for file in path.rglob("*.wav"):
        found = soundfile.info(file)
        assert (found.samplerate, found.frames, found.subtype) == (RATE, LENGTH, "FLOAT")


@pytest.mark.parametrize(
    ("changed", "format", "message"),
    [
        ({"dtype": np.dtype(np.uint8)}, "wav", "expected float32 signals, got uint8"),
        ({"image_shape": (8, 8, 1)}, "wav", "expected float32 signals, got float32 of shape"),
        ({"sample_rate": None}, "flac", "signals of a known sample rate"),
        ({"image_shape": (600, 9)}, "flac", "expected at most 8 channels, got 9"),
        ({"low": -2.0}, "flac", r"values in \[-1, 1\], its full scale, got the range \[-2, 1\]"),
    ],
)
def test_what_no_sound_file_holds(run, changed, format, message):
    samples = synthetic_samples(vaeaug.ShardDataset(run[0]))
    provenance = {**samples.provenance, "image_value_range": [changed.pop("low", -1.0), 1.0]}
    with pytest.raises(vaeaug.ExportError, match=message):
        check_sounds(replace(samples, provenance=provenance, **changed), format)


def test_the_export_command(run, tmp_path):
    command = ["export", str(run[0]), "--to", str(tmp_path / "s"), "--format", "flac"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "s" / "provenance.json").read_text())["sample_rate"] == RATE
    with pytest.raises(vaeaug.ExportError, match="expected a folder for the format wav"):
        vaeaug.export_dataset(run[0], tmp_path / "x.npz", format="wav")


def test_a_generator_of_spectrograms(generator, tmp_path):
    data = tones()
    assert generator.image_shape == (LENGTH, 1)
    assert generator.spectrogram == data.spectrogram
    assert generator.model.image_shape[-1] > 1  # folded log magnitudes, not samples
    batch = generator.attach(data).sample(label="low", n=4, seed=0, sampler="prior")
    assert batch.images.shape == (4, LENGTH, 1)
    # An edit that changes nothing is the recording.
    still = generator.sample(
        label="low", n=4, seed=0, sampler="posterior", residual=True, temperature=0.0
    )
    wanted = data.images[still.source_index]
    error = np.square(still.images - wanted).sum() / np.square(wanted).sum()
    assert error < 1e-6  # 60 dB
    generator.save(tmp_path / "model")
    loaded = vaeaug.load(tmp_path / "model").attach(data)
    again = loaded.sample(label="low", n=4, seed=0, sampler="prior")
    np.testing.assert_array_equal(again.images, batch.images)


def test_sounds_are_moved_in_a_loader(generator):
    data = tones()
    x = generator.codec.pixels(data.images[:4])
    y, noise = torch.zeros(4, dtype=torch.long), torch.zeros(4, generator.model.latent_dim)
    uniform = torch.full((4, 2), 0.5)
    mover = ClassMover(generator)
    still = mover.move(x, y, uniform=uniform, noise=noise, strength=0.0)
    torch.testing.assert_close(still, x, rtol=0, atol=1e-3)
    moved = mover.move(x, y, uniform=uniform, noise=noise, strength=1.0)
    assert moved.shape == x.shape
    assert (moved - x).abs().max() > 1e-3
    drawn = draw_batch(generator.attach(data), np.zeros(4, np.int64), seed=0)
    assert drawn.shape == x.shape
    assert 0 <= drawn.min() <= drawn.max() <= 1


def test_pictures_are_dark_where_sounds_are_loud():
    spectrogram = Spectrogram(1000, 128)
    t = np.arange(1000) / RATE
    low = 10 * np.sin(2 * np.pi * 500 * t).astype(np.float32)[None, :, None]
    (picture,) = as_pictures(low, spectrogram, (-10.0, 10.0))
    assert picture.shape == (64, 40, 1)
    row, _ = np.unravel_index(picture[..., 0].argmin(), picture.shape[:2])
    assert row == 63 - 500 * 128 // RATE  # low frequencies are at the bottom
    assert picture.min() < 0.05
    assert picture[:20, 5:10].min() > 0.9  # nothing above; the tone begins and ends with a click


def test_players_are_bounded():
    sounds = np.zeros((3, 60_000, 1), np.float32)
    sounds[:, :100] = 0.5
    panels = [ClassPanel(str(i), "", sounds, sounds, sounds) for i in range(20)]
    heard = players(panels, RATE, (-1.0, 1.0))
    assert 0 < len(heard) < 20
    assert sum(len(player.source) for found in heard.values() for player in found) < 1_200_000
    _, data = heard["0"][1].source.split("base64,")
    with wave.open(io.BytesIO(base64.b64decode(data))) as file:
        assert (file.getframerate(), file.getnframes()) == (RATE, 60_000)
        assert np.frombuffer(file.readframes(1), "<i2") == 16_384


def test_a_codec_of_images_is_none_of_sounds(generator, tmp_path):
    generator.save(tmp_path / "model")
    with pytest.raises(
        vaeaug.SamplingError, match=r"codec codec\.py:network: expected a Python file"
    ):
        vaeaug.load(tmp_path / "model", codec="codec.py:network")


def test_judges_hear_sounds_and_not_their_phase():
    """Delayed by a part of a period the sounds are other values, and near to one another."""
    from vaeaug.screening import Screener

    data = tones()
    screener = Screener(data, tiny_config().screening, seed=0)
    delayed = np.roll(data.images[:4], 3, axis=1)
    blind = Screener(
        LabelledImages(data.images, data.labels, data.class_names, data.value_range),
        tiny_config().screening,
        seed=0,
    )
    seen = screener.new_class(0).screen(delayed)
    unseen = blind.new_class(0).screen(delayed)
    np.testing.assert_array_equal(seen.nn_index, np.arange(4))
    near = seen.nn_distance / screener.near_distance[0]
    far = unseen.nn_distance / blind.near_distance[0]
    assert near.max() < 0.7 * far.min()


def test_samples_are_told_from_recordings_by_what_is_heard():
    """Upside down they are other values, and the same to hear."""
    data = tones()
    flipped = replace(data, images=-data.images)
    scores = scores_within_classes((data, flipped), seed=0, steps=40)
    assert 0.2 < mean_auc(scores) < 0.8
    noise = np.random.default_rng(0).normal(0, 0.05, data.images.shape).astype(np.float32)
    hissing = replace(data, images=(data.images + noise).clip(-1, 1))
    assert mean_auc(scores_within_classes((data, hissing), seed=0, steps=40)) > 0.9
    judged, value_range = as_judged(data.images, data.value_range, data.spectrogram)
    assert value_range == (0.0, 1.0)
    assert judged.shape == (len(data), 64, 24, 1)
    same, _ = as_judged(-data.images, data.value_range, data.spectrogram)
    np.testing.assert_allclose(same, judged, atol=1e-4)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"front_end": "stft"}, "expected sounds of one sample rate, .*--sample-rate 4000"),
        ({"front_end": "stft", "sample_rate": RATE}, "expected signals of one size"),
        ({"front_end": "mfcc", "size": 600}, "front_end: expected one of stft, got 'mfcc'"),
        ({"sample_rate": 0}, "sample_rate: expected 1 to 1,000,000 Hz, got 0"),
        (
            {"front_end": "stft", "sample_rate": RATE, "size": 100},
            "expected at least one window of 128 samples, got 100",
        ),
    ],
)
def test_sounds_that_cannot_be_read(folder, keys, message):
    with pytest.raises(vaeaug.DataError, match=message):
        vaeaug.read(folder, **keys)


def test_images_have_no_front_end(tmp_path):
    with pytest.raises(vaeaug.DataError, match="expected signals for front_end='stft', got images"):
        vaeaug.read("digits", front_end="stft")
    with pytest.raises(vaeaug.DataError, match="sample_rate= is for sounds"):
        vaeaug.read("digits", sample_rate=8000)
    with pytest.raises(vaeaug.DataError, match="expected sounds of 8000 Hz"):
        vaeaug.read(tones(), sample_rate=8000)
    with pytest.raises(vaeaug.ConfigError, match=r"expected none with data\.front_end stft"):
        vaeaug.fit(tones(), tiny_config(**{"model.codec": "codec.py:network"}), progress=False)


def test_a_file_of_an_absurd_rate_is_left_out(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with wave.open(str(tmp_path / name / "x.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(1 if name == "a" else 2**31 - 1)
            file.writeframes(b"\0\1" * 2000)
    with pytest.raises(vaeaug.DataError, match="too many at 48000 Hz"):
        vaeaug.read(tmp_path, sample_rate=48_000, size=1000)
