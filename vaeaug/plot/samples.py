"""Samples of each class in rows."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data import DataError, LabelledImages
from vaeaug.generator import SampleBatch
from vaeaug.plot.drawing import draw_rows
from vaeaug.shapes import are_features

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


@dataclass
class SamplesDisplay:
    """The first samples of each class.

    Attributes:
        names: Name of each row.
        rows: Samples of each row, (n, space..., C).
        value_range: Lowest and highest value.
        ax_: Axes that were drawn into.
        figure_: Their figure.
    """

    names: tuple[str, ...]
    rows: tuple[Shaped[np.ndarray, "_n *space c"], ...]
    value_range: tuple[float, float]
    ax_: "Axes" = field(init=False, repr=False)
    figure_: "Figure | SubFigure" = field(init=False, repr=False)

    @classmethod
    def from_data(
        cls,
        data: LabelledImages,
        *,
        n: int = 10,
        ax: "Axes | None" = None,
        **image_kw: Any,
    ) -> "SamplesDisplay":
        """Draw samples of a dataset.

        Args:
            data: The dataset.
            n: Samples of each class.
            ax: Axes to draw into; None: new ones.
            **image_kw: For matplotlib's ``imshow``.

        Returns:
            The display.

        Raises:
            DataError: If the samples are feature vectors, which have no look, or n is below 1.
        """
        return cls._of(
            data.images, data.labels, data.class_names, data.value_range, n, ax, image_kw
        )

    @classmethod
    def from_batch(
        cls,
        batch: SampleBatch,
        *,
        n: int = 10,
        ax: "Axes | None" = None,
        **image_kw: Any,
    ) -> "SamplesDisplay":
        """Draw samples of a generator.

        Args:
            batch: What `Synthesizer.sample` gives.
            n: Samples of each class.
            ax: Axes to draw into; None: new ones.
            **image_kw: For matplotlib's ``imshow``.

        Returns:
            The display.

        Raises:
            DataError: If the batch is empty, the samples are feature vectors, which have no look,
                or n is below 1.
        """
        low, high = batch.shown_range
        return cls._of(batch.images, batch.labels, batch.class_names, (low, high), n, ax, image_kw)

    @classmethod
    def _of(
        cls,
        images: Shaped[np.ndarray, "n *space c"],
        labels: np.ndarray,
        class_names: tuple[str, ...],
        value_range: tuple[int | float, int | float],
        n: int,
        ax: "Axes | None",
        image_kw: dict[str, Any],
    ) -> "SamplesDisplay":
        if n < 1:
            raise DataError(f"SamplesDisplay: expected n of at least 1, got {n}")
        if not len(images) or are_features(images.shape[1:]):
            got = "feature vectors" if len(images) else "none"
            raise DataError(f"SamplesDisplay: expected images, signals or volumes, got {got}")
        present = np.unique(labels).tolist()
        names = tuple(
            class_names[label] if 0 <= label < len(class_names) else str(label) for label in present
        )
        rows = tuple(images[np.flatnonzero(labels == label)[:n]] for label in present)
        low, high = float(value_range[0]), float(value_range[1])
        return cls(names, rows, (low, high)).plot(ax, **image_kw)

    def plot(self, ax: "Axes | None" = None, **image_kw: Any) -> "SamplesDisplay":
        """Draw a row for each class.

        Args:
            ax: Axes to draw into; None: new ones.
            **image_kw: For matplotlib's ``imshow``.

        Returns:
            The display.
        """
        ax = draw_rows(ax, self.names, self.rows, self.value_range, **image_kw)
        self.ax_, self.figure_ = ax, ax.figure
        return self
