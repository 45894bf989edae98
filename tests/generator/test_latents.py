"""Who is near to whom among the latents of a class."""

import numpy as np
import pytest

from vaeaug.generator import latents as module
from vaeaug.generator.latents import Latents


@pytest.fixture
def latents() -> Latents:
    """Two classes on a line each, 300 and 8 images in turn, so that rows are not places."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], [300, 8]))
    means = np.zeros((len(labels), 3), np.float32)
    means[:, 0] = rng.permutation(len(labels))
    return Latents(means, np.ones_like(means), labels, 2)


def test_neighbours_are_the_nearest_of_the_class(latents):
    rows = np.arange(len(latents.labels))
    chosen = np.stack([latents.neighbour(rows, np.full(len(rows), u)) for u in (0.0, 0.5, 0.99)])
    assert (latents.labels[chosen] == latents.labels).all()
    assert (chosen != rows).all()
    apart = np.abs(latents.means[chosen, 0] - latents.means[:, 0])
    frequent = latents.labels == 0
    assert (np.diff(apart[:, frequent], axis=0) >= 0).all()
    assert apart[:, frequent].max() <= 2 * module.NEIGHBOURS


def test_those_of_a_large_class_are_as_near_and_take_little_memory(latents, monkeypatch):
    monkeypatch.setattr(module, "LARGE_CLASS", 100)
    monkeypatch.setattr(module, "CANDIDATES", 60)
    found = latents._neighbours_in(0, 1)
    rows = latents.rows[0]
    assert found.shape == (300, module.NEIGHBOURS)
    assert found.dtype == np.int32
    among = np.unique(found)
    assert len(among) <= 60
    assert (latents.labels[among] == 0).all()
    assert (found != rows[:, None]).all()
    # The nearest of the candidates, in order, without the image itself.
    for row, near in zip(rows, found, strict=True):
        others = among[among != row]
        apart = np.abs(latents.means[others, 0] - latents.means[row, 0])
        np.testing.assert_array_equal(
            np.abs(latents.means[near, 0] - latents.means[row, 0]),
            np.sort(apart)[: module.NEIGHBOURS],
        )
    farther = latents._neighbours_in(0, 2)
    apart, next_ones = (
        np.abs(latents.means[each, 0] - latents.means[rows, :1]) for each in (found, farther)
    )
    assert (next_ones.min(axis=1) >= apart.max(axis=1)).all()
    np.testing.assert_array_equal(found, latents._neighbours_in(0, 1))
