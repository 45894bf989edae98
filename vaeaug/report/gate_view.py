"""What the page shows of a measurement: the verdict, its arms, the search, the three checks."""

from collections.abc import Mapping, Sequence
from typing import Any

from vaeaug.report.charts import Scale, is_number
from vaeaug.report.words import NONE, count, duration, num, pct, sentence, several, whole

# Rows and columns that a table may have: what keeps the page below five megabytes.
MAX_ROWS = 150
MAX_ARMS = 16

NOT_EVALUATED = "Not evaluated: nobody knows yet whether this data helps"
# Word, class of the style sheet, and the mark in the circle: a tick, a cross, a question mark,
# a dash. Never the colour alone.
_VERDICTS = {
    "helps": ("Helps", "helps", "M8.5 15.5 13 20 21.5 10.5"),
    "does not help": ("Does not help", "harms", "M10 10 20 20M20 10 10 20"),
    "unsure": ("Unsure", "unsure", "M11 12a4 4 0 1 1 5.8 3.6c-1.2.6-1.8 1.1-1.8 2.2M15 22v.1"),
}
_UNKNOWN = ("Not evaluated", "unknown", "M9.5 15H20.5")
_METRICS: dict[str, tuple[str, str | None]] = {
    "balanced_accuracy": ("Balanced accuracy", None),
    "macro_f1": ("Macro F1", None),
    "geometric_mean": ("Geometric mean", "of the recalls"),
    "recall_many": ("Recall, many", "largest classes"),
    "recall_medium": ("Recall, medium", "in between"),
    "recall_few": ("Recall, few", "rarest classes"),
    "calibration_error": ("Calibration error", "lower is better"),
}
_LOWER_IS_BETTER = {"calibration_error"}
_KINDS = {
    "baseline": "without synthetic data",
    "merged": "with synthetic data",
    "check": "a check, not a candidate",
}
_GOOD = {"higher": "higher", "lower": "lower", "half": "near 0.5"}

Json = Mapping[str, Any]


def verdict(gate: Json | None) -> dict[str, str]:
    """Word, look and sentence at the top of the page."""
    if not gate:
        word, kind, icon = _UNKNOWN
        return {"word": word, "kind": kind, "icon": icon, "sentence": NOT_EVALUATED}
    word, kind, icon = _VERDICTS.get(str(gate.get("verdict")), _VERDICTS["unsure"])
    text = sentence(str(gate.get("sentence") or word))
    return {"word": word, "kind": kind, "icon": icon, "sentence": text}


def how_measured(gate: Json) -> str:
    """One sentence on the classifiers that were trained."""
    if gate.get("n_splits") == 0:
        return (
            "The search found no recipe that beats training without synthetic images, so none was "
            "left to measure."
        )
    text = "Classifiers were trained with and without the synthetic images"
    if is_number(gate.get("n_splits")):
        text += f" on {several(gate['n_splits'], 'split', 'splits')} of the real images"
    details = [
        str(gate["probe"]) if gate.get("probe") else "",
        f"{count(gate['steps'])} steps each" if is_number(gate.get("steps")) else "",
        f"{duration(gate['seconds'])} in all" if is_number(gate.get("seconds")) else "",
    ]
    known = ", ".join(each for each in details if each)
    return (
        text
        + " and judged on real images held out of their training"
        + (f" ({known})." if known else ".")
    )


def confidence(gate: Json) -> str:
    """The level of the intervals in words."""
    level = gate.get("confidence")
    return f"{100 * level:g} % interval" if is_number(level) else "interval"


