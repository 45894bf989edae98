"""`LabelledImages`: validation, fingerprint, subsets and splits."""

import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaeaug.data import DataError, LabelledImages


def make(counts=(5, 3, 2), dtype="uint8", **changes) -> LabelledImages:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    images = rng.integers(0, 256, size=(len(labels), 4, 3, 1)).astype("uint8")
    # Each image carries its own number, so that a subset shows which ones it took.
    images[:, 0, 0, 0] = np.arange(len(labels)) % 256
    values = {
        "images": images.astype(dtype),
        "labels": labels,
        "class_names": tuple("abcdefgh"[: len(counts)]),
        "value_range": (0, 255),
    }
    return LabelledImages(**(values | changes))


def test_basic_properties():
    data = make()
    assert len(data) == 10
    assert data.image_shape == (4, 3, 1)
    assert data.n_classes == 3
    assert data.counts.tolist() == [5, 3, 2]
    assert data.counts.dtype == np.int64
    assert data.value_range == (0.0, 255.0)


def test_notes_are_seen_where_the_data_is_shown():
    images = np.zeros((2, 3, 4, 1), "uint8")
    parts = (images, np.array([0, 1]), ("a", "b"), (0, 255))
    assert "2 classes, split=None, source='')" in repr(LabelledImages(*parts))
    shown = repr(LabelledImages(*parts, notes=("one", "two")))
    assert shown.endswith("source='', 2 notes)")


def test_counts_include_empty_classes():
    data = make().imbalanced({1: 0}, seed=0)
    assert data.counts.tolist() == [5, 0, 2]
    assert data.n_classes == 3


def test_frozen_and_compared_by_identity():
    data = make()
    with pytest.raises(FrozenInstanceError):
        data.split = "test"
    assert data != make()
    assert hash(data) == hash(data)


def test_strided_images_become_contiguous_with_the_same_values():
    wide = np.random.default_rng(1).integers(0, 256, (10, 3, 4, 1)).astype("uint8")
    data = make(images=wide.transpose(0, 2, 1, 3))
    assert data.images.flags.c_contiguous
    np.testing.assert_array_equal(data.images, wide.transpose(0, 2, 1, 3))


