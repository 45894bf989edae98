"""Views of an evaluation for the page: the verdict, its arms, the search and three checks."""

from collections.abc import Mapping, Sequence
from typing import Any

from vaeaug.report.charts import Scale
from vaeaug.report.document import (
    Arm,
    ClassPart,
    Comparison,
    Fidelity,
    Gate,
    Prediction,
    Privacy,
    Recall,
    Search,
    Shortcut,
)
from vaeaug.report.headline import Headline, Outlook, headline
from vaeaug.report.words import (
    NONE,
    count,
    duration,
    num,
    pct,
    sentence,
    several,
    whole,
    with_minus,
)

# Maximum number of rows and columns of a table, which keeps the page below five megabytes.
MAX_ROWS = 150
MAX_ARMS = 16

NOT_EVALUATED = "Not evaluated: it is not known whether this data helps"
# Word, class of the style sheet, and icon: a tick, a cross, a question mark or a dash, so that the
# verdict does not depend on colour alone.
_VERDICTS = {
    "helps": ("Helps", "helps", "M8.5 15.5 13 20 21.5 10.5"),
    "does not help": ("Does not help", "harms", "M10 10 20 20M20 10 10 20"),
    "unsure": (
        "Cannot tell yet",
        "unsure",
        "M11 12a4 4 0 1 1 5.8 3.6c-1.2.6-1.8 1.1-1.8 2.2M15 22v.1",
    ),
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


def headline_of(gate: Gate) -> Headline:
    """Return the headline of an evaluation.

    Args:
        gate: The evaluation.

    Returns:
        The headline; that of an earlier version, which said more in one sentence, as it was.
    """
    first = gate.comparisons[0] if gate.comparisons else None
    if gate.reason is None or gate.verdict not in _VERDICTS:
        word = _VERDICTS.get(gate.verdict, _VERDICTS["unsure"])[0]
        said = sentence(gate.sentence) if gate.sentence else ""
        return Headline(word, said)
    ends = None if first is None else (first.difference, first.low, first.high)
    known = None if ends is None or None in ends else ends
    outlook = None if gate.outlook is None else Outlook(**vars(gate.outlook))
    return headline(
        gate.verdict,
        difference=known,  # type: ignore[arg-type]
        baseline="" if first is None else first.baseline,
        n_splits=int(gate.n_splits or 0),
        reason=gate.reason,
        outlook=outlook,
    )


def verdict(gate: Gate | None) -> dict[str, str]:
    """Return the verdict at the top of the page.

    Args:
        gate: The evaluation; None if there is none.

    Returns:
        ``word``, ``kind`` (a class of the style sheet), ``icon``, ``line`` (the word, and after it
        the number or the reason) and ``detail``.
    """
    if gate is None:
        word, kind, icon = _UNKNOWN
        line, detail = NOT_EVALUATED, ""
    else:
        word, kind, icon = _VERDICTS.get(gate.verdict, _VERDICTS["unsure"])
        said = headline_of(gate)
        line, detail = with_minus(said.line), with_minus(said.detail)
    rest = line.removeprefix(word).removeprefix(":").strip()
    return {
        "word": word,
        "kind": kind,
        "icon": icon,
        "line": line,
        "rest": rest,
        "detail": detail,
    }


def how_measured(gate: Gate) -> str:
    """Describe the evaluation in one sentence.

    Args:
        gate: The evaluation.

    Returns:
        The sentence.
    """
    if gate.n_splits == 0:
        return (
            "The search found no recipe that beats training without synthetic images, so none was "
            "left to measure."
        )
    text = "Classifiers were trained with and without the synthetic images"
    if gate.n_splits is not None:
        text += f" on {several(gate.n_splits, 'split', 'splits')} of the real images"
    details = [
        gate.probe,
        "" if gate.steps is None else f"{count(gate.steps)} steps each",
        "" if gate.seconds is None else f"{duration(gate.seconds)} in all",
    ]
    known = ", ".join(filter(None, details))
    return (
        text
        + " and judged on real images held out of their training"
        + (f" ({known})." if known else ".")
    )


def confidence(gate: Gate | Prediction) -> str:
    """Return the name of the intervals with their confidence level.

    Args:
        gate: The evaluation, or a prediction.

    Returns:
        Text such as "95 % interval".
    """
    return "interval" if gate.confidence is None else f"{100 * gate.confidence:g} % interval"


def forest(gate: Gate) -> dict[str, Any] | None:
    """Return the differences between arms on one scale, with zero and the minimum effect.

    Args:
        gate: The evaluation.

    Returns:
        Rows, scale and note; None without comparisons.
    """
    ends = [end for row in gate.comparisons for end in (row.difference, row.low, row.high)]
    scale = Scale.over([*ends, 0.0, gate.min_effect])
    if not gate.comparisons or scale is None:
        return None
    kinds = {name: kind for name, (_, kind, _) in _VERDICTS.items()}
    rows = [{**vars(row), "kind": kinds.get(row.verdict, "unknown")} for row in gate.comparisons]
    note = f"Lines are the {confidence(gate)}"
    note += f" ({gate.interval})." if gate.interval else "."
    tested = [_p_value(row) for row in gate.comparisons if row.p_value is not None]
    if tested:
        note += " " + sentence(", ".join(tested))
    return {"rows": rows, "scale": scale, "min_effect": gate.min_effect, "note": note}


def arms(gate: Gate) -> dict[str, Any]:
    """Return the table of arms.

    Args:
        gate: The evaluation.

    Returns:
        Its columns, the ``rows`` of the trainings that the verdict is about, and the others,
        ``folded``; each row names the columns in which it is best.
    """
    shown = gate.arms[:MAX_ARMS]
    keys = [key for arm in shown for key in arm.metrics]
    # Known metrics in their order, followed by all others.
    ordered = [key for key in _METRICS if key in keys]
    ordered += [key for key in dict.fromkeys(keys) if key not in _METRICS]
    columns = [
        (key, *_METRICS.get(key, (key.replace("_", " ").capitalize(), None))) for key in ordered
    ]
    best: dict[str, float] = {}
    for key in ordered:
        # A check, such as training on synthetic images alone, does not compete with the others.
        means = [arm.mean(key) for arm in shown if arm.kind != "check"]
        known = {mean for mean in means if mean is not None}
        if len(known) > 1:
            best[key] = min(known) if key in _LOWER_IS_BETTER else max(known)
    rows = [
        {
            "name": arm.name,
            "kind": arm.kind,
            "kind_words": _KINDS.get(arm.kind, arm.kind),
            "metrics": arm.metrics,
            "best": [key for key in best if arm.kind != "check" and arm.mean(key) == best[key]],
        }
        for arm in shown
    ]
    baseline = _best_baseline(gate, shown)
    told = {arm.name for arm in shown if arm.kind == "merged"}
    told |= {"none"} if baseline is None else {"none", baseline.name}
    folded = [row for row in rows if row["name"] not in told]
    if len(folded) < 2:
        return {"columns": columns, "rows": rows, "folded": []}
    return {
        "columns": columns,
        "rows": [row for row in rows if row["name"] in told],
        "folded": folded,
    }


def recall(gate: Gate, classes: Sequence[ClassPart]) -> dict[str, Any] | None:
    """Return the recall of each class: of the best baseline and the merged arms, and of all arms.

    Args:
        gate: The evaluation.
        classes: The classes of the run, to find the rarest if there are too many to show.

    Returns:
        Rows, scale and table; None if no recall was measured.
    """
    measured = [arm for arm in gate.arms[:MAX_ARMS] if arm.recall]
    baseline = _best_baseline(gate, measured)
    shown = [] if baseline is None else [baseline]
    shown += [arm for arm in measured if arm.kind == "merged"][: 4 - len(shown)]
    if not shown:
        return None
    real = {row.name: row.real for row in classes}
    cells = {arm.name: {cell.name: cell for cell in arm.recall} for arm in measured}
    names = list(dict.fromkeys(name for by_class in cells.values() for name in by_class))
    selected = names
    if len(names) > MAX_ROWS:
        selected = sorted(names, key=lambda name: real.get(name, 0))[:MAX_ROWS]
    rows = [_recall_row(name, shown, cells) for name in selected]
    table = [
        {"name": name, "cells": [cells[arm.name].get(name, Recall()) for arm in measured]}
        for name in selected
    ]
    ends = [
        end for row in rows for cell in row["cells"] for end in (cell.value, cell.low, cell.high)
    ]
    scale = Scale.over(ends, within=(0.0, 1.0))
    if scale is None:
        return None
    return {
        "rows": rows,
        "table": table,
        "arms": [arm.name for arm in measured],
        "series": [arm.name for arm in shown],
        "scale": scale,
        "height": 11 * len(shown) + 7,
        "left_out": len(names) - len(selected),
    }


def prediction(document: Prediction | None) -> dict[str, Any] | None:
    """Return the prediction from one split.

    Args:
        document: The prediction; None if there is none.

    Returns:
        Its fields, ``gains`` of all and of the rare classes on one ``scale``, and the ``rows`` of
        the rare classes, or of all where none is rare; None without a prediction.
    """
    if document is None:
        return None
    titles = (f"Gain in {document.metric}", "Gain in recall of the rare classes")
    pairs = zip(titles, (document.gain, document.rare_gain), strict=True)
    gains = [{"title": title, **vars(gain)} for title, gain in pairs if gain is not None]
    ends = [gain[end] for gain in gains for end in ("mean", "low", "high")]
    classes = [row for row in document.classes if row.rare] or document.classes
    note = f"Lines are the {confidence(document)}"
    return {
        **vars(document),
        "gains": gains,
        "scale": Scale.over([*ends, 0.0]),
        "note": note + (f", {document.interval}." if document.interval else "."),
        "rows": classes[:MAX_ROWS],
        "title": "Recall of the rare classes" if classes != document.classes else "Recall",
        "left_out": max(0, len(classes) - MAX_ROWS),
    }


def search(document: Search | None) -> dict[str, Any] | None:
    """Return the rounds of a search, best candidate first.

    Args:
        document: The search; None if there was none.

    Returns:
        The sentence, the choice and the rounds; None without a search.
    """
    if document is None:
        return None
    rounds: list[dict[str, Any]] = []
    for number, part in enumerate(document.rounds):
        candidates = sorted(
            part.candidates,
            key=lambda row: -1.0 if row.score is None else row.score,
            reverse=True,
        )[:MAX_ROWS]
        ends = [end for row in candidates for end in (row.score, row.low, row.high)]
        if (scale := Scale.over(ends, n_ticks=4)) is None:
            continue
        is_last = number == len(document.rounds) - 1
        rows = [
            {
                **vars(row),
                "chosen": is_last and row.name == document.chosen,
                "fate": "kept" if row.kept else "dropped",
            }
            for row in candidates
        ]
        details = [
            several(len(rows), "candidate", "candidates"),
            "" if part.steps is None else f"{count(part.steps)} steps",
            "" if part.splits is None else several(part.splits, "split", "splits"),
        ]
        title = f"Round {(len(rounds) if part.round is None else part.round) + 1}"
        note = ", ".join(filter(None, details))
        rounds.append({"title": title, "note": note, "rows": rows, "scale": scale})
    return {"sentence": document.sentence, "chosen": document.chosen, "rounds": rounds}


def with_rows(document: Fidelity | Privacy | None) -> dict[str, Any] | None:
    """Return fidelity or privacy, with a separate scale for each metric.

    Args:
        document: The measurement; None if there is none.

    Returns:
        Its fields and ``rows``; None without a measurement.
    """
    if document is None:
        return None
    rows = [
        {
            **vars(row),
            "title": row.title or row.name,
            "good": _GOOD.get(row.better, NONE),
            "scale": Scale.over(
                [row.value, row.low, row.high, row.real, row.real_low, row.real_high]
            ),
        }
        for row in document.figures
    ]
    return {**vars(document), "rows": rows}


def shortcut(document: Shortcut | None) -> dict[str, Any] | None:
    """Return the check for a shortcut.

    Args:
        document: The result of the check; None if there is none.

    Returns:
        Its fields, ``pairs`` of a name and a metric, and the synthetic ``shares`` of the classes;
        None without a check.
    """
    if document is None:
        return None
    interval = f"interval {num(document.low)} to {num(document.high)}"
    p_value = document.p_value
    pairs = [
        (
            "Information of “looks synthetic” about the class",
            _nats(document.mutual_information),
            None if document.low is None else interval,
        ),
        ("The same for real images only", _nats(document.real_only), None),
        ("Excess", _nats(document.excess), None if p_value is None else f"p = {num(p_value)}"),
        ("Entropy of the class", _nats(document.label_entropy), None),
        (
            "Detection of synthetic samples",
            num(document.detector_auc),
            "area under the ROC curve; 0.5 is chance level",
        ),
    ]
    shares = sorted(document.synthetic_share.items(), key=lambda item: -(item[1] or 0))[:MAX_ROWS]
    return {
        **vars(document),
        "pairs": [pair for pair in pairs if pair[1] != NONE],
        "shares": [(name, share, whole(share or 0)) for name, share in shares],
    }


def _recall_row(
    name: str, shown: Sequence[Arm], cells: Mapping[str, Mapping[str, Recall]]
) -> dict[str, Any]:
    of_shown = [cells[arm.name].get(name, Recall()) for arm in shown]
    pairs = zip(shown, of_shown, strict=True)
    text = "; ".join(f"{arm.name} {pct(cell.value)} %" for arm, cell in pairs)
    return {
        "name": name,
        "n": next((cell.n for cell in of_shown if cell.n is not None), None),
        "cells": of_shown,
        "label": f"Recall of class {name}: {text}",
    }


def _p_value(row: Comparison) -> str:
    return f"{row.name} p = {num(row.p_value)}"


def _nats(value: float | None) -> str:
    return NONE if value is None else f"{num(value)} nats"


def _best_baseline(gate: Gate, measured: Sequence[Arm]) -> Arm | None:
    """Return the baseline of the first comparison, or the best one by the gate's metric."""
    baselines = [arm for arm in measured if arm.kind == "baseline"]
    compared = next((row.baseline for row in gate.comparisons), None)
    for arm in baselines:
        if arm.name == compared:
            return arm
    key = gate.metric.replace(" ", "_")
    return max(baselines, key=lambda arm: arm.mean(key) or 0.0, default=None)
