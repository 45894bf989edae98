"""`read`: finds out what the source is and hands it to the reader of that kind."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeaug.data._arrays import check_resizable, resize_all
from vaeaug.data._digits import read_digits
from vaeaug.data._folder import read_folder
from vaeaug.data._hdf5 import read_hdf5
from vaeaug.data._huggingface import is_huggingface, is_saved, read_huggingface, read_saved
from vaeaug.data._idx import has_idx, read_idx
from vaeaug.data._images import DataError, LabelledImages
from vaeaug.data._memory import is_pair, read_pair
from vaeaug.data._metadata import has_metadata, read_metadata
from vaeaug.data._npz import read_npz
from vaeaug.data._request import Request, make_request
from vaeaug.data._table import read_table
from vaeaug.data._torch import is_map_style, read_torch
from vaeaug.data._webdataset import has_shards, is_tar, read_webdataset

if TYPE_CHECKING:
    from torch.utils.data import Dataset

_BUILT_IN = {"digits": read_digits}
_BY_ENDING = {
    ".npz": read_npz,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".csv": read_table,
    ".tsv": read_table,
    ".tar": read_webdataset,
}
_TAKES_KEYS = (".npz", ".h5", ".hdf5", ".tar")
_TAKES_LAYOUT = (
    f"{', '.join(_TAKES_KEYS)} files, pairs of arrays, torch Datasets and Hugging Face datasets"
)


def read(
    source: "str | os.PathLike[str] | LabelledImages | Dataset[Any] | tuple[Any, Any]",
    *,
    split: str = "train",
    size: int | Sequence[int] | None = None,
    keys: Mapping[str, str] | None = None,
    alpha: str = "composite",
    workers: int | None = None,
    progress: bool = False,
    class_names: Sequence[str] | None = None,
    layout: str | None = None,
) -> LabelledImages:
    """Read labelled images, signals or volumes from whatever they are kept in.

    Images whose label is the number -1 are unlabelled: they become the pool `unlabelled` of the
    result, with a note.

    Args:
        source: one of

            - `"digits"`: scikit-learn's 8x8 digits; every fifth image of a class is a test image
              (write `./digits` for a folder of that name);
            - a folder `<class>/*.png`, with `train`, `val` and `test` folders above or not;
            - a folder of MNIST's IDX files, gzipped or not;
            - `.npz` or HDF5 with `train_images`/`train_labels` (MedMNIST), `x_train`/`y_train`,
              `images`/`labels`, `x`/`y`, or others named by `keys`;
            - `.csv` with rows of path and label, or with a header that names the columns
              (path|file|filename|image, label|class|target, and optionally split);
            - a `datasets.Dataset` or `DatasetDict` of Hugging Face, or a folder that its
              `save_to_disk` wrote: images are the Image feature or a column of arrays, labels the
              ClassLabel or a column label|labels|target|class, or others named by `keys`;
              transforms set on it are not applied (`vaeaug[huggingface]`);
            - a folder with Hugging Face's `metadata.csv`, `.jsonl` or `.parquet` of file_name and
              label;
            - WebDataset archives (`vaeaug[webdataset]`): `one.tar`, `name-{000..003}.tar`, or a
              folder of them, where `train`, `val` and `test` folders or beginnings of names are
              splits. A sample is one image file or `.npy`, its label in `.cls` or as `label` in
              `.json`; class names from `classes.json` beside them or `class_name` in `.json`;
            - a map-style torch Dataset whose items begin with (image, label);
            - a tuple (images, labels) of arrays or tensors;
            - a `LabelledImages`, which is returned as it is (resized, if `size` says so).
        split: "train", "val", "test", or "all" where the source has no splits. Where it has
            splits, the asked one must exist; where it has none, "train" takes all of it.
        size: (height, width) in pixels, or one number for both, to resize to. Without it, images
            of different sizes are an error.
        keys: {"images": name, "labels": name} of the arrays in an `.npz` or HDF5 file, the columns
            of a Hugging Face dataset, or the endings of a WebDataset's members.
        alpha: "composite" transparency on white, "drop" it, or "keep" it as a fourth channel.
        workers: processes that decode image files; 0 or 1 decodes in this one; None uses the
            machine's cores when there are more than 2000 files. The result is the same.
        progress: show a bar on stderr while decoding, if that is a terminal.
        class_names: the names in the order of their labels, where the source does not say or says
            otherwise; a class without images is then no error.
        layout: the axes of the arrays, or of a Dataset's items with N before them: NL, NLC, NCL
            (signals), NHW, NHWC, NCHW (images), NDHW, NDHWC, NCDHW (volumes or short video).
            Without it an HDF5 attribute `layout` says it, or the rank: (N, L) is signals of one
            channel, (N, H, W) gray images, four axes images, five volumes. So (N, L, C) needs
            "NLC", (N, D, H, W) needs "NDHW", and images of other than 1, 3 or 4 channels "NHWC".

    Returns:
        The images, uint8 or float32, shape (N, H, W, C) or (N, L, C) or (N, D, H, W, C), with
        labels, names and notes.

    Raises:
        DataError: naming the file, what was expected and what was found.
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
    )
    if isinstance(source, LabelledImages):
        if layout not in (None, source.layout):
            raise DataError(
                f"{source.source or 'LabelledImages'}: expected layout={layout!r}, got data of "
                f"layout {source.layout!r}"
            )
        return source if request.size is None else _resized(source, request.size)
    try:
        data = _read_any(source, request)
    except MemoryError as error:
        raise DataError(
            f"{source if isinstance(source, str | os.PathLike) else type(source).__name__}: "
            f"expected what memory can hold, got more: {error or 'no memory is left'}"
        ) from error
    _require_two_classes(data)
    return data


