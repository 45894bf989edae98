"""Lossless compression on real digits: bytes come back equal, and damage is told."""

import io
import json
import zlib

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import vaeaug
from vaeaug.cli import main
from vaeaug.compression import container, exact
from vaeaug.compression.entropy import BitStack
from vaeaug.compression.levels import find_levels, level_edges, level_sets, rounded_to

pytest.importorskip("constriction")

# CRC-32 of the tables that files were written with: others could not read them.
TABLES = [3771238796, 962177672, 756988348, 3988494416]


@pytest.fixture(scope="module")
def coder(digits):
    return vaeaug.fit_coder(digits, steps=60, units=24, depth=1, seed=0, progress=False)


@pytest.fixture(scope="module")
def generator(digits, small_config):
    # A dear style: what it says is not said by the detail again, which would be coded too.
    keys = {"model.style_beta": 5.0, "training.learning_rate": 0.002, "restoration.steps": 0}
    dear = small_config.changed(**keys)
    return vaeaug.fit(digits, dear, device="cpu", progress=False)


@pytest.fixture(scope="module")
def bits_back(digits, generator):
    return vaeaug.fit_coder(digits, generator, steps=3, units=16, depth=1, seed=0, progress=False)


@pytest.fixture(scope="module")
def held_out():
    return vaeaug.read("digits", split="test")


# -- Round trips -------------------------------------------------------------------------------


def test_any_order_and_any_batch_gives_the_same_bytes_back(coder, held_out):
    order = np.random.default_rng(0).permutation(len(held_out))[:70]
    for rows in (order, order[::-1], order[:1], order[:7], order[:0]):
        images, labels = held_out.images[rows], held_out.labels[rows]
        made = vaeaug.compress(coder, images, labels)
        again, again_labels = vaeaug.decompress(made.content, coder)
        np.testing.assert_array_equal(again, images)
        np.testing.assert_array_equal(again_labels, labels)
        assert made.content == vaeaug.compress(coder, images, labels, verify=False).content


def coded(coder, images, labels):
    """Bits that a coder takes, once what it wrote is known to come back."""
    stack, sizes, _ = coder.encode(images, labels)
    again, again_labels = coder.decode(BitStack(stack.words), sizes)
    np.testing.assert_array_equal(again, images)
    np.testing.assert_array_equal(again_labels, labels)
    return stack.n_bits


def test_bits_come_back_and_cost_less_than_quantised_latents(bits_back, held_out):
    images, labels = held_out.images[:60], held_out.labels[:60]
    bits = coded(bits_back, images, labels)
    bits_back.latents = "centred"
    try:
        centred = coded(bits_back, images, labels)
    finally:
        bits_back.latents = "bits_back"
    assert bits < centred


def test_colour_images_come_back(digits, held_out):
    def coloured(data):
        shades = [data.images, data.images // 2, 255 - data.images]
        return np.concatenate(shades, axis=3)

    data = vaeaug.LabelledImages(
        images=coloured(digits),
        labels=digits.labels,
        class_names=digits.class_names,
        value_range=(0, 255),
        split="train",
        source="coloured digits",
    )
    coder = vaeaug.fit_coder(data, steps=20, units=8, depth=1, seed=0, progress=False)
    images = coloured(held_out)[:20]
    assert coded(coder, images, held_out.labels[:20]) < 8 * images.size


# -- Sizes -------------------------------------------------------------------------------------


def test_files_are_smaller_than_png(coder, held_out):
    images, labels = held_out.images[:150], held_out.labels[:150]
    side = io.BytesIO()
    Image.fromarray(images[..., 0].reshape(-1, 8)).save(side, "PNG", optimize=True)
    assert len(vaeaug.compress(coder, images, labels).content) < 0.8 * len(side.getvalue())


def test_noise_takes_no_more_than_its_raw_values(coder):
    noise = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    made = vaeaug.compress(coder, noise, np.zeros(40, np.int64))
    assert len(made.content) < noise.size + 150
    assert (vaeaug.decompress(made.content, coder)[0] == noise).all()


def test_what_deflates_better_is_deflated(coder):
    same = np.tile(np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), np.uint8), (80, 1, 1, 1))
    made = vaeaug.compress(coder, same, np.zeros(80, np.int64))
    assert made.method == "deflate"
    assert (vaeaug.decompress(made.content, None)[0] == same).all()


def restored_to(images, levels):
    return rounded_to(images, levels - 1)[0]


def test_fewer_levels_are_smaller_and_no_value_moves_far(coder, digits, held_out):
    images, labels = held_out.images[:40], held_out.labels[:40]
    sizes = []
    for levels in (2, 4, 8):
        made = vaeaug.compress(coder, images, labels, levels=levels)
        restored, same = vaeaug.decompress(made.content, coder)
        np.testing.assert_array_equal(same, labels)
        assert len(np.unique(restored)) <= levels
        assert np.abs(restored.astype(int) - images).max() <= 127.5 / (levels - 1) + 0.5
        sizes.append(len(made.content))
    assert sizes == sorted(sizes)
    # One that was trained on such images alone knows them better.
    other = vaeaug.fit_coder(
        digits, steps=60, units=24, depth=1, rounded=1.0, seed=0, progress=False
    )
    made = vaeaug.compress(other, images, labels, levels=4)
    assert (vaeaug.decompress(made.content, other)[0] == restored_to(images, 4)).all()
    assert len(made.content) < sizes[1]
    with pytest.raises(vaeaug.CompressionError, match="2 to 255 levels, got 256"):
        vaeaug.compress(coder, images, labels, levels=256)


# -- Refusals ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content(coder, held_out):
    return vaeaug.compress(coder, held_out.images[:9], held_out.labels[:9]).content


