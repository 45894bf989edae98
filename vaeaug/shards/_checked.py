"""Fields that are checked when a manifest is read, and what is said of a wrong one."""

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from vaeaug.shards._format import ShardError


def expected(what: str, fits: Callable[[Any], bool]) -> BeforeValidator:
    """A validator for `Annotated` that refuses what does not fit.

    Args:
        what: What is expected, for the message.
        fits: Whether a value is that.

    Returns:
        The validator.
    """

    def check(value: Any) -> Any:
        if not fits(value):
            raise PydanticCustomError("expected", "{what}", {"what": what})
        return value

    return BeforeValidator(check)


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


def _in_range(value: Any, info: ValidationInfo) -> Any:
    k = len((info.context or {})["class_names"])
    if not (is_count(value) and value < k):
        raise PydanticCustomError("expected", "{what}", {"what": f"an integer in [0, {k})"})
    return value


def _of_label(value: Any, info: ValidationInfo) -> Any:
    if "label" in info.data:  # else that is what is wrong
        name = (info.context or {})["class_names"][info.data["label"]]
        if value != name:
            what = f"{name!r}, the name of its label"
            raise PydanticCustomError("expected", "{what}", {"what": what})
    return value


Count = Annotated[int, expected("an integer >= 0", is_count)]
Positive = Annotated[int, expected("an integer >= 1", lambda v: is_count(v) and v >= 1)]
Text = Annotated[str, expected("a non-empty string", is_text)]
Sha256 = Annotated[str, expected("64 lower-case hexadecimal digits", is_sha256)]
# Both need the context ``{"class_names": (...)}``; the name comes after the label.
Label = Annotated[int, BeforeValidator(_in_range)]
NameOfLabel = Annotated[str, BeforeValidator(_of_label)]


def validated(
    adapter: TypeAdapter[Any], content: Any, where: str, context: Mapping[str, Any] | None = None
) -> Any:
    """Content of a file as typed values.

    Args:
        adapter: Of the type.
        content: JSON types.
        where: Named in the error.
        context: Class names, for types with labels.

    Returns:
        An object of the type.

    Raises:
        ShardError: Naming the first wrong field, what was expected and what it got.
    """
    try:
        return adapter.validate_python(content, context=dict(context or {}))
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
