"""Files of compressed images.

Little-endian throughout; a *count* is a LEB128 integer of 7 bits a byte, the lowest first.

| bytes | what |
|---|---|
| 4 | ``VAEC`` |
| 1 | version, 1 |
| 1 | kind: 0 deflated, 1 values, 2 values and latents, 3 bits-back, 4 latents and residual |
| 4 | the first bytes of the coder's SHA-256; zeros with kind 0 |
| 3 | height, width, channels |
| count | images n |
| 4 | CRC-32 of the decoded images followed by the labels as int64 |
| 1 | kinds 1 to 3: 0, or one less than the number of gray levels that all values were rounded to |
| counts | kinds 1 to 3: how often images were pushed, and how many each time |
| count | words w of the payload; bytes with kind 0 |
| 4 w | payload |

A reader MUST refuse an unknown version or kind, another coder, a payload of another length, and
images that do not have the checksum.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from vaeaug.compression.errors import CompressionError

MAGIC, VERSION = b"VAEC", 1
DEFLATED, VALUES, CENTRED, BITS_BACK, LOSSY = range(5)
# More values than that are refused before memory is taken for them, and more images at a time.
MOST_VALUES, MOST_AT_A_TIME = 2**30, 2048


@dataclass(frozen=True)
class Header:
    """What a file says before its payload.

    Attributes:
        kind: `DEFLATED` to `LOSSY`.
        coder: The first four bytes of the coder's hash.
        image_shape: (height, width, channels).
        n: Images.
        checksum: Of images and labels.
        sizes: How many images were pushed at a time.
        reach: One less than the number of gray levels of all; 0 where each image has its own.
    """

    kind: int
    coder: bytes
    image_shape: tuple[int, int, int]
    n: int
    checksum: int
    sizes: tuple[int, ...] = ()
    reach: int = 0


def checksum_of(images: UInt8[np.ndarray, "n h w c"], labels: Int64[np.ndarray, " n"]) -> int:
    """CRC-32 of images and labels.

    Args:
        images: The images.
        labels: Their classes.

    Returns:
        The checksum.
    """
    head = zlib.crc32(np.ascontiguousarray(images).tobytes())
    return zlib.crc32(np.asarray(labels).astype("<i8").tobytes(), head)


def packed(header: Header, payload: bytes) -> bytes:
    """Make a file.

    Args:
        header: Its header.
        payload: Its payload; a whole number of words but for `DEFLATED`.

    Returns:
        Its bytes.
    """
    parts = [MAGIC, bytes([VERSION, header.kind]), header.coder, bytes(header.image_shape)]
    parts += [_count(header.n), struct.pack("<I", header.checksum)]
    if header.kind in (VALUES, CENTRED, BITS_BACK):
        parts += [bytes([header.reach]), _count(len(header.sizes)), *map(_count, header.sizes)]
    length = len(payload) if header.kind == DEFLATED else len(payload) // 4
    return b"".join([*parts, _count(length), payload])


def unpacked(content: bytes) -> tuple[Header, bytes]:
    """Take a file apart.

    Args:
        content: Its bytes.

    Returns:
        (header, payload).

    Raises:
        CompressionError: If it is no such file, of another version, cut off or too long.
    """
    if content[:4] != MAGIC:
        raise CompressionError(f"expected a file that starts with {MAGIC!r}, got {content[:4]!r}")
    reader = _Reader(content, 4)
    version, kind = reader.take(2)
    if version != VERSION or kind > LOSSY:
        raise CompressionError(
            f"expected version {VERSION} and a kind up to {LOSSY}, got version {version}, kind "
            f"{kind}"
        )
    coder = reader.take(4)
    height, width, channels = reader.take(3)
    n = reader.count()
    (checksum,) = struct.unpack("<I", reader.take(4))
    if n * height * width * channels > MOST_VALUES:
        raise CompressionError(f"{n} images of {height} x {width} x {channels} are too many")
    sizes: tuple[int, ...] = ()
    reach = 0
    if kind in (VALUES, CENTRED, BITS_BACK):
        (reach,) = reader.take(1)
        sizes = tuple(reader.count() for _ in range(min(reader.count(), n)))
        if sum(sizes) != n or reach > 254 or max(sizes, default=0) > MOST_AT_A_TIME:
            raise CompressionError(f"damaged: expected {n} images, its parts have {sum(sizes)}")
    length = reader.count() * (1 if kind == DEFLATED else 4)
    payload = content[reader.place :]
    if len(payload) != length:
        raise CompressionError(
            f"cut off or damaged: expected {length} more bytes, got {len(payload)}"
        )
    return Header(kind, coder, (height, width, channels), n, checksum, sizes, reach), payload


class _Reader:
    """Bytes from a place on."""

    def __init__(self, content: bytes, place: int) -> None:
        self._content, self.place = content, place

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        part = self._content[self.place : self.place + n]
        if len(part) != n:
            raise CompressionError(f"cut off after {len(self._content)} bytes")
        self.place += n
        return part

    def count(self) -> int:
        """The next count."""
        value = 0
        for place in range(0, 63, 7):
            (byte,) = self.take(1)
            value |= (byte & 127) << place
            if byte < 128:
                return value
        raise CompressionError("damaged: a count of more than 63 bits")


def _count(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
