"""Digits, IDX, CSV, torch datasets, and how `read` tells sources apart."""

import gzip
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from vaeaug.data import DataError, read

LABELS = np.array([0, 1, 2, 0, 1, 2])


# digits


def test_digits_values_and_names():
    from sklearn.datasets import load_digits

    data = read("digits", split="all")
    bunch = load_digits()
    assert data.images.shape == (1797, 8, 8, 1)
    assert data.labels.tolist() == bunch.target.tolist()
    table = {0: 0, 1: 16, 8: 128, 15: 239, 16: 255}
    for value, pixel in table.items():
        assert set(data.images[..., 0][bunch.images == value]) == {pixel}
    assert data.class_names == tuple("0123456789")


def test_digits_split_is_stratified_disjoint_and_deterministic():
    whole, train, test = (read("digits", split=s) for s in ("all", "train", "test"))
    assert (train.counts + test.counts == whole.counts).all()
    np.testing.assert_allclose(test.counts / whole.counts, 0.2, atol=0.01)
    keys = [{image.tobytes() for image in part.images} for part in (whole, train, test)]
    assert len(keys[0]) == len(whole)  # all digits differ, so sets of pixels can be compared
    assert not keys[1] & keys[2]
    assert keys[1] | keys[2] == keys[0]
    assert read("digits").fingerprint == train.fingerprint
    assert (train.split, test.split) == ("train", "test")


def test_digits_have_no_validation_split():
    with pytest.raises(DataError, match=r"digits: expected split 'val', got only .*: train, test"):
        read("digits", split="val")


def test_digits_resize_and_names():
    data = read("digits", size=16, class_names=list("abcdefghij"))
    assert data.image_shape == (16, 16, 1)
    assert data.class_names == tuple("abcdefghij")
    assert read("digits", size=np.int64(16)).image_shape == (16, 16, 1)


# IDX


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    head = (0x0800 + array.ndim if magic is None else magic).to_bytes(4, "big")
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + sizes + array.astype("uint8").tobytes()


def write_idx(folder: Path, split: str, images: np.ndarray, labels: np.ndarray, zipped: bool):
    folder.mkdir(exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        raw = idx(array)
        name = f"{split}-{kind}-ubyte" + (".gz" if zipped else "")
        (folder / name).write_bytes(gzip.compress(raw) if zipped else raw)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx(tmp_path, noise, zipped):
    folder = tmp_path / "mnist"
    images = {"train": noise(0, 6, 5, 7), "t10k": noise(1, 4, 5, 7)}
    write_idx(folder, "train", images["train"], LABELS, zipped)
    write_idx(folder, "t10k", images["t10k"], np.array([0, 1, 0, 1]), zipped)
    train, test = read(folder), read(folder, split="test")
    np.testing.assert_array_equal(train.images[..., 0], images["train"])
    np.testing.assert_array_equal(test.images[..., 0], images["t10k"])
    assert train.labels.tolist() == LABELS.tolist()
    assert test.class_names == train.class_names == ("0", "1", "2")
    assert test.counts.tolist() == [2, 2, 0]
    with pytest.raises(DataError, match="expected split 'val', got only the splits: train, test"):
        read(folder, split="val")


def test_idx_other_spellings(tmp_path, noise):
    folder = tmp_path / "emnist"
    write_idx(folder, "emnist-letters-train", noise(0, 6, 5, 7), LABELS, zipped=True)
    assert len(read(folder)) == 6
    (folder / "train-images.idx3-ubyte").write_bytes(idx(noise(0, 6, 5, 7)))
    with pytest.raises(DataError, match=r"one file of images for the split 'train', got .* and "):
        read(folder)


def test_idx_plain_is_taken_before_its_gzip(tmp_path, noise):
    folder = tmp_path / "both"
    write_idx(folder, "train", noise(0, 6, 5, 7), LABELS, zipped=False)
    write_idx(folder, "train", noise(1, 6, 5, 7), LABELS, zipped=True)
    np.testing.assert_array_equal(read(folder).images[..., 0], noise(0, 6, 5, 7))


IMAGES = np.zeros((6, 5, 7), "uint8")


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("images-idx3", idx(IMAGES, 2049), "magic number 2051 and .*, got magic number 2049"),
        ("images-idx3", idx(IMAGES)[:-1], r"226 bytes for shape \(6, 5, 7\), got 225"),
        ("images-idx3", idx(IMAGES) + b"x", r"226 bytes for shape .*, got 227"),
        ("images-idx3", b"", "a head of 16 bytes, got magic number 0 in 0 bytes"),
        ("labels-idx1", idx(IMAGES), "magic number 2049 and .*, got magic number 2051"),
        (
            "labels-idx1",
            idx(LABELS[:5]),
            r"one label for each image, got images of shape \(6, .* labels of shape \(5,\)",
        ),
        ("labels-idx1", None, "a file of labels for the split 'train', got only train-images"),
    ],
)
def test_bad_idx(tmp_path, name, raw, message):
    folder = tmp_path / "bad"
    write_idx(folder, "train", IMAGES, LABELS, zipped=False)
    path = folder / f"train-{name}-ubyte"
    path.unlink() if raw is None else path.write_bytes(raw)
    with pytest.raises(DataError, match=rf"bad.*: expected .*{message}"):
        read(folder)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"\0" + b[1:], lambda b: b""])
