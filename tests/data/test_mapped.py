"""Samples that take more than half of the memory are mapped from a file, and are read as ever."""

import mmap
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from small_job import tiny_config

import vaeaug
from vaeaug import memory
from vaeaug.data import DataError
from vaeaug.training._batches import Batches, resolve_device


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Half of it holds fewer than the images below."""
    monkeypatch.setattr(memory, "available_memory", lambda: 100_000)
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv(memory.CACHE, str(folder))
    return folder


def is_mapped(array: np.ndarray) -> bool:
    base = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return isinstance(base, mmap.mmap)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty images of two classes, 92,160 bytes."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 256, (16, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def test_image_files_are_mapped_and_the_same(folder, little_memory, monkeypatch, caplog):
    caplog.set_level("INFO")
    mapped = vaeaug.read(folder)
    assert is_mapped(mapped.images)
    assert f"they are kept in a file in {little_memory}, which is mapped" in caplog.text
    # It has no name: nothing is left, however the process ends.
    assert list(little_memory.iterdir()) == []
    monkeypatch.undo()
    resident = vaeaug.read(folder)
    assert not is_mapped(resident.images)
    assert mapped.fingerprint == resident.fingerprint
    np.testing.assert_array_equal(mapped.images, resident.images)


def test_training_neither_copies_nor_changes_them(folder, little_memory):
    data = vaeaug.read(folder)
    fingerprint = data.fingerprint
    batches = Batches(data, tiny_config(), resolve_device("cpu"))
    assert batches.images.data_ptr() == data.images.ctypes.data
    vaeaug.fit(data, tiny_config(), device="cpu", progress=False)
    again = vaeaug.LabelledImages(data.images, data.labels, data.class_names, data.value_range)
    assert again.fingerprint == fingerprint


def test_hdf5_that_holds_them_is_mapped(folder, tmp_path, little_memory):
    data = vaeaug.read(folder)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["labels"] = data.images, data.labels
    again = vaeaug.read(tmp_path / "a.h5")
    assert is_mapped(again.images)
    np.testing.assert_array_equal(again.images, data.images)


def test_a_disk_that_cannot_hold_them_is_told(folder, little_memory, monkeypatch):
    monkeypatch.setenv(memory.CACHE, str(little_memory / "absent"))
    with pytest.raises(DataError, match=r"or a file in .*absent, got 60 images.*No such file"):
        vaeaug.read(folder)
