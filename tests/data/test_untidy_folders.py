"""Folders found in practice: other names of splits, files of all kinds, links; all with notes."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaeaug.data import DataError, read, read_pool
from vaeaug.data.decode import ENDINGS
from vaeaug.data.split_names import canonical, mentioned


def folders(root: Path, *below: str, n: int = 2) -> Path:
    """Class folders of n different images below each of these folders."""
    for k, name in enumerate(below):
        for c, label in enumerate("ab"):
            (root / name / label).mkdir(parents=True)
            for i in range(n):
                colour = (20 * k, 100 * c, 10 * i)
                Image.new("RGB", (7, 5), colour).save(root / name / label / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Training", "training_set", "trainset", "TRAIN")),
        *((name, "train") for name in ("train_images", "train-data", "images_train", "train2017")),
        *((name, "val") for name in ("val", "Valid", "validation_set", "dev", "dev_set", "eval")),
        *((name, "test") for name in ("test", "testing", "test_set", "Test set", "holdout")),
        *((name, "test") for name in ("hold_out", "held-out", "test_data", "t10k")),
        *((name, None) for name in ("train_station", "trains", "valley", "testosterone", "a")),
        *((name, None) for name in ("", "set", "train_test", "train1", "2017")),
    ],
)
def test_names_of_splits(name, split):
    assert canonical(name) == split


def test_a_split_among_other_words():
    assert mentioned("asl_alphabet_train") == "train"
    assert mentioned("seg_test") == "test"
    assert mentioned("train_and_test") is None
    assert mentioned("trainer") is None


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("training", "testing"),
        ("Train", "Valid"),
        ("train", "dev"),
        ("train", "eval"),
        ("train", "holdout"),
        ("seg_train", "seg_test"),
        ("asl_alphabet_train", "asl_alphabet_test"),
    ],
)
def test_no_test_image_is_trained_on(tmp_path, train, test):
    root = folders(tmp_path, train, test)
    data = read(root)
    assert data.class_names == ("a", "b")
    expected = read(root / train)
    np.testing.assert_array_equal(data.images, expected.images)
    assert len(data) == 4
    other = read(root, split=test if canonical(test) else "test")
    np.testing.assert_array_equal(other.images, read(root / test).images)


def test_splits_by_a_word_of_their_names_are_noted(tmp_path):
    data = read(folders(tmp_path, "seg_train", "seg_test"))
    note = "folders taken as splits by a word of their names: 'seg_test' as test, 'seg_train' as"
    assert any(text.startswith(note) for text in data.notes)


def test_a_folder_inside_the_split_of_the_same_name(tmp_path):
    root = folders(tmp_path, "seg_train/seg_train", "seg_test/seg_test")
    assert read(root).class_names == ("a", "b")
    assert len(read(root, split="test")) == 4


def test_unknown_folders_with_the_same_folders_are_refused(tmp_path):
    root = folders(tmp_path, "fold1", "fold2")
    with pytest.raises(DataError) as caught:
        read(root)
    message = str(caught.value)
    assert "got folders 'fold1', 'fold2' without images, all with the folders 'a', 'b'" in message
    assert f"read one of them ({root / 'fold1'})" in message
    assert len(read(root / "fold1")) == 4
    classes = read(root, class_names=["fold1", "fold2"])
    assert classes.counts.tolist() == [4, 4]


def test_classes_with_different_folders_in_them_are_classes(tmp_path):
    for place in ("cat/monday", "cat/tuesday", "dog/monday", "dog/friday"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("L", (4, 4), len(place) * 10 + len(place.split("/")[1])).save(
            tmp_path / place / "x.png"
        )
    assert read(tmp_path).counts.tolist() == [2, 2]


def test_an_archive_in_a_folder_of_its_own(tmp_path):
    root = folders(tmp_path / "all", "chest/train", "chest/test")
    (root / "__MACOSX").mkdir()
    data = read(root)
    assert data.class_names == ("a", "b")
    assert len(data) == 4
    assert "read from the only folder in it, chest, which holds the splits" in data.notes
    np.testing.assert_array_equal(
        read(root, split="test").images, read(root / "chest" / "test").images
    )


@pytest.mark.parametrize(
    "names", ["trainA trainB testA testB", "cat_train cat_test", "train1 val1"]
)
def test_folders_named_by_split_and_class_are_refused(tmp_path, names):
    for k, name in enumerate(names.split()):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), 9 * k).save(tmp_path / name / "x.png")
    with pytest.raises(DataError, match="got folders named by splits and by something else: "):
        read(tmp_path)
    assert len(read(tmp_path, class_names=names.split())) == len(names.split())


def test_two_folders_of_one_split_matter_where_they_are_asked_for(tmp_path):
    root = folders(tmp_path, "train", "test", "holdout")
    assert len(read(root)) == 4
    with pytest.raises(DataError, match=r"one folder for the split 'test', got 'holdout' and"):
        read(root, split="test")


def test_what_pillow_reads_is_read(tmp_path):
    pixels = Image.new("RGB", (8, 8), (200, 40, 90))
    kinds = {".jfif": "JPEG", ".gif": "GIF", ".webp": "WEBP", ".bmp": "BMP", ".jp2": "JPEG2000"}
    kinds |= {".tif": "TIFF", ".ppm": "PPM", ".avif": "AVIF", ".pcx": "PCX", ".JPE": "JPEG"}
    Image.init()
    kinds = {ending: kind for ending, kind in kinds.items() if kind in Image.SAVE}
    for label in "ab":
        (tmp_path / label).mkdir()
        for ending, kind in kinds.items():
            pixels.save(tmp_path / label / f"x{ending}", format=kind)
    data = read(tmp_path)
    assert len(data) == 2 * len(kinds) >= 16
    assert np.abs(data.images.astype(int) - [200, 40, 90]).max() <= 6


def test_of_an_animation_only_the_first_frame_is_read_with_a_note(tmp_path):
    frames = [Image.new("RGB", (6, 6), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    for label in "ab":
        (tmp_path / label).mkdir()
        frames[0].save(tmp_path / label / "x.gif", save_all=True, append_images=frames[1:])
    data = read(tmp_path)
    assert (data.images == [255, 0, 0]).all()
    assert any("first frame of multi-frame images is read (2 of 2" in note for note in data.notes)


def test_files_left_out_are_counted_and_named(tmp_path):
    root = folders(tmp_path, "") if not (tmp_path / "a").exists() else tmp_path
    for name in ("x.heic", "y.heic", "notes.txt", "Thumbs.db", ".hidden", "README"):
        (root / "a" / name).write_bytes(b"?")
    Image.new("RGB", (7, 5)).save(root / "outside.png")
    data = read(root)
    assert len(data) == 4
    note = next(note for note in data.notes if "files of other types" in note)
    assert note.startswith("skipped 4 files of other types: 2 .heic, ")
    assert "1 .txt" in note
    assert "1 (no ending)" in note
    assert "a/README" in note
    assert "skipped 1 images beside the class folders, which have no class" in data.notes


def test_an_eps_of_any_name_starts_no_program(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "gs").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (bin_ / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    root = folders(tmp_path / "images", "")
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 7 5\n%%EndComments\nshowpage\n%%EOF\n"
    (root / "a" / "evil.png").write_text(eps)
    with pytest.raises(DataError, match=r"evil\.png: expected a readable image file"):
        read(root)
    assert not ran.exists()
    assert ".eps" not in ENDINGS
    # What is shut out: Pillow itself would have called it.
    with Image.open(root / "a" / "evil.png") as image, pytest.raises(OSError):  # noqa: PT011
        image.load()
    assert ran.exists()


def test_links_multiply_nothing(tmp_path):
    root = folders(tmp_path / "images", "")
    expected = read(root).fingerprint
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(tmp_path)
    (root / "b" / "again.png").symlink_to(root / "b" / "0.png")
    (root / "b" / "other").symlink_to(root / "a")
    data = read(root)
    assert data.fingerprint == expected
    links = "skipped 4 links to folders that are already read: a/loop, a/self, a/up, b/other"
    assert links in data.notes
    assert "skipped 1 links to files that are already read" in data.notes


def test_links_out_of_the_folder_are_followed_once(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    Image.new("RGB", (7, 5), (1, 2, 3)).save(store / "x.png")
    root = folders(tmp_path / "images", "")
    (root / "a" / "here").symlink_to(store)
    (root / "a" / "there").symlink_to(store)
    data = read(root)
    assert data.counts.tolist() == [3, 2]


def test_an_image_under_two_labels_is_noted(tmp_path):
    root = folders(tmp_path, "")
    same = Image.new("RGB", (7, 5), (9, 9, 9))
    same.save(root / "a" / "twin.png")
    same.save(root / "b" / "double.bmp")
    note = next(note for note in read(root).notes if "one of another class" in note)
    assert note == (
        "1 images are the same, pixel for pixel, as one of another class: a/twin.png ('a') and "
        "b/double.bmp ('b')"
    )
    images = np.arange(4 * 12, dtype="uint8").reshape(4, 3, 4) * 5
    images[3] = images[0]
    data = read((images, np.array([0, 1, 0, 1])))
    assert any("0 ('0') and 3 ('1')" in note for note in data.notes)
    once = read((images, np.array([0, 1, 1, 0])))
    assert not any("another class" in note for note in once.notes)


def test_a_tiff_of_four_bands_loses_none(tmp_path):
    # Four samples of 8 bits, of which the fourth is said to be unspecified.
    width = height = 4
    strip = bytes(range(64))
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 4, 8 + 2 + 11 * 12 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 11 * 12 + 4 + 8),
        (277, 3, 1, 4),
        (278, 4, 1, height),
        (279, 4, 1, len(strip)),
        (284, 3, 1, 1),
        (338, 3, 1, 0),
    ]
    raw = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags))
    raw += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    raw += struct.pack("<4H", 8, 8, 8, 8) + strip
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.tif").write_bytes(raw)
    with pytest.raises(DataError, match=r"x\.tif: expected gray, RGB or RGBA, got a TIFF with a"):
        read(tmp_path)
    dropped = read(tmp_path, alpha="drop")
    assert dropped.images[0, 0, 1].tolist() == [4, 5, 6]


def test_a_folder_whose_name_is_no_utf8_is_refused(tmp_path):
    root = folders(tmp_path / "images", "")
    (root / "a").rename(root / os.fsdecode(b"caf\xe9"))
    with pytest.raises(DataError, match=r"folders named in UTF-8, .*got 'caf\\udce9'; rename it"):
        read(root)


def test_files_whose_names_are_no_utf8_are_shown_in_utf8(tmp_path):
    root = tmp_path / os.fsdecode(b"bild\xe9r")
    folders(root, "")
    (root / "a" / "0.png").rename(root / "a" / os.fsdecode(b"caf\xe9.png"))
    (root / "b" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"broken")
    data = read(root, on_error="skip")
    assert len(data) == 4
    assert any("b/caf\\udce9.png" in note for note in data.notes)
    assert data.source.endswith("bild\\udce9r")
    "\n".join((*data.notes, data.source)).encode()


@pytest.mark.parametrize("name", ["two\nlines", "[b]", "<b>", "a 'b' \"c\"", "ü", "=1+1"])
def test_other_names_of_folders_are_taken(tmp_path, name):
    root = folders(tmp_path / "images", "")
    (root / "a").rename(root / name)
    assert set(read(root).class_names) == {"b", name}


def test_classes_whose_names_look_the_same_are_noted(noise):
    images = noise(0, 6, 3, 3)
    data = read((images, ["Cat", "cat ", "dog", "caf\u00e9", "cafe\u0301", "dog"]))
    assert data.n_classes == 5
    note = next(note for note in data.notes if note.startswith("classes whose names differ"))
    assert "'Cat' and 'cat '" in note
    assert r"'cafe\u0301' and 'caf\xe9'" in note
    assert "dog" not in note
    assert not any("differ" in note for note in read((images, list("abcabc"))).notes)


@pytest.mark.parametrize("name", ["lone \ud800", "zero\0"])
def test_names_that_no_file_holds_are_refused(name):
    with pytest.raises(DataError, match="expected class_names as text in UTF-8 without zero"):
        read((np.zeros((2, 3, 3), "uint8"), np.array([0, 1])), class_names=["a", name])


def test_data_that_is_called_test_is_not_silently_a_training_split(tmp_path):
    folders(tmp_path / "test", "")
    note = "no splits found: all images are taken as the training split, although it is called test"
    assert note in read(tmp_path / "test").notes
    np.savez(tmp_path / "val.npz", x=np.zeros((4, 3, 3), "uint8"), y=[0, 1, 0, 1])
    assert any("although it is called val" in note for note in read(tmp_path / "val.npz").notes)


def test_a_pool_of_split_folders_leaves_the_test_images_alone(tmp_path):
    root = folders(tmp_path, "seg_train", "seg_test")
    data = read(root)
    np.testing.assert_array_equal(read_pool(root, data), data.images)


def test_images_that_a_table_does_not_list_are_counted(tmp_path):
    root = folders(tmp_path, "train")
    rows = "".join(f"train/{label}/0.png,{label}\n" for label in "ab")
    (root / "metadata.csv").write_text(f"file_name,label\n{rows}")
    data = read(root)
    assert len(data) == 2
    assert "skipped 2 files that the table does not list (for example train/a/1.png)" in data.notes
