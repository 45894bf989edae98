"""Feature vectors are read as such, and views of one image stay together."""

import h5py
import numpy as np
import pytest

import vaeaug
from vaeaug.evaluation import make_splits
from vaeaug.strata import stratified_folds


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 12)).astype(np.float32), np.arange(60) % 3


def test_stated_or_named_features_are_vectors(arrays, tmp_path):
    x, y = arrays
    np.savez(tmp_path / "a.npz", embeddings=x, labels=y)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["labels"] = x, y
    for data in (
        vaeaug.read((x, y), layout="NF"),
        vaeaug.read({"features": x, "labels": y}),
        vaeaug.read(tmp_path / "a.npz"),
        vaeaug.read(tmp_path / "a.h5"),
    ):
        assert data.are_features
        assert data.image_shape == (1, 12)
        assert np.array_equal(data.images[:, 0], x)


def test_rows_of_another_name_stay_signals(arrays):
    x, y = arrays
    for data in (vaeaug.read((x, y)), vaeaug.read({"x": x, "y": y})):
        assert not data.are_features
        assert data.image_shape == (12, 1)


def test_features_of_whole_numbers_are_not_guessed(arrays):
    x, y = arrays
    data = vaeaug.read({"features": (x * 10).astype(np.int64), "labels": y})
    assert data.image_shape == (12, 1)


@pytest.fixture
def views(arrays):
    x, y = arrays
    # Four views of each, which differ a little.
    moved = x[:, None] + np.linspace(0, 1, 4, dtype=np.float32)[:, None]
    images = moved.reshape(240, 1, 12)
    return vaeaug.LabelledImages(
        images=images,
        labels=np.repeat(y, 4).astype(np.int64),
        class_names=("a", "b", "c"),
        value_range=(-10.0, 10.0),
        groups=np.repeat(np.arange(60), 4).astype(np.int64),
    )


def test_no_part_divides_the_views_of_an_image(views):
    rest, held_out = views.split_off(0.2, seed=0)
    assert len(rest) + len(held_out) == len(views)
    assert not set(rest.groups) & set(held_out.groups)
    assert len(set(held_out.groups)) == 12
    assert np.array_equal(np.bincount(held_out.labels), [16, 16, 16])
    folds = stratified_folds(views.labels, 5, seed=[0], groups=views.groups)
    by_group = folds.reshape(60, 4)
    assert (by_group == by_group[:, :1]).all()
    assert np.array_equal(np.unique(folds), np.arange(5))
    for split in make_splits(views, 3, folds=3, seed=0):
        assert not set(views.groups[split.train]) & set(views.groups[split.held_out])
        # 20 images of each class in three folds: six or seven.
        assert len(split.held_out) in (72, 76, 80, 84)


def test_images_that_are_equal_join_their_groups(views):
    images = views.images.copy()
    images[5] = images[0]  # a view of image 1 that equals one of image 0
    joined = vaeaug.LabelledImages(
        images, views.labels, views.class_names, views.value_range, groups=views.groups
    )
    for split in make_splits(joined, 6, folds=3, seed=1):
        held_out = set(joined.groups[split.held_out])
        assert (0 in held_out) == (1 in held_out)


def test_groups_follow_their_images(views):
    rows = np.array([200, 3, 77])
    assert np.array_equal(views.subset(rows).groups, rows // 4)
    assert (
        views.subset(rows).fingerprint
        != vaeaug.LabelledImages(
            views.images[rows], views.labels[rows], views.class_names, views.value_range
        ).fingerprint
    )


def test_groups_that_do_not_fit_are_refused(views, unchecked):
    with pytest.raises(vaeaug.DataError, match=r"expected int64 groups of shape \(240,\)"):
        vaeaug.LabelledImages(
            views.images,
            views.labels,
            views.class_names,
            views.value_range,
            groups=np.zeros(3, np.int64),
        )


def test_groups_of_another_file_that_fit_nothing_are_left(arrays, tmp_path):
    x, y = arrays
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["labels"], file["groups"] = x, y, np.arange(7)
    assert vaeaug.read(tmp_path / "a.h5").groups is None