def test_bad_gzip(tmp_path, damage):
    folder = tmp_path / "bad"
    write_idx(folder, "train", IMAGES, LABELS, zipped=True)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: expected .*IDX file"):
        read(folder)


@pytest.mark.fashion_mnist
def test_fashion_mnist_as_debian_installs_it():
    try:
        listed = subprocess.run(
            ["dpkg", "-L", "dataset-fashion-mnist"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    folder = next(Path(line).parent for line in listed if line.endswith("ubyte.gz"))
    train, test = read(folder), read(folder, split="test")
    assert train.images.shape == (60000, 28, 28, 1)
    assert test.images.shape == (10000, 28, 28, 1)
    assert set(train.counts) == {6000}
    assert set(test.counts) == {1000}
    assert train.class_names[0] == "T-shirt/top"
    assert train.class_names[9] == "Ankle boot"
    # The first training image is an ankle boot: known from the data set's own description.
    assert train.labels[0] == 9


# CSV


@pytest.fixture
def table(tmp_path, noise):
    """table(text): a CSV beside images 0.png ... 5.png."""
    folder = tmp_path / "csv"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(noise(i, 5, 7, 3)).save(folder / f"{i}.png")

    def write(text: str, name: str = "list.csv", encoding: str = "utf-8") -> Path:
        (folder / name).write_text(text, encoding=encoding)
        return folder / name

    return write


@pytest.mark.parametrize(
    "text",
    [
        "0.png,dog\n1.png,cat\n2.png,dog\n",
        "path,label\n0.png,dog\n1.png,cat\n2.png,dog\n",
        "Label,id,File\ndog,7,0.png\ncat,7,1.png\n\ndog,7,2.png\n",
        '"filename", class\n "0.png",dog\n1.png, cat\n./2.png,dog\n',
    ],
)
def test_csv(table, noise, text):
    data = read(table(text))
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(data.images, [noise(i, 5, 7, 3) for i in range(3)])


def test_csv_encodings_and_tabs(table):
    expected = read(table("path,label\n0.png,dog\n1.png,cat\n")).fingerprint
    bom = table("path,label\n0.png,dog\n1.png,cat\n", encoding="utf-8-sig")
    assert read(bom).fingerprint == expected
    tabs = table("path\tlabel\n0.png\tdog\n1.png\tcat\n", name="list.tsv")
    assert read(tabs).fingerprint == expected
    with pytest.raises(DataError, match=r"list\.csv: expected a table in UTF-8"):
        read(table("0.png,hündin\n1.png,b\n", encoding="latin-1"))


def test_csv_integer_labels_sort_as_numbers(table):
    data = read(table("0.png,10\n1.png,9\n2.png,10\n"))
    assert data.class_names == ("9", "10")
    assert data.labels.tolist() == [1, 0, 1]
    assert any("integer labels 9, 10 renumbered 0..1" in note for note in data.notes)
    named = read(table("0.png,1\n1.png,0\n"), class_names=["no", "yes", "maybe"])
    assert named.labels.tolist() == [1, 0]
    assert named.counts.tolist() == [1, 1, 0]


def test_csv_splits(table):
    path = table(
        "path,label,split\n0.png,b,train\n1.png,a,train\n2.png,c,train\n3.png,c,test\n4.png,b,test\n"
    )
    assert len(read(path)) == 3
    test = read(path, split="test")
    assert test.class_names == ("a", "b", "c")
    assert test.labels.tolist() == [2, 1]
    with pytest.raises(DataError, match="expected split 'val', got only the splits: train, test"):
        read(path, split="val")


def test_csv_repeated_rows_are_left_out_and_noted(table):
    data = read(table("0.png,a\n1.png,b\n./0.png,a\n"))
    assert len(data) == 2
    assert "skipped 1 rows that repeat an earlier one" in data.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rows of path,label, got an empty file"),
        ("path,label\n", "got only a header"),
        ("0.png,a\nno.png,b\n", r"line 2: expected an image file, got no .*csv/no\.png"),
        ("0.png,a\n1.png\n", "line 2: expected 2 columns, got 1"),
        ("0.png,a\n1.png,\n", "line 2: expected a label, got an empty cell"),
        ("path,label\n,a\n", "line 2: expected a path, got an empty cell"),
        ("0.png,a,b\n", r"line 1: expected two columns, .*or a header .*got \['0.png', 'a', 'b'\]"),
        ("path,file,label\n0.png,0.png,a\n", "one column of images, got path and file; pass keys="),
        (
            "0.png,a\n1.png,b\n0.png,b\n",
            "line 3: expected one label for .*'b' here and 'a' on line 1",
        ),
        (
            "path,label,split\n0.png,a,train\n1.png,b,train\n0.png,a,test\n",
            "line 4: expected .* in one split, got 'test' here and 'train' on line 2",
        ),
        ("path,label,split\n0.png,a,later\n", r"line 2: expected a split .*got 'later'"),
        ("0.png,a\n1.png,a\n", "at least two classes, got 2 images, all of class 'a'"),
        ('0.png,a\n"1.png,b\n', "a table in UTF-8, got: "),
    ],
)
def test_bad_csv(table, text, message):
    with pytest.raises(DataError, match=rf"list\.csv.*expected .*{message}|list\.csv, {message}"):
        read(table(text))


