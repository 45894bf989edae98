"""Tar archives of samples: what is read, and what is never executed or written."""

import io
import json
import pickle
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

import vaeaug
from vaeaug import DataError

webdataset = pytest.importorskip("webdataset")


def encoded(pixels, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def pictures(n, seed=0, shape=(6, 5, 3)):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def write_tar(path, members, **options):
    """An archive of (name, bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def members(images, labels, *, ending="cls", start=0):
    for i, (image, label) in enumerate(zip(images, labels, strict=True), start):
        yield f"{i:04d}.png", encoded(image)
        yield f"{i:04d}.{ending}", str(label).encode() if ending == "cls" else label


def test_real_digits_written_by_the_library_itself(tmp_path):
    digits = vaeaug.read("digits")
    with webdataset.TarWriter(str(tmp_path / "digits.tar")) as writer:
        for i, (image, label) in enumerate(zip(digits.images, digits.labels, strict=True)):
            writer.write({"__key__": f"{i:05d}", "png": image[..., 0], "cls": int(label)})
    assert vaeaug.read(tmp_path / "digits.tar").fingerprint == digits.fingerprint


def test_shards_by_braces_and_as_a_folder(tmp_path):
    images = pictures(9)
    for k in range(3):
        part = members(images[3 * k : 3 * k + 3], (0, 1, 2), start=3 * k)
        write_tar(tmp_path / "set" / f"shard-{k:06d}.tar", part)
    (tmp_path / "set" / "classes.json").write_text(json.dumps(["ant", "bee", "çat"]))
    for source in (tmp_path / "set", f"{tmp_path}/set/shard-{{000000..000002}}.tar"):
        data = vaeaug.read(source)
        np.testing.assert_array_equal(data.images, images)
        assert data.labels.tolist() == [0, 1, 2] * 3
        assert data.class_names == ("ant", "bee", "çat")
    two = vaeaug.read(f"{tmp_path}/set/shard-{{000000..000001}}.tar")
    assert len(two) == 6
    with pytest.raises(DataError, match=r"expected a tar archive, got no file .*shard-000003\.tar"):
        vaeaug.read(f"{tmp_path}/set/shard-{{000002..000003}}.tar")


@pytest.mark.parametrize(
    "names", [("{}/0.tar", "{}/1.tar"), ("{}-0.tar", "{}-1.tar"), ("a_{}_0.tar", "a_{}_1.tar")]
)
def test_splits_by_folders_or_by_names(tmp_path, names):
    images = pictures(12)
    for k, split in enumerate(("train", "val", "test")):
        for j, name in enumerate(names):
            part = images[4 * k + 2 * j : 4 * k + 2 * j + 2]
            write_tar(tmp_path / name.format(split), members(part, (0, 1)))
    for k, split in enumerate(("train", "val", "test")):
        data = vaeaug.read(tmp_path, split=split)
        np.testing.assert_array_equal(data.images, images[4 * k : 4 * k + 4])
    with pytest.raises(DataError, match="split 'all' is only for data without splits"):
        vaeaug.read(tmp_path, split="all")


def test_the_test_split_given_by_name_is_not_taken_for_training(tmp_path):
    path = write_tar(tmp_path / "test-000.tar", members(pictures(4), (0, 1, 0, 1)))
    with pytest.raises(DataError, match="expected split 'train', got only the splits: test"):
        vaeaug.read(path)
    assert len(vaeaug.read(path, split="test")) == 4


def test_an_archive_beside_class_folders_changes_nothing(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        Image.fromarray(pictures(1)[0]).save(tmp_path / name / "0.png")
    write_tar(tmp_path / "all.tar", members(pictures(4), (0, 1, 0, 1)))
    assert vaeaug.read(tmp_path).class_names == ("ant", "bee")


def test_labels_in_json_with_names(tmp_path):
    labels = [json.dumps({"label": i % 2, "class_name": "bcab"[i % 2]}).encode() for i in range(4)]
    path = write_tar(tmp_path / "a.tar", members(pictures(4), labels, ending="json"))
    data = vaeaug.read(path)
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert data.class_names == ("b", "c")
    ones = [json.dumps({"label": 1 + i % 2, "class_name": "bc"[i % 2]}).encode() for i in range(4)]
    data = vaeaug.read(write_tar(tmp_path / "c.tar", members(pictures(4), ones, ending="json")))
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert data.class_names == ("b", "c")
    assert any("renumbered from 0" in note for note in data.notes)
    ones[0] = json.dumps({"label": 0}).encode()
    data = vaeaug.read(write_tar(tmp_path / "d.tar", members(pictures(4), ones, ending="json")))
    assert data.class_names == ("0", "1", "2")
    texts = [json.dumps({"target": "yes" if i else "no"}).encode() for i in range(4)]
    path = write_tar(tmp_path / "b.tar", members(pictures(4), texts, ending="json"))
    assert vaeaug.read(path).class_names == ("no", "yes")


def test_one_of_several_images_is_chosen_by_keys(tmp_path):
    parts = []
    for i, image in enumerate(pictures(4)):
        parts += [
            (f"{i}.left.png", encoded(image)),
            (f"{i}.right.png", encoded(255 - image)),
            (f"{i}.json", json.dumps({"side": i % 2}).encode()),
        ]
    path = write_tar(tmp_path / "a.tar", parts)
    with pytest.raises(DataError, match=r"expected one image .* got json, left\.png, right\.png"):
        vaeaug.read(path)
    data = vaeaug.read(path, keys={"images": "right.png", "labels": "side"})
    np.testing.assert_array_equal(data.images, 255 - pictures(4))
    assert data.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((16, 2), "NLC"), ((5, 4), None), ((5, 4, 3), None), ((3, 4, 5, 2), None)],
    ids=["signals", "gray", "colour", "volumes"],
)
def test_arrays(tmp_path, shape, layout):
    values = np.random.default_rng(0).random((6, *shape), dtype=np.float32)
    parts = []
    for i, value in enumerate(values):
        parts += [(f"{i}.npy", npy(value)), (f"{i}.cls", str(i % 2).encode())]
    data = vaeaug.read(write_tar(tmp_path / "a.tar", parts), layout=layout)
    np.testing.assert_array_equal(data.images.reshape(values.shape), values)


class _Bomb:
    """Unpickling it would leave a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_is_unpickled(tmp_path):
    bomb = _Bomb(tmp_path / "exploded")
    labels = [0, 1, 0, 1]
    parts = []
    for i, image in enumerate(pictures(4)):
        parts += [
            (f"{i}.png", encoded(image)),
            (f"{i}.cls", str(labels[i]).encode()),
            (f"{i}.pyd", pickle.dumps(bomb)),
            (f"{i}.extra.pickle", pickle.dumps(bomb)),
        ]
    data = vaeaug.read(write_tar(tmp_path / "a.tar", parts))
    np.testing.assert_array_equal(data.images, pictures(4))
    assert any("skipped 8 pickled members (the first is '0.pyd')" in note for note in data.notes)
    objects = npy(np.array([bomb], dtype=object), allow_pickle=True)
    parts = [("0.npy", objects), ("0.cls", b"0"), ("1.npy", objects), ("1.cls", b"1")]
    with pytest.raises(DataError, match="it is an object array, which needs pickle; never loaded"):
        vaeaug.read(write_tar(tmp_path / "b.tar", parts))
    labels_alone = [(f"{i}.png", encoded(x)) for i, x in enumerate(pictures(2))]
    labels_alone.insert(1, ("0.pickle", pickle.dumps(0)))
    with pytest.raises(DataError, match=r"0\]: expected a label in \.cls or as label\|"):
        vaeaug.read(write_tar(tmp_path / "c.tar", labels_alone))
    assert not (tmp_path / "exploded").exists()


def test_no_member_is_written_anywhere(tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    parts = []
    for i, image in enumerate(pictures(4)):
        stem = ("../../escaped", f"{tmp_path}/absolute")[i % 2] + str(i)
        parts += [(f"{stem}.png", encoded(image)), (f"{stem}.cls", str(i % 2).encode())]
    path = write_tar(tmp_path / "a.tar", parts)
    before = sorted(tmp_path.rglob("*"))
    assert len(vaeaug.read(path)) == 4
    assert sorted(tmp_path.rglob("*")) == before


def test_an_address_is_no_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in ("pipe:touch ran #.tar", "pipe:touch ran; cat {0..1}.tar"):
        with pytest.raises(DataError, match="got no"):
            vaeaug.read(source)
    (tmp_path / "pipe:touch ran").mkdir()
    with pytest.raises(DataError):
        vaeaug.read("pipe:touch ran")
    assert not (tmp_path / "ran").exists()


def test_links_are_no_samples(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(pictures(1)[0]))
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("9.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
        for name, data in members(pictures(4), (0, 1, 0, 1)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert len(vaeaug.read(path)) == 4


@pytest.mark.parametrize("where", ["in the header", "in a file", "between files", "before the end"])
def test_an_archive_cut_short_is_named(tmp_path, where):
    path = write_tar(tmp_path / "cut.tar", members(pictures(6), (0, 1) * 3))
    with tarfile.open(path) as archive:
        inner = archive.getmembers()
    size = {
        "in the header": inner[4].offset + 100,
        "in a file": inner[4].offset_data + 20,
        "between files": inner[4].offset,
        "before the end": inner[-1].offset_data + 512,
    }[where]
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"cut\.tar: expected an? (archive that is closed|tar)"):
        vaeaug.read(path)


def test_a_flipped_bit_in_a_header_silently_loses_no_sample(tmp_path):
    path = write_tar(tmp_path / "bad.tar", members(pictures(6), (0, 1) * 3))
    with tarfile.open(path) as archive:
        at = archive.getmembers()[6].offset
        whole = len(archive.getmembers()) // 2
    data = bytearray(path.read_bytes())
    data[at + 3] ^= 1
    path.write_bytes(data)
    # The library reads what is before it and stops.
    with open(path, "rb") as file:
        opened = iter([{"url": str(path), "stream": file}])
        members_there = webdataset.tariterators.tar_file_expander(opened)
        samples = list(webdataset.tariterators.group_by_keys(members_there))
    assert len(samples) == 3 < whole
    with pytest.raises(DataError, match=r"bad\.tar: .* after 3 samples: it is cut short"):
        vaeaug.read(path)


def test_bad_samples_are_named(tmp_path):
    def sample(*parts):
        more = [("1.png", encoded(pictures(1)[0])), ("1.cls", b"1")]
        return write_tar(tmp_path / "a.tar", [*parts, *more])

    good = encoded(pictures(1)[0])
    with pytest.raises(DataError, match=r"\[0\]: expected a label in \.cls"):
        vaeaug.read(sample(("0.png", good)))
    with pytest.raises(DataError, match=r"\[0\]\.png: expected a readable image file"):
        vaeaug.read(sample(("0.png", good[:50]), ("0.cls", b"0")))
    with pytest.raises(DataError, match=r"\[0\]: expected one image .* got cls"):
        vaeaug.read(sample(("0.cls", b"0")))
    with pytest.raises(DataError, match="duplicate file name"):
        vaeaug.read(sample(("0.png", good), ("0.png", good), ("0.cls", b"0")))
    with pytest.raises(DataError, match=r"\[1\]: expected labels of one kind, got 1 after 'zero'"):
        vaeaug.read(sample(("0.png", good), ("0.cls", b"zero")))
    with pytest.raises(DataError, match=r"\[0\]: .*multi-label samples are not read"):
        vaeaug.read(sample(("0.png", good), ("0.json", b'{"label": [0, 1]}')))
    with pytest.raises(DataError, match=r"\[0\]\.json: expected JSON"):
        vaeaug.read(sample(("0.png", good), ("0.json", b"{")))
    with pytest.raises(DataError, match=r"expected samples such as 000\.png with 000\.cls"):
        vaeaug.read(write_tar(tmp_path / "b.tar", []))
    (tmp_path / "c.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(DataError, match=r"c\.tar: expected a tar archive, got"):
        vaeaug.read(tmp_path / "c.tar")


def test_without_the_library_it_says_what_to_install(monkeypatch, tmp_path):
    path = write_tar(tmp_path / "a.tar", members(pictures(4), (0, 1, 0, 1)))
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(DataError, match=r"pip install 'vaeaug\[webdataset\]'"):
        vaeaug.read(path)
