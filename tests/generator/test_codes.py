"""Generators of discrete latents: what they draw, keep, and refuse."""

import json

import numpy as np
import pytest
import torch

import vaeaug
from tests.physical import moving_digits, oscillators
from vaeaug.config import CODE_SAMPLERS, ConfigError, Recipe
from vaeaug.evaluation.gate.search import default_candidates
from vaeaug.generator import ClassMover, SamplingError, draw_batch
from vaeaug.job.applications import ApplicationError, encode_to

DISCRETE = {
    "model.latent": "discrete",
    "model.codes": 16,
    "training.steps": 150,
    "training.adapt_steps": 10,
    "density.steps": 60,
    "density.width": 32,
    "restoration.steps": 0,
}


@pytest.fixture(scope="module")
def discrete(digits, small_config):
    """A generator whose latents are codes, holding its images."""
    return vaeaug.fit(digits, small_config.changed(**DISCRETE), device="cpu").attach(digits)


def codes(generator, latents: np.ndarray) -> np.ndarray:
    return generator.model.codes_at(torch.from_numpy(latents)).numpy()


@pytest.mark.parametrize(
    "way",
    [
        {"sampler": "prior"},
        {"sampler": "prior", "temperature": 0.5},
        {"sampler": "posterior"},
        {"sampler": "posterior", "redrawn": 0.2, "residual": True},
        {"sampler": "delta"},
    ],
    ids=str,
)
def test_a_sample_does_not_depend_on_its_batch(discrete, way):
    whole = discrete.sample(3, 150, seed=7, **way)
    for start, n in ((0, 1), (0, 7), (63, 3), (149, 1)):
        part = discrete.sample(3, n, seed=7, start=start, **way)
        rows = slice(start, start + n)
        np.testing.assert_array_equal(part.images, whole.images[rows])
        np.testing.assert_array_equal(part.latents, whole.latents[rows])
        np.testing.assert_array_equal(part.source_index, whole.source_index[rows])
    assert len(np.unique(whole.latents, axis=0)) > 40
    assert not np.array_equal(whole.images, discrete.sample(3, 150, seed=8, **way).images)


def test_latents_are_codes_and_decode_to_the_sample(discrete):
    batch = discrete.sample(2, 20, seed=1, sampler="prior")
    book = discrete.model.codebook.codes.numpy()
    cells = batch.latents.reshape(20, book.shape[1], -1).transpose(0, 2, 1).reshape(-1, len(book.T))
    assert (np.abs(cells[:, None] - book).max(axis=2).min(axis=1) == 0).all()
    np.testing.assert_array_equal(batch.images, discrete.decode(batch.latents, batch.labels))
    nearby = batch.latents + np.float32(1e-4)
    np.testing.assert_array_equal(batch.images, discrete.decode(nearby, batch.labels))


def test_posterior_redraws_the_part_that_is_asked_for(discrete):
    n_cells = discrete.model.code_prior.n_cells
    for redrawn in (1 / n_cells, 0.5, 1.0):
        batch = discrete.sample(1, 60, seed=3, sampler="posterior", redrawn=redrawn)
        own = codes(discrete, discrete.means[batch.source_index])
        changed = (codes(discrete, batch.latents) != own).sum(axis=1)
        assert changed.max() <= round(redrawn * n_cells)
        assert changed.max() > 0
        assert (discrete.labels[batch.source_index] == 1).all()


def test_the_bound_counts_the_codes_by_the_prior(discrete, digits):
    images, labels = digits.images[:30], digits.labels[:30]
    elbo = discrete.bound(images, labels, k=1)
    np.testing.assert_array_equal(elbo, discrete.bound(images, labels, k=50))
    nats, bits = discrete.rates(images, labels)
    n_cells, book = discrete.model.code_prior.n_cells, discrete.model.codebook
    assert nats.shape == (30, n_cells)
    assert 0 < nats.mean() < np.log(book.n_codes)  # it has learned something
    assert np.isfinite(bits).all()


def test_it_comes_back_from_its_folder(discrete, digits, tmp_path):
    discrete.save(tmp_path)
    again = vaeaug.load(tmp_path).attach(digits)
    assert again.sha256 == discrete.sha256
    for sampler in ("prior", "posterior"):
        ours = discrete.sample(4, 5, seed=2, sampler=sampler)
        theirs = again.sample(4, 5, seed=2, sampler=sampler)
        np.testing.assert_array_equal(ours.images, theirs.images)


def test_its_decoder_is_exported(discrete, tmp_path):
    path = vaeaug.export_decoder(discrete, tmp_path / "decoder.pt2")
    batch = discrete.sample(2, 5, seed=1, sampler="prior")
    z, y = torch.from_numpy(batch.latents), torch.from_numpy(batch.labels)
    images = torch.export.load(path).module()(z, y)
    difference = discrete.codec.stored_pixels(images.detach()).astype(int) - batch.images
    assert np.abs(difference).max() <= 1  # of the gray levels, by rounding


