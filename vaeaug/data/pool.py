"""`read_pool`: images without labels, in the shape, type and range of labelled ones."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.dataset import DataError, LabelledImages, extent
from vaeaug.data.decode import ENDINGS as PICTURES
from vaeaug.data.foreign_arrays import as_array, is_array
from vaeaug.data.formats.audio import ENDINGS as SOUNDS
from vaeaug.data.formats.hdf5 import load_hdf5_images
from vaeaug.data.formats.idx import has_idx, is_idx, load_idx_images
from vaeaug.data.formats.media import read_media
from vaeaug.data.formats.npz import load_npy, load_npz_images
from vaeaug.data.formats.walk import notes_on, walk
from vaeaug.data.pixels import finish_pixels
from vaeaug.data.request import Request, make_request
from vaeaug.data.splits import begins, canonical, require_split, without_splits
from vaeaug.data.values import CONVENTIONS
from vaeaug.memory import memory_errors

log = logging.getLogger("vaeaug")

_ENDINGS = (".npz", ".npy", ".h5", ".hdf5")
# The axes of an array as stored that has the rank of the labelled data's without channels.
_WITHOUT_CHANNELS = {"NLC": "NL", "NHWC": "NHW", "NDHWC": "NDHW"}
_Pixels = tuple[Shaped[np.ndarray, "m *space c"], tuple[float, float]]


def read_pool(
    source: "str | os.PathLike[str] | np.ndarray | LabelledImages | Any",
    like: LabelledImages,
    *,
    split: str = "train",
    size: int | Sequence[int] | None = None,
    keys: Mapping[str, str] | None = None,
    alpha: str = "composite",
    workers: int | None = None,
    progress: bool = False,
    class_names: Sequence[str] | None = None,
    layout: str | None = None,
    value_range: Sequence[float] | None = None,
    resize: str = "crop",
    mode: str | None = None,
    on_error: str = "raise",
) -> Shaped[np.ndarray, "m *space c"]:
    """Read images without labels, as `LabelledImages.with_unlabelled` takes them.

    Args:
        source: one of

            - an array or tensor of images;
            - a folder of image or sound files at any depth; class folders mean nothing, hidden
              files are left out, and where folders directly below it are named as splits, only
              those of `split` are read;
            - a folder of MNIST's IDX files, or one IDX file of images;
            - `.npy`; `.npz` or HDF5, with labels or without: the array named by `keys`, or
              `unlabelled[_images]`, or the images of `split`, or the only array;
            - a `LabelledImages`: all of its images, labelled or not.
        like: the labelled data that the pool goes with.
        split: as for `read`.
        size: as for `read`; the images must come out in the shape of those of `like`.
        keys: {"images": name}; a name of labels is allowed and not used.
        alpha: as for `read`.
        workers: as for `read`.
        progress: as for `read`.
        class_names: not used; here so that the options of `read` fit.
        layout: as for `read`; without it an array of fewer axes is what `like` is: (N, L, C) is
            signals and (N, D, H, W) volumes where `like` has such.
        value_range: as for `read`; without it, where the values keep to no convention, they are
            taken to be in the range of `like` if they lie in it.
        resize: as for `read`.
        mode: as for `read`.
        on_error: as for `read`.

    Returns:
        The images, shape (M, *like.image_shape), in the type and value range of `like`.

    Raises:
        DataError: naming the source, what `like` expects and what was found.
    """
    request = make_request(
        split=split,
        size=size,
        keys=keys,
        alpha=alpha,
        workers=workers,
        progress=progress,
        class_names=class_names,
        layout=layout,
        value_range=value_range,
        resize=resize,
        mode=mode,
        on_error=on_error,
        needed_keys=("images",),
    )
    if isinstance(source, LabelledImages):
        parts = [part for part in (source.images, source.unlabelled) if part is not None]
        where = source.source or "LabelledImages"
        return _fitted(np.concatenate(parts), source.value_range, like, where)
    if is_array(source):
        where, (images, value_range) = (
            "array",
            _finished(as_array(source, "array"), "array", request, like),
        )
    elif isinstance(source, str | os.PathLike) and source != "":
        where = str(source)
        with memory_errors(source, DataError):
            images, value_range = _read_path(Path(source), request, like)
    else:
        raise DataError(
            f"pool: expected a path, an array or tensor of images or a LabelledImages, got "
            f"{source if source == '' else type(source).__name__!r}"
        )
    return _fitted(images, value_range, like, where)


def _read_path(path: Path, request: Request, like: LabelledImages) -> _Pixels:
    if path.is_dir():
        if not has_idx(path):
            return _read_tree(path, request)
        images, where = load_idx_images(path, request.split)
        return _finished(images, where, request, like)
    if not path.exists():
        raise DataError(f"{path}: expected a file or a folder of images, got nothing at this path")
    if not path.is_file():
        raise DataError(f"{path}: expected a file or a folder of images, got a pipe or a device")
    ending = path.suffix.lower()
    if ending == ".npy":
        return _finished(load_npy(path), str(path), request, like)
    if ending == ".npz":
        return _finished(*load_npz_images(path, request), request, like)
    if ending in (".h5", ".hdf5"):
        images, where, layout = load_hdf5_images(path, request)
        return _finished(images, where, request, like, layout)
    if is_idx(path):
        images, where = load_idx_images(path, request.split)
        return _finished(images, where, request, like)
    raise DataError(
        f"{path}: expected a folder of images, IDX images, or a file ending in "
        f"{', '.join(_ENDINGS)}, got a file ending in {ending or 'nothing'!r}"
    )


def _read_tree(root: Path, request: Request) -> _Pixels:
    splits: dict[str, list[Path]] = {}
    below = sorted(path for path in root.iterdir() if path.is_dir())
    said = {folder: canonical(folder.name) for folder in below}
    loose = {folder: begins(folder.name) for folder in below}
    # As in a folder of classes: trainA, testA, or seg_train, seg_test.
    if None not in loose.values() and len(set(loose.values())) > 1:
        said = loose
    for folder, split in said.items():
        if split is not None:
            splits.setdefault(split, []).append(folder)
    where = str(root)
    if splits:
        bases = splits[require_split(request.split, splits, where)]
    else:
        without_splits(request.split, where)
        bases = [root]
    endings = (*PICTURES, *SOUNDS)
    walks = [walk(str(base), endings) for base in bases]
    paths = [path for each in walks for path in each.paths]
    if not paths:
        raise DataError(
            f"{where}: expected image files at any depth (endings {' '.join(PICTURES)}), or sounds "
            f"({' '.join(SOUNDS)}), got none"
        )
    pixels, value_range, _, notes = read_media(paths, where, request)
    for note in (*notes_on(walks, where), *notes):
        log.info("pool: %s", note)
    return pixels, value_range


def _finished(
    array: Shaped[np.ndarray, "..."],
    where: str,
    request: Request,
    like: LabelledImages,
    layout: str | None = None,
) -> _Pixels:
    layout = request.layout or layout
    if layout is None and array.ndim == len(like.layout) - 1:
        layout = _WITHOUT_CHANNELS[like.layout]
    elif layout is None and like.layout == "NLC" and array.ndim == 3:
        layout = "NLC"
    images, value_range, notes = finish_pixels(array, where, request, layout=layout)
    for note in notes:
        log.info("pool: %s", note)
    return images, value_range


def _fitted(
    images: Shaped[np.ndarray, "m *space c"],
    value_range: tuple[float, float],
    like: LabelledImages,
    where: str,
) -> Shaped[np.ndarray, "m *space c"]:
    """The images if they are in the shape and units of `like`.

    Values are never rescaled: units that are the same (uint8 and float32 in 0..255) are converted,
    others refused.
    """
    if images.shape[1:] != like.image_shape:
        want, got = ("x".join(map(str, shape)) for shape in (like.image_shape, images.shape[1:]))
        advice = ""
        if images.ndim == 4 == like.images.ndim and images.shape[3] == like.image_shape[2]:
            advice = f"; pass size={like.image_shape[:2]} to resize"
        raise DataError(
            f"{where}: expected images of shape {want}, as the labelled ones, got {got}{advice}"
        )
    low, high = extent(images)
    # A range that is no convention was taken from values, and another sample has others.
    fitting = next((each for each in CONVENTIONS if each[0] <= low and high <= each[1]), None)
    floats = images.dtype == like.images.dtype == np.float32
    own_range = (like.value_range not in CONVENTIONS and floats) or fitting == like.value_range
    inside = like.value_range[0] <= low and high <= like.value_range[1]
    if not inside or (value_range != like.value_range and not own_range):
        raise DataError(
            f"{where}: expected values in the range {_pair(like.value_range)} of the labelled "
            f"images, got {low:g} to {high:g}, taken as of range {_pair(value_range)}; scale both "
            f"alike, or say value_range= of both"
        )
    if like.images.dtype == np.uint8 and images.dtype != np.uint8:
        whole = images.astype(np.uint8)
        if not np.array_equal(whole, images):
            raise DataError(
                f"{where}: expected whole numbers 0 to 255, as the labelled images (uint8), got "
                f"fractions; scale both alike"
            )
        return whole
    return np.ascontiguousarray(images.astype(like.images.dtype, copy=False))


def _pair(value_range: tuple[float, float]) -> str:
    return f"({value_range[0]:g}, {value_range[1]:g})"
