"""Charts of the report: scales for its dot plots, and training curves."""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

# Placeholder colours for matplotlib; variables of the style sheet replace them, so that one drawing
# works on the light and the dark page.
_INK, _LINE = "#010101", "#010102"
_SERIES = ("#010201", "#010202", "#010203", "#010204")
_CSS = {
    _INK: "var(--quiet)",
    _LINE: "var(--line)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(_SERIES)},
}
_INCHES = (4.3, 2.35)  # 310 points: phones show it unscaled
_MAX_POINTS = 300
MAX_STAGES = 8


@dataclass(frozen=True)
class Scale:
    """A linear axis from 0 % to 100 % of the available width.

    Attributes:
        low: Value at the left end.
        high: Value at the right end.
        ticks: Round values between the ends.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def over(
        cls,
        values: Iterable[float | None],
        *,
        within: tuple[float, float] = (-math.inf, math.inf),
        n_ticks: int = 5,
    ) -> "Scale | None":
        """Choose the scale that contains all values, with a margin.

        Args:
            values: Values to contain; None is ignored.
            within: Bounds that the scale never exceeds.
            n_ticks: Approximate number of ticks.

        Returns:
            The scale, or None without a value.
        """
        from matplotlib.ticker import MaxNLocator

        numbers = [value for value in values if is_number(value)]
        if not numbers:
            return None
        low, high = min(numbers), max(numbers)
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = max(low - margin, within[0]), min(high + margin, within[1])
        if high <= low:  # one value, at or beyond a bound
            low, high = low - margin, high + margin
        locator = MaxNLocator(nbins=n_ticks, steps=[1, 2, 2.5, 5, 10])
        ticks = [float(tick) for tick in locator.tick_values(low, high)]
        return cls(low, high, tuple(tick for tick in ticks if low <= tick <= high))

    def at(self, value: float) -> str:
        """Return the position of a value.

        Args:
            value: The value.

        Returns:
            Percentage of the width, as text.
        """
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(1.0, max(0.0, share)):.2f}"


@dataclass(frozen=True)
class Curve:
    """One small chart of a training stage.

    Attributes:
        stage: Name of the stage.
        title: The quantity with its unit.
        names: Names of the lines, in the order of the page's colours.
        label: Description of the chart for screen readers.
        svg: An ``<svg>`` element without untrusted text.
    """

    stage: str
    title: str
    names: tuple[str, ...]
    label: str
    svg: str


def is_number(value: Any) -> TypeGuard[float]:
    """Check whether a value is a finite number, and not a bool.

    Args:
        value: The value.

    Returns:
        Whether it is.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def draw_curves(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Curve], int]:
    """Draw the training log: one or two charts for each stage.

    Args:
        rows: Lines of ``metrics.jsonl``.

    Returns:
        The charts, and the number of stages without charts.
    """
    stages = _by_stage(rows)
    curves: list[Curve] = []
    for stage, logged in list(stages.items())[:MAX_STAGES]:
        for title, lines in _charts_of(logged):
            names = tuple(name for name, _ in lines)
            if len(lines) == 1:
                title = f"{names[0]} {title}"
            last = "; ".join(f"{name} ends at {points[-1][1]:.4g}" for name, points in lines)
            label = f"{title} in stage {stage} by step: {last}"
            svg = _svg(lines, f"c{len(curves)}-")
            curves.append(Curve(stage, title, names, label, svg))
    return curves, max(0, len(stages) - MAX_STAGES)


Points = list[tuple[float, float]]


def logged_curves(
    rows: Sequence[Mapping[str, Any]],
) -> list[tuple[str, str, list[tuple[str, Points]]]]:
    """Take from the training log what `draw_curves` draws, of all stages.

    Args:
        rows: Lines of ``metrics.jsonl``.

    Returns:
        For each chart the stage, the quantity with its unit, and named lines of (step, value).
    """
    return [
        (stage, title, lines)
        for stage, logged in _by_stage(rows).items()
        for title, lines in _charts_of(logged)
    ]


def _by_stage(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if is_number(row.get("step")):
            stages.setdefault(str(row.get("stage", "training")), []).append(row)
    return stages


def _charts_of(
    rows: Sequence[Mapping[str, Any]],
) -> list[tuple[str, list[tuple[str, Points]]]]:
    """Return titles and named lines; lines with one point are dropped."""
    candidates = [
        (
            "ELBO, nats (higher is better)",
            [("training", _elbo(rows)), ("held out", _points(rows, "held_out_elbo"))],
        ),
        (
            "KL, nats",
            [("training", _points(rows, "kl")), ("held out", _points(rows, "held_out_kl"))],
        ),
        ("error (lower is better)", [("held out", _points(rows, "held_out_error"))]),
        ("accuracy", [("held out", _points(rows, "held_out_accuracy"))]),
        ("loss", [("training", _points(rows, "loss"))]),
    ]
    charts = [
        (title, drawn)
        for title, lines in candidates
        if (drawn := [(name, points) for name, points in lines if len(points) > 1])
    ]
    # The loss is a sum of the other quantities; it is drawn only if there is no other chart.
    return [chart for chart in charts if chart[0] != "loss"][:2] or charts


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> Points:
    points = [(float(row["step"]), float(row[key])) for row in rows if is_number(row.get(key))]
    return points[:: max(1, math.ceil(len(points) / _MAX_POINTS))]


def _elbo(rows: Sequence[Mapping[str, Any]]) -> Points:
    """Compute the ELBO, which is -(reconstruction + KL): the reconstruction is in negative nats."""
    with_both = [
        {"step": row["step"], "elbo": -(row["reconstruction"] + row["kl"])}
        for row in rows
        if is_number(row.get("reconstruction")) and is_number(row.get("kl"))
    ]
    return _points(with_both, "elbo")


def _svg(lines: Sequence[tuple[str, Points]], prefix: str) -> str:
    """Draw named lines as SVG, whose ids begin with `prefix`."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "vaeaug",
        "font.family": ["DejaVu Sans"],
        "font.size": 10.5,
        "axes.edgecolor": _INK,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.formatter.useoffset": False,
        "axes.unicode_minus": True,
        "grid.color": _LINE,
        "grid.linewidth": 0.7,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.labelcolor": _INK,
    }
    # The user's matplotlib settings must not change the report.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(style)
        figure = Figure(figsize=_INCHES, layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for (_, points), colour in zip(lines, _SERIES, strict=False):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=colour, linewidth=1.8)
        axes.set_xlabel("step")
        axes.locator_params(axis="y", nbins=5)
        axes.locator_params(axis="x", nbins=6)
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    return _for_page(buffer.getvalue(), prefix)


def _for_page(svg: str, prefix: str) -> str:
    """Adapt matplotlib's file to the page.

    The prologue and the style sheet, which would apply to the whole page, are removed. Ids get a
    unique prefix, and colours and font become those of the page.
    """
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*?viewBox=\"0 0 ([\d.]+) ([\d.]+)\"[^>]*>", _opening, svg, count=1)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}", svg)
    # Matplotlib writes the font as one property or as several, depending on its version.
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for colour, name in _CSS.items():
        svg = svg.replace(colour, name)
    return re.sub(r"\n\s*", "\n", svg)


def _opening(match: re.Match[str]) -> str:
    width, height = match.groups()
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'aria-hidden="true" focusable="false">'
    )
