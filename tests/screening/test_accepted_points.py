"""Points near to accepted ones are found whatever the batches they came in."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from vaeaug.screening.accepted_points import AcceptedPoints


@pytest.mark.parametrize("sizes", [[500], [1, 2, 3, 7, 200, 287], [100] * 5, [0, 499, 0, 1]])
def test_what_lies_within_the_radius_is_found(sizes):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(500, 6)).astype(np.float32)
    queries = np.concatenate([rng.normal(size=(200, 6)).astype(np.float32), points[:50]])
    radius = float(np.median(cdist(queries, points).min(axis=1)))
    accepted = AcceptedPoints()
    assert not accepted.within(queries, radius).any()
    for part in np.split(points, np.cumsum(sizes)[:-1]):
        accepted.add(part)
    assert len(accepted) == 500
    found = accepted.within(queries, radius)
    assert 0 < found[:200].sum() < 200
    np.testing.assert_array_equal(found, cdist(queries, points).min(axis=1) <= radius)
    # Equal points are within no distance at all.
    np.testing.assert_array_equal(accepted.within(queries, 0.0), np.arange(250) >= 200)
