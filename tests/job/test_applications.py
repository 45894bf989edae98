"""Cleaning up, compressing, looking inside: methods and verbs on real digits."""

import json
import re

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import vaeaug
from vaeaug.cli import main
from vaeaug.job.applications import (
    ApplicationError,
    add_noise,
    decode_from,
    encode_to,
    likeness,
    traverse,
    write_like,
    write_traversal,
)


@pytest.fixture(scope="module")
def saved(synthesizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generator")
    synthesizer.save(folder)
    return folder


def run(*arguments):
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result


# -- Likeness ----------------------------------------------------------------------------------


def test_psnr_of_a_known_error():
    flat = np.zeros((2, 8, 8, 1), np.uint8)
    shifted = np.full_like(flat, 51)  # a fifth of the range: -20 log10(0.2) dB
    found = likeness(shifted, flat, (0.0, 255.0))
    assert found.psnr == pytest.approx(-20 * np.log10(0.2))
    assert found.mse == pytest.approx(0.04)


@pytest.mark.parametrize("shape", [(5, 40, 2), (5, 8, 8, 1), (5, 4, 9, 9, 1)])
def test_a_copy_is_like_itself_and_noise_is_not(shape):
    images = np.random.default_rng(0).random(shape).astype(np.float32)
    same = likeness(images, images, (0.0, 1.0))
    assert same.ssim == pytest.approx(1.0)
    assert same.mse == 0
    noisy = add_noise(images, (0.0, 1.0), sigma=0.3, seed=0)
    assert likeness(noisy, images, (0.0, 1.0)).ssim < 0.95


def test_noise_has_the_asked_size_and_stays_in_range():
    images = np.full((50, 8, 8, 1), 128, np.uint8)
    noisy = add_noise(images, (0.0, 255.0), sigma=0.1, seed=1)
    assert noisy.dtype == np.uint8
    # 3,200 draws: the standard deviation is known to 1.25 %, five of these are 6 %.
    assert np.std(noisy.astype(float) - 128) == pytest.approx(25.5, rel=0.07)
    np.testing.assert_array_equal(noisy, add_noise(images, (0.0, 255.0), sigma=0.1, seed=1))


# -- Compression -------------------------------------------------------------------------------


def test_latents_go_to_a_file_and_back(synthesizer, digits, tmp_path):
    path = tmp_path / "z.h5"
    figures = encode_to(path, synthesizer, digits)
    images, labels = decode_from(path, synthesizer)
    np.testing.assert_array_equal(labels, digits.labels)
    direct = synthesizer.reconstruct(digits.images, digits.labels)
    # Steps of a posterior standard deviation move pixels less than the decoder's own error does.
    moved = np.abs(images.astype(int) - direct.astype(int)).mean()
    assert moved < 0.2 * np.abs(direct.astype(int) - digits.images.astype(int)).mean()
    assert figures["stored_bits_per_value"] < 4
    assert figures["reconstruction"] == vars(likeness(images, digits.images, (0.0, 255.0)))
    with h5py.File(path) as file:
        assert file["z"].dtype == np.int16
        whole = file["z"][:] * file["step"][:]
    exact = synthesizer.encode(digits.images, digits.labels)
    step = np.sqrt(synthesizer.variances.mean(axis=0))
    assert (np.abs(whole - exact) <= 0.5 * step + 1e-5).all()


def test_bits_per_value_beat_the_raw_pixels(synthesizer, digits, tmp_path):
    figures = encode_to(tmp_path / "z.h5", synthesizer, digits)
    assert 0 < figures["bits_per_value"] < 8


def test_latents_of_another_generator_are_refused(synthesizer, digits, small_config, tmp_path):
    encode_to(tmp_path / "z.h5", synthesizer, digits)
    other = vaeaug.fit(digits, small_config.changed(**{"training.steps": 1, "seed": 9}))
    with pytest.raises(ApplicationError, match=r"z\.h5: expected latents of this generator \("):
        decode_from(tmp_path / "z.h5", other)


def test_a_file_of_something_else_is_refused(synthesizer, tmp_path):
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(ApplicationError, match=r"text\.h5: not a file of latents"):
        decode_from(tmp_path / "text.h5", synthesizer)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["z"] = np.zeros(3)
    with pytest.raises(ApplicationError, match="expected vaeaug-latents version 1, got None"):
        decode_from(tmp_path / "other.h5", synthesizer)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("z", np.zeros((3, 2), np.int16), r"z: expected i of shape \(\d+, \d+\), got int16"),
        ("step", np.zeros(3), r"step: expected f of shape .*, got float64 of shape \(3,\)"),
        ("labels", np.zeros((2, 2), np.int64), r"expected i of shape"),
        ("labels", None, "not a file of latents"),
        ("labels", 99, r"expected labels in 0\.\.9, got 99 to 99"),
    ],
)
def test_damaged_latents_are_refused(synthesizer, digits, tmp_path, name, value, message):
    path = tmp_path / "z.h5"
    encode_to(path, synthesizer, digits)
    with h5py.File(path, "a") as file:
        if value is None:
            del file[name]
        elif isinstance(value, int):
            file[name][...] = value
        else:
            del file[name]
            file[name] = value
    with pytest.raises(ApplicationError, match=message):
        decode_from(path, synthesizer)


