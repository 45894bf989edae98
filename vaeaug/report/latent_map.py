"""A map of the latents: two directions, a point for each sample, a colour for each class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

from vaeaug.files.names import printable
from vaeaug.report.figures import as_label, publish_figure

_INCHES, _DPI = (6.4, 4.8), 120
# Points of a class, at most, and classes in the legend.
_MOST_POINTS, _MOST_NAMES = 200, 20
_MOST_CHARACTERS = 24


def shorten(name: str) -> str:
    """Cut a name that would leave no room for the picture.

    Args:
        name: Any name.

    Returns:
        At most `_MOST_CHARACTERS` characters.
    """
    return name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 1]}…"


def write_latent_map(
    path: str | Path,
    points: Float[np.ndarray, "n 2"],
    labels: Int64[np.ndarray, " n"],
    class_names: Sequence[str],
    *,
    axes_names: tuple[str, str],
) -> Path:
    """Draw latents in the plane.

    Args:
        path: PNG file to write.
        points: Coordinates of each sample.
        labels: Their classes.
        class_names: Name of each class.
        axes_names: What the axes are.

    Returns:
        The path.

    Raises:
        OSError: If it cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.add_subplot()
    present = np.unique(labels)
    colours = mpl.colormaps["turbo"](np.linspace(0.05, 0.95, max(2, len(present))))
    for label, colour in zip(present.tolist(), colours, strict=False):
        of_class = points[labels == label][:_MOST_POINTS]
        # Names come from the user: no mathematical notation, nothing invisible, not too long.
        name = as_label(shorten(printable(class_names[label])))
        axes.scatter(of_class[:, 0], of_class[:, 1], s=7, color=colour, alpha=0.7, label=name)
    if len(present) <= _MOST_NAMES:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, markerscale=2)
    axes.set_xlabel(axes_names[0])
    axes.set_ylabel(axes_names[1])
    axes.grid(alpha=0.3)
    return publish_figure(path, figure, dpi=_DPI)