def test_every_cut_is_told(coder, content):
    for length in range(len(content)):
        with pytest.raises(vaeaug.CompressionError, match=r"cut off|starts with|damaged"):
            vaeaug.decompress(content[:length], coder)


def test_a_flipped_bit_never_gives_other_images(coder, content):
    rng = np.random.default_rng(0)
    for place in rng.choice(len(content), 60, replace=False):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(vaeaug.CompressionError):
            vaeaug.decompress(bytes(damaged), coder)


def test_another_coder_is_refused(digits, content):
    other = vaeaug.fit_coder(digits, steps=1, units=8, depth=1, seed=1, progress=False)
    with pytest.raises(vaeaug.CompressionError, match=r"expected the coder [0-9a-f]{8} that the"):
        vaeaug.decompress(content, other)
    with pytest.raises(vaeaug.CompressionError, match="got none"):
        vaeaug.decompress(content, None)


def test_other_images_are_refused(coder, digits, unchecked):
    with pytest.raises(vaeaug.CompressionError, match=r"uint8 images of shape \(n, 8, 8, 1\)"):
        vaeaug.compress(coder, np.zeros((2, 9, 8, 1), np.uint8), np.zeros(2, np.int64))
    with pytest.raises(vaeaug.CompressionError, match="labels from 0 to 9, got 0 to 10"):
        vaeaug.compress(coder, digits.images[:2], np.array([0, 10]))
    signals = vaeaug.LabelledImages(
        images=np.zeros((4, 70, 70, 1), np.uint8),
        labels=np.zeros(4, np.int64),
        class_names=("one",),
        value_range=(0, 255),
        split="train",
    )
    with pytest.raises(vaeaug.CompressionError, match="8 to 64 pixels a side with 1 or 3"):
        vaeaug.fit_coder(signals, progress=False)


def test_a_coder_file_needs_its_generator(bits_back, generator, tmp_path):
    path = bits_back.save(tmp_path / "coder.safetensors")
    assert vaeaug.load_coder(path, generator).sha256 == bits_back.sha256
    with pytest.raises(vaeaug.CompressionError, match=r"expected the generator [0-9a-f]{12}"):
        vaeaug.load_coder(path)
    (tmp_path / "text").write_text("no")
    with pytest.raises(vaeaug.CompressionError, match="text: not a coder"):
        vaeaug.load_coder(tmp_path / "text")


# -- Exactness ---------------------------------------------------------------------------------


def test_probabilities_do_not_depend_on_the_batch(coder, held_out):
    rng = np.random.default_rng(0)
    features = rng.integers(0, 256, (300, coder.context.n_inputs)).astype(np.float32)
    labels = np.resize(held_out.labels, 300).astype(np.int64)
    together = coder.network.parameters(features, 3, 4, labels, 0)
    for rows in (slice(0, 1), slice(5, 12), slice(100, 300)):
        alone = coder.network.parameters(features[rows], 3, 4, labels[rows], 0)
        np.testing.assert_array_equal(alone, together[rows])


def test_tables_are_those_of_the_functions_and_never_change():
    table = exact.logistic_table()
    x = np.arange(len(table)) / 2**exact.LOGISTIC_STEP - exact.LOGISTIC_REACH
    logistic = 1 / (1 + np.exp(-x[1:-1]))
    np.testing.assert_allclose(table[1:-1] / 2**24, logistic, rtol=0, atol=0.51 / 2**24)
    assert (np.diff(table) >= 0).all()
    tables = (table, exact.weight_table(), exact.inverse_scale_table(), level_edges()[0])
    sums = [zlib.crc32(each.astype("<i8").tobytes()) for each in tables]
    assert sums == TABLES


def test_stretched_images_are_found():
    rng = np.random.default_rng(0)
    for number in (40 * 3 + 1, 100 * 3 + 2, 180 * 3 + 3):
        levels = level_sets()[number]
        images = rng.choice(levels, (3, 16, 16, 1)).astype(np.uint8)
        found = find_levels(images)
        assert (level_edges()[1][found] <= len(levels)).all()
        for image, index in zip(images, found, strict=True):
            assert np.isin(image, level_sets()[index]).all()
    assert (find_levels(rng.integers(0, 256, (3, 32, 32, 1), np.uint8)) == 0).all()


def test_counts_of_any_size_are_read_as_written():
    for n in (0, 127, 128, 300_000):
        header = container.Header(container.LOSSY, b"abcd", (8, 8, 1), n, 7)
        assert container.unpacked(container.packed(header, b"")) == (header, b"")


# -- The command line --------------------------------------------------------------------------


def test_coder_compress_and_decompress(tmp_path):
    def run(*arguments):
        result = CliRunner().invoke(main, [str(each) for each in arguments])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    coder, file, back = (tmp_path / name for name in ("c.safetensors", "digits.vaec", "back.h5"))
    trained = run("coder", "digits", "--to", coder, "--steps", 20, "--json")
    made = run("compress", coder, "digits", "--split", "test", "--to", file, "--json")
    assert made["bytes"] == file.stat().st_size
    assert made["bits_per_value"] < 8
    assert trained["bytes"] == made["coder_bytes"]
    run("decompress", file, coder, "--to", back, "--json")
    data, again = vaeaug.read("digits", split="test"), vaeaug.read(back)
    np.testing.assert_array_equal(again.images, data.images)
    np.testing.assert_array_equal(again.labels, data.labels)
    assert again.class_names == data.class_names
    result = CliRunner().invoke(main, ["decompress", str(coder), str(coder), "--to", str(back)])
    assert result.exit_code == 1
    assert "starts with b'VAEC'" in result.stderr
