"""Image files are decoded on a Ray cluster as they are here, damaged ones too."""

import os

import numpy as np
import pytest
from PIL import Image

import vaeaug
from vaeaug.data import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three tasks' worth of small files; the cluster is asked for by a relative path."""
    rng = np.random.default_rng(0)
    for n in range(600):
        to = tmp_path / "images" / ("cat", "dog")[n % 2]
        to.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(to / f"{n}.png")
    monkeypatch.chdir(tmp_path)
    return "images"


def test_what_a_cluster_decodes_is_what_is_decoded_here(ray, folder):
    engine = vaeaug.Engine("ray", workers=2)
    here, there = vaeaug.read(folder), vaeaug.read(folder, engine=engine)
    assert ray.is_initialized()
    np.testing.assert_array_equal(there.images, here.images)
    assert there.fingerprint == here.fingerprint
    for damaged in ("cat/18.png", "dog/551.png"):
        os.truncate(f"{folder}/{damaged}", 30)
    here, there = (vaeaug.read(folder, on_error="skip", engine=e) for e in (None, engine))
    np.testing.assert_array_equal(there.images, here.images)
    assert there.notes == here.notes
    assert any("551.png" in note for note in there.notes)
    said = []
    for e in (None, engine):
        with pytest.raises(DataError) as refused:
            vaeaug.read(folder, engine=e)
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert "cat/18.png" in said[1]
    assert "dog/551.png" in said[1]


def test_an_engine_that_is_none_is_refused(folder):
    with pytest.raises(DataError, match="engine: expected one of local, process, ray, got 'spark'"):
        vaeaug.read(folder, engine="spark")
