"""Images without labels: from labels of -1, from `with_unlabelled`, and read by `read_pool`."""

import gzip
import hashlib
import json
import pickle

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from vaeaug.data import DataError, LabelledImages, read, read_by, read_configured, read_pool

LABELS = np.array([0, -1, 1, 0, -1, 1, 2])
NOTE = "2 images of label -1 are unlabelled"


@pytest.fixture
def data(noise):
    return read((noise(0, 6, 5, 4), np.array([0, 1, 2, 0, 1, 2])))


def assert_split(got, images, notes=1):
    np.testing.assert_array_equal(got.images, images[LABELS >= 0])
    np.testing.assert_array_equal(got.unlabelled, images[LABELS == -1])
    assert got.labels.tolist() == [0, 1, 0, 1, 2]
    assert got.notes.count(NOTE) == notes


@pytest.mark.parametrize("labels", [LABELS, LABELS.astype("float32"), LABELS[:, None]])
def test_label_minus_one_is_unlabelled_in_arrays(labels, tmp_path, noise):
    images = noise(0, 7, 5, 4, 3)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["labels"] = images, labels
    for source in ((images, labels), tmp_path / "a.npz", tmp_path / "a.h5"):
        assert_split(read(source), images)
    assert_split(read([(x, y.item()) for x, y in zip(images, labels, strict=True)]), images)
    items = torch.utils.data.TensorDataset(torch.from_numpy(images), torch.from_numpy(LABELS))
    assert_split(read(items, layout="NHWC"), images)


def test_label_minus_one_is_unlabelled_in_a_csv_of_numbers(tmp_path, noise):
    images = noise(0, 7, 5, 4, 3)
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    path = tmp_path / "list.csv"

    def write(labels):
        path.write_text("".join(f"{i}.png,{label}\n" for i, label in enumerate(labels)))
        return path

    assert_split(read(write(LABELS)), images)
    renumbered = read(write([8, -1, 9, 8, -1, 9, 12]))
    assert_split(renumbered, images)
    assert renumbered.class_names == ("8", "9", "12")
    assert_split(read(write(LABELS), class_names=["a", "b", "c", "d"]), images)
    named = read(write(["-1", "x", "-1", "x", "x", "x", "x"]))
    assert (named.class_names, named.unlabelled) == (("-1", "x"), None)
    with pytest.raises(DataError, match=r"expected labels of at least 0, or -1 .*got -2 in line 2"):
        read(write([0, -2, 1, 0, 0, 1, 0]))
    with pytest.raises(DataError, match=r"list\.csv: expected at least one image with a label"):
        read(write([-1] * 7))


def test_only_minus_one_means_unlabelled(noise):
    images = noise(0, 4, 5, 4)
    with pytest.raises(DataError, match="or -1 for unlabelled, got -2 at index 1"):
        read((images, np.array([0, -2, -1, 1])))
    with pytest.raises(DataError, match=r"label -1 \(unlabelled\) for all 4"):
        read((images, np.full(4, -1)))
    with pytest.raises(DataError, match="at least two classes, got 2 images, all of class '0'"):
        read((images, np.array([-1, 0, -1, 0])))


def test_a_pool_is_kept_where_the_training_images_are(data, noise):
    pool = noise(9, 3, 5, 4, 1)
    full = data.with_unlabelled(pool)
    np.testing.assert_array_equal(full.unlabelled, pool)
    assert data.unlabelled is None
    assert "3 unlabelled, 3 classes" in repr(full)
    assert full.subset([0, 1]).unlabelled is full.unlabelled
    assert full.imbalanced([1, 1, 2], seed=0).unlabelled is full.unlabelled
    rest, held = full.split_off(0.4, seed=0)
    assert rest.unlabelled is full.unlabelled
    assert held.unlabelled is None
    twice = full.with_unlabelled(pool[:1])
    np.testing.assert_array_equal(twice.unlabelled, pool[[0, 1, 2, 0]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(full)).unlabelled, pool)  # noqa: S301
    assert data.with_unlabelled(pool[:0]).unlabelled is None
    assert full.with_unlabelled(pool[:0]) is full
    resized = read(full, size=(3, 2))
    assert resized.unlabelled.shape == (3, 3, 2, 1)


