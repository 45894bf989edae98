"""Images and labels as an HDF5 file that `vaeaug.read` reads: no shard, and of no run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from vaeaug.shards._format import write_attributes
from vaeaug.shards._hdf5_output import published_hdf5


def write_images(
    path: str | Path,
    images: Shaped[np.ndarray, "n *space c"],
    labels: Int64[np.ndarray, " n"],
    *,
    class_names: Sequence[str],
    layout: str = "NHWC",
    value_range: tuple[float, float] = (0, 255),
) -> Path:
    """Write images and labels as an HDF5 file that `vaeaug.read` reads.

    Args:
        path: The file, replaced whole.
        images: Images.
        labels: Their classes.
        class_names: Names by class index.
        layout: Of the images, such as "NHWC".
        value_range: Lowest and highest value of the images.

    Returns:
        The path.

    Raises:
        ShardError: If the file cannot be written.
    """
    path = Path(path)
    with published_hdf5(path, needed=images.nbytes, kept="nothing was changed") as file:
        file["images"], file["labels"] = images, labels
        attributes = {
            "class_names": list(class_names),
            "layout": layout,
            "image_value_range": np.array(value_range, np.float64),
        }
        write_attributes(file, attributes)
    return path
