"""Arrays in `.npz` and HDF5 files: names, axes, values and labels; nothing is unpickled."""

import os
import pickle
import zipfile

import h5py
import numpy as np
import pytest
from numpy.lib import format as npy

from vaeaug.data import DataError, read

LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture(params=["npz", "h5"])
def save(request, tmp_path):
    """save(images=..., labels=...): the same arrays as .npz and as HDF5."""

    def write(**arrays):
        path = tmp_path / f"data.{request.param}"
        if request.param == "npz":
            np.savez(path, **arrays)
        else:
            with h5py.File(path, "w") as file:
                for name, array in arrays.items():
                    file[name] = array.astype("S") if array.dtype.kind == "U" else array
        return path

    return write


@pytest.mark.parametrize(
    ("image_key", "label_key"),
    [("images", "labels"), ("x", "y"), ("X", "y"), ("X", "Y"), ("data", "targets")],
)
def test_flat_names(save, noise, image_key, label_key):
    images = noise(0, 6, 5, 4, 3)
    path = save(**{image_key: images, label_key: LABELS})
    data = read(path)
    np.testing.assert_array_equal(data.images, images)
    assert data.labels.tolist() == LABELS.tolist()
    assert data.class_names == ("0", "1", "2")
    assert data.value_range == (0, 255)
    assert data.source == str(path)
    assert data.notes == ("no splits found: all images are taken as the training split",)
    assert len(read(path, split="all")) == 6
    with pytest.raises(DataError, match="expected split 'val', got data without splits"):
        read(path, split="val")


@pytest.mark.parametrize("names", [("{}_images", "{}_labels"), ("x_{}", "y_{}")])
def test_split_names(save, noise, names):
    arrays = {}
    for k, split in enumerate(("train", "val", "test")):
        arrays[names[0].format(split)] = noise(k, 6, 5, 4)
        # MedMNIST's labels have shape (N, 1).
        arrays[names[1].format(split)] = LABELS[:, None].astype("uint8")
    path = save(**arrays)
    for split in ("train", "val", "test"):
        data = read(path, split=split)
        np.testing.assert_array_equal(data.images[..., 0], arrays[names[0].format(split)])
        assert data.labels.dtype == np.int64
        assert data.labels.tolist() == LABELS.tolist()
        assert data.split == split
        assert data.notes == ()
    with pytest.raises(DataError, match=r"'all' is only for data without splits.*train, val, test"):
        read(path, split="all")


def test_missing_split_names_those_that_exist(save, noise):
    images = noise(0, 6, 5, 4)
    path = save(train_images=images, train_labels=LABELS, test_images=images, test_labels=LABELS)
    with pytest.raises(DataError, match="expected split 'val', got only the splits: train, test"):
        read(path, split="val")


def test_other_splits_take_the_classes_of_training(save, noise):
    arrays = {
        "train_images": noise(0, 6, 5, 4),
        "train_labels": LABELS,
        "test_images": noise(1, 4, 5, 4),
        "test_labels": np.array([0, 1, 0, 1]),
    }
    data = read(save(**arrays), split="test")
    assert data.n_classes == 3
    assert data.counts.tolist() == [2, 2, 0]
    arrays["test_labels"] = np.array([0, 1, 3, 1])
    with pytest.raises(
        DataError, match=r"\[test_labels\]: expected labels in 0..2 .*training split.*got 3 at"
    ):
        read(save(**arrays), split="test")


def test_keys(save, noise):
    images = noise(0, 6, 5, 4)
    path = save(pics=images, kind=LABELS, other=LABELS)
    data = read(path, keys={"images": "pics", "labels": "kind"})
    np.testing.assert_array_equal(data.images[..., 0], images)
    with pytest.raises(
        DataError, match=r"expected arrays named .*got kind, other, pics.*pass keys"
    ):
        read(path)
    with pytest.raises(DataError, match=r"expected .*'pictures'.*pics"):
        read(path, keys={"images": "pictures", "labels": "kind"})
    with pytest.raises(DataError, match=r"mapping with 'images' and 'labels', got \['images'\]"):
        read(path, keys={"images": "pics"})


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first_is_turned(save, noise, channels):
    images = noise(0, 6, channels, 5, 7)
    data = read(save(images=images, labels=LABELS))
    np.testing.assert_array_equal(data.images, images.transpose(0, 2, 3, 1))
    assert data.images.flags.c_contiguous
    assert any("taken as (N, C, H, W)" in note for note in data.notes)


