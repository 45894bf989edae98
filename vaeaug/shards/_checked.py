"""Field types that are validated when a manifest is read, and their error messages.

pydantic validates them. It is loaded when the first manifest is read, so that workers of a data
loader, which read none, do not load it.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from vaeaug.shards._format import ShardError


@dataclass(frozen=True)
class Expected:
    """A check before pydantic's own validation, for `Annotated`.

    Attributes:
        what: Description of the expected value, for the message.
        fits: Returns whether a value is as expected.
    """

    what: str
    fits: Callable[[Any], bool]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def _check(self, value: Any) -> Any:
        return value if self.fits(value) else _reject(self.what)


class _InClasses:
    """A class index; the context names the classes."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.with_info_before_validator_function(self._check, handler(source))

    def _check(self, value: Any, info: Any) -> Any:
        k = len(info.context["class_names"])
        return value if is_count(value) and value < k else _reject(f"an integer in [0, {k})")


class _NameOfLabel(_InClasses):
    """The class name of the preceding label."""

    def _check(self, value: Any, info: Any) -> Any:
        if "label" not in info.data:  # the label is invalid, which is reported instead
            return value
        name = info.context["class_names"][info.data["label"]]
        return value if value == name else _reject(f"{name!r}, the name of its label")


def _reject(what: str) -> Any:
    from pydantic_core import PydanticCustomError

    raise PydanticCustomError("expected", "{what}", {"what": what})


def is_count(value: Any) -> bool:
    """Check whether a value is an integer of at least 0, and not a bool.

    Args:
        value: The value.

    Returns:
        Whether it is.
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: Any) -> bool:
    """Check whether a value is a number that fits into a float, and not a bool.

    Args:
        value: The value.

    Returns:
        Whether it is.
    """
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= sys.float_info.max


def is_text(value: Any) -> bool:
    """Check whether a value is a non-empty string.

    Args:
        value: The value.

    Returns:
        Whether it is.
    """
    return isinstance(value, str) and bool(value)


def is_sha256(value: Any) -> bool:
    """Check whether a value is a SHA-256 in lower-case hexadecimal digits.

    Args:
        value: The value.

    Returns:
        Whether it is.
    """
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def mapping_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Create a check for objects.

    Args:
        fits: Check of each value.

    Returns:
        A check whether a value is an object whose values all pass.
    """
    return lambda value: isinstance(value, Mapping) and all(map(fits, value.values()))


def list_of(fits: Callable[[Any], bool], min_items: int = 0) -> Callable[[Any], bool]:
    """Create a check for lists.

    Args:
        fits: Check of each item.
        min_items: Minimum number of items.

    Returns:
        A check whether a value is a list whose items all pass.
    """
    return lambda value: (
        isinstance(value, list | tuple) and len(value) >= min_items and all(map(fits, value))
    )


Count = Annotated[int, Expected("an integer >= 0", is_count)]
Positive = Annotated[int, Expected("an integer >= 1", lambda v: is_count(v) and v >= 1)]
Text = Annotated[str, Expected("a non-empty string", is_text)]
Sha256 = Annotated[str, Expected("64 lower-case hexadecimal digits", is_sha256)]
# Both need the context ``{"class_names": (...)}``; the name comes after the label.
Label = Annotated[int, _InClasses()]
NameOfLabel = Annotated[str, _NameOfLabel()]


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def validated(kind: Any, content: Any, where: str, context: Mapping[str, Any] | None = None) -> Any:
    """Convert the content of a file to typed values.

    Args:
        kind: The type; its fields are annotated.
        content: JSON types.
        where: Source of the content, named in errors.
        context: Class names, for types with labels.

    Returns:
        An object of the type.

    Raises:
        ShardError: If a field is wrong; the message names it, the expected and the actual value.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(content, context=dict(context or {}))
    except ValidationError as error:
        raise ShardError(f"{where}: {_explain(error.errors())}") from None


def _explain(problems: list[Any]) -> str:
    """Describe the first wrong field or, if there is none, all unexpected ones."""
    wrong = [problem for problem in problems if "unexpected" not in problem["type"]]
    if not wrong:
        names = sorted(str(problem["loc"][-1]) for problem in problems)
        return f"{_place(problems[0]['loc'][:-1])}expected no other fields, got {names}"
    problem = wrong[0]
    if problem["type"] == "missing":
        *parents, name = problem["loc"]
        return f"{_place(parents)}expected the field {name!r}, which is missing"
    message = problem["msg"]
    if problem["type"] != "expected":
        # Of pydantic's own checks, only those of objects and lists can fail.
        message = "an object" if "dict" in problem["type"] else "a list"
    return f"{_place(problem['loc'])}expected {message}, got {short(problem['input'])}"


def _place(location: Any) -> str:
    """Format a location as ``shards[1]: n: ``; an empty one as an empty string."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int) and parts:
            parts[-1] += f"[{part}]"
        else:
            parts.append(str(part))
    return "".join(f"{part}: " for part in parts)


def short(value: Any) -> str:
    """Format a value for an error message.

    Args:
        value: The value.

    Returns:
        The first 200 characters of its representation.
    """
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
