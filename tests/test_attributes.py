"""Attributes of samples whose values are known."""

import numpy as np
import pytest
from skimage.draw import disk, rectangle
from skimage.transform import AffineTransform, warp

from vaeaug.attributes import attributes_of

SIDE = 32


def bar(width=4, height=20, slant=0.0, right=0, down=0):
    image = np.zeros((SIDE, SIDE))
    start = ((SIDE - height) // 2, (SIDE - width) // 2)
    image[rectangle(start, extent=(height, width), shape=image.shape)] = 1
    middle = (SIDE - 1) / 2
    # Rows above the middle move to the right by slant times their distance from it.
    moved = AffineTransform(
        matrix=np.array([[1, slant, -slant * (middle + down) - right], [0, 1, -down], [0, 0, 1]])
    )
    return warp(image, moved)[None, ..., None]


def measured(image, name):
    return float(attributes_of(image, (0.0, 1.0))[name][0])


@pytest.mark.parametrize("slant", [-0.4, 0.0, 0.3])
def test_slant_is_the_shear_to_the_right(slant):
    assert measured(bar(slant=slant), "slant") == pytest.approx(slant, abs=0.03)


@pytest.mark.parametrize("width", [2, 4, 6])
def test_thickness_is_that_of_a_long_stroke(width):
    # A stroke of 20 pixels: twice the area by the perimeter is a little less than its width.
    expected = 2 * 20 * width / (2 * (20 + width))
    assert measured(bar(width=width), "thickness") == pytest.approx(expected, rel=0.05)


def test_place_and_stretch():
    at = attributes_of(bar(right=5, down=-3), (0.0, 1.0))
    assert at["right"][0] == pytest.approx((15.5 + 5) / SIDE, abs=0.01)
    assert at["down"][0] == pytest.approx((15.5 - 3) / SIDE, abs=0.01)
    assert at["stretch"][0] == pytest.approx(np.log(4 / 20), abs=0.05)


@pytest.mark.parametrize("radius", [4, 8])
def test_size_of_a_disk(radius):
    image = np.zeros((1, SIDE, SIDE, 1))
    rows, columns = disk((15.5, 15.5), radius)
    image[0, rows, columns] = 1
    assert measured(image, "size") == pytest.approx(radius / np.sqrt(2) / SIDE, rel=0.05)


def test_dark_on_light_is_measured_as_light_on_dark():
    light = attributes_of(bar(slant=0.3), (0.0, 1.0))
    dark = attributes_of(1 - bar(slant=0.3), (0.0, 1.0))
    for name in ("size", "slant", "thickness", "right", "down"):
        assert dark[name] == pytest.approx(light[name])


def test_colours():
    image = np.zeros((2, 8, 8, 3), np.uint8)
    image[0, ..., 0] = 255
    image[1, ..., 2] = 255
    found = attributes_of(image, (0.0, 255.0))
    assert found["redness"].tolist() == [1.0, -0.5]
    assert found["blueness"].tolist() == [-0.5, 1.0]


def test_signals():
    time = np.linspace(0, 1, 64, endpoint=False)
    waves = np.stack([np.sin(2 * np.pi * f * time) for f in (2, 16)])[..., None]
    found = attributes_of(waves + 1, (-1.0, 3.0))
    assert found["level"] == pytest.approx(0.5)
    assert found["amplitude"] == pytest.approx(np.sqrt(0.5) / 4)
    assert found["frequency"] == pytest.approx([2 / 32, 0.5])


def test_volumes_and_features_and_empty_images():
    volume = np.zeros((1, 8, 8, 8, 1))
    volume[0, 3:5, 3:5, 3:5] = 1
    assert attributes_of(volume, (0.0, 1.0))["size"][0] == pytest.approx(np.sqrt(0.75) / 8)
    assert attributes_of(np.zeros((3, 1, 16)), (0.0, 1.0)) == {}
    flat = attributes_of(np.full((2, 8, 8, 1), 0.5), (0.0, 1.0))
    assert all(np.isfinite(values).all() for values in flat.values())
