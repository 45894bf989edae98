"""The networks: sizes, folding, groups of latents, and what belongs to one class alone."""

import math

import pytest
import torch
from torch.nn import functional as F

from vaeaug.models import (
    CVAE,
    Discriminator,
    ElboTerms,
    Geometry,
    SeparateCVAE,
    SmallClassifier,
    feature_distance,
    optimal_log_sigma2,
)
from vaeaug.models.blocks import fold_space, unfold_space

IMAGES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (13, 9, 1), (64, 48, 4), (128, 128, 3)]
SIGNALS = [(8, 1), (65, 2), (1000, 1)]
VOLUMES = [(4, 4, 4, 1), (9, 12, 7, 2), (17, 8, 30, 1)]
SHAPES = [*IMAGES, *SIGNALS, *VOLUMES]
LATENTS = [
    {"latent": "vector"},
    {"latent": "spatial"},
    {"latent": "hierarchical", "levels": 2},
    {"latent": "hierarchical", "levels": 3},
]


def small(shape=(8, 8, 1), n_classes=3, **keys) -> CVAE:
    torch.manual_seed(0)
    return CVAE(shape, n_classes, **{"latent_dim": 4, "width": 8, "class_embedding": 4} | keys)


def batch(shape, n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    *space, channels = shape
    return torch.rand(n, channels, *space), torch.arange(n) % 3


# -- Folding and sizes ---------------------------------------------------------------------------


@pytest.mark.parametrize("r", [1, 2, 4])
def test_folding_is_pixel_unshuffle(r):
    x = torch.arange(2 * 3 * 8 * 12.0).view(2, 3, 8, 12)
    torch.testing.assert_close(fold_space(x, (r, r)), F.pixel_unshuffle(x, r), rtol=0, atol=0)
    h = torch.arange(2 * 16 * 3 * 5.0).view(2, 16, 3, 5)
    torch.testing.assert_close(unfold_space(h, (r, r)), F.pixel_shuffle(h, r), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("space", "fold"),
    [((8,), (4,)), ((8, 12), (2, 4)), ((6, 4), (1, 2)), ((4, 6, 8), (2, 3, 4))],
)
def test_unfolding_is_the_inverse_of_folding(space, fold):
    x = torch.rand(2, 3, *space)
    folded = fold_space(x, fold)
    cells = tuple(side // each for side, each in zip(space, fold, strict=True))
    assert folded.shape == (2, 3 * math.prod(fold), *cells)
    assert torch.equal(unfold_space(folded, fold), x)
    # The first cell's features are the first block's values, in order.
    block = x[(slice(0, 1), slice(0, 1), *(slice(0, each) for each in fold))]
    assert torch.equal(folded[0, : math.prod(fold)].flatten(1)[:, 0], block.flatten())


@pytest.mark.parametrize("shape", SHAPES)
def test_geometry_of_even_and_odd_sizes(shape):
    geometry = Geometry.of(shape)
    *space, channels = shape
    assert (geometry.rank, geometry.channels) == (len(space), channels)
    assert geometry.n_values == math.prod(shape)
    assert max(geometry.grids[-1]) <= 7
    for grid, stride, after in zip(
        geometry.grids, geometry.strides, geometry.grids[1:], strict=False
    ):
        assert after == tuple(-(-n // each) for n, each in zip(grid, stride, strict=True))
    x, _ = batch(shape)
    folded = geometry.folded(x)
    assert folded.shape == (3, geometry.folded_channels, *geometry.grids[0])
    assert torch.equal(geometry.unfolded(folded), x)


def test_geometry_by_hand():
    geometry = Geometry.of((31, 65, 3))
    assert geometry.fold == (2, 4)
    assert geometry.grids == ((16, 17), (8, 9), (4, 5))
    assert geometry.strides == ((2, 2), (2, 2))
    signal = Geometry.of((1000, 1))
    assert (signal.fold, signal.grids[0], signal.grids[-1]) == ((8,), (125,), (4,))
    oblong = Geometry.of((7, 8, 4, 1))
    assert (oblong.fold, oblong.grids) == ((1, 1, 1), ((7, 8, 4), (7, 4, 4)))
    assert oblong.strides == ((1, 2, 1),)


@pytest.mark.parametrize("latents", LATENTS, ids=lambda each: "-".join(map(str, each.values())))
@pytest.mark.parametrize("shape", [(28, 28, 1), (13, 9, 3), (70, 2), (9, 5, 8, 1)])
def test_shapes_of_every_latent_and_rank(shape, latents):
    model = small(shape, **latents)
    x, y = batch(shape)
    mean, logvar = model.posterior(x, y)
    assert mean.shape == logvar.shape == (3, model.latent_dim)
    decoded = model.generate(mean, y)
    assert decoded.z.shape == decoded.mean.shape == decoded.logvar.shape == mean.shape
    assert torch.equal(decoded.z, mean)
    assert model.decode(mean, y).shape == x.shape
    assert model.latent_dim == sum(each.size for each in model.groups)
    terms = model.elbo(x, y, noise=torch.randn_like(mean))
    assert terms.kl.shape == mean.shape
    assert terms.elbo.shape == (3,)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_from_small_to_large_odd_and_oblong(shape):
    model = small(shape)
    x, y = batch(shape, 2)
    mean, _ = model.posterior(x, y)
    assert model.decode(mean, y).shape == x.shape
    assert SmallClassifier(shape, 3, width=8)(x).shape == (2, 3)
    score, features = Discriminator(shape, 3, width=8)(x, y)
    assert score.shape == (2,)
    assert len(features) == len(model.geometry.grids)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3,), "expected 1 to 3 spatial axes and one of channels, got shape"),
        ((4, 4, 4, 4, 1), "expected 1 to 3 spatial axes and one of channels, got shape"),
    ],
)
def test_other_sizes_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        small(shape)


