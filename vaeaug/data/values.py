"""Numbers as people store them become uint8 or float32, with the range that they belong to."""

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.checks import DataError, Range, check_finite, extent
from vaeaug.data.dataset import LAYOUTS, NOUNS
from vaeaug.shapes import are_features

Pixels = tuple[Shaped[np.ndarray, "n *space c"], Range, tuple[str, ...]]

# What floats are scaled to by convention, and what the pixels of a camera or scanner may be.
CONVENTIONS: tuple[Range, ...] = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
_BIT_DEPTHS = {8: 255.0, 10: 1023.0, 12: 4095.0, 14: 16383.0, 16: 65535.0}
# Every integer up to here is a float32.
_EXACT = 2**24
# A model sees next to nothing of data that lies in a corner of its range.
_LEAST_FILLED = 1 / 8
_DIM = 64
# Rounding and resampling overshoot a little. Less than half a step of whole numbers in 0..255.
_SLACK = 0.002
_MOST_SLACK = 0.5
# What a synthetic feature may exceed the real ones by, as a part of their width.
ROOM = 0.25
# A dead pixel or two are no range.
_FEW = 1e-3


def normalise_pixels(
    images: Shaped[np.ndarray, "n *space c"],
    where: str,
    value_range: Range | None = None,
    stated: Range | None = None,
) -> Pixels:
    """Bring the values to uint8 or float32 and determine their range.

    Args:
        images: Numbers of any type, shape (N, space..., C).
        where: The source, for messages.
        value_range: The range by the caller; a slight overshoot is clipped to it, with a note.
        stated: The range by the source; not believed where values lie outside.

    Returns:
        The images; (lowest, highest) value by the caller, else by the source, else by convention,
        else that of the values; notes.

    Raises:
        DataError: If the values are not finite numbers, or lie outside `value_range`.
    """
    kind = images.dtype.kind
    # HDF5 and FITS-born arrays are often big-endian, which is not the same dtype.
    images = images.astype(images.dtype.newbyteorder("="), copy=False)
    if kind not in "biuf":
        raise DataError(f"{where}: expected integer, bool or float images, got {images.dtype}")
    if kind == "f":
        check_finite(images, where)
    if value_range is not None:
        return in_range(images, where, value_range)
    if kind == "b":
        return images * np.uint8(255), (0.0, 255.0), ("bool images stored as uint8, 0 and 255",)
    actual = extent(images)
    if stated is not None and stated[0] <= actual[0] and actual[1] <= stated[1]:
        is_plain = images.dtype == np.uint8 and stated == (0.0, 255.0)
        return images if is_plain else _floats(images, where), stated, ()
    if kind in "iu":
        return _from_integers(images, where, actual)
    return _from_floats(images, where, actual)


def in_range(images: Shaped[np.ndarray, "n *space c"], where: str, value_range: Range) -> Pixels:
    """Bring finite values to a range that the caller states.

    Args:
        images: Shape (N, space..., C), of any real type.
        where: The source, for messages.
        value_range: The lowest and the highest value that the data can have.

    Returns:
        The images, uint8 or float32; `value_range`; a note where values were clipped to it.

    Raises:
        DataError: If more than a slight overshoot lies outside.
    """
    low, high = value_range
    actual = extent(images)
    notes: tuple[str, ...] = ()
    is_whole = images.dtype.kind in "biu"
    ends = [(low, actual[0]), (actual[1], high)]
    if images.dtype.kind == "f":
        # Values are kept as float32: what is equal there is not outside.
        ends = [pair for pair in ends if np.float32(pair[0]) != np.float32(pair[1])]
    if any(lower > higher for lower, higher in ends):
        n = _count_outside(images, value_range)
        if not _is_slight(value_range, actual) and n > _FEW * images.size:
            raise DataError(
                f"{where}: expected values inside value_range=({low:g}, {high:g}), got "
                f"{actual[0]:g} to {actual[1]:g}, {n / images.size:.1%} of the values outside; "
                f"give the range that they have, or clip them yourself (numpy.clip) if a window is "
                f"meant"
            )
        notes = (_clip_note(n, actual, value_range),)
        images = np.clip(
            images.astype(np.float64 if images.dtype.itemsize > 4 else np.float32), low, high
        )
    if (low, high) == (0.0, 255.0) and is_whole:
        return images.astype(np.uint8), value_range, notes
    return _floats(images, where), value_range, notes


