"""Numbers as people store them become uint8 or float32, with the range that they belong to."""

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import LAYOUTS, NOUNS, DataError, check_finite, extent

Range = tuple[float, float]
_Pixels = tuple[Shaped[np.ndarray, "n *space c"], Range, tuple[str, ...]]

# What floats are scaled to by convention, and what the pixels of a camera or scanner may be.
CONVENTIONS: tuple[Range, ...] = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
_BIT_DEPTHS = {8: 255.0, 10: 1023.0, 12: 4095.0, 14: 16383.0, 16: 65535.0}
_EXACT = 2**24
# A model sees next to nothing of data that lies in a corner of its range.
_LEAST_FILLED = 1 / 8
_DIM = 64
# Rounding and resampling overshoot a little. Less than half a step of whole numbers in 0..255.
_SLACK = 0.002
_MOST_SLACK = 0.5
# A dead pixel or two are no range.
_FEW = 1e-3


def normalise_pixels(
    images: Shaped[np.ndarray, "n *space c"],
    where: str,
    value_range: Range | None = None,
    stated: Range | None = None,
) -> _Pixels:
    """Bring the values to uint8 or float32 and say their range.

    Args:
        images: numbers of any type, shape (N, space..., C).
        where: the source, for messages.
        value_range: what the caller says that it is; a slight overshoot is clipped to it, with a
            note.
        stated: what the source says that it is; not believed where values lie outside.

    Returns:
        The images; (lowest, highest) value by what was said, else by convention, else their own;
        notes.

    Raises:
        DataError: if the values are no finite numbers, or lie outside `value_range`.
    """
    kind = images.dtype.kind
    # HDF5 and FITS-born arrays are often big-endian, which is not the same dtype.
    images = images.astype(images.dtype.newbyteorder("="), copy=False)
    if kind not in "biuf":
        raise DataError(f"{where}: expected integer, bool or float images, got {images.dtype}")
    if kind == "f":
        check_finite(images, where)
    found = extent(images)
    if value_range is not None:
        return _in_range(images, where, value_range, found)
    if kind == "b":
        return images * np.uint8(255), (0.0, 255.0), ("bool images stored as uint8, 0 and 255",)
    if stated is not None and stated[0] <= found[0] and found[1] <= stated[1]:
        if images.dtype != np.uint8 or stated != (0.0, 255.0):
            return _floats(images, where), stated, ()
        return images, stated, ()
    if kind in "iu":
        return _from_integers(images, where, (int(found[0]), int(found[1])))
    return _from_floats(images, where, found)


def in_range(images: Shaped[np.ndarray, "n *space c"], where: str, value_range: Range) -> _Pixels:
    """Values that are read already, uint8 or float32, in a range that the caller says.

    Raises:
        DataError: if more than a slight overshoot lies outside.
    """
    return _in_range(images, where, value_range, extent(images))


def pinned(value_range: Range) -> str:
    """How to say this range, for messages."""
    low, high = map(_exact, value_range)
    return f"value_range=({low}, {high}) (--value-range {low},{high})"


def _exact(value: float) -> str:
    """The shortest text that is read as this float32."""
    value = float(value)
    return str(int(value)) if value.is_integer() else str(np.float32(value))


def _in_range(
    images: Shaped[np.ndarray, "n *space c"], where: str, value_range: Range, found: Range
) -> _Pixels:
    low, high = value_range
    notes: tuple[str, ...] = ()
    whole = images.dtype.kind in "biu"
    if found[0] < low or found[1] > high:
        n = int(np.count_nonzero((images < low) | (images > high)))
        if not _is_slight(value_range, found) and n > _FEW * images.size:
            raise DataError(
                f"{where}: expected values inside value_range=({low:g}, {high:g}), got "
                f"{found[0]:g} to {found[1]:g}, {n / images.size:.1%} of the values outside; give "
                f"the range that they have, or clip them yourself (numpy.clip) if a window is meant"
            )
        notes = (_clipped(n, found, value_range),)
        images = np.clip(
            images.astype(np.float64 if images.dtype.itemsize > 4 else np.float32), low, high
        )
    if (low, high) == (0.0, 255.0) and whole:
        return images.astype(np.uint8), value_range, notes
    return _floats(images, where), value_range, notes


