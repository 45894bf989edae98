"""`read_pool`: images without labels, in the shape, type and range of labelled ones."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.checks import DataError, Range, extent
from vaeaug.data.dataset import LabelledImages
from vaeaug.data.decode import ENDINGS as IMAGE_ENDINGS
from vaeaug.data.finish import RawImages, finish_images
from vaeaug.data.foreign_arrays import as_array, is_array
from vaeaug.data.formats.audio import ENDINGS as SOUND_ENDINGS
from vaeaug.data.formats.hdf5 import read_hdf5_images
from vaeaug.data.formats.idx import has_idx, is_idx, read_idx_images
from vaeaug.data.formats.media import MEDIA_ENDINGS, decode_media
from vaeaug.data.formats.npz import load_npy, read_npz_images
from vaeaug.data.formats.video import ENDINGS as VIDEO_ENDINGS
from vaeaug.data.formats.walk import walk, walk_notes
from vaeaug.data.request import Cache, Request, make_request
from vaeaug.data.split_names import begins, canonical, require_split, without_splits
from vaeaug.data.values import CONVENTIONS
from vaeaug.engines import Engine
from vaeaug.memory import memory_errors

log = logging.getLogger("vaeaug")

_ENDINGS = (".npz", ".npy", ".h5", ".hdf5")
# The axes of an array as stored that has the rank of the labelled data's without channels.
_WITHOUT_CHANNELS = {"NLC": "NL", "NHWC": "NHW", "NDHWC": "NDHW"}


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
    frames: int | None = None,
    frame_step: int = 1,
    sample_rate: int | None = None,
    cache: "str | os.PathLike[str] | Cache | None" = None,
    engine: Engine | str | None = None,
) -> Shaped[np.ndarray, "m *space c"]:
    """Read images without labels, as `LabelledImages.with_unlabelled` takes them.

    Args:
        source: One of

            - an array or tensor of images;
            - a folder of image or sound files at any depth; class folders mean nothing, hidden
              files are left out, and where folders directly below it are named as splits, only
              those of `split` are read;
            - a folder of MNIST's IDX files, or one IDX file of images;
            - `.npy`; `.npz` or HDF5, with labels or without: the array named by `keys`, or
              `unlabelled[_images]`, or the images of `split`, or the only array;
            - a `LabelledImages`: all of its images, labelled or not.
        like: The labelled data that the pool goes with.
        split: As for `read`.
        size: As for `read`; the images must come out in the shape of those of `like`.
        keys: {"images": name}; a name of labels is allowed and not used.
        alpha: As for `read`.
        workers: As for `read`.
        progress: As for `read`.
        class_names: Not used; here so that the options of `read` fit.
        layout: As for `read`; without it an array of fewer axes is what `like` is: (N, L, C) is
            signals and (N, D, H, W) volumes where `like` has such.
        value_range: As for `read`; without it, where the values keep to no convention, they are
            taken to be in the range of `like` if they lie in it.
        resize: As for `read`.
        mode: As for `read`.
        on_error: As for `read`.
        frames: As for `read`.
        frame_step: As for `read`.
        sample_rate: As for `read`; without it, that of `like`.
        cache: As for `read`.
        engine: As for `read`.

    Returns:
        The images, shape (M, *like.image_shape), in the type and value range of `like`.

    Raises:
        DataError: Naming the source, what `like` expects and what was found.
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
        frames=frames,
        frame_step=frame_step,
        sample_rate=sample_rate or like.sample_rate,
        cache=cache,
        engine=engine,
        needed_keys=("images",),
    )
    if isinstance(source, LabelledImages):
        parts = [part for part in (source.images, source.unlabelled) if part is not None]
        where = source.source or "LabelledImages"
        return _match(np.concatenate(parts), source.value_range, like, where)
    with memory_errors(source, DataError):
        raw = _read_raw(source, request)
        finished = finish_images(_with_layout_of(like, raw, request), request)
    for note in (*raw.notes, *finished.notes):
        log.info("pool: %s", note)
    where = str(source) if isinstance(source, str | os.PathLike) else raw.source
    return _match(finished.images, finished.value_range, like, where)


def _read_raw(source: Any, request: Request) -> RawImages:
    if is_array(source):
        return RawImages(source="array", images=as_array(source, "array"))
    if isinstance(source, str | os.PathLike) and source != "":
        return _read_path(Path(source), request)
    raise DataError(
        f"pool: expected a path, an array or tensor of images or a LabelledImages, got "
        f"{source if source == '' else type(source).__name__!r}"
    )


