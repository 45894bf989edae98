"""Samples are functions of (seed, class, index); the samplers do what they say."""

import json
import math
import pickle

import numpy as np
import pytest

import vaeaug
from vaeaug.models import CVAE
from vaeaug.sampling import SAMPLERS, SamplingError, Synthesizer, sample_generator


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_does_not_depend_on_its_batch(sampler, synthesizer):
    whole = synthesizer.sample(3, 150, seed=7, sampler=sampler)
    for start, n in ((0, 1), (0, 7), (63, 3), (64, 64), (149, 1), (70, 7)):
        part = synthesizer.sample(3, n, seed=7, sampler=sampler, start=start)
        rows = slice(start, start + n)
        np.testing.assert_array_equal(part.images, whole.images[rows])
        np.testing.assert_array_equal(part.latents, whole.latents[rows])
        np.testing.assert_array_equal(part.source_index, whole.source_index[rows])
        np.testing.assert_array_equal(part.seed, np.arange(start, start + n))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seed_class_and_index_all_matter(sampler, synthesizer):
    first = synthesizer.sample(3, 8, seed=0, sampler=sampler).latents
    assert len(np.unique(first, axis=0)) == 8
    assert not np.array_equal(first, synthesizer.sample(3, 8, seed=1, sampler=sampler).latents)
    assert not np.array_equal(first, synthesizer.sample(4, 8, seed=0, sampler=sampler).latents)


def test_numbers_come_from_philox_keyed_by_run_and_class():
    ours = sample_generator(5, 2, 9).random(3)
    theirs = np.random.Generator(np.random.Philox(key=[5, 2], counter=[0, 0, 9, 0])).random(3)
    np.testing.assert_array_equal(ours, theirs)


def test_posterior_is_around_its_source(synthesizer, digits):
    row = int(synthesizer.rows[2][0])
    batch = synthesizer.sample(2, 5, seed=0, sampler="posterior", source=[row], temperature=1e-6)
    assert np.all(batch.source_index == row)
    expected = synthesizer.reconstruct(digits.images[[row]], [2])
    assert np.abs(batch.images.astype(int) - expected.astype(int)).max() <= 1
    spread = synthesizer.sample(2, 400, seed=0, sampler="posterior", source=[row]).latents
    np.testing.assert_allclose(
        spread.std(axis=0), np.sqrt(synthesizer.variances[row]), rtol=5 / np.sqrt(2 * 400) + 0.02
    )


def test_interpolations_lie_between_two_encodings_of_the_class(synthesizer):
    batch = synthesizer.sample(1, 30, seed=0, sampler="interpolate")
    own = synthesizer.means[synthesizer.rows[1]]
    for z, row in zip(batch.latents, batch.source_index, strict=True):
        assert synthesizer.labels[row] == 1
        begin = synthesizer.means[row]
        # z = begin + t (end - begin): some encoding of the class lies straight ahead.
        ahead, done = own - begin, z - begin
        cosine = ahead @ done / (np.linalg.norm(ahead, axis=1) * np.linalg.norm(done) + 1e-9)
        on_the_way = np.linalg.norm(done) <= np.linalg.norm(ahead, axis=1) + 1e-5
        assert np.any((cosine > 1 - 1e-4) & on_the_way) or np.linalg.norm(done) < 1e-3


def test_transfer_never_starts_from_its_own_class(synthesizer):
    batch = synthesizer.sample(0, 100, seed=0, sampler="transfer")
    assert not np.any(synthesizer.labels[batch.source_index] == 0)
    assert np.all(batch.labels == 0)


def test_densities_have_no_source(synthesizer):
    for sampler in ("prior", "gmm"):
        assert np.all(synthesizer.sample(0, 3, seed=0, sampler=sampler).source_index == -1)
        with pytest.raises(SamplingError, match=f"sampler '{sampler}' draws around no source"):
            synthesizer.sample(0, 3, seed=0, sampler=sampler, source=[0])


def test_small_classes_are_interpolated_and_large_ones_drawn(synthesizer):
    assert synthesizer.default_sampler(0) == "gmm"
    assert synthesizer.default_sampler(9) == "interpolate"
    assert synthesizer.sample(9, 2, seed=0).sampler == "interpolate"


