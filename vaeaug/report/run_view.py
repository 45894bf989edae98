"""What the page shows of a run: counts, recipe, screening, fit, and where it comes from."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vaeaug.report.charts import is_number
from vaeaug.report.words import count, kind, num, of_kind, one_of, pct, points, several, total
from vaeaug.shards import how_to_evaluate

MAX_ROWS = 150
# Characters of one value in the tables of keys; the whole of it is in report.json.
_MAX_VALUE = 600
_MAX_KEYS = 400

Json = Mapping[str, Any]
Tile = tuple[str, str, str | None]


def evaluate_command(document: Json) -> str:
    """What would evaluate this run; OUT stands for its folder, which may be moved."""
    return how_to_evaluate(_data(document).get("source"), str(document.get("out") or "OUT"))


def merge_command(document: Json) -> str | None:
    """What would merge it, on the command line; None where the data came from no path."""
    command = evaluate_command(document)
    if not command.startswith("vaeaug evaluate "):
        return None
    return command.replace("evaluate", "merge", 1) + " --to merged.h5"


def tiles(document: Json) -> list[Tile]:
    """The few numbers that one wants first."""
    classes = document.get("classes") or []
    real, accepted = total(classes, "real"), total(classes, "accepted")
    share = f"{pct(accepted / (real + accepted))} % of both" if real + accepted else None
    found: list[Tile] = [
        (f"Real {kind(document)}", count(real), several(len(classes), "class", "classes")),
        (f"Synthetic {kind(document)}", count(accepted), share),
    ]
    if candidates := total(classes, "candidates"):
        found.append(("Passed screening", f"{pct(accepted / candidates)} %", "of what was drawn"))
    gate = document.get("gate") or {}
    for each in (gate.get("comparisons") or [])[:2]:
        between = f"points, {points(each.get('low'))} to {points(each.get('high'))}"
        found.append((f"Gain at {each.get('name')}", points(each.get("difference")), between))
    return found


def counts(document: Json) -> dict[str, Any]:
    """Images per class before and after the run's own merge, and their bars in percent."""
    classes = document.get("classes") or []
    merged = {each["name"]: each for each in document.get("merged") or []}
    reasons = {each.get("name"): each.get("reason") for each in document.get("plan") or []}
    samplers = document.get("samplers") or {}
    after = {each.get("name"): merged.get(each.get("name")) or _once(each) for each in classes}
    largest = max((each["together"] for each in after.values()), default=0)
    shown = rarest(classes)
    rows: list[dict[str, Any]] = []
    for each in shown:
        name, now = each.get("name"), after[each.get("name")]
        kinds = ("real", "synthetic", "repeated")
        rows.append(
            {
                "name": name,
                "real": each.get("real") or 0,
                "accepted": each.get("accepted") or 0,
                "n_synthetic": each.get("n_synthetic"),
                "short": _fell_short(each),
                "used": now["synthetic"],
                "repeated": now["repeated"],
                "total": now["together"],
                "bars": [(kind, f"{100 * now[kind] / max(1, largest):.2f}") for kind in kinds],
                "sampler": samplers.get(name),
                "reason": reasons.get(name),
            }
        )
    return {
        "rows": rows,
        "left_out": len(classes) - len(shown),
        # What is the same for all classes is said once, above the table.
        "has_sampler": len({row["sampler"] for row in rows}) > 1,
        "has_reason": len({row["reason"] for row in rows}) > 1,
        "has_repeated": any(row["repeated"] for row in rows),
        "has_unused": any(row["used"] < row["accepted"] for row in rows),
        "sentence": of_kind(_counts_sentence(classes, list(after.values())), document)
        + _drawn_alike(rows),
    }


def rarest(classes: Sequence[Json]) -> list[Json]:
    """All classes in their order, or the rarest where a table could not hold them."""
    if len(classes) <= MAX_ROWS:
        return list(classes)
    return sorted(classes, key=lambda each: each.get("real") or 0)[:MAX_ROWS]


