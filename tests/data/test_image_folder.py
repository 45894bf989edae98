"""Folders of class folders: the samples of torchvision, decoding, workers and errors."""

import io
import re
import struct
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaeaug.data import DataError, read
from vaeaug.data.formats import image_files


def one_each(tmp_path: Path, **images: Image.Image) -> Path:
    """A folder with one class for each image, twice, so that the order is a, b, ..."""
    for name, image in images.items():
        (tmp_path / "one" / name).mkdir(parents=True)
        image.save(tmp_path / "one" / name / "x.png")
    return tmp_path / "one"


def test_same_samples_as_torchvision(tree):
    from torchvision.datasets import ImageFolder

    root = tree({"zebra": 3, "Ant": 2, "bee": 4})
    data = read(root)
    peer = ImageFolder(str(root))
    assert data.class_names == tuple(peer.classes) == ("Ant", "bee", "zebra")
    assert data.labels.tolist() == peer.targets
    for i, (image, _) in enumerate(peer):
        np.testing.assert_array_equal(data.images[i], np.asarray(image))
    assert data.images.dtype == np.uint8
    assert data.images.flags.c_contiguous
    assert data.split == "train"
    assert data.source == str(root)
    assert data.notes == ("no splits found: all images are taken as the training split",)


def test_splits_share_the_training_class_indices(tree):
    tree({"a": 2, "b": 3, "c": 1}, "train")
    tree({"c": 2, "a": 1}, "valid")
    root = tree({"b": 1, "c": 1}, "Test")
    assert read(root).counts.tolist() == [2, 3, 1]
    val = read(root, split="val")
    assert val.class_names == ("a", "b", "c")
    assert val.counts.tolist() == [1, 0, 2]
    assert val.split == "val"
    assert read(root, split="validation").fingerprint == val.fingerprint
    assert read(root, split="test").labels.tolist() == [1, 2]


def test_missing_split_names_those_that_exist(tree):
    tree({"a": 1, "b": 1}, "train")
    root = tree({"a": 1, "b": 1}, "test")
    with pytest.raises(
        DataError, match=r"tree: expected split 'val', got only the splits: train, test"
    ):
        read(root, split="val")
    with pytest.raises(DataError, match=r"'all' is only for data without splits.*: train, test"):
        read(root, split="all")


def test_test_split_is_not_made_up(tree):
    root = tree({"a": 2, "b": 1})
    with pytest.raises(DataError, match=r"expected split 'test', got data without splits"):
        read(root, split="test")
    everything = read(root, split="all")
    assert len(everything) == 3
    assert everything.notes == ()


def test_a_class_may_be_called_train(tree):
    data = read(tree({"bus": 2, "train": 1}))
    assert data.class_names == ("bus", "train")
    assert data.counts.tolist() == [2, 1]


def test_split_folders_without_classes_are_refused(tree):
    root = tree({"test": 2, "train": 2})
    with pytest.raises(DataError, match=r"class folders inside the split folders test, train"):
        read(root)


def test_two_folders_for_one_split_are_refused(tree):
    tree({"a": 1, "b": 1}, "val")
    root = tree({"a": 1, "b": 1}, "valid")
    with pytest.raises(DataError, match=r"one folder for the split 'val', got 'val' and 'valid'"):
        read(root, split="val")


def test_folders_beside_the_splits_are_noted(tree):
    tree({"x": 1}, "extra")
    root = tree({"a": 1, "b": 1}, "train")
    assert read(root).notes == ("skipped folders beside the splits: extra",)


def test_a_class_unknown_to_training_is_refused(tree):
    tree({"a": 1, "b": 1}, "train")
    root = tree({"a": 1, "dog": 1}, "test")
    with pytest.raises(DataError, match=r"test: expected the class folders a, b, got also dog"):
        read(root, split="test")


def test_hidden_and_other_files_are_left_out(tree):
    root = tree({"a": 1, "b": 1})
    (root / "a" / "._000.png").write_bytes(b"resource fork")
    (root / "a" / "notes.txt").write_text("not an image")
    (root / ".ipynb_checkpoints").mkdir()
    data = read(root)
    assert data.class_names == ("a", "b")
    assert len(data) == 2


def test_an_empty_class_folder_is_an_error_unless_named(tree):
    root = tree({"a": 2, "b": 1})
    (root / "void").mkdir()
    with pytest.raises(DataError, match=r"images in every class folder, got none in void"):
        read(root)
    data = read(root, class_names=["void", "b", "a"])
    assert data.counts.tolist() == [0, 1, 2]