def test_csv_test_label_unknown_to_training(table):
    path = table("path,label,split\n0.png,a,train\n1.png,b,train\n2.png,z,test\n3.png,a,test\n")
    with pytest.raises(
        DataError, match=r"expected one of the class names 'a', 'b', got 'z' in line 4"
    ):
        read(path, split="test")


# torch


class Items(Dataset):
    """A map-style dataset which, as many are, is endless when iterated."""

    def __init__(self, images, labels, classes=None):
        self.images, self.labels = images, labels
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.images[i % len(self)], self.labels[i % len(self)], "more"


def test_torch_of_each_kind_of_image(noise):
    images = noise(0, 6, 5, 7, 3)
    chw = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    expected = None
    for kind in (images, [Image.fromarray(a) for a in images], chw):
        data = read(Items(kind, torch.from_numpy(LABELS)))
        np.testing.assert_array_equal(data.images, images)
        assert data.labels.tolist() == LABELS.tolist()
        assert data.notes == ()
        assert expected in (None, data.fingerprint)
        expected = data.fingerprint


def test_torch_gray_and_float(noise):
    images = noise(0, 6, 5, 7)
    assert read(Items(images, LABELS)).image_shape == (5, 7, 1)
    floats = torch.from_numpy(images[:, None] / np.float32(255))
    data = read(TensorDataset(floats, torch.from_numpy(LABELS)), split="test")
    assert data.image_shape == (5, 7, 1)
    assert data.value_range == (0, 1)
    assert data.split == "test"
    normalised = read(TensorDataset(floats * 4 - 2, torch.from_numpy(LABELS)))
    np.testing.assert_allclose(normalised.images, data.images * 4 - 2, atol=1e-6)
    assert any("taken from their values" in note for note in normalised.notes)


def test_torch_rgba():
    floats = torch.tensor([1.0, 0.0, 0.0, 0.5])[:, None, None].expand(4, 5, 7)
    items = Items([floats] * 6, LABELS)
    np.testing.assert_allclose(read(items).images[0, 0, 0], [1, 0.5, 0.5])
    assert read(items, alpha="keep").image_shape == (5, 7, 4)
    pil = Items([Image.new("RGBA", (7, 5), (255, 0, 0, 128))] * 6, LABELS)
    assert read(pil).images[0, 0, 0].tolist() == [255, 127, 127]
    assert read(pil, alpha="keep").images[0, 0, 0].tolist() == [255, 0, 0, 128]


def test_torch_class_names_also_through_subset(noise):
    items = Items(noise(0, 6, 5, 7), LABELS, classes=["x", "y", "z", "w"])
    assert read(items).class_names == ("x", "y", "z", "w")
    part = read(Subset(Subset(items, [0, 1, 3, 4]), [0, 1, 3]))
    assert part.class_names == ("x", "y", "z", "w")
    assert part.labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(part.images[..., 0], noise(0, 6, 5, 7)[[0, 1, 4]])


