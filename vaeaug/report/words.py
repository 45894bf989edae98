"""Formatting of numbers, and nouns for the samples of a run."""

import re
from collections.abc import Iterable
from typing import Any

from vaeaug.report.charts import is_number
from vaeaug.report.document import ClassPart, Document
from vaeaug.shapes import are_features

# Shown instead of a missing number.
NONE = "–"
# "NF" is no layout of a shard: feature vectors are stored as signals of one position.
KINDS = {"NHWC": "images", "NLC": "signals", "NDHWC": "volumes", "NF": "feature vectors"}


def layout(document: Document) -> str:
    """Return the layout of the samples of a run.

    Args:
        document: The report.

    Returns:
        The stated layout, or one derived from the number of axes; default: that of images; "NF" for
        feature vectors.
    """
    provenance = document.provenance
    stated = provenance.layout or provenance.data.layout
    shape = provenance.image_shape or provenance.data.image_shape or ()
    if are_features(shape):
        return "NF"
    if stated in KINDS:
        return str(stated)
    return {2: "NLC", 4: "NDHWC"}.get(len(shape), "NHWC")


def kind(document: Document) -> str:
    """Return the noun for the samples of a run.

    Args:
        document: The report.

    Returns:
        "images", "signals", "volumes" or "feature vectors".
    """
    return KINDS[layout(document)]


def one_of(document: Document) -> str:
    """Return the noun for one sample of a run with its article.

    Args:
        document: The report.

    Returns:
        "an image", "a signal", "a volume" or "a feature vector".
    """
    noun = kind(document).removesuffix("s")
    return f"an {noun}" if noun.startswith("i") else f"a {noun}"


def of_kind(text: str, document: Document) -> str:
    """Adapt a text that is written for images to the samples of a run.

    Args:
        text: A text about images.
        document: The report.

    Returns:
        The text about the samples of the run.
    """
    return of_layout(text, layout(document))


def of_layout(text: str, layout: str) -> str:
    """Adapt a text that is written for images to samples of a layout.

    Args:
        text: A text about images.
        layout: "NHWC", "NLC", "NDHWC" or "NF".

    Returns:
        The text about samples of this layout.
    """
    plural = KINDS[layout]
    singular = plural.removesuffix("s")

    def noun(match: re.Match[str]) -> str:
        word = plural if match[2] else singular
        return word.capitalize() if match[1] == "I" else word

    return text if plural == "images" else re.sub(r"\b([Ii])mage(s?)\b", noun, text)


def num(value: Any) -> str:
    """Format a number with about three significant digits.

    Args:
        value: The number; anything else counts as missing.

    Returns:
        Text.
    """
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
    """Format a fraction as a percentage with one decimal, without the percent sign.

    Args:
        value: The fraction; anything else counts as missing.

    Returns:
        Text.
    """
    return _minus(f"{100 * value:.1f}") if is_number(value) else NONE


def whole(value: Any) -> str:
    """Format a fraction as a percentage without decimals and percent sign.

    Args:
        value: The fraction; anything else counts as missing.

    Returns:
        Text.
    """
    return _minus(f"{100 * value:.0f}") if is_number(value) else NONE


def points(value: Any) -> str:
    """Format a difference of fractions in percentage points, with its sign.

    Args:
        value: The difference; anything else counts as missing.

    Returns:
        Text.
    """
    if not is_number(value):
        return NONE
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else _minus(text)


def count(value: Any) -> str:
    """Format a whole number with a thousands separator.

    Args:
        value: The number; anything else counts as missing.

    Returns:
        Text.
    """
    return f"{value:,.0f}" if is_number(value) else NONE


def sentence(text: str) -> str:
    """Capitalise a text and end it with a full stop.

    Args:
        text: The text.

    Returns:
        The sentence.
    """
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


def several(n: float, one: str, many: str) -> str:
    """Format a whole number with its noun.

    Args:
        n: The number.
        one: The noun in the singular.
        many: The noun in the plural.

    Returns:
        Text.
    """
    return f"{n:,.0f} {one if n == 1 else many}"


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours.

    Args:
        seconds: Seconds.

    Returns:
        Text.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def total(classes: Iterable[ClassPart], key: str) -> int:
    """Sum a count over classes.

    Args:
        classes: The classes.
        key: Name of the count.

    Returns:
        The sum.
    """
    return int(sum(getattr(row, key) for row in classes))


def with_minus(text: str) -> str:
    """Write the signs of negative numbers as minus signs, not as hyphens.

    Args:
        text: A text with numbers.

    Returns:
        Text.
    """
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def _minus(text: str) -> str:
    return text.replace("-", "−")