def _read_any(source: Any, request: Request) -> LabelledImages:
    if is_pair(source):
        _refuse_keys(request, "arrays")
        return read_pair(source, request)
    if is_huggingface(source):
        return read_huggingface(source, request)
    if not isinstance(source, str | os.PathLike):
        if not is_map_style(source):
            raise DataError(
                f"source: expected a path, {_built_in_names()}, a LabelledImages or a map-style "
                f"torch Dataset (with __len__ and __getitem__), got {type(source).__name__}"
            )
        _refuse_keys(request, type(source).__name__)
        return read_torch(source, request)
    if source in _BUILT_IN:
        _refuse_keys(request, str(source))
        _refuse_layout(request, str(source))
        return _BUILT_IN[str(source)](request)
    # Path("") is the current folder, which an unset shell variable should not select.
    if source == "":
        raise DataError("source: expected a path, got an empty text")
    return _read_path(Path(source), request)


def _read_path(path: Path, request: Request) -> LabelledImages:
    if path.is_dir():
        return _folder_reader(path, request)(path, request)
    # "name-{000..003}.tar" is no path, and stands for several.
    if is_tar(path) and "{" in str(path):
        return read_webdataset(path, request)
    if not path.exists():
        raise DataError(
            f"{path}: expected a file, a folder or {_built_in_names()}, got nothing at this path"
        )
    ending = path.suffix.lower()
    if ending not in _BY_ENDING:
        raise DataError(
            f"{path}: expected a folder, or a file ending in {', '.join(_BY_ENDING)}, got a file "
            f"ending in {ending or 'nothing'!r}; IDX files are read by their folder"
        )
    if ending not in _TAKES_KEYS:
        _refuse_keys(request, str(path))
        _refuse_layout(request, str(path))
    return _BY_ENDING[ending](path, request)


def _folder_reader(path: Path, request: Request) -> Callable[[Path, Request], LabelledImages]:
    """Who reads a folder: the more unmistakable its content, the earlier it is looked for."""
    if is_saved(path):
        return read_saved
    if has_shards(path):
        return read_webdataset
    _refuse_layout(request, str(path))
    if has_idx(path):
        _refuse_keys(request, str(path))
        return read_idx
    if has_metadata(path):
        return read_metadata
    _refuse_keys(request, str(path))
    return read_folder


def _refuse_keys(request: Request, where: str) -> None:
    if request.keys is not None:
        raise DataError(
            f"{where}: keys= is for {', '.join(_TAKES_KEYS)} files and Hugging Face datasets, got "
            f"keys={request.keys}"
        )


def _refuse_layout(request: Request, where: str) -> None:
    # Files of images say themselves what they are.
    if request.layout not in (None, "NHWC"):
        raise DataError(
            f"{where}: layout= is for {_TAKES_LAYOUT}, expected none or 'NHWC' here, got "
            f"layout={request.layout!r}"
        )


def _resized(data: LabelledImages, size: tuple[int, int]) -> LabelledImages:
    where = data.source or "LabelledImages"
    check_resizable(data.images, where)
    if data.image_shape[:2] == size:
        return data
    old, new = ("x".join(map(str, pair)) for pair in (data.image_shape[:2], size))
    pool = data.unlabelled
    return replace(
        data,
        images=resize_all(data.images, size, data.value_range),
        unlabelled=None if pool is None else resize_all(pool, size, data.value_range),
        notes=(*data.notes, f"resized from {old} to {new}"),
    )


def _require_two_classes(data: LabelledImages) -> None:
    present = np.flatnonzero(data.counts)
    if len(present) < 2:
        name = data.class_names[present[0]]
        raise DataError(
            f"{data.source}: expected images of at least two classes, got {len(data)} images, all "
            f"of class {name!r}; is this a class folder, whose parent should be given, or a "
            f"sorted file cut short?"
        )


def _built_in_names() -> str:
    return f"the built-in {', '.join(repr(name) for name in _BUILT_IN)}"
