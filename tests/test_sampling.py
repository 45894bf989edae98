"""Samples are functions of (seed, class, index); the samplers do what they say."""

import json

import numpy as np
import pytest

import vaeaug
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