def forest(gate: Json) -> dict[str, Any] | None:
    """The differences between arms, on one scale with zero and the smallest effect that counts."""
    comparisons = gate.get("comparisons") or []
    least = gate.get("min_effect") if is_number(gate.get("min_effect")) else None
    values = [each.get(key) for each in comparisons for key in ("difference", "low", "high")]
    scale = Scale.over([*values, 0.0, least])
    if not comparisons or scale is None:
        return None
    kinds = {name: kind for name, (_, kind, _) in _VERDICTS.items()}
    rows = [
        {
            **dict.fromkeys(("name", "arm", "baseline", "verdict", "difference", "low", "high")),
            **each,
            "kind": kinds.get(str(each.get("verdict")), "unknown"),
        }
        for each in comparisons
    ]
    note = f"Lines are the {confidence(gate)}"
    note += f" ({gate['interval']})." if gate.get("interval") else "."
    tested = [
        f"{each['name']} p = {num(each['p_value'])}"
        for each in comparisons
        if is_number(each.get("p_value"))
    ]
    if tested:
        note += " " + sentence(", ".join(tested))
    return {"rows": rows, "scale": scale, "min_effect": least, "note": note}


def arms(gate: Json) -> dict[str, Any]:
    """The table of arms: its columns, its rows, and the best figures of each column."""
    found = (gate.get("arms") or [])[:MAX_ARMS]
    keys = [key for each in found for key in each.get("metrics") or {}]
    # Known metrics in their order, then what else there is.
    ordered = [key for key in _METRICS if key in keys]
    ordered += [key for key in dict.fromkeys(keys) if key not in _METRICS]
    columns = [
        (key, *_METRICS.get(key, (key.replace("_", " ").capitalize(), None))) for key in ordered
    ]
    best: dict[str, float] = {}
    for key in ordered:
        # A check, such as training on synthetic images alone, is no way that one would choose.
        means = [_mean(each, key) for each in found if each.get("kind") != "check"]
        known = [mean for mean in means if mean is not None]
        if len(set(known)) > 1:
            best[key] = min(known) if key in _LOWER_IS_BETTER else max(known)
    rows = [
        {
            "name": each.get("name"),
            "kind": each.get("kind"),
            "kind_words": _KINDS.get(str(each.get("kind")), each.get("kind")),
            "metrics": each.get("metrics") or {},
            "best": [
                key for key in best if each.get("kind") != "check" and _mean(each, key) == best[key]
            ],
        }
        for each in found
    ]
    return {"columns": columns, "rows": rows}


def recall(gate: Json, classes: Sequence[Json]) -> dict[str, Any] | None:
    """Recall of each class: the best baseline beside the merged arms, and a table of all arms."""
    found = [each for each in (gate.get("arms") or [])[:MAX_ARMS] if each.get("recall")]
    baseline = _best_baseline(gate, found)
    shown = [each for each in (baseline,) if each is not None]
    shown += [each for each in found if each.get("kind") == "merged"][: 4 - len(shown)]
    if not shown:
        return None
    real = {each.get("name"): each.get("real") or 0 for each in classes}
    cells = {each["name"]: {cell["class"]: cell for cell in each["recall"]} for each in found}
    names = list(dict.fromkeys(name for by_class in cells.values() for name in by_class))
    kept = names
    if len(names) > MAX_ROWS:
        kept = sorted(names, key=lambda name: real.get(name, 0))[:MAX_ROWS]
    rows, every = [], []
    for name in kept:
        of_shown = [cells[each["name"]].get(name) or {} for each in shown]
        text = "; ".join(
            f"{each['name']} {pct(cell.get('value'))} %"
            for each, cell in zip(shown, of_shown, strict=True)
        )
        rows.append(
            {
                "name": name,
                "n": next((cell["n"] for cell in of_shown if is_number(cell.get("n"))), None),
                "cells": of_shown,
                "label": f"Recall of class {name}: {text}",
            }
        )
        every.append(
            {"name": name, "cells": [cells[each["name"]].get(name) or {} for each in found]}
        )
    scale = Scale.over(
        [
            cell.get(key)
            for row in rows
            for cell in row["cells"]
            for key in ("value", "low", "high")
        ],
        within=(0.0, 1.0),
    )
    if scale is None:
        return None
    return {
        "rows": rows,
        "table": every,
        "arms": [each["name"] for each in found],
        "series": [each["name"] for each in shown],
        "scale": scale,
        "height": 11 * len(shown) + 7,
        "left_out": len(names) - len(kept),
    }


