"""What the shape of a sample says of it."""

from collections.abc import Sequence


def are_features(image_shape: Sequence[int]) -> bool:
    """Tell whether samples are feature vectors: a signal of one position, with F channels.

    They have no axis in space, so there is nothing to convolve, to shift or to show.

    Args:
        image_shape: Shape of one sample, (space..., channels).

    Returns:
        True for (1, F).
    """
    return len(image_shape) == 2 and image_shape[0] == 1
