"""Noise and gaps: held-out digits come out better than they went in, whatever the noise."""

import math

import numpy as np
import pytest
import torch

import vaeaug
from vaeaug.generator import SamplingError, storage
from vaeaug.generator.restoration import filtered_level
from vaeaug.job.applications import add_noise, likeness
from vaeaug.models import NOISE_LEVELS, PEAKS, Restorer, poisson_level
from vaeaug.models.restorer import filled, smoothly_filled
from vaeaug.training import restoration_steps, train_restorer

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
SMALL = {"restoration.steps": 250, "restoration.width": 16, "training.eval_every": 100}


def psnr(images, clean):
    return likeness(images, clean, (0, 255)).psnr


def counted(images, peak):
    """The images as counts of at most `peak` on average, as they would be stored."""
    counts = np.random.default_rng(0).poisson(images / 255 * peak)
    return np.rint(255 * counts / peak).clip(0, 255).astype(np.uint8)


def gaps(images, share):
    return np.random.default_rng(1).random(images.shape[:-1]) < share


def mean_filled(images, missing):
    known = np.where(missing[..., None], np.nan, images)
    means = np.nanmean(known, axis=(1, 2, 3), keepdims=True)
    return np.where(missing[..., None], means, images).round().astype(np.uint8)


@pytest.fixture(scope="module")
def clean():
    return vaeaug.read("digits", split="test").images


@pytest.fixture(scope="module")
def old(digits, small_config):
    """A generator without a restorer, as they were before there was one."""
    return vaeaug.fit(digits, small_config.changed(**{"restoration.steps": 0}), device="cpu")


@pytest.fixture(scope="module")
def restorer():
    config = vaeaug.AugmentConfig().changed(**SMALL)
    return train_restorer(vaeaug.read("digits", split="train"), config, device="cpu")[0]


@pytest.fixture
def generator(old, restorer):
    yield old.with_restorer(restorer)
    old.restorer = None


NAMED = storage._named


# -- Never worse than doing nothing ----------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_noise_of_any_level_is_reduced(generator, clean, level):
    noisy = add_noise(clean, (0, 255), sigma=level, seed=0)
    before = psnr(noisy, clean)
    assert psnr(generator.denoise(noisy), clean) >= before - 0.05 * (level < 0.05)
    assert psnr(generator.denoise(noisy, noise_level=level), clean) > before
    if level >= 0.2:
        assert psnr(generator.denoise(noisy), clean) > before + 1


@pytest.mark.parametrize("peak", PEAKS)
def test_counting_noise_is_reduced(generator, clean, peak):
    noisy = counted(clean, peak)
    assert psnr(generator.denoise(noisy, poisson_peak=peak), clean) > psnr(noisy, clean)


@pytest.mark.parametrize("level", LEVELS)
def test_a_generator_without_a_restorer_does_no_harm(old, clean, level):
    labels = vaeaug.read("digits", split="test").labels
    noisy = add_noise(clean, (0, 255), sigma=level, seed=0)
    before = psnr(noisy, clean)
    assert psnr(old.denoise(noisy, labels), clean) >= before
    if level == 0.5:
        assert psnr(old.denoise(noisy, labels), clean) > before + 1
        assert psnr(old.denoise(noisy, labels, noise_level=level), clean) > before + 2


@pytest.mark.parametrize("peak", PEAKS)
def test_without_a_restorer_counting_noise_grows_no_worse(old, clean, peak):
    labels = vaeaug.read("digits", split="test").labels
    noisy = counted(clean, peak)
    assert psnr(old.denoise(noisy, labels, poisson_peak=peak), clean) >= psnr(noisy, clean)


def test_no_noise_changes_nothing(generator, old, clean):
    np.testing.assert_array_equal(generator.denoise(clean, noise_level=0.0), clean)
    generator.restorer = None
    labels = np.zeros(len(clean), np.int64)
    np.testing.assert_array_equal(old.denoise(clean, labels, noise_level=0.0), clean)