def search(found: Json | None) -> dict[str, Any] | None:
    """The rounds of a search, best candidate first."""
    if not found:
        return None
    rounds: list[dict[str, Any]] = []
    for each in found.get("rounds") or []:
        candidates = sorted(
            each.get("candidates") or [],
            key=lambda one: one["score"] if is_number(one.get("score")) else -1.0,
            reverse=True,
        )[:MAX_ROWS]
        values = [one.get(key) for one in candidates for key in ("score", "low", "high")]
        last = each is found["rounds"][-1]
        rows = [
            {
                **dict.fromkeys(("score", "low", "high")),
                **one,
                "kept": bool(one.get("kept")),
                "chosen": last and one.get("name") == found.get("chosen"),
                "fate": "kept" if one.get("kept") else "dropped",
            }
            for one in candidates
        ]
        if (scale := Scale.over(values, n_ticks=4)) is None:
            continue
        steps, splits = each.get("steps"), each.get("splits")
        known = [
            several(len(rows), "candidate", "candidates"),
            f"{count(steps)} steps" if is_number(steps) else "",
            several(splits, "split", "splits") if is_number(splits) else "",
        ]
        number = each.get("round")
        title = f"Round {number + 1}" if isinstance(number, int) else f"Round {len(rounds) + 1}"
        note = ", ".join(one for one in known if one)
        rounds.append({"title": title, "note": note, "rows": rows, "scale": scale})
    return {"sentence": found.get("sentence"), "chosen": found.get("chosen"), "rounds": rounds}


def with_rows(found: Json | None) -> dict[str, Any] | None:
    """Fidelity or privacy with a row for each figure, each on a scale of its own."""
    if not found:
        return None
    rows = []
    for each in found.get("figures") or []:
        values = [
            each.get(key) for key in ("value", "low", "high", "real", "real_low", "real_high")
        ]
        rows.append(
            {
                **dict.fromkeys(("value", "low", "high", "real", "real_low", "real_high")),
                **each,
                "title": each.get("title") or each.get("name"),
                "good": _GOOD.get(str(each.get("better")), NONE),
                "scale": Scale.over(values),
            }
        )
    return {**found, "rows": rows}


def shortcut(found: Json | None) -> dict[str, Any] | None:
    """The check for a clue, as pairs of a name and a figure."""
    if not found:
        return None
    between = (
        f"interval {num(found.get('low'))} to {num(found.get('high'))}"
        if is_number(found.get("low"))
        else None
    )
    p_value = found.get("p_value")
    pairs = [
        (
            "What “looks synthetic” tells of the class",
            _nats(found.get("mutual_information")),
            between,
        ),
        ("The same, among real images alone", _nats(found.get("real_only")), None),
        (
            "Excess",
            _nats(found.get("excess")),
            f"p = {num(p_value)}" if is_number(p_value) else None,
        ),
        ("All there is to know of the class", _nats(found.get("label_entropy")), None),
        (
            "Synthetic told from real",
            num(found.get("detector_auc")),
            "area under the ROC curve; 0.5 is not at all",
        ),
    ]
    shares = found.get("synthetic_share") or {}
    listed = sorted(shares.items(), key=lambda item: -(item[1] or 0))[:MAX_ROWS]
    return {
        **found,
        "pairs": [pair for pair in pairs if pair[1] != NONE],
        "shares": [(name, share, whole(share or 0)) for name, share in listed],
    }


def _nats(value: Any) -> str:
    return f"{num(value)} nats" if is_number(value) else NONE


def _mean(arm: Json, key: str) -> float | None:
    value = ((arm.get("metrics") or {}).get(key) or {}).get("mean")
    return value if is_number(value) else None


def _best_baseline(gate: Json, found: Sequence[Json]) -> Json | None:
    """The one of the first comparison, else the best by the metric of the gate."""
    baselines = [each for each in found if each.get("kind") == "baseline"]
    wanted = next((each.get("baseline") for each in gate.get("comparisons") or []), None)
    for each in baselines:
        if each.get("name") == wanted:
            return each
    key = str(gate.get("metric") or "balanced accuracy").replace(" ", "_")
    return max(baselines, key=lambda each: _mean(each, key) or 0.0, default=None)