def test_rows_count_on_into_the_pool(data, noise):
    pool = noise(9, 3, 5, 4, 1)
    full = data.with_unlabelled(pool)
    got = full.images_at(np.array([8, 0, 6, 5]))
    both = np.concatenate([data.images, pool])
    np.testing.assert_array_equal(got, both[[8, 0, 6, 5]])
    assert full.images_at(np.array([], int)).shape == (0, 5, 4, 1)
    for rows in ([9], [-1]):
        with pytest.raises(IndexError, match=r"rows in 0..8 \(6 labelled and 3 unlabelled"):
            full.images_at(np.array(rows))
    with pytest.raises(IndexError, match=r"rows in 0..5 .*got 6 to 6"):
        data.images_at(np.array([6]))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (np.zeros((2, 5, 3, 1), "uint8"), r"uint8 images of shape \(M, 5, 4, 1\).*\(2, 5, 3, 1\)"),
        (np.zeros((5, 4, 1), "uint8"), r"got uint8 of shape \(5, 4, 1\)"),
        (np.zeros((2, 5, 4, 1), "float32"), r"got float32 of shape"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_pools_that_do_not_fit(data, pool, message):
    with pytest.raises(DataError, match=rf"arrays: unlabelled: expected .*{message}"):
        data.with_unlabelled(pool)


def test_pool_values_are_judged():
    labels, names = np.array([0, 1]), ("a", "b")
    data = LabelledImages(np.zeros((2, 3, 1), "float32"), labels, names, (0, 1))
    with pytest.raises(DataError, match=r"unlabelled: .*value_range \(0, 1\), got 2 to 2"):
        data.with_unlabelled(np.full((1, 3, 1), 2, "float32"))
    with pytest.raises(DataError, match=r"unlabelled: expected finite .*in 1 of 1 images"):
        data.with_unlabelled(np.full((1, 3, 1), np.nan, "float32"))


def test_the_fingerprint_covers_a_pool_and_is_as_before_without(data, noise):
    # Written out from what the fingerprint is, so that stored ones stay good.
    head = {
        "dtype": "|u1",
        "shape": [6, 5, 4, 1],
        "class_names": ["0", "1", "2"],
        "value_range": [0.0, 255.0],
    }
    content = json.dumps(head, sort_keys=True).encode()
    expected = hashlib.sha256(content + data.images.tobytes() + data.labels.tobytes()).hexdigest()
    assert data.fingerprint == expected
    pool = noise(9, 3, 5, 4, 1)
    prints = {expected, data.with_unlabelled(pool).fingerprint}
    prints.add(data.with_unlabelled(pool[:2]).fingerprint)
    pool[2, 4, 3, 0] ^= 1
    prints.add(data.with_unlabelled(pool).fingerprint)
    assert len(prints) == 4
    assert data.with_unlabelled(pool[:0]).fingerprint == expected


# read_pool


def test_a_pool_from_arrays_and_files(data, tmp_path, noise):
    stored = noise(3, 4, 5, 4)
    expected = stored[..., None]
    np.save(tmp_path / "a.npy", stored)
    np.savez(tmp_path / "one.npz", whatever=stored)
    np.savez(tmp_path / "labelled.npz", images=stored, labels=np.zeros(4, int))
    np.savez(tmp_path / "splits.npz", train_images=stored, test_images=stored[:1])
    np.savez(tmp_path / "named.npz", unlabelled=stored, train_images=stored[:1], x=stored[:2])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/images"] = stored
        file.create_group("more")
    for name in ("a.npy", "one.npz", "labelled.npz", "splits.npz", "named.npz", "a.h5"):
        np.testing.assert_array_equal(read_pool(tmp_path / name, data), expected, err_msg=name)
    for source in (stored, torch.from_numpy(stored)):
        np.testing.assert_array_equal(read_pool(source, data), expected)
    got = read_pool(tmp_path / "named.npz", data, keys={"images": "x"})
    np.testing.assert_array_equal(got, expected[:2])
    assert data.with_unlabelled(read_pool(tmp_path / "a.h5", data)).unlabelled.shape == (4, 5, 4, 1)
    whole = data.with_unlabelled(expected)
    np.testing.assert_array_equal(read_pool(whole, data), np.concatenate([data.images, expected]))


def test_a_pool_from_folders(tmp_path, noise, tree):
    data = read((noise(0, 4, 5, 7, 3), np.array([0, 1, 0, 1])))
    root = tree({"b": 2, "a": 1})
    flat = tmp_path / "tree" / "z.png"
    Image.fromarray(noise(77, 5, 7, 3)).save(flat)
    (root / ".hidden").mkdir()
    Image.fromarray(noise(78, 5, 7, 3)).save(root / ".hidden" / "no.png")
    (root / "notes.txt").write_text("no image")
    got = read_pool(root, data)
    assert len(got) == 4
    np.testing.assert_array_equal(got[0], noise(77, 5, 7, 3))
    np.testing.assert_array_equal(got[1], noise(1000, 5, 7, 3))
    # A split's folder hides the others: no test image may teach the generator.
    (root / "test").mkdir()
    flat.rename(root / "test" / "z.png")
    np.testing.assert_array_equal(read_pool(root, data, split="test"), got[:1])
    with pytest.raises(DataError, match="expected split 'train', got only the splits: test"):
        read_pool(root, data)
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: expected image files at any depth .*got none"):
        read_pool(root / "empty", data)


def test_a_pool_from_idx(tmp_path, data, noise):
    images = noise(4, 3, 5, 4)
    head = (0x0803).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in images.shape)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(head + images.tobytes()))
    for source in (tmp_path, path):
        np.testing.assert_array_equal(read_pool(source, data), images[..., None])


