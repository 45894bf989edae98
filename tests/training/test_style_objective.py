"""What the separation of style and content is trained on: exemplars, their codes, and the swap."""

import json

import numpy as np
import pytest
import torch

import vaeaug
from tests.small_job import tiny_config
from vaeaug.models import mean_codes
from vaeaug.training import style_units
from vaeaug.training._augmentation import SHIFT, augmented
from vaeaug.training._batches import Batches
from vaeaug.training._style import drawn_evenly, swap_weight


@pytest.fixture(scope="module")
def batches(digits):
    return Batches(digits, tiny_config(), torch.device("cpu"))


def test_an_image_is_never_its_own_exemplar(batches):
    rows = torch.from_numpy(np.concatenate([rows[:3] for rows in batches.rows]))
    y = batches.labels_of(rows)
    drawn = torch.stack([batches.draw_exemplars("test", step, y, rows) for step in range(40)])
    assert (drawn != rows).all()
    assert (batches.labels[drawn] == y).all()
    assert len(drawn[:, 0].unique()) > 5


def test_the_only_image_of_a_class_is_its_exemplar(digits):
    one = np.flatnonzero(digits.labels == 4)[:1]
    few = digits.subset(np.sort(np.concatenate([np.flatnonzero(digits.labels != 4), one])))
    batches = Batches(few, tiny_config(), torch.device("cpu"))
    row = batches.rows[4]
    beside = torch.from_numpy(row)
    drawn = batches.draw_exemplars("test", 0, torch.tensor([4]), beside)
    np.testing.assert_array_equal(drawn, row)


def test_all_others_of_a_class_are_drawn_alike(batches):
    beside = torch.from_numpy(batches.rows[9][2:3])
    y = torch.full((1,), 9)
    drawn = [int(batches.draw_exemplars("all", step, y, beside)) for step in range(600)]
    counts = np.bincount(drawn, minlength=len(batches.labels))[batches.rows[9]]
    assert counts[2] == 0
    assert np.delete(counts, 2).min() > 0.5 * 600 / (len(counts) - 1)


def test_classes_of_a_batch_are_drawn_alike_however_rare():
    y = torch.tensor([0] * 60 + [1] * 3 + [2])
    quantiles = torch.rand(4000, 64, generator=torch.Generator().manual_seed(0))
    drawn = torch.stack([drawn_evenly(y, each, 1) for each in quantiles])
    share = torch.bincount(y[drawn.flatten()], minlength=3) / len(drawn)
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.03, rtol=0)
    assert len(drawn_evenly(y, quantiles[0], 20).unique()) == 20


@pytest.mark.parametrize(("n_values", "weight"), [(12, 1.0), (64, 1.6), (784, 19.6), (12288, 20.0)])
def test_the_label_swap_of_small_samples_weighs_less(n_values, weight):
    assert swap_weight(vaeaug.AugmentConfig(), n_values) == pytest.approx(weight)
    assert swap_weight(tiny_config(**{"training.label_swap": 5.0}), n_values) == 5.0


def test_codes_are_means_over_the_shared_exemplars():
    codes = torch.tensor([[1.0, 0.0], [3.0, 2.0], [10.0, 10.0]])
    shared = torch.zeros(3, 3, dtype=torch.bool)
    shared[0, 1] = True
    expected = torch.tensor([[2.0, 1.0], [3.0, 2.0], [10.0, 10.0]])
    torch.testing.assert_close(mean_codes(codes, shared), expected)


@pytest.mark.parametrize("shape", [(12,), (10, 14), (6, 8, 10)])
def test_augmentation_moves_samples_a_little(batches, shape):
    n = 64
    ramp = torch.linspace(0, 1, shape[-1]).expand(n, 2, *shape).contiguous()
    moved = augmented(batches, "test", 3, ramp)
    assert moved.shape == ramp.shape
    torch.testing.assert_close(moved, augmented(batches, "test", 3, ramp))
    assert moved.min() >= -1e-5
    assert moved.max() <= 1 + 1e-5
    change = (moved - ramp).abs().flatten(1).mean(dim=1)
    assert (change > 0).float().mean() > 0.9
    assert change.max() < 3 * SHIFT
    flat = torch.full_like(ramp, 0.3)
    torch.testing.assert_close(augmented(batches, "test", 3, flat), flat)


def test_a_run_trains_the_judge_and_logs_the_swap(digits, tmp_path):
    vaeaug.fit(digits, tiny_config(), device="cpu", folder=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["stage"] for line in lines)) == ["classifier", "trunk", "adapt"]
    trunk = [line for line in lines if line["stage"] == "trunk"]
    assert all(line["label_swap"] > 0 and line["style_kl"] > 0 for line in trunk)


@pytest.mark.parametrize(
    ("keys", "units"),
    [
        ({}, 16),
        ({"model.latent_dim": 6}, 3),
        ({"model.style_dim": 0}, 0),
        ({"model.style_dim": 5}, 5),
        ({"model.latent": "spatial"}, 0),
        ({"model.grouping": "separate"}, 0),
        ({"model.conditional": False, "model.grouping": "shared"}, 0),
    ],
)
def test_the_default_style_follows_the_model(digits, keys, units):
    assert style_units(digits, vaeaug.AugmentConfig().changed(**keys)) == units


def test_one_class_has_no_style_of_its_own(digits):
    only = digits.subset(np.flatnonzero(digits.labels == 1))
    assert style_units(only, vaeaug.AugmentConfig()) == 0
