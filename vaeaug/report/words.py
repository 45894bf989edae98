"""Numbers as a reader takes them in."""

import re
from collections.abc import Iterable
from typing import Any

from vaeaug.report.charts import is_number
from vaeaug.report.document import ClassPart, Document

# What stands for no number.
NONE = "–"
KINDS = {"NHWC": "images", "NLC": "signals", "NDHWC": "volumes"}


def layout(document: Document) -> str:
    """The layout of a run's samples.

    Args:
        document: Of the run.

    Returns:
        As it says; else by the number of axes; else that of images.
    """
    provenance = document.provenance
    stated = provenance.layout or provenance.data.layout
    if stated in KINDS:
        return str(stated)
    shape = provenance.image_shape or provenance.data.image_shape or ()
    return {2: "NLC", 4: "NDHWC"}.get(len(shape), "NHWC")


def kind(document: Document) -> str:
    """What the samples of a run are called.

    Args:
        document: Of the run.

    Returns:
        "images", "signals" or "volumes".
    """
    return KINDS[layout(document)]


def one_of(document: Document) -> str:
    """What one sample of a run is called.

    Args:
        document: Of the run.

    Returns:
        The noun with its article.
    """
    noun = kind(document).removesuffix("s")
    return f"an {noun}" if noun.startswith("i") else f"a {noun}"


def of_kind(text: str, document: Document) -> str:
    """Our own words, which are written for images, for the samples of a run.

    Args:
        text: A sentence about images.
        document: Of the run.

    Returns:
        The sentence about what its samples are.
    """
    return of_layout(text, layout(document))


def of_layout(text: str, layout: str) -> str:
    """The same as `of_kind`, by the layout of the samples.

    Args:
        text: A sentence about images.
        layout: "NHWC", "NLC" or "NDHWC".

    Returns:
        The sentence about what has this layout.
    """
    plural = KINDS[layout]
    singular = plural.removesuffix("s")

    def noun(match: re.Match[str]) -> str:
        word = plural if match[2] else singular
        return word.capitalize() if match[1] == "I" else word

    return text if plural == "images" else re.sub(r"\b([Ii])mage(s?)\b", noun, text)


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


def total(classes: Iterable[ClassPart], key: str) -> int:
    """Sum of a count over classes.

    Args:
        classes: The classes.
        key: Name of the count.

    Returns:
        The sum.
    """
    return int(sum(getattr(row, key) for row in classes))


def _minus(text: str) -> str:
    return text.replace("-", "−")
