"""The parts of a manifest's `gate` and `extra` that this package itself goes by."""

from collections.abc import Callable, Mapping
from typing import Any

from vaeaug.memory import require_memory
from vaeaug.shards._format import ShardError

_VERDICTS = ("helps", "does not help", "unsure")


def check_gate(gate: Any, where: str) -> None:
    """Refuse a verdict that is none.

    Raises:
        ShardError: Naming the field, what was expected and what it got.
    """
    if isinstance(gate, Mapping):
        checks = {
            "verdict": (f"one of {', '.join(_VERDICTS)}", lambda v: v in _VERDICTS),
            "sentence": ("a text", _is_text),
            "warnings": ("a list of texts", _are_texts),
        }
        _check(gate, checks, f"{where}: gate")


def check_extra(extra: Mapping[str, Any], where: str) -> None:
    """Refuse a recipe, plan, search or list of samplers that could not be followed or shown.

    Raises:
        ShardError: Naming the field, what was expected and what it got.
    """
    kinds: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "recipe": ("an object", _is_object),
        "search": ("an object", _is_object),
        "plan": ("a list of objects", lambda v: isinstance(v, list) and all(map(_is_object, v))),
        "samplers": ("an object of texts", lambda v: _is_object(v) and _are_texts([*v.values()])),
    }
    _check(extra, kinds, f"{where}: extra")
    counts = ("an integer >= 0", lambda v: _is_int(v) and v >= 0)
    row: dict[str, tuple[str, Callable[[Any], bool]]] = {
        **dict.fromkeys(("label", "real", "size", "target_count", "n_synthetic"), counts),
        "share": ("a number in [0, 1)", lambda v: _is_number(v) and 0 <= v < 1),
        "name": ("a text", _is_text),
        "reason": ("a text", _is_text),
    }
    plan = extra.get("plan") or []
    for i, each in enumerate(plan):
        _check(each, row, f"{where}: extra.plan[{i}]")
    total = sum(each.get("target_count") or 0 for each in plan)
    # A merge has an entry for every image that the plan wants.
    require_memory(16 * total, where, f"extra.plan of {total:,} images", ShardError)
    recipe = {
        "share": ("a number in [0, 1)", lambda v: _is_number(v) and 0 <= v < 1),
        "classes": ("all or rare", lambda v: v in ("all", "rare")),
        "soft": ("true or false", _is_bool),
        "weight": ("a number in (0, 1]", lambda v: _is_number(v) and 0 < v <= 1),
        "separate_batch_norm": ("true or false", _is_bool),
        "real_only_last": ("a number in [0, 1]", lambda v: _is_number(v) and 0 <= v <= 1),
    }
    _check(extra.get("recipe") or {}, recipe, f"{where}: extra.recipe")
    search = {"sentence": ("a text", _is_text), "seed": ("an integer", _is_int)}
    _check(extra.get("search") or {}, search, f"{where}: extra.search")


def _check(
    document: Mapping[str, Any],
    checks: Mapping[str, tuple[str, Callable[[Any], bool]]],
    where: str,
) -> None:
    for name, (what, fits) in checks.items():
        if name in document and not fits(document[name]):
            raise ShardError(f"{where}.{name}: expected {what}, got {str(document[name])[:200]!r}")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
