"""Images arriving one by one become one array, or an error that names two which do not fit."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import DataError
from vaeaug.memory import array_bytes, require_memory

_LISTED = 20
# As large as is still learned in minutes.
_SUGGESTED = 128


class Faults:
    """Items that cannot be read: all of them become one error, or a note where they are skipped.

    Args:
        where: the source, for messages.
        on_error: "raise" or "skip".
    """

    def __init__(self, where: str, on_error: str) -> None:
        self._where = where
        self._skip = on_error == "skip"
        self._errors: list[str] = []

    def __len__(self) -> int:
        return len(self._errors)

    def add(self, error: str) -> None:
        """Note one item, by its whole error message."""
        self._errors.append(error)

    def settle(self, n: int) -> tuple[str, ...]:
        """Call when all n items were tried.

        Returns:
            The notes for the user.

        Raises:
            DataError: listing the items, unless they are skipped and others are left.
        """
        errors = self._errors
        if not errors:
            return ()
        if self._skip and len(errors) < n:
            listed = "; ".join(errors[: 5 * _LISTED])
            more = f"; and {len(errors) - 5 * _LISTED} more" if len(errors) > 5 * _LISTED else ""
            return (
                f"{len(errors)} of {n} left out because they cannot be read (on_error='skip'): "
                f"{listed}{more}",
            )
        advice = "" if self._skip else "; on_error='skip' (--on-error skip) leaves it out"
        if len(errors) == 1:
            raise DataError(errors[0] + advice)
        listed = "".join(f"\n  {error}" for error in errors[:_LISTED])
        more = f"\n  and {len(errors) - _LISTED} more" if len(errors) > _LISTED else ""
        raise DataError(
            f"{self._where}: {len(errors)} of {n} cannot be read{advice.replace(' it ', ' them ')}:"
            f"{listed}{more}"
        )


class Stack:
    """Collects n images of one shape and type into one array, without holding them twice.

    Args:
        n: how many will come.
        where: the source, for messages.
        noun: what they are.
    """

    def __init__(self, n: int, where: str, noun: str = "image") -> None:
        self._noun = noun
        self._n = n
        self._where = where
        self._filled = 0
        self._images: Shaped[np.ndarray, "n *space c"] | None = None
        self._first = ""
        # The first image of each size, in the order they came, and how many there are.
        self._sizes: dict[tuple[int, ...], str] = {}
        self._n_of_size: dict[tuple[int, ...], int] = {}
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
        size = image.shape[:-1]
        self._sizes.setdefault(size, name)
        self._n_of_size[size] = self._n_of_size.get(size, 0) + 1
        # After a second size has come the rest is only looked at, to say how many there are.
        if len(self._sizes) == 1:
            self._images[self._filled] = image
            self._filled += 1

    def leave_out(self) -> None:
        """One image will not come."""
        self._n -= 1

    def finish(self) -> tuple[Shaped[np.ndarray, "n *space c"], tuple[str, ...]]:
        """The images, shape (N, space..., C), and the notes with how many images each concerns.

        Raises:
            DataError: if the sizes differ.
        """
        if len(self._sizes) > 1:
            (size_a, name_a), (size_b, name_b) = list(self._sizes.items())[:2]
            advice = "; cut or pad them to one"
            if self._noun == "signal":
                middle = int(
                    np.median(
                        np.repeat([s[0] for s in self._n_of_size], list(self._n_of_size.values()))
                    )
                )
                advice = (
                    f" samples; pass size= (--size N), for example {middle}, which cuts the longer "
                    f"ones (resize='crop', the default) and fills up the shorter ones"
                )
            if len(size_a) == len(size_b) == 2:
                height, width = _suggested(self._n_of_size)
                advice = (
                    f" (height x width); pass size= (--size HxW) to resize them, for example "
                    f"size=({height}, {width}) (--size {height}x{width}), with resize='crop' "
                    f"(the default), 'pad' or 'stretch' for the aspect"
                )
            raise DataError(
                f"{self._where}: expected {self._noun}s of one size, got {len(self._sizes)} sizes: "
                f"{name_a} is {'x'.join(map(str, size_a))} and {name_b} is "
                f"{'x'.join(map(str, size_b))}{advice}"
            )
        if self._images is None or self._filled != self._n:
            raise DataError(f"{self._where}: expected {self._n} images, got {self._filled}")
        notes = tuple(f"{note} ({k} of {self._n} {self._noun}s)" for note, k in self._notes.items())
        return self._images[: self._n], notes

    def _check_kind(self, image: Shaped[np.ndarray, "*space c"], name: str) -> None:
        assert self._images is not None
        have = self._images.shape[-1]
        got = image.shape[-1]
        if got != have and self._noun == "signal":
            raise DataError(
                f"{self._where}: expected signals of one kind, got {self._first} with "
                f"{have} channels and {name} with {got}; mix them to one first"
            )
        if got != have:
            raise DataError(
                f"{self._where}: expected images of one kind, got {self._first} with "
                f"{_channels(have)} and {name} with {_channels(got)}; mode='RGB' (--mode RGB) or "
                f"mode='L' (--mode L) reads them as one kind"
            )
        if image.dtype != self._images.dtype:
            raise DataError(
                f"{self._where}: expected images of one bit depth, got {self._first} as "
                f"{self._images.dtype} and {name} as {image.dtype}; convert them to one first"
            )


def _suggested(sizes: dict[tuple[int, ...], int]) -> tuple[int, ...]:
    """The middle height and width, no longer than is trained in minutes, in multiples of 8."""
    counts = list(sizes.values())
    middle = [
        float(np.median(np.repeat([size[axis] for size in sizes], counts))) for axis in (0, 1)
    ]
    scale = min(1.0, _SUGGESTED / max(middle))
    return tuple(max(8, 8 * round(side * scale / 8)) for side in middle)


def _channels(n: int) -> str:
    names = {1: "1 channel (gray)", 3: "3 channels (RGB)", 4: "4 channels (RGBA)"}
    return names.get(n, f"{n} channels")