def test_channels_last_wins_where_both_fit(save, noise):
    images = noise(0, 6, 3, 5, 3)
    np.testing.assert_array_equal(read(save(images=images, labels=LABELS)).images, images)


@pytest.mark.parametrize("shape", [(6,), (6, 5, 7, 9), (6, 5, 4, 3, 2, 1)])
def test_shapes_that_are_no_images(save, shape):
    with pytest.raises(DataError, match=r"\[images\]: expected images of shape .*, got shape \(6,"):
        read(save(images=np.zeros(shape, "uint8"), labels=LABELS))


def test_no_images_and_no_pixels(save):
    with pytest.raises(DataError, match=r"at least one image .*got shape \(0, 5, 4, 1\)"):
        read(save(images=np.zeros((0, 5, 4), "uint8"), labels=np.zeros(0, "int64")))
    with pytest.raises(DataError, match=r"at least 1x1 pixel, got shape \(6, 0, 4, 1\)"):
        read(save(images=np.zeros((6, 0, 4), "uint8"), labels=LABELS))


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "int32"])
def test_sixteen_bit_values_are_exact(save, noise, dtype):
    images = noise(0, 6, 5, 4, dtype="uint16")
    images[0, 0, :2] = 0, 65535
    data = read(save(images=images.astype(dtype), labels=LABELS))
    assert data.images.dtype == np.float32
    assert data.value_range == (0, 65535)
    np.testing.assert_array_equal(data.images[..., 0].astype("uint16"), images)
    assert any("kept exactly" in note for note in data.notes)


@pytest.mark.parametrize(
    ("low", "high", "value_range"),
    [
        (0, 200, (0, 255)),
        (0, 1000, (0, 1023)),
        (3, 4012, (0, 4095)),
        (0, 16000, (0, 16383)),
        (0, 16384, (0, 65535)),
        # A thermal camera: in 16 bits, of which it uses a thirtieth.
        (29000, 31000, (29000, 31000)),
        (7, 7, (0, 255)),
    ],
)
def test_the_range_of_integers_is_their_bit_depth_or_their_own(save, low, high, value_range):
    for dtype in ("uint16", ">u2", "int32"):
        if dtype == "int32" and high < 256:
            continue
        images = np.linspace(low, high, 6 * 20).round().reshape(6, 5, 4).astype(dtype)
        data = read(save(images=images, labels=LABELS))
        assert data.value_range == value_range
        np.testing.assert_array_equal(data.images[..., 0], images.astype("float32"))
        assert any("--value-range" in note for note in data.notes)


def test_bool_and_small_integers(save, noise):
    data = read(save(images=noise(0, 6, 5, 4) > 127, labels=LABELS))
    assert set(np.unique(data.images)) == {0, 255}
    images = noise(0, 6, 5, 4).astype("int64")
    images[0, 0, 0] = 0
    images[0, 0, 1] = 250
    data = read(save(images=np.minimum(images, 250), labels=LABELS))
    assert data.images.dtype == np.uint8
    assert "int64 images with values 0 to 250 stored as uint8" in data.notes


@pytest.mark.parametrize(("low", "high"), [(-1024, 3071), (0, 70000), (-1, 0)])
def test_integers_of_any_range(save, low, high):
    images = np.linspace(low, high, 6 * 20).round().reshape(6, 5, 4).astype("int64")
    data = read(save(images=images, labels=LABELS))
    assert data.value_range == (low, high)
    np.testing.assert_array_equal(data.images[..., 0], images)
    assert any(f"taken from their values: {low:g} to {high:g}" in note for note in data.notes)
    with pytest.raises(DataError, match=r"integers of at most 2\*\*24, .*got int64 images"):
        read(save(images=images << 25, labels=LABELS))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64"])
def test_masks_of_0_and_1_keep_their_values(save, dtype):
    images = (np.arange(6 * 20).reshape(6, 5, 4) % 3 == 0).astype(dtype)
    data = read(save(images=images, labels=LABELS))
    assert data.images.dtype == np.float32
    assert data.value_range == (0, 1)
    np.testing.assert_array_equal(data.images[..., 0], images)
    assert any("taken as masks" in note for note in data.notes)
    dark = read(save(images=images, labels=LABELS), value_range=(0, 255))
    assert dark.images.dtype == np.uint8
    np.testing.assert_array_equal(dark.images[..., 0], images)