def nan_image():
    images = np.zeros((10, 4, 3, 1), dtype="float32")
    images[4, 1, 1, 0] = np.nan
    images[7] = np.inf
    return images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((10, 4), "uint8")}, r"\(N, D, H, W, C\), got shape \(10, 4\)"),
        ({"images": np.zeros((10, 4, 3, 1), "float64")}, "uint8 or float32 images, got float64"),
        (
            {"images": np.zeros((0, 4, 3, 1), "uint8"), "labels": np.zeros(0, "int64")},
            "at least one image, got none",
        ),
        ({"images": np.zeros((10, 0, 3, 1), "uint8")}, r"at least 1, got image shape \(0, 3, 1\)"),
        ({"labels": np.zeros(10, "int32")}, r"int64 labels of shape \(10,\).* got int32"),
        ({"labels": np.zeros(9, "int64")}, r"int64 labels of shape \(10,\).*of shape \(9,\)"),
        (
            {"labels": np.array([0] * 6 + [3, 1, -1, 0])},
            r"labels in 0..2 \(3 class names\), got 3 at index 6 \(2 labels out of range\)",
        ),
        ({"class_names": ("a", "b", "a")}, r"distinct class names, got more than once: \['a'\]"),
        ({"class_names": ()}, "class_names as strings, at least one"),
        ({"value_range": (0, 1)}, r"\(0, 255\) for uint8 images, got \(0.0, 1.0\)"),
        (
            {"images": nan_image()},
            "NaN or infinity in 2 of 10 images, the first at index 4",
        ),
        (
            {"images": np.full((10, 4, 3, 1), 2, "float32"), "value_range": (0, 1)},
            r"inside value_range \(0, 1\), got 2 to 2",
        ),
        (
            {"images": np.zeros((10, 4, 3, 1), "float32"), "value_range": (1, 1)},
            r"low < high, got \(1.0, 1.0\)",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(DataError, match=f"LabelledImages: expected .*{message}"):
        make(**changes)


def test_errors_name_the_source():
    with pytest.raises(DataError, match=r"^some/folder: expected"):
        make(source="some/folder", class_names=())


def test_fingerprint_ignores_where_the_data_lay():
    data = make()
    other = replace(data, source="elsewhere", notes=("n",), split="train")
    assert data.fingerprint == other.fingerprint
    assert len(data.fingerprint) == 64


def test_fingerprint_sees_one_flipped_bit_and_every_other_part():
    data = make()
    flipped = data.images.copy()
    flipped[9, 3, 2, 0] ^= 1
    labels = data.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    as_float = replace(data, images=data.images.astype("float32"))
    changed = [
        replace(data, images=flipped),
        replace(data, labels=labels),
        replace(data, class_names=("a", "b", "x")),
        as_float,
        replace(as_float, value_range=(0, 65535)),
        replace(data, images=data.images.reshape(10, 3, 4, 1)),
    ]
    assert len({data.fingerprint, *(c.fingerprint for c in changed)}) == 1 + len(changed)


def test_fingerprint_does_not_depend_on_the_slices(monkeypatch):
    whole = make().fingerprint
    monkeypatch.setattr("vaeaug.data.checks._SLICE_BYTES", 13)
    assert make().fingerprint == whole


def test_pickle_round_trip_keeps_everything():
    data = make(notes=("n",), split="train", source="s")
    again = pickle.loads(pickle.dumps(data))  # noqa: S301
    assert again.fingerprint == data.fingerprint
    assert (again.split, again.source, again.notes) == ("train", "s", ("n",))


def test_subset_takes_the_asked_images_in_order():
    data = make(split="train", source="s")
    part = data.subset([7, 2])
    assert part.images[:, 0, 0, 0].tolist() == [7, 2]
    assert part.labels.tolist() == data.labels[[7, 2]].tolist()
    assert part.class_names == data.class_names
    assert (part.split, part.source) == ("train", "s")
    mask = np.zeros(10, bool)
    mask[[2, 7]] = True
    assert data.subset(mask).images[:, 0, 0, 0].tolist() == [2, 7]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], "at least one index, got none"),
        ([0, 10], r"indices in 0..9, got 0 to 10"),
        ([-1, 3], r"indices in 0..9, got -1 to 3"),
        ([0.5], "got float64 of shape"),
        ([True, False], r"boolean mask of shape \(10,\), got bool of shape \(2,\)"),
        ([[1]], r"got int64 of shape \(1, 1\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_subset_refuses(indices, message):
    with pytest.raises(DataError, match=f"subset: expected .*{message}"):
        make().subset(indices)


def test_imbalanced_keeps_the_asked_counts_reproducibly_and_nested():
    data = make((50, 40, 30))
    part = data.imbalanced([20, 10, 30], seed=3)
    assert part.counts.tolist() == [20, 10, 30]
    assert part.fingerprint == data.imbalanced([20, 10, 30], seed=3).fingerprint
    assert part.fingerprint != data.imbalanced([20, 10, 30], seed=4).fingerprint
    ids = set(part.images[:, 0, 0, 0].tolist())
    assert sorted(ids) == part.images[:, 0, 0, 0].tolist()
    fewer = data.imbalanced({0: 5}, seed=3)
    assert fewer.counts.tolist() == [5, 40, 30]
    zeros = fewer.images[fewer.labels == 0, 0, 0, 0].tolist()
    assert set(zeros) <= ids


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([5, 4, 2], r"class 1 \('b'\) has 3 images, asked for 4"),
        ([5, -1, 2], r"class 1 \('b'\) has 3 images, asked for -1"),
        ([5, 3], "expected 3 counts, one for each class, got 2"),
        ({3: 1}, r"expected labels in 0..2, got \[3\]"),
    ],
)
def test_imbalanced_refuses(counts, message):
    with pytest.raises(DataError, match=f"imbalanced: {message}"):
        make().imbalanced(counts, seed=0)


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_split_off_is_a_stratified_partition(counts, fraction, seed):
    data = make(counts)
    if max(counts) == 1:
        with pytest.raises(DataError, match="nothing to hold out: every class keeps one image"):
            data.split_off(fraction, seed=seed)
        return
    rest, held = data.split_off(fraction, seed=seed)
    taken = np.concatenate([rest.images[:, 0, 0, 0], held.images[:, 0, 0, 0]])
    assert sorted(taken.tolist()) == list(range(len(data)))
    assert (rest.counts >= 1).all()
    assert (rest.counts + held.counts == data.counts).all()
    share = data.counts * fraction
    assert (held.counts <= np.ceil(share)).all()
    assert (held.counts >= np.minimum(np.floor(share), data.counts - 1)).all()
    assert len(held) <= max(1, round(len(data) * fraction))
    again = data.split_off(fraction, seed=seed)
    assert (again[0].fingerprint, again[1].fingerprint) == (rest.fingerprint, held.fingerprint)


