"""What the caller of `read` asked for, checked once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vaeaug.data.dataset import DataError
from vaeaug.data.decode import ALPHA, MODES, RESIZE, How
from vaeaug.data.splits import check_split

ON_ERROR = ("raise", "skip")
# The axes that an array as stored may have; C is missing where there is one channel.
STORED_LAYOUTS = ("NL", "NLC", "NCL", "NHW", "NHWC", "NCHW", "NDHW", "NDHWC", "NCDHW")


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
    layout: str | None = None
    value_range: tuple[float, float] | None = None
    resize: str = "crop"
    mode: str | None = None
    on_error: str = "raise"

    @property
    def how(self) -> How:
        """How an image file is decoded."""
        return How(size=self.size, resize=self.resize, alpha=self.alpha, mode=self.mode)


def make_request(
    *,
    split: str,
    size: int | Sequence[int] | None,
    keys: Mapping[str, str] | None,
    alpha: str,
    workers: int | None,
    progress: bool,
    class_names: Sequence[str] | None,
    layout: str | None = None,
    value_range: Sequence[float] | None = None,
    resize: str = "crop",
    mode: str | None = None,
    on_error: str = "raise",
    needed_keys: tuple[str, ...] = ("images", "labels"),
) -> Request:
    """Check the arguments of `read` or `read_pool`, which needs the key of the images only.

    Raises:
        DataError: naming the argument, what it may be and what it was.
    """
    for name, value, known in (
        ("alpha", alpha, ALPHA),
        ("resize", resize, RESIZE),
        ("mode", mode, (*MODES, None)),
        ("on_error", on_error, ON_ERROR),
    ):
        if value not in known:
            raise DataError(
                f"{name}: expected one of {', '.join(each for each in known if each)}, got "
                f"{value!r}"
            )
    if mode == "L" and alpha == "keep":
        raise DataError("mode: expected no 'L' with alpha='keep', which makes four channels")
    if keys is not None and not set(needed_keys) <= set(keys) <= {"images", "labels"}:
        names = " and ".join(repr(key) for key in needed_keys)
        raise DataError(f"keys: expected a mapping with {names}, got {sorted(keys)}")
    if keys is not None and not all(isinstance(name, str) for name in keys.values()):
        raise DataError(f"keys: expected the names of arrays, got {dict(keys)}")
    if isinstance(class_names, str):
        raise DataError(f"class_names: expected a sequence of names, got the text {class_names!r}")
    odd = [name for name in class_names or () if not isinstance(name, str)]
    if odd:
        raise DataError(f"class_names: expected texts, got {odd[0]!r} among them")
    if workers is not None and workers < 0:
        raise DataError(f"workers: expected 0 or more, got {workers}")
    if layout is not None and layout not in STORED_LAYOUTS:
        raise DataError(f"layout: expected one of {', '.join(STORED_LAYOUTS)}, got {layout!r}")
    return Request(
        split=check_split(split),
        size=_check_size(size),
        keys=None if keys is None else dict(keys),
        alpha=alpha,
        workers=workers,
        progress=progress,
        class_names=None if class_names is None else tuple(class_names),
        layout=layout,
        value_range=_check_range(value_range),
        resize=resize,
        mode=mode,
        on_error=on_error,
    )


def _check_range(value_range: Sequence[float] | None) -> tuple[float, float] | None:
    if value_range is None:
        return None
    good = isinstance(value_range, list | tuple | np.ndarray) and len(value_range) == 2
    try:
        # As float32 holds them, which is what the pixels are.
        low, high = (float(np.float32(v)) for v in value_range) if good else (0.0, 0.0)
    except (TypeError, ValueError):
        low = high = 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise DataError(f"value_range: expected (low, high), low < high, got {value_range!r}")
    return low, high


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