def test_bad_requests_say_what_was_expected(synthesizer, digits):
    with pytest.raises(SamplingError, match="unknown class 'ten'; expected one of 0, 1"):
        synthesizer.sample("ten", 1, seed=0)
    with pytest.raises(SamplingError, match="unknown sampler 'flow'; expected one of prior"):
        synthesizer.sample(0, 1, seed=0, sampler="flow")
    with pytest.raises(SamplingError, match=r"expected source rows from 0 to \d+"):
        synthesizer.sample(0, 1, seed=0, sampler="posterior", source=[10**6])
    other = int(synthesizer.rows[1][0])
    with pytest.raises(SamplingError, match="expects sources of class '0'"):
        synthesizer.sample(0, 1, seed=0, sampler="posterior", source=[other])
    with pytest.raises(SamplingError, match=r"expected z of shape \(n, 32\), got \(2, 5\)"):
        synthesizer.decode(np.zeros((2, 5)), [0, 0])
    with pytest.raises(SamplingError, match=r"expected images of shape \(n, 8, 8, 1\)"):
        synthesizer.encode(np.zeros((2, 9, 8, 1), np.uint8), [0, 0])
    with pytest.raises(SamplingError, match="labels: expected 0 to 9, got 0 to 10"):
        synthesizer.encode(digits.images[:2], [0, 10])


def test_saved_and_loaded_it_draws_the_same(synthesizer, tmp_path):
    synthesizer.save(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "model.safetensors", "densities.safetensors"}
    for folder in (tmp_path, tmp_path / "model"):
        again = vaeaug.load(folder)
        assert again.sha256 == synthesizer.sha256
        for sampler in SAMPLERS:
            np.testing.assert_array_equal(
                again.sample(2, 9, seed=3, sampler=sampler).images,
                synthesizer.sample(2, 9, seed=3, sampler=sampler).images,
            )


def test_what_is_no_generator_is_refused(synthesizer, tmp_path):
    with pytest.raises(SamplingError, match=r"expected a generator .*config\.json.*missing"):
        vaeaug.load(tmp_path)
    synthesizer.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": 2}))
    with pytest.raises(SamplingError, match="expected format 'vaeaug-generator' version 1, got"):
        Synthesizer.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(SamplingError, match="the generator cannot be read"):
        Synthesizer.load(tmp_path)


def test_float_images_keep_their_type_and_range(digits, small_config):
    data = vaeaug.LabelledImages(
        digits.images.astype(np.float32) / 127.5 - 1, digits.labels, digits.class_names, (-1.0, 1.0)
    )
    config = small_config.changed(**{"training.steps": 10, "model.grouping": "separate"})
    batch = vaeaug.fit(data, config, device="cpu").sample(1, 20, seed=0, sampler="prior")
    assert batch.images.dtype == np.float32
    assert batch.images.min() >= -1
    assert batch.images.max() <= 1


def test_a_class_without_images_has_no_samples(digits, small_config):
    some = digits.subset(np.flatnonzero(digits.labels != 4))
    generator = vaeaug.fit(some, small_config.changed(**{"training.steps": 10}), device="cpu")
    with pytest.raises(SamplingError, match="class '4' had no training images to learn from"):
        generator.sample(4, 1, seed=0)


def test_the_prior_is_standard_normal_unless_adapted(digits):
    generator = Synthesizer.from_training(CVAE((8, 8, 1), 10, width=8), digits, seed=0)
    batch = generator.sample(2, 9, seed=1, sampler="prior", temperature=0.5)
    for row, z in enumerate(batch.latents):
        rng = sample_generator(1, 2, row)
        rng.random(2)
        np.testing.assert_array_equal(z, (0.5 * rng.standard_normal(32)).astype(np.float32))


def test_gmm_draws_from_the_density_of_the_class(synthesizer):
    batch = synthesizer.sample(0, 5, seed=1, sampler="gmm", temperature=0.7)
    for row, z in enumerate(batch.latents):
        rng = sample_generator(1, 0, row)
        uniform, _ = rng.random(2)
        normal = rng.standard_normal(32)
        expected = synthesizer.densities[0].sample(uniform, normal, temperature=0.7)
        np.testing.assert_array_equal(z, expected.astype(np.float32))