def test_other_classes_are_refused(synthesizer, digits, tmp_path):
    other = vaeaug.LabelledImages(
        digits.images, digits.labels, tuple("abcdefghij"), digits.value_range
    )
    with pytest.raises(ApplicationError, match=r"expected the classes .*, got a, b"):
        encode_to(tmp_path / "z.h5", synthesizer, other)


def test_written_images_are_read_again(synthesizer, digits, tmp_path):
    path = write_like(tmp_path / "x.h5", synthesizer, digits.images, digits.labels)
    again = vaeaug.read(path)
    np.testing.assert_array_equal(again.images, digits.images)
    assert again.class_names == digits.class_names


# -- Traversals --------------------------------------------------------------------------------


def test_the_middle_of_a_traversal_is_the_mean_of_the_class(synthesizer):
    names, images = traverse(synthesizer, 3, n_units=5, steps=7)
    mean = synthesizer.means[synthesizer.rows[3]].mean(axis=0, keepdims=True)
    middle = synthesizer.decode(mean, [3])[0].astype(int)
    assert len(names) == 5
    assert images.shape == (5, 7, 8, 8, 1)
    assert all(np.abs(row[3].astype(int) - middle).max() <= 1 for row in images)


def test_the_first_unit_is_the_one_of_the_style_that_varies_most(synthesizer):
    names, images = traverse(synthesizer, 0, n_units=32)
    deviation = synthesizer.means[synthesizer.rows[0]].std(axis=0)
    style = synthesizer.model.style_dim
    assert 0 < style < 32
    assert names[0] == f"unit {deviation[:style].argmax()}"
    assert (images[0, 0] != images[0, -1]).any()


def test_a_traversal_is_drawn(synthesizer, tmp_path):
    path = write_traversal(tmp_path / "t.png", synthesizer, ["0", "1"], n_units=3)
    with Image.open(path) as image:
        picture = np.asarray(image.convert("L"))
    assert picture.shape[0] > 2 * 3 * 48
    assert picture.std() > 20


# -- Verbs -------------------------------------------------------------------------------------


def test_encode_and_decode(saved, tmp_path):
    figures = json.loads(run("encode", saved, "digits", "--to", tmp_path / "z.h5", "--json").stdout)
    assert figures["n"] == len(vaeaug.read("digits"))
    run("decode", tmp_path / "z.h5", saved, "--to", tmp_path / "x.h5")
    assert len(vaeaug.read(tmp_path / "x.h5")) == figures["n"]


def test_reconstruct(saved, tmp_path):
    result = run("reconstruct", saved, "digits", "--to", tmp_path / "x.h5", "--split", "test")
    assert "PSNR" in result.stdout
    assert len(vaeaug.read(tmp_path / "x.h5")) == len(vaeaug.read("digits", split="test"))


def test_denoise_reports_before_and_after(saved, tmp_path):
    command = ("denoise", saved, "digits", "--to", tmp_path / "x.h5", "--split", "test")
    document = json.loads(run(*command, "--noise", "0.4", "--json").stdout)
    # The small test generator is no master, but noise this strong it takes away.
    assert document["cleaned"]["psnr"] > document["noisy"]["psnr"]
    printed = run(*command, "--noise", "0.4", "--use-labels").stdout
    assert re.search(r"noisy PSNR [\d.]+ dB, SSIM [\d.]+; cleaned PSNR", printed)


def test_traverse_and_export(saved, tmp_path):
    path = run("traverse", saved, "--to", tmp_path / "t.png", "--class", "3").stdout.strip()
    with Image.open(path) as picture:
        assert picture.size[0] > 300
    assert run("export", saved, "--to", tmp_path / "d.pt2").stdout.strip().endswith("d.pt2")


def test_an_unknown_class_is_named(saved, tmp_path):
    result = CliRunner().invoke(
        main, ["traverse", str(saved), "--to", str(tmp_path / "t.png"), "--class", "cat"]
    )
    assert result.exit_code == 1
    assert "unknown class 'cat'; expected one of 0, 1" in result.output