def test_dim_uint8_is_noted(save):
    images = np.arange(6 * 20).reshape(6, 5, 4).astype("uint8") % 17
    data = read(save(images=images, labels=LABELS))
    assert data.images.dtype == np.uint8
    assert any("0 to 16 fill only a corner of the range 0 to 255" in note for note in data.notes)
    pinned = read(save(images=images, labels=LABELS), value_range=(0, 16))
    assert pinned.value_range == (0, 16)
    np.testing.assert_array_equal(pinned.images[..., 0], images)


@pytest.mark.parametrize(
    ("low", "high", "value_range"),
    [
        (0, 1, (0, 1)),
        (0, 0.2, (0, 1)),
        (-1, 1, (-1, 1)),
        (-0.01, 0.5, (-1, 1)),
        (0, 0.02, (0, 0.02)),
        (0, 3, (0, 3)),
        (0, 1.05, (0, 1.05)),
        (-1.05, 1, (-1.05, 1)),
        (-2.1, 2.6, (-2.1, 2.6)),
        (0, 65536, (0, 65536)),
        (0, 4000, (0, 4000)),
        (0, 255, (0, 255)),
        (0, 65535, (0, 65535)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4"])
def test_float_ranges(save, low, high, value_range, dtype):
    images = np.linspace(low, high, 6 * 20).reshape(6, 5, 4).astype(dtype)
    data = read(save(images=images, labels=LABELS))
    assert data.value_range == pytest.approx(value_range)
    assert data.images.dtype == np.dtype("float32")
    np.testing.assert_array_equal(data.images[..., 0], images.astype("float32"))


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4"])
@pytest.mark.parametrize(
    ("low", "high", "value_range"),
    [(0, 1.0000001, (0, 1)), (-0.001, 1.001, (0, 1)), (-1.003, 1, (-1, 1)), (0, 255.4, (0, 255))],
)
def test_a_slight_overshoot_is_clipped_and_noted(save, low, high, value_range, dtype):
    images = np.linspace(low, high, 6 * 20).reshape(6, 5, 4).astype(dtype)
    data = read(save(images=images, labels=LABELS))
    assert data.value_range == value_range
    assert (data.images.min(), data.images.max()) == (max(low, value_range[0]), value_range[1])
    np.testing.assert_allclose(data.images[..., 0], np.clip(images, *value_range), rtol=1e-6)
    assert any(f"clipped to it; they were {low:g} to" in note for note in data.notes)


def test_one_dead_pixel_is_noted_with_the_way_to_clip_it(save):
    images = np.random.default_rng(0).random((6, 50, 40)).astype("float32")
    images[3, 7, 7] = 37
    path = save(images=images, labels=LABELS)
    data = read(path)
    assert data.value_range == (images.min(), 37)
    assert any(
        "all but 1 of 12000 values lie in 0 to 1: value_range=(0, 1)" in n for n in data.notes
    )
    clipped = read(path, value_range=(0, 1))
    assert clipped.value_range == (0, 1)
    assert clipped.images[3, 7, 7, 0] == 1
    assert any(note.startswith("1 values outside of value range (0, 1)") for note in clipped.notes)


@pytest.mark.parametrize(
    ("dtype", "value_range", "kept"),
    [
        ("uint8", (0, 255), "uint8"),
        ("uint8", (0, 300), "float32"),
        ("int16", (0, 255), "uint8"),
        ("int16", (-1024, 3071), "float32"),
        ("float64", (0, 255), "float32"),
        ("float32", (-0.1, 250.3), "float32"),
    ],
)
def test_a_stated_range_is_the_range(save, dtype, value_range, kept):
    images = np.linspace(0, 250, 6 * 20).round().reshape(6, 5, 4).astype(dtype)
    data = read(save(images=images, labels=LABELS), value_range=value_range)
    assert data.images.dtype == np.dtype(kept)
    assert data.value_range == tuple(float(np.float32(v)) for v in value_range)
    np.testing.assert_array_equal(data.images[..., 0], images)
    # A part that is read by itself comes out in the same units.
    part = read((images[:2] // 4, np.array([0, 1])), value_range=value_range)
    assert (part.value_range, part.images.dtype) == (data.value_range, data.images.dtype)


def test_clipping_whole_numbers_keeps_their_type(save):
    images = np.full((6, 50, 40), 100, "int16")
    images[0, 0, 0] = -1
    data = read(save(images=images, labels=LABELS), value_range=(0, 255))
    assert data.images.dtype == np.uint8
    assert data.images[0, 0, :2, 0].tolist() == [0, 100]
    assert any(note.startswith("1 values outside") for note in data.notes)


@pytest.mark.usefixtures("unchecked")
def test_values_outside_of_the_stated_range_are_refused(save):
    images = np.linspace(0, 250, 6 * 20).reshape(6, 5, 4)
    path = save(images=images, labels=LABELS)
    message = r"inside value_range=\(0, 100\), got 0 to 250, 60.0% of the values outside; .*clip"
    with pytest.raises(DataError, match=message):
        read(path, value_range=(0, 100))
    for wrong in ((1, 1), (0, np.nan), (0, 1, 2), "01", 3, ("a", "b")):
        with pytest.raises(
            DataError, match=r"value_range: expected \(low, high\), low < high, got"
        ):
            read(path, value_range=wrong)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(save, bad):
    images = np.zeros((6, 5, 4), "float32")
    images[2, 1, 1] = images[2, 1, 2] = images[5, 0, 0] = bad
    with pytest.raises(DataError, match=r"\[images\]: .*in 2 of 6 images, the first at index 2"):
        read(save(images=images, labels=LABELS))


def test_complex_images(save):
    with pytest.raises(DataError, match="expected integer, bool or float images, got complex"):
        read(save(images=np.zeros((6, 5, 4), "complex64"), labels=LABELS))


def test_four_channels_are_rgba(save):
    images = np.zeros((6, 2, 2, 4), "uint8")
    images[..., 3] = 128
    path = save(images=images, labels=LABELS)
    assert (read(path).images == [127, 127, 127]).all()
    assert any("taken as RGBA: transparency composited" in n for n in read(path).notes)
    assert (read(path, alpha="drop").images == [0, 0, 0]).all()
    assert (read(path, alpha="keep").images == [0, 0, 0, 128]).all()
    as_float = save(images=np.full((6, 2, 2, 4), [-1, 0, 1, 0], "float32"), labels=LABELS)
    np.testing.assert_allclose(read(as_float).images, np.full((6, 2, 2, 3), [0, 0.5, 1]))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_resized_when_asked(save, dtype, channels):
    images = np.zeros((6, 8, 8, channels), dtype)
    images[:, :, 4:] = 1
    data = read(save(images=images, labels=LABELS), size=(4, 6))
    assert data.image_shape == (4, 6, channels)
    assert (data.images[:, :, 0] == 0).all()
    assert (data.images[:, :, -1] == 1).all()
    assert any("resized from 8x8 to 4x6" in note for note in data.notes)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.astype("float64"),
        LABELS.astype("uint8"),
        LABELS.astype(">i4"),
        LABELS[:, None],
    ],
)
def test_labels_of_many_dtypes(save, labels):
    data = read(save(images=np.zeros((6, 2, 2), "uint8"), labels=labels))
    assert data.labels.dtype == np.dtype("int64")
    assert data.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("labels", "names", "indices"),
    [
        ([1, 2, 3, 1, 2, 3], ("1", "2", "3"), [0, 1, 2, 0, 1, 2]),
        ([0, 1, 3, 0, 1, 3], ("0", "1", "3"), [0, 1, 2, 0, 1, 2]),
        ([-1, 1, 1, -1, 1, -1], ("-1", "1"), [0, 1, 1, 0, 1, 0]),
        ([10**12, 7, 7, 7, 10**12, 7], ("7", "1000000000000"), [1, 0, 0, 0, 1, 0]),
        ([2.0, 4.0, 2.0, 4.0, 2.0, 4.0], ("2", "4"), [0, 1, 0, 1, 0, 1]),
    ],
)
def test_whole_numbers_of_any_kind_are_labels(save, labels, names, indices):
    data = read(save(images=np.zeros((6, 2, 2), "uint8"), labels=np.array(labels)))
    assert data.class_names == names
    assert data.labels.tolist() == indices
    assert data.unlabelled is None
    assert any("renumbered 0.." in note and "original ones" in note for note in data.notes)


def test_minus_one_beside_numbers_from_1_is_still_unlabelled(save):
    data = read(save(images=np.zeros((6, 2, 2), "uint8"), labels=np.array([1, -1, 2, 1, 2, -1])))
    assert data.class_names == ("1", "2")
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert len(data.unlabelled) == 2


@pytest.mark.parametrize(
    ("labels", "given", "indices"),
    [
        ([1, 2, 3, 1, 2, 3], ["a", "b", "c"], [0, 1, 2, 0, 1, 2]),
        ([-1, 1, 1, -1, 1, -1], ["no", "yes"], [0, 1, 1, 0, 1, 0]),
        # Names that are numbers are those numbers: a part of the classes cannot shift the others.
        ([1, 2, 1, 2, 1, 2], ["1", "2", "3"], [0, 1, 0, 1, 0, 1]),
        ([1, 0, 1, 0, 1, 0], ["a", "b", "c"], [1, 0, 1, 0, 1, 0]),
    ],
)
def test_numbers_with_names(save, labels, given, indices):
    path = save(images=np.zeros((6, 2, 2), "uint8"), labels=np.array(labels))
    data = read(path, class_names=given)
    assert data.class_names == tuple(given)
    assert data.labels.tolist() == indices


@pytest.mark.parametrize(
    ("train", "test", "given", "indices"),
    [
        # What the training split says of the numbers counts, even where a part would fit otherwise.
        ([1, 2, 3, 1], [1, 2, 2, 1], ["a", "b", "c"], [0, 1, 1, 0]),
        ([1, 2, 3, 1], [1, 2, 2, 1], None, [0, 1, 1, 0]),
        ([-1, 1, 1, -1], [1, 1, 1, 1], ["no", "yes"], [1, 1, 1, 1]),
        ([-1, 1, 1, -1], [-1, 1, -1, -1], None, [0, 1, 0, 0]),
        ([0, 1, 2, -1], [1, 2, 2, 1], ["a", "b", "c"], [1, 2, 2, 1]),
        ([5, 7, 7, 5], [7, 5, 7, 5], ["5", "7"], [1, 0, 1, 0]),
    ],
)
def test_the_training_split_determines_what_numbers_mean(save, train, test, given, indices):
    images = np.zeros((4, 2, 2), "uint8")
    path = save(
        train_images=images,
        train_labels=np.array(train),
        test_images=images,
        test_labels=np.array(test),
    )
    if len(set(indices)) == 1:
        with pytest.raises(DataError, match=f"all of class '{given[indices[0]]}'"):
            read(path, split="test", class_names=given)
        return
    assert read(path, split="test", class_names=given).labels.tolist() == indices


def test_numbers_of_a_split_are_those_of_the_training_split(save):
    images = np.zeros((4, 2, 2), "uint8")
    path = save(
        train_images=images,
        train_labels=np.array([1, 2, 5, 1]),
        test_images=images,
        test_labels=np.array([5, 2, 2, 5]),
    )
    test = read(path, split="test")
    assert test.class_names == ("1", "2", "5")
    assert test.labels.tolist() == [2, 1, 1, 2]


def test_bool_labels(save):
    data = read(save(images=np.zeros((6, 2, 2), "uint8"), labels=LABELS > 0))
    assert data.counts.tolist() == [2, 4]


def test_string_labels_are_sorted_names(save):
    labels = np.array(["cat", "ant", "cat", "bee", "ant", "cat"])
    path = save(images=np.zeros((6, 2, 2), "uint8"), labels=labels)
    data = read(path)
    assert data.class_names == ("ant", "bee", "cat")
    assert data.labels.tolist() == [2, 0, 2, 1, 0, 2]
    named = read(path, class_names=["cat", "bee", "ant", "dog"])
    assert named.labels.tolist() == [0, 2, 0, 1, 2, 0]
    with pytest.raises(DataError, match=r"class names 'cat', 'ant', got 'bee' at index 3"):
        read(path, class_names=["cat", "ant"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 0, 1, -2], "labels of at least 0, or -1 for unlabelled, got -2 at index 5"),
        ([-1] * 6, r"at least one image with a label, got label -1 \(unlabelled\) for all 6"),
        ([0, 1, 2.5, 0, 1, 2], r"whole numbers as labels, got 2.5 at index 2 \(1 labels"),
        ([0, 1, 1e300, 0, 1, 2], r"whole numbers as labels, got 1e\+300 at index 2"),
        (np.full(6, 2**63, "uint64"), "labels that number the classes, got 9223372036854775808"),
        ([0, 1, np.nan, 0, 1, 2], "whole numbers as labels, got nan at index 2"),
        (np.eye(3)[LABELS], r"one label for each image.*got shape \(6, 3\); multi-label"),
        ([0, 1, 2, 0, 1], "one label for each image"),
        ([1j] * 6, "integer or string labels, got complex128"),
        ([0] * 6, "at least two classes, got 6 images, all of class '0'"),
    ],
)
def test_bad_labels(save, labels, message):
    path = save(images=np.zeros((6, 2, 2), "uint8"), labels=np.array(labels))
    with pytest.raises(DataError, match=rf"data\.(npz|h5).*: expected .*{message}"):
        read(path)


