"""The nearest points are those of a search among all."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from vaeaug.screening import nearest_points
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
