"""MIG, SAP and DCI of latents whose disentanglement is known."""

import numpy as np
import pytest

from vaeaug.evaluation import measure_disentanglement


@pytest.fixture(scope="module")
def factors():
    return np.random.default_rng(0).uniform(-1, 1, (2000, 3))


def test_a_unit_for_each_factor_is_disentangled(factors):
    noise = 0.01 * np.random.default_rng(1).standard_normal((2000, 5))
    latents = np.hstack([factors[:, [2, 0, 1]], np.zeros((2000, 2))]) + noise
    found = measure_disentanglement(latents, factors)
    assert found.mig > 0.8
    assert found.sap > 0.95
    assert found.disentanglement > 0.9
    assert found.completeness > 0.9
    assert found.informativeness > 0.95


def test_a_rotation_is_informative_and_entangled(factors):
    rotation, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))
    # Every unit has a share in every factor.
    rotation = np.linalg.qr(rotation + 0.5)[0]
    apart = measure_disentanglement(factors, factors)
    mixed = measure_disentanglement(factors @ rotation, factors)
    assert mixed.informativeness > 0.8
    assert mixed.mig < 0.4 < apart.mig
    assert mixed.disentanglement < 0.7 < apart.disentanglement


def test_two_units_for_a_factor_are_not_complete(factors):
    twice = np.hstack([factors, factors])
    found = measure_disentanglement(twice, factors)
    assert found.mig < 0.05
    assert found.sap < 0.05
    assert found.disentanglement > 0.9


def test_noise_knows_nothing(factors):
    found = measure_disentanglement(np.random.default_rng(3).standard_normal((2000, 4)), factors)
    assert found.mig < 0.05
    assert found.informativeness < 0.05


@pytest.mark.parametrize(
    ("latents", "factors", "message"),
    [
        (np.zeros((4, 2)), np.zeros((5, 2)), "got shapes"),
        (np.zeros((4, 1)), np.ones((4, 2)), "expected two latent units"),
        (np.zeros((4, 2)), np.ones((4, 2)), r"factors \[0, 1\] do not vary"),
    ],
)
def test_bad_input(latents, factors, message):
    with pytest.raises(ValueError, match=message):
        measure_disentanglement(latents, factors)
