"""scikit-learn's bundled handwritten digits, with a split that is stated here."""

import numpy as np

from vaeaug.data.finish import RawData
from vaeaug.data.metadata import SourceMetadata
from vaeaug.data.request import Request
from vaeaug.data.split_names import require_split

# Of each class every fifth image, in the bundled order, is a test image.
_TEST_EVERY = 5
_CLASS_NAMES = tuple(map(str, range(10)))


def read_digits(request: Request) -> RawData:
    """Read the 1797 digits of 8x8 pixels; values 0..16 become round(v * 255 / 16).

    scikit-learn has no split for them. Here every fifth image of each class, in the bundled order,
    is a test image (about 20 %) and the rest are training images: stratified, and the same on every
    machine and with every library version, because no random numbers are involved.

    Args:
        request: The options of `read`.

    Returns:
        The images of the split, uint8, with their digits.

    Raises:
        DataError: If a split is asked for that they do not have.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = np.asarray(bunch.target, dtype=np.int64)
    images = np.rint(np.asarray(bunch.images) * 255 / 16).astype(np.uint8)
    if request.split != "all":
        require_split(request.split, ("train", "test"), "digits")
        is_test = np.zeros(len(labels), dtype=np.bool_)
        for label in range(10):
            is_test[np.flatnonzero(labels == label)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
        is_wanted = is_test == (request.split == "test")
        images, labels = images[is_wanted], labels[is_wanted]
    return RawData(
        source="digits",
        split=request.split,
        images=images,
        labels=labels,
        metadata=SourceMetadata(class_names=_CLASS_NAMES),
    )
