"""Fields that are checked when a manifest is read, and what is said of a wrong one.

pydantic does the checking and is loaded when the first manifest is read: a worker of a data loader
reads none.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from vaeaug.shards._format import ShardError


@dataclass(frozen=True)
class Expected:
    """Refuses what does not fit, before pydantic sees it; for `Annotated`.

    Attributes:
        what: What is expected, for the message.
        fits: Whether a value is that.
    """

    what: str
    fits: Callable[[Any], bool]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def _check(self, value: Any) -> Any:
        return value if self.fits(value) else _refuse(self.what)


class _InClasses:
    """A class index; the context names the classes."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.with_info_before_validator_function(self._check, handler(source))

    def _check(self, value: Any, info: Any) -> Any:
        k = len(info.context["class_names"])
        return value if is_count(value) and value < k else _refuse(f"an integer in [0, {k})")


class _NameOfLabel(_InClasses):
    """The name of the label that comes before it."""

    def _check(self, value: Any, info: Any) -> Any:
        if "label" not in info.data:  # then that is what is wrong
            return value
        name = info.context["class_names"][info.data["label"]]
        return value if value == name else _refuse(f"{name!r}, the name of its label")


def _refuse(what: str) -> Any:
    from pydantic_core import PydanticCustomError

    raise PydanticCustomError("expected", "{what}", {"what": what})


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 0, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: Any) -> bool:
    """Whether a value is a number that fits into a float, and not a truth value."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= sys.float_info.max


def is_text(value: Any) -> bool:
    """Whether a value is a string that is not empty."""
    return isinstance(value, str) and bool(value)


def is_sha256(value: Any) -> bool:
    """Whether a value is a SHA-256 as lower-case hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def mapping_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A check for objects.

    Args:
        fits: Check of each value.

    Returns:
        Whether something is an object whose values all fit.
    """
    return lambda value: isinstance(value, Mapping) and all(map(fits, value.values()))


def list_of(fits: Callable[[Any], bool], least: int = 0) -> Callable[[Any], bool]:
    """A check for lists.

    Args:
        fits: Check of each item.
        least: Fewest items.

    Returns:
        Whether something is a list whose items all fit.
    """
    return lambda value: (
        isinstance(value, list | tuple) and len(value) >= least and all(map(fits, value))
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
    """Content of a file as typed values.

    Args:
        kind: The type, whose fields are annotated.
        content: JSON types.
        where: Named in the error.
        context: Class names, for types with labels.

    Returns:
        An object of the type.

    Raises:
        ShardError: Naming the first wrong field, what was expected and what it got.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(content, context=dict(context or {}))
    except ValidationError as error:
        raise ShardError(f"{where}: {_explain(error.errors())}") from None


def _explain(problems: list[Any]) -> str:
    """The first wrong field, or all that should not be there."""
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
        # Of pydantic's own types only those of objects and lists can be wrong.
        message = "an object" if "dict" in problem["type"] else "a list"
    return f"{_place(problem['loc'])}expected {message}, got {short(problem['input'])}"


def _place(location: Any) -> str:
    """``shards[1]: n: ``, or nothing for the whole."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int) and parts:
            parts[-1] += f"[{part}]"
        else:
            parts.append(str(part))
    return "".join(f"{part}: " for part in parts)


def short(value: Any) -> str:
    """A value as an error shows it: the first 200 characters of it."""
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