def test_transfer_decodes_the_latent_of_its_source(synthesizer):
    batch = synthesizer.sample(0, 50, seed=0, sampler="transfer", temperature=0.0)
    assert len(np.unique(synthesizer.labels[batch.source_index])) > 3
    np.testing.assert_array_equal(batch.latents, synthesizer.means[batch.source_index])
    decoded = synthesizer.decode(batch.latents, np.zeros(50, np.int64))
    np.testing.assert_array_equal(decoded, batch.images)


@pytest.mark.parametrize("sampler", ["posterior", "interpolate", "transfer"])
def test_sources_that_are_given_are_used(sampler, synthesizer):
    source = synthesizer.rows[1][[3, 5]]
    label = 0 if sampler == "transfer" else 1
    batch = synthesizer.sample(label, 30, seed=0, sampler=sampler, source=source)
    assert set(batch.source_index) == set(source)


def test_a_class_of_one_image_and_a_single_class(digits):
    model = CVAE((8, 8, 1), 10, width=8)
    data = digits.imbalanced([1, *[0] * 9], seed=0)
    generator = Synthesizer.from_training(model, data, seed=0)
    batch = generator.sample(0, 3, seed=0, sampler="interpolate")
    np.testing.assert_allclose(batch.latents, np.tile(generator.means, (3, 1)), atol=1e-6)
    with pytest.raises(SamplingError, match="transfer needs training images of another class"):
        generator.sample(0, 1, seed=0, sampler="transfer")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label": 10}, "unknown class 10; expected one of 0, 1, .* or an index below 10"),
        ({"label": -1}, "unknown class -1"),
        ({"n": -1}, "expected n and start of at least 0, got -1 and 0"),
        ({"start": -2}, "expected n and start of at least 0, got 1 and -2"),
        ({"seed": -1}, r"expected a seed from 0 to 2\*\*64 - 1, got -1"),
        ({"temperature": -0.1}, "expected a temperature of at least 0, got -0.1"),
        ({"temperature": math.nan}, "expected a temperature of at least 0, got nan"),
        ({"sampler": "posterior", "source": []}, "expected source rows from 0 to"),
        ({"sampler": "transfer", "source": [-1]}, "expected source rows from 0 to"),
    ],
)
def test_numbers_out_of_range_are_refused(keys, message, synthesizer):
    with pytest.raises(SamplingError, match=message):
        synthesizer.sample(**{"label": 0, "n": 1, "seed": 0, **keys})


def test_nothing_asked_nothing_made(synthesizer):
    assert synthesizer.sample(0, 0, seed=0, start=5).images.shape == (0, 8, 8, 1)
    empty = np.empty((0, 8, 8, 1), np.uint8)
    assert synthesizer.reconstruct(empty, []).shape == empty.shape


def test_pickle_round_trip(synthesizer):
    again = pickle.loads(pickle.dumps(synthesizer))  # noqa: S301
    first, second = (each.sample(0, 5, seed=2) for each in (synthesizer, again))
    np.testing.assert_array_equal(first.images, second.images)


@pytest.mark.parametrize(
    "names",
    [["model.safetensors"], ["densities.safetensors"], ["config.json", "model.safetensors"]],
)
def test_missing_files_are_named(names, synthesizer, tmp_path):
    synthesizer.save(tmp_path)
    for name in names:
        (tmp_path / name).unlink()
    with pytest.raises(SamplingError, match=f"but {', '.join(names)} is missing"):
        vaeaug.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("densities.safetensors", lambda content: content[: len(content) // 2]),
        ("model.safetensors", lambda _: b""),
        ("config.json", lambda content: content[: len(content) // 2]),
        ("config.json", lambda content: content.replace(b'"width": 8', b'"width": 16')),
        ("config.json", lambda content: content.replace(b'"class_names"', b'"class_name"')),
        ("config.json", lambda content: content.replace(b'"class_names"', b'"class_nam\xff"')),
        ("config.json", lambda _: b"[]"),
    ],
)
def test_damage_is_an_error_that_names_the_folder(name, damage, synthesizer, tmp_path):
    synthesizer.save(tmp_path)
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SamplingError, match="the generator cannot be read") as caught:
        vaeaug.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
