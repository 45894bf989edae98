"""Images to bytes and back without loss, and the files of both coders."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from vaeaug.compression import container
from vaeaug.compression.coder import LATENTS, ImageCoder
from vaeaug.compression.container import Header, checksum_of
from vaeaug.compression.entropy import BitStack
from vaeaug.compression.errors import CompressionError
from vaeaug.compression.levels import rounded_to
from vaeaug.files import new_file, read_whole

_KINDS = dict(zip(LATENTS, (container.VALUES, container.CENTRED, container.BITS_BACK), strict=True))


@dataclass(frozen=True)
class Compressed:
    """A compressed file and what it took.

    Attributes:
        content: The file.
        n_values: Values of the images.
        method: How the images were coded: a member of `LATENTS`, or "deflate" where the coder
            would have made a larger file, or one that it could not decode.
    """

    content: bytes
    n_values: int
    method: str

    @property
    def bits_per_value(self) -> float:
        """Bits of the whole file for each value of the images."""
        return 8 * len(self.content) / max(1, self.n_values)


def compress(
    coder: ImageCoder,
    images: UInt8[np.ndarray, "n h w c"],
    labels: Int64[np.ndarray, " n"],
    *,
    levels: int | None = None,
    verify: bool = True,
) -> Compressed:
    """Compress images, without loss unless fewer gray levels are asked for.

    Args:
        coder: Trained on images like them.
        images: uint8, of the coder's shape, in any order.
        labels: Their classes, which are stored with them.
        levels: Round values to so many gray levels from black to white before, 2 to 255: no value
            changes by more than half their distance, and half a level. A coder that was trained
            for it (``fit_coder(rounded=1)``) makes smaller files.
        verify: Decode the file and compare; doubles the time.

    Returns:
        The file. It is never larger than the deflated images and 30 bytes.

    Raises:
        CompressionError: If images or labels do not fit the coder, or levels is out of range.
    """
    images, labels = _checked(coder, images, labels)
    if images.size > container.MOST_VALUES:
        raise CompressionError(
            f"compress: expected up to {container.MOST_VALUES:,} values a file, got {images.size:,}"
        )
    reach, known = 0, None
    if levels is not None:
        if not 2 <= levels <= 255:
            raise CompressionError(f"compress: expected 2 to 255 levels, got {levels}")
        reach = levels - 1
        known = 3 * reach
        images = rounded_to(images, reach)[0]
    checksum = checksum_of(images, labels)
    shape = coder.context.image_shape
    stack, sizes, _ = coder.encode(images, labels, known)
    words = stack.words
    n, kind = len(images), _KINDS[coder.latents]
    head = Header(kind, digest_of(coder), shape, n, checksum, tuple(sizes), reach)
    content = container.packed(head, words.astype("<u4").tobytes())
    plain = container.packed(
        Header(container.DEFLATED, bytes(4), shape, len(images), checksum),
        zlib.compress(images.tobytes() + labels.astype("<i8").tobytes(), 9),
    )
    method = str(coder.latents)
    if len(plain) < len(content) or (verify and not _decodes(coder, content)):
        content, method = plain, "deflate"
    return Compressed(content, images.size, method)


def decompress_exactly(
    content: bytes, coder: ImageCoder | None
) -> tuple[UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"]]:
    """Decompress what `compress` made.

    Args:
        content: The file.
        coder: The coder that it was made with; a deflated file needs none.

    Returns:
        (images, labels), the same as were compressed, after rounding if that was asked for.

    Raises:
        CompressionError: If the file is damaged, cut off or made with another coder. Images that
            differ from those that were compressed are never returned.
    """
    header, payload = container.unpacked(content)
    if header.kind == container.DEFLATED:
        images, labels = _inflated(header, payload)
    else:
        if header.kind not in _KINDS.values():
            raise CompressionError("expected a file that was compressed without loss")
        latents = LATENTS[list(_KINDS.values()).index(header.kind)]
        checked = check_coder(coder, header)
        if latents != checked.latents:
            raise CompressionError(f"damaged: its latents are {latents}, not {checked.latents}")
        words = np.frombuffer(payload, "<u4").astype(np.uint32)
        try:
            stack = BitStack(words)
            images, labels = checked.decode(stack, list(header.sizes), 3 * header.reach or None)
        except (ValueError, IndexError, OverflowError) as error:
            # Damage leads anywhere, such as to words that no stack ends with.
            raise CompressionError(f"damaged: {error}") from error
        if not stack.is_empty:
            raise CompressionError("damaged: bits are left over")
    if checksum_of(images, labels) != header.checksum:
        raise CompressionError(
            "damaged, or decoded by a machine that computes differently: the checksum of the "
            "decoded images is not that of the file"
        )
    return images, labels


def write_compressed(path: str | Path, content: bytes) -> Path:
    """Write a compressed file.

    Args:
        path: The file, replaced whole.
        content: What `compress` or `LossyCoder.compress` gave.

    Returns:
        The path.
    """
    path = Path(path)
    with new_file(path) as file:
        file.write(content)
    return path


def read_compressed(path: str | Path) -> bytes:
    """Read a compressed file.

    Args:
        path: The file, of at most 256 MiB.

    Returns:
        Its content.
    """
    return read_whole(Path(path))


def digest_of(coder: ImageCoder) -> bytes:
    """The first four bytes of a coder's hash.

    Args:
        coder: The coder.

    Returns:
        Four bytes.
    """
    return bytes.fromhex(coder.sha256)[:4]


def check_coder(coder: ImageCoder | None, header: Header) -> ImageCoder:
    """Refuse a coder other than the one a file was made with.

    Args:
        coder: The coder, or None.
        header: Of the file.

    Returns:
        The coder.

    Raises:
        CompressionError: If it is another one.
    """
    got = "none" if coder is None else digest_of(coder).hex()
    if coder is None or digest_of(coder) != header.coder:
        raise CompressionError(
            f"expected the coder {header.coder.hex()} that the file was made with, got {got}"
        )
    if coder.context.image_shape != header.image_shape:
        raise CompressionError(f"damaged: its images are of shape {header.image_shape}")
    return coder


def _checked(
    coder: ImageCoder, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    shape, k = coder.context.image_shape, len(coder.class_counts)
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise CompressionError(
            f"compress: expected uint8 images of shape (n, {', '.join(map(str, shape))}), got "
            f"{images.dtype} of shape {images.shape}"
        )
    labels = np.asarray(labels, np.int64)
    if labels.shape != (len(images),):
        raise CompressionError(
            f"compress: expected {len(images)} labels, got labels of shape {labels.shape}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < k:
        raise CompressionError(
            f"compress: expected labels from 0 to {k - 1}, got {labels.min()} to {labels.max()}"
        )
    return np.ascontiguousarray(images), labels


def _decodes(coder: ImageCoder, content: bytes) -> bool:
    try:
        decompress_exactly(content, coder)
    except CompressionError:
        return False
    return True


def _inflated(header: Header, payload: bytes) -> tuple[np.ndarray, np.ndarray]:
    size = header.n * int(np.prod(header.image_shape))
    try:
        reader = zlib.decompressobj()
        raw = reader.decompress(payload, size + 8 * header.n + 1)
    except zlib.error as error:
        raise CompressionError(f"damaged: {error}") from error
    if len(raw) != size + 8 * header.n:
        raise CompressionError(f"damaged: expected {size} values, got {len(raw) - 8 * header.n}")
    images = np.frombuffer(raw[:size], np.uint8).reshape(header.n, *header.image_shape)
    return images.copy(), np.frombuffer(raw[size:], "<i8").astype(np.int64)