@pytest.mark.parametrize("layout", ["NLC", "NDHWC"])
def test_a_pool_of_signals_or_volumes_needs_no_layout(layout, noise):
    shape = {"NLC": (9, 2), "NDHWC": (2, 4, 5, 1)}[layout]
    like = read((noise(0, 4, *shape), np.array([0, 1, 0, 1])), layout=layout)
    pool = noise(1, 3, *shape)
    np.testing.assert_array_equal(read_pool(pool, like), pool)
    one = pool[..., :1]
    single = read((noise(0, 4, *shape[:-1]), np.array([0, 1, 0, 1])), layout=layout[:-1])
    np.testing.assert_array_equal(read_pool(one[..., 0], single), one)


def test_units_are_converted_only_where_they_are_the_same(data):
    whole = np.full((2, 5, 4), 200.0)
    got = read_pool(whole, data)
    assert got.dtype == np.uint8
    assert (got == 200).all()
    as_float = read((data.images[..., 0].astype("float32"), data.labels))
    assert as_float.value_range == (0, 255)
    got = read_pool(whole.astype("uint8"), as_float)
    assert got.dtype == np.float32
    with pytest.raises(DataError, match=r"array: expected whole numbers 0 to 255.*got fractions"):
        read_pool(whole + 0.5, data)
    with pytest.raises(DataError, match=r"\(0, 255\) of the labelled .*got 0.5 to 0.5.*\(0, 1\)"):
        read_pool(np.full((2, 5, 4), 0.5), data)
    volts = np.linspace(-3, 5, 4 * 9).reshape(4, 9)
    signals = read((volts, np.array([0, 1, 0, 1])))
    np.testing.assert_array_equal(
        read_pool(volts[:2] / 2, signals)[..., 0], np.float32(volts[:2] / 2)
    )
    with pytest.raises(DataError, match=r"range \(-3, 5\) of the labelled .*scale both alike"):
        read_pool(volts * 2, signals)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (np.zeros((2, 6, 4), "uint8"), {}, r"shape 5x4x1, .*got 6x4x1; pass size=\(5, 4\)"),
        (np.zeros((2, 5, 4, 3), "uint8"), {}, r"shape 5x4x1, as the labelled ones, got 5x4x3$"),
        (np.zeros((2, 9), "uint8"), {}, r"shape 5x4x1, as the labelled ones, got 9x1$"),
        ("no/such", {}, "no/such: expected a file or a folder of images, got nothing"),
        ("", {}, "pool: expected a path, an array"),
        (3, {}, "pool: expected a path, .*got 'int'"),
        ("digits.csv", {}, r"digits\.csv: expected"),
        (np.zeros((2, 5, 4), "uint8"), {"keys": {"labels": "y"}}, "keys: .* with 'images', got"),
    ],
)
def test_pools_that_cannot_be_read(data, source, options, message):
    with pytest.raises(DataError, match=message):
        read_pool(source, data, **options)


