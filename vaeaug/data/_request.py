"""What the caller of `read` asked for, checked once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vaeaug.data._decode import ALPHA
from vaeaug.data._images import DataError
from vaeaug.data._splits import check_split


@dataclass(frozen=True)
class Request:
    """The checked arguments of `read`; see there for their meaning."""

    split: str
    size: tuple[int, int] | None
    keys: dict[str, str] | None
    alpha: str
    workers: int | None
    progress: bool
    class_names: tuple[str, ...] | None


def make_request(
    *,
    split: str,
    size: int | Sequence[int] | None,
    keys: Mapping[str, str] | None,
    alpha: str,
    workers: int | None,
    progress: bool,
    class_names: Sequence[str] | None,
) -> Request:
    """Check the arguments of `read`.

    Raises:
        DataError: naming the argument, what it may be and what it was.
    """
    if alpha not in ALPHA:
        raise DataError(f"alpha: expected one of {', '.join(ALPHA)}, got {alpha!r}")
    if keys is not None and set(keys) != {"images", "labels"}:
        raise DataError(f"keys: expected a mapping with 'images' and 'labels', got {sorted(keys)}")
    if keys is not None and not all(isinstance(name, str) for name in keys.values()):
        raise DataError(f"keys: expected the names of arrays, got {dict(keys)}")
    if isinstance(class_names, str):
        raise DataError(f"class_names: expected a sequence of names, got the text {class_names!r}")
    if workers is not None and workers < 0:
        raise DataError(f"workers: expected 0 or more, got {workers}")
    return Request(
        split=check_split(split),
        size=_check_size(size),
        keys=None if keys is None else dict(keys),
        alpha=alpha,
        workers=workers,
        progress=progress,
        class_names=None if class_names is None else tuple(class_names),
    )


def _check_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(_is_whole(n) and n >= 1 for n in pair):
        raise DataError(f"size: expected (height, width) or one number, at least 1, got {size!r}")
    return int(pair[0]), int(pair[1])


def _is_whole(n: object) -> bool:
    # NumPy's integers too; a bool is an integer by accident.
    return isinstance(n, int | np.integer) and not isinstance(n, bool)
