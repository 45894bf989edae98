"""scikit-learn's bundled handwritten digits, with a split of our own."""

import numpy as np

from vaeaug.data.dataset import LabelledImages
from vaeaug.data.pixels import finish_pixels
from vaeaug.data.request import Request
from vaeaug.data.splits import require_split

# Of each class every fifth image, in the bundled order, is a test image.
_TEST_EVERY = 5


def read_digits(request: Request) -> LabelledImages:
    """Read the 1797 digits of 8x8 pixels; values 0..16 become round(v * 255 / 16).

    scikit-learn has no split for them. Here every fifth image of each class, in the bundled order,
    is a test image (about 20 %) and the rest are training images: stratified, and the same on every
    machine and with every library version, because no random numbers are involved.
    """
    from sklearn.datasets import load_digits

    if request.split != "all":
        require_split(request.split, ("train", "test"), "digits")
    bunch = load_digits()
    labels = np.asarray(bunch.target, dtype=np.int64)
    pixels = np.rint(np.asarray(bunch.images) * 255 / 16).astype(np.uint8)
    images, value_range, notes = finish_pixels(pixels, "digits", request)
    whole = LabelledImages(
        images=images,
        labels=labels,
        class_names=request.class_names or tuple(str(c) for c in range(10)),
        value_range=value_range,
        split=request.split,
        source="digits",
        notes=notes,
    )
    if request.split == "all":
        return whole
    rank_in_class = np.zeros(len(labels), dtype=np.int64)
    for c in range(10):
        of_class = labels == c
        rank_in_class[of_class] = np.arange(of_class.sum())
    is_test = rank_in_class % _TEST_EVERY == _TEST_EVERY - 1
    return whole.subset(is_test if request.split == "test" else ~is_test)
