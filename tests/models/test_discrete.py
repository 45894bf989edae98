"""The codebook moves as its closed form says; the prior is a distribution, and draws from it."""

import itertools
import math

import pytest
import torch

from vaeaug.models import Codebook, CodePrior, in_order, perplexity, random_order
from vaeaug.models.discrete import DEAD, DECAY


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_codes_are_the_moving_averages_of_their_features():
    book, features = Codebook(4, 3), uniform(50, 3)
    book.start(features, uniform(4, seed=1))
    old = {name: buffer.clone().double() for name, buffer in book.named_buffers()}
    index = book.nearest(features)
    expected = (features[:, None] - book.codes).square().sum(dim=2).argmin(dim=1)
    assert torch.equal(index, expected)
    book.update(features, index, uniform(4, seed=2))
    for code in range(4):
        mine = features[index == code].double()
        uses = DECAY * old["uses"][code] + (1 - DECAY) * len(mine)
        sums = DECAY * old["sums"][code] + (1 - DECAY) * mine.sum(dim=0)
        torch.testing.assert_close(book.uses[code].double(), uses, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(book.codes[code].double(), sums / uses, rtol=1e-5, atol=1e-6)


def test_the_nearest_code_is_that_of_float32_where_training_is_in_bfloat16():
    book, features = Codebook(64, 3), 5 + uniform(400, 3)
    book.start(features, uniform(64, seed=1))
    exact = book.nearest(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(book.nearest(features), exact)


def test_codes_settle_at_the_means_of_clusters():
    centres = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    features = (centres[:, None] + uniform(3, 200, 2) - 0.5).reshape(-1, 2)
    book = Codebook(3, 2)
    book.start(centres + 2, torch.arange(3) / 3)  # each nearest to the features of one cluster
    book.uses.fill_(200.0)
    book.sums.copy_(200 * book.codes)
    for step in range(1500):
        book.update(features, book.nearest(features), uniform(3, seed=step))
    means = features.view(3, 200, 2).mean(dim=1)
    torch.testing.assert_close(book.codes, means, rtol=0, atol=1e-3)


def test_a_dead_code_is_restarted_at_a_feature():
    book, features = Codebook(3, 2), uniform(60, 2)
    book.start(features, uniform(3, seed=1))
    book.codes[2], book.sums[2] = 1000.0, 20 * 1000.0  # nothing is near to it
    steps = 0
    while float(book.codes[2].norm()) > 10:
        book.update(features, book.nearest(features), uniform(3, seed=steps))
        steps += 1
    assert abs(steps - math.ceil(math.log(DEAD) / math.log(DECAY))) <= 1
    assert (features - book.codes[2]).square().sum(dim=1).min() < 1e-9
    assert book.uses[2] == 20


def test_features_that_are_not_finite_change_nothing():
    book, features = Codebook(3, 2), uniform(60, 2)
    book.start(features, uniform(3, seed=1))
    before = [buffer.clone() for buffer in book.buffers()]
    features[7, 1] = math.nan
    book.update(features, torch.zeros(60, dtype=torch.long), uniform(3))
    assert all(torch.equal(a, b) for a, b in zip(before, book.buffers(), strict=True))


def test_perplexity_counts_codes_that_are_used_equally_often():
    assert perplexity(torch.tensor([5, 5, 5, 0])) == pytest.approx(3)
    assert perplexity(torch.tensor([9, 0, 0, 0])) == pytest.approx(1)


# -- The prior -------------------------------------------------------------------------------------


@pytest.fixture
def prior():
    """An untrained prior with something to say."""
    torch.manual_seed(0)
    prior = CodePrior(3, 4, 2, width=32, depth=2).eval()
    torch.nn.init.normal_(prior.out.weight, std=0.3)
    return prior


def grids() -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(4), repeat=3)))


@torch.no_grad()
def test_its_probabilities_sum_to_one_in_every_order(prior):
    for order in itertools.permutations(range(3)):
        orders = torch.tensor(order).expand(64, 3)
        total = prior.log_prob(grids(), torch.ones(64, dtype=torch.long), orders)
        assert float(total.sum(dim=1).exp().sum()) == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_draws_have_its_probabilities(prior):
    """Within four standard errors for each of the 64 grids: the cache and the order are right."""
    n = 20_000
    y, order = torch.zeros(n, dtype=torch.long), torch.tensor([2, 0, 1]).expand(n, 3)
    drawn = prior.draw(uniform(n, 3).double(), y, order)
    found = torch.bincount((drawn * torch.tensor([16, 4, 1])).sum(dim=1), minlength=64) / n
    expected = prior.log_prob(grids(), y[:64], order[:64]).sum(dim=1).exp()
    error = (expected * (1 - expected) / n).sqrt()
    assert ((found - expected).abs() < 4 * error + 1e-6).all()
    assert expected.max() > 2 * expected.min()  # not the uniform that any bug would give


@torch.no_grad()
def test_known_codes_are_kept_and_the_others_drawn_given_them(prior):
    n = 20_000
    y, order = torch.ones(n, dtype=torch.long), torch.tensor([1, 2, 0]).expand(n, 3)
    codes = torch.tensor([0, 3, 2]).expand(n, 3)
    drawn = prior.draw(uniform(n, 3).double(), y, order, codes=codes, n_known=2)
    assert torch.equal(drawn[:, 1:], codes[:, 1:])
    every = torch.tensor([[code, 3, 2] for code in range(4)])
    expected = prior.log_prob(every, y[:4], order[:4])[:, 2].exp()
    found = torch.bincount(drawn[:, 0], minlength=4) / n
    assert ((found - expected).abs() < 4 * (expected * (1 - expected) / n).sqrt()).all()
    likeliest = prior.draw(
        uniform(1, 3), y[:1], order[:1], codes=codes[:1], n_known=2, temperature=0.0
    )
    assert int(likeliest[0, 0]) == int(expected.argmax())


def test_it_learns_what_the_class_and_the_known_codes_say():
    """The first cell is free; the second repeats it; the third is the class."""
    torch.manual_seed(0)
    prior = CodePrior(3, 6, 3, width=32, depth=1)
    optimiser = torch.optim.Adam(prior.parameters(), lr=5e-3)

    def data(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        draws = uniform(n, 2, seed=seed)
        y, free = (draws[:, 0] * 3).long(), (draws[:, 1] * 6).long()
        return y, torch.stack([free, free, y], dim=1)

    for step in range(250):
        y, codes = data(64, step)
        loss = -prior.log_prob(codes, y, random_order(uniform(64, 3, seed=1000 + step))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    y, codes = data(300, -1 % 2**31)
    with torch.no_grad():
        nats = -prior.log_prob(codes, y, in_order(codes)).sum(dim=1).mean()
        drawn = prior.draw(uniform(300, 3, seed=5), y, in_order(codes))
        back = torch.tensor([1, 2, 0]).expand(300, 3)  # the free cell last, given its copy
        redrawn = prior.draw(uniform(300, 3, seed=6), y, back, codes=codes, n_known=1)
    assert float(nats) == pytest.approx(math.log(6), abs=0.1)
    assert float((drawn[:, 1] == drawn[:, 0]).float().mean()) > 0.97
    assert float((drawn[:, 2] == y).float().mean()) > 0.97
    assert float((redrawn == codes).all(dim=1).float().mean()) > 0.95
    assert torch.bincount(drawn[:, 0], minlength=6).min() > 20  # all of the free cell's values


def test_it_refuses_a_width_that_heads_do_not_divide():
    with pytest.raises(ValueError, match=r"multiple of 32, got 40"):
        CodePrior(3, 4, 2, width=40, depth=1)
