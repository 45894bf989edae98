"""The dense network behind the same model: rows of any length, every grouping, on disk and back."""

import json

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import vaeaug
from vaeaug.models import CVAE, LIKELIHOODS, SeparateCVAE, importance_weighted_bound
from vaeaug.stages import bytes_per_sample
from vaeaug.training import train

QUICK = {"model.network": "mlp", "training.steps": 40, "training.adapt_steps": 10}


def rows(shape, n=6, seed=0):
    x = torch.rand(n, shape[-1], *shape[:-1], generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(n) % 2


def table(n_columns=5, counts=(60, 20), seed=0):
    """Correlated normal columns, the second class moved."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_columns, n_columns))
    parts = [rng.normal(size=(n, n_columns)) @ mixing + 2 * c for c, n in enumerate(counts)]
    values = np.concatenate(parts).astype(np.float32)[:, :, None]
    labels = np.repeat(np.arange(len(counts)), counts)
    extent = (float(values.min()), float(values.max()))
    return vaeaug.LabelledImages(values, labels, tuple("abc"[: len(counts)]), extent)


# -- Shapes, likelihoods and bounds ---------------------------------------------------------------


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (7, 3), (300, 1), (5, 4, 3), (3, 3, 3, 2)])
def test_samples_of_any_size(shape, likelihood):
    torch.manual_seed(0)
    model = CVAE(shape, 2, network="mlp", likelihood=likelihood, max_width=16).eval()
    x, y = rows(shape)
    terms = model.elbo(x, y, noise=torch.zeros(6, model.latent_dim))
    assert terms.mean.shape == x.shape
    assert terms.elbo.shape == (6,)
    assert torch.isfinite(terms.elbo).all()
    z = model.draw_prior(torch.randn(6, model.latent_dim), y)
    assert model.decode(z, y).shape == x.shape


@pytest.mark.parametrize(("n_values", "units"), [(1, 1), (5, 5), (32, 32), (400, 32), (401, 64)])
def test_latents_are_no_more_than_values(n_values, units):
    assert CVAE((n_values, 1), 2, network="mlp", max_width=8).latent_dim == units
    assert CVAE((n_values, 1), 2, network="mlp", max_width=8, latent_dim=3).latent_dim == 3


@pytest.mark.parametrize("latent", ["spatial", "hierarchical"])
def test_without_convolutions_there_is_no_grid(latent):
    with pytest.raises(ValueError, match=f"network mlp: expected latent vector, got '{latent}'"):
        CVAE((9, 1), 2, network="mlp", latent=latent)
    config = vaeaug.AugmentConfig().changed(**QUICK, **{"model.latent": latent})
    with pytest.raises(vaeaug.ConfigError, match=r"expected model\.latent vector"):
        vaeaug.fit(table(), config, device="cpu")


def test_an_unknown_network_is_named():
    with pytest.raises(ValueError, match="network: expected one of conv, mlp, got 'dense'"):
        CVAE((9, 1), 2, network="dense")


def test_no_adversary_without_convolutions():
    config = vaeaug.AugmentConfig().changed(**QUICK, **{"adversarial.steps": 5})
    with pytest.raises(vaeaug.ConfigError, match=r"expected model\.network conv, got mlp"):
        vaeaug.fit(table(), config, device="cpu")


def test_kl_is_that_of_torch_distributions():
    torch.manual_seed(0)
    model = CVAE((6, 1), 2, network="mlp", max_width=16).eval()
    torch.nn.init.normal_(model.prior_mean.weight)
    torch.nn.init.normal_(model.prior_logvar.weight)
    x, y = rows((6, 1))
    with torch.no_grad():
        terms = model.elbo(x, y, noise=torch.zeros(6, 6))
        q, p = (
            Normal(mean, (logvar / 2).exp())
            for mean, logvar in (model.posterior(x, y), model.prior(y))
        )
    torch.testing.assert_close(terms.kl, kl_divergence(q, p))


def test_a_trained_model_stays_below_the_evidence_of_linear_gaussian_data_and_comes_near():
    # Columns x = Wu + s e of known evidence: no bound may exceed it, on average over fresh rows, by
    # more than sampling noise; and a bound that knows nothing of W is far below.
    rng = np.random.default_rng(0)
    weights, sigma = rng.normal(size=(6, 2)), 0.4
    drawn = rng.normal(size=(900, 2)) @ weights.T + sigma * rng.normal(size=(900, 6))
    low, high = float(drawn.min()), float(drawn.max())
    values = drawn.astype(np.float32)[:, :, None]
    seen, fresh = values[:600], values[600:800]
    labels = np.arange(600) % 2  # classes that mean nothing
    extent = (float(values.min()), float(values.max()))
    data = vaeaug.LabelledImages(seen, labels, ("a", "b"), extent)
    config = vaeaug.AugmentConfig().changed(
        **QUICK | {"training.steps": 300, "model.grouping": "shared", "training.eval_every": 50}
    )
    model = train(data, config, device="cpu").model
    x = torch.from_numpy((fresh - extent[0]) / (extent[1] - extent[0])).movedim(-1, 1)
    y = torch.zeros(200, dtype=torch.long)
    bound = importance_weighted_bound(model, x, y, k=20, seed=0).double()
    covariance = torch.from_numpy(weights @ weights.T + sigma**2 * np.eye(6)) / (high - low) ** 2
    mean = torch.full((6,), -low / (high - low), dtype=torch.float64)
    evidence = MultivariateNormal(mean, covariance).log_prob(x.squeeze(1).double())
    gap = evidence - bound
    noise = float(gap.std()) / 200**0.5
    assert float(gap.mean()) > -3 * noise
    independent = Normal(mean, covariance.diag().sqrt()).log_prob(x.squeeze(1).double()).sum(1)
    # It has learned most of what there is to know beyond the columns by themselves.
    assert float(gap.mean()) < 0.5 * float((evidence - independent).mean())


# -- Classes --------------------------------------------------------------------------------------


def test_rows_of_a_class_are_its_own():
    torch.manual_seed(0)
    model = CVAE((4, 1), 3, network="mlp", max_width=16).eval()
    own = model.class_parameters()
    assert {name.split(".")[-3] for name in own if "rows" in name} == {"film"}
    x, _ = rows((4, 1))
    before = [model.decode(*model_latents(model, x, c)) for c in range(3)]
    with torch.no_grad():
        for parameter in own.values():
            parameter[1] += 0.5
    after = [model.decode(*model_latents(model, x, c)) for c in range(3)]
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1])


def model_latents(model, x, label):
    y = torch.full((len(x),), label)
    return model.posterior(x, y)[0], y


@pytest.mark.parametrize("grouping", ["adapted", "separate", "shared"])
def test_every_grouping_trains_is_stored_and_comes_back(grouping, tmp_path):
    data = table()
    config = vaeaug.AugmentConfig().changed(**QUICK, **{"model.grouping": grouping})
    generator = vaeaug.fit(data, config, device="cpu")
    assert isinstance(generator.model, SeparateCVAE if grouping == "separate" else CVAE)
    generator.save(tmp_path)
    loaded = vaeaug.load(tmp_path)
    assert loaded.model.architecture["network"] == "mlp"
    assert loaded.sha256 == generator.sha256
    for sampler in ("posterior", "interpolate", "gmm", "prior"):
        ours, theirs = (
            each.sample(1, 7, seed=3, sampler=sampler).images for each in (generator, loaded)
        )
        assert ours.shape == (7, 5, 1)
        np.testing.assert_array_equal(ours, theirs)
    one_by_one = [generator.sample(1, 1, seed=3, sampler="gmm", start=i).images for i in range(3)]
    together = generator.sample(1, 3, seed=3, sampler="gmm").images
    np.testing.assert_array_equal(np.concatenate(one_by_one), together)


def test_training_learns_the_table():
    data = table(counts=(300, 60))
    config = vaeaug.AugmentConfig().changed(
        **QUICK | {"training.steps": 150, "training.eval_every": 25}
    )
    trained = train(data, config, device="cpu")
    # At the start the latents say nothing: more than a nat per row is to be had.
    (first,), (best,) = trained.stages["trunk"].first, trained.stages["trunk"].best
    assert best > first + 1
    assert trained.stages["adapt"].step == 10


def test_a_generator_of_before_there_was_a_choice_still_loads(synthesizer, tmp_path):
    synthesizer.save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config["architecture"].pop("network") == "conv"
    # As it was then: without hashes.
    config |= {"format_version": 2}
    del config["files"], config["sha256"]
    path.write_text(json.dumps(config))
    loaded = vaeaug.load(tmp_path)
    assert loaded.model.architecture["network"] == "conv"
    assert loaded.sha256 == synthesizer.sha256


def test_the_size_of_a_sample_on_disk_counts_the_latents_there_are():
    data = table()  # too short for a convolution
    config = vaeaug.AugmentConfig().changed(**QUICK)
    assert bytes_per_sample(data, config) == 4 * 5 + 4 * 5 + 44
