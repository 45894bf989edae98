"""`read`: finds out what the source is, and hands it to the reader of that kind."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeaug.data.checks import DataError
from vaeaug.data.dataset import LabelledImages
from vaeaug.data.decode import to_mode
from vaeaug.data.finish import RawData, finish
from vaeaug.data.foreign_arrays import is_array, is_frame, table_error
from vaeaug.data.formats.arrays import is_pair, read_mapping, read_pair
from vaeaug.data.formats.class_folders import read_folder
from vaeaug.data.formats.digits import read_digits
from vaeaug.data.formats.hdf5 import read_hdf5
from vaeaug.data.formats.huggingface import is_huggingface, is_saved, read_huggingface, read_saved
from vaeaug.data.formats.idx import has_idx, read_idx
from vaeaug.data.formats.metadata_table import has_metadata, read_metadata
from vaeaug.data.formats.npz import read_npz
from vaeaug.data.formats.table import read_table
from vaeaug.data.formats.tar import is_tar
from vaeaug.data.formats.torch_dataset import is_map_style, read_torch
from vaeaug.data.formats.webdataset import has_shards, read_webdataset
from vaeaug.data.pixels import check_frames, check_resizable, resize_all
from vaeaug.data.request import Cache, Request, make_request
from vaeaug.data.values import in_range
from vaeaug.engines import Engine
from vaeaug.memory import memory_errors

if TYPE_CHECKING:
    from torch.utils.data import Dataset

_BUILT_IN = {"digits": read_digits}
_BUILT_IN_NAMES = f"the built-in {', '.join(map(repr, _BUILT_IN))}"
_BY_ENDING = {
    ".npz": read_npz,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".csv": read_table,
    ".tsv": read_table,
    ".tar": read_webdataset,
}
_ARRAYS = (".npz", ".h5", ".hdf5", ".tar")
_TAKES_KEYS = f"{', '.join(_BY_ENDING)} files, mappings of arrays and Hugging Face datasets"
_TAKES_LAYOUT = f"{', '.join(_ARRAYS)} files, arrays, torch Datasets and Hugging Face datasets"


def read(
    source: "str | os.PathLike[str] | LabelledImages | Dataset[Any] | tuple[Any, Any]",
    *,
    split: str = "train",
    size: int | Sequence[int] | None = None,
    keys: Mapping[str, str] | None = None,
    alpha: str = "composite",
    workers: int | None = None,
    progress: bool = True,
    class_names: Sequence[str] | None = None,
    layout: str | None = None,
    value_range: Sequence[float] | None = None,
    resize: str = "crop",
    mode: str | None = None,
    on_error: str = "raise",
    frames: int | None = None,
    frame_step: int = 1,
    sample_rate: int | None = None,
    front_end: str | None = None,
    cache: "str | os.PathLike[str] | Cache | None" = None,
    engine: Engine | str | None = None,
) -> LabelledImages:
    """Read labelled images, signals or volumes from whatever they are kept in.

    Images whose label is the number -1 are unlabelled: they become the pool `unlabelled` of the
    result, with a note.

    Args:
        source: One of

            - `"digits"`: scikit-learn's 8x8 digits; every fifth image of a class is a test image
              (write `./digits` for a folder of that name);
            - a folder `<class>/*.png` of images, or of sounds (`vaeaug[audio]`), with folders of
              splits (`train`, `val`, `test`, `training_set`, ...) above or not;
            - a folder of MNIST's IDX files, gzipped or not;
            - `.npz` or HDF5 with `train_images`/`train_labels` (MedMNIST), `x_train`/`y_train`,
              `images`/`labels`, `x`/`y`, and the like, or others named by `keys`;
            - `.csv` with rows of path and label, or with a header that names the columns of images
              (path, filename, image_id, ...), labels (label, class, target, ...) and, if wanted,
              the split, or others named by `keys`; images are looked for beside the table and in
              the folders beside it, with their ending or without;
            - a `datasets.Dataset` or `DatasetDict` of Hugging Face, or a folder that its
              `save_to_disk` wrote: images are the Image feature or a column of arrays, labels the
              ClassLabel or a column label, target, class, ..., or others named by `keys`;
              transforms set on it are not applied (`vaeaug[huggingface]`);
            - a folder with Hugging Face's `metadata.csv`, `.jsonl` or `.parquet` of file_name and
              label;
            - WebDataset archives (`vaeaug[webdataset]`): `one.tar`, `name-{000..003}.tar`, or a
              folder of them, where `train`, `val` and `test` folders or beginnings of names are
              splits. A sample is one image file or `.npy`, its label in `.cls` or as `label` in
              `.json`; class names from `classes.json` beside them or `class_name` in `.json`;
            - a map-style torch Dataset whose items begin with (image, label), with its transforms;
            - a tuple (images, labels) of arrays, tensors, lists or pandas Series; images may be a
              list of arrays, Pillow images or paths;
            - a mapping of such arrays, with the names that those of an `.npz` may have;
            - a `LabelledImages`, which is returned as it is (in another size, mode or range, if
              these are given).
        split: "train", "val", "test", or "all" where the source has no splits. Where it has
            splits, the requested one must exist; where it has none, "train" takes all of it.
        size: (height, width) in pixels, or one number for both, to resize to; of sounds, the number
            of samples. Without it, images of different sizes are an error.
        keys: {"images": name, "labels": name} of the arrays in an `.npz` or HDF5 file, the columns
            of a table or a Hugging Face dataset, or the endings of a WebDataset's members.
        alpha: "composite" transparency on white, "drop" it, or "keep" it as a fourth channel.
        workers: Processes that decode image files; 0 or 1 decodes in one thread of this one; None
            uses as many threads as the machine has cores, up to 8. The result is the same.
        progress: Show a bar on stderr while decoding, if that is a terminal.
        class_names: The names in the order of their labels, where the source states none or
            others; a class without images is then no error.
        layout: The axes of the arrays, or of a Dataset's items with N before them: NL, NLC, NCL
            (signals), NF (features of a network), NHW, NHWC, NCHW (images), NDHW, NDHWC, NCDHW
            (volumes or short video). Without it an HDF5 attribute `layout` states it, or the rank:
            (N, L), (N, 1, L) and (N, L, 1) are signals of one channel, (N, H, W) gray images, four
            axes images, five volumes. So (N, L, C) needs "NLC", (N, D, H, W) needs "NDHW", and
            images of other than 1, 3 or 4 channels "NHWC", which also keeps four channels that are
            no RGBA.
        value_range: (lowest, highest) value that the data can have, such as (0, 4095) of 12 bit.
            Without it the type and the values decide, with a note: what is read by itself, such as
            a test set, can then come out in another range, so pass it for both. A slight overshoot
            is clipped, with a note.
        resize: With `size`, how another aspect ratio is fitted: "crop" cuts the edges, "pad" fills
            with black, "stretch" distorts.
        mode: "RGB" or "L": colour or gray whatever the images are.
        on_error: "raise" an error that lists all files (or items) that cannot be read, or "skip"
            them, with a note that does.
        frames: Read this many frames of each animation (GIF, APNG, WebP, pages of a TIFF), which is
            an image of its first frame otherwise, and of each video. `resize` decides which:
            "crop" the middle ones, "stretch" some at equal distances, "pad" all, of no longer
            ones; after the end of a shorter one its last frame is held. None reads all frames of
            videos.
        frame_step: With `frames`, every how many frames one is read: 16 frames of every second one
            show the motion of 31.
        sample_rate: Of sounds, Hz: files of another rate are resampled to it. Of arrays of signals
            it says what their rate is. Without it, files of several rates are an error.
        front_end: "stft": generators learn spectrograms of the signals, and judges see them. The
            signals themselves stay as they are.
        cache: A folder that keeps decoded files, unpacked and resized, so that the next reading
            maps them from there. None: the one that the environment variable VAEAUG_CACHE names,
            or none. They are decoded anew where a file or an option has changed. The result is the
            same.
        engine: With "ray", or an engine of that name, image files are decoded on a Ray cluster,
            whose machines must see them at the same path. Others change nothing here: see
            `workers`. The result is the same.

    Returns:
        The images, uint8 or float32, shape (N, H, W, C) or (N, L, C) or (N, D, H, W, C), with
        labels, names and notes.

    Raises:
        DataError: Naming the file, what was expected and what was found.
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
        sample_rate=sample_rate,
        front_end=front_end,
        cache=cache,
        engine=engine,
    )
    if isinstance(source, LabelledImages):
        return _read_again(source, request)
    with memory_errors(source, DataError):
        data = finish(_read_raw(source, request), request)
    _require_two_classes(data)
    return data


