"""Export as one `.npz` file, which ``numpy.load`` reads without pickle."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vaeaug.export._publish import published_file
from vaeaug.export._samples import Samples

# The earliest time of the zip format, so that the same samples give the same bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def write_npz(samples: Samples, path: Path) -> None:
    """Write all arrays; images are written block by block and are never all in memory.

    Args:
        samples: The samples.
        path: The file to write.
    """
    n = len(samples)
    arrays: dict[str, np.ndarray] = {
        "labels": samples.labels.astype("<i8"),
        "is_synthetic": samples.is_synthetic,
        "source_index": samples.source_index.astype("<i8"),
        "weight": samples.weight.astype("<f4"),
        "class_names": np.array(samples.class_names),
        "layout": np.array(samples.provenance["layout"]),
        "image_value_range": np.array(samples.provenance["image_value_range"], dtype="<f8"),
        "provenance": np.array(json.dumps(samples.provenance, sort_keys=True)),
    }
    with (
        published_file(path, needed=n * samples.image_bytes) as target,
        zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive,
    ):
        with _member(archive, "images") as file:
            dtype = samples.dtype.newbyteorder("<")
            _header(file, dtype, (n, *samples.image_shape))
            for _, images in samples.blocks():
                file.write(np.ascontiguousarray(images, dtype=dtype).data.cast("B"))
        if samples.soft_labels_at is not None:
            with _member(archive, "soft_labels") as file:
                _header(file, np.dtype("<f4"), (n, len(samples.class_names)))
                for start in range(0, n, 4096):
                    rows = np.arange(start, min(n, start + 4096))
                    file.write(samples.soft_labels_at(rows).astype("<f4").tobytes())
        for name, array in arrays.items():
            with _member(archive, name) as file:
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    info = zipfile.ZipInfo(f"{name}.npy", date_time=_NO_TIME)
    info.create_system, info.external_attr = 3, 0o644 << 16
    # The size is not known in advance: without force_zip64, a member is limited to 2 GiB.
    return archive.open(info, "w", force_zip64=True)


def _header(file: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
