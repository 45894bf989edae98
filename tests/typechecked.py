"""The type checker of the tests: beartype, where it understands a function's hints."""

import inspect
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype, roar

# An int is a float, as for every static checker (PEP 484).
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def typechecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and results; a protocol that cannot be checked leaves a function as it is."""
    try:
        return _checked(function)
    except roar.BeartypeDecorHintException:
        return function


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without the checks of its hints, which would come before those of its own."""
    return inspect.unwrap(function)
