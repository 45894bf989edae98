"""Numbers as a reader takes them in."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from vaeaug.report.charts import is_number

# What stands for no number.
NONE = "–"
KINDS = {"NHWC": "images", "NLC": "signals", "NDHWC": "volumes"}


def layout(document: Mapping[str, Any]) -> str:
    """The layout of a run's samples: as it is said; else by the number of axes; else images."""
    found = document.get("provenance") or {}
    data = found.get("data") or {}
    said = found.get("layout") or data.get("layout")
    if said in KINDS:
        return str(said)
    shape = found.get("image_shape") or data.get("image_shape") or ()
    return {2: "NLC", 4: "NDHWC"}.get(len(shape), "NHWC")


def kind(document: Mapping[str, Any]) -> str:
    """What the samples of a run are called, in the plural."""
    return KINDS[layout(document)]


def one_of(document: Mapping[str, Any]) -> str:
    """One of them, with its article."""
    one = kind(document).removesuffix("s")
    return f"an {one}" if one.startswith("i") else f"a {one}"


def of_kind(text: str, document: Mapping[str, Any]) -> str:
    """Our own words, written for images, of what the samples of a run are."""
    return of_layout(text, layout(document))


def of_layout(text: str, layout: str) -> str:
    """The same, by the layout of the samples."""
    many = KINDS[layout]
    one = many.removesuffix("s")

    def said(found: re.Match[str]) -> str:
        word = many if found[2] else one
        return word.capitalize() if found[1] == "I" else word

    return text if many == "images" else re.sub(r"\b([Ii])mage(s?)\b", said, text)


def num(value: Any) -> str:
    """About three digits that say something."""
    if not is_number(value):
        return NONE
    size = abs(value)
    if isinstance(value, int) or size >= 1000:
        return _minus(f"{value:,.0f}")
    if 0 < size < 0.001:
        return _minus(f"{value:.0e}")
    digits = 1 if size >= 100 else 2 if size >= 10 else 3
    return _minus(f"{value:.{digits}f}")


def pct(value: Any) -> str:
    """A share in percent with one decimal, without the sign of percent."""
    return _minus(f"{100 * value:.1f}") if is_number(value) else NONE


def whole(value: Any) -> str:
    """A share in percent where the decimal is not needed."""
    return _minus(f"{100 * value:.0f}") if is_number(value) else NONE


def points(value: Any) -> str:
    """A difference of shares in percentage points, with its sign."""
    if not is_number(value):
        return NONE
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else _minus(text)


def count(value: Any) -> str:
    """A whole number, thousands apart."""
    return f"{value:,.0f}" if is_number(value) else NONE


def sentence(text: str) -> str:
    """The text with a capital at its beginning and a stop at its end."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


def several(n: float, one: str, many: str) -> str:
    """A whole number and its noun."""
    return f"{n:,.0f} {one if n == 1 else many}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def total(classes: Iterable[Mapping[str, Any]], key: str) -> int:
    """Sum over the classes that have the figure."""
    return sum(each[key] for each in classes if is_number(each.get(key)))


def _minus(text: str) -> str:
    return text.replace("-", "−")