def test_batches_for_a_training_under_way(discrete):
    labels = np.array([0, 3, 3, 7], np.int64)
    for sampler in ("auto", "posterior"):
        first = draw_batch(discrete, labels, seed=5, sampler=sampler)
        assert torch.equal(first, draw_batch(discrete, labels, seed=5, sampler=sampler))


@pytest.mark.parametrize("sampler", ["interpolate", "gmm", "flow", "transfer", "blend"])
def test_samplers_that_move_latents_are_refused(discrete, sampler):
    with pytest.raises(SamplingError, match=r"codes.*expected one of prior, posterior, delta"):
        discrete.sample(1, 2, sampler=sampler)


def test_what_moves_or_rounds_latents_is_refused(discrete, digits, tmp_path):
    with pytest.raises(SamplingError, match=r"redrawn above 0 and up to 1, got 1\.5"):
        discrete.sample(1, 2, sampler="posterior", redrawn=1.5)
    with pytest.raises(SamplingError, match=r"got codes"):
        ClassMover(discrete)
    with pytest.raises(ApplicationError, match=r"got one of codes"):
        encode_to(tmp_path / "z.h5", discrete, digits)
    assert not (tmp_path / "z.h5").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.style_dim", 4),
        ("model.grouping", "separate"),
        ("model.beta", 4.0),
        ("model.free_bits", 0.1),
        ("model.capacity", 5.0),
        ("density.kind", "flow"),
        ("density.width", 40),
        ("adversarial.steps", 10),
        ("recipe.sampler", "gmm"),
        ("model.network", "mlp"),
    ],
)
def test_contradictions_are_refused_before_any_work(digits, key, value):
    config = vaeaug.load_config(None, ["model.latent=discrete"]).changed(**{key: value})
    # A style is refused with all that it needs.
    what = "needs model.latent vector" if key == "model.style_dim" else "discrete"
    with pytest.raises(ConfigError, match=f"{key}.*{what}|{what}.*{key}"):
        vaeaug.fit(digits, config, device="cpu")


@pytest.mark.parametrize("data", [oscillators(), moving_digits()], ids=["signals", "volumes"])
def test_signals_and_volumes_have_codes_too(data):
    changes = {"training.steps": 8, "training.adapt_steps": 4, "density.steps": 4}
    config = vaeaug.load_config(None, ["model.width=8"]).changed(**DISCRETE | changes)
    generator = vaeaug.fit(data, config, device="cpu")
    for sampler in ("prior", "posterior"):
        whole = generator.sample(0, 66, seed=5, sampler=sampler)
        assert whole.images.shape == (66, *data.image_shape)
        part = generator.sample(0, 2, seed=5, sampler=sampler, start=64)
        np.testing.assert_array_equal(part.images, whole.images[64:])


def test_the_prior_knows_the_class_where_the_network_does_not(digits):
    changes = {"model.conditional": False, "model.grouping": "shared", "density.steps": 80}
    config = vaeaug.load_config(None, ["model.width=8"]).changed(**DISCRETE | changes)
    two = digits.subset(np.flatnonzero(digits.labels < 2))  # noughts are hollow, ones are not
    generator = vaeaug.fit(two, config, device="cpu")
    z = generator.means[:4]
    np.testing.assert_array_equal(generator.decode(z, [0] * 4), generator.decode(z, [1] * 4))
    middle = [
        generator.sample(label, 100, sampler="prior").images[:, 3:5, 3:5].mean() for label in (0, 1)
    ]
    real = [two.images[two.labels == label][:, 3:5, 3:5].mean() for label in (0, 1)]
    assert middle[1] - middle[0] > 0.5 * (real[1] - real[0]) > 0


def test_a_search_tries_samplers_that_apply():
    samplers = {recipe.sampler for recipe in default_candidates(Recipe(), codes=True)}
    assert samplers == {"auto", *CODE_SAMPLERS}


def test_a_job_reports_how_the_codebook_is_used(digits, small_config, tmp_path):
    few_steps = {"training.steps": 40, "training.bound_samples": 2, "recipe.sampler": "prior"}
    config = small_config.changed(**DISCRETE | few_steps)
    few = digits.subset(np.flatnonzero(digits.labels < 3))
    result = vaeaug.augment(few, tmp_path / "run", config, device="cpu")
    assert vaeaug.verify(result.out_dir).ok
    codes = json.loads((result.out_dir / "diagnostics.json").read_text())["latents"]["codes"]
    assert codes["codes"] == 16
    assert 1 <= codes["perplexity"] <= codes["used"] <= 16
    assert 0 < codes["nats_per_code"] < np.log(16) + 0.1
