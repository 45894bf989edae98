"""Compression of small 8-bit images with a coder that was trained on images like them.

Without loss by `fit_coder`, `compress` and `decompress`; with loss by `fit_lossy_coder` and the
methods of `LossyCoder`. Needs the package constriction.
"""

from pathlib import Path

from vaeaug.compression.coder import ImageCoder
from vaeaug.compression.errors import CompressionError
from vaeaug.compression.files import (
    Compressed,
    compress,
    decompress,
    read_compressed,
    write_compressed,
    write_decompressed,
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
    "write_decompressed",
]


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
