"""Lossy compression on real digits: rate buys fidelity, and files are what they say."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import vaeaug
from vaeaug.cli import main
from vaeaug.compression import QUALITIES

pytest.importorskip("constriction")


@pytest.fixture(scope="module")
def coder(digits, synthesizer):
    return vaeaug.fit_lossy_coder(digits, synthesizer)


@pytest.fixture(scope="module")
def held_out():
    return vaeaug.read("digits", split="test")


def test_more_bits_mean_less_loss(coder, held_out):
    images, labels = held_out.images[:120], held_out.labels[:120]
    sizes, errors = [], []
    for quality in range(1, len(QUALITIES) + 1):
        made = coder.compress(images, labels, quality=quality)
        restored, same = coder.decompress(made.content)
        np.testing.assert_array_equal(same, labels)
        sizes.append(len(made.content))
        errors.append(np.square(restored.astype(float) - images).mean())
    assert sizes[3:] == sorted(sizes[3:])
    assert errors[3:] == sorted(errors[3:], reverse=True)
    assert sizes[0] < sizes[-1] / 3
    # A step of eight gray levels: the error of rounding is 8**2 / 12, and some is rounded to zero.
    assert errors[-1] < 3 * 8**2 / 12


def test_batches_give_the_same_images(coder, held_out):
    images, labels = held_out.images[:40], held_out.labels[:40]
    together = coder.decompress(coder.compress(images, labels, quality=8).content)[0]
    for rows in (slice(0, 1), slice(3, 20)):
        alone = coder.decompress(coder.compress(images[rows], labels[rows], quality=8).content)[0]
        np.testing.assert_array_equal(alone, together[rows])


def test_damage_is_told(coder, held_out):
    content = coder.compress(held_out.images[:9], held_out.labels[:9], quality=7).content
    for length in range(0, len(content), 5):
        with pytest.raises(vaeaug.CompressionError):
            coder.decompress(content[:length])
    rng = np.random.default_rng(0)
    unused = content.index(bytes([7, 0, 0, 0])) + np.arange(1, 4)  # beside the quality
    for place in np.setdiff1d(rng.choice(len(content), 20, replace=False), unused):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(vaeaug.CompressionError):
            coder.decompress(bytes(damaged))


def test_wrong_quality_and_wrong_generator(coder, digits, small_config, tmp_path):
    with pytest.raises(vaeaug.CompressionError, match="a quality from 1 to 13, got 14"):
        coder.compress(digits.images[:2], digits.labels[:2], quality=14)
    path = coder.save(tmp_path / "lossy.safetensors")
    with pytest.raises(vaeaug.CompressionError, match=r"expected the generator .* got none"):
        vaeaug.load_coder(path)
    other = vaeaug.fit(digits, small_config.changed(**{"training.steps": 1, "seed": 9}))
    with pytest.raises(vaeaug.CompressionError, match=r"lossy\.safetensors: expected the gener"):
        vaeaug.load_coder(path, other)


def test_the_command_line_says_what_is_lost(coder, synthesizer, tmp_path):
    synthesizer.save(tmp_path / "model")
    coder.save(tmp_path / "lossy.safetensors")
    common = ["--generator", str(tmp_path / "model"), "--json", "--to"]
    file, back = str(tmp_path / "digits.vaec"), str(tmp_path / "back.h5")
    words = ["compress", str(tmp_path / "lossy.safetensors"), "digits", "--split", "test"]
    result = CliRunner().invoke(main, [*words, "--quality", "11", *common, file])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["psnr"] > 20
    words = ["decompress", file, str(tmp_path / "lossy.safetensors")]
    result = CliRunner().invoke(main, [*words, *common, back])
    assert result.exit_code == 0, result.output
    assert len(vaeaug.read(back)) == len(vaeaug.read("digits", split="test"))
