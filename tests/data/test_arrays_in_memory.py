"""Data in memory: lists, mappings, pandas columns, tensors of any type; masks and tables."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from vaeaug.data import DataError, read, read_pool

LABELS = [0, 1, 0, 1]


@pytest.fixture
def images(noise):
    return noise(0, 4, 5, 7, 3)


def same(data, images):
    np.testing.assert_array_equal(data.images, images)
    assert data.labels.tolist() == LABELS


@pytest.mark.parametrize("labels", [LABELS, tuple(LABELS), np.array(LABELS), torch.tensor(LABELS)])
@pytest.mark.parametrize("kind", ["arrays", "tuple", "pillow", "tensors", "objects", "array"])
def test_lists(images, labels, kind):
    kinds = {
        "arrays": list(images),
        "tuple": tuple(images),
        "pillow": [Image.fromarray(image) for image in images],
        "tensors": [torch.from_numpy(image).permute(2, 0, 1) for image in images],
        "array": images,
        "objects": np.empty(4, dtype=object),
    }
    for i, image in enumerate(images):
        kinds["objects"][i] = image
    same(read((kinds[kind], labels)), images)


def test_lists_of_numbers():
    signals = [[0, 50, 100], [3, 4, 250], [0, 7, 200], [5, 50, 90]]
    data = read((signals, LABELS))
    assert data.layout == "NLC"
    assert data.images[..., 0].tolist() == signals
    with pytest.raises(
        DataError, match=r"arrays\[images\]: expected an array, or lists of numbers"
    ):
        read(([[1, 2], [3], [4, 5], [6, 7]], LABELS))


def test_lists_of_paths(images, tmp_path):
    paths = []
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    same(read((paths, LABELS)), images)
    same(read((list(map(os.fspath, paths)), LABELS)), images)
    same(read({"images": paths, "labels": LABELS}), images)
    paths[1].write_bytes(b"broken")
    skipped = read((paths, LABELS), on_error="skip")
    np.testing.assert_array_equal(skipped.images, images[[0, 2, 3]])
    assert skipped.labels.tolist() == [0, 0, 1]


def test_a_list_of_items_stays_a_dataset(images):
    items = [(image, label) for image, label in zip(images, LABELS, strict=True)]
    same(read(items), images)
    two = read(tuple(items[:2]))
    np.testing.assert_array_equal(two.images, images[:2])


def test_texts_as_labels_of_every_kind(images):
    names = ["cat", "dog", "cat", "dog"]
    kinds = [names, np.array(names), np.array(names, dtype=object), np.array(names, dtype="S")]
    kinds.append(np.array(names, dtype=np.dtypes.StringDType()))
    for kind in kinds:
        data = read((images, kind))
        assert data.class_names == ("cat", "dog")
        same(data, images)


def test_pandas_columns(images):
    pandas = pytest.importorskip("pandas")
    names = pandas.Series(["cat", "dog", "cat", "dog"], index=[9, 8, 7, 6])
    for column in (names, names.astype("category"), names.astype("string"), pandas.Index(names)):
        data = read((images, column))
        assert data.class_names == ("cat", "dog")
        same(data, images)
    same(read((images, pandas.Series(LABELS))), images)
    same(read((pandas.Series(list(images)), pandas.Series(LABELS))), images)
    with pytest.raises(DataError, match=r"arrays\[labels\]: .* of one kind, got .* at index 1"):
        read((images, pandas.Series(["cat", None, "cat", "dog"])))
    same(read((images, pandas.DataFrame({"label": LABELS}))), images)
    same(read((pandas.Series([image.tolist() for image in images]), LABELS)), images)
    frame = pandas.DataFrame(np.zeros((4, 3)), columns=["a", "b", "c"])
    with pytest.raises(DataError, match=r"a table of 4 rows and 3 columns; .*VAEOverSampler"):
        read((frame, LABELS))
    with pytest.raises(DataError, match=r"source: .*a table of the columns a, b, c; .*VAEOverSamp"):
        read(frame)


def test_mappings(images):
    same(read({"images": images, "labels": LABELS}), images)
    same(read({"x": list(images), "y": torch.tensor(LABELS)}), images)
    both = {"train": (images, LABELS), "test": {"images": images[:2], "labels": [1, 0]}}
    same(read(both), images)
    test = read(both, split="test")
    np.testing.assert_array_equal(test.images, images[:2])
    same(
        read({"scan": images, "grade": LABELS}, keys={"images": "scan", "labels": "grade"}), images
    )
    with pytest.raises(
        DataError, match=r"dict: expected arrays named .*; got cat, dog; pass keys="
    ):
        read({"cat": images[:2], "dog": images[2:]})
    with pytest.raises(DataError, match="expected names of arrays as keys, got 0"):
        read({0: images, 1: images})
    with pytest.raises(DataError, match="one label for each image, got images of shape"):
        read({"images": images, "labels": LABELS[:3]})


def test_images_without_labels_say_what_is_missing(images):
    for alone in (images, torch.from_numpy(images)):
        with pytest.raises(
            DataError, match=r"as a tuple \(images, labels\), got .* alone of shape"
        ):
            read(alone)


def test_masked_arrays(images):
    mask = np.zeros(images.shape, dtype=bool)
    same(read((np.ma.array(images, mask=mask), LABELS)), images)
    mask[1, 2, 3] = True
    masked = np.ma.array(images, mask=mask)
    message = r"without mask, got 3 of 420 values masked; .*array\.filled\(value\)"
    with pytest.raises(DataError, match=rf"arrays\[images\]: .*{message}"):
        read((masked, LABELS))
    with pytest.raises(DataError, match=r"arrays\[labels\]: expected an array without mask"):
        read((images, np.ma.array(LABELS, mask=[0, 1, 0, 0])))
    with pytest.raises(DataError, match=r"arrays\[1\]: expected an array without mask, got 3"):
        read((list(masked), LABELS))
    whole = read((images, LABELS))
    with pytest.raises(DataError, match="array: expected an array without mask"):
        read_pool(masked, whole)
    np.testing.assert_array_equal(read((masked.filled(0), LABELS)).images, masked.filled(0))


def test_tensors_of_types_that_numpy_has_not(images):
    floats = torch.rand(4, 3, 5, 7).to(torch.bfloat16)
    data = read((floats, LABELS))
    assert data.value_range == (0, 1)
    np.testing.assert_array_equal(data.images, floats.float().permute(0, 2, 3, 1).numpy())
    items = [(x, y) for x, y in zip(floats, LABELS, strict=True)]
    np.testing.assert_array_equal(read(items).images, data.images)
    grown = torch.rand(4, 3, 5, 7, requires_grad=True)
    np.testing.assert_array_equal(
        read((grown, LABELS)).images, grown.detach().permute(0, 2, 3, 1).numpy()
    )
    with pytest.raises(DataError, match=r"a dense tensor, got a torch\.sparse_coo one; .*to_dense"):
        read((torch.from_numpy(images).to_sparse(), LABELS))


# Tables and signals


def test_a_table_is_no_signal():
    from sklearn.datasets import load_breast_cancer

    rows, labels = load_breast_cancer(return_X_y=True)
    with pytest.raises(DataError) as caught:
        read((rows, labels))
    message = str(caught.value)
    assert "569 rows of 30 numbers whose scale jumps from column to column" in message
    assert "vaeaug.VAEOverSampler" in message
    assert read((rows, labels), layout="NL").image_shape == (30, 1)


@pytest.mark.parametrize("name", ["iris", "wine"])
def test_other_tables_are_no_signals(name):
    from sklearn import datasets

    rows, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    with pytest.raises(DataError, match=r"as in a table; .*VAEOverSampler"):
        read((rows, labels))


@pytest.mark.parametrize(
    "kind", ["sine", "noise", "walk", "padded", "pulse", "spikes", "heavy", "flat"]
)
def test_signals_are_no_table(kind):
    rng = np.random.default_rng(0)
    t = np.linspace(0, 6, 187)
    signals = {
        "sine": np.sin(t * rng.uniform(1, 3, (40, 1))) + rng.normal(0, 0.05, (40, 187)),
        "noise": rng.normal(size=(40, 187)),
        "walk": np.cumsum(rng.normal(size=(40, 187)), axis=1),
        # Heart beats: of several lengths, filled up with zeros.
        "padded": rng.random((40, 187)) * (t < rng.uniform(2, 6, (40, 1))),
        "spikes": (rng.random((50, 187)) < 0.02) * rng.exponential(size=(50, 187)),
        "heavy": rng.standard_t(1.2, size=(40, 187)),
        "flat": read("digits").images.reshape(-1, 64)[:200] / 255,
        "pulse": np.exp(-((t - rng.uniform(2, 4, (40, 1))) ** 2) * 20),
    }[kind]
    data = read((signals, np.arange(len(signals)) % 2))
    assert data.layout == "NLC"
    assert any("vaeaug.VAEOverSampler" in note for note in data.notes)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_one_row_or_column_is_a_signal(dtype, noise):
    signals = noise(0, 4, 1, 60).astype(dtype)
    data = read((signals, LABELS))
    assert (data.layout, data.image_shape) == ("NLC", (60, 1))
    np.testing.assert_array_equal(data.images[..., 0], signals[:, 0])
    assert any("(4, 1, 60) taken as (N, C, L), signals of one channel" in n for n in data.notes)
    turned = read((signals.transpose(0, 2, 1), LABELS))
    assert turned.fingerprint == data.fingerprint
    items = [(torch.from_numpy(s), y) for s, y in zip(signals, LABELS, strict=True)]
    assert read(items).fingerprint == data.fingerprint
    images = read((signals, LABELS), layout="NHW")
    assert images.image_shape == (1, 60, 1)


def test_elongated_images_are_noted(noise):
    data = read((noise(0, 4, 12, 500), LABELS))
    assert data.layout == "NHWC"
    assert any("taken as (N, H, W), gray images; pass layout='NCL'" in note for note in data.notes)
    assert not any("gray images" in note for note in read((noise(0, 4, 12, 50), LABELS)).notes)


# Hosts


def test_an_image_folder_with_a_transform(tree):
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    root = tree({"cat": 3, "dog": 2})
    plain = read(root)
    scaled = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    data = read(ImageFolder(str(root), transform=scaled))
    assert data.class_names == ("cat", "dog")
    assert data.value_range == (0, 1)
    np.testing.assert_allclose(data.images * 255, plain.images, atol=1e-3)
    bytes_ = read(ImageFolder(str(root), transform=v2.ToImage()))
    assert bytes_.fingerprint == plain.fingerprint
    normalised = v2.Compose([scaled, v2.Normalize([0.5] * 3, [0.5] * 3)])
    data = read(ImageFolder(str(root), transform=normalised))
    assert data.value_range == (-1, 1)
    odd = v2.Compose([scaled, v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    data = read(ImageFolder(str(root), transform=odd))
    assert any("value range of the images taken from their values" in note for note in data.notes)


def test_a_dataset_that_says_it_is_of_the_test_split(images, tree):
    from torchvision.datasets import ImageFolder

    class Items(list):
        train = False

    items = [(image, label) for image, label in zip(images, LABELS, strict=True)]
    note = "taken as the training split, although the dataset states that it is test"
    assert note in read(Items(items)).notes
    assert note in read(torch.utils.data.Subset(Items(items), [0, 1, 2])).notes
    assert note not in read(Items(items), split="test").notes
    assert note not in read(items).notes
    tree({"a": 2, "b": 1}, "test")
    root = tree({"a": 2, "b": 1}, "train")
    assert note in read(ImageFolder(str(root / "test"))).notes
    assert note not in read(ImageFolder(str(root / "train"))).notes


def test_a_dataset_of_any_columns_by_keys(images):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(scan=datasets.Image(), grade=datasets.Value("string"))
    rows = {"scan": [Image.fromarray(i) for i in images], "grade": ["lo", "hi", "lo", "hi"]}
    table = datasets.Dataset.from_dict(rows, features=features)
    data = read(table, keys={"images": "scan", "labels": "grade"})
    np.testing.assert_array_equal(data.images, images)
    assert data.class_names == ("hi", "lo")


# Ranges of pools and of parts


def test_a_pool_is_in_the_range_of_the_data():
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 4000, (4, 5, 7)).astype("uint16")
    data = read((deep, LABELS))
    assert data.value_range == (0, 4095)
    dark = (deep[:2] // 8).astype("uint16")
    np.testing.assert_array_equal(read_pool(dark, data)[..., 0], dark)
    with pytest.raises(DataError, match=r"range \(0, 4095\) of the labelled images, got .* both"):
        read_pool(np.full((2, 5, 7), 5000, "uint16"), data)
    scaled = read((deep / 4000, LABELS))
    with pytest.raises(DataError, match=r"expected values inside value_range=\(0, 1\)"):
        read_pool(dark, scaled, value_range=(0, 1))
    with pytest.raises(DataError, match=r"range \(0, 1\) of the labelled images"):
        read_pool(dark, scaled)


def test_what_is_read_already_in_another_range(images):
    data = read((images, LABELS))
    wide = read(data, value_range=(0, 300))
    assert (wide.value_range, wide.images.dtype) == ((0, 300), np.float32)
    np.testing.assert_array_equal(wide.images, images)
    assert read(data, value_range=(0, 255)) is data
    wider = read(wide, value_range=(0, 400))
    assert wider.value_range == (0, 400)
    np.testing.assert_array_equal(wider.images, wide.images)
    with pytest.raises(DataError, match=r"inside value_range=\(0, 1\)"):
        read(data, value_range=(0, 1))
