"""Safe reading of untrusted YAML as plain values, in bounded time and memory.

References to anchors are allowed, and counted as the values that they expand to: a few hundred
bytes of nested references can expand to more than any memory holds.
"""

from typing import Any

import yaml

# PyYAML reads some hundred kilobytes per second.
MOST_CHARACTERS = 2**20
NOT_VALID = "not valid YAML"
_MOST_VALUES = 200_000
_MOST_DEPTH = 64


class YAMLTextError(ValueError):
    """A text is not YAML of plain values. The message does not name the file."""


def load_yaml(text: str) -> Any:
    """Parse a YAML text.

    Args:
        text: The text.

    Returns:
        Its values.

    Raises:
        YAMLTextError: If it is not YAML, repeats a key, or expands to too many values.
    """
    if len(text) > MOST_CHARACTERS:
        raise YAMLTextError(
            f"expected at most {MOST_CHARACTERS:,} characters of YAML, got {len(text):,}"
        )
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, ())
        return loader.construct_document(node)
    except YAMLTextError:
        raise
    except yaml.YAMLError as error:
        raise YAMLTextError(f"{NOT_VALID}: {error}") from None
    except RecursionError:
        raise YAMLTextError(f"{NOT_VALID}: nested too deeply") from None
    # Invalid dates, or numbers with thousands of digits.
    except (ValueError, OverflowError, TypeError, AttributeError) as error:
        raise YAMLTextError(f"{NOT_VALID}: {error}") from None


def _count(node: yaml.Node, counted: dict[int, int], ancestors: tuple[int, ...]) -> int:
    """Count the values of a node, including those of references."""
    node_id = id(node)
    if node_id in ancestors:
        raise _error(node, "expected values, got one that contains itself")
    if len(ancestors) >= _MOST_DEPTH:
        raise _error(node, f"expected at most {_MOST_DEPTH} levels of nested values")
    if node_id in counted:
        return counted[node_id]
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _reject_repeated_keys(node)
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    total = 1 + sum(_count(child, counted, (*ancestors, node_id)) for child in children)
    if total > _MOST_VALUES:
        raise _error(node, f"expected at most {_MOST_VALUES:,} values, got {total:,} or more")
    counted[node_id] = total
    return total


def _reject_repeated_keys(node: yaml.MappingNode) -> None:
    keys: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in keys:
                raise _error(key, f"expected each key once, got {key.value[:80]!r} twice")
            keys.add(key.value)


def _error(node: yaml.Node, message: str) -> YAMLTextError:
    return YAMLTextError(f"line {node.start_mark.line + 1}: {message}")