@pytest.mark.parametrize("odd", [1.5, None, ["a"], 7])
@pytest.mark.usefixtures("unchecked")
def test_class_names_that_are_no_texts(save, odd):
    path = save(images=np.zeros((6, 2, 2), "uint8"), labels=LABELS)
    with pytest.raises(DataError, match=r"class_names: expected texts, got .* among them"):
        read(path, class_names=["A", odd, "C"])


def test_class_names_allow_gaps_and_bound_the_labels(save):
    path = save(images=np.zeros((6, 2, 2), "uint8"), labels=np.array([0, 3, 3, 0, 0, 3]))
    data = read(path, class_names=["A", "B", "C", "D"])
    assert data.counts.tolist() == [3, 0, 0, 3]
    with pytest.raises(DataError, match=r"labels in 0..2 \(by 3 class names\), got 3 at index 1"):
        read(path, class_names=["A", "B", "C"])


# npz only


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.makedirs, (str(self.flag), 0o777, True)


def test_object_arrays_are_never_unpickled(tmp_path):
    flag = tmp_path / "ran"
    bombs = np.array([Bomb(flag), Bomb(flag)], dtype=object)
    np.savez(tmp_path / "b.npz", images=bombs, labels=np.arange(2))
    with pytest.raises(
        DataError, match=r"b\.npz\[images\]: .*is an object array, which needs pickle; never loaded"
    ):
        read(tmp_path / "b.npz")
    assert not flag.exists()
    # The same bytes do run when unpickled, so the check above can fail.
    with zipfile.ZipFile(tmp_path / "b.npz") as archive, archive.open("images.npy") as member:
        npy.read_magic(member)
        npy.read_array_header_1_0(member)
        pickle.load(member)  # noqa: S301
    assert flag.exists()


