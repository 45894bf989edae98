"""How the KL is weighed: cycles, a capacity, a sigma of two stages, a beta that was asked for."""

import math

import pytest
import torch

import vaeaug
from tests.small_job import faint, tiny_config
from vaeaug.config import AugmentConfig
from vaeaug.stages.training import fit
from vaeaug.training._batches import Batches
from vaeaug.training._elbo import ElboObjective
from vaeaug.training._state import Stage, StageRecord, TrainState


@pytest.fixture(scope="module")
def digits():
    return vaeaug.read("digits").imbalanced([60] * 10, seed=0)


def weights_of(config: AugmentConfig, data, steps: int = 400) -> list[float]:
    batches = Batches(data, config, torch.device("cpu"))
    stage = Stage("trunk", steps, classes=tuple(range(10)))
    objective = ElboObjective(batches, config, stage)
    return [objective._kl_weight(step / steps) for step in range(steps)]


def test_the_weight_grows_once_by_default(digits):
    weights = weights_of(tiny_config(), digits)
    assert weights == sorted(weights)
    assert weights[0] == pytest.approx(1 / 40)
    assert weights[39:] == [1.0] * 361


def test_a_cyclical_schedule_grows_from_0_in_every_cycle(digits):
    config = tiny_config(**{"training.kl_cycles": 4, "training.kl_warmup": 0.5})
    weights = weights_of(config, digits)
    for cycle in range(4):
        of_cycle = weights[100 * cycle : 100 * cycle + 99]
        assert of_cycle[0] == pytest.approx(0.02)
        assert of_cycle[24] == pytest.approx(0.5)
        assert set(of_cycle[50:]) == {1.0}
    assert weights[-1] == 1.0


@pytest.mark.parametrize("style", [None, 0], ids=["style", "no style"])
@pytest.mark.parametrize("capacity", [2.0, 6.0])
def test_the_kl_comes_to_its_capacity(digits, tmp_path, capacity, style):
    config = AugmentConfig().changed(
        **{
            "model.width": 8,
            "model.latent_dim": 16,
            "model.grouping": "shared",
            "model.style_dim": style,
            "model.capacity": capacity,
            "training.steps": 160,
            "training.label_swap": 0.0,
            "training.ema_decay": 0.9,
            "density.kind": "normal",
            "restoration.steps": 0,
        }
    )
    generator = fit(digits, config, device="cpu", progress=False)
    kl, _ = generator.rates(digits.images, digits.labels, bits=False)
    assert kl.sum(axis=1).mean() == pytest.approx(capacity, rel=0.3)


def test_the_sigma_of_the_second_stage_is_the_calibrated_one(digits):
    config = tiny_config(**{"training.fixed_sigma_from": 0.5})
    objective = ElboObjective(
        Batches(digits, config, torch.device("cpu")),
        config,
        Stage("trunk", 10, classes=tuple(range(10))),
    )

    model = fit(digits, tiny_config(), device="cpu", progress=False).model
    record = StageRecord(latest=[0.0])
    optimiser = torch.optim.AdamW(model.parameters())
    state = TrainState(model, model, {}, optimiser, record, objective)
    assert objective.sigma(state, 0.4) is None
    assert objective.sigma(state, 0.5) is model.likelihood.log_sigma2
    record.latest = []
    assert objective.sigma(state, 0.5) is None  # nothing was calibrated yet


def test_training_with_a_sigma_of_two_stages_learns(digits):
    keys = {"training.steps": 60, "training.eval_every": 10, "model.grouping": "shared"}
    generator = fit(digits, tiny_config(**keys, **{"training.fixed_sigma_from": 0.5}), device="cpu")
    before = fit(digits, tiny_config(**{"training.steps": 1}), device="cpu")
    images, labels = digits.images[:100], digits.labels[:100]
    assert generator.bound(images, labels, k=1).mean() > before.bound(images, labels, k=1).mean()
    assert math.isfinite(float(generator.model.likelihood.log_sigma2))


@pytest.mark.parametrize(
    ("keys", "kept"),
    [({"model.beta": 300.0}, "model.beta 300"), ({}, "")],
    ids=["asked for", "default"],
)
def test_a_beta_that_was_asked_for_is_kept(digits, keys, kept):
    config = tiny_config(
        **keys,
        **{
            "model.grouping": "shared",
            "model.style_dim": 0,
            "model.latent_dim": 8,
            "model.class_embedding": 128,
            "training.steps": 160,
            "training.eval_every": 20,
            "training.batch_size": 32,
            "training.ema_decay": 0.9,
        },
    )
    notes = [note for note in fit(faint(digits), config, device="cpu").notes if "collapse" in note]
    assert notes
    if kept:
        assert [f"{kept} was asked for and is kept" in note for note in notes] == [True]
    else:
        assert all("beta was lowered to" in note for note in notes)
