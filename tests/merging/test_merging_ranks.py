"""Merging signals and volumes, and merging with class probabilities for labels."""

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent.parent / "shards"))
from example_run import CLASS_NAMES, PROVENANCE, SHAPES, make_run, samples

from vaeaug.data import read
from vaeaug.merging import MergeError, merge, write_merged

COUNTS = (4, 3, 5)
LABELS = np.repeat([0, 1, 2], COUNTS)


def real_data(layout, dtype="uint8", class_names=CLASS_NAMES):
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (12, *SHAPES[layout]), dtype=np.uint8)
    if dtype == "float32":
        images = (images / 255).astype(np.float32)
    return SimpleNamespace(
        images=images,
        labels=LABELS,
        class_names=class_names,
        fingerprint=PROVENANCE.data_fingerprint,
        value_range=(0, 255) if dtype == "uint8" else (0, 1),
    )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("layout", SHAPES)
def test_each_layout_goes_through_a_loader_channels_first(tmp_path, layout, dtype):
    make_run(tmp_path / "run", layout=layout, dtype=dtype)
    real = real_data(layout, dtype)
    merged = merge(real, tmp_path / "run", "all")
    synthetic = [
        samples(c, n, layout=layout, dtype=dtype)["images"] for c, n in enumerate((5, 3, 4))
    ]
    pools = np.concatenate([real.images, *synthetic])
    loader = DataLoader(merged, batch_size=5, num_workers=0)
    images = torch.cat([x for x, _ in loader])
    assert images.shape == (24, SHAPES[layout][-1], *SHAPES[layout][:-1])
    assert images.dtype == getattr(torch, dtype)
    rows = merged.index + np.where(merged.is_synthetic, 12, 0)
    np.testing.assert_array_equal(images.movedim(1, -1).numpy(), pools[rows])
    np.testing.assert_array_equal(torch.cat([y for _, y in loader]).numpy(), merged.labels)

    path = write_merged(real, tmp_path / "run", tmp_path / "merged.h5", share="all")
    with h5py.File(path) as file:
        assert file.attrs["layout"] == layout.encode()
        np.testing.assert_array_equal(file["images"][...], pools[rows])
    # What was written is read again, of whatever rank.
    again = read(path)
    assert again.layout == layout
    np.testing.assert_array_equal(again.images, pools[rows])


@pytest.mark.parametrize("how", ["array", "tensor"])
@pytest.mark.parametrize("layout", SHAPES)
def test_items_of_a_torch_dataset_of_each_layout(tmp_path, layout, how):
    make_run(tmp_path, layout=layout, shape=(*SHAPES[layout][:-1], 1))
    images = real_data(layout).images[..., :1]
    for channels in (True, False):
        given = images if channels else images[..., 0]
        if how == "tensor":
            given = torch.from_numpy(np.moveaxis(given, -1, 1).copy() if channels else given.copy())
        items = [(x, int(y)) for x, y in zip(given, LABELS, strict=True)]
        merged = merge(items, tmp_path, 0.4)
        at = int(np.flatnonzero(~merged.is_synthetic)[7])
        np.testing.assert_array_equal(
            merged[at][0].movedim(0, -1).numpy(), images[merged.index[at]]
        )
    with pytest.raises(MergeError, match=r"image shape: expected .* as in the run, got"):
        merge([(x[:1], y) for x, y in items], tmp_path, 0.4)


@pytest.mark.parametrize("soft_labels", [False, True])
def test_soft_labels_in_the_order_of_the_real_classes(tmp_path, soft_labels):
    make_run(tmp_path, soft_labels=soft_labels)
    order = [2, 0, 1]
    names = tuple(CLASS_NAMES[j] for j in order)
    real = real_data("NHWC", class_names=names)
    merged = merge(real, tmp_path, "all", soft=True, return_is_synthetic=True)
    parts = [samples(c, n, soft_labels=soft_labels)["soft_labels"] for c, n in enumerate((5, 3, 4))]
    run_labels = np.repeat([0, 1, 2], (5, 3, 4))
    run_soft = np.concatenate(parts) if soft_labels else np.eye(3)[run_labels]
    for slot in range(len(merged)):
        image, label, is_synthetic = merged[slot]
        assert (image.dtype, label.dtype, label.shape) == (torch.uint8, torch.float32, (3,))
        row = merged.index[slot]
        expected = run_soft[row][order] if is_synthetic else np.eye(3)[LABELS[row]]
        np.testing.assert_array_equal(label.numpy(), expected)
        assert label[merged.labels[slot]] == label.max()
    copy = pickle.loads(pickle.dumps(merged))  # noqa: S301
    _, labels, _ = next(iter(DataLoader(copy, batch_size=24)))
    np.testing.assert_array_equal(labels.numpy(), merged.soft_labels_at(range(24)))
    np.testing.assert_allclose(labels.sum(dim=1).numpy(), 1, atol=1e-4)


def test_labels_are_indices_unless_asked_otherwise(tmp_path):
    make_run(tmp_path, soft_labels=True)
    merged = merge(real_data("NHWC"), tmp_path, "all")
    assert not merged.soft
    assert all(type(merged[i][1]) is int for i in range(len(merged)))
