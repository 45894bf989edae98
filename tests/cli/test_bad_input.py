"""Bad input gets a clear error that says what, where, expected and got, and loses nothing."""

import re

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vaeaug.cli import main
from vaeaug.report.embedded import embedded_picture

TINY = [
    *("--set", "training.steps=4", "--set", "training.adapt_steps=2", "--set", "model.width=8"),
    *("--set", "screening.classifier_steps=2"),
]


def augment(source, out, *options):
    return CliRunner().invoke(main, ["augment", str(source), "--out", str(out), *TINY, *options])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten 8 x 8 images."""
    root = tmp_path / "images"
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def refused(result, code, *parts):
    assert result.exit_code == code, result.output
    for part in parts:
        assert str(part) in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def npz(path, images, labels):
    np.savez(path, images=images, labels=labels)
    return path


def test_an_empty_folder(tmp_path, out):
    (tmp_path / "empty").mkdir()
    refused(augment(tmp_path / "empty", out), 1, tmp_path / "empty", "expected")
    assert not out.exists()


def test_a_path_that_is_not_there(tmp_path, out):
    refused(augment(tmp_path / "nothing", out), 1, tmp_path / "nothing")
    assert not out.exists()


def test_one_class(folder, out):
    for image in (folder / "dog").iterdir():
        image.unlink()
    (folder / "dog").rmdir()
    refused(augment(folder, out), 1, folder, "expected images of at least two classes, got 10")
    assert not out.exists()


@pytest.mark.parametrize("kept", [0, 60])
def test_an_empty_or_truncated_image(kept, folder, out):
    victim = folder / "dog" / "3.png"
    victim.write_bytes(victim.read_bytes()[:kept])
    refused(augment(folder, out), 1, victim)
    assert not out.exists()


def test_mixed_channels(folder, out):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "cat" / "2.png")
    refused(augment(folder, out), 1, "2.png", "channels")


def test_sizes_that_differ_unless_resized(folder, out):
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(folder / "cat" / "2.png")
    refused(augment(folder, out), 1, "2.png", "--size")
    done = CliRunner().invoke(main, ["plan", str(folder), "--size", "8x8"])
    assert done.exit_code == 0, done.output


def test_a_label_below_zero(tmp_path, out):
    path = npz(tmp_path / "a.npz", np.zeros((6, 8, 8), np.uint8), np.array([0, 1, 0, 1, -3, 1]))
    refused(augment(path, out), 1, path, "-3")


def test_a_float_image_that_is_not_finite(tmp_path, out):
    images = np.random.default_rng(0).random((6, 8, 8), dtype=np.float32)
    images[4, 2, 2] = np.nan
    path = npz(tmp_path / "a.npz", images, np.arange(6) % 2)
    refused(augment(path, out), 1, path, "4")


def test_an_npz_with_objects(tmp_path, out):
    path = npz(tmp_path / "a.npz", np.array([{"pickled": 1}] * 4, dtype=object), np.arange(4) % 2)
    refused(augment(path, out), 1, path, "object")


def test_an_hdf5_file_with_an_external_link(tmp_path, out):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["images"] = np.zeros((4, 8, 8), np.uint8)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["images"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/images")
        file["labels"] = np.arange(4) % 2
    refused(augment(path, out), 1, path, "external link", "secret.h5")


def test_an_unknown_key_names_the_nearest(out):
    refused(
        augment("digits", out, "--set", "model.betta=2"),
        2,
        "model.betta",
        "did you mean 'model.beta'",
    )
    refused(augment("digits", out, "--set", "traning.steps=2"), 2, "traning", "training.steps")
    assert not out.exists()


def test_a_strategy_that_asks_for_fewer_than_there_are(out):
    result = augment("digits", out, "--sampling-strategy", "{3: 10}")
    refused(
        result, 2, "class '3' has 147 real images and a total of 10 is requested", "at least 147"
    )
    assert not out.exists()


def test_an_out_of_another_configuration(folder, out):
    assert augment(folder, out).exit_code in (0, 4)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    refused(augment(folder, out, "--seed", "9"), 2, out, "seed: 0 -> 9", "--no-resume")
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_an_out_that_is_something_else(folder, out):
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    refused(augment(folder, out), 1, out, "thesis.txt", "expected an empty folder")
    refused(augment(folder, out, "--no-resume"), 1, "thesis.txt")
    assert (out / "thesis.txt").read_text() == "precious"


def test_an_out_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    refused(augment(folder, tmp_path / "file" / "out"), 1, tmp_path / "file")
    refused(augment(folder, "/proc/vaeaug"), 1, "/proc/vaeaug")


def test_no_space(folder, out):
    result = augment(folder, out, "--sampling-strategy", f"{{cat: {10**13}}}")
    refused(result, 1, out, "no space", "free")
    assert not (out / "manifest.json").exists()


def test_a_picture_of_a_run_is_a_png_and_starts_no_other_program(tmp_path, caplog):
    path = tmp_path / "traversals.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with Image.open(path) as file:
        assert file.format == "EPS"  # which Pillow gives to Ghostscript when it is read
    assert embedded_picture(path) is None
    assert re.search(r"traversals\.png: cannot be read \(cannot identify image file", caplog.text)
