"""Compression of small 8-bit images with a coder that was trained on images like them.

Without loss by `fit_coder`, `compress` and `decompress`; with loss by `fit_lossy_coder` and the
methods of `LossyCoder`. Needs the package constriction.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from vaeaug.compression.coder import ImageCoder
from vaeaug.compression.errors import CompressionError
from vaeaug.compression.files import (
    Compressed,
    compress,
    decompress_exactly,
    read_compressed,
    write_compressed,
)
from vaeaug.compression.fit import fit_coder
from vaeaug.compression.lossy import FORMAT as LOSSY_FORMAT
from vaeaug.compression.lossy import QUALITIES, LossyCoder, fit_lossy_coder
from vaeaug.compression.storage import read_coder
from vaeaug.generator import Synthesizer

__all__ = [
    "QUALITIES",
    "Compressed",
    "CompressionError",
    "ImageCoder",
    "LossyCoder",
    "compress",
    "decompress",
    "fit_coder",
    "fit_lossy_coder",
    "load_coder",
    "read_compressed",
    "write_compressed",
]


def decompress(
    content: bytes, coder: ImageCoder | LossyCoder | None
) -> tuple[UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"]]:
    """Decompress what `compress` or `LossyCoder.compress` made.

    Args:
        content: The file.
        coder: The coder that it was made with; a deflated file needs none.

    Returns:
        (images, labels): the same as were compressed, or with loss the images approximately.

    Raises:
        CompressionError: If the file is damaged, cut off or made with another coder.
    """
    if isinstance(coder, LossyCoder):
        return coder.decompress(content)
    return decompress_exactly(content, coder)


def load_coder(path: str | Path, generator: Synthesizer | None = None) -> ImageCoder | LossyCoder:
    """Read a coder of either kind.

    Args:
        path: What `ImageCoder.save` or `LossyCoder.save` wrote.
        generator: The generator that it was trained with; a coder without one takes None too.

    Returns:
        The coder.

    Raises:
        CompressionError: If the file is no coder, or one of another generator.
    """
    head, _, _ = read_coder(path)
    if head["format"] != LOSSY_FORMAT:
        return ImageCoder.load(path, generator)
    if generator is None:
        raise CompressionError(
            f"{path}: expected the generator {str(head['generator_sha256'])[:12]} that the lossy "
            f"coder was trained with, got none"
        )
    return LossyCoder.load(path, generator)
