"""`SampleBatch`: labelled synthetic samples in memory."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt64

from vaeaug.notebook import COLUMNS, Card, Picture, Shown, Table, counted, strip


@dataclass(frozen=True)
class SampleBatch(Shown):
    """Labelled synthetic samples.

    Attributes:
        images: (n, *space, C), of the type and value range of the training images.
        labels: Class index, (n,).
        latents: z, (n, z).
        source_index: Row of the training image that a sample was drawn around, -1 for none. Rows
            from the number of labelled images on are images of the unlabelled pool.
        seed: Index of each sample within its class and run, (n,).
        sampler: How z was drawn.
        soft_labels: Share of each class, (n, K), of a blend; None where each is of one class.
        class_names: Name of each class, for display; empty where they are not known.
        value_range: Lowest and highest value of the images; None where it is not known.
    """

    images: Shaped[np.ndarray, "n *space c"]
    labels: Int64[np.ndarray, " n"]
    latents: Float32[np.ndarray, "n z"]
    source_index: Int64[np.ndarray, " n"]
    seed: UInt64[np.ndarray, " n"]
    sampler: str
    soft_labels: Float32[np.ndarray, "n k"] | None = None
    class_names: tuple[str, ...] = ()
    value_range: tuple[int | float, int | float] | None = None

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        n_classes = len(np.unique(self.labels))
        return (
            f"SampleBatch({len(self)} samples of {shape} {self.images.dtype}, "
            f"{counted(n_classes, 'classes')}, sampler={self.sampler!r})"
        )

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: Shaped[np.ndarray, " m"]) -> "SampleBatch":
        """Some of the samples.

        Args:
            rows: Indices or a mask.

        Returns:
            The samples at these rows, in this order.
        """
        soft_labels = None if self.soft_labels is None else self.soft_labels[rows]
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            latents=self.latents[rows],
            source_index=self.source_index[rows],
            seed=self.seed[rows],
            soft_labels=soft_labels,
        )

    @property
    def shown_range(self) -> tuple[int | float, int | float]:
        """Values shown as black and white; without a known range, what the values span."""
        if self.value_range is not None:
            return self.value_range
        if self.images.dtype == np.uint8 or not self.images.size:
            return 0, 255
        low, high = float(self.images.min()), float(self.images.max())
        return low, high if high > low else low + 1

    def show(self, n: int = 48) -> Path | None:
        """Show samples by class.

        Args:
            n: Samples of each class, at most.

        Returns:
            None in a notebook, which shows it below the cell; elsewhere a page in a temporary
            file, whose name is printed.

        Raises:
            ValueError: If n is below 1.
        """
        if n < 1:
            raise ValueError(f"show: expected n of at least 1, got {n}")
        return self._card(n).show()

    def _card(self, n: int = 2 * COLUMNS) -> Card:
        rows = []
        for label in np.unique(self.labels).tolist():
            images = self.images[self.labels == label]
            name = self._name_of(label)
            rows.append((name, len(images), self._strip(images, name, n)))
        with_source = int((self.source_index >= 0).sum())
        line = f"drawn by {self.sampler}; {with_source:,} of {len(self):,} around a training sample"
        table = Table(("class", "samples", ""), rows)
        return Card(counted(len(self), "synthetic samples"), [line], [table])

    def _name_of(self, label: int) -> str:
        if label < 0:
            return "of exemplars"
        return self.class_names[label] if label < len(self.class_names) else str(label)

    def _strip(self, images: Shaped[np.ndarray, "m *space c"], name: str, n: int) -> Picture | None:
        return strip(images, self.shown_range, alt=f"Synthetic {name}", columns=12, n=n)