def test_object_labels_are_refused_by_key(tmp_path):
    labels = np.array(["a", 1], dtype=object)
    np.savez(tmp_path / "b.npz", images=np.zeros((2, 3, 3), "uint8"), labels=labels)
    with pytest.raises(DataError, match=r"b\.npz\[labels\]: .*object array"):
        read(tmp_path / "b.npz")


def test_damaged_npz(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, images=np.zeros((200, 8, 8), "uint8"), labels=np.arange(200) % 2)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"d\.npz: expected an \.npz file .*got \d+ bytes"):
        read(path)
    path.write_bytes(good[:2000] + b"\1" + good[2001:])
    with pytest.raises(DataError, match=r"d\.npz.*CRC"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"d\.npz: expected an \.npz file .*got 0 bytes"):
        read(path)


def test_a_header_that_lies_is_refused_before_the_data_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "l.npz", "w") as archive:
        with archive.open("images.npy", "w") as member:
            head = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**6, 10**6)}
            npy.write_array_header_1_0(member, head)
            member.write(bytes(100))
        with archive.open("labels.npy", "w") as member:
            npy.write_array(member, np.arange(2))
    with pytest.raises(
        DataError,
        match=r"l\.npz\[images\]: .*header declares 1000000000000000000128 bytes .*, it has 228",
    ):
        read(tmp_path / "l.npz")


