"""Nothing that other code draws or has set changes what is trained and made."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from small_job import contents, digits, tiny_config
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

import vaeaug
from vaeaug.randomness import seeded_torch
from vaeaug.training.classifier import train_classifier


class Net(nn.Module):
    """Every kind of layer that draws when it is made or used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(16, 3)
        self.embedding, self.drop = nn.Embedding(5, 3), nn.Dropout(0.4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.linear(self.conv(x).flatten(1))) + torch.randn(len(x), 3)


def made() -> list[torch.Tensor]:
    net = Net()
    images, labels = torch.rand(6, 1, 4, 4), torch.arange(6)
    return [
        *net.state_dict().values(),
        net(torch.ones(2, 1, 4, 4)),
        torch.randperm(9),
        torch.distributions.Beta(torch.tensor(0.4), torch.tensor(0.7)).sample((3,)),
        torch.distributions.Gamma(torch.tensor(0.4), torch.tensor(0.7)).sample((3,)),
        torch.poisson(torch.full((5,), 3.0)),
        torch.multinomial(torch.ones(5), 3),
        *v2.MixUp(num_classes=6)(images, labels),
        *v2.CutMix(num_classes=6)(images, labels),
    ]


@contextmanager
def disturbed() -> Iterator[None]:
    """Another thread that draws all the time."""
    stop = threading.Event()

    def draw() -> None:
        while not stop.is_set():
            torch.rand(3)
            np.random.default_rng().random(3)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_what_is_drawn_is_what_the_seed_gives_torchs_own_generator() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = made()
    with seeded_torch(3):
        ours = made()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_process_and_other_threads_are_left_alone() -> None:
    before = torch.get_rng_state()
    with seeded_torch(3):
        first = made()
    assert torch.equal(torch.get_rng_state(), before)
    found: list[list[torch.Tensor]] = []
    with seeded_torch(3), disturbed():
        found.append(made())
    assert all(torch.equal(a, b) for a, b in zip(found[0], first, strict=True))
    with seeded_torch(3):
        # Drawn in another thread, it is nobody's.
        other = threading.Thread(target=lambda: found.append([torch.rand(3)]))
        other.start()
        other.join()
        assert all(torch.equal(a, b) for a, b in zip(made(), first, strict=True))


def test_dropout_drops_what_it_should() -> None:
    x = torch.ones(100_000)
    with seeded_torch(0):
        out = F.dropout(x, 0.3)
        assert F.dropout(x, 0.3, training=False) is x
    # Five standard deviations of a binomial part.
    assert abs(float((out == 0).float().mean()) - 0.3) < 5 * (0.3 * 0.7 / 1e5) ** 0.5
    assert torch.allclose(out[out > 0], torch.tensor(1 / 0.7))


def test_foreign_code_is_seeded_by_the_process_too() -> None:
    outs = []
    for _ in range(2):
        with seeded_torch(5, foreign=True):
            outs.append(F.alpha_dropout(torch.ones(40), 0.5, training=True))
        torch.rand(1)
    assert torch.equal(*outs)


@pytest.mark.parametrize("setting", ["thread", "float64", "no_grad", "inference_mode"])
def test_a_job_gives_the_same_bytes_whatever_surrounds_it(
    setting: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data, config = digits(), tiny_config(**{"semi_supervised.classifier_steps": 4})
    data = data.with_unlabelled(data.images[:6])
    folder = tmp_path_factory.mktemp("job")
    whole, other = folder / "whole", folder / "other"
    vaeaug.augment(data, whole, config)
    contexts = {
        "thread": disturbed,
        "float64": default_float64,
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
    }
    with contexts[setting]():
        vaeaug.augment(data, other, config)
        train_classifier(data, steps=2, seed=0)
    assert contents(other) == contents(whole)


@contextmanager
def default_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
