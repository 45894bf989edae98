"""The rate-distortion plane of a sweep."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from vaeaug.files import publish
from vaeaug.files.names import printable

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
            printable(name).replace("$", r"\$"),
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
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # matplotlib's font lacks many scripts, and draws boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(buffer, dpi=_DPI, format="png", metadata={"Software": None})
    publish(Path(path), buffer.getvalue())