def pinned(value_range: Range) -> str:
    """How to state this range, for messages.

    Args:
        value_range: (lowest, highest).

    Returns:
        The argument in Python and on the command line.
    """
    low, high = map(_exact, value_range)
    return f"value_range=({low}, {high}) (--value-range {low},{high})"


def _exact(value: float) -> str:
    """The shortest text that is read as this float32."""
    value = float(value)
    return str(int(value)) if value.is_integer() else str(np.float32(value))


def _from_integers(images: Shaped[np.ndarray, "n *space c"], where: str, actual: Range) -> Pixels:
    low, high = actual
    noun = NOUNS[LAYOUTS[images.ndim]]
    values_seen = f"values {low:.0f} to {high:.0f}"
    seen = f"{images.dtype} {noun} with {values_seen}"
    if low >= 0 and high == 1:
        note = (
            f"{images.dtype} {noun} of 0 and 1 alone are taken as masks: kept as float32 with "
            f"value range (0, 1); pass {pinned((0.0, 1.0))} for other splits too, or "
            f"{pinned((0.0, 255.0))} if they are almost black images"
        )
        return images.astype(np.float32), (0.0, 1.0), (note,)
    if low >= 0 and high <= 255 and images.dtype != np.uint16:
        notes: tuple[str, ...] = () if images.dtype == np.uint8 else (f"{seen} stored as uint8",)
        if low < high < _DIM:
            notes += (
                f"{values_seen} fill only a corner of the range 0 to 255; if no others "
                f"are possible, pass {pinned((0.0, high))}",
            )
        return images.astype(np.uint8, copy=False), (0.0, 255.0), notes
    values = _floats(images, where)
    if low >= 0 and (images.dtype == np.uint16 or images.ndim == 4):
        bits, top = next((depth for depth in _BIT_DEPTHS.items() if high <= depth[1]), (0, 0.0))
        if bits and _is_filled((0.0, top), actual):
            note = (
                f"{seen} kept exactly, as float32 with value range (0, {top:g}), {bits} bit; "
                f"pass {pinned((0.0, top))} for other splits too"
            )
            return values, (0.0, top), (note,)
    value_range, note = _range_of_values(values, (low, high))
    return values, value_range, (f"{seen} kept exactly, as float32", note)


def _from_floats(images: Shaped[np.ndarray, "n *space c"], where: str, actual: Range) -> Pixels:
    if are_features(images.shape[1:]):
        values = _floats(images, where)
        (low, high), actual = feature_range(values), extent(values)
        note = (
            f"value range of the feature vectors taken from their values, {actual[0]:g} to "
            f"{actual[1]:g}, with room at both ends: {low:g} to {high:g}; pass "
            f"{pinned((low, high))} for other splits too"
        )
        return values, (low, high), (note,)
    for convention in CONVENTIONS:
        fits = convention[0] <= actual[0] and actual[1] <= convention[1]
        if not (fits or _is_slight(convention, actual)):
            continue
        if not _is_meant(images.ndim, convention, actual):
            continue
        if fits and convention != CONVENTIONS[0] and _nearly(images, actual):
            # A few values alone would have chosen this one.
            break
        values = _floats(images, where)
        if fits:
            return values, convention, ()
        note = _clip_note(_count_outside(images, convention), actual, convention)
        return np.clip(values, *convention), convention, (note,)
    values = _floats(images, where)
    value_range, note = _range_of_values(values, extent(values))
    return values, value_range, (note,)


