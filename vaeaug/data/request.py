"""The options of `read`, checked once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaeaug.data.checks import DataError, Range
from vaeaug.data.dataset import FRONT_ENDS
from vaeaug.data.decode import ALPHA, MODES, RESIZE, DecodeOptions
from vaeaug.data.split_names import check_split
from vaeaug.engines import Engine, EngineError, as_engine
from vaeaug.mapping import CACHE

# Sounds are sampled no faster.
FASTEST = 1_000_000
ON_ERROR = ("raise", "skip")
# The axes that an array as stored may have; C is missing where there is one channel. NF: features.
STORED_LAYOUTS = ("NL", "NLC", "NCL", "NF", "NHW", "NHWC", "NCHW", "NDHW", "NDHWC", "NCDHW")
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "alpha": ALPHA,
    "resize": RESIZE,
    "mode": (*MODES, None),
    "on_error": ON_ERROR,
    "layout": (*STORED_LAYOUTS, None),
    "front_end": (*FRONT_ENDS, None),
}


@dataclass(frozen=True)
class Cache:
    """A folder that keeps decoded files for the next command.

    Attributes:
        folder: The folder, which is made when it is needed.
        only_large: Keep only what memory has no room for; else everything.
    """

    folder: Path
    only_large: bool = False


@dataclass(frozen=True)
class Request:
    """The checked options of `read`; see there for their meaning."""

    split: str
    size: tuple[int, int] | None
    keys: dict[str, str] | None
    alpha: str
    workers: int | None
    progress: bool
    class_names: tuple[str, ...] | None
    layout: str | None = None
    value_range: Range | None = None
    resize: str = "crop"
    mode: str | None = None
    on_error: str = "raise"
    frames: int | None = None
    frame_step: int = 1
    sample_rate: int | None = None
    front_end: str | None = None
    cache: Cache | None = None
    engine: Engine | None = None

    @property
    def room(self) -> Path | None:
        """Where decoded files are mapped from, if they are many; None: see `room_for`."""
        return None if self.cache is None else self.cache.folder

    @property
    def decoding(self) -> DecodeOptions:
        """How an image file is decoded."""
        return DecodeOptions(
            size=self.size,
            resize=self.resize,
            alpha=self.alpha,
            mode=self.mode,
            frames=self.frames,
            frame_step=self.frame_step,
        )


def make_request(*, needed_keys: tuple[str, ...] = ("images", "labels"), **options: Any) -> Request:
    """Check the options of `read` or `read_pool`.

    Args:
        needed_keys: What `keys` must name where it is given.
        options: The options by their names.

    Returns:
        The options in canonical form.

    Raises:
        DataError: Naming the option, what it may be and what it was.
    """
    for name, known in _CHOICES.items():
        if options.get(name) not in known:
            raise DataError(
                f"{name}: expected one of {', '.join(filter(None, known))}, got {options[name]!r}"
            )
    if options["mode"] == "L" and options["alpha"] == "keep":
        raise DataError("mode: expected no 'L' with alpha='keep', which makes four channels")
    if options["workers"] is not None and options["workers"] < 0:
        raise DataError(f"workers: expected 0 or more, got {options['workers']}")
    frames = options.get("frames")
    if frames is not None and not (_is_whole(frames) and frames >= 1):
        raise DataError(f"frames: expected a whole number, at least 1, got {frames!r}")
    step = options.get("frame_step", 1)
    if not (_is_whole(step) and step >= 1):
        raise DataError(f"frame_step: expected a whole number, at least 1, got {step!r}")
    if step > 1 and (frames is None or options["resize"] == "stretch"):
        raise DataError(
            f"frame_step: expected frames= with it and resize='crop' or 'pad', got frame_step="
            f"{step}, frames={frames}, resize={options['resize']!r}"
        )
    rate = options.get("sample_rate")
    if rate is not None and not (_is_whole(rate) and 1 <= rate <= FASTEST):
        raise DataError(f"sample_rate: expected 1 to {FASTEST:,} Hz, got {rate!r}")
    checked = {
        "split": check_split(options["split"]),
        "size": _check_size(options["size"]),
        "keys": _check_keys(options["keys"], needed_keys),
        "class_names": _check_class_names(options["class_names"]),
        "value_range": _check_range(options["value_range"]),
        "cache": _check_cache(options.get("cache")),
        "engine": _check_engine(options.get("engine")),
    }
    return Request(**(options | checked))


def _check_keys(keys: Any, needed: tuple[str, ...]) -> dict[str, str] | None:
    if keys is None:
        return None
    if not set(needed) <= set(keys) <= {"images", "labels"}:
        names = " and ".join(map(repr, needed))
        raise DataError(f"keys: expected a mapping with {names}, got {sorted(keys)}")
    if not all(isinstance(name, str) for name in keys.values()):
        raise DataError(f"keys: expected the names of arrays, got {dict(keys)}")
    return dict(keys)


def _check_class_names(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str):
        raise DataError(f"class_names: expected a sequence of names, got the text {names!r}")
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise DataError(f"class_names: expected texts, got {odd[0]!r} among them")
    return tuple(names)


def _check_range(value_range: Any) -> Range | None:
    if value_range is None:
        return None
    is_pair = isinstance(value_range, list | tuple | np.ndarray) and len(value_range) == 2
    try:
        # As float32 holds them, which is what the pixels are.
        low, high = (float(np.float32(v)) for v in value_range) if is_pair else (0.0, 0.0)
    except (TypeError, ValueError):
        low = high = 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise DataError(f"value_range: expected (low, high), low < high, got {value_range!r}")
    return low, high


def _check_cache(cache: Any) -> Cache | None:
    if cache is None:
        folder = os.environ.get(CACHE)
        return Cache(Path(folder)) if folder else None
    if isinstance(cache, Cache):
        return cache
    if not isinstance(cache, str | os.PathLike) or cache == "":
        raise DataError(f"cache: expected a folder, got {cache!r}")
    return Cache(Path(cache))


def _check_engine(engine: Any) -> Engine | None:
    try:
        return as_engine(engine)
    except EngineError as error:
        raise DataError(str(error)) from None


def _check_size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(_is_whole(n) and n >= 1 for n in pair):
        raise DataError(f"size: expected (height, width) or one number, at least 1, got {size!r}")
    return int(pair[0]), int(pair[1])


def _is_whole(n: object) -> bool:
    # NumPy's integers too; a bool is an integer by accident.
    return isinstance(n, int | np.integer) and not isinstance(n, bool)
