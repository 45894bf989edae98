"""Splits: every image held out once a repetition, classes dealt evenly, copies together."""

import numpy as np
import pytest

import vaeaug
from vaeaug.evaluation import halves, make_splits
from vaeaug.evaluation.gate.splits import fitting_folds


@pytest.fixture(scope="module")
def data() -> vaeaug.LabelledImages:
    return vaeaug.read("digits").imbalanced([60, 50, 40, 30, 20, 17, 13, 11, 9, 7], seed=0)


def test_a_repetition_holds_every_image_out_once(data):
    splits = make_splits(data, 10, folds=5, seed=0)
    for repetition in (splits[:5], splits[5:]):
        held = np.concatenate([split.held_out for split in repetition])
        assert np.array_equal(np.sort(held), np.arange(len(data)))
    for split in splits:
        assert not set(split.train) & set(split.held_out)
        assert len(split.train) + len(split.held_out) == len(data)
        held = np.bincount(data.labels[split.held_out], minlength=10)
        assert (np.abs(held - data.counts / 5) < 1).all()
    assert not np.array_equal(splits[0].held_out, splits[5].held_out)


def test_more_splits_begin_with_the_same_ones(data):
    few, many = (make_splits(data, n, folds=4, seed=3) for n in (2, 7))
    assert [split.key for split in few] == [split.key for split in many[:2]]
    assert len({split.key for split in many}) == 7


def test_only_some_rows_are_ever_held_out(data):
    search, gate = halves(data, 0.4, seed=0)
    assert not (search & gate).any()
    assert (search | gate).all()
    counts = np.bincount(data.labels[gate], minlength=10)
    assert (np.abs(counts - 0.4 * data.counts) <= 1).all()
    splits = make_splits(data, 3, folds=3, seed=0, among=gate)
    held = np.concatenate([split.held_out for split in splits])
    assert np.array_equal(np.sort(held), np.flatnonzero(gate))
    assert all(set(np.flatnonzero(search)) <= set(split.train) for split in splits)


def test_copies_stay_together(data):
    images = data.images.copy()
    images[10:40:10] = images[0]
    twins = vaeaug.LabelledImages(images, data.labels, data.class_names, data.value_range)
    for split in make_splits(twins, 5, folds=5, seed=0):
        assert len({row in set(split.held_out) for row in (0, 10, 20, 30)}) == 1
    first, _second = halves(twins, 0.5, seed=1)
    assert len({bool(first[row]) for row in (0, 10, 20, 30)}) == 1
    among = np.ones(len(twins), bool)
    among[20] = False
    for split in make_splits(twins, 5, folds=5, seed=0, among=among):
        assert not {0, 10, 20, 30} & set(split.held_out), "a copy that trains keeps the others in"


def test_folds_leave_every_class_enough():
    assert fitting_folds(np.array([100, 16, 0]), 5, 3) == 5
    assert fitting_folds(np.array([100, 10]), 5, 3) == 3
    assert fitting_folds(np.array([100, 4]), 5, 3) == 2
