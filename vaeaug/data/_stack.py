"""Images arriving one by one become one array, or an error that names two which do not fit."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Shaped

from vaeaug.data._images import DataError
from vaeaug.memory import array_bytes, require_memory


class Stack:
    """Collects n images of one shape and type into one array, without holding them twice.

    Args:
        n: how many will come.
        where: the source, for messages.
        resized: whether a size was asked for; differing sizes are then no longer possible.
    """

    def __init__(self, n: int, where: str) -> None:
        self._n = n
        self._where = where
        self._filled = 0
        self._images: Shaped[np.ndarray, "n *space c"] | None = None
        self._first = ""
        # The first image of each size, in the order they came.
        self._sizes: dict[tuple[int, ...], str] = {}
        self._notes: dict[str, int] = {}

    def add(
        self, image: Shaped[np.ndarray, "*space c"], name: str, notes: Iterable[str] = ()
    ) -> None:
        """Append one image.

        Raises:
            DataError: if its channels or bit depth differ from the first one's.
        """
        for note in notes:
            self._notes[note] = self._notes.get(note, 0) + 1
        if 0 in image.shape:
            raise DataError(
                f"{name}: expected an image of at least 1x1 pixel, got shape {image.shape}"
            )
        if self._images is None:
            shape = (self._n, *image.shape)
            what = f"{self._n:,} images of {image.dtype} and shape {image.shape}"
            require_memory(array_bytes(shape, image.dtype), self._where, what, DataError)
            self._images = np.empty(shape, dtype=image.dtype)
            self._first = name
        self._check_kind(image, name)
        self._sizes.setdefault(image.shape[:-1], name)
        # After a second size has come the rest is only looked at, to say how many there are.
        if len(self._sizes) == 1:
            self._images[self._filled] = image
            self._filled += 1

    def finish(self) -> tuple[Shaped[np.ndarray, "n *space c"], tuple[str, ...]]:
        """The images, shape (N, space..., C), and the notes with how many images each concerns.

        Raises:
            DataError: if the sizes differ.
        """
        if len(self._sizes) > 1:
            (size_a, name_a), (size_b, name_b) = list(self._sizes.items())[:2]
            advice = "; cut or pad them to one"
            if len(size_a) == len(size_b) == 2:
                advice = " (height x width); pass size= (--size HxW) to resize"
            raise DataError(
                f"{self._where}: expected images of one size, got {len(self._sizes)} sizes: "
                f"{name_a} is {'x'.join(map(str, size_a))} and {name_b} is "
                f"{'x'.join(map(str, size_b))}{advice}"
            )
        if self._images is None or self._filled != self._n:
            raise DataError(f"{self._where}: expected {self._n} images, got {self._filled}")
        notes = tuple(f"{note} ({k} of {self._n} images)" for note, k in self._notes.items())
        return self._images, notes

    def _check_kind(self, image: Shaped[np.ndarray, "*space c"], name: str) -> None:
        assert self._images is not None
        have = self._images.shape[-1]
        got = image.shape[-1]
        if got != have:
            raise DataError(
                f"{self._where}: expected images of one kind, got {self._first} with "
                f"{_channels(have)} and {name} with {_channels(got)}; convert them to one kind "
                f"first (Pillow: image.convert('RGB') or image.convert('L'))"
            )
        if image.dtype != self._images.dtype:
            raise DataError(
                f"{self._where}: expected images of one bit depth, got {self._first} as "
                f"{self._images.dtype} and {name} as {image.dtype}; convert them to one first"
            )


def _channels(n: int) -> str:
    names = {1: "1 channel (gray)", 3: "3 channels (RGB)", 4: "4 channels (RGBA)"}
    return names.get(n, f"{n} channels")
