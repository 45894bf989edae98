"""Batches of a merged dataset that carry soft labels and loss weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float32, Shaped
from torch import Tensor
from torch.utils.data import default_collate

from vaeaug.merging._merged_dataset import MergedItem
from vaeaug.merging._slots import MergeError


class MergedBatch(NamedTuple):
    """A batch of a dataset merged with ``details``.

    Attributes:
        images: (n, C, space...), or the output of the transform, collated by torch's
            ``default_collate``.
        labels: (n,) int64, or with ``soft`` (n, K) float32 class probabilities.
            ``torch.nn.functional.cross_entropy`` accepts both.
        is_synthetic: (n,) bool.
        weights: (n,) float32, factor of the loss of each image.
    """

    images: Any
    labels: Shaped[Tensor, "n *k"]
    is_synthetic: Bool[Tensor, " n"]
    weights: Float32[Tensor, " n"]


def collate(items: Sequence[Any]) -> MergedBatch:
    """Collate items of a dataset merged with ``details=True``; a ``collate_fn``.

    Args:
        items: The items of one batch.

    Returns:
        The batch as tensors.

    Raises:
        MergeError: If the items carry no weights.
    """
    first = items[0]
    if not isinstance(first, MergedItem):
        raise MergeError(
            "collate: expected the items of a dataset merged with details=True, got "
            f"{type(first).__name__} of length {len(first) if isinstance(first, tuple) else 1}"
        )
    images, labels, is_synthetic, weights = zip(*items, strict=True)
    soft = isinstance(first.label, Tensor)
    return MergedBatch(
        images=default_collate(list(images)),
        labels=torch.stack(labels) if soft else torch.tensor(labels, dtype=torch.int64),
        is_synthetic=torch.tensor(is_synthetic, dtype=torch.bool),
        weights=torch.tensor(weights, dtype=torch.float32),
    )
