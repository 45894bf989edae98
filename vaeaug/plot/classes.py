"""Plots with a line for each class: recall with and without synthetic data, and class sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from vaeaug.evaluation import EvaluationError, GateResult
from vaeaug.job.result import AugmentResult
from vaeaug.merging import counts_of_run
from vaeaug.plot.drawing import COLOURS, as_name, axes_or_new, manifest_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_WIDTH, _LINE = 6.4, 0.34  # of a figure, and height of a class, inches


@dataclass
class RecallDisplay:
    """Recall of each class without and with synthetic data, with 95 % intervals (Wilson 1927).

    Attributes:
        class_names: Names of the classes.
        recall: By training, mean, low and high end of each class, shape (K, 3); NaN for a class
            that was never held out.
        ax_: Axes that were drawn into.
        figure_: Their figure.
    """

    class_names: tuple[str, ...]
    recall: Mapping[str, Float64[np.ndarray, "k 3"]]
    ax_: "Axes" = field(init=False, repr=False)
    figure_: "Figure | SubFigure" = field(init=False, repr=False)

    @classmethod
    def from_result(
        cls,
        result: GateResult | Mapping[str, Any],
        *,
        arms: Sequence[str] | None = None,
        ax: "Axes | None" = None,
    ) -> "RecallDisplay":
        """Draw the recalls of a verdict.

        Args:
            result: What `evaluate` gives, or the ``gate`` of a manifest or report.
            arms: Names of trainings to compare; None: the two that the verdict compares.
            ax: Axes to draw into; None: new ones.

        Returns:
            The display.

        Raises:
            EvaluationError: If there is no such training.
        """
        gate = result.to_json() if isinstance(result, GateResult) else result
        known = {arm["name"]: arm for arm in gate["arms"]}
        if arms is None and not gate["comparisons"]:
            raise EvaluationError(
                f"arms: expected a verdict that compares two trainings, got one without: "
                f"{gate.get('sentence', 'no sentence')}; name some of {', '.join(known) or 'none'}"
            )
        if arms is None:
            arms = [gate["comparisons"][0][role] for role in ("baseline", "arm")]
        unknown = [name for name in arms if name not in known]
        if unknown:
            raise EvaluationError(
                f"arms: expected some of {', '.join(known)}; got {', '.join(unknown)}"
            )
        recall = {}
        for name in arms:
            rows = known[name]["recall"]
            values = [[row[end] for end in ("value", "low", "high")] for row in rows]
            recall[name] = np.array(values, np.float64)
        names = tuple(str(row["class"]) for row in known[arms[0]]["recall"])
        return cls(names, recall).plot(ax)

    @classmethod
    def from_run(
        cls,
        run: AugmentResult | str | Path,
        *,
        arms: Sequence[str] | None = None,
        ax: "Axes | None" = None,
    ) -> "RecallDisplay":
        """Draw the recalls of a run that was evaluated.

        Args:
            run: The result, or the run folder.
            arms: Names of trainings to compare; None: the two that the verdict compares.
            ax: Axes to draw into; None: new ones.

        Returns:
            The display.

        Raises:
            EvaluationError: If the run was not evaluated, or there is no such training.
            ShardError: If the folder holds no finished run.
        """
        folder, manifest = manifest_of(run)
        if isinstance(manifest.gate, str):
            raise EvaluationError(
                f"{folder}: expected a run that was evaluated (vaeaug evaluate), got one that "
                f"was not: {manifest.gate}"
            )
        return cls.from_result(manifest.gate, arms=arms, ax=ax)

    def plot(self, ax: "Axes | None" = None) -> "RecallDisplay":
        """Draw a point with its interval for each class and training.

        Args:
            ax: Axes to draw into; None: new ones.

        Returns:
            The display.
        """
        k = len(self.class_names)
        ax = axes_or_new(ax, (_WIDTH, 1.2 + _LINE * k))
        offsets = np.linspace(-0.16, 0.16, len(self.recall)) if len(self.recall) > 1 else [0.0]
        colours = [COLOURS[0], COLOURS[2], "#6b6b6b", "#4a9e6b", "#9467bd"]
        for number, (name, values) in enumerate(self.recall.items()):
            mean, low, high = values.T
            ends = np.stack([mean - low, high - mean]).clip(0)
            ax.errorbar(
                mean,
                np.arange(k) + offsets[number],
                xerr=ends,
                fmt="o",
                markersize=5,
                capsize=2,
                linewidth=1.2,
                color=colours[number % len(colours)],
                label=as_name(name),
            )
        _label_classes(ax, self.class_names)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel("recall on held-out images, with its 95 % interval")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self


@dataclass
class BeforeAfterDisplay:
    """Sizes of the classes before, of real samples alone, and after merging.

    Attributes:
        class_names: Names of the classes.
        before: Real samples of each class, shape (K,).
        after: Real, repeated and synthetic slots of each class when merged, shape (K, 3).
        ax_: Axes that were drawn into.
        figure_: Their figure.
    """

    class_names: tuple[str, ...]
    before: Float64[np.ndarray, " k"]
    after: Float64[np.ndarray, "k 3"]
    ax_: "Axes" = field(init=False, repr=False)
    figure_: "Figure | SubFigure" = field(init=False, repr=False)

    @classmethod
    def from_run(
        cls, run: AugmentResult | str | Path, *, ax: "Axes | None" = None
    ) -> "BeforeAfterDisplay":
        """Draw the class sizes of a run.

        Args:
            run: The result, or the run folder.
            ax: Axes to draw into; None: new ones.

        Returns:
            The display.

        Raises:
            ShardError: If the folder holds no finished run.
        """
        _, manifest = manifest_of(run)
        merged = counts_of_run(manifest)
        after = [(counts.real, counts.repeated, counts.synthetic) for counts in merged]
        before = np.array(manifest.real_counts, np.float64)
        return cls(manifest.class_names, before, np.array(after, np.float64)).plot(ax)

    def plot(self, ax: "Axes | None" = None) -> "BeforeAfterDisplay":
        """Draw two bars for each class.

        Args:
            ax: Axes to draw into; None: new ones.

        Returns:
            The display.
        """
        k = len(self.class_names)
        ax = axes_or_new(ax, (_WIDTH, 1.2 + _LINE * k))
        at = np.arange(k)
        ax.barh(at - 0.2, self.before, 0.34, color="#9a9a9a", label="before")
        left = np.zeros(k)
        for number, name in enumerate(("real", "repeated", "synthetic")):
            part = self.after[:, number]
            ax.barh(at + 0.2, part, 0.34, left=left, color=COLOURS[number], label=f"after: {name}")
            left = left + part
        _label_classes(ax, self.class_names)
        ax.set_xlabel("samples of an epoch")
        ax.set_axisbelow(True)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=9)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _label_classes(ax: "Axes", class_names: Sequence[str]) -> None:
    """A line for each class, the first at the top."""
    ax.set_yticks(np.arange(len(class_names)), [as_name(name) for name in class_names])
    ax.set_ylim(len(class_names) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.3)
