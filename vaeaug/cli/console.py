"""Output of the command line on stdout: tables, or one JSON document."""

import io
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from vaeaug.files.names import for_stream, printable

if TYPE_CHECKING:
    from vaeaug.config import AugmentConfig
    from vaeaug.data import LabelledImages
    from vaeaug.evaluation import GateResult, Prediction
    from vaeaug.evaluation.statistics import Interval
    from vaeaug.job.result import AugmentResult
    from vaeaug.job.sweep import SweepPoint
    from vaeaug.merging import ClassCounts
    from vaeaug.plan import Plan
    from vaeaug.stages import JobTime

NO_HELP, PARTIAL = 3, 4


def waiting(text: str) -> AbstractContextManager[Any]:
    """Show on a terminal that something happens which has no steps to count.

    Args:
        text: What happens.

    Returns:
        A context manager; elsewhere it shows nothing.
    """
    if not sys.stderr.isatty() or not logging.getLogger("vaeaug").isEnabledFor(logging.INFO):
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(text)


@contextmanager
def said_that_it_starts(*, in_a_line: bool) -> Iterator[None]:
    """Say that something happens while torch is imported, which takes seconds.

    Args:
        in_a_line: Whether to log a line where there is no terminal.
    """
    finder = _Starting(in_a_line)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


