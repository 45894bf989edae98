"""Signals and volumes through every reader that holds arrays, and `LabelledImages` of any rank."""

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from vaeaug.data import DataError, LabelledImages, read

LABELS = np.array([0, 1, 2, 0, 1, 2])
SHAPES = {"NLC": (7, 2), "NHWC": (5, 4, 3), "NDHWC": (3, 4, 5, 2)}
HOW = ("pair", "npz", "h5")


def through(how, tmp_path, images, labels=LABELS, **options):
    """Read the same arrays from memory or from a file."""
    if how == "pair":
        return read((images, labels), **options)
    path = tmp_path / f"data.{how}"
    if how == "npz":
        np.savez(path, images=images, labels=labels)
    else:
        with h5py.File(path, "w") as file:
            file["images"], file["labels"] = images, labels
    return read(path, **options)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("layout", SHAPES)
def test_each_layout_is_read_as_it_is(how, layout, tmp_path, noise):
    images = noise(0, 6, *SHAPES[layout])
    data = through(how, tmp_path, images, layout=layout)
    np.testing.assert_array_equal(data.images, images)
    assert data.images.flags.c_contiguous
    assert (data.layout, data.image_shape) == (layout, SHAPES[layout])
    assert data.value_range == (0, 255)
    assert f"of {'x'.join(map(str, SHAPES[layout]))} uint8" in repr(data)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("stored", "layout", "expected", "turned"),
    [
        ((9,), None, "NLC", (9, 1)),
        ((9,), "NL", "NLC", (9, 1)),
        ((9, 2), "NLC", "NLC", (9, 2)),
        ((2, 9), "NCL", "NLC", (9, 2)),
        ((9, 2), None, "NHWC", (9, 2, 1)),
        ((9, 2), "NHW", "NHWC", (9, 2, 1)),
        ((3, 5, 7), None, "NHWC", (5, 7, 3)),
        ((3, 5, 3), "NCHW", "NHWC", (5, 3, 3)),
        ((4, 5, 7), "NHWC", "NHWC", (4, 5, 7)),
        ((4, 5, 6), "NDHW", "NDHWC", (4, 5, 6, 1)),
        ((4, 5, 6, 2), None, "NDHWC", (4, 5, 6, 2)),
        ((3, 4, 5, 6), None, "NDHWC", (4, 5, 6, 3)),
        ((2, 4, 5, 6), "NCDHW", "NDHWC", (4, 5, 6, 2)),
        ((1, 4, 5, 6), "NDHWC", "NDHWC", (1, 4, 5, 6)),
    ],
)
def test_rank_or_layout_determine_the_axes(how, stored, layout, expected, turned, tmp_path):
    images = np.arange(6 * np.prod(stored), dtype="int64").reshape(6, *stored) % 200
    data = through(how, tmp_path, images, layout=layout)
    assert (data.layout, data.image_shape) == (expected, turned)
    # Nothing but the place of the channels changes.
    moved = np.moveaxis(data.images, -1, 1) if (layout or "").startswith("NC") else data.images
    if layout is None and stored[0] == 3:
        moved = np.moveaxis(data.images, -1, 1)
    np.testing.assert_array_equal(moved.reshape(images.shape), images)