def recipe(document: Json) -> dict[str, Any] | None:
    """How to merge, in a sentence, as code, and as pairs."""
    found = document.get("recipe")
    if not found:
        return None
    share = found.get("share")
    name = str(found.get("name") or "this recipe")
    origin = {"search": ", the best that the search found", "default": ", the default"}
    text = f"Recipe: {name}{origin.get(str(found.get('origin')), '')}."
    out = str(document.get("out") or "OUT")
    code: str | None = f"import vaeaug\n\nmerged = vaeaug.merge(real, {out!r})  # as counted above"
    if command := merge_command(document):
        code = f"{command}\n\n# or in Python\n{code}"
    if share == 0:
        text += f" No synthetic {kind(document)} are used: train on the real ones alone."
        code = None
    pairs = [
        ("Synthetic share of a batch", f"{pct(share)} %" if is_number(share) else None),
        ("Classes", found.get("classes")),
        ("Sampler", found.get("sampler")),
        ("Temperature", _number(found.get("temperature"))),
        (f"Loss weight of synthetic {kind(document)}", _number(found.get("weight"))),
        ("Labels", "soft" if found.get("soft") else "hard"),
        ("Batch norm of their own", "yes" if found.get("separate_batch_norm") else "no"),
        (f"Last part on real {kind(document)} only", _part(found.get("real_only_last"))),
        ("Least probability of the label", _number(found.get("min_label_probability"))),
    ]
    shown = [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in pairs
        if value is not None
    ]
    return {"name": name, "sentence": text, "code": code, "pairs": shown}


def screening(document: Json) -> dict[str, Any]:
    """Candidates by class and reason, with the coverage where it was measured."""
    classes = [each for each in document.get("classes") or [] if each.get("candidates")]
    looked_at = (document.get("diagnostics") or {}).get("classes") or {}
    shown = rarest(classes)
    totals: dict[str, int] = {}
    for each in classes:
        for reason, n in (each.get("rejected") or {}).items():
            totals[reason] = totals.get(reason, 0) + (n or 0)
    rows = [
        {
            "name": each.get("name"),
            "candidates": each["candidates"],
            "accepted": each.get("accepted") or 0,
            "rate": (each.get("accepted") or 0) / each["candidates"],
            "rejected": each.get("rejected") or {},
            "coverage": (looked_at.get(each.get("name")) or {}).get("coverage"),
            "coverage_of_real": (looked_at.get(each.get("name")) or {}).get("coverage_of_real"),
        }
        for each in shown
    ]
    found = sorted((reason for reason in totals if totals[reason]), key=lambda one: -totals[one])
    never = [reason for reason in totals if not totals[reason]]
    candidates = total(classes, "candidates")
    text = f"Of {count(candidates)} candidates {count(total(classes, 'accepted'))} were accepted."
    if never:
        text += f" None was turned away as: {', '.join(sorted(never))}."
    return {
        "rows": rows,
        "reasons": found,
        "covered": any(row["coverage"] is not None for row in rows),
        "left_out": len(classes) - len(shown),
        "sentence": text,
    }