def test_split_off_reaches_the_total_from_small_classes():
    rest, held = make((4,) * 8).split_off(0.125, seed=0)
    assert (len(rest), len(held)) == (28, 4)
    assert held.counts.max() == 1


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_split_off_refuses_a_fraction_out_of_range(fraction):
    with pytest.raises(DataError, match="expected 0 < fraction < 1, got"):
        make().split_off(fraction, seed=0)


def test_import_loads_no_heavy_library():
    heavy = ["torch", "torchvision", "h5py", "sklearn", "PIL", "matplotlib", "pandas"]
    # The file is loaded beside the package's own __init__, whose imports are not judged here.
    code = (
        "import sys, types, pathlib\n"
        f"root = types.ModuleType('vaeaug'); root.__path__ = [{_package()!r}]\n"
        "sys.modules['vaeaug'] = root\n"
        "import vaeaug.data\n"
        f"print([m for m in {heavy} if m in sys.modules])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def _package() -> str:
    from pathlib import Path

    import vaeaug.data

    return str(Path(vaeaug.data.__file__).parents[1])


def test_counts_that_are_not_whole_are_not_cut():
    with pytest.raises(TypeError):
        make().imbalanced([1.5, 1, 1], seed=0)


def test_values_at_an_end_of_the_range_are_inside_as_float32():
    high = 18.02684020996  # below its float32
    images = np.full((2, 8, 8, 1), np.float32(high))
    assert float(images.max()) > high
    data = LabelledImages(images, np.array([0, 1]), ("a", "b"), (-1.0, high))
    assert np.array_equal(data.images, images)
    with pytest.raises(DataError, match="inside value_range"):
        LabelledImages(images, np.array([0, 1]), ("a", "b"), (-1.0, high - 1e-3))


@pytest.mark.parametrize("grouped", [False, True])
def test_the_rows_of_a_split_are_those_of_the_split_off_parts(grouped):
    n = 60
    data = LabelledImages(
        images=np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8),
        labels=np.arange(n) // 3 % 4,
        class_names=("a", "b", "c", "d"),
        value_range=(0, 255),
        groups=np.arange(n) // 3 if grouped else None,
    )
    rest, held_out = data.split_rows(0.2, seed=3)
    parts = data.split_off(0.2, seed=3)
    for rows, part in zip((rest, held_out), parts, strict=True):
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], rows)
        np.testing.assert_array_equal(part.labels, data.labels[rows])
    assert len(held_out) == 12
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, held_out])), np.arange(n))
    if grouped:
        assert not set(rest // 3) & set(held_out // 3)
