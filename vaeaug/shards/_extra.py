"""Validation of the parts of a manifest's `gate` and `extra` that this package relies on."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from vaeaug.memory import require_memory
from vaeaug.shards._checked import is_count, is_number, list_of, mapping_of
from vaeaug.shards._format import ShardError, is_int

Checks = Mapping[str, tuple[str, Callable[[Any], bool]]]

# Key of the samples that are left out: rows by the path of their shard.
EXCLUDED = "excluded"
_VERDICTS = ("helps", "does not help", "unsure")


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value < 1


def _is_excluded(value: Any) -> bool:
    """Whether rows by shard ascend, and none is empty."""
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(
            list_of(is_count)(rows)
            and len(rows) > 0
            and all(a < b for a, b in itertools.pairwise(rows))
            for rows in value.values()
        )
    )


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


_COUNT = ("an integer >= 0", is_count)
_STRING = ("a string", _is_string)
_OBJECT = ("an object", _is_object)
_SHARE = ("a number in [0, 1)", _is_share)
_BOOL = ("true or false", _is_bool)
_GATE: Checks = {
    "verdict": (f"one of {', '.join(_VERDICTS)}", lambda v: v in _VERDICTS),
    "sentence": _STRING,
    "warnings": ("a list of strings", list_of(_is_string)),
}
_EXTRA: Checks = {
    "recipe": _OBJECT,
    "sample_rate": ("an integer >= 1", lambda v: is_int(v) and v >= 1),
    "search": _OBJECT,
    "plan": ("a list of objects", list_of(_is_object)),
    "samplers": ("an object of strings", mapping_of(_is_string)),
    EXCLUDED: ("an object of ascending row numbers by shard", _is_excluded),
}
_PLAN: Checks = {
    **dict.fromkeys(("label", "real", "size", "target_count", "n_synthetic"), _COUNT),
    "share": _SHARE,
    "name": _STRING,
    "reason": _STRING,
}
_RECIPE: Checks = {
    "share": _SHARE,
    "classes": ("all or rare", lambda v: v in ("all", "rare")),
    "soft": _BOOL,
    "weight": ("a number in (0, 1]", lambda v: is_number(v) and 0 < v <= 1),
    "separate_batch_norm": _BOOL,
    "real_only_last": ("a number in [0, 1]", lambda v: is_number(v) and 0 <= v <= 1),
}
_SEARCH: Checks = {"sentence": _STRING, "seed": ("an integer", is_int)}


def check_gate(gate: Any, where: str) -> None:
    """Reject an evaluation result whose verdict could not be shown.

    Args:
        gate: "not evaluated", or the result.
        where: Source of the manifest, named in errors.

    Raises:
        ShardError: If a field is wrong; the message names it, the expected and the actual value.
    """
    if isinstance(gate, Mapping):
        _check(gate, _GATE, f"{where}: gate")


def check_extra(extra: Mapping[str, Any], where: str) -> None:
    """Reject a recipe, plan, search or list of samplers that could not be followed or shown.

    Args:
        extra: ``extra`` of a manifest.
        where: Source of the manifest, named in errors.

    Raises:
        ShardError: If a field is wrong; the message names it, the expected and the actual value.
    """
    _check(extra, _EXTRA, f"{where}: extra")
    plan = extra.get("plan", [])
    for i, row in enumerate(plan):
        _check(row, _PLAN, f"{where}: extra.plan[{i}]")
    total = sum(row.get("target_count", 0) for row in plan)
    # Merging needs memory for every image of the plan.
    require_memory(16 * total, where, f"extra.plan of {total:,} images", ShardError)
    _check(extra.get("recipe", {}), _RECIPE, f"{where}: extra.recipe")
    _check(extra.get("search", {}), _SEARCH, f"{where}: extra.search")


def _check(document: Mapping[str, Any], checks: Checks, where: str) -> None:
    for name, (description, fits) in checks.items():
        if name in document and not fits(document[name]):
            value = str(document[name])[:200]
            raise ShardError(f"{where}.{name}: expected {description}, got {value!r}")
