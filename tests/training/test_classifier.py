"""One loop trains every small network: a batch per step, one schedule, a network to judge with."""

import numpy as np
import torch
from torch import nn

from vaeaug.progress import one_part
from vaeaug.training.classifier import class_probabilities, fit_network, outputs_by_block


def test_a_batch_is_drawn_when_its_step_begins_and_every_step_is_reported():
    network, events = nn.Linear(2, 1), []

    def batches():
        for step in range(3):
            events.append(f"draw {step}")
            yield torch.ones(4, 2)

    def loss(x):
        assert network.training
        events.append("loss")
        return network(x).mean()

    before = network.weight.detach().clone()
    fit_network(network, batches(), loss, steps=3, progress=lambda *report: events.append(report))
    expected = []
    for step in range(3):
        expected += [f"draw {step}", "loss", ("classifier", step + 1, 3, {})]
    assert events == expected
    assert not network.training
    assert not torch.equal(network.weight, before)


def test_a_line_is_fitted():
    x = torch.linspace(-1, 1, 50)[:, None]
    torch.manual_seed(0)
    network = nn.Linear(1, 1)

    def loss(batch):
        return (network(batch) - 2 * batch - 1).square().mean()

    fit_network(network, (x for _ in range(400)), loss, steps=400, learning_rate=0.1)
    assert abs(network.weight.item() - 2) < 0.05
    assert abs(network.bias.item() - 1) < 0.05


def test_parts_of_a_stage_count_through_the_stage():
    seen = []
    for part in range(2):
        report = one_part(lambda *report: seen.append(report), part, 2)
        report("fold", 1, 3, {"loss": 1.0})
        report("fold", 3, 3, {})
    assert seen == [
        ("fold", 1, 6, {"loss": 1.0}),
        ("fold", 3, 6, {}),
        ("fold", 4, 6, {"loss": 1.0}),
        ("fold", 6, 6, {}),
    ]
    one_part(None, 0, 2)("fold", 1, 3, {})


def test_blocks_give_what_all_images_at_once_give():
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 2), dtype=np.uint8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(40, 3))
    whole = outputs_by_block(network, images, (0, 255), device="cpu")
    x = torch.from_numpy(images).movedim(-1, 1) / 255
    np.testing.assert_allclose(whole, network(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    parts = [slice(0, 3), slice(3, 7)]
    blocks = outputs_by_block(network, images, (0, 255), device="cpu", parts=parts)
    np.testing.assert_allclose(blocks, whole, rtol=1e-5, atol=1e-6)
    probabilities = class_probabilities(network, images, (0, 255), device="cpu")
    np.testing.assert_allclose(probabilities, torch.softmax(network(x), 1).detach(), rtol=1e-5)
