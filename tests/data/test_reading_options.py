"""The options of reading: on every command that reads data, into the run, and out in its record."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from small_job import TINY

import vaeaug
from vaeaug.cli import main

SETTINGS = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
READERS = ("augment", "plan", "train", "generate", "screen", "encode", "reconstruct", "denoise")


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def photos(tmp_path):
    """Two classes: 12 and 10 images of 8 x 12 pixels, the last of each damaged."""
    rng = np.random.default_rng(0)
    for name, n in (("cat", 12), ("dog", 10)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (8, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i:02d}.png")
        (tmp_path / "photos" / name / "zz.png").write_bytes(b"broken")
    return tmp_path / "photos"


@pytest.fixture
def twelve_bit(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 4000, (24, 8, 8)).astype("uint16")
    np.savez(tmp_path / "deep.npz", images=images, labels=np.arange(24) % 2)
    return tmp_path / "deep.npz"


@pytest.mark.parametrize("verb", READERS)
def test_every_command_that_reads_data_has_them(verb):
    shown = run(verb, "--help").output
    for option in ("--value-range LOW,HIGH", "--resize", "--mode", "--on-error", "--size"):
        assert option in shown


def test_what_is_left_out_is_in_the_record_of_the_run(photos, tmp_path):
    out = tmp_path / "out"
    refused = run("augment", photos, "--out", out, *SETTINGS)
    assert refused.exit_code == 1
    assert "2 of 24 cannot be read" in refused.stderr
    assert "cat/zz.png" in refused.stderr
    assert "dog/zz.png" in refused.stderr
    assert not out.exists()
    options = ["--on-error", "skip", "--size", "8x8", "--resize", "pad", "--mode", "RGB"]
    done = run("augment", photos, "--out", out, *SETTINGS, *options)
    assert done.exit_code in (0, 4), done.output
    assert "skipped 2 of 24 because they cannot be read" in done.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["data"]["counts"] == [12, 10]
    assert record["data"]["image_shape"] == [8, 8, 3]
    notes = "\n".join(record["data"]["notes"])
    for part in ("cat/zz.png", "dog/zz.png", "padded to keep the aspect", "mode='RGB'"):
        assert part in notes
    assert record["config"]["data"]["on_error"] == "skip"
    # What a run has read, its later commands read alike.
    again = vaeaug.merge(
        vaeaug.read(photos, size=8, resize="pad", mode="RGB", on_error="skip"), out
    )
    assert len(again) > 22


def test_a_range_is_said_once_and_kept(twelve_bit, tmp_path):
    out = tmp_path / "out"
    planned = run("plan", twelve_bit)
    assert planned.exit_code == 0
    assert "12 bit" in planned.stderr
    assert "--value-range 0,4095" in planned.stderr
    done = run("train", twelve_bit, "--out", out, *SETTINGS, "--value-range", "0,4095")
    assert done.exit_code == 0, done.output
    images = np.load(twelve_bit)["images"] // 16
    np.savez(tmp_path / "dark.npz", images=images, labels=np.arange(24) % 2)
    model, codes = out / "model", tmp_path / "codes.h5"
    refused = run("encode", model, tmp_path / "dark.npz", "--to", codes)
    assert refused.exit_code == 1
    assert "got (0, 255)" in refused.stderr
    assert "--value-range 0,4095" in refused.stderr
    done = run("encode", model, tmp_path / "dark.npz", "--to", codes, "--value-range", "0,4095")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--value-range", "0"], "--value-range: expected LOW,HIGH such as 0,4095, got '0'"),
        (["--value-range", "0,1,2"], "expected LOW,HIGH"),
        (["--value-range", "a,b"], "expected LOW,HIGH"),
        (["--value-range", "1,0"], "data.value_range: Value error, expected (low, high), low <"),
        (["--value-range", "0,nan"], "data.value_range: Input should be a finite number"),
        (["--resize", "fit"], "'fit' is not one of 'crop', 'pad', 'stretch'"),
        (["--mode", "CMYK"], "'CMYK' is not one of"),
        (["--on-error", "ignore"], "'ignore' is not one of"),
    ],
)
def test_a_usage_error_says_what_was_expected(arguments, message):
    result = run("plan", "digits", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_range_below_zero_needs_no_quotes(tmp_path):
    images = np.linspace(-1000, 3000, 20 * 64).reshape(20, 8, 8).astype("int16")
    np.savez(tmp_path / "ct.npz", images=images, labels=np.arange(20) % 2)
    done = run("plan", tmp_path / "ct.npz", "--value-range", "-1024,3071")
    assert done.exit_code == 0, done.output
    assert "taken from their values" not in done.stderr


def test_folders_that_are_classes_can_be_named(tmp_path):
    for k, (fold, label) in enumerate((f, c) for f in ("x", "y") for c in "ab"):
        (tmp_path / fold / label).mkdir(parents=True)
        for i in range(9):
            colour = 40 * k + i
            Image.new("L", (8, 8), colour).save(tmp_path / fold / label / f"{i}.png")
    refused = run("plan", tmp_path)
    assert refused.exit_code == 1
    assert "--set 'data.class_names=[x, y, ...]'" in refused.stderr
    done = run("plan", tmp_path, "--set", "data.class_names=[x, y]", "--json")
    assert done.exit_code == 0, done.output
    assert "'x'" in str(json.loads(done.stdout))


def test_columns_of_a_table_can_be_named(photos):
    for broken in photos.glob("*/zz.png"):
        broken.unlink()
    rows = [f"{path.relative_to(photos)},{path.parent.name}" for path in photos.glob("*/*.png")]
    table = photos / "list.csv"
    table.write_text("where,what\n" + "\n".join(rows) + "\n")
    refused = run("plan", table)
    assert refused.exit_code == 1
    option = "data.keys={images: where, labels: what}"
    assert f"--set '{option}'" in refused.stderr
    done = run("plan", table, "--set", option, "--json")
    assert done.exit_code == 0, done.output
    assert [each["real"] for each in json.loads(done.stdout)["classes"]] == [12, 10]


def test_sounds_are_cut_to_so_many_samples(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    rng = np.random.default_rng(0)
    for name in ("low", "high"):
        (tmp_path / name).mkdir()
        for i in range(9):
            sound = rng.uniform(-0.5, 0.5, 60 + i).astype("float32")
            soundfile.write(tmp_path / name / f"{i}.wav", sound, 8000)
    refused = run("plan", tmp_path)
    assert refused.exit_code == 1
    assert "pass size= (--size N), for example 64" in refused.stderr
    done = run("plan", tmp_path, "--size", "64")
    assert done.exit_code == 0, done.output
    assert "cut at both ends to 64 samples (resize='crop') (8 of 18 signals)" in done.stderr