def test_compressed_npz(tmp_path, noise):
    images = noise(0, 6, 5, 4)
    np.savez_compressed(tmp_path / "c.npz", images=images, labels=LABELS)
    np.testing.assert_array_equal(read(tmp_path / "c.npz").images[..., 0], images)


def test_fortran_order(tmp_path, noise):
    images = np.asfortranarray(noise(0, 6, 5, 4, 3))
    np.savez(tmp_path / "f.npz", images=images, labels=LABELS)
    data = read(tmp_path / "f.npz")
    np.testing.assert_array_equal(data.images, images)
    assert data.images.flags.c_contiguous


# HDF5 only


@pytest.fixture
def h5(tmp_path):
    """h5(write): a file with good images and labels, and what write(file) puts beside them."""

    def make(write=lambda file: None):
        path = tmp_path / "data.h5"
        with h5py.File(path, "w") as file:
            file["images"] = np.arange(6 * 20, dtype="uint8").reshape(6, 5, 4)
            file["labels"] = LABELS
            write(file)
        return path

    return make


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.full((6, 5, 4), 66, "uint8")
        file["group/images"] = np.full((6, 5, 4), 66, "uint8")
    return path


def move(file):
    del file["images"]


def test_groups_and_class_names_attribute(h5):
    def write(file):
        for k, split in enumerate(("train", "test")):
            file[f"{split}/images"] = np.full((4, 5, 4), k, "uint8")
            file[f"{split}/labels"] = [0, 2, 0, 2]
        file.attrs["class_names"] = ["x", "y", "z"]

    data = read(h5(write), split="test")
    assert (data.images == 1).all()
    assert data.class_names == ("x", "y", "z")
    assert data.counts.tolist() == [2, 0, 2]
    keys = {"images": "/train/images", "labels": "train/labels"}
    assert (read(h5(write), keys=keys).images == 0).all()


