"""Folders and tables of sounds: signals of one length, from soundfile."""

import sys

import numpy as np
import pytest

from vaeaug.data import DataError, read, read_pool

soundfile = pytest.importorskip("soundfile")
RATE = 8000


def tone(n, frequency, channels=1):
    wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(n) / RATE)
    return np.repeat(wave[:, None], channels, axis=1).astype("float32")


@pytest.fixture
def sounds(tmp_path):
    """sounds(low=[800, 800], high=[800]): class folders of so many samples each."""

    def make(ending=".wav", rate=RATE, channels=1, **lengths):
        for k, (label, all_lengths) in enumerate(lengths.items()):
            (tmp_path / "s" / label).mkdir(parents=True, exist_ok=True)
            for i, n in enumerate(all_lengths):
                path = tmp_path / "s" / label / f"{i}{ending}"
                soundfile.write(path, tone(n, 200 * (k + 1) + 10 * i, channels), rate)
        return tmp_path / "s"

    return make


@pytest.mark.parametrize("ending", [".wav", ".flac", ".WAV"])
def test_class_folders(sounds, ending):
    root = sounds(ending, low=[800, 800], high=[800])
    data = read(root)
    assert data.class_names == ("high", "low")
    assert data.labels.tolist() == [0, 1, 1]
    assert (data.layout, data.image_shape) == ("NLC", (800, 1))
    assert data.value_range == (-1, 1)
    # 16 bits of full scale: exact to half a step.
    np.testing.assert_allclose(data.images[1], tone(800, 200), atol=1 / 32768)
    assert f"sounds of {RATE} Hz" in data.notes


def test_several_lengths(sounds):
    root = sounds(low=[800, 1000], high=[600])
    with pytest.raises(
        DataError, match=r"signals of one size, got 3 sizes.*--size N\), for example"
    ):
        read(root)
    data = read(root, size=800)
    np.testing.assert_allclose(data.images[0, :600], tone(600, 400), atol=1 / 32768)
    assert (data.images[0, 600:] == 0).all()
    np.testing.assert_allclose(data.images[2], tone(1000, 210)[100:900], atol=1 / 32768)
    assert "filled up with silence to 800 samples (1 of 3 signals)" in data.notes
    assert "cut at both ends to 800 samples (resize='crop') (1 of 3 signals)" in data.notes
    with pytest.raises(DataError, match=r"at most 800 samples, because resize='pad' cuts nothing"):
        read(root, size=800, resize="pad")
    assert read(root, size=1000, resize="pad").image_shape == (1000, 1)
    for options in ({"size": (800, 900)}, {"size": 800, "resize": "stretch"}):
        with pytest.raises(DataError, match="one number of samples and resize='crop' or 'pad'"):
            read(root, **options)


def test_rates_and_channels_that_differ_are_refused(sounds):
    root = sounds(low=[800], high=[800])
    sounds(low=[800, 800], channels=2)
    with pytest.raises(DataError, match=r"signals of one kind, got .* with 1 channels .* with 2"):
        read(root)
    sounds(low=[800, 800], rate=16000)
    with pytest.raises(
        DataError, match=r"one sample rate, got 8000 Hz of .* and 16000 Hz of .*low"
    ):
        read(root)


def test_stereo(sounds):
    data = read(sounds(low=[800], high=[800], channels=2))
    assert data.image_shape == (800, 2)


def test_damaged_sounds(sounds):
    root = sounds(low=[800, 800, 800], high=[800])
    (root / "low" / "1.wav").write_bytes(b"RIFF broken")
    (root / "low" / "2.wav").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read(root)
    assert "2 of 4 cannot be read" in str(caught.value)
    assert "low/1.wav: expected a readable sound file, got: " in str(caught.value)
    data = read(root, on_error="skip")
    assert data.labels.tolist() == [0, 1]
    assert any("skipped 2 of 4" in note for note in data.notes)


@pytest.mark.parametrize("ending", [".wav", ".flac", ".aiff", ".ogg", ".mp3"])
def test_a_sound_that_is_cut_short_is_no_shorter_sound(sounds, ending):
    root = sounds(ending, low=[8000, 8000], high=[8000])
    assert read(root).image_shape == (8000, 1)
    path = root / "low" / f"1{ending}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"low/1\{ending}: expected a readable sound file, got: "):
        read(root, size=8000)
    assert read(root, size=8000, on_error="skip").labels.tolist() == [0, 1]


def test_a_length_that_lies_takes_no_memory(sounds):
    root = sounds(".flac", low=[800], high=[800])
    path = root / "low" / "0.flac"
    raw = bytearray(path.read_bytes())
    # The number of samples in STREAMINFO, 36 bits: 2**36 - 1.
    raw[21] |= 0x0F
    raw[22:26] = b"\xff" * 4
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"low/0\.flac: expected a readable sound file, got: "):
        read(root)


def test_images_and_sounds_together_are_refused(sounds):
    from PIL import Image

    root = sounds(low=[800], high=[800])
    Image.new("L", (4, 4)).save(root / "low" / "x.png")
    with pytest.raises(DataError, match=r"images or sounds, got both: .*x\.png and .*0\.wav, 2"):
        read(root)


def test_a_table_of_sounds_and_a_pool(sounds, tmp_path):
    root = sounds(low=[800, 800], high=[800])
    (root / "list.csv").write_text("audio,label\nlow/0,b\nlow/1.wav,a\nhigh/0.wav,a\n")
    data = read(root / "list.csv")
    assert data.labels.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(data.images, read(root).images[[1, 2, 0]])
    np.testing.assert_array_equal(read_pool(root / "low", data), read(root).images[1:])


def test_floats_beyond_full_scale(sounds, tmp_path):
    root = sounds(low=[800], high=[800])
    loud = tone(800, 300) * 2.0002
    soundfile.write(root / "low" / "0.wav", loud, RATE, subtype="FLOAT")
    data = read(root)
    assert data.images.max() == 1
    assert any("clipped to it" in note for note in data.notes)
    soundfile.write(root / "low" / "0.wav", loud * 2, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"inside value_range=\(-1, 1\)"):
        read(root)
    assert read(root, value_range=(-4, 4)).value_range == (-4, 4)


def test_without_the_library_it_says_what_to_install(sounds, monkeypatch):
    root = sounds(low=[800], high=[800])
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DataError, match=r"pip install 'vaeaug\[audio\]'"):
        read(root)
