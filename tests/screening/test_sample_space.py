"""The space in which nearest training images are looked for."""

import re
from pathlib import Path

import numpy as np

import vaeaug
from vaeaug.mapping import mapped
from vaeaug.screening import SampleSpace


def resident(path: Path) -> int:
    """Kilobytes of a mapped file that count as memory of this process."""
    smaps = Path("/proc/self/smaps").read_text()
    parts = smaps.split(str(path))[1:]
    assert parts
    return sum(int(re.search(r"Rss: +(\d+) kB", part)[1]) for part in parts)


def test_of_a_mapped_set_little_is_in_memory(tmp_path, monkeypatch):
    path = tmp_path / "images.bin"
    shape = (3000, 32, 32, 3)
    np.random.default_rng(0).integers(0, 256, shape, np.uint8).tofile(path)
    images = mapped(path, shape, np.dtype(np.uint8))
    names = tuple("abc")
    data = vaeaug.LabelledImages(images, np.arange(len(images)) % 3, names, (0, 255))
    space = SampleSpace(data, seed=0)
    assert resident(path) < 1000
    held, nearest = [], space.nearest

    def watched(*arguments, **options):
        held.append(resident(path))
        return nearest(*arguments, **options)

    monkeypatch.setattr(space, "nearest", watched)
    space.calibrate(0.01)
    assert 0 <= held[0] < 1000  # of 9,000
    some = np.arange(40)
    distance, row = space.nearest(data.images_at(some), space.projected[some])
    np.testing.assert_array_equal(row, some)
    assert not distance.any()
    assert resident(path) < 1000