def test_torch_imagefolder_equals_the_tree(tree):
    from torchvision.datasets import ImageFolder

    root = tree({"b": 3, "a": 2})
    assert read(ImageFolder(str(root))).fingerprint == read(root).fingerprint


def test_torch_random_transforms_are_noted(noise):
    class Random(Items):
        def __getitem__(self, i):
            image, label, _ = super().__getitem__(i)
            return np.random.default_rng().permutation(image.ravel()).reshape(image.shape), label

    data = read(Random(noise(0, 6, 5, 7), LABELS))
    assert "random transforms are baked in" in data.notes[0]


def test_torch_sizes(noise):
    items = Items([noise(i, 4 + i % 2, 6) for i in range(6)], LABELS)
    with pytest.raises(DataError, match=r"got 2 sizes: Items\[0\] is 4x6 and Items\[1\] is 5x6"):
        read(items)
    assert read(items, size=5).image_shape == (5, 5, 1)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (["text"] * 6, LABELS, r"Items\[0\]: expected a PIL image, an array .*got str"),
        (np.zeros((6, 5, 7, 2)), LABELS, r"Items\[0\]: .*C of 1, 3 or 4, got shape \(5, 7, 2\)"),
        (np.zeros((6, 5, 7)), np.eye(6), r"Items\[0\]: .*got ndarray of shape \(6,\); multi-label"),
        (np.zeros((6, 5, 7)), [None] * 6, r"Items\[0\]: expected one class index .*got NoneType"),
        (np.zeros((0, 5, 7)), [], r"Items: expected at least one item, got len\(\) of 0"),
    ],
)
def test_bad_torch_items(images, labels, message):
    with pytest.raises(DataError, match=message):
        read(Items(images, labels))


def test_torch_items_that_are_no_pairs_or_fail():
    with pytest.raises(DataError, match=r"list\[0\]: expected an item \(image, label\), got int"):
        read([1, 2, 3])

    class Failing(Items):
        def __getitem__(self, i):
            raise KeyError("gone")

    with pytest.raises(KeyError) as caught:
        read(Failing(np.zeros((6, 5, 7)), LABELS))
    assert caught.value.__notes__ == ["while reading item 0 of Failing"]


def test_string_labels_in_a_dataset(noise):
    data = read(Items(noise(0, 4, 5, 7), ["b", "a", "b", "c"]))
    assert data.class_names == ("a", "b", "c")
    assert data.labels.tolist() == [1, 0, 1, 2]


# read itself


def test_labelled_images_pass_through():
    data = read("digits")
    assert read(data) is data
    assert read(data, size=(4, 5)).image_shape == (4, 5, 1)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "source: expected a path, the built-in 'digits', .*got NoneType"),
        (Stream(), "source: expected .*map-style torch Dataset .*got Stream"),
        ("", "source: expected a path, got an empty text"),
        ("no/such", "no/such: expected a file, a folder or the built-in 'digits', got nothing"),
    ],
)
def test_no_source(source, message):
    with pytest.raises(DataError, match=message):
        read(source)


def test_file_of_an_unknown_kind(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"?")
    with pytest.raises(
        DataError, match=r"x\.pkl: expected a folder, or a file ending in \.npz, .*, got .*'\.pkl'"
    ):
        read(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "trian"}, "split: expected one of train, val, test or all, got 'trian'"),
        ({"size": 0}, r"size: expected \(height, width\) or one number, at least 1, got 0"),
        ({"split": None}, "split: expected one of .*, got None"),
        ({"size": True}, "size: .*got True"),
        ({"keys": {"images": 3, "labels": "b"}}, "keys: expected the names of arrays, got"),
        ({"size": (3,)}, r"size: .*got \(3,\)"),
        ({"size": (3, 2.5)}, r"size: .*got \(3, 2.5\)"),
        ({"alpha": "black"}, "alpha: expected one of composite, drop, keep, got 'black'"),
        ({"workers": -1}, "workers: expected 0 or more, got -1"),
        ({"class_names": "abc"}, "class_names: expected a sequence of names, got the text 'abc'"),
        ({"keys": {"images": "a", "labels": "b"}}, r"digits: keys= is for \.npz, \.h5, \.hdf5"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments(arguments, message):
    with pytest.raises(DataError, match=message):
        read("digits", **arguments)


def test_keys_are_refused_where_they_would_do_nothing(tree, table):
    keys = {"images": "a", "labels": "b"}
    for source in (tree({"a": 1, "b": 1}), Items([], []), "digits"):
        with pytest.raises(DataError, match="keys= is for"):
            read(source, keys=keys)
