"""The flow over latents, against a mixture of Gaussians whose moments are known."""

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from vaeaug.models import LatentFlow

MEANS = torch.tensor([[3.0, 0.0], [-1.5, 2.5], [-1.5, -2.5]])
ROOTS = torch.tensor(
    [[[1.0, 0.0], [0.6, 0.8]], [[0.5, 0.0], [0.0, 1.2]], [[0.9, 0.0], [-0.4, 0.5]]]
)
COVARIANCES = ROOTS @ ROOTS.transpose(1, 2)
STEPS = 600


def mixture(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.randint(3, (n,), generator=generator)
    noise = torch.randn(n, 2, 1, generator=generator)
    return MEANS[y] + (ROOTS[y] @ noise).squeeze(2), y


def fitted(flow: LatentFlow, latents, n_steps: int) -> list[float]:
    """Train by the flow's own loss, with a running mean of the weights; the losses."""
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(flow.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    losses = []
    for _ in range(n_steps):
        z, y = latents(256, generator)
        loss = flow.loss(
            z,
            y,
            noise=torch.randn(z.shape, generator=generator),
            time=torch.rand(len(z), generator=generator),
            drop=torch.rand(len(z), generator=generator),
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.fixture(scope="module")
def flow() -> LatentFlow:
    torch.manual_seed(0)
    flow = LatentFlow((2,), 3, width=16, depth=2)
    z, _ = mixture(4000, torch.Generator().manual_seed(2))
    flow.standardise(z, torch.zeros_like(z))
    losses = fitted(flow, mixture, STEPS)
    assert np.mean(losses[-100:]) < 0.8 * np.mean(losses[:20])
    return flow.eval()


@torch.no_grad()
def drawn(flow: LatentFlow, label: int, n: int = 4000, **keys) -> torch.Tensor:
    noise = torch.randn(n, *[flow.mean.numel()], generator=torch.Generator().manual_seed(label))
    return flow.draw(noise, torch.full((n,), label), **keys)


def own_share(z: torch.Tensor, label: int) -> torch.Tensor:
    """p(label|z) under the true mixture."""
    log_p = [
        MultivariateNormal(mean, cov).log_prob(z)
        for mean, cov in zip(MEANS, COVARIANCES, strict=True)
    ]
    return torch.softmax(torch.stack(log_p, dim=1), dim=1)[:, label]


@pytest.mark.parametrize("label", range(3))
def test_the_moments_of_each_class_come_back(label, flow):
    # The draws' own standard errors are under 0.02; the rest is what the network has not learned,
    # against distances of 5 between the means and variances near 1.
    z = drawn(flow, label)
    assert (z.mean(dim=0) - MEANS[label]).abs().max() < 0.15
    assert (torch.cov(z.T) - COVARIANCES[label]).abs().max() < 0.25


def test_guidance_moves_samples_away_from_other_classes(flow):
    centre = MEANS.mean(dim=0)
    for label in range(3):
        plain, stressed = (drawn(flow, label, 2000, guidance=g) for g in (1.0, 2.0))
        away = (MEANS[label] - centre) / (MEANS[label] - centre).norm()
        assert float(((stressed - plain) @ away).mean()) > 0.05
        doubt = [float(1 - own_share(z, label).mean()) for z in (plain, stressed)]
        assert doubt[1] < doubt[0]
    # None at all forgets the class: the mean of everything.
    blind = drawn(flow, 0, 2000, guidance=0.0)
    assert (blind.mean(dim=0) - centre).norm() < 1.0


def test_blends_lie_between_their_classes(flow):
    n = 2000
    way = (MEANS[1] - MEANS[0]) / (MEANS[1] - MEANS[0]).square().sum()
    place = []
    for share in (0.0, 0.5, 1.0):
        z = drawn(flow, 0, n, other=torch.ones(n, dtype=torch.long), share=torch.full((n,), share))
        place.append(float(((z - MEANS[0]) @ way).mean()))
    # 0 is the first class's mean, 1 the second's.
    assert place[0] == pytest.approx(0, abs=0.05)
    assert place[2] == pytest.approx(1, abs=0.05)
    assert 0.15 < place[1] < 0.85


def test_no_share_is_the_class_alone(flow):
    n = 20
    alone = drawn(flow, 1, n)
    none = drawn(flow, 1, n, other=torch.full((n,), 2), share=torch.zeros(n))
    assert torch.equal(alone, none)


def test_a_draw_is_a_function_of_its_own_noise(flow):
    noise = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    with torch.no_grad():
        whole = flow.draw(noise, y, guidance=1.5)
        assert torch.equal(whole, flow.draw(noise, y, guidance=1.5))
        torch.random.manual_seed(99)
        for row in range(7):
            alone = flow.draw(noise[row : row + 1], y[row : row + 1], guidance=1.5)
            torch.testing.assert_close(alone[0], whole[row], rtol=1e-4, atol=1e-4)


def test_more_solver_steps_converge(flow):
    exact = drawn(flow, 0, 200, steps=128)
    errors = [float((drawn(flow, 0, 200, steps=n) - exact).abs().mean()) for n in (1, 3, 12)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def test_it_works_on_standardised_latents_with_the_posteriors_spread():
    flow = LatentFlow((2,), 3, width=8, depth=1)
    mean = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    flow.standardise(mean, torch.tensor([[0.5, 0.0], [1.5, 0.0]]))
    torch.testing.assert_close(flow.mean, torch.tensor([2.0, 5.0]))
    # Var = E var + var E; a unit that never varies keeps a scale that can be divided by.
    torch.testing.assert_close(flow.scale, torch.tensor([2.0**0.5, 1e-3]))


def test_the_loss_of_an_untrained_flow_is_that_of_a_zero_velocity():
    # E|z - noise|^2 per unit of standardised latents is 2, less what is guessed right.
    torch.manual_seed(0)
    flow = LatentFlow((2,), 3, width=8, depth=1)
    with torch.no_grad():
        for each in flow.leave.parameters():
            each.zero_()
    z, noise = torch.randn(2, 4000, 2)
    y, time, drop = torch.zeros(4000, dtype=torch.long), torch.rand(4000), torch.rand(4000)
    loss = flow.loss(z, y, noise=noise, time=time, drop=drop)
    torch.testing.assert_close(loss, (z - noise).square().mean(dim=1))
    assert float(loss.detach().mean()) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("p_drop", [0.0, 1.0])
def test_the_class_is_left_out_of_the_rows_that_are_dropped(p_drop):
    torch.manual_seed(0)
    flow = LatentFlow((2,), 3, width=8, depth=1)
    with torch.no_grad():  # blocks start at zero, where no class would matter
        for each in flow.parameters():
            each.add_(0.1 * torch.randn_like(each))
    z, y = torch.randn(12, 2), torch.arange(12) % 3
    flow.loss(
        z, y, noise=torch.randn(12, 2), time=torch.rand(12), drop=torch.rand(12), p_drop=p_drop
    ).sum().backward()
    moved = flow.embedding.weight.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == ([True] * 3 + [False] if p_drop == 0 else [False] * 3 + [True])


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 4), (2, 2, 3, 2)])
def test_grids_of_latents(shape):
    """Two classes of grids that differ in one corner: the mean of each comes back cell by cell."""
    size = int(np.prod(shape))
    means = torch.zeros(2, size)
    means[0, 0], means[1, -1] = 3.0, -3.0

    def latents(n: int, generator: torch.Generator):
        y = torch.randint(2, (n,), generator=generator)
        return means[y] + 0.5 * torch.randn(n, size, generator=generator), y

    torch.manual_seed(0)
    flow = LatentFlow(shape, 2, width=16, depth=1)
    z, _ = latents(2000, torch.Generator().manual_seed(3))
    flow.standardise(z, torch.zeros_like(z))
    fitted(flow, lambda _, generator: latents(64, generator), 200)
    flow.eval()
    for label in range(2):
        made = drawn(flow, label, 500, steps=8)
        assert made.shape == (500, size)
        assert (made.mean(dim=0) - means[label]).abs().max() < 0.5