@pytest.mark.parametrize("at", ["file", "images"])
def test_the_range_that_a_file_states(h5, at):
    images = np.linspace(0, 3000, 6 * 20).round().reshape(6, 5, 4).astype("float32")

    def fill(file, stated):
        del file["images"]
        file["images"] = images
        holder = file if at == "file" else file["images"]
        holder.attrs["image_value_range"] = stated

    for stated in (np.array([0.0, 4095.0]), np.array([-10.0, 3000.0])):
        data = read(h5(lambda file, s=stated: fill(file, s)))
        assert data.value_range == tuple(stated)
        assert not any("taken from their values" in note for note in data.notes)
    # Not believed where it does not fit, or is none.
    for stated in (np.array([0.0, 100.0]), np.array([0.0, np.inf]), np.array([1.0]), "0 to 4095"):
        data = read(h5(lambda file, s=stated: fill(file, s)))
        assert data.value_range == (0, 3000)
    pinned = read(h5(lambda file: fill(file, np.array([0.0, 4095.0]))), value_range=(0, 5000))
    assert pinned.value_range == (0, 5000)


def test_class_names_attribute_that_is_no_text(h5):
    path = h5(lambda f: f["labels"].attrs.create("class_names", [1, 2, 3]))
    with pytest.raises(DataError, match=r"class_names as a list of texts, got \[1, 2, 3\]"):
        read(path)


def test_string_labels_of_variable_length(h5):
    def write(file):
        del file["labels"]
        file["labels"] = ["b", "a", "é", "b", "a", "é"]

    assert read(h5(write)).class_names == ("a", "b", "é")


@pytest.mark.parametrize("keys", [None, {"images": "images", "labels": "labels"}])
def test_external_links_are_refused(h5, secret, keys):
    def write(file):
        move(file)
        file["images"] = h5py.ExternalLink(str(secret), "/images")

    path = h5(write)
    with h5py.File(path) as file:
        assert (file["images"][...] == 66).all()  # h5py itself does follow it
    with pytest.raises(DataError) as caught:
        read(path, keys=keys)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "'images' is an external link to '/images'" in message
    assert str(secret) in message


def test_external_links_on_the_way_are_refused(h5, secret):
    def write(file):
        file["far"] = h5py.ExternalLink(str(secret), "/group")
        move(file)
        file["images"] = h5py.SoftLink("/far/images")

    path = h5(write)
    for keys in (None, {"images": "far/images", "labels": "labels"}):
        with pytest.raises(DataError, match="'far' is an external link to '/group' in the file"):
            read(path, keys=keys)