def diagnostics(document: Json) -> dict[str, Any] | None:
    """How well the generator fits, as pairs, and its warnings."""
    found = document.get("diagnostics")
    if not found:
        return None
    fit, latents = found.get("fit") or {}, found.get("latents") or {}
    unit = str(fit.get("unit") or "")
    error = fit.get("elbo_held_out_error")
    known = latents.get("class_information") or []
    pairs = [
        (
            f"ELBO of held-out {kind(document)}",
            num(fit.get("elbo_held_out")),
            f"± {num(error)} (standard error)" if is_number(error) else None,
        ),
        (f"ELBO of training {kind(document)}", num(fit.get("elbo_train")), None),
        (
            "Importance-weighted bound",
            num(fit.get("bound")),
            f"{count(fit.get('bound_samples'))} samples, {count(fit.get('bound_images'))} held-out "
            f"{kind(document)}",
        ),
        ("Bits per value", num(fit.get("bits_per_dimension")), f"held-out {kind(document)}"),
        (
            "Active latent units",
            f"{count(latents.get('active'))} of {count(latents.get('units'))}",
            None,
        ),
        (
            "Most that one unit knows of the class",
            f"{num(max(known))} nats" if known else num(None),
            None,
        ),
    ]
    notes = [str(line) for line in found.get("training") or []]
    if unit:
        notes.append(f"Bounds are in {unit}; higher is better.")
    return {
        "warnings": [str(line) for line in found.get("warnings") or []],
        "pairs": [pair for pair in pairs if not pair[1].startswith(num(None))],
        "notes": notes,
    }


def provenance(document: Json) -> dict[str, Any]:
    """Command, hashes and data as pairs; versions and configuration as tables of keys."""
    found = document.get("provenance") or {}
    data = _data(document)
    shape = data.get("image_shape")
    pairs = [
        ("Command", found.get("command")),
        ("Folder", document.get("out")),
        ("Data", data.get("source")),
        ("Split", data.get("split")),
        (
            f"Shape of {one_of(document)}",
            " × ".join(map(str, shape)) if isinstance(shape, list) else None,
        ),
        ("Seed", found.get("seed")),
        ("Fingerprint of the data", data.get("fingerprint")),
        ("SHA-256 of the model", found.get("model_sha256")),
        ("SHA-256 of the configuration", found.get("config_sha256")),
    ]
    tables = [
        ("Full configuration", found.get("config")),
        ("Versions", found.get("versions")),
        ("Data", found.get("data")),
    ]
    return {
        "pairs": [(name, str(value)) for name, value in pairs if value is not None],
        "tables": [(name, _flat(value)[:_MAX_KEYS]) for name, value in tables if value],
    }


def _data(document: Json) -> Json:
    return (document.get("provenance") or {}).get("data") or {}


def _once(each: Json) -> dict[str, int]:
    """A class whose real and synthetic images are used once."""
    real, made = each.get("real") or 0, each.get("accepted") or 0
    return {"real": real, "synthetic": made, "repeated": 0, "together": real + made}


def _fell_short(each: Json) -> bool:
    return (each.get("accepted") or 0) < (each.get("n_synthetic") or 0)


def _counts_sentence(classes: Sequence[Json], merged: Sequence[Json]) -> str:
    if not classes:
        return "No classes are listed."
    real = [each.get("real") or 0 for each in classes]
    after = [each["together"] for each in merged]
    text = f"From {sum(real):,} images to {sum(after):,} when they are merged as below."
    if min(real) and len(classes) > 1:
        before, now = (f"{max(each) / min(each):.1f}" for each in (real, after))
        text += f" The largest class had {before} times as many images as the smallest; merged "
        text += f"{'all have about the same' if now == '1.0' else f'it has {now}'}"
        text += "." if now == "1.0" else " times as many."
    if short := sum(map(_fell_short, classes)):
        text += f" {several(short, 'class', 'classes')} got fewer than planned."
    return text


def _drawn_alike(rows: Sequence[Json]) -> str:
    samplers = {row["sampler"] for row in rows}
    only = samplers.pop() if len(samplers) == 1 else None
    return f" All were drawn by {only}." if only else ""


def _number(value: Any) -> str | None:
    return f"{value:g}" if is_number(value) else None


def _part(value: Any) -> str | None:
    return f"{pct(value)} % of the steps" if is_number(value) and value else None


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Dotted keys and their values, as they are set on the command line."""
    if isinstance(value, Mapping) and value:
        return [
            pair
            for key, each in value.items()
            for pair in _flat(each, f"{path}.{key}" if path else str(key))
        ]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [(path, text if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + " …")]
