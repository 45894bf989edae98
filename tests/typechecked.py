"""The type checker of the tests: beartype, where it understands a function's hints."""

import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import is_dataclass
from types import FunctionType, SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype, roar
from jaxtyping import TypeCheckError, jaxtyped
from jaxtyping import config as jaxtyping_config

# numpy's numbers are numbers, and an int is a float (PEP 484).
_checked = beartype(
    conf=BeartypeConf(
        violation_type=TypeCheckError,
        hint_overrides=FrozenDict(
            {int: int | np.integer, float: float | int | np.floating | np.integer}
        ),
    )
)


def typechecked(function: FunctionType) -> Callable[..., Any]:
    """Check arguments and results.

    A hint that cannot be read here, as of a name that only a type checker imports, is left out; a
    protocol that cannot be checked leaves a function as it is.
    """
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    for name, hint in function.__annotations__.items():
        one = SimpleNamespace(__annotations__={name: hint})
        with suppress(Exception):
            copy.__annotations__ |= get_type_hints(one, function.__globals__, include_extras=True)
    try:
        return _checked(copy)
    except roar.BeartypeDecorHintException:
        return function


def contract(of: Any = None, **_: Any) -> Any:
    """What `jaxtyping.jaxtyped` does to functions and dataclasses, in a third of its time.

    `jaxtyped` binds the arguments by their signature for its messages, and checks them once more
    with the result; here a call is checked once. A function that is never called is never prepared.
    """
    if of is None:
        return contract
    if inspect.isclass(of):
        if is_dataclass(of) and not hasattr(of.__init__, "__wrapped__"):
            of.__init__ = contract(of.__init__)
        return of
    if inspect.isgeneratorfunction(of):  # its arguments are checked when it is called, not later
        return jaxtyped(of, typechecker=typechecked)
    checked = None

    @functools.wraps(of)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        if jaxtyping_config.jaxtyping_disable:
            return of(*args, **kwargs)
        if checked is None:
            checked = typechecked(of)
        with jaxtyped("context"):  # the axes of one call, in arguments and result
            return checked(*args, **kwargs)

    return call


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without the checks of its hints, which would come before those of its own."""
    return inspect.unwrap(function)
