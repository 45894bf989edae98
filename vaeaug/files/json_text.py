"""Strict reading of JSON that this package wrote, because it may be damaged or forged.

Content that Python's reader accepts but its writer, or UTF-8, cannot represent is rejected:
infinite numbers, unpaired surrogates and very deep nesting. A repeated key is rejected too.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

MOST_DEPTH = 100
_SEAL = "sha256"


class JSONTextError(ValueError):
    """A text is not JSON as this package writes it. The message does not name the file."""


def parse_strict(data: bytes | str) -> Any:
    """Parse a JSON text.

    Args:
        data: The text, as bytes in UTF-8 or as a string.

    Returns:
        Its value.

    Raises:
        JSONTextError: If it is not JSON, or has content that cannot be written.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_reject_constant)
    except RecursionError:
        raise JSONTextError("lists or objects are nested too deeply") from None
    except ValueError as error:
        raise JSONTextError(str(error)) from error
    _check(value)
    return value


def seal_of(document: Mapping[str, Any], name: str = _SEAL) -> str:
    """Hash a document without its seal: sorted keys, no spaces, unescaped, in UTF-8.

    Args:
        document: JSON types.
        name: Key of the seal.

    Returns:
        SHA-256 in lower-case hexadecimal digits.
    """
    unsealed = {key: value for key, value in document.items() if key != name}
    text = json.dumps(
        unsealed, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(document: Mapping[str, Any], *, sort_keys: bool = True) -> bytes:
    """Serialise a document with the hash of its content, so that damage is detected.

    Args:
        document: JSON types.
        sort_keys: False keeps the order of the keys, on which the hash does not depend.

    Returns:
        The content of the file.
    """
    complete = {**document, _SEAL: seal_of(document)}
    return (json.dumps(complete, indent=2, sort_keys=sort_keys) + "\n").encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """Parse a document that `sealed` serialised.

    Args:
        data: Content of the file.

    Returns:
        The document.

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


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check(value: Any) -> None:
    """Reject content that cannot be written; iteratively, because the nesting may be deep."""
    pending = [(value, 0)]
    while pending:
        node, depth = pending.pop()
        if depth > MOST_DEPTH:
            raise JSONTextError(f"expected at most {MOST_DEPTH} nested lists and objects")
        if isinstance(node, dict):
            pending += ((item, depth + 1) for pair in node.items() for item in pair)
        elif isinstance(node, list):
            pending += ((item, depth + 1) for item in node)
        elif isinstance(node, float) and not math.isfinite(node):
            raise JSONTextError("expected finite numbers, got one that is too large")
        elif isinstance(node, str):
            try:
                node.encode()
            except UnicodeEncodeError as error:
                raise JSONTextError(f"expected text in UTF-8, got {node[:80]!r}") from error
