"""Curves of a training, stage by stage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeaug.job.folder import RunError
from vaeaug.job.publishing import logged_rows
from vaeaug.job.result import AugmentResult
from vaeaug.plot.drawing import COLOURS
from vaeaug.report import logged_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_COLUMNS = 2
_COLOURS = {"training": COLOURS[0], "held out": COLOURS[2]}


@dataclass(frozen=True)
class LoggedCurve:
    """One chart.

    Attributes:
        stage: Stage of the training.
        quantity: What is drawn, with its unit.
        lines: By name, (step, value) of each point, "training" and "held out".
    """

    stage: str
    quantity: str
    lines: dict[str, list[tuple[float, float]]]


@dataclass
class TrainingCurvesDisplay:
    """What the training of a run logged, one chart for each stage and quantity.

    Attributes:
        curves: The charts.
        axes_: Axes that were drawn into, one for each chart.
        figure_: Their figure.
    """

    curves: tuple[LoggedCurve, ...]
    axes_: "tuple[Axes, ...]" = field(init=False, repr=False)
    figure_: "Figure | SubFigure" = field(init=False, repr=False)

    @classmethod
    def from_run(
        cls, run: AugmentResult | str | Path, *, axes: "Sequence[Axes] | None" = None
    ) -> "TrainingCurvesDisplay":
        """Draw the curves of a run, which need not be finished.

        Args:
            run: The result, or the run folder.
            axes: Axes to draw into, one for each chart; None: new ones.

        Returns:
            The display.

        Raises:
            RunError: If the run has logged nothing that makes a curve.
            ValueError: If there are fewer or more axes than charts.
        """
        folder = run.out_dir if isinstance(run, AugmentResult) else Path(run)
        log = folder / "metrics.jsonl"
        charts = logged_curves(logged_rows(log))
        if not charts:
            raise RunError(
                f"{log}: expected at least two logged steps of a stage, got "
                f"{'fewer' if log.exists() else 'no such file'}"
            )
        curves = tuple(LoggedCurve(stage, title, dict(lines)) for stage, title, lines in charts)
        return cls(curves).plot(axes)

    def plot(self, axes: "Sequence[Axes] | None" = None) -> "TrainingCurvesDisplay":
        """Draw the charts.

        Args:
            axes: Axes to draw into, one for each chart; None: new ones.

        Returns:
            The display.

        Raises:
            ValueError: If there are fewer or more axes than charts.
        """
        if axes is None:
            axes = self._new_axes()
        if len(axes) != len(self.curves):
            raise ValueError(
                f"axes: expected {len(self.curves)}, one for each chart, got {len(axes)}"
            )
        for ax, curve in zip(axes, self.curves, strict=True):
            for name, points in curve.lines.items():
                steps, values = zip(*points, strict=True)
                ax.plot(steps, values, color=_COLOURS.get(name), linewidth=1.6, label=name)
            ax.set_title(curve.stage, fontsize=10)
            ax.set_xlabel("step")
            ax.set_ylabel(curve.quantity, fontsize=9)
            ax.grid(alpha=0.3)
            ax.legend(frameon=False, fontsize=9)
        self.axes_, self.figure_ = tuple(axes), axes[0].figure
        return self

    def _new_axes(self) -> "list[Axes]":
        import matplotlib.pyplot as plt

        rows = -(-len(self.curves) // _COLUMNS)
        columns = min(_COLUMNS, len(self.curves))
        _, grid = plt.subplots(
            rows, columns, figsize=(4.4 * columns, 2.8 * rows), squeeze=False, layout="constrained"
        )
        axes = list(np.ravel(grid))
        for spare in axes[len(self.curves) :]:
            spare.remove()
        return axes[: len(self.curves)]
