"""Views of a run for the page: counts, recipe, screening, fit and origin."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vaeaug.report.document import ClassMeasures, ClassPart, Document, MergedClass
from vaeaug.report.words import (
    NONE,
    count,
    kind,
    num,
    of_kind,
    one_of,
    pct,
    points,
    several,
    total,
    with_minus,
)
from vaeaug.shards import how_to_evaluate

MAX_ROWS = 150
# Rows of a longer table that are not folded.
SHORT_TABLE = 12
# Maximum number of characters of a value in the tables of keys; report.json has all of it.
_MAX_VALUE = 600
_MAX_KEYS = 400

Tile = tuple[str, str, str | None]


def evaluate_command(document: Document) -> str:
    """Return the command that evaluates this run.

    Args:
        document: The report.

    Returns:
        The command; OUT stands for the run folder, which may be moved.
    """
    return how_to_evaluate(document.provenance.data.source, document.out)


def merge_command(document: Document) -> str | None:
    """Return the command that merges this run with its real data.

    Args:
        document: The report.

    Returns:
        The command, or None if the data came from no path.
    """
    command = evaluate_command(document)
    if not command.startswith("vaeaug evaluate "):
        return None
    return command.replace("evaluate", "merge", 1) + " --to merged.h5"


def tiles(document: Document) -> list[Tile]:
    """Return the key numbers at the top of the page.

    Args:
        document: The report.

    Returns:
        (name, value, note) of each.
    """
    classes = document.classes
    real, accepted = total(classes, "real"), total(classes, "accepted")
    share = f"{pct(accepted / (real + accepted))} % of both" if real + accepted else None
    shown: list[Tile] = [
        (f"Real {kind(document)}", count(real), several(len(classes), "class", "classes")),
        (f"Synthetic {kind(document)}", count(accepted), share),
    ]
    if candidates := total(classes, "candidates"):
        passed = f"{pct(accepted / candidates)} %"
        shown.append(("Passed screening", passed, "of all candidates"))
    # The first comparison is the headline's.
    for comparison in document.gate.comparisons[1:2] if document.gate else ():
        between = f"points, {points(comparison.low)} to {points(comparison.high)}"
        shown.append((f"Gain at {comparison.name}", points(comparison.difference), between))
    return shown


def cautions(document: Document) -> list[tuple[str, str]]:
    """Return the warnings beside the verdict: gate, copying, shortcuts, training.

    Args:
        document: The report.

    Returns:
        (text, section of the page with the measurement) of each.
    """
    gate, found = document.gate, []
    if gate is not None:
        found += [(line, "gate") for line in gate.warnings]
        if gate.converged is False and not any("converged" in line for line in gate.warnings):
            found.append(
                (
                    "the classifiers had not converged when they were compared; more steps could "
                    "change the answer",
                    "gate",
                )
            )
    if document.privacy and document.privacy.warning:
        found.append((f"copying: {document.privacy.warning}", "privacy"))
    if document.shortcut and document.shortcut.warning:
        found.append((f"shortcut: {document.shortcut.warning}", "shortcut"))
    if document.diagnostics:
        undertrained = [
            line for line in document.diagnostics.training if line.startswith("undertrained")
        ]
        lines = [*undertrained, *document.diagnostics.warnings]
        found += [(f"generator: {line}", "generator") for line in lines]
    return [(with_minus(text), section) for text, section in found]


def not_measured(document: Document) -> str:
    """Say in one line what this report has no section for.

    Args:
        document: The report.

    Returns:
        The sentence, or "" if everything was measured.
    """
    parts = {
        "the effect on a classifier": document.gate,
        "likeness to real images": document.fidelity,
        "copies": document.privacy,
        "shortcuts": document.shortcut,
    }
    missing = [name for name, part in parts.items() if part is None]
    if not missing:
        return ""
    return of_kind(f"Not measured: {', '.join(missing)}.", document)


def counts(document: Document) -> dict[str, Any]:
    """Return the images per class before and after the default merge of the run.

    Args:
        document: The report.

    Returns:
        Rows with bars in percent, and the sentence above them.
    """
    classes = document.classes
    merged = {row.name: row for row in document.merged}
    reasons = {row.name: row.reason for row in document.plan}
    after = {row.name: merged.get(row.name) or _used_once(row) for row in classes}
    largest = max((row.together for row in after.values()), default=0)
    shown = rarest(classes)
    rows: list[dict[str, Any]] = []
    for row in shown:
        now = after[row.name]
        bars = {"real": now.real, "synthetic": now.synthetic, "repeated": now.repeated}
        rows.append(
            {
                "name": row.name,
                "real": row.real,
                "accepted": row.accepted,
                "n_synthetic": row.n_synthetic,
                "short": row.fell_short,
                "used": now.synthetic,
                "repeated": now.repeated,
                "total": now.together,
                "before": f"{100 * row.real / max(1, largest):.2f}",
                "bars": [(name, f"{100 * n / max(1, largest):.2f}") for name, n in bars.items()],
                "sampler": document.samplers.get(row.name),
                "reason": reasons.get(row.name),
            }
        )
    sentence = of_kind(_counts_sentence(classes, list(after.values())), document)
    n_first = len(rows) if len(rows) <= SHORT_TABLE + 3 else SHORT_TABLE
    return {
        "rows": rows,
        "n_first": n_first,
        "left_out": len(classes) - len(shown),
        # Values that all classes share are stated once, above the table.
        "has_sampler": len({row["sampler"] for row in rows}) > 1,
        "has_reason": len({row["reason"] for row in rows}) > 1,
        "has_repeated": any(row["repeated"] for row in rows),
        "has_unused": any(row["used"] < row["accepted"] for row in rows),
        "sentence": sentence + _drawn_alike(rows),
    }


def rarest(classes: Sequence[ClassPart]) -> list[ClassPart]:
    """Return the classes that a table shows.

    Args:
        classes: All classes.

    Returns:
        All classes in their order, or the rarest if a table cannot show all.
    """
    if len(classes) <= MAX_ROWS:
        return list(classes)
    return sorted(classes, key=lambda row: row.real)[:MAX_ROWS]


def recipe(document: Document) -> dict[str, Any] | None:
    """Return the recipe for merging.

    Args:
        document: The report.

    Returns:
        A sentence, code, and pairs of a name and a value; None without a recipe.
    """
    chosen = document.recipe
    if chosen is None:
        return None
    origin = {"search": ", the best that the search found", "default": ", the default"}
    sentence = f"Recipe: {chosen.name}{origin.get(chosen.origin, '')}."
    call = f"import vaeaug\n\nmerged = vaeaug.merge(real, {document.out!r})  # as counted above"
    command = merge_command(document)
    code = call if command is None else f"{command}\n\n# or in Python\n{call}"
    if is_none := chosen.share == 0:
        sentence += f" No synthetic {kind(document)} are used: train on the real ones alone."
    pairs = [
        ("Synthetic share of a batch", None if chosen.share is None else f"{pct(chosen.share)} %"),
        ("Classes", chosen.classes),
        ("Sampler", chosen.sampler),
        ("Temperature", _general(chosen.temperature)),
        (f"Loss weight of synthetic {kind(document)}", _general(chosen.weight)),
        ("Labels", "soft" if chosen.soft else "hard"),
        ("Separate batch norm", "yes" if chosen.separate_batch_norm else "no"),
        (
            f"Last part on real {kind(document)} only",
            f"{pct(chosen.real_only_last)} % of the steps" if chosen.real_only_last else None,
        ),
        ("Minimum probability of the label", _general(chosen.min_label_probability)),
    ]
    shown = [
        (name, ", ".join(value) if isinstance(value, list) else value)
        for name, value in pairs
        if value is not None
    ]
    return {
        "name": chosen.name,
        "sentence": sentence,
        "code": None if is_none else code,
        "pairs": shown,
    }


def screening(document: Document) -> dict[str, Any]:
    """Return the candidates by class and reason of rejection.

    Args:
        document: The report.

    Returns:
        Rows, with coverage and dispersion if they were measured, and the sentence above them.
    """
    classes = [row for row in document.classes if row.candidates]
    measured = document.diagnostics.classes if document.diagnostics else {}
    shown = rarest(classes)
    totals: dict[str, float] = {}
    for row in classes:
        for reason, n in row.rejected.items():
            totals[reason] = totals.get(reason, 0) + n
    rows = [
        {
            "name": row.name,
            "candidates": row.candidates,
            "accepted": row.accepted,
            "rate": row.accepted / row.candidates,
            "rejected": row.rejected,
            "measured": measured.get(row.name, ClassMeasures()),
        }
        for row in shown
    ]
    of_measured = [row for row in shown if row.name in measured]
    reasons = sorted(
        (reason for reason in totals if totals[reason]), key=lambda reason: -totals[reason]
    )
    never = [reason for reason in totals if not totals[reason]]
    candidates, accepted = total(classes, "candidates"), total(classes, "accepted")
    sentence = f"Of {count(candidates)} candidates {count(accepted)} were accepted."
    if never:
        sentence += f" None was rejected as: {', '.join(sorted(never))}."
    return {
        "rows": rows,
        "reasons": reasons,
        "covered": any(measured[row.name].coverage is not None for row in of_measured),
        "compared": any(measured[row.name].spread is not None for row in of_measured),
        "left_out": len(classes) - len(shown),
        "sentence": sentence,
    }


def diagnostics(document: Document) -> dict[str, Any] | None:
    """Return how well the generator fits.

    Args:
        document: The report.

    Returns:
        Pairs of a name and a metric, notes and warnings; None without diagnostics.
    """
    measured = document.diagnostics
    if measured is None:
        return None
    fit, latents, noun = measured.fit, measured.latents, kind(document)
    error = fit.elbo_held_out_error
    information = [nats for nats in latents.class_information if nats is not None]
    pairs = [
        (
            f"ELBO of held-out {noun}",
            num(fit.elbo_held_out),
            None if error is None else f"± {num(error)} (standard error)",
        ),
        (f"ELBO of training {noun}", num(fit.elbo_train), None),
        (
            "Importance-weighted bound",
            num(fit.bound),
            f"{count(fit.bound_samples)} samples, {count(fit.bound_images)} held-out {noun}",
        ),
        ("Bits per value", num(fit.bits_per_dimension), f"held-out {noun}"),
        ("Active latent units", f"{count(latents.active)} of {count(latents.units)}", None),
        (
            "Highest information of one unit about the class",
            f"{num(max(information))} nats" if information else NONE,
            None,
        ),
    ]
    named = [effect for effect in latents.effects if effect.attribute]
    if named:
        shown = [f"{effect.attribute} ({count(effect.unit)})" for effect in named[:6]]
        pairs.append(("What units change most", ", ".join(shown), "attribute (unit)"))
    control = measured.label_control
    if control.control is not None:
        pairs.append(("Label control", pct(control.control), f"real {noun}: {pct(control.real)}"))
        if control.prior is not None:
            pairs.append(("Label control of the prior", pct(control.prior), None))
        if control.probe is not None:
            chance = f"by a linear probe; chance: {pct(control.probe_chance)}"
            pairs.append(("Class read from the latents", pct(control.probe), chance))
    notes = list(measured.training)
    if control.control is not None:
        notes.append(
            f"Label control: of {noun} decoded from latents of other classes, those to which a "
            "classifier trained on real ones gives the label that they were decoded under."
        )
    if fit.unit:
        notes.append(f"Bounds are in {fit.unit}; higher is better.")
    return {
        "warnings": measured.warnings,
        "pairs": [pair for pair in pairs if not pair[1].startswith(NONE)],
        "notes": notes,
    }


def provenance(document: Document) -> dict[str, Any]:
    """Return the origin of a run.

    Args:
        document: The report.

    Returns:
        Command, hashes and data as pairs; versions and configuration as tables of keys.
    """
    origin = document.provenance
    data, shape = origin.data, origin.data.image_shape
    pairs = [
        ("Command", origin.command),
        ("Folder", document.out),
        ("Data", data.source),
        ("Split", data.split),
        (f"Shape of {one_of(document)}", " × ".join(map(str, shape)) if shape else None),
        ("Seed", origin.seed),
        ("Fingerprint of the data", data.fingerprint),
        ("SHA-256 of the model", origin.model_sha256),
        ("SHA-256 of the configuration", origin.config_sha256),
        *((f"Generation {i}", text) for i, text in enumerate(document.generations, 1)),
    ]
    tables = [
        ("Full configuration", origin.config),
        ("Versions", origin.versions),
        ("Data", origin.described_data),
    ]
    return {
        "pairs": [(name, str(value)) for name, value in pairs if value is not None],
        "tables": [(name, _flat(keys)[:_MAX_KEYS]) for name, keys in tables if keys],
    }


def _used_once(row: ClassPart) -> MergedClass:
    """Return the counts of a class whose real and synthetic images are each used once."""
    return MergedClass(
        name=row.name, real=row.real, synthetic=row.accepted, together=row.real + row.accepted
    )


def _counts_sentence(classes: Sequence[ClassPart], merged: Sequence[MergedClass]) -> str:
    if not classes:
        return "No classes are listed."
    real = [row.real for row in classes]
    after = [row.together for row in merged]
    text = f"From {sum(real):,} images to {sum(after):,} when they are merged as below."
    if min(real) and len(classes) > 1:
        before, now = (f"{max(sizes) / min(sizes):.1f}" for sizes in (real, after))
        text += f" The largest class had {before} times as many images as the smallest; merged "
        text += "all have about the same." if now == "1.0" else f"it has {now} times as many."
    if short := sum(row.fell_short for row in classes):
        text += f" {several(short, 'class', 'classes')} got fewer than planned."
    return text


def _drawn_alike(rows: Sequence[Mapping[str, Any]]) -> str:
    samplers = {row["sampler"] for row in rows}
    only = samplers.pop() if len(samplers) == 1 else None
    return f" All were drawn by {only}." if only else ""


def _general(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Return dotted keys and their values, as they are set on the command line."""
    if isinstance(value, Mapping) and value:
        return [
            pair
            for key, item in value.items()
            for pair in _flat(item, f"{path}.{key}" if path else str(key))
        ]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [(path, text if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + " …")]