def test_virtual_datasets_of_other_files_are_refused(h5, secret):
    def write(file):
        move(file)
        layout = h5py.VirtualLayout((6, 5, 4), "uint8")
        layout[:] = h5py.VirtualSource(str(secret), "images", (6, 5, 4))
        file.create_virtual_dataset("images", layout)

    path = h5(write)
    with h5py.File(path) as file:
        assert (file["images"][...] == 66).all()
    with pytest.raises(DataError, match=r"'images' is a virtual dataset of .*secret\.h5"):
        read(path)


def test_external_storage_is_refused(h5, tmp_path):
    raw = tmp_path / "raw.bin"
    raw.write_bytes(bytes(120))

    def write(file):
        move(file)
        file.create_dataset("images", (6, 5, 4), "uint8", external=[(str(raw), 0, 120)])

    with pytest.raises(DataError, match=r"'images' keeps its data in the external file .*raw\.bin"):
        read(h5(write))


def test_a_virtual_dataset_over_external_storage_is_refused(h5, tmp_path):
    raw = tmp_path / "raw.bin"
    raw.write_bytes(bytes(120))

    def write(file):
        move(file)
        file.create_dataset("hidden", (6, 5, 4), "uint8", external=[(str(raw), 0, 120)])
        layout = h5py.VirtualLayout((6, 5, 4), "uint8")
        layout[:] = h5py.VirtualSource(".", "hidden", (6, 5, 4))
        file.create_virtual_dataset("images", layout)

    with pytest.raises(DataError, match=r"'hidden' keeps its data in the external file"):
        read(h5(write))


def test_links_and_virtual_datasets_inside_the_file_are_read(h5):
    def write(file):
        file.move("images", "store/real")
        file["store/near"] = h5py.SoftLink("real")
        layout = h5py.VirtualLayout((6, 5, 4), "uint8")
        layout[:] = h5py.VirtualSource(".", "store/near", (6, 5, 4))
        file.create_virtual_dataset("images", layout)
        file["store/up"] = file["/"]  # a ring of hard links

    np.testing.assert_array_equal(read(h5(write)).images.ravel(), np.arange(120))


def test_dangling_and_ringed_links(h5):
    def dangling(file):
        move(file)
        file["images"] = h5py.SoftLink("/nowhere")

    with pytest.raises(DataError, match=r"expected a dataset 'nowhere', got nothing at 'nowhere'"):
        read(h5(dangling))

    def ring(file):
        move(file)
        file["images"] = h5py.SoftLink("/images")

    with pytest.raises(DataError, match="got a ring of links"):
        read(h5(ring))


def test_things_that_are_no_image_arrays(h5, tmp_path):
    def group(file):
        move(file)
        file["images/deeper"] = 1

    with pytest.raises(DataError, match="expected a dataset at 'images', got a Group"):
        read(h5(group))

    def ragged(file):
        move(file)
        file.create_dataset("images", (6,), h5py.vlen_dtype("uint8"))

    with pytest.raises(DataError, match=r"\[images\]: expected numbers or text, got object"):
        read(h5(ragged))

    def empty(file):
        move(file)
        file["images"] = h5py.Empty("uint8")

    with pytest.raises(DataError, match="expected"):
        read(h5(empty))
    path = tmp_path / "no.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(DataError, match=r"no\.h5: expected an HDF5 file, got 8 bytes"):
        read(path)


def test_a_truncated_file(h5):
    path = h5(lambda file: file.create_dataset("pad", data=np.zeros(10_000)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"data\.h5: expected an HDF5 file, got 3000 bytes"):
        read(path)


def test_a_flipped_byte_under_a_checksum_is_noted(h5):
    def write(file):
        move(file)
        images = np.arange(120, 240, dtype="uint8").reshape(6, 5, 4)
        file.create_dataset("images", data=images, chunks=(6, 5, 4), fletcher32=True)

    path = h5(write)
    raw = bytearray(path.read_bytes())
    at = bytes(raw).index(bytes(range(120, 240)))
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"\[images\]: expected .*got an error while reading"):
        read(path)
