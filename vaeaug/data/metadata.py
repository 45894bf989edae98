"""What data says of itself beside its pixels: class names, axes and value range."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import DataError
from vaeaug.data.pixels import finish_pixels
from vaeaug.data.request import STORED_LAYOUTS, Request
from vaeaug.memory import TEXT_FACTOR, require_memory

_NAMES_FILES = ("classes.json", "class_names.json", "classnames.txt")
_Pixels = tuple[Shaped[np.ndarray, "n *space c"], tuple[float, float], tuple[str, ...]]


@dataclass(frozen=True)
class Stated:
    """What a source says of its images; None where it is silent.

    Attributes:
        class_names: in the order of the labels.
        layout: one of `STORED_LAYOUTS`.
        value_range: lowest and highest value by convention.
    """

    class_names: tuple[str, ...] | None = None
    layout: str | None = None
    value_range: tuple[float, float] | None = None

    def finish(self, array: Shaped[np.ndarray, "..."], where: str, request: Request) -> _Pixels:
        """`finish_pixels` by what was asked for, and where nothing was, by what is stated."""
        fits = self.layout is not None and len(self.layout) == array.ndim
        return finish_pixels(
            array,
            where,
            request,
            layout=self.layout if fits else None,
            value_range=self.value_range,
        )


def stated(document: Mapping[str, Any], where: str) -> Stated:
    """What a document with `class_names`, `layout` and `image_value_range` says; others are left.

    Raises:
        DataError: if one of them is not what it should be.
    """
    layout, pair = document.get("layout"), document.get("image_value_range")
    if layout is not None and layout not in STORED_LAYOUTS:
        raise DataError(
            f"{where}: expected a layout of {', '.join(STORED_LAYOUTS)}, got {layout!r}"
        )
    if pair is not None and not is_range(pair):
        raise DataError(f"{where}: expected image_value_range as (low, high), got {pair!r}")
    names = document.get("class_names")
    return Stated(
        class_names=None if names is None else class_name_list(names, where),
        layout=layout,
        value_range=None if pair is None else (float(pair[0]), float(pair[1])),
    )


def class_name_list(value: Any, where: str) -> tuple[str, ...]:
    """Class names from a list of texts, or from a mapping of each name to its label.

    Raises:
        DataError: if they are not distinct texts, numbered from 0 without gaps.
    """
    names = value
    if isinstance(value, Mapping):
        if sorted(map(str, value.values())) != sorted(map(str, range(len(value)))):
            raise DataError(
                f"{where}: expected class names numbered 0..{len(value) - 1}, got {dict(value)}"
            )
        names = sorted(value, key=lambda name: int(value[name]))
    good = isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names)
    if not good or len(set(names)) != len(names):
        raise DataError(f"{where}: expected distinct class names, a list of texts, got {value!r}")
    return tuple(names)


def names_beside(folder: Path) -> tuple[str, ...] | None:
    """Class names of `classes.json`, `class_names.json` or `classnames.txt` in a folder, or None.

    The JSON is a list, a mapping of name to label, or an object whose `class_names` is either; the
    text has one name a line.

    Raises:
        DataError: if such a file is there and holds no class names.
    """
    for name in _NAMES_FILES:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix == ".txt":
            return class_name_list(_text(path).rstrip("\n").split("\n"), str(path))
        document = load_json(path)
        if isinstance(document, Mapping) and isinstance(document.get("class_names"), list | dict):
            document = document["class_names"]
        return class_name_list(document, str(path))
    return None


def load_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: if it is none.
    """
    return parse_json(_text(path), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        DataError: if it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected JSON, got: {error}") from error


def _text(path: Path) -> str:
    try:
        require_memory(TEXT_FACTOR * path.stat().st_size, str(path), "text", DataError)
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a text file in UTF-8, got: {error}") from error


def is_range(pair: Any) -> TypeGuard[Sequence[float]]:
    """Whether it is (low, high), two finite numbers in this order."""
    numbers = isinstance(pair, list | tuple) and len(pair) == 2
    return (
        numbers
        and all(isinstance(v, int | float) and math.isfinite(v) for v in pair)
        and pair[0] < pair[1]
    )
