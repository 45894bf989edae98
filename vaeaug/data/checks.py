"""The error of unusable data, and checks of whole arrays that need no second copy of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Shaped

from vaeaug.mapping import release

Range = tuple[float, float]

# Whole-array checks and hashes go in slices of about this many bytes.
_SLICE_BYTES = 64 * 2**20


class DataError(ValueError):
    """The input data is not usable; the message names the file, and what was expected and got."""


@contextmanager
def data_errors(where: str, expected: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn the errors of a library into a `DataError`, for a `with` block.

    Args:
        where: The source, for the message.
        expected: What it should be.
        kinds: The errors of the library; none for all, where they cannot be listed.

    Returns:
        The context.

    Raises:
        DataError: With the text of the library's error.
    """
    caught = kinds or (Exception,)
    try:
        yield
    except DataError:
        raise
    except caught as error:
        raise DataError(f"{where}: expected {expected}, got: {error}") from error


def slices(array: Shaped[np.ndarray, "n ..."]) -> Iterator[Shaped[np.ndarray, "m ..."]]:
    """Cut an array along its first axis.

    Args:
        array: Any array of at least one axis.

    Returns:
        Consecutive views of about 64 MiB, which together are the whole array.
    """
    step = max(1, _SLICE_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield array[start : start + step]
        release(array)


def extent(images: Shaped[np.ndarray, "n ..."]) -> Range:
    """The lowest and the highest value.

    Args:
        images: Real numbers, at least one.

    Returns:
        (lowest, highest) as Python floats.
    """
    ends = [(float(piece.min()), float(piece.max())) for piece in slices(images)]
    return min(low for low, _ in ends), max(high for _, high in ends)


def check_finite(images: Shaped[np.ndarray, "n ..."], where: str) -> None:
    """Refuse NaN and infinity.

    Args:
        images: Floats; the first axis counts the images.
        where: The source, for the message.

    Raises:
        DataError: Naming the first image that is not finite and how many there are.
    """
    bad: list[int] = []
    start = 0
    for piece in slices(images):
        finite = np.isfinite(piece).reshape(len(piece), -1).all(axis=1)
        bad.extend(start + np.flatnonzero(~finite))
        start += len(piece)
    if bad:
        raise DataError(
            f"{where}: expected finite pixel values, got NaN or infinity in {len(bad)} of "
            f"{len(images)} images, the first at index {bad[0]}"
        )


def check_inside(images: Shaped[np.ndarray, "n ..."], value_range: Range, where: str) -> None:
    """Refuse floats that are not finite or lie outside of their value range.

    Args:
        images: Floats; the first axis counts the images.
        value_range: The lowest and the highest value allowed.
        where: The source, for the message.

    Raises:
        DataError: Naming both ranges.
    """
    check_finite(images, where)
    (low, high), (actual_low, actual_high) = value_range, extent(images)
    with np.errstate(over="ignore"):
        # Values are kept as float32: what is equal there is not outside.
        ends = np.array([[low, actual_low], [actual_high, high]]).astype(np.float32)
    if (ends[:, 0] > ends[:, 1]).any():
        raise DataError(
            f"{where}: expected values inside value_range ({low:g}, {high:g}), "
            f"got {actual_low:g} to {actual_high:g}"
        )


def check_class_names(names: tuple[str, ...], where: str) -> None:
    """Refuse class names that some file written later could not hold, and repeated ones.

    Args:
        names: The names in the order of their labels.
        where: The source, for the message.

    Raises:
        DataError: Naming the first bad name, or the repeated ones.
    """
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where}: expected class_names as strings, at least one, got {names!r}")
    for name in names:
        if not name or "\0" in name or name != encodable(name):
            raise DataError(
                f"{where}: expected class_names as text in UTF-8 without zero bytes, not empty, "
                f"which every file that is written can hold, got {name!r}; rename the class, or "
                f"pass class_names="
            )
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{where}: expected distinct class names, got more than once: {repeated}")


def encodable(text: str) -> str:
    """A text as UTF-8 can hold it: the name of a file may be any bytes.

    Args:
        text: Any text, with lone surrogates or without.

    Returns:
        The text, with what UTF-8 does not hold as backslash escapes.
    """
    return text.encode("utf-8", "backslashreplace").decode()
