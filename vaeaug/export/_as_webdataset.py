"""Export as WebDataset: tar archives of samples; writing them needs no library."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vaeaug.data.formats.tar import PAX_KEY
from vaeaug.export._card import write_beside
from vaeaug.export._publish import published_file, published_folder
from vaeaug.export._samples import Samples, npy_bytes, png_bytes

_TAR_BLOCK = 512
_HEADER_KEYS = ("class_names", "layout", "image_value_range")
_ORIGIN = ("data_fingerprint", "model_sha256", "config_sha256", "run_seed", "vaeaug_version")
_CARD = """
from glob import glob

import webdataset

shards = sorted(glob("shard-*.tar"))
dataset = webdataset.WebDataset(shards, shardshuffle=len(shards))
dataset = dataset.decode("pil").to_tuple({image}, "cls")
"""


def write_webdataset(samples: Samples, path: Path, *, seed: int, shard_bytes: int) -> None:
    """Write one archive, or a folder of archives of about `shard_bytes`, in random order.

    Trainers read archives from front to back, so that samples sorted by class would come in batches
    of one class. The key of a sample is its row in the order of the other formats.

    Args:
        samples: The samples.
        path: The file ``.tar`` or the folder to write.
        seed: Seed of the order.
        shard_bytes: Size at which a further archive is started.
    """
    order = np.random.default_rng(seed).permutation(len(samples))
    members = _members(samples, order)
    # Each of the three members has a header and, on average, half a block of padding.
    needed = len(samples) * (samples.image_bytes + 6 * _TAR_BLOCK)
    if path.suffix.lower() == ".tar":
        with published_file(path, needed=needed) as file:
            _write_archive(samples, file, members, max_bytes=None)
        return
    with published_folder(path, needed=needed) as folder:
        more, k = True, 0
        while more:
            with open(folder / f"shard-{k:06d}.tar", "wb") as file:
                more = _write_archive(samples, file, members, max_bytes=shard_bytes)
            k += 1
        image = '"png"' if samples.pictures else '"npy"'
        write_beside(samples, folder, load=_CARD.format(image=image))


Member = tuple[str, bytes, bool]  # name, content, whether it ends a sample


def _members(samples: Samples, order: np.ndarray) -> Iterator[Member]:
    width = len(str(len(samples) - 1))
    origin = {key: samples.provenance[key] for key in _ORIGIN}
    for rows, images in samples.blocks(order):
        soft = samples.soft_labels(rows)
        for i, (row, image) in enumerate(zip(rows.tolist(), images, strict=True)):
            key = f"{row:0{width}d}"
            record = samples.record(row)
            if soft is not None:
                record["soft_label"] = soft[i]
            if samples.pictures:
                yield f"{key}.png", png_bytes(image), False
            else:
                yield f"{key}.npy", npy_bytes(image), False
            yield f"{key}.cls", str(record["label"]).encode(), False
            document = json.dumps(record | {"provenance": origin}, ensure_ascii=False)
            yield f"{key}.json", document.encode(), True


def _write_archive(
    samples: Samples, file: BinaryIO, members: Iterator[Member], *, max_bytes: int | None
) -> bool:
    """Write samples until there are none or the archive is full.

    Returns:
        Whether samples may remain.
    """
    header = {key: samples.provenance[key] for key in _HEADER_KEYS}
    # It is stored in a global header because readers would take a member for a sample.
    with tarfile.open(
        fileobj=file,
        mode="w",
        format=tarfile.PAX_FORMAT,
        pax_headers={PAX_KEY: json.dumps(header, ensure_ascii=False)},
    ) as archive:
        for name, data, ends in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            # TarFile keeps a description of every member, which is not needed here.
            archive.members = []  # type: ignore[attr-defined]
            if ends and max_bytes is not None and file.tell() >= max_bytes:
                return True
    return False
