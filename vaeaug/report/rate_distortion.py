"""The rate-distortion plane of a sweep."""

from collections.abc import Sequence
from pathlib import Path

from vaeaug.report.figures import as_label, publish_figure

_INCHES, _DPI = (6.4, 4.4), 150


def draw_rate_distortion(path: str | Path, points: Sequence[tuple[str, float, float]]) -> None:
    """Draw generators in the plane of rate and distortion (Alemi et al. 2018, arXiv:1711.00464).

    Args:
        path: PNG file to write.
        points: Name, KL (nats per sample) and squared error per value of each.

    Raises:
        OSError: If it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.add_subplot()
    names, rates, distortions = zip(*points, strict=True)
    axes.scatter(rates, distortions, s=24, color="#1f6feb")
    for name, rate, distortion in points:
        axes.annotate(
            # Names come from the user: no mathematical notation, nothing invisible.
            as_label(name),
            (rate, distortion),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=8,
        )
    if min(distortions) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("rate: KL of the posterior from the prior, nats per sample")
    axes.set_ylabel("distortion: squared error per value")
    axes.set_title(f"{len(names)} generators on held-out samples", fontsize=10)
    axes.grid(alpha=0.3)
    publish_figure(path, figure, dpi=_DPI)
