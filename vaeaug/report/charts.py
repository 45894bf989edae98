"""Charts of the report: scales for its dot plots, and training curves."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

_SIZE = (310, 169)  # points: phones show it unscaled
_FONT, _DIGIT = 10.5, 6.6  # points
_MOST_DIGITS = 9
_N_COLOURS = 4
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
            curves.append(Curve(stage, title, names, label, _svg(lines)))
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


def _svg(lines: Sequence[tuple[str, Points]]) -> str:
    """Draw named lines as SVG, in the colours of the page."""
    across = Scale.over((x for _, points in lines for x, _ in points), n_ticks=6)
    up = Scale.over((y for _, points in lines for _, y in points))
    if across is None or up is None:  # no chart has such lines
        raise ValueError("a chart: expected finite points, got none")
    (width, height), x_texts, y_texts = _SIZE, _as_text(across.ticks), _as_text(up.ticks)
    left = _DIGIT * max(4, *map(len, y_texts)) + 8
    right, top, bottom = 14.0, 8.0, 36.0

    def x_at(value: float) -> float:
        return left + float(across.at(value)) / 100 * (width - left - right)

    def y_at(value: float) -> float:
        return height - bottom - float(up.at(value)) / 100 * (height - top - bottom)

    floor = height - bottom
    grid = "".join(f"M{x_at(tick):.1f} {top:g}V{floor:g}" for tick in across.ticks)
    grid += "".join(f"M{left:.1f} {y_at(tick):.1f}H{width - right:g}" for tick in up.ticks)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'aria-hidden="true" focusable="false" style="font-size: {_FONT}px">',
        f'<path d="{grid}" style="fill: none; stroke: var(--line); stroke-width: 0.7"/>',
        f'<path d="M{left:.1f} {top:g}V{floor:g}H{width - right:g}" '
        'style="fill: none; stroke: var(--quiet); stroke-width: 0.7"/>',
    ]
    labels = [
        (x_at(tick), floor + 14, "middle", text)
        for tick, text in zip(across.ticks, x_texts, strict=True)
    ]
    labels += [
        (left - 5, y_at(tick) + _FONT / 3, "end", text)
        for tick, text in zip(up.ticks, y_texts, strict=True)
    ]
    labels.append(((left + width - right) / 2, height - 6, "middle", "step"))
    parts += [
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill: var(--quiet)">'
        f"{text}</text>"
        for x, y, anchor, text in labels
    ]
    for number, (_, points) in enumerate(lines[:_N_COLOURS]):
        drawn = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{drawn}" style="fill: none; stroke: var(--c{number}); '
            'stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round"/>'
        )
    return "\n".join([*parts, "</svg>"])


def _as_text(ticks: Sequence[float]) -> list[str]:
    """Write ticks with the same number of decimals; exponents where numbers are long."""
    texts = [f"{tick + 0.0:.10g}" for tick in ticks]  # no -0
    if any("e" in text or len(text) > _MOST_DIGITS for text in texts):
        texts = [f"{tick + 0.0:.3g}" for tick in ticks]
    else:
        decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
        texts = [f"{tick + 0.0:.{decimals}f}" for tick in ticks]
    return [text.replace("-", "−") for text in texts]
