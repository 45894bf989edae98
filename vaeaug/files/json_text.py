"""JSON that this package wrote, read again: strictly, because it may have been damaged or made up.

What Python's reader lets pass and its writer, or UTF-8, then fails at is refused: infinite numbers,
halves of surrogate pairs, lists in lists a thousand deep, a key that stands there twice.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

MOST_DEPTH = 100
_SEAL = "sha256"


class JSONTextError(ValueError):
    """A text that is no JSON as we write it. The message does not say where it stood."""


def parse_strict(data: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        JSONTextError: If it is none, or holds what could not be written again.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        value = json.loads(text, object_pairs_hook=_no_doubles, parse_constant=_no_constant)
    except RecursionError:
        raise JSONTextError("lists or objects in one another too deeply") from None
    except ValueError as error:
        raise JSONTextError(str(error)) from error
    _check(value)
    return value


def seal_of(document: Mapping[str, Any], name: str = _SEAL) -> str:
    """SHA-256 of a document without its seal: sorted keys, no spaces, unescaped, in UTF-8."""
    unsealed = {key: value for key, value in document.items() if key != name}
    text = json.dumps(
        unsealed, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(document: Mapping[str, Any]) -> bytes:
    """A JSON file with the hash of its content, so that damage is found."""
    whole = {**document, _SEAL: seal_of(document)}
    return (json.dumps(whole, indent=2, sort_keys=True) + "\n").encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """What `sealed` was given.

    Raises:
        JSONTextError: If it is something else, or was changed.
    """
    document = parse_strict(data)
    if not isinstance(document, dict):
        raise JSONTextError(f"expected an object, got {type(document).__name__}")
    seal, expected = document.pop(_SEAL, None), seal_of(document)
    if seal != expected:
        raise JSONTextError(
            f"it was changed after it was written: expected {_SEAL} {expected}, got "
            f"{str(seal)[:80]!r}"
        )
    return document


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check(value: Any) -> None:
    """Refuse what could not be written again; without recursion, whose depth is what is asked."""
    todo = [(value, 0)]
    while todo:
        node, depth = todo.pop()
        if depth > MOST_DEPTH:
            raise JSONTextError(f"expected at most {MOST_DEPTH} lists and objects in one another")
        if isinstance(node, dict):
            todo += ((item, depth + 1) for pair in node.items() for item in pair)
        elif isinstance(node, list):
            todo += ((item, depth + 1) for item in node)
        elif isinstance(node, float) and not math.isfinite(node):
            raise JSONTextError("expected finite numbers, got one that is too large")
        elif isinstance(node, str):
            try:
                node.encode()
            except UnicodeEncodeError as error:
                raise JSONTextError(f"expected text in UTF-8, got {node[:80]!r}") from error
