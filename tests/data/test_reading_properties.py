"""Properties of any numbers: values and labels are kept, and values lie in the stated range."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vaeaug.data import DataError, read
from vaeaug.data.decode import RESIZE, resize, resize_note

LABELS = np.array([0, 1, 0, 1])
SHAPE = (4, 2, 3)

INTEGERS = st.sampled_from(["uint8", "int8", "uint16", "int16", "int32", "uint32", "int64"])
FLOATS = st.sampled_from(["float16", "float32", "float64"])


def integers(dtype):
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -(2**24)), min(limits.max, 2**24)
    return arrays(dtype, SHAPE, elements=st.integers(low, high))


def floats(dtype):
    scale = st.sampled_from([1e-3, 0.5, 1.0, 1.0005, 2.0, 255.0, 1000.0, 60000.0])
    unit = arrays("float64", SHAPE, elements=st.floats(0, 1, width=16))
    return st.tuples(unit, scale, st.booleans()).map(
        lambda t: (t[0] * t[1] - (t[1] / 2 if t[2] else 0)).astype(dtype)
    )


@settings(deadline=None, max_examples=300)
@given(images=st.one_of(INTEGERS.flatmap(integers), FLOATS.flatmap(floats)))
def test_values_stay_what_they_are(images):
    data = read((images, LABELS))
    low, high = data.value_range
    assert low < high
    clipped = [note for note in data.notes if "clipped to it" in note]
    expected = images.astype("float32")
    if clipped:
        # By no more than a slight overshoot, and only to the range.
        assert np.abs(expected - np.clip(expected, low, high)).max() <= min(
            0.0021 * (high - low), 0.5
        )
        expected = np.clip(expected, low, high)
    np.testing.assert_array_equal(data.images[..., 0].astype("float32"), expected)
    # What is said in the note to pin the range gives the same again.
    again = read((images, LABELS), value_range=data.value_range)
    np.testing.assert_array_equal(again.images, data.images)
    assert again.value_range == data.value_range


@settings(deadline=None, max_examples=200)
@given(
    images=st.one_of(INTEGERS.flatmap(integers), FLOATS.flatmap(floats)),
    ends=st.tuples(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32)),
)
def test_a_stated_range_is_kept_or_refused(images, ends):
    low, high = min(ends), max(ends)
    assume(low < high)
    values = images.astype("float64")
    outside = (values < low) | (values > high)
    # Rounding makes a slight overshoot, one of a thousand values is none of 24.
    slack = min(0.002 * (high - low), 0.5)
    if (values < low - slack).any() or (values > high + slack).any():
        with pytest.raises(DataError, match="inside value_range"):
            read((images, LABELS), value_range=(low, high))
        return
    data = read((images, LABELS), value_range=(low, high))
    assert data.value_range == (low, high)
    np.testing.assert_array_equal(
        data.images[..., 0][~outside].astype("float32"), images[~outside].astype("float32")
    )
    assert outside.any() == any("clipped to it" in note for note in data.notes)


@settings(deadline=None, max_examples=200)
@given(labels=st.lists(st.integers(0, 10**9), min_size=2, max_size=30))
def test_numbers_keep_their_names(labels):
    assume(len(set(labels)) > 1)
    data = read((np.zeros((len(labels), 2, 2), "uint8"), labels))
    assert [data.class_names[c] for c in data.labels] == list(map(str, labels))
    assert list(map(int, data.class_names)) == sorted(set(labels))


@settings(deadline=None, max_examples=200)
@given(
    old=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    new=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from([1, 3, 4]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    fit=st.sampled_from(RESIZE),
)
def test_any_size_to_any_size(old, new, channels, dtype, fit):
    pixels = np.full((*old, channels), 7, dtype=dtype)
    out = resize(pixels, new, fit, bands=True)
    assert out.shape == (*new, channels)
    assert out.dtype == np.dtype(dtype)
    if fit == "pad" and dtype != "float32":
        assert set(np.unique(out)) <= {0, 7}
        assert (out == 7).any()
    else:
        np.testing.assert_allclose(out, 7, rtol=1e-6)
    assert resize_note(old, new, fit).startswith(f"resized to {new[0]}x{new[1]}")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_padded_image_is_in_the_middle(dtype):
    pixels = np.arange(1, 17, dtype=dtype).reshape(2, 8, 1)
    out = resize(pixels, (8, 8), "pad")
    np.testing.assert_array_equal(out[3:5], pixels)
    assert (out[:3] == (0 if dtype == "uint8" else 1)).all()
