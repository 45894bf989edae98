"""What a coder knows when it codes a value: the values before it, and the VAE's guess of the image.

Values are coded row by row, from left to right, and the channels of a pixel one after another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int64, UInt8

# What stands for 1 among the features: values are 0 ... 255, so that all are whole numbers.
UNIT = 128
# Features of the gaps between gray levels end here.
_MOST_GAP = 16.0


@dataclass(frozen=True)
class Context:
    """Where the features of a value come from.

    Attributes:
        image_shape: (height, width, channels).
        up: Rows above that are seen.
        side: Columns to either side that are seen.
        flags: Of how many of the nearest pixels it is told whether they are black or white.
        guide: Radius of what is seen of the VAE's decoded image, -1 for nothing.
    """

    image_shape: tuple[int, int, int]
    up: int = 5
    side: int = 6
    flags: int = 12
    guide: int = 2

    @property
    def n_channels(self) -> int:
        """Channels of an image."""
        return self.image_shape[2]

    @cached_property
    def offsets(self) -> list[tuple[int, int]]:
        """(rows up, columns right) of the pixels that are seen, the nearest first."""
        above = [
            (up, right)
            for up in range(1, self.up + 1)
            for right in range(-self.side, self.side + 1)
        ]
        left = [(0, -right) for right in range(1, self.side + 1)]
        return sorted(above + left, key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, offset))

    @cached_property
    def n_inputs(self) -> int:
        """Features of a value."""
        around = (2 * self.guide + 1) ** 2 if self.guide >= 0 else 0
        return (len(self.offsets) + around + 1) * self.n_channels - 1 + 2 * self.flags + 1

    @cached_property
    def _stride(self) -> int:
        return self.image_shape[1] + 2 * self.side

    @cached_property
    def _plane(self) -> int:
        return (self.image_shape[0] + self.up) * self._stride

    @cached_property
    def _guide_stride(self) -> int:
        return self.image_shape[1] + 2 * self.guide

    @cached_property
    def _guide_plane(self) -> int:
        return (self.image_shape[0] + 2 * self.guide) * self._guide_stride

    @cached_property
    def _before(self) -> Int64[np.ndarray, " p"]:
        steps = [right - up * self._stride for up, right in self.offsets]
        return np.array(steps, np.int64)

    @cached_property
    def _around(self) -> Int64[np.ndarray, " g"]:
        reach = range(2 * self.guide + 1)
        return np.array([i * self._guide_stride + j for i in reach for j in reach], np.int64)

    def canvas(self, images: UInt8[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n m"]:
        """Images with a margin, channel after channel, as `features` and `write` want them.

        Args:
            images: The images; zeros where they are still to be decoded.

        Returns:
            A row for each.
        """
        margin = ((0, 0), (0, 0), (self.up, 0), (self.side, self.side))
        return np.pad(images.transpose(0, 3, 1, 2), margin).reshape(len(images), -1)

    def guide_canvas(self, guides: UInt8[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n m"]:
        """The same for what the VAE decodes, with its own margin.

        Args:
            guides: Decoded images.

        Returns:
            A row for each.
        """
        margin = ((0, 0), (0, 0), (self.guide, self.guide), (self.guide, self.guide))
        return np.pad(guides.transpose(0, 3, 1, 2), margin).reshape(len(guides), -1)

    def place(self, i: np.ndarray | int, j: np.ndarray | int, channel: int) -> np.ndarray | int:
        """Where in a row of a canvas a value is.

        Args:
            i: Row of the image.
            j: Column.
            channel: Channel.

        Returns:
            Index.
        """
        return channel * self._plane + (i + self.up) * self._stride + j + self.side

    def features(
        self,
        canvas: UInt8[np.ndarray, "n m"],
        guides: UInt8[np.ndarray, "n g"] | None,
        gaps: Float32[np.ndarray, " n"],
        rows: Int64[np.ndarray, " k"],
        i: np.ndarray | int,
        j: np.ndarray | int,
        channel: int,
    ) -> Float32[np.ndarray, "k f"]:
        """Gather what is known of values.

        Args:
            canvas: As `canvas` makes it.
            guides: As `guide_canvas` makes it; None without a VAE.
            gaps: Of each image, from `gap_features`.
            rows: Images.
            i: Row of the value in each, or of all.
            j: Column in each, or of all.
            channel: Channel of all.

        Returns:
            Whole numbers, in units of 1 / `UNIT`.
        """
        here = np.broadcast_to(self.place(i, j, 0), rows.shape) + rows * canvas.shape[1]
        found = np.empty((len(rows), self.n_inputs), np.float32)
        flat, filled = canvas.reshape(-1), 0
        places = here[:, None] + self._before
        for other in range(self.n_channels):
            values = flat[places + other * self._plane]
            found[:, filled : filled + values.shape[1]] = values
            filled += values.shape[1]
            if other == channel:
                near = values[:, : self.flags]
        for other in range(self.n_channels - 1):
            known = flat[here + other * self._plane] if other < channel else 0
            found[:, filled] = known
            filled += 1
        for value in (0, 255):
            found[:, filled : filled + self.flags] = UNIT * (near == value)
            filled += self.flags
        found[:, filled] = gaps[rows]
        filled += 1
        if guides is not None:
            corner = np.broadcast_to(i * self._guide_stride + j, rows.shape)
            places = (corner + rows * guides.shape[1])[:, None] + self._around
            for other in range(self.n_channels):
                values = guides.reshape(-1)[places + other * self._guide_plane]
                found[:, filled : filled + values.shape[1]] = values
                filled += values.shape[1]
        return found


def gap_features(sizes: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """How far apart the gray levels of images are, as a feature.

    Args:
        sizes: Levels of each image, from `vaeaug.compression.levels.level_edges`.

    Returns:
        Whole numbers, in units of 1 / `UNIT`; 0 where all levels are in use.
    """
    gaps = np.minimum(256 / np.asarray(sizes, np.float64) - 1, _MOST_GAP)
    return np.floor(gaps * UNIT + 0.5).astype(np.float32)


def check_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """Refuse samples that are not small images.

    Args:
        image_shape: (space..., channels).

    Returns:
        (height, width, channels).

    Raises:
        CompressionError: For other samples than images of 8 to 64 pixels a side with 1 or 3
            channels.
    """
    from vaeaug.compression.errors import CompressionError

    shape = tuple(image_shape)
    if len(shape) != 3 or shape[2] not in (1, 3) or not all(8 <= side <= 64 for side in shape[:2]):
        raise CompressionError(
            "compression: expected images of 8 to 64 pixels a side with 1 or 3 channels, got "
            f"samples of shape {shape}"
        )
    return shape[0], shape[1], shape[2]
