"""The gray levels that an image uses.

An image whose contrast was stretched to 0 ... 255 after it was rounded has holes in its histogram:
of an original range of R levels only R + 1 values are left, ``k * 255 / R``. About every second
image of Fashion-MNIST is one, and so is every scan of 16 gray levels. Who knows the levels codes
them instead of 256. No other codec in common use looks for them.
"""

import functools

import numpy as np
from jaxtyping import Bool, Int64, UInt8

N_VALUES = 256
# Bits that naming a set costs before a coder has learned which are usual.
_NAMING = 14.0


@functools.cache
def level_sets() -> tuple[Int64[np.ndarray, " k"], ...]:
    """List all sets of levels that a file can name, in the order of the format.

    Returns:
        First all 256 values; then, for each R from 1 to 254, ``k * 255 / R`` rounded down, rounded
        up and rounded to the nearest.
    """
    sets = [np.arange(N_VALUES)]
    for reach in range(1, N_VALUES - 1):
        k = np.arange(reach + 1)
        product = 255 * k
        sets += [product // reach, -(-product // reach), (2 * product + reach) // (2 * reach)]
    return tuple(sets)


@functools.cache
def level_edges() -> tuple[Int64[np.ndarray, "s 257"], Int64[np.ndarray, " s"]]:
    """Where the values of each set begin.

    Returns:
        (edges, sizes). Edge v of a set is its smallest level of at least v, 256 where there is
        none, so that a value has the values from its edge to the next: none where it is no level.
    """
    sets = level_sets()
    edges = np.full((len(sets), N_VALUES + 1), N_VALUES, np.int64)
    for row, levels in enumerate(sets):
        place = np.searchsorted(levels, np.arange(N_VALUES + 1))
        inside = place < len(levels)
        edges[row, inside] = levels[place[inside]]
    return edges, np.array([len(levels) for levels in sets])


@functools.cache
def _members() -> Bool[np.ndarray, "s 256"]:
    members = np.zeros((len(level_sets()), N_VALUES), bool)
    for row, levels in enumerate(level_sets()):
        members[row, levels] = True
    return members


def rounded_to(
    images: UInt8[np.ndarray, "n *space"], reach: Int64[np.ndarray, " n"] | int
) -> tuple[UInt8[np.ndarray, "n *space"], Int64[np.ndarray, " n"]]:
    """Round values to the nearest of ``reach + 1`` gray levels from black to white.

    Args:
        images: The images.
        reach: Levels less one, 1 to 254, of each image or of all.

    Returns:
        (rounded images, their sets of levels).
    """
    steps = np.broadcast_to(np.asarray(reach, np.int64), len(images))
    r = steps.reshape(-1, *[1] * (images.ndim - 1))
    k = (2 * images.astype(np.int64) * r + 255) // 510
    return ((510 * k + r) // (2 * r)).astype(np.uint8), 3 * steps


def find_levels(images: UInt8[np.ndarray, "n *space"]) -> Int64[np.ndarray, " n"]:
    """Find for each image the smallest set of levels that has all its values.

    Args:
        images: Any number of axes.

    Returns:
        Indices into `level_sets`; 0, all values, where a smaller set would not pay for its name.
    """
    sizes = level_edges()[1]
    outside = (~_members()).T.astype(np.float32)
    chosen = np.zeros(len(images), np.int64)
    for start in range(0, len(images), 1024):
        values = images[start : start + 1024].reshape(len(images[start : start + 1024]), -1)
        used = np.zeros((len(values), N_VALUES), np.float32)
        np.put_along_axis(used, values.astype(np.int64), 1.0, axis=1)
        missing = used @ outside
        best = np.where(missing == 0, sizes, N_VALUES + 1).argmin(axis=1)
        # Values at the ends are told by the mixture's tails, whatever the set.
        inner = ((values > 0) & (values < N_VALUES - 1)).sum(axis=1)
        saved = inner * np.log2(N_VALUES / sizes[best])
        chosen[start : start + 1024] = np.where(saved > _NAMING, best, 0)
    return chosen