def _from_integers(
    images: Shaped[np.ndarray, "n *space c"], where: str, found: tuple[int, int]
) -> _Pixels:
    low, high = found
    noun = NOUNS[LAYOUTS[images.ndim]]
    seen = f"{images.dtype} {noun} with values {low} to {high}"
    if low >= 0 and high == 1:
        return (
            images.astype(np.float32),
            (0.0, 1.0),
            (
                f"{images.dtype} {noun} of 0 and 1 alone are taken as masks: kept as float32 with "
                f"value range (0, 1); {pinned((0, 1))} says so of other splits, "
                f"{pinned((0, 255))} takes them as almost black",
            ),
        )
    if low >= 0 and high <= 255 and images.dtype != np.uint16:
        notes: tuple[str, ...] = () if images.dtype == np.uint8 else (f"{seen} stored as uint8",)
        if low < high < _DIM:
            notes += (
                f"values {low} to {high} are a corner of the range 0 to 255; if they are all that "
                f"there can be, pass {pinned((0, high))}",
            )
        return images.astype(np.uint8, copy=False), (0.0, 255.0), notes
    values = _floats(images, where)
    if low >= 0 and (images.dtype == np.uint16 or images.ndim == 4):
        bits, top = next((depth for depth in _BIT_DEPTHS.items() if high <= depth[1]), (0, 0.0))
        if bits and _is_filled((0.0, top), found):
            note = (
                f"{seen} kept exactly, as float32 with value range (0, {top:g}), {bits} bit; "
                f"{pinned((0, top))} says so of other splits"
            )
            return values, (0.0, top), (note,)
    own, note = _own(values, (low, high))
    return values, own, (f"{seen} kept exactly, as float32", note)


def _from_floats(images: Shaped[np.ndarray, "n *space c"], where: str, found: Range) -> _Pixels:
    for each in CONVENTIONS:
        fits = each[0] <= found[0] and found[1] <= each[1]
        if not (fits or _is_slight(each, found)) or not _is_meant(images.ndim, each, found):
            continue
        if fits and each != CONVENTIONS[0] and _nearly(images, found):
            # A few values alone would have chosen this one.
            break
        if fits:
            return _floats(images, where), each, ()
        n = int(np.count_nonzero((images < each[0]) | (images > each[1])))
        values = np.clip(_floats(images, where), *each)
        return values, each, (_clipped(n, found, each),)
    values = _floats(images, where)
    own, note = _own(values, extent(values))
    return values, own, (note,)


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


def _is_slight(value_range: Range, found: Range) -> bool:
    """Whether values leave the range by no more than rounding and resampling make them."""
    low, high = value_range
    slack = min(_SLACK * (high - low), _MOST_SLACK)
    return low - slack <= found[0] and found[1] <= high + slack


def _is_filled(value_range: Range, found: Range) -> bool:
    # Images of one value alone say nothing: the convention is likelier than that value.
    return found[0] == found[1] or (
        found[1] - found[0] >= _LEAST_FILLED * (value_range[1] - value_range[0])
    )


def _is_meant(ndim: int, value_range: Range, found: Range) -> bool:
    """Whether floats that fit a convention are likely scaled to it."""
    # A recording in volts or a scan in its own units may lie inside a convention by chance, and
    # floats up to some thousand inside that of 16 bits.
    chance = LAYOUTS[ndim] != "NHWC" or value_range[1] > 255.0
    return _is_filled(value_range, found) and (
        not chance or max(-found[0], found[1]) >= value_range[1] / 2
    )


def _own(values: Shaped[np.ndarray, "n *space c"], found: Range) -> tuple[Range, str]:
    """The range that the values have, and the note that says so."""
    low, high = found
    if low == high:
        pad = max(1.0, abs(low)) / 2
        low, high = (float(np.float32(end)) for end in (low - pad, high + pad))
    noun = NOUNS[LAYOUTS[values.ndim]]
    note = (
        f"value range of the {noun} taken from their values: {low:g} to {high:g}; "
        f"{pinned((low, high))} says so of other splits"
    )
    nearly = _nearly(values, found)
    if nearly is not None:
        each, n = nearly
        note += (
            f"; all but {n} of {values.size} values lie in {each[0]:g} to {each[1]:g}: "
            f"{pinned(each)} clips the others"
        )
    return (low, high), note


def _nearly(images: Shaped[np.ndarray, "n *space c"], found: Range) -> tuple[Range, int] | None:
    """The first convention that all values but a few keep to, and how many do not."""
    for each in CONVENTIONS:
        if each[0] <= found[0] and found[1] <= each[1]:
            break
        n = int(np.count_nonzero((images < each[0]) | (images > each[1])))
        if n <= _FEW * images.size:
            return each, n
    return None


def _clipped(n: int, found: Range, value_range: Range) -> str:
    low, high = value_range
    return (
        f"{n} values outside of value range ({low:g}, {high:g}) clipped to it; they were "
        f"{found[0]:.8g} to {found[1]:.8g}"
    )
