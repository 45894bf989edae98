"""NumPy `.npz` archives, never unpickled."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Shaped

from vaeaug.data._arrays import finish_pixels, normalise_labels
from vaeaug.data._images import DataError, LabelledImages
from vaeaug.data._keys import choose
from vaeaug.data._request import Request


def read_npz(path: Path, request: Request) -> LabelledImages:
    """Read an `.npz` file; see `read` for the names that its arrays may have."""
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
            pair = choose(names, request, where)
            raw_images = _member(archive, pair.images, where)
            raw_labels = _member(archive, pair.labels, where)
            reference = None if pair.reference is None else _member(archive, pair.reference, where)
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{where}: expected an .npz file (a zip archive of arrays), got {path.stat().st_size} "
            f"bytes that cannot be read: {error}"
        ) from error
    if raw_images.ndim and raw_labels.ndim and len(raw_images) != len(raw_labels):
        raise DataError(
            f"{where}: expected one label for each image, got {len(raw_images)} images in "
            f"{pair.images!r} and {len(raw_labels)} labels in {pair.labels!r}"
        )
    images, value_range, notes = finish_pixels(
        raw_images, f"{where}[{pair.images}]", size=request.size, alpha=request.alpha
    )
    labels, class_names = normalise_labels(
        raw_labels,
        f"{where}[{pair.labels}]",
        class_names=request.class_names,
        reference=reference,
    )
    return LabelledImages(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=pair.split,
        source=where,
        notes=(*pair.notes, *notes),
    )


def _member(archive: zipfile.ZipFile, key: str, where: str) -> Shaped[np.ndarray, "..."]:
    """One array; its header is checked before any data is read."""
    info = archive.getinfo(f"{key}.npy")
    try:
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise ValueError(f"array format version {version} is for structured arrays")  # noqa: TRY301
            if dtype.hasobject:
                _refuse_object(key, where)
            expected = file.tell() + math.prod(shape) * dtype.itemsize
            if info.file_size != expected:
                raise ValueError(  # noqa: TRY301
                    f"its header says {expected} bytes ({dtype}, shape {shape}), it has "
                    f"{info.file_size}"
                )
            file.seek(0)
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    except DataError:
        raise
    except (ValueError, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise DataError(f"{where}[{key}]: expected a NumPy array, got: {error}") from error
    return array


def _refuse_object(key: str, where: str) -> NoReturn:
    raise DataError(
        f"{where}[{key}]: expected numbers or text, but it is an object array, which needs pickle; "
        f"never loaded, because a pickle can run any code; save it again with a numeric dtype"
    )
