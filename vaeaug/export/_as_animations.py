"""Export of clips as a folder of animations for each class, with a metadata table."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vaeaug.export._as_imagefolder import NOTE, write_files
from vaeaug.export._samples import ExportError, Samples
from vaeaug.report import are_clips, gif_bytes

_LOAD = """
import vaeaug

vaeaug.read(".", frames={frames}, mode="{mode}")
"""


def write_gifs(samples: Samples, path: Path) -> None:
    """Write `<class>/<row>.gif` and, beside them, what `write_imagefolder` writes.

    Gray clips are kept exactly; those in colour have 256 colours each.

    Args:
        samples: The samples.
        path: The folder to write.

    Raises:
        ExportError: If the samples are no clips of 8 bits in gray or colour.
    """
    shape = samples.image_shape
    if not are_clips(shape) or samples.dtype != np.uint8 or shape[-1] not in (1, 3):
        raise ExportError(
            f"gif: expected clips or volumes (frames, height, width, channels) of uint8 with 1 or "
            f"3 channels, got {samples.dtype} of shape {shape}; write npz, webdataset or "
            f"huggingface, which keep any samples exactly"
        )
    load = _LOAD.format(frames=shape[0], mode="L" if shape[-1] == 1 else "RGB")
    write_files(samples, path, ending="gif", encode=_gif, load=load, note=NOTE)


def _gif(clip: UInt8[np.ndarray, "t h w c"]) -> bytes:
    from PIL import Image

    return gif_bytes(
        [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in clip]
    )