def _read_raw(source: Any, request: Request) -> RawData:
    if is_pair(source):
        _refuse_keys(request, "arrays")
        return read_pair(source, request)
    if is_huggingface(source):
        return read_huggingface(source, request)
    if isinstance(source, Mapping):
        return read_mapping(source, request)
    if is_frame(source):
        raise table_error("source", f"a table of the columns {', '.join(map(str, source.columns))}")
    if is_array(source):
        raise DataError(
            f"source: expected images with their labels, as a tuple (images, labels), got "
            f"{type(source).__name__} alone of shape {tuple(source.shape)}"
        )
    if not isinstance(source, str | os.PathLike):
        if not is_map_style(source):
            raise DataError(
                f"source: expected a path, {_BUILT_IN_NAMES}, a LabelledImages, a tuple (images, "
                f"labels), a mapping of arrays or a map-style torch Dataset (with __len__ and "
                f"__getitem__), got {type(source).__name__}"
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


def _read_path(path: Path, request: Request) -> RawData:
    if path.is_dir():
        return _folder_reader(path, request)(path, request)
    # "name-{000..003}.tar" is no path, and stands for several.
    if is_tar(path) and "{" in str(path):
        return read_webdataset(path, request)
    if not path.exists():
        raise DataError(
            f"{path}: expected a file, a folder or {_BUILT_IN_NAMES}, got nothing at this path"
        )
    if not path.is_file():
        raise DataError(f"{path}: expected a file or a folder, got a pipe or a device")
    ending = path.suffix.lower()
    if ending not in _BY_ENDING:
        raise DataError(
            f"{path}: expected a folder, or a file ending in {', '.join(_BY_ENDING)}, got a file "
            f"ending in {ending or 'nothing'!r}; IDX files are read by their folder"
        )
    if ending not in _ARRAYS:
        _refuse_layout(request, str(path))
    return _BY_ENDING[ending](path, request)


def _folder_reader(path: Path, request: Request) -> Callable[[Path, Request], RawData]:
    """The reader of a folder: the more unmistakable its content, the earlier it is looked for."""
    if is_saved(path):
        return read_saved
    if has_shards(path):
        return read_webdataset
    _refuse_layout(request, str(path))
    if has_idx(path):
        _refuse_keys(request, str(path))
        return read_idx
    if has_metadata(path, request.keys):
        return read_metadata
    _refuse_keys(request, str(path))
    return read_folder


def _refuse_keys(request: Request, where: str) -> None:
    if request.keys is not None:
        raise DataError(f"{where}: keys= is for {_TAKES_KEYS}, got keys={request.keys}")


def _refuse_layout(request: Request, where: str) -> None:
    # The axes of image files are known.
    if request.layout not in (None, "NHWC"):
        raise DataError(
            f"{where}: layout= is for {_TAKES_LAYOUT}, expected none or 'NHWC' here, got "
            f"layout={request.layout!r}"
        )


def _read_again(data: LabelledImages, request: Request) -> LabelledImages:
    """What is read already, in the range, mode and size that are requested now."""
    where = data.source or "LabelledImages"
    if request.layout not in (None, data.layout):
        raise DataError(
            f"{where}: expected layout={request.layout!r}, got data of layout {data.layout!r}"
        )
    if request.size is not None:
        check_resizable(data.images, where)
    check_frames(data.images, where, request)
    value_range = request.value_range or data.value_range
    is_bands = request.alpha != "keep"
    notes: list[str] = []

    def again(part: np.ndarray) -> np.ndarray:
        if value_range != data.value_range:
            part, _, range_notes = in_range(part, where, value_range)
            notes.extend(range_notes)
        if data.layout != "NHWC":
            return part
        part = to_mode(part, request.mode, notes)
        return resize_all(part, request, value_range, notes, bands=is_bands)

    images = again(data.images)
    pool = None if data.unlabelled is None else again(data.unlabelled)
    data = data.as_sounds(request.sample_rate, request.front_end)
    if images is data.images and value_range == data.value_range:
        return data
    return replace(
        data,
        images=images,
        unlabelled=pool,
        value_range=value_range,
        notes=(*data.notes, *dict.fromkeys(notes)),
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