def test_unknown_arguments_are_refused():
    with pytest.raises(
        ValueError, match=r"latent: expected vector, spatial, hierarchical or discrete, got 'grid'"
    ):
        small(latent="grid")
    with pytest.raises(ValueError, match=r"likelihood: expected one of gaussian, .*got 'poisson'"):
        small(likelihood="poisson")
    with pytest.raises(ValueError, match=r"three latent levels: samples of shape \(7, 7, 4, 1\)"):
        small((7, 7, 4, 1), latent="hierarchical", levels=3)


# -- Hierarchies ---------------------------------------------------------------------------------


def stirred(model: CVAE) -> CVAE:
    """No parameter is zero any more, as after training."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.1 * torch.randn(each.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("levels", [2, 3])
def test_a_later_groups_prior_depends_on_the_groups_before_it_alone(levels):
    model = stirred(small((28, 28, 1), latent="hierarchical", levels=levels))
    assert len(model.groups) == levels
    z, y = torch.randn(2, model.latent_dim), torch.tensor([0, 1])
    before = model.generate(z, y)
    for index, group in enumerate(model.groups):
        moved = z.clone()
        moved[:, group.start : group.start + group.size] += 1
        after = model.generate(moved, y)
        end = group.start + group.size
        assert torch.equal(before.mean[:, :end], after.mean[:, :end])
        if index + 1 < levels:
            assert (before.mean[:, end:] - after.mean[:, end:]).abs().max() > 1e-3
        assert (before.raw - after.raw).abs().max() > 1e-4


@pytest.mark.parametrize("latents", LATENTS, ids=lambda each: "-".join(map(str, each.values())))
def test_draws_of_the_prior_are_its_reparameterisation(latents):
    model = stirred(small((28, 28, 1), **latents))
    noise, y = torch.randn(3, model.latent_dim), torch.tensor([0, 1, 2])
    z = model.draw_prior(noise, y, temperature=0.7)
    decoded = model.generate(z, y)
    expected = decoded.mean + 0.7 * torch.exp(0.5 * decoded.logvar) * noise
    torch.testing.assert_close(z, expected)


def test_a_new_hierarchy_starts_as_a_standard_normal():
    model = small((28, 28, 1), latent="hierarchical", levels=3)
    decoded = model.generate(torch.randn(2, model.latent_dim), torch.tensor([0, 1]))
    assert not decoded.mean.any()
    assert not decoded.logvar.any()


# -- The class -----------------------------------------------------------------------------------


def test_a_plain_vae_never_sees_the_class():
    model = stirred(small(conditional=False, latent="hierarchical"))
    x, _ = batch((8, 8, 1))
    noise = torch.randn(3, model.latent_dim)
    bounds = [
        model.elbo(x, torch.full((3,), label), noise=noise).elbo.detach() for label in range(3)
    ]
    assert torch.equal(bounds[0], bounds[1])
    assert torch.equal(bounds[0], bounds[2])
    assert all(each.shape[0] == 1 for each in model.class_parameters().values())


def test_the_class_matters_to_a_conditional_one():
    model = stirred(small())
    x, _ = batch((8, 8, 1))
    noise = torch.randn(3, 4)
    first, second = (model.elbo(x, torch.full((3,), label), noise=noise).elbo for label in range(2))
    assert (first - second).abs().min() > 1e-3


def test_parameters_are_either_the_trunks_or_one_classes():
    model = small()
    trunk, rows = model.trunk_parameters(), model.class_parameters()
    assert trunk.keys() | rows.keys() == dict(model.named_parameters()).keys()
    assert not trunk.keys() & rows.keys()
    assert all(each.shape[0] == 3 for each in rows.values())
    assert {"embedding.weight", "prior_mean.weight", "prior_logvar.weight"} < rows.keys()


def test_a_class_moves_its_own_rows_alone():
    model = small()
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([1, 1, 1, 1])
    model.elbo(x, y, noise=torch.randn(4, 4)).loss().backward()
    for name, parameter in model.class_parameters().items():
        assert parameter.grad is not None, name
        assert parameter.grad[[0, 2]].abs().max() == 0, name
        if name != "embedding.weight" and "encoder" not in name:
            assert parameter.grad[1].abs().max() > 0, name


def test_separate_models_answer_for_their_class():
    torch.manual_seed(0)
    model = SeparateCVAE.build((8, 8, 1), 3, latent_dim=4, width=8, class_embedding=4).eval()
    x, y = torch.rand(6, 1, 8, 8), torch.tensor([2, 0, 1, 2, 0, 1])
    noise = torch.randn(6, 4)
    terms = model.elbo(x, y, noise=noise)
    for row in range(6):
        one = slice(row, row + 1)
        alone = model.of_class(int(y[row])).elbo(
            x[one], torch.zeros(1, dtype=torch.long), noise=noise[one]
        )
        torch.testing.assert_close(terms.elbo[one], alone.elbo, rtol=1e-4, atol=1e-3)
    for part in ("generate", "decode", "draw_prior"):
        ours = getattr(model, part)(noise, y)
        for row in range(6):
            one = slice(row, row + 1)
            alone = getattr(model.of_class(int(y[row])), part)(
                noise[one], torch.zeros(1, dtype=torch.long)
            )
            if part == "generate":
                ours_row, alone = ours.raw[one], alone.raw
            else:
                ours_row = ours[one]
            torch.testing.assert_close(ours_row, alone, rtol=1e-4, atol=1e-5)
    decoded = model.generate(noise, y)
    for name in ("log_prob", "log_mass"):
        whole = getattr(model, name)(decoded, x, y)
        for row in range(6):
            one = slice(row, row + 1)
            alone = getattr(model.of_class(int(y[row])).likelihood, name)(decoded.raw[one], x[one])
            torch.testing.assert_close(whole[one], alone)
    mean, logvar = model.prior(y)
    assert not mean.any()
    assert not logvar.any()


def test_free_bits_and_beta():
    kl = torch.tensor([[0.1, 3.0], [0.3, 1.0]])
    terms = ElboTerms(torch.tensor([1.0, 3.0]), kl, torch.zeros(2), torch.zeros(2, 1, 8, 8))
    assert float(terms.loss()) == pytest.approx(2 + 0.2 + 2.0)
    assert float(terms.loss(beta=4.0)) == pytest.approx(2 + 4 * 2.2)
    assert float(terms.loss(free_bits=0.5)) == pytest.approx(2 + 0.5 + 2.0)


def test_training_uses_the_optimal_sigma_of_its_batch():
    model, y = small(), torch.tensor([0, 1, 2])
    x, noise = torch.rand(3, 1, 8, 8), torch.randn(3, 4)
    optimal = model.elbo(x, y, noise=noise, optimal_sigma=True)
    calibrated = model.elbo(x, y, noise=noise)
    assert optimal.reconstruction.mean() < calibrated.reconstruction.mean()
    model.likelihood.log_sigma2.copy_(optimal_log_sigma2(calibrated.squared_error, 64))
    again = model.elbo(x, y, noise=noise)
    torch.testing.assert_close(optimal.reconstruction, again.reconstruction)


def test_a_new_class_is_its_embedding_alone():
    model = small()
    rows = [each for name, each in model.named_parameters() if ".rows." in name]
    assert len(rows) == len(model.encoder.blocks) + len(model.decoder.blocks) + 1
    assert not any(each.any() for each in [*rows, *model.prior(torch.arange(3))])


def test_log_variances_are_bounded():
    model, y = small(), torch.tensor([0, 1, 2])
    with torch.no_grad():
        model.encoder.heads[0].bias.fill_(1e6)
        model.prior_logvar.weight.fill_(-1e6)
    assert model.posterior(torch.rand(3, 1, 8, 8), y)[1].max() == 10
    assert model.prior(y)[1].min() == -10
    assert model.elbo(torch.rand(3, 1, 8, 8), y, noise=torch.randn(3, 4)).kl.isfinite().all()


def test_what_the_decoder_should_give_may_differ_from_what_the_encoder_sees():
    model = small()
    x, y = batch((8, 8, 1))
    seen, noise = torch.rand_like(x), torch.randn(3, 4)
    terms = model.elbo(seen, y, noise=noise, target=x)
    same = model.elbo(seen, y, noise=noise)
    torch.testing.assert_close(terms.kl, same.kl)
    torch.testing.assert_close(terms.mean, same.mean)
    expected = (x - terms.mean).square().flatten(1).sum(dim=1)
    torch.testing.assert_close(terms.squared_error, expected)


# -- The judges ----------------------------------------------------------------------------------


def test_the_discriminator_is_of_bounded_slope_and_sees_the_class():
    torch.manual_seed(0)
    judge = Discriminator((8, 8, 1), 3, width=8)
    for _ in range(20):  # the power iteration settles
        judge(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
    judge.eval()
    for layer in (judge.out, judge.by_class):
        norm = torch.linalg.matrix_norm(layer.weight.detach(), 2)
        assert float(norm) == pytest.approx(1, abs=1e-2)
    x = torch.rand(3, 1, 8, 8)
    scores = [judge(x, torch.full((3,), label))[0] for label in range(3)]
    assert (scores[0] - scores[1]).abs().min() > 1e-6


def test_feature_distance_is_the_mean_of_mean_squares_and_follows_the_decoded_alone():
    real = [torch.zeros(2, 3, requires_grad=True), torch.ones(2, 1, 4, requires_grad=True)]
    decoded = [torch.full((2, 3), 2.0, requires_grad=True), torch.ones(2, 1, 4, requires_grad=True)]
    distance = feature_distance(real, decoded)
    assert float(distance.detach()) == pytest.approx((4 + 0) / 2)
    distance.backward()
    assert real[0].grad is None
    assert decoded[0].grad.abs().min() > 0