def _read_path(path: Path, request: Request) -> RawImages:
    if path.is_dir():
        return read_idx_images(path, request) if has_idx(path) else _read_tree(path, request)
    if not path.exists():
        raise DataError(f"{path}: expected a file or a folder of images, got nothing at this path")
    if not path.is_file():
        raise DataError(f"{path}: expected a file or a folder of images, got a pipe or a device")
    ending = path.suffix.lower()
    if ending == ".npy":
        return RawImages(source=str(path), images=load_npy(path))
    if ending == ".npz":
        return read_npz_images(path, request)
    if ending in (".h5", ".hdf5"):
        return read_hdf5_images(path, request)
    if is_idx(path):
        return read_idx_images(path, request)
    raise DataError(
        f"{path}: expected a folder of images, IDX images, or a file ending in "
        f"{', '.join(_ENDINGS)}, got a file ending in {ending or 'nothing'!r}"
    )


def _read_tree(root: Path, request: Request) -> RawImages:
    """The image or sound files below a folder, or below its folders of the requested split."""
    below = sorted(path for path in root.iterdir() if path.is_dir())
    split_of = {folder: canonical(folder.name) for folder in below}
    by_beginning = {folder: begins(folder.name) for folder in below}
    # As in a folder of classes: trainA, testA, or seg_train, seg_test.
    if None not in by_beginning.values() and len(set(by_beginning.values())) > 1:
        split_of = by_beginning
    where, bases = str(root), [root]
    splits = {split for split in split_of.values() if split is not None}
    if splits:
        wanted = require_split(request.split, splits, where)
        bases = [folder for folder, split in split_of.items() if split == wanted]
    else:
        without_splits(request.split, where)
    walks = [walk(str(base), MEDIA_ENDINGS) for base in bases]
    paths = [path for result in walks for path in result.paths]
    if not paths:
        raise DataError(
            f"{where}: expected image files at any depth (endings {' '.join(IMAGE_ENDINGS)}), or "
            f"sounds ({' '.join(SOUND_ENDINGS)}) or videos ({' '.join(VIDEO_ENDINGS)}), got none"
        )
    decode = partial(decode_media, paths, where, request)
    return RawImages(source=where, images=decode, notes=walk_notes(walks, where))


def _with_layout_of(like: LabelledImages, raw: RawImages, request: Request) -> RawImages:
    """An array without stated axes has those of the labelled data, as far as its rank allows."""
    layout = request.layout or raw.metadata.layout
    if layout is not None or not isinstance(raw.images, np.ndarray):
        return raw
    rank = raw.images.ndim
    if rank == len(like.layout) - 1:
        layout = _WITHOUT_CHANNELS[like.layout]
    elif rank == 3 and like.layout == "NLC":
        layout = "NLC"
    return replace(raw, metadata=replace(raw.metadata, layout=layout))


def _match(
    images: Shaped[np.ndarray, "m *space c"],
    value_range: Range,
    like: LabelledImages,
    where: str,
) -> Shaped[np.ndarray, "m *space c"]:
    """The images if they are in the shape and units of `like`.

    Values are never rescaled: units that are the same (uint8 and float32 in 0..255) are converted,
    others refused.
    """
    if images.shape[1:] != like.image_shape:
        expected, got = (
            "x".join(map(str, shape)) for shape in (like.image_shape, images.shape[1:])
        )
        advice = ""
        if images.ndim == 4 == like.images.ndim and images.shape[3] == like.image_shape[2]:
            advice = f"; pass size={like.image_shape[:2]} to resize"
        raise DataError(
            f"{where}: expected images of shape {expected}, as the labelled ones, got {got}{advice}"
        )
    low, high = extent(images)
    # A range that is no convention was taken from values, and another sample has others.
    convention = next((c for c in CONVENTIONS if c[0] <= low and high <= c[1]), None)
    is_float = images.dtype == like.images.dtype == np.float32
    is_free = is_float and like.value_range not in CONVENTIONS
    is_same = value_range == like.value_range or is_free or convention == like.value_range
    if not (is_same and like.value_range[0] <= low and high <= like.value_range[1]):
        raise DataError(
            f"{where}: expected values in the range {_pair(like.value_range)} of the labelled "
            f"images, got {low:g} to {high:g}, interpreted as range {_pair(value_range)}; scale "
            f"both alike, or pass value_range= for both"
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


def _pair(value_range: Range) -> str:
    return f"({value_range[0]:g}, {value_range[1]:g})"
