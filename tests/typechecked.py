"""The type checker of the tests: beartype, where it understands a function's hints."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype, roar

# numpy's numbers are numbers, and an int is a float (PEP 484).
_checked = beartype(
    conf=BeartypeConf(
        hint_overrides=FrozenDict(
            {int: int | np.integer, float: float | int | np.floating | np.integer}
        )
    )
)


def typechecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and results; a protocol that cannot be checked leaves a function as it is."""
    try:
        return _checked(function)
    except roar.BeartypeDecorHintException:
        return function


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without the checks of its hints, which would come before those of its own."""
    return inspect.unwrap(function)