def test_empty_and_flat_folders(tmp_path, tree):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: expected images in one folder .*an empty folder"):
        read(tmp_path / "empty")
    root = tree({"a": 2, "b": 1})
    with pytest.raises(DataError, match=r"no folders and 2 files \(000.png, 001.png\)"):
        read(root / "a")
    for image in root.glob("*/*.png"):
        image.unlink()
    with pytest.raises(DataError, match="2 folders without such files"):
        read(root)


def test_one_class_is_refused_with_advice(tree):
    root = tree({"only": 3})
    with pytest.raises(
        DataError, match=r"at least two classes, got 3 images, all of class 'only'.*parent"
    ):
        read(root)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b"", r"got an empty file \(0 bytes\)"),
        (lambda b: b[: len(b) // 2], r"cannot be decoded: .*truncated"),
        (lambda b: b"not an image", r"got 12 bytes which cannot be decoded"),
        (lambda b: b[:20] + b"\xff" * 8 + b[28:], r"cannot be decoded"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_named(tree, damage, message, workers):
    root = tree({"a": 4, "b": 3})
    bad = root / "b" / "001.png"
    bad.write_bytes(damage(bad.read_bytes()))
    # A later bad file must not be the one that is named, whatever the workers do.
    (root / "b" / "002.png").write_bytes(b"")
    expected = rf"b/001.png: expected .*image file, .*{message}"
    with pytest.raises(DataError, match=expected):
        read(root, workers=workers)


def test_different_sizes_are_named_or_resized(tree):
    root = tree({"a": 2, "b": 1})
    Image.new("RGB", (9, 4)).save(root / "a" / "zz.png")
    Image.new("RGB", (30, 40), (10, 20, 30)).save(root / "b" / "zz.png")
    with pytest.raises(DataError) as caught:
        read(root)
    message = str(caught.value)
    assert "got 3 sizes" in message
    assert "a/000.png is 5x7" in message
    assert "a/zz.png is 4x9 (height x width)" in message
    assert "pass size= (--size HxW)" in message
    data = read(root, size=(6, 8))
    assert data.image_shape == (6, 8, 3)
    # A constant image stays constant under any honest resampling.
    assert (data.images[-1] == [10, 20, 30]).all()
    assert read(root, size=6).image_shape == (6, 6, 3)


def test_resizing_is_antialiased(tmp_path):
    board = np.indices((64, 64)).sum(0) % 2 * 255
    image = Image.fromarray(board.astype("uint8"))
    root = one_each(tmp_path, a=image, b=image)
    small = read(root, size=8).images[:, 2:-2, 2:-2]
    # Point sampling would give only 0 and 255.
    assert np.abs(small.astype(int) - 127).max() <= 3


def test_mixed_channels_are_refused(tree):
    root = tree({"a": 2, "b": 1})
    Image.new("L", (7, 5)).save(root / "b" / "gray.png")
    with pytest.raises(DataError) as caught:
        read(root)
    message = str(caught.value)
    assert "a/000.png with 3 channels (RGB)" in message
    assert "b/gray.png with 1 channel (gray)" in message
    assert "mode='RGB' (--mode RGB)" in message


def test_mixed_depth_is_refused(tmp_path, noise):
    root = one_each(
        tmp_path,
        a=Image.fromarray(noise(0, 4, 4)),
        b=Image.fromarray(noise(0, 4, 4, dtype="uint16")),
    )
    with pytest.raises(DataError, match=r"one bit depth, got .*a/x.png as uint8 and .*b/x.png as"):
        read(root)


def test_sixteen_bit_gray_is_exact(tmp_path, noise):
    a, b = noise(1, 6, 5, dtype="uint16"), noise(2, 6, 5, dtype="uint16")
    a[0, :2] = 0, 65535
    data = read(one_each(tmp_path, a=Image.fromarray(a), b=Image.fromarray(b)))
    assert data.images.dtype == np.float32
    assert data.value_range == (0, 65535)
    np.testing.assert_array_equal(data.images[..., 0].astype("uint16"), np.stack([a, b]))
    assert any("uint16 images with values 0 to 65535 kept exactly" in note for note in data.notes)


def test_sixteen_bit_tiff_and_pgm_are_exact(tmp_path, noise):
    a = noise(1, 6, 5, dtype="uint16")
    for ending in ("tif", "pgm"):
        root = tmp_path / ending
        for name in "ab":
            (root / name).mkdir(parents=True)
        Image.fromarray(a).save(root / "a" / f"x.{ending}")
        Image.fromarray(a[::-1].copy()).save(root / "b" / f"x.{ending}")
        data = read(root)
        np.testing.assert_array_equal(data.images[0, ..., 0], a)


def test_sixteen_bit_resize_keeps_the_depth(tmp_path):
    a = Image.fromarray(np.full((8, 8), 40001, "uint16"))
    data = read(one_each(tmp_path, a=a, b=a), size=4)
    assert (data.images == 40001).all()


def png16(array: np.ndarray) -> bytes:
    """A 16-bit colour PNG, which Pillow cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width, channels = array.shape
    colour = {2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bit_colour_is_never_silently_cut_to_eight(tree, noise, channels):
    root = tree({"a": 1, "b": 1})
    (root / "a" / "000.png").write_bytes(png16(noise(0, 5, 7, channels, dtype="uint16")))
    with pytest.raises(DataError, match=r"a/000.png: expected 8-bit colour .*got 16-bit colour"):
        read(root)


def test_sixteen_bit_ppm_is_refused(tree):
    root = tree({"a": 1, "b": 1})
    (root / "a" / "000.ppm").write_bytes(b"P6 7 5 65535\n" + bytes(7 * 5 * 6))
    with pytest.raises(DataError, match=r"a/000.ppm: .*got 16-bit colour"):
        read(root)


def test_float_tiff(tmp_path):
    values = np.linspace(-1, 1, 20, dtype="float32").reshape(4, 5)
    for name, array in {"a": values, "b": -values}.items():
        (tmp_path / "f" / name).mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / "f" / name / "x.tif")
    data = read(tmp_path / "f")
    np.testing.assert_array_equal(data.images[0, ..., 0], values)
    assert data.value_range == (-1, 1)


# Half-transparent red on white: 255 stays, 0 becomes (0 * 128 + 255 * 127) / 255 = 127.
HALF_RED = Image.new("RGBA", (3, 2), (255, 0, 0, 128))


@pytest.mark.parametrize(
    ("alpha", "pixel", "note"),
    [
        ("composite", [255, 127, 127], "composited on white"),
        ("drop", [255, 0, 0], "alpha channel dropped"),
        ("keep", [255, 0, 0, 128], "kept as the fourth channel"),
    ],
)
def test_alpha(tmp_path, alpha, pixel, note):
    data = read(one_each(tmp_path, a=HALF_RED, b=HALF_RED), alpha=alpha)
    assert (data.images == pixel).all()
    assert any(note in n and n.endswith("(2 of 2 images)") for n in data.notes)


@pytest.mark.parametrize("value", [0, 1, 100, 254, 255])
def test_compositing_is_exact_rounding(tmp_path, value):
    ramp = np.zeros((1, 256, 4), "uint8")
    ramp[..., :3] = value
    ramp[..., 3] = np.arange(256)
    image = Image.fromarray(ramp)
    data = read(one_each(tmp_path, a=image, b=image))
    a = np.arange(256) / 255
    exact = value * a + 255 * (1 - a)
    assert np.abs(data.images[0, 0, :, 0] - exact).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("mode", "colour", "pixel"),
    [
        ("L", 77, [77]),
        ("1", 1, [255]),
        ("LA", (0, 128), [127]),
        ("P", 3, [3, 6, 9]),
        ("RGB", (1, 2, 3), [1, 2, 3]),
    ],
)
def test_modes(tmp_path, mode, colour, pixel):
    image = Image.new(mode, (3, 2), colour)
    if mode == "P":
        image.putpalette([v for i in range(256) for v in (i, i * 2 % 256, i * 3 % 256)])
    data = read(one_each(tmp_path, a=image, b=image))
    assert (data.images == pixel).all()
    assert data.image_shape == (2, 3, len(pixel))


def test_palette_and_gray_with_a_transparent_colour(tmp_path):
    palette = Image.new("P", (3, 2), 3)
    palette.putpalette([9] * 768)
    gray = Image.new("L", (3, 2), 50)
    for k, (image, channels) in enumerate([(palette, 3), (gray, 1)]):
        index = 3 if image.mode == "P" else 50
        image.info["transparency"] = index
        for name in "ab":
            (tmp_path / str(k) / name).mkdir(parents=True)
            image.save(tmp_path / str(k) / name / "x.png", transparency=index)
        data = read(tmp_path / str(k))
        assert data.image_shape == (2, 3, channels)
        assert (data.images == 255).all()
        assert any("composited" in note for note in data.notes)


def test_cmyk_is_converted_with_a_note(tmp_path):
    for name in "ab":
        (tmp_path / "c" / name).mkdir(parents=True)
        Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "c" / name / "x.jpg")
    data = read(tmp_path / "c")
    assert data.image_shape == (8, 8, 3)
    assert (data.images > 250).all()
    assert "CMYK images converted to RGB (2 of 2 images)" in data.notes


def test_exif_orientation_is_applied(tmp_path, noise):
    upright = noise(0, 4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    stored = Image.fromarray(np.rot90(upright, 1).copy())
    for name in "ab":
        (tmp_path / "e" / name).mkdir(parents=True)
        stored.save(tmp_path / "e" / name / "x.png", exif=exif)
    data = read(tmp_path / "e")
    np.testing.assert_array_equal(data.images[0], upright)
    assert "EXIF orientation applied (2 of 2 images)" in data.notes


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_give_the_same_bytes_and_notes(tree, workers):
    root = tree({"a": 9, "b": 5, "c": 4})
    HALF_RED.resize((7, 5)).save(root / "b" / "alpha.png")
    serial = read(root, workers=0)
    parallel = read(root, workers=workers)
    np.testing.assert_array_equal(parallel.images, serial.images)
    assert parallel.fingerprint == serial.fingerprint
    assert parallel.notes == serial.notes
    resized = [read(root, workers=w, size=(4, 4)).fingerprint for w in (0, workers)]
    assert resized[0] == resized[1]


def test_workers_take_names_that_are_no_utf8(tree):
    root = tree({"a": 2, "b": 2})
    source = root / "a" / "000.png"
    odd = b'\xff\xe4 "x\n.png'.decode(sys.getfilesystemencoding(), "surrogateescape")
    try:
        source.rename(source.with_name(odd))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert read(root, workers=2).fingerprint == read(root, workers=0).fingerprint


def test_no_worker_outlives_an_error(tree, monkeypatch):
    root = tree({"a": 4, "b": 3})
    (root / "a" / "000.png").write_bytes(b"")
    started = []
    real = image_files.subprocess.Popen

    def spy(*args, **kwargs):
        started.append(real(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(image_files.subprocess, "Popen", spy)
    with pytest.raises(DataError, match=r"a/000\.png"):
        read(root, workers=3)
    assert len(started) == 3
    assert all(worker.poll() is not None for worker in started)


def test_a_killed_worker_is_an_error_and_not_a_gap(tree, monkeypatch, tmp_path):
    root = tree({"a": 4, "b": 3})
    fake = tmp_path / "fake.py"
    fake.write_text("import sys; sys.stdin.read(); sys.exit(9)")
    monkeypatch.setattr(image_files.decode, "__file__", str(fake))
    with pytest.raises(RuntimeError, match=r"ended at .*a/000.png \(exit code 9\).*workers=0"):
        read(root, workers=2)


def test_threads_decode_the_same_in_the_same_order(tree, monkeypatch, tmp_path):
    monkeypatch.setattr(
        image_files.os, "sched_getaffinity", lambda _: set(range(64)), raising=False
    )
    root = tree({"a": 40, "b": 30})
    small = [str(path) for path in sorted(root.rglob("*.png"))]
    assert image_files._threads_for(small) == 1
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    for path in small:
        Image.fromarray(noise).save(path)
    assert image_files._threads_for(small[:64]) == 1
    assert image_files._threads_for(small) == 8
    started = []
    real = image_files.ThreadPoolExecutor

    def spy(*args):
        started.append(args)
        return real(*args)

    monkeypatch.setattr(image_files, "ThreadPoolExecutor", spy)
    assert read(root).fingerprint == read(root, workers=0).fingerprint
    assert started == [(8, "decoding")]
    (root / "a" / "003.png").write_bytes(b"")
    (root / "b" / "029.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"(?s)2 of 70 cannot be read.*a/003\.png.*b/029\.png"):
        read(root)
    assert not any(thread.name.startswith("decoding") for thread in threading.enumerate())


def test_the_bar_is_shown_on_a_terminal_only(tree, monkeypatch, capsys):
    root = tree({"a": 4, "b": 3})
    read(root, progress=True)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    read(root, progress=True)
    assert re.search("reading", terminal.getvalue())
    assert capsys.readouterr().out == ""
