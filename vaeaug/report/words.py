"""Numbers as a reader takes them in."""

from collections.abc import Iterable, Mapping
from typing import Any

from vaeaug.report.charts import is_number

# What stands for no number.
NONE = "–"


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
