"""Samples that take more than half of the memory are mapped from a file, and are read as ever.

Decoded files are kept where a cache is asked for, and beside the run where they are many.
"""

import io
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from small_job import tiny_config

import vaeaug
from vaeaug import mapping
from vaeaug.cli import main
from vaeaug.data import DataError
from vaeaug.mapping import is_mapped, release, will_need
from vaeaug.training._batches import Batches, resolve_device


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Half of it holds fewer than the images below."""
    monkeypatch.setattr(mapping, "available_memory", lambda: 100_000)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


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


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("contiguous.h5", "are mapped from the file itself"),
        ("gzip.h5", "they are kept in a file in"),
        ("packed.npz", "they are kept in a file in"),
        ("stored.npz", "they are kept in a file in"),
    ],
)
def test_arrays_of_files_are_mapped(name, how, folder, tmp_path, little_memory, caplog):
    data = vaeaug.read(folder)
    path, arrays = tmp_path / name, {"images": data.images, "labels": data.labels}
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for key, array in arrays.items():
                file.create_dataset(key, data=array, compression="gzip" if "gzip" in name else None)
    else:
        (np.savez_compressed if "packed" in name else np.savez)(path, **arrays)
    caplog.set_level("INFO")
    caplog.clear()
    again = vaeaug.read(path)
    assert how in caplog.text
    assert is_mapped(again.images)
    np.testing.assert_array_equal(again.images, data.images)
    vaeaug.fit(again, tiny_config(), device="cpu", progress=False)


def test_a_disk_that_cannot_hold_them_is_told(folder, little_memory, monkeypatch):
    (little_memory / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(little_memory / "file"))
    with pytest.raises(DataError, match=r"or a file in .*file, got 60 images.*ends with: "):
        vaeaug.read(folder)


def test_what_is_read_ahead_and_given_back_stays(folder, little_memory):
    images = vaeaug.read(folder).images
    before = images.copy()
    images[7] = 3  # a changed page too
    will_need(images, np.array([0, 59, 7]))
    release(images)
    will_need(before, np.arange(3))
    release(before)
    before[7] = 3
    np.testing.assert_array_equal(images, before)


def tar_of(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for number, image in enumerate(sorted(folder.rglob("*.png"))):
            label = str(int(image.parent.name == "dogs")).encode()
            for ending, content in (("png", image.read_bytes()), ("cls", label)):
                member = tarfile.TarInfo(f"{number:03}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def as_folder(folder: Path) -> Path:
    return folder


def as_archive(folder: Path) -> Path:
    return tar_of(folder, folder.parent / "a.tar")


@pytest.mark.parametrize("source_of", [as_folder, as_archive])
def test_a_cache_is_mapped_by_the_next_reading(
    source_of: Callable[[Path], Path], folder, tmp_path, caplog
):
    (folder / "cats" / "3.png").write_bytes(b"no image")
    source, cache = source_of(folder), tmp_path / "cache"
    fresh = vaeaug.read(source, on_error="skip")
    assert len(fresh) == 59
    for begins in ("the decoded files are kept in", f"{60 if source == folder else 1} decoded"):
        caplog.clear()
        caplog.set_level("INFO")
        kept = vaeaug.read(source, on_error="skip", cache=cache)
        assert begins in caplog.text
        assert is_mapped(kept.images)
        assert (kept.fingerprint, kept.notes) == (fresh.fingerprint, fresh.notes)
        np.testing.assert_array_equal(kept.labels, fresh.labels)
        assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".values"]
    with pytest.raises(ValueError, match="read-only"):
        kept.images[0] = 0


def _touch(folder: Path, cache: Path) -> dict[str, object]:
    os.utime(folder / "dogs" / "1.png", (1, 1))
    return {}


def _replace(folder: Path, cache: Path) -> dict[str, object]:
    Image.new("RGB", (32, 16)).save(folder / "dogs" / "1.png")
    return {}


def _resize(folder: Path, cache: Path) -> dict[str, object]:
    return {"size": 8}


def _shorten(folder: Path, cache: Path) -> dict[str, object]:
    (values,) = cache.glob("*.values")
    os.truncate(values, 1000)
    return {}


def _damage(folder: Path, cache: Path) -> dict[str, object]:
    (head,) = cache.glob("*.json")
    head.write_text(head.read_text().replace("16", "17"))
    return {}


@pytest.mark.parametrize("change", [_touch, _replace, _resize, _shorten, _damage])
def test_what_has_changed_is_decoded_anew(change, folder, tmp_path, caplog):
    cache = tmp_path / "cache"
    vaeaug.read(folder, cache=cache)
    options = change(folder, cache)
    caplog.set_level("INFO")
    again = vaeaug.read(folder, cache=cache, **options)
    assert "the decoded files are kept in" in caplog.text
    assert again.fingerprint == vaeaug.read(folder, **options).fingerprint
    # What was kept of files as they were is removed; that of another size is as good as before.
    assert len(list(cache.glob("*.values"))) == (2 if options else 1)


def test_a_generator_of_kept_files_is_the_same(folder, tmp_path, monkeypatch):
    monkeypatch.setenv(mapping.CACHE, str(tmp_path / "cache"))
    vaeaug.read(folder)
    kept = vaeaug.read(folder)
    monkeypatch.undo()
    resident = vaeaug.read(folder)
    assert (is_mapped(kept.images), is_mapped(resident.images)) == (True, False)
    generators = [
        vaeaug.fit(data, tiny_config(), device="cpu", progress=False) for data in (kept, resident)
    ]
    for name, value in generators[0].model.state_dict().items():
        assert (generators[1].model.state_dict()[name] == value).all(), name


def test_many_files_are_kept_beside_the_run(folder, tmp_path, monkeypatch, little_memory):
    steps = ["training.steps", "training.adapt_steps", "restoration.steps"]
    words = ["train", str(folder), "--out", str(tmp_path / "out"), "--no-timing"]
    words += [word for key in steps for word in ("--set", f"{key}=2")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out.cache").glob("*.values"))) == 1
    monkeypatch.undo()
    result = CliRunner().invoke(main, [*words[:3], str(tmp_path / "small"), *words[4:]])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "small.cache").exists()


def test_a_cache_that_cannot_be_written_is_told(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"to hold the decoded files, which take 90\.0 KiB"):
        vaeaug.read(folder, cache=tmp_path / "file")
    with pytest.raises(DataError, match="cache: expected a folder, got ''"):
        vaeaug.read(folder, cache="")