def feature_range(features: Shaped[np.ndarray, "n ..."]) -> Range:
    """The range of feature vectors, which no convention bounds: that of their values, and room.

    Args:
        features: Floats, at least one.

    Returns:
        (lowest, highest) value, with a quarter of the width more at both ends.
    """
    low, high = extent(features)
    room = ROOM * (high - low) if low < high else max(1.0, abs(low)) / 2
    return float(np.float32(low - room)), float(np.float32(high + room))


def _floats(
    images: Shaped[np.ndarray, "n *space c"], where: str
) -> Shaped[np.ndarray, "n *space c"]:
    """The values as float32, where it holds them."""
    if images.dtype.kind in "iu" and images.dtype.itemsize > 2:
        low, high = extent(images)
        if max(-low, high) > _EXACT:
            raise DataError(
                f"{where}: expected integers of at most 2**24, which float32 holds exactly, got "
                f"{images.dtype} {NOUNS[LAYOUTS[images.ndim]]} with values {low:.0f} to {high:.0f}"
            )
    with np.errstate(over="ignore"):
        values = images.astype(np.float32, copy=False)
    if images.dtype.kind == "f" and images.dtype.itemsize > 4:
        check_finite(values, f"{where} as float32")
    return values


def _count_outside(images: Shaped[np.ndarray, "n *space c"], value_range: Range) -> int:
    return int(np.count_nonzero((images < value_range[0]) | (images > value_range[1])))


def _is_slight(value_range: Range, actual: Range) -> bool:
    """Whether values leave the range by no more than rounding and resampling cause."""
    low, high = value_range
    slack = min(_SLACK * (high - low), _MOST_SLACK)
    return low - slack <= actual[0] and actual[1] <= high + slack


def _is_filled(value_range: Range, actual: Range) -> bool:
    # Images of one value alone tell nothing: the convention is likelier than that value.
    return actual[0] == actual[1] or (
        actual[1] - actual[0] >= _LEAST_FILLED * (value_range[1] - value_range[0])
    )


def _is_meant(ndim: int, value_range: Range, actual: Range) -> bool:
    """Whether floats that fit a convention are likely scaled to it."""
    # A recording in volts or a scan in its own units may lie inside a convention by chance, and
    # floats up to some thousand inside that of 16 bits.
    by_chance = LAYOUTS[ndim] != "NHWC" or value_range[1] > 255.0
    return _is_filled(value_range, actual) and (
        not by_chance or max(-actual[0], actual[1]) >= value_range[1] / 2
    )


def _range_of_values(values: Shaped[np.ndarray, "n *space c"], actual: Range) -> tuple[Range, str]:
    """The range that the values have, and a note on it."""
    low, high = actual
    if low == high:
        pad = max(1.0, abs(low)) / 2
        low, high = (float(np.float32(end)) for end in (low - pad, high + pad))
    noun = NOUNS[LAYOUTS[values.ndim]]
    note = (
        f"value range of the {noun} taken from their values: {low:g} to {high:g}; "
        f"pass {pinned((low, high))} for other splits too"
    )
    if nearly := _nearly(values, actual):
        convention, n = nearly
        note += (
            f"; all but {n} of {values.size} values lie in {convention[0]:g} to "
            f"{convention[1]:g}: {pinned(convention)} would clip the others"
        )
    return (low, high), note


def _nearly(images: Shaped[np.ndarray, "n *space c"], actual: Range) -> tuple[Range, int] | None:
    """The first convention that all values but a few keep to, and how many do not."""
    for convention in CONVENTIONS:
        if convention[0] <= actual[0] and actual[1] <= convention[1]:
            break
        n = _count_outside(images, convention)
        if n <= _FEW * images.size:
            return convention, n
    return None


def _clip_note(n: int, actual: Range, value_range: Range) -> str:
    low, high = value_range
    return (
        f"{n} values outside of value range ({low:g}, {high:g}) clipped to it; they were "
        f"{actual[0]:.8g} to {actual[1]:.8g}"
    )
