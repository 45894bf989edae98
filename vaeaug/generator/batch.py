"""`SampleBatch`: labelled synthetic samples in memory."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt64


@dataclass(frozen=True)
class SampleBatch:
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
    """

    images: Shaped[np.ndarray, "n *space c"]
    labels: Int64[np.ndarray, " n"]
    latents: Float32[np.ndarray, "n z"]
    source_index: Int64[np.ndarray, " n"]
    seed: UInt64[np.ndarray, " n"]
    sampler: str
    soft_labels: Float32[np.ndarray, "n k"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: Shaped[np.ndarray, " m"]) -> "SampleBatch":
        """Some of the samples.

        Args:
            rows: Indices or a mask.

        Returns:
            The samples at these rows, in this order.
        """
        return SampleBatch(
            self.images[rows],
            self.labels[rows],
            self.latents[rows],
            self.source_index[rows],
            self.seed[rows],
            self.sampler,
            None if self.soft_labels is None else self.soft_labels[rows],
        )
