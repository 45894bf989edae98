"""The nearest points are those of a search among all."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from vaeaug.screening import SampleSpace, nearest_points
from vaeaug.screening.nearest_points import NearestPoints


@pytest.mark.parametrize("distances", [2**22, 1000, 1])
def test_they_are_those_of_a_search_among_all(distances, monkeypatch):
    monkeypatch.setattr(nearest_points, "DISTANCES", distances)
    rng = np.random.default_rng(0)
    points, queries = (rng.normal(size=(n, 6)).astype(np.float32) for n in (300, 41))
    expected = NearestNeighbors(n_neighbors=5).fit(points).kneighbors(queries)[1]
    found = NearestPoints(points).query(queries, 5)
    np.testing.assert_array_equal(found, expected)
    assert NearestPoints(points).query(queries[:0], 5).shape == (0, 5)
    # A point itself comes first, and all of them can be asked for.
    whole = NearestPoints(points[:7]).query(points[:7], 7)
    np.testing.assert_array_equal(whole[:, 0], np.arange(7))
    np.testing.assert_array_equal(np.sort(whole, axis=1), np.tile(np.arange(7), (7, 1)))


def test_among_cells_whatever_is_within_reach_is_found(monkeypatch):
    monkeypatch.setattr(nearest_points, "MOST", 1000)
    monkeypatch.setattr(nearest_points, "LOOKED_INTO", 3)
    monkeypatch.setattr(nearest_points, "TOGETHER", 70)
    rng = np.random.default_rng(0)
    points = (0.1 * rng.normal(size=(3000, 12))).astype(np.float32)
    near = points[:200] + rng.normal(0, 0.03, (200, 12)).astype(np.float32)
    queries = np.concatenate([near, (0.1 * rng.normal(size=(200, 12))).astype(np.float32)])
    distances, expected = NearestNeighbors(n_neighbors=3).fit(points).kneighbors(queries)
    search = NearestPoints(points)
    blind = search.query(queries, 3)
    assert (blind[:, 0] != expected[:, 0]).any()  # three cells are too few on purpose
    search.reach = float(np.median(distances[:, 0]))
    found = search.query(queries, 3)
    within = distances <= search.reach
    assert 200 <= within[:, 0].sum() <= 201
    np.testing.assert_array_equal(found[within], expected[within])
    for rows in (blind, found):
        apart = np.linalg.norm(points[rows] - queries[:, None], axis=2)
        assert (np.diff(apart, axis=1) >= -1e-6).all()
        assert all(len(set(row)) == 3 for row in rows.tolist())
    # Results do not depend on which points are looked up together.
    parts = [search.query(part, 3) for part in np.split(queries, [1, 9, 250])]
    np.testing.assert_array_equal(np.concatenate(parts), found)
    # As many as there are can be asked for.
    assert np.array_equal(np.sort(search.query(queries[:1], 3000)[0]), np.arange(3000))


def test_training_images_are_recognised_among_many(monkeypatch, digits):
    monkeypatch.setattr(nearest_points, "MOST", 100)
    space = SampleSpace(digits, 0)
    (limits,) = space.calibrate(0.05)
    space.reach(float(limits.max()))
    distances, rows = space.nearest(digits.images, space.projected)
    np.testing.assert_allclose(distances, 0, atol=1e-6)
    np.testing.assert_array_equal(digits.images[rows], digits.images)
