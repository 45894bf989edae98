"""YAML of somebody else, as plain values: whatever it holds, it is read at once or refused.

References to anchors are kept, and counted as what they stand for: a few hundred bytes of nested
ones stand for more than any memory holds.
"""

from typing import Any

import yaml

# PyYAML reads some hundred kilobytes a second.
MOST_CHARACTERS = 2**20
NOT_VALID = "not valid YAML"
_MOST_VALUES = 200_000
_MOST_DEPTH = 64


class YAMLTextError(ValueError):
    """A text that is no YAML of plain values. The message does not say where it stood."""


def load_yaml(text: str) -> Any:
    """The values of a YAML text.

    Raises:
        YAMLTextError: If it is none, names a key twice, or stands for more than can be read.
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
    # Dates that are none, numbers of thousands of digits.
    except (ValueError, OverflowError, TypeError, AttributeError) as error:
        raise YAMLTextError(f"{NOT_VALID}: {error}") from None


def _count(node: yaml.Node, counted: dict[int, int], above: tuple[int, ...]) -> int:
    """Values that a node stands for, references followed."""
    here = id(node)
    if here in above:
        raise _error(node, "expected values, got one that holds itself")
    if len(above) >= _MOST_DEPTH:
        raise _error(node, f"expected at most {_MOST_DEPTH} levels of values in one another")
    if here in counted:
        return counted[here]
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _refuse_doubles(node)
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    total = 1 + sum(_count(child, counted, (*above, here)) for child in children)
    if total > _MOST_VALUES:
        raise _error(node, f"expected at most {_MOST_VALUES:,} values, got {total:,} or more")
    counted[here] = total
    return total


def _refuse_doubles(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise _error(key, f"expected each key once, got {key.value[:80]!r} twice")
            seen.add(key.value)


def _error(node: yaml.Node, said: str) -> YAMLTextError:
    return YAMLTextError(f"line {node.start_mark.line + 1}: {said}")
