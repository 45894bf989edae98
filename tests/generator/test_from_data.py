"""`delta` and `calibrated` borrow the variation of frequent classes, and draw what they say."""

import numpy as np
import pytest
import torch
from torch import nn

import vaeaug
from vaeaug.generator import SamplingError
from vaeaug.generator.codec import Codec
from vaeaug.generator.from_data import COVARIANCE_WEIGHT, DONORS, DataSampler
from vaeaug.generator.latents import Latents
from vaeaug.models import CVAE

N = (200, 200, 4, 2)
FEATURES = 6


def long_tailed(seed=0, n=N, groups=None):
    """Classes of one within-class covariance, far from one another in pairs: 0 and 2, 1 and 3."""
    rng = np.random.default_rng(seed)
    means = np.array([[0.0] * 6, [60.0] * 6, [1.0] * 6, [61.0] * 6], np.float32)
    factor = np.linalg.cholesky(np.eye(6) + 0.5 * np.ones((6, 6)))
    labels = np.repeat(np.arange(4), n)
    x = means[labels] + rng.normal(size=(len(labels), 6)) @ factor.T
    return vaeaug.LabelledImages(
        images=x.astype(np.float32)[:, None],
        labels=labels.astype(np.int64),
        class_names=("a", "b", "c", "d"),
        value_range=(-100.0, 200.0),
        groups=groups,
    )


@pytest.fixture(scope="module")
def features():
    return long_tailed()


@pytest.fixture(scope="module")
def generator(features):
    config = vaeaug.load_config(None, ["training.steps=20", "training.adapt_steps=4"])
    return vaeaug.fit(features, config, device="cpu").attach(features)


def sampler_of(data):
    """What draws, with an untrained model that only the shapes need."""
    k = data.n_classes
    model = CVAE(data.image_shape, k, network="mlp", latent_dim=2, width=8, max_width=8)
    codec = Codec(model, value_range=data.value_range, dtype="float32")
    latents = Latents(*codec.posterior(data.images, data.labels), data.labels, k)
    return DataSampler(codec, latents, data)


# --- delta


def test_a_delta_is_a_real_sample_and_a_difference_of_one_donor(generator, features):
    batch = generator.sample("d", 40, seed=0, sampler="delta")
    x = features.images[:, 0].astype(np.float64)
    differences = batch.images[:, 0] - x[batch.source_index]
    assert (features.labels[batch.source_index] == 3).all()
    donors = generator.data_sampler().donors(3)
    assert donors == [1, 0]  # the frequent classes, that of the nearer mean first
    of_donor = [x[features.labels == c] for c in donors]
    for difference in differences:
        errors = [np.abs(rows[:, None] - rows[None] - difference).max(axis=2) for rows in of_donor]
        assert min(error.min() for error in errors) < 2e-4


def test_deltas_have_the_moments_of_their_closed_form(generator, features):
    """Mean of the class's samples; covariance theirs and twice that within the donors."""
    n = 6000
    batch = generator.sample("c", n, seed=1, sampler="delta")
    x = features.images[:, 0].astype(np.float64)
    own = x[features.labels == 2]
    within = [np.cov(x[features.labels == c].T, ddof=1) for c in (0, 1)]
    expected = np.cov(own.T, ddof=0) + 2 * np.mean(within, axis=0)
    drawn = batch.images[:, 0].astype(np.float64)
    error = np.sqrt(np.diag(expected) / n)
    assert (np.abs(drawn.mean(axis=0) - own.mean(axis=0)) < 5 * error).all()
    # Var of a product of normals of covariance S: (S_ii S_jj + S_ij^2) / n.
    spread = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / n)
    assert (np.abs(np.cov(drawn.T) - expected) < 5 * spread).all()


def test_temperature_scales_the_difference(generator, features):
    whole, half = (
        generator.sample("c", 30, seed=2, sampler="delta", temperature=t) for t in (1.0, 0.5)
    )
    start = features.images[whole.source_index]
    assert np.array_equal(whole.source_index, half.source_index)
    np.testing.assert_allclose(half.images - start, (whole.images - start) / 2, atol=2e-4)


def test_of_a_linear_decoder_a_delta_of_images_is_its_closed_form(digits, small_config):
    """Source + W (mean of one - mean of the other), whatever the decoder loses of the source."""
    generator = vaeaug.fit(
        digits, small_config.changed(**{"training.steps": 4, "training.adapt_steps": 2})
    ).attach(digits)
    torch.manual_seed(0)
    linear = nn.Linear(generator.model.latent_dim, 64)

    def decode(z, y):
        return 0.2 * linear(z).view(-1, 1, 8, 8)

    generator.model.decode = decode
    drawn, samples = generator.data_sampler().draw(
        _request(generator, 9, "delta", digits), seed=3, first=0, n=20
    )
    moved = drawn.latents - generator.means[drawn.sources]
    expected = torch.from_numpy(digits.images[drawn.sources]).movedim(-1, 1).float() / 255 + (
        0.2 * torch.from_numpy(moved) @ linear.weight.T
    ).view(-1, 1, 8, 8)
    torch.testing.assert_close(samples, expected.detach(), rtol=1e-4, atol=1e-5)
    assert np.abs(moved).max() > 0.05