def test_what_was_taken_for_what_is_noted():
    signals = read((np.arange(54, dtype="uint8").reshape(6, 9) * 4, LABELS))
    assert signals.notes == (
        "shape (6, 9) taken as (N, L), signals of one channel; rows of a table, whose columns have "
        "no order, are for vaeaug.VAEOverSampler; pass layout='NF' for the features of a network",
    )
    volumes = read((np.arange(720).reshape(6, 1, 4, 5, 6).astype("uint8"), LABELS))
    assert volumes.notes == (
        "shape (6, 1, 4, 5, 6) taken as (N, C, D, H, W) and turned to (N, D, H, W, C)",
    )


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (
            (6, 5, 7, 9),
            {},
            r"got shape \(6, 5, 7, 9\); pass layout='NDHW' for volumes of one",
        ),
        ((6, 5, 7), {"layout": "NL"}, r"shape \(N, L\) by layout='NL', got shape \(6, 5, 7\)"),
        (
            (6, 5, 7, 2),
            {},
            r"with C of 1, 3 or 4, .*got shape \(6, 5, 7, 2\);.*'NHWC' for images of any",
        ),
        ((6, 0), {}, r"at least one signal of at least 1 pixel, got shape \(6, 0, 1\)"),
        ((6, 2, 0, 3, 1), {}, r"at least one volume of at least 1x1x1 pixel, got shape \(6, 2, 0,"),
        ((6, 9), {"size": 4}, r"size= resizes images only, expected .*got signals of shape"),
        ((6, 3, 4, 5, 1), {"size": 4}, r"size= resizes images only, .*got volumes of shape"),
    ],
)
def test_shapes_that_do_not_fit(shape, options, message):
    with pytest.raises(DataError, match=rf"arrays\[images\]: .*{message}"):
        read((np.zeros(shape, "uint8"), LABELS), **options)


def test_layouts_that_do_not_exist_or_do_nothing(tree):
    with pytest.raises(DataError, match=r"layout: expected one of NL, NLC, .*NCDHW, got 'NWH'"):
        read((np.zeros((6, 9), "uint8"), LABELS), layout="NWH")
    root = tree({"a": 1, "b": 1})
    assert read(root, layout="NHWC").layout == "NHWC"
    for source in (root, "digits"):
        with pytest.raises(DataError, match=r"layout= is for .*'NHWC' here, got layout='NLC'"):
            read(source, layout="NLC")
    data = read((np.zeros((6, 9), "uint8"), LABELS))
    assert read(data, layout="NLC") is data
    with pytest.raises(DataError, match=r"expected layout='NHWC', got data of layout 'NLC'"):
        read(data, layout="NHWC")
    with pytest.raises(DataError, match=r"size= resizes images only, .*got signals"):
        read(data, size=3)


def test_pairs_of_arrays_and_tensors(noise):
    images = noise(0, 6, 3, 5, 7)
    data = read((torch.from_numpy(images), torch.from_numpy(LABELS)), split="test")
    np.testing.assert_array_equal(data.images, images.transpose(0, 2, 3, 1))
    assert (data.split, data.source) == ("test", "arrays")
    with pytest.raises(DataError, match=r"arrays: expected one label .*\(6, 3, 5, 7\) .*\(5,\)"):
        read((images, LABELS[:5]))
    with pytest.raises(DataError, match=r"arrays: keys= is for"):
        read((images, LABELS), keys={"images": "a", "labels": "b"})


@pytest.mark.parametrize(
    ("item", "layout", "shape"),
    [
        ((9,), None, (9, 1)),
        ((2, 9), "NCL", (9, 2)),
        ((9, 2), "NLC", (9, 2)),
        ((9, 2), None, (9, 2, 1)),
        ((1, 4, 5, 6), None, (4, 5, 6, 1)),
        ((4, 5, 6), "NDHW", (4, 5, 6, 1)),
        ((2, 4, 5, 6), "NCDHW", (4, 5, 6, 2)),
    ],
)
def test_torch_items_of_each_rank(item, layout, shape):
    tensors = torch.arange(6 * int(np.prod(item))).reshape(6, *item) % 251
    data = read(TensorDataset(tensors.to(torch.uint8), torch.from_numpy(LABELS)), layout=layout)
    assert data.image_shape == shape
    first = data.images if shape[-1] == 1 or layout == "NLC" else np.moveaxis(data.images, -1, 1)
    np.testing.assert_array_equal(first.reshape(tensors.shape), tensors)