def test_pools_in_files_that_cannot_be_read(data, tmp_path, noise):
    (tmp_path / "a.csv").write_text("x.png,1\n")
    with pytest.raises(DataError, match=r"a\.csv: expected a folder of images, IDX .*'\.csv'"):
        read_pool(tmp_path / "a.csv", data)
    np.savez(tmp_path / "two.npz", a=noise(0, 2, 5, 4), b=noise(0, 2, 5, 4))
    with pytest.raises(DataError, match=r"two\.npz: expected images in an array named unlabelled"):
        read_pool(tmp_path / "two.npz", data)
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"o\.npy: .*object array, which needs pickle"):
        read_pool(tmp_path / "o.npy", data)
    (tmp_path / "bad.npy").write_bytes((tmp_path / "o.npy").read_bytes()[:20])
    with pytest.raises(DataError, match=r"bad\.npy: expected a NumPy array, got:"):
        read_pool(tmp_path / "bad.npy", data)
    np.savez(tmp_path / "s.npz", test_images=noise(0, 2, 5, 4))
    with pytest.raises(DataError, match="expected split 'train', got only the splits: test"):
        read_pool(tmp_path / "s.npz", data)
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file["secret"] = noise(0, 2, 5, 4)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["images"] = h5py.ExternalLink(str(tmp_path / "out.h5"), "secret")
    with pytest.raises(DataError, match=r"'images' is an external link.*never followed"):
        read_pool(tmp_path / "link.h5", data)


def test_a_source_and_its_pool_are_read_by_the_settings_of_a_job(tree, tmp_path, caplog):
    root = tree({"a": 3, "b": 3}, "train")
    settings = {
        "split": "train",
        "size": [4, 6],
        "class_counts": {"0": 2, "1": 1},
        "keys": None,
        "mode": "L",
        "value_range": None,
    }
    caplog.set_level("INFO", logger="vaeaug")
    data = read_configured(root, settings, seed=3, pool=root, progress=False)
    expected = read(root, size=(4, 6), mode="L", progress=False)
    assert data.image_shape == (4, 6, 1)
    assert data.counts.tolist() == [2, 1]
    np.testing.assert_array_equal(data.unlabelled, expected.images)
    np.testing.assert_array_equal(data.images, expected.imbalanced({0: 2, 1: 1}, seed=3).images)
    assert "colour images turned to gray (mode='L') (6 of 6 images)" in caplog.text
    assert "pool: 6 images without labels" in caplog.text
    alone = read_configured(root, settings, seed=3, progress=False)
    assert alone.unlabelled is None
    assert alone.fingerprint == read_by(root, settings, seed=3, progress=False).fingerprint
