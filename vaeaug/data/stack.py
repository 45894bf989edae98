"""Samples arriving one by one become one array, or an error that names two which do not fit."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from vaeaug.data.checks import DataError, Range
from vaeaug.mapping import room_for

_LISTED = 20
# A side that is still trained in minutes.
_SUGGESTED = 128


@dataclass(frozen=True)
class Decoded:
    """Samples that were decoded one by one: their axes are settled, and their size.

    Attributes:
        images: Shape (N, space..., C).
        kept: Which of the M labelled samples they are, shape (M,).
        notes: For the user.
        value_range: The range by the format, where it has one.
        stored_as_numbers: Whether their alpha is not settled yet.
        sample_rate: Of sounds, Hz.
    """

    images: Shaped[np.ndarray, "n *space c"]
    kept: Bool[np.ndarray, " m"]
    notes: tuple[str, ...] = ()
    value_range: Range | None = None
    stored_as_numbers: bool = False
    sample_rate: int | None = None

    def all_kept(self) -> "Decoded":
        """The same, for labels of these samples alone.

        Returns:
            A copy with N samples kept of N.
        """
        return replace(self, kept=np.ones(len(self.images), dtype=np.bool_))


class Faults:
    """Samples that cannot be read: they become one error, or a note where they are skipped.

    Args:
        where: The source, for messages.
        on_error: "raise" or "skip".
    """

    def __init__(self, where: str, on_error: str) -> None:
        self._where = where
        self._skip = on_error == "skip"
        self._errors: list[str] = []

    @property
    def is_failing(self) -> bool:
        """Whether reading will end in an error: then only further faults matter."""
        return bool(self._errors) and not self._skip

    def add(self, error: str) -> None:
        """Record one unreadable sample.

        Args:
            error: The complete message, which names it.
        """
        self._errors.append(error)

    def settle(self, n: int) -> tuple[str, ...]:
        """Report the faults once all samples were tried.

        Args:
            n: The number of samples.

        Returns:
            Notes for the user.

        Raises:
            DataError: Listing the samples, unless they are skipped and others are left.
        """
        errors = self._errors
        if not errors:
            return ()
        if self._skip and len(errors) < n:
            listed = "; ".join(errors[: 5 * _LISTED])
            more = f"; and {len(errors) - 5 * _LISTED} more" if len(errors) > 5 * _LISTED else ""
            return (
                f"skipped {len(errors)} of {n} because they cannot be read (on_error='skip'): "
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
    """Collects samples of one shape and type in one array, without holding them twice.

    Args:
        n: How many samples there are, unreadable ones included.
        where: The source, for messages.
        on_error: "raise" or "skip" unreadable samples.
        noun: What a sample is.
        folder: Where they are mapped from if they are many; see `room_for`.
    """

    def __init__(
        self,
        n: int,
        where: str,
        on_error: str,
        noun: str = "image",
        *,
        folder: Path | None = None,
    ) -> None:
        self._noun = noun
        self._folder = folder
        self._n = n
        self._where = where
        self._faults = Faults(where, on_error)
        self._kept: list[bool] = []
        self._images: Shaped[np.ndarray, "n *space c"] | None = None
        self._first = ""
        self._filled = 0
        # The first sample of each size, in the order they came, and how many there are.
        self._sizes: dict[tuple[int, ...], str] = {}
        self._n_of_size: dict[tuple[int, ...], int] = {}
        self._notes: dict[str, int] = {}

    @property
    def is_failing(self) -> bool:
        """Whether reading will end in an error: then samples need not be finished."""
        return self._faults.is_failing

    def leave_out(self, error: object) -> None:
        """Record that the next sample cannot be read.

        Args:
            error: Its text is the complete message, which names the sample.
        """
        self._faults.add(str(error))
        self._kept.append(False)

    def add(
        self, image: Shaped[np.ndarray, "*space c"], name: str, notes: Iterable[str] = ()
    ) -> None:
        """Append the next sample.

        Args:
            image: Shape (space..., C).
            name: For messages.
            notes: What was done to it.

        Raises:
            DataError: If its channels or bit depth differ from those of the first one.
        """
        self._kept.append(True)
        # Whatever else does not fit, the samples that cannot be read at all are reported first.
        if self._faults.is_failing:
            return
        for note in notes:
            self._notes[note] = self._notes.get(note, 0) + 1
        if 0 in image.shape:
            raise DataError(
                f"{name}: expected an image of at least 1x1 pixel, got shape {image.shape}"
            )
        if self._images is None:
            shape = (self._n - self._kept.count(False), *image.shape)
            what = f"{shape[0]:,} images of {image.dtype} and shape {image.shape}"
            self._images = room_for(
                shape, image.dtype, self._where, what, DataError, folder=self._folder
            )
            self._first = name
        self._check_kind(self._images, image, name)
        size = image.shape[:-1]
        self._sizes.setdefault(size, name)
        self._n_of_size[size] = self._n_of_size.get(size, 0) + 1
        # After a second size has come the rest is only counted.
        if len(self._sizes) == 1:
            self._images[self._filled] = image
            self._filled += 1

    def finish(self) -> Decoded:
        """The samples, once all have come.

        Returns:
            The array, and notes with the number of samples that they concern.

        Raises:
            DataError: If samples cannot be read, or their sizes differ.
        """
        left_out = self._faults.settle(self._n)
        if len(self._sizes) > 1:
            raise self._several_sizes()
        kept = np.array(self._kept, dtype=np.bool_)
        n = int(kept.sum())
        if self._images is None or len(kept) != self._n:
            raise DataError(f"{self._where}: expected {self._n} images, got {n}")
        notes = (f"{note} ({k} of {n} {self._noun}s)" for note, k in self._notes.items())
        return Decoded(self._images[:n], kept, (*left_out, *notes))

    def _several_sizes(self) -> DataError:
        (size_a, name_a), (size_b, name_b) = list(self._sizes.items())[:2]
        middle = [self._median_side(axis) for axis in range(len(size_a))]
        advice = "; cut or pad them to one"
        if self._noun == "signal":
            advice = (
                f" samples; pass size= (--size N), for example {int(middle[0])}, which cuts the "
                f"longer ones (resize='crop', the default) and fills up the shorter ones"
            )
        if self._noun == "clip":
            advice = (
                " (frames x height x width); pass frames= (--frames), for example 16, and size= "
                "(--size HxW), for example size=(64, 64)"
            )
        if len(size_a) == len(size_b) == 2:
            # No longer than is trained in minutes, in multiples of 8.
            scale = min(1.0, _SUGGESTED / max(middle))
            height, width = (max(8, 8 * round(side * scale / 8)) for side in middle)
            advice = (
                f" (height x width); pass size= (--size HxW) to resize them, for example "
                f"size=({height}, {width}) (--size {height}x{width}), with resize='crop' "
                f"(the default), 'pad' or 'stretch' for the aspect"
            )
        return DataError(
            f"{self._where}: expected {self._noun}s of one size, got {len(self._sizes)} sizes: "
            f"{name_a} is {'x'.join(map(str, size_a))} and {name_b} is "
            f"{'x'.join(map(str, size_b))}{advice}"
        )

    def _median_side(self, axis: int) -> float:
        sides = [size[axis] for size in self._n_of_size if axis < len(size)]
        counts = [n for size, n in self._n_of_size.items() if axis < len(size)]
        return float(np.median(np.repeat(sides, counts)))

    def _check_kind(
        self,
        images: Shaped[np.ndarray, "n *first_space c"],
        image: Shaped[np.ndarray, "*space c2"],
        name: str,
    ) -> None:
        n_channels, expected = image.shape[-1], images.shape[-1]
        if n_channels != expected and self._noun == "signal":
            raise DataError(
                f"{self._where}: expected signals of one kind, got {self._first} with "
                f"{expected} channels and {name} with {n_channels}; mix them to one first"
            )
        if n_channels != expected:
            raise DataError(
                f"{self._where}: expected images of one kind, got {self._first} with "
                f"{_channels(expected)} and {name} with {_channels(n_channels)}; mode='RGB' "
                f"(--mode RGB) or mode='L' (--mode L) reads them as one kind"
            )
        if image.dtype != images.dtype:
            raise DataError(
                f"{self._where}: expected images of one bit depth, got {self._first} as "
                f"{images.dtype} and {name} as {image.dtype}; convert them to one first"
            )


def _channels(n: int) -> str:
    names = {1: "1 channel (gray)", 3: "3 channels (RGB)", 4: "4 channels (RGBA)"}
    return names.get(n, f"{n} channels")