class _Starting(MetaPathFinder):
    """Finds torch as ever, and lets it be loaded while a spinner turns."""

    def __init__(self, in_a_line: bool) -> None:
        self._in_a_line = in_a_line

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if self._in_a_line and not sys.stderr.isatty():
                logging.getLogger("vaeaug").info("starting")
            with waiting("starting"):
                load(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def timed_job(data: "LabelledImages", config: "AugmentConfig", device: str) -> "JobTime":
    """Time a job, and say at once what it is.

    Args:
        data: The training split.
        config: The job.
        device: Where it will run.

    Returns:
        What it will cost.
    """
    from vaeaug.stages import before_timing, time_job

    if (line := before_timing(data, config, device=device)) is not None:
        logging.getLogger("vaeaug").info("%s", line)
    with waiting("timing a few steps"):
        return time_job(data, config, device=device)


def print_plan(
    data: "LabelledImages", config: "AugmentConfig", as_json: bool, device: str | None = None
) -> None:
    """Print how many samples of each class would be generated, why, and how long it takes.

    Args:
        data: The training split.
        config: The job.
        as_json: Whether to print JSON.
        device: Where it would run, to be timed; None: no time is told.
    """
    from vaeaug.stages import bytes_per_sample, plan_of, shards_of

    plan: Plan = plan_of(data, config)
    size = bytes_per_sample(data, config)
    rows = [
        {
            **row,
            "bytes": row["n_synthetic"] * size,
            "shards": shards_of(row["n_synthetic"], size, config),
        }
        for row in plan.to_json()
    ]
    total = {key: sum(row[key] for row in rows) for key in ("n_synthetic", "bytes", "shards")}
    table = _table(
        ["class", "real", "synthetic", "repeated", "together", "MiB", "shards", "why"],
        [
            [
                row["name"],
                row["real"],
                row["n_synthetic"],
                row["repeated"],
                row["target_count"],
                f"{row['bytes'] / 2**20:.1f}",
                row["shards"],
                row["reason"],
            ]
            for row in rows
        ],
    )
    text = (
        f"{table}\n{total['n_synthetic']} to generate, {total['bytes'] / 2**20:.1f} MiB in "
        f"{total['shards']} shards or more (one for each sampler of a class). `together` is the "
        "default size in `vaeaug merge`."
    )
    document: dict[str, Any] = {"classes": rows, **total}
    if device is not None and total["n_synthetic"]:
        expected = timed_job(data, config, device)
        document["time"] = expected.to_json()
        text += f"\n{expected}"
    print_document(document, text, as_json)


def print_merged(
    document: "dict[str, Any]", counts: "Iterable[ClassCounts]", as_json: bool
) -> None:
    """Print how many images of each class were written.

    Args:
        document: Additional content of the JSON document.
        counts: Counts by class.
        as_json: Whether to print JSON.
    """
    from vaeaug.merging import ClassCounts

    rows = list(counts)
    real, synthetic, repeated, together = (
        sum(getattr(row, name) for row in rows) for name in ClassCounts._fields[1:]
    )
    table = _table(
        ["class", "real", "synthetic used", "repeated", "together"],
        [list(row) for row in (*rows, ClassCounts("all", real, synthetic, repeated, together))],
    )
    where = document.get("file") or document.get("path")
    text = (
        f"{table}\n{where}: {together} samples: {real} real, {synthetic} synthetic, "
        f"{repeated} repeated"
    )
    document = {
        **document,
        "real": real,
        "synthetic": synthetic,
        "repeated": repeated,
        "together": together,
        "classes": [row._asdict() for row in rows],
    }
    print_document(document, text, as_json)


def print_result(result: "AugmentResult", as_json: bool) -> int:
    """Print the result of a job and whether it helps.

    Args:
        result: The result.
        as_json: Whether to print JSON.

    Returns:
        The exit code.
    """
    from vaeaug.shards import how_to_evaluate

    document = result.to_json()
    nearness = document["nearness"] or {"classes": {}}
    near = nearness["classes"]
    rows = {row["name"]: {**row, "near": near.get(row["name"])} for row in document["classes"]}
    lines = [reports_table(rows)]
    state = "already complete" if result.resumed else "written"
    n_images = sum(row["accepted"] for row in document["classes"])
    lines.append(
        f"{n_images} samples in {len(document['shards'])} shards {state} in {result.out_dir}; "
        f"see {result.out_dir / 'samples.png'}"
    )
    lines.extend(result.notes)
    if sentence := nearness.get("sentence"):
        lines.append(sentence)
    lines.extend(
        f"class {row['name']!r} got none: {row['reason']}"
        for row in document["plan"]
        if not row["n_synthetic"]
    )
    if document["search"] is not None:
        lines.append(f"Recipe: {document['search']['sentence']}")
    gate = document["gate"]
    if gate == "not evaluated":
        command = how_to_evaluate(result.source, str(result.out_dir))
        lines.append(f"Not evaluated: `{command}` measures whether they help.")
    else:
        lines += [gate["sentence"], *gate["warnings"]]
    lines.append(f"Report: {result.out_dir / 'report.html'}")
    if not result.complete:
        lines.append("Partial: " + "; ".join(result.shortfalls))
    print_document(document, "\n".join(lines), as_json)
    if gate != "not evaluated" and gate["verdict"] == "does not help":
        return NO_HELP
    return 0 if result.complete else PARTIAL


def print_gate(result: "GateResult", out: Path, as_json: bool) -> int:
    """Print the verdict and the metrics of every arm.

    Args:
        result: The result of the evaluation.
        out: The run folder.
        as_json: Whether to print JSON.

    Returns:
        The exit code.
    """
    document = result.to_json()

    def percent_of(arm: dict[str, Any], name: str) -> str:
        value = arm["metrics"].get(name)
        return "" if value is None else f"{100 * value['mean']:.1f}"

    names = ["balanced_accuracy", "macro_f1", "geometric_mean", "recall_few", "calibration_error"]
    table = _table(
        ["training", *(name.replace("_", " ") for name in names)],
        [[arm["name"], *(percent_of(arm, name) for name in names)] for arm in document["arms"]],
    )
    ways = [
        f"{row['name']}: {100 * row['difference']:+.2f} points ({100 * row['low']:+.2f} to "
        f"{100 * row['high']:+.2f}), {row['verdict']}"
        for row in document["comparisons"]
    ]
    lines = [result.sentence, *result.warnings, "", table, "", *ways]
    lines.append(f"Report: {out / 'report.html'}")
    print_document(document, "\n".join(lines), as_json)
    return NO_HELP if result.verdict == "does not help" else 0


def print_prediction(result: "Prediction", source: str, out: Path, as_json: bool) -> None:
    """Print a prediction and the recall of the rare classes, or of all where none is rare.

    Args:
        result: The prediction.
        source: The data, as it was given.
        out: The run folder.
        as_json: Whether to print JSON.
    """
    from vaeaug.shards import how_to_evaluate

    document = result.to_json()
    lines = [result.sentence, *result.warnings]
    if result.gain is not None:
        trainings = [
            [name, f"{100 * value:.1f}"] for name, value in result.balanced_accuracy.items()
        ]
        rows = [row for row in result.classes if row.rare] or list(result.classes)
        recalls = [
            [row.name, row.n, *(_recall(part) for part in (row.baseline, row.merged))]
            for row in rows
        ]
        header = ["rare class" if rows[0].rare else "class", "held out"]
        lines += ["", _table(["training", "balanced accuracy"], trainings)]
        lines += ["", _table([*header, "recall without", "recall with"], recalls)]
        lines += ["", document["limits"]]
        lines.append(f"For a verdict: `{how_to_evaluate(source, str(out))}`.")
    lines.append(f"Report: {out / 'report.html'}")
    print_document(document, "\n".join(lines), as_json)


def _recall(value: "Interval | None") -> str:
    if value is None:
        return ""
    return f"{100 * value.mean:.0f} ({100 * value.low:.0f} to {100 * value.high:.0f})"


def document_lines(document: Any, indent: str = "") -> str:
    """Format a document with a line for each value and indented parts.

    Args:
        document: JSON types by name.
        indent: Indentation of each line.

    Returns:
        The text.
    """
    lines = []
    for key, value in document.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", document_lines(value, f"{indent}  ")]
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            header = list(value[0])
            table = _table(header, [[row.get(name, "") for name in header] for row in value])
            lines += [f"{indent}{key}:", *(f"{indent}  {line}" for line in table.splitlines())]
        else:
            many = isinstance(value, list | tuple)
            text = ", ".join(map(str, value)) if many else "none" if value is None else str(value)
            lines.append(f"{indent}{key}: {text}")
    return "\n".join(lines)


def print_sweep(points: "Sequence[SweepPoint]", out: Path, as_json: bool) -> None:
    """Print the generators of a sweep, and where their table and picture are.

    Args:
        points: The generators.
        out: Folder of the sweep.
        as_json: Whether to print JSON.
    """
    table = _table(
        [*points[0].values, "seed", "ELBO", "rate", "distortion", "active"],
        [
            [
                *(str(value) for value in point.values.values()),
                point.seed,
                f"{point.elbo:.1f}",
                f"{point.rate:.1f}",
                f"{point.distortion:.5f}",
                f"{point.active} of {point.units}",
            ]
            for point in points
        ],
    )
    notes = [
        f"{', '.join(f'{k} {v}' for k, v in point.values.items())}, seed {point.seed}: {note}"
        for point in points
        for note in point.notes
    ]
    text = "\n".join(
        [
            table,
            "ELBO and rate in nats per held-out sample; distortion: squared error per value",
            *notes,
            f"{out / 'sweep.csv'}, {out / 'rate-distortion.png'}",
        ]
    )
    print_document({"points": [vars(point) for point in points]}, text, as_json)


def reports_table(classes: dict[str, Any]) -> str:
    """Format the counts of each class: real, requested, accepted, drawn and rejected by reason.

    Reasons for which nothing was rejected have no column, so that the table fits a terminal.

    Args:
        classes: Counts by class name.

    Returns:
        The table.
    """
    from vaeaug.screening import REASONS

    reasons_given = {
        reason for row in classes.values() for reason, count in row["rejected"].items() if count
    }
    reasons = [reason for reason in REASONS if reason in reasons_given]
    with_real = all("real" in row for row in classes.values())
    with_near = any(row.get("near") is not None for row in classes.values())
    header = ["class", *(["real", "wanted"] if with_real else []), "made", "drawn", *reasons]
    header += ["near %"] * with_near
    rows = [
        [
            name,
            *([counts["real"], counts["n_synthetic"]] if with_real else []),
            counts["accepted"],
            counts["candidates"],
            *(counts["rejected"].get(reason, 0) for reason in reasons),
            *([_percent(counts.get("near"))] * with_near),
        ]
        for name, counts in classes.items()
    ]
    return _table(header, rows)


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.0f}"


def _table(header: list[str], rows: list[list[Any]]) -> str:
    """Format a table without lines; columns of numbers are aligned right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(str(cell)) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column, name in enumerate(header):
        numeric = all(_is_number(row[column]) for row in cells)
        table.add_column(Text(name), justify="right" if numeric else "left", no_wrap=True)
    for row in cells:
        table.add_row(*map(Text, row))  # a class may be called "[/b]", which is not markup
    # The width is unlimited because other programs read the output too.
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def print_document(document: Any, text: str, as_json: bool) -> None:
    """Print a document as JSON, or a text.

    Args:
        document: JSON types.
        text: The text.
        as_json: Whether to print the document.
    """
    shown = json.dumps(document, indent=2, sort_keys=True) if as_json else text
    click.echo(for_stream(shown, sys.stdout))