# -- The level -------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.1, 0.2, 0.3, 0.5])
def test_the_level_is_estimated(generator, clean, level):
    """Noise of 8-bit images is clipped; the estimate is of what it was before."""
    noisy = add_noise(clean, (0, 255), sigma=level, seed=0)
    assert np.median(generator.noise_level(noisy)) == pytest.approx(level, rel=0.25)


@pytest.mark.parametrize("shape", [(4, 1, 4000), (4, 2, 60, 60), (4, 1, 20, 20, 20)])
def test_the_filter_finds_the_level_of_noise_alone(shape):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([0.01, 0.1, 0.5, 2.0])
    values = 0.3 + levels.view(-1, *(1 for _ in shape[1:])) * noise
    known = torch.ones_like(values, dtype=torch.bool)
    # A median of m normal values has a relative deviation of about 1.2 / sqrt(m); m is over 3,000.
    torch.testing.assert_close(filtered_level(values, known), levels, rtol=0.1, atol=0)
    known[:, :, : shape[2] // 2] = False
    values[:, :, : shape[2] // 2] = 7.0
    torch.testing.assert_close(filtered_level(values, known), levels, rtol=0.15, atol=0)


def test_levels_of_images_may_differ(generator, clean):
    few = clean[:4]
    one_by_one = [
        generator.denoise(few[i : i + 1], noise_level=0.1 * (i + 1))[0] for i in range(len(few))
    ]
    together = generator.denoise(few, noise_level=[0.1, 0.2, 0.3, 0.4])
    difference = np.stack(one_by_one).astype(int) - together
    assert np.abs(difference).max() <= 1  # sums in another order


# -- Gaps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_missing_values_are_better_than_the_mean(generator, clean, share):
    missing = gaps(clean, share)
    holed = np.where(missing[..., None], 255, clean)  # whatever the images hold there
    filled = generator.denoise(holed, noise_level=0.0, missing=missing)
    np.testing.assert_array_equal(filled[~missing], clean[~missing])
    assert psnr(filled, clean) > psnr(mean_filled(clean, missing), clean) + 1
    np.testing.assert_array_equal(
        filled, generator.denoise(clean, noise_level=0.0, missing=missing)
    )


def test_without_a_restorer_missing_values_are_the_reconstruction(old, clean):
    missing = gaps(clean, 0.3)
    filled = old.denoise(clean, vaeaug.read("digits", split="test").labels, missing=missing)
    np.testing.assert_array_equal(filled[~missing], clean[~missing])
    assert psnr(filled, clean) > psnr(mean_filled(clean, missing), clean) + 1


def test_noise_and_gaps_together(generator, clean):
    missing = gaps(clean, 0.3)
    noisy = add_noise(clean, (0, 255), sigma=0.2, seed=0)
    found = generator.denoise(noisy, missing=missing)
    assert psnr(found, clean) > psnr(mean_filled(noisy, missing), clean) + 1
    levels = generator.noise_level(noisy, missing=missing)
    assert np.median(levels) == pytest.approx(0.2, rel=0.3)


# -- Saved -----------------------------------------------------------------------------------------


def test_a_restorer_is_saved_with_its_generator(generator, clean, tmp_path):
    generator.save(tmp_path)
    loaded = vaeaug.load(tmp_path)
    noisy = add_noise(clean[:8], (0, 255), sigma=0.2, seed=0)
    np.testing.assert_array_equal(loaded.denoise(noisy), generator.denoise(noisy))
    assert loaded.sha256 == generator.sha256  # what is sampled has not changed


def test_a_generator_without_one_is_saved_as_before(old, tmp_path):
    old.save(tmp_path)
    assert "restorer" not in (tmp_path / "config.json").read_text()
    assert vaeaug.load(tmp_path).restorer is None


def test_a_restorer_larger_than_its_weights_is_refused(generator, tmp_path):
    generator.save(tmp_path)
    from vaeaug.files.json_text import sealed, unsealed

    config = dict(unsealed((tmp_path / "config.json").read_bytes()))
    config["restorer"] = {**config["restorer"], "width": 100_000}
    config.pop("sha256", None)
    (tmp_path / "config.json").write_bytes(sealed(config))
    with pytest.raises(SamplingError, match="cannot be read"):
        vaeaug.load(tmp_path)


@pytest.mark.parametrize(("told", "fill"), [({"fills": True}, "around"), ({}, "mean")])
def test_restorers_of_earlier_generators_fill_gaps_as_they_did(old, clean, tmp_path, told, fill):
    torch.manual_seed(0)
    generator = old.with_restorer(Restorer((8, 8, 1), width=8, fill=fill))
    generator.save(tmp_path)
    from vaeaug.files.json_text import sealed, unsealed

    config = dict(unsealed((tmp_path / "config.json").read_bytes()))
    assert config["restorer"].pop("fill") == fill
    config["restorer"] |= told
    config.pop("sha256", None)
    (tmp_path / "config.json").write_bytes(sealed(config))
    keys = {"noise_level": 0.0, "missing": gaps(clean[:8], 0.3)}
    np.testing.assert_array_equal(
        vaeaug.load(tmp_path).denoise(clean[:8], **keys), generator.denoise(clean[:8], **keys)
    )


# -- Training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 2), (12, 9, 3), (8, 8, 8, 1)])
def test_signals_colours_and_volumes(shape):
    """Waves of random phases, float values, sides that are no multiples of the grid's."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * math.pi, (300, *(1 for _ in shape)))
    place = sum(np.indices(shape[:-1]))[..., None] * np.ones(shape)
    waves = (0.5 + 0.4 * np.sin(place / 2 + phase)).astype(np.float32)
    data = vaeaug.LabelledImages(
        images=waves[:250],
        labels=np.arange(250) % 2,
        class_names=("a", "b"),
        value_range=(0.0, 1.0),
        split="train",
        source="waves",
    )
    keys = {"training.steps": 10, "model.width": 8, "model.latent_dim": 4}
    keys |= {"restoration.steps": 80, "restoration.width": 8, "restoration.batch_size": 16}
    generator = vaeaug.fit(data, keys, device="cpu", progress=False)
    clean = waves[250:]
    noise = rng.standard_normal(clean.shape, np.float32)

    def error(images):
        return float(np.square(images - clean).mean())

    for level, left in ((0.1, 1.0), (0.3, 0.8)):
        noisy = clean + level * noise
        assert error(generator.denoise(noisy)) < left * error(noisy)
    missing = rng.random(clean.shape) < 0.3
    filled = generator.denoise(clean, noise_level=0.0, missing=missing)
    assert error(filled) < error(np.where(missing, clean.mean(), clean))


def test_the_same_seed_gives_the_same_restorer(digits):
    config = vaeaug.AugmentConfig().changed(**{**SMALL, "restoration.steps": 3})
    weights = [train_restorer(digits, config, device="cpu")[0].state_dict() for _ in range(2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_how_long_a_restorer_is_trained(digits):
    config = vaeaug.AugmentConfig()
    assert restoration_steps(digits, config.changed(**{"training.steps": 400})) == 100
    assert restoration_steps(digits, config.changed(**{"restoration.steps": 7})) == 7
    assert restoration_steps(digits, config.changed(**{"restoration.steps": 0})) == 0


@pytest.mark.parametrize("fill", ["mean", "around", "smooth"])
def test_an_untrained_restorer_is_a_wiener_filter(fill):
    restorer = Restorer((8, 8, 1), width=8, fill=fill)
    x = torch.rand((50, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    restorer.standardise(x)
    sigma = torch.full_like(x, 0.2)
    sigma[:, :, 0] = math.inf
    gain = x.var(correction=0) / (x.var(correction=0) + 0.2**2)
    expected = x.mean() + gain * (x - x.mean())
    known = sigma.isfinite()
    around = {
        "mean": torch.zeros_like(x),
        "around": filled(x - x.mean(), known),
        "smooth": smoothly_filled(gain * (x - x.mean()), known),
    }
    expected[:, :, 0] = x.mean() + around[fill][:, :, 0]
    torch.testing.assert_close(restorer(x, sigma), expected)


def test_single_gaps_are_filled_by_the_biharmonic_surface():
    """The reference solves the same equations exactly, but for other rules at the edges."""
    from skimage.restoration import inpaint_biharmonic

    grid = np.linspace(0, 3, 24)
    x = np.sin(grid[:, None] + grid**2 / 2)[None].repeat(2, axis=0)
    missing = np.random.default_rng(0).random(x.shape) < 0.3
    missing[:, [0, -1]] = missing[:, :, [0, -1]] = False
    y = np.where(missing, 9.0, x)
    ours = smoothly_filled(torch.from_numpy(y)[:, None], torch.from_numpy(~missing)[:, None])
    reference = np.stack(list(map(inpaint_biharmonic, y, missing)))
    np.testing.assert_array_equal(ours[:, 0].numpy()[~missing], x[~missing])
    np.testing.assert_allclose(ours[:, 0].numpy(), reference, atol=0.01)
    coarse = filled(torch.from_numpy(y)[:, None], torch.from_numpy(~missing)[:, None])[:, 0]
    assert np.abs(coarse.numpy() - x).mean() > 5 * np.abs(ours[:, 0].numpy() - x).mean()


@pytest.mark.parametrize("space", [(30,), (9, 14), (6, 5, 7)])
def test_gaps_of_any_rank_are_filled_each_sample_by_itself(space):
    """A slope that does not change across an axis has no curvature, and is continued exactly."""
    values = torch.arange(math.prod(space), dtype=torch.float64).view(1, 1, *space)
    x = torch.cat([values, torch.full_like(values, 3.0), values])
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.4
    known[2] = False
    result = smoothly_filled(x, known)
    assert torch.equal(result[known], x[known])
    torch.testing.assert_close(result[1], x[1])
    assert result[2].eq(0).all()  # nothing is known
    torch.testing.assert_close(result[:1], smoothly_filled(x[:1], known[:1]))
    assert torch.equal(smoothly_filled(x, torch.ones_like(known)), x)


def test_what_stands_in_a_gap_is_as_wrong_as_is_said():
    x = torch.from_numpy(vaeaug.read("digits").images).movedim(-1, 1).float() / 255
    restorer = Restorer((8, 8, 1), width=8)
    restorer.standardise(x)
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    sigma = torch.where(known, 0.0, math.inf)
    with torch.no_grad():
        error = (restorer(x, sigma) - x).square()[~known].mean()
    assert 0.5 < float(restorer.expected_error(sigma)[~known].mean() / error) < 2


def test_the_deviation_of_counts():
    rate = torch.full((1, 1, 100_000), 0.4)
    y = torch.poisson(rate * 50, generator=torch.Generator().manual_seed(0)) / 50
    found = poisson_level(y, torch.tensor(50.0)).square().mean()
    assert float(found) == pytest.approx(float(y.var()) + 1 / 50**2, rel=0.02)


# -- What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"noise_level": -0.1}, "noise levels from 0 to 10"),
        ({"noise_level": math.nan}, "noise levels from 0 to 10"),
        ({"noise_level": [0.1, 0.2]}, "expected one noise level or 3, got shape"),
        ({"poisson_peak": 0.0}, "Poisson peak above 0, got 0"),
        ({"noise_level": 0.1, "poisson_peak": 5.0}, "got both"),
        ({"missing": np.zeros((3, 8, 8), np.uint8)}, "booleans of shape"),
        ({"missing": np.zeros((3, 8), bool)}, r"booleans of shape .* got bool of shape \(3, 8\)"),
    ],
)
def test_noise_that_cannot_be(generator, clean, keys, message):
    with pytest.raises(SamplingError, match=message):
        generator.denoise(clean[:3], **keys)


def test_images_of_another_shape_are_refused(generator, clean):
    with pytest.raises(SamplingError, match="expected images of shape"):
        generator.denoise(clean[:, :4])


def test_features_need_a_level(digits):
    vectors = digits.images.reshape(len(digits), 1, 64).astype(np.float32)
    data = vaeaug.LabelledImages(
        images=vectors,
        labels=digits.labels,
        class_names=digits.class_names,
        value_range=(0.0, 255.0),
        split="train",
        source="vectors",
    )
    generator = vaeaug.fit(data, {"training.steps": 40}, device="cpu", progress=False)
    assert generator.restorer is None
    with pytest.raises(SamplingError, match="expected a noise level: from feature vectors"):
        generator.denoise(vectors[:5], digits.labels[:5])
    noisy = vectors + 128 * np.random.default_rng(0).standard_normal(vectors.shape, np.float32)
    cleaned = generator.denoise(noisy, digits.labels, noise_level=128 / 255)
    assert np.square(cleaned - vectors).mean() < np.square(noisy - vectors).mean()
    with pytest.raises(SamplingError, match="fit_restorer: expected samples with an axis in space"):
        vaeaug.fit_restorer(generator, data)


def test_a_restorer_of_other_samples_is_refused(old):
    data = vaeaug.read("digits")
    other = vaeaug.LabelledImages(
        images=np.repeat(data.images, 3, axis=3),
        labels=data.labels,
        class_names=data.class_names,
        value_range=data.value_range,
        split="train",
        source="colour",
    )
    with pytest.raises(SamplingError, match=r"expected samples of shape \(8, 8, 1\)"):
        vaeaug.fit_restorer(old, other)


@torch.no_grad()
def test_the_estimate_of_a_level_is_calibrated(restorer, clean):
    scaled = torch.from_numpy(clean).movedim(-1, 1).float() / 255
    for level, estimate in zip(NOISE_LEVELS, restorer.estimates.tolist(), strict=True):
        noise = torch.randn(scaled.shape, generator=torch.Generator().manual_seed(0))
        noisy = (scaled + level * noise).clamp(0, 1)
        told = restorer.log_estimate(noisy, torch.ones_like(noisy)).mean().exp()
        assert float(told) == pytest.approx(estimate, rel=0.35)  # other images
        levels = restorer.noise_level(noisy, torch.ones_like(noisy))
        assert float(levels.log().mean().exp()) == pytest.approx(level, rel=0.35)
    assert (restorer.estimates.diff() > 0).all()


def test_generators_of_before_the_calibration_are_read(generator, tmp_path, monkeypatch):
    def without(network, name):
        return {k: v for k, v in NAMED(network, name).items() if "estimates" not in k}

    monkeypatch.setattr(storage, "_named", without)
    generator.save(tmp_path / "generator")
    again = vaeaug.load(tmp_path / "generator")
    np.testing.assert_allclose(again.restorer.estimates.numpy(), NOISE_LEVELS)


@pytest.mark.parametrize("shape", [(2, 1, 11), (2, 3, 9, 7), (2, 1, 5, 6, 4)])
def test_missing_values_are_filled_from_those_around_them(shape):
    random = torch.Generator().manual_seed(0)
    y, known = torch.rand(shape, generator=random), torch.rand(shape, generator=random) < 0.6
    result = filled(torch.where(known, y, 1e6), known)  # whatever stands there does not count
    assert torch.equal(result[known], y[known])
    assert ((result[~known] > 0) & (result[~known] < 1)).all()
    torch.testing.assert_close(filled(torch.full(shape, 0.3), known), torch.full(shape, 0.3))
    nothing = filled(y, torch.zeros_like(known))
    assert torch.equal(nothing, torch.zeros(shape))


def test_a_plane_with_gaps_comes_back_nearly():
    across = torch.linspace(0, 1, 16)
    plane = (across[:, None] + 0.5 * across)[None, None]
    known = torch.rand(plane.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    apart = (filled(plane, known) - plane)[~known].abs().mean()
    assert apart < 0.2 * (plane.mean() - plane)[~known].abs().mean()
