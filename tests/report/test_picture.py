"""The picture of samples of each rank."""

import numpy as np
import pytest
from PIL import Image

from vaeaug.report import COLUMNS, MAX_CLASSES, ClassPanel, write_samples
from vaeaug.tiles import _PLOT, _plot, draw_tile, tile_size

SHAPES = [(50, 2), (50, 1), (1, 3), (8, 8, 1), (20, 10, 3), (6, 6, 2), (4, 8, 8, 1), (5, 6, 7, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_of_each_rank_are_drawn(tmp_path, shape):
    rng = np.random.default_rng(0)
    some = rng.integers(0, 256, (COLUMNS + 3, *shape), dtype=np.uint8)
    panels = [
        ClassPanel("a", "15 real", some, some[:2], some[:2]),
        ClassPanel("b", "", *3 * [some[:0]]),
    ]
    write_samples(tmp_path / "samples.png", panels, value_range=(0, 255))
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.mode == "RGB"
        width, height = tile_size(shape)
        assert picture.width >= 100 + COLUMNS * (width + 2)
        assert picture.height >= 2 * 3 * (height + 2)
        first = picture.crop((100, 22, 100 + width, 22 + height))
        np.testing.assert_array_equal(
            np.asarray(first), np.asarray(draw_tile(some[0], (0, 255), (width, height)))
        )
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]


def test_a_volume_is_its_middle_slice():
    volume = np.zeros((5, 8, 8, 1), np.uint8)
    volume[2] = 200
    tile = np.asarray(draw_tile(volume, (0, 255), tile_size(volume.shape)))
    assert tile.shape == (48, 48, 3)
    assert (tile == 200).all()


def ink_rows(plot):
    """The row of each column's darkest pixel, from 0 at the top to 1 at the bottom."""
    gray = np.asarray(plot)[:, :, 0].astype(int)
    return gray.argmin(axis=0) / (gray.shape[0] - 1), gray.min(axis=0)


def test_the_height_of_a_line_is_its_place_in_the_value_range():
    for value in (-2.0, 0.0, 1.0, 6.0):
        rows, _ = ink_rows(_plot(np.full((40, 1), value, np.float32), (-2, 6), _PLOT))
        np.testing.assert_allclose(rows[5:-5], 1 - (value + 2) / 8, atol=0.04)
    ramp = np.linspace(0, 1, 200, dtype=np.float32)[:, None]
    rows, _ = ink_rows(_plot(ramp, (0, 1), _PLOT))
    np.testing.assert_allclose(rows, np.linspace(1, 0, len(rows)), atol=0.05)


def test_channels_have_grays_of_their_own():
    levels = np.array([0.1, 0.5, 0.9], np.float32)
    plot = np.asarray(_plot(np.tile(levels, (60, 1)), (0, 1), _PLOT))[:, _PLOT[0] // 2, 0].astype(
        int
    )
    n = len(plot)
    darkest = [int(plot[n * k // 3 : n * (k + 1) // 3].min()) for k in (2, 1, 0)]
    assert darkest[0] < darkest[1] - 30 < darkest[2] - 60
    assert darkest[2] < 220  # on paper of 244


def test_of_many_classes_the_first_are_shown(tmp_path):
    some = np.zeros((2, 30, 1), np.float32)
    panels = [ClassPanel(str(c), "", some, some, some) for c in range(MAX_CLASSES + 2)]
    sizes = []
    for shown in (panels[:MAX_CLASSES], panels):
        write_samples(tmp_path / "a.png", shown, value_range=(-1, 1))
        with Image.open(tmp_path / "a.png") as picture:
            sizes.append(picture.height)
    assert sizes[1] - sizes[0] == 20
