"""Annotations bind in the tests: types, and shapes in the arguments and the result of a call."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from jaxtyping import config as jaxtyping_config
from typechecked import contract, unchecked

from vaeaug.models import CVAE


@contract(typechecker="that of the hook")
def scaled(
    x: Float[np.ndarray, "n d"], by: Float[np.ndarray, " d"], *, times: int = 1, wrong: bool = False
) -> Float[np.ndarray, "n d"]:
    """The rows, or their transpose where the result has to be wrong."""
    if times > 1:
        scaled(x.T, np.ones(len(x)))  # the axes of this call are its own
    return (x * by).T if wrong else x * by


@contract
def rows(x: Float[np.ndarray, "n d"]) -> Iterator[Float[np.ndarray, " d"]]:
    yield from x


@contract
def total(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " d"]:
    """What it iterates over has axes of its own."""
    return sum(rows(np.concatenate([x, x])), np.zeros(x.shape[1]))


@contract
@dataclass
class Row:
    values: Float[np.ndarray, " d"]
    later: "NotImported | None" = None  # a name for type checkers alone


def test_types_and_axes_of_a_call_are_checked():
    x = np.ones((3, 2))
    assert scaled(x, np.ones(2), times=2).shape == (3, 2)
    assert scaled(x, np.ones(2), times=np.int64(1)).shape == (3, 2)
    for by, keys in ((np.ones(3), {}), (np.ones(2), {"times": 1.5}), (np.ones(2), {"wrong": True})):
        with pytest.raises(TypeCheckError):
            scaled(x, by, **keys)
    assert unchecked(scaled)(x, np.ones(2), wrong=True).shape == (2, 3)


def test_generators_are_checked_when_they_are_called():
    assert total(np.ones((3, 2))).tolist() == [6, 6]
    with pytest.raises(TypeCheckError):
        rows(np.ones(3))


def test_dataclasses_are_checked_and_names_that_are_not_there_are_not():
    assert Row(np.ones(2), later=3).later == 3
    with pytest.raises(TypeCheckError):
        Row(np.ones((2, 2)))


@pytest.mark.usefixtures("unchecked")
def test_checks_can_be_switched_off():
    assert jaxtyping_config.jaxtyping_disable
    assert Row(3).values == 3


def test_the_package_is_checked():
    model = CVAE((8, 8, 1), 2, latent_dim=4, width=8)
    x, y = torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64)
    model.elbo(x, y, noise=torch.zeros(3, 4))
    with pytest.raises(TypeCheckError):
        model.elbo(x, y, noise=torch.zeros(2, 4))
