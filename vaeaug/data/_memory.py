"""Arrays in memory: a pair (images, labels)."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data._arrays import finish_pixels
from vaeaug.data._images import DataError, LabelledImages
from vaeaug.data._labels import labelled, normalise_labels
from vaeaug.data._request import Request

_WHERE = "arrays"


def is_pair(source: object) -> bool:
    """Whether it is a tuple of two arrays or tensors; a list of two is a dataset of two items."""
    return isinstance(source, tuple) and len(source) == 2 and all(map(is_array, source))


def is_array(source: object) -> bool:
    """Whether it is a NumPy array or a torch tensor."""
    return isinstance(source, np.ndarray) or hasattr(source, "detach")


def read_pair(pair: tuple[Any, Any], request: Request) -> LabelledImages:
    """Read (images, labels); see `read` for the shapes that they may have.

    Arrays say nothing of splits: the asked split is taken as the caller's word.
    """
    raw_images, raw_labels = (as_array(part) for part in pair)
    if raw_images.shape[:1] != raw_labels.shape[:1]:
        raise DataError(
            f"{_WHERE}: expected one label for each image, got images of shape {raw_images.shape} "
            f"and labels of shape {raw_labels.shape}"
        )
    images, value_range, notes = finish_pixels(
        raw_images,
        f"{_WHERE}[images]",
        size=request.size,
        alpha=request.alpha,
        layout=request.layout,
    )
    labels, class_names = normalise_labels(
        raw_labels, f"{_WHERE}[labels]", class_names=request.class_names
    )
    return labelled(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=request.split,
        source=_WHERE,
        notes=notes,
    )


def as_array(part: Any) -> Shaped[np.ndarray, "..."]:
    """A NumPy array of an array or tensor, without a copy where that is possible."""
    return part if isinstance(part, np.ndarray) else np.asarray(part.detach().cpu())
