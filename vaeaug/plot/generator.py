"""Plots of a generator: its latents in the plane, and what single directions change."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from vaeaug.generator import Synthesizer
from vaeaug.job.applications import ApplicationError, latent_plane, traverse
from vaeaug.plot.drawing import as_name, axes_or_new, draw_rows
from vaeaug.report import SPECTROGRAM_RANGE, as_pictures
from vaeaug.shapes import are_features
from vaeaug.stages.readable import unit_effects

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_MOST_NAMES = 20


@dataclass
class LatentMapDisplay:
    """Latents of the training samples in the plane of their two widest directions.

    Attributes:
        points: Coordinates of each training sample, shape (N, 2).
        labels: Their classes, shape (N,).
        class_names: Names of the classes.
        axes_names: What the axes are.
        ax_: Axes that were drawn into.
        figure_: Their figure.
    """

    points: Float64[np.ndarray, "n 2"]
    labels: Int64[np.ndarray, " n"]
    class_names: tuple[str, ...]
    axes_names: tuple[str, str]
    ax_: "Axes" = field(init=False, repr=False)
    figure_: "Figure | SubFigure" = field(init=False, repr=False)

    @classmethod
    def from_generator(
        cls, generator: Synthesizer, *, ax: "Axes | None" = None, **scatter_kw: Any
    ) -> "LatentMapDisplay":
        """Draw the latents of a generator; of one whose style is in use, the style.

        Args:
            generator: The generator.
            ax: Axes to draw into; None: new ones.
            **scatter_kw: For matplotlib's ``scatter``.

        Returns:
            The display.
        """
        points, axes_names = latent_plane(generator)
        labels = generator.labels[: generator.n_real]
        return cls(points, labels, generator.class_names, axes_names).plot(ax, **scatter_kw)

    def plot(self, ax: "Axes | None" = None, **scatter_kw: Any) -> "LatentMapDisplay":
        """Draw a point for each training sample, in the colour of its class.

        Args:
            ax: Axes to draw into; None: new ones.
            **scatter_kw: For matplotlib's ``scatter``.

        Returns:
            The display.
        """
        import matplotlib as mpl

        ax = axes_or_new(ax, (6.4, 4.4))
        present = np.unique(self.labels)
        colours = mpl.colormaps["turbo"](np.linspace(0.05, 0.95, max(2, len(present))))
        for label, colour in zip(present.tolist(), colours, strict=False):
            x, y = self.points[self.labels == label].T
            style: dict[str, Any] = {"s": 10, "color": [colour], "alpha": 0.75} | scatter_kw
            ax.scatter(x, y, label=as_name(self.class_names[label]), **style)
        if len(present) <= _MOST_NAMES:
            ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
        ax.set_xlabel(self.axes_names[0])
        ax.set_ylabel(self.axes_names[1])
        ax.grid(alpha=0.3)
        self.ax_, self.figure_ = ax, ax.figure
        return self


@dataclass
class TraversalDisplay:
    """Samples along single directions of a class's latents, the class's mean in the middle.

    Attributes:
        names: Name of each direction.
        samples: Shape (directions, steps, space..., C); spectrograms of sounds.
        value_range: Lowest and highest value.
        title: Name of the class.
        ax_: Axes that were drawn into.
        figure_: Their figure.
    """

    names: tuple[str, ...]
    samples: Shaped[np.ndarray, "u t *space c"]
    value_range: tuple[float, float]
    title: str
    ax_: "Axes" = field(init=False, repr=False)
    figure_: "Figure | SubFigure" = field(init=False, repr=False)

    @classmethod
    def from_generator(
        cls,
        generator: Synthesizer,
        label: int | str,
        *,
        n_units: int = 6,
        steps: int = 9,
        reach: float = 2.0,
        ax: "Axes | None" = None,
        **image_kw: Any,
    ) -> "TraversalDisplay":
        """Draw what the directions of a class's latents change.

        Args:
            generator: The generator.
            label: Class index or name.
            n_units: Directions.
            steps: Samples along each.
            reach: Standard deviations to either side.
            ax: Axes to draw into; None: new ones.
            **image_kw: For matplotlib's ``imshow``.

        Returns:
            The display.

        Raises:
            ApplicationError: If the class has no training samples, or the generator makes feature
                vectors, which have no look.
        """
        if are_features(generator.image_shape):
            raise ApplicationError(
                "TraversalDisplay: expected a generator of images, got one of feature vectors"
            )
        names, samples = traverse(
            generator,
            label,
            n_units=n_units,
            steps=steps,
            reach=reach,
            effects=unit_effects(generator),
        )
        value_range = (float(generator.value_range[0]), float(generator.value_range[1]))
        if generator.spectrogram is not None:
            samples = as_pictures(samples, generator.spectrogram, value_range)
            value_range = SPECTROGRAM_RANGE
        title = generator.class_names[generator.index_of(label)]
        return cls(tuple(names), samples, value_range, title).plot(ax, **image_kw)

    def plot(self, ax: "Axes | None" = None, **image_kw: Any) -> "TraversalDisplay":
        """Draw a row of samples for each direction.

        Args:
            ax: Axes to draw into; None: new ones.
            **image_kw: For matplotlib's ``imshow``.

        Returns:
            The display.
        """
        ax = draw_rows(ax, self.names, list(self.samples), self.value_range, **image_kw)
        ax.set_title(as_name(self.title), fontsize=10)
        self.ax_, self.figure_ = ax, ax.figure
        return self