def test_torch_items_that_do_not_fit():
    items = TensorDataset(torch.zeros(6, 9), torch.from_numpy(LABELS))
    message = r"TensorDataset\[0\]: expected a signal .*got shape \(9,\), by layout='NLC'"
    with pytest.raises(DataError, match=message):
        read(items, layout="NLC")
    with pytest.raises(DataError, match=r"TensorDataset\[0\]: size= resizes images only"):
        read(items, size=3)
    lengths = [(np.zeros(n, "uint8"), i % 2) for i, n in enumerate((4, 4, 5))]
    with pytest.raises(DataError, match=r"list\[0\] is 4 and list\[2\] is 5; cut or pad them"):
        read(lengths)


def test_an_hdf5_attribute_states_the_layout(tmp_path, noise):
    images = noise(0, 6, 9, 2)
    path = tmp_path / "signals.h5"
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = images, LABELS
        file.attrs["layout"] = "NLC"
    np.testing.assert_array_equal(read(path).images, images)
    assert read(path, layout="NHW").image_shape == (9, 2, 1)


@pytest.mark.parametrize("layout", ["NLC", "NDHWC"])
@pytest.mark.parametrize(
    ("low", "high", "expected", "noted"),
    [
        (0, 1, (0, 1), False),
        (-1, 0.8, (-1, 1), False),
        (0, 200, (0, 255), False),
        (0, 60_000, (0, 65535), False),
        (-1000, 3000, (-1000, 3000), True),
        (-0.002, 0.001, (-0.002, 0.001), True),
        (0, 1200, (0, 1200), True),
        (7e5, 7e5, (3.5e5, 10.5e5), True),
        (0, 0, (-0.5, 0.5), True),
    ],
)
def test_signals_and_volumes_may_have_a_range_of_their_own(layout, low, high, expected, noted):
    shape = (6, *SHAPES[layout])
    images = np.linspace(low, high, int(np.prod(shape))).reshape(shape)
    data = read((images, LABELS), layout=layout)
    assert data.value_range == pytest.approx(expected)
    np.testing.assert_array_equal(data.images, images.astype("float32"))
    assert any("value range of the" in note for note in data.notes) == noted


def test_integer_signals_are_exact():
    pcm = np.linspace(-32768, 32767, 60).astype("int16").reshape(6, 10)
    data = read((pcm, LABELS))
    assert data.value_range == (-32768, 32767)
    np.testing.assert_array_equal(data.images[..., 0], pcm)
    assert any("int16 signals with values -32768 to 32767 kept exactly" in n for n in data.notes)
    with pytest.raises(DataError, match=r"integers of at most 2\*\*24, .*got int64 signals"):
        read((pcm.astype("int64") << 10, LABELS))


def test_signals_must_be_finite_also_as_float32():
    signals = np.zeros((6, 10))
    signals[2, 3] = 1e300
    with pytest.raises(DataError, match=r"arrays\[images\] as float32: .*first at index 2"):
        read((signals, LABELS))
    signals[4, 0] = np.nan
    with pytest.raises(DataError, match=r"arrays\[images\]: .*in 1 of 6 images.*index 4"):
        read((signals, LABELS))


@pytest.mark.parametrize("layout", SHAPES)
def test_subsets_and_fingerprints_of_each_layout(layout, noise):
    images = noise(0, 6, *SHAPES[layout])
    data = read((images, LABELS), layout=layout)
    np.testing.assert_array_equal(data.subset([5, 0]).images, images[[5, 0]])
    rest, held = data.split_off(0.5, seed=0)
    assert (len(rest), len(held), held.layout) == (3, 3, layout)
    other = images.copy()
    other.reshape(-1)[-1] ^= 1
    assert read((other, LABELS), layout=layout).fingerprint != data.fingerprint


def test_ranks_that_are_none(noise):
    for shape in ((6, 4), (6, 2, 2, 2, 2, 1)):
        message = r"signals of shape \(N, L, C\), images .*got shape \(6, "
        with pytest.raises(DataError, match=message):
            LabelledImages(np.zeros(shape, "uint8"), LABELS, ("a", "b", "c"), (0, 255))
    with pytest.raises(DataError, match=r"expected L and C of at least 1, got image shape \(0, 2"):
        LabelledImages(np.zeros((6, 0, 2), "uint8"), LABELS, ("a", "b", "c"), (0, 255))