def _request(generator, label, sampler, data):
    from vaeaug.generator.samplers import Request

    return Request(label, sampler, np.flatnonzero(data.labels == label), 1.0, 1.0, 12)


def test_a_difference_is_never_one_of_two_views_of_an_image():
    # 4 images of class 0 in 50 views each; views of one image are alike, images are not.
    data = long_tailed(n=(200, 200, 4, 2))
    groups = np.concatenate([np.arange(200) % 4, 100 + np.arange(200), 400 + np.arange(6)])
    data = vaeaug.LabelledImages(
        data.images, data.labels, data.class_names, data.value_range, groups=groups.astype(np.int64)
    )
    sampler = sampler_of(data)
    rng = np.random.default_rng(0)
    pairs = [sampler._pair(0, *rng.random(2)) for _ in range(300)]
    assert all(groups[a] != groups[b] for a, b in pairs)
    assert len({a for a, _ in pairs}) > 100
    # Counted by images, class 0 is rare: it is no donor.
    assert sampler.donors(2) == [1]


def test_there_are_few_donors_and_only_frequent_ones():
    rng = np.random.default_rng(0)
    counts = [60] * 9 + [3] * 4
    labels = np.repeat(np.arange(13), counts)
    data = vaeaug.LabelledImages(
        (labels[:, None, None] + 0.1 * rng.random((len(labels), 1, 4))).astype(np.float32),
        labels.astype(np.int64),
        tuple("abcdefghijklm"),
        (0.0, 20.0),
    )
    sampler = sampler_of(data)
    assert sampler.donors(10) == [8, 7, 6, 5, 4][:DONORS]
    assert sampler.donors(2)[0] == 2  # a frequent class is most like itself


# --- calibrated


def test_a_calibrated_normal_mixes_the_covariances(generator, features):
    x = features.images[:, 0].astype(np.float64)
    covariances = [np.cov(x[features.labels == c].T, ddof=1) for c in range(4)]
    normal = generator.data_sampler().calibrated_normal(2)
    borrowed = (covariances[0] + covariances[1]) / 2
    expected = (4 * covariances[2] + COVARIANCE_WEIGHT * borrowed) / (4 + COVARIANCE_WEIGHT)
    factor = normal.cholesky.astype(np.float64)
    np.testing.assert_allclose(factor @ factor.T, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(normal.mean, x[features.labels == 2].mean(axis=0), rtol=1e-4)


def test_calibrated_draws_have_the_moments_of_the_normal(generator):
    n = 6000
    normal = generator.data_sampler().calibrated_normal(3)
    batch = generator.sample("d", n, seed=4, sampler="calibrated")
    drawn = batch.images[:, 0].astype(np.float64)
    covariance = normal.cholesky.astype(np.float64) @ normal.cholesky.T
    error = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(drawn.mean(axis=0) - normal.mean) < 5 * error).all()
    spread = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / n)
    assert (np.abs(np.cov(drawn.T) - covariance) < 5 * spread).all()
    assert (batch.source_index == -1).all()


# --- both


@pytest.mark.parametrize("sampler", ["delta", "calibrated"])
def test_a_sample_depends_on_seed_class_and_index_alone(generator, sampler):
    whole = generator.sample("c", 150, seed=7, sampler=sampler)
    for start, n in ((0, 1), (63, 2), (100, 50)):
        part = generator.sample("c", n, seed=7, sampler=sampler, start=start)
        assert np.array_equal(part.images, whole.images[start : start + n])
        assert np.array_equal(part.latents, whole.latents[start : start + n])
    other = generator.sample("c", 150, seed=8, sampler=sampler)
    assert not np.array_equal(other.images, whole.images)
    # The latents are those of the samples.
    again = generator.encode(whole.images, whole.labels)
    np.testing.assert_allclose(whole.latents, again, rtol=1e-4, atol=1e-4)


def test_differences_are_the_default_of_features_that_are_at_hand(generator):
    assert generator.default_sampler("c", residual=True) == "delta"
    assert "a frequent class" in generator.sampler_reason("c", residual=True)
    bare = generator.with_choices()
    bare.data = None
    assert bare.default_sampler("c") == "interpolate"


def test_what_is_missing_is_named(generator, features, synthesizer, digits):
    bare = generator.with_choices()
    bare.data = None
    with pytest.raises(SamplingError, match=r"delta needs the training images \(attach\)"):
        bare.sample("a", 1, seed=0, sampler="delta")
    with pytest.raises(SamplingError, match="calibrated expects feature vectors, got images"):
        synthesizer.with_choices().attach(digits).sample(0, 1, seed=0, sampler="calibrated")
    with pytest.raises(vaeaug.ConfigError, match="calibrated for feature vectors alone, got image"):
        vaeaug.augment(digits, "unused", {"recipe": {"sampler": "calibrated"}}, progress=False)
    with pytest.raises(SamplingError, match="expects sources of class 'c'"):
        generator.sample("c", 1, seed=0, sampler="delta", source=[0])
