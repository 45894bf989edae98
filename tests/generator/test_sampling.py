"""Samples are functions of (seed, class, index); the samplers do what they say."""

import json
import math
import pickle

import numpy as np
import pytest
import torch

import vaeaug
from vaeaug.files.json_text import sealed, unsealed
from vaeaug.generator import SAMPLERS, SamplingError, Synthesizer, sample_generator
from vaeaug.generator.samplers import sample_generators
from vaeaug.models import CVAE, SeparateCVAE

WITHOUT_FLOW = tuple(each for each in SAMPLERS if each != "flow")
# Requests that draw in every way there is.
WAYS = {each: {"sampler": each} for each in SAMPLERS} | {
    "guided": {"sampler": "flow", "guidance": 2.0, "solver_steps": 3, "temperature": 0.8},
    "residual posterior": {"sampler": "posterior", "residual": True},
    "residual interpolate": {"sampler": "interpolate", "residual": True},
}


@pytest.fixture(scope="module")
def with_flow(digits, small_config):
    """A spatial generator with a flow, holding its images."""
    config = small_config.changed(
        **{
            "model.latent": "spatial",
            "training.steps": 60,
            "model.grouping": "shared",
            "density.steps": 60,
            "density.width": 8,
            "density.depth": 2,
        }
    )
    generator = vaeaug.fit(digits, config, device="cpu")
    assert generator.flow is not None
    assert generator.flow.shape == generator.model.groups[0].shape
    return generator.attach(digits)


@pytest.fixture(scope="module")
def hierarchical(digits, small_config):
    """A hierarchical generator, its flow over all groups."""
    config = small_config.changed(
        **{
            "model.latent": "hierarchical",
            "model.latent_dim": 8,
            "training.steps": 60,
            "training.adapt_steps": 10,
            "density.steps": 30,
            "density.width": 8,
        }
    )
    generator = vaeaug.fit(digits, config, device="cpu").attach(digits)
    assert generator.flow.shape == (generator.model.latent_dim,)
    # The prior of the grid has learned something, or the test of its draws would prove little.
    z = np.zeros((1, generator.model.latent_dim), np.float32)
    decoded = generator.model.generate(torch.from_numpy(z), torch.tensor([3]))
    assert decoded.mean[:, 8:].abs().max() > 0
    return generator


def invariant(generator, **keys):
    whole = generator.sample(3, 150, seed=7, **keys)
    for start, n in ((0, 1), (0, 7), (63, 3), (64, 64), (149, 1), (70, 7)):
        part = generator.sample(3, n, seed=7, start=start, **keys)
        rows = slice(start, start + n)
        np.testing.assert_array_equal(part.images, whole.images[rows])
        np.testing.assert_array_equal(part.latents, whole.latents[rows])
        np.testing.assert_array_equal(part.source_index, whole.source_index[rows])
        np.testing.assert_array_equal(part.seed, np.arange(start, start + n))
        if whole.soft_labels is not None:
            np.testing.assert_array_equal(part.soft_labels, whole.soft_labels[rows])


@pytest.mark.parametrize("sampler", WITHOUT_FLOW)
def test_a_sample_does_not_depend_on_its_batch(sampler, synthesizer):
    invariant(synthesizer, sampler=sampler)


@pytest.mark.parametrize("way", WAYS)
def test_a_sample_of_a_grid_does_not_depend_on_its_batch(way, with_flow):
    invariant(with_flow, **WAYS[way])


@pytest.mark.parametrize("way", ["prior", "flow", "blend", "residual posterior"])
def test_a_sample_of_a_hierarchy_does_not_depend_on_its_batch(way, hierarchical):
    invariant(hierarchical, **WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_seed_class_and_index_all_matter(way, with_flow):
    keys = WAYS[way]
    first = with_flow.sample(3, 8, seed=0, **keys).latents
    assert len(np.unique(first, axis=0)) == 8
    assert not np.array_equal(first, with_flow.sample(3, 8, seed=1, **keys).latents)
    assert not np.array_equal(first, with_flow.sample(4, 8, seed=0, **keys).latents)


def test_numbers_come_from_philox_keyed_by_run_and_class():
    (ours,) = (rng.random(3) for rng in sample_generators(5, 2, 9, 1))
    np.testing.assert_array_equal(ours, sample_generator(5, 2, 9).random(3))
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
    assert (
        synthesizer.sampler_reason(9)
        == "interpolate: 12 images are too few for a density (under 20)"
    )
    assert synthesizer.sampler_reason(0).startswith("gmm: 60 images; gmm (")


def test_where_there_is_a_flow_large_classes_are_drawn_from_it(with_flow):
    assert with_flow.sample(0, 2, seed=0).sampler == "flow"
    assert with_flow.sample(9, 2, seed=0).sampler == "interpolate"


def test_bad_requests_say_what_was_expected(synthesizer, digits):
    with pytest.raises(SamplingError, match="unknown class 'ten'; expected one of 0, 1"):
        synthesizer.sample("ten", 1, seed=0)
    with pytest.raises(SamplingError, match="unknown sampler 'best'; expected one of prior"):
        synthesizer.sample(0, 1, seed=0, sampler="best")
    with pytest.raises(SamplingError, match=r"no flow; train one with density\.kind: flow"):
        synthesizer.sample(0, 1, seed=0, sampler="flow")
    for keys in ({"sampler": "gmm"}, {"sampler": "posterior"}):  # no source; no images
        with pytest.raises(SamplingError, match=r"a residual needs a sampler that starts from an"):
            synthesizer.sample(0, 1, seed=0, residual=True, **keys)
    with pytest.raises(SamplingError, match="attach: expected the images that the generator was"):
        synthesizer.attach(digits.subset(np.arange(20)))
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


@pytest.mark.parametrize("kind", ["synthesizer", "with_flow", "hierarchical"])
def test_saved_and_loaded_it_draws_the_same(kind, digits, tmp_path, request):
    synthesizer = request.getfixturevalue(kind)
    synthesizer.save(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "model.safetensors", "densities.safetensors"}
    for folder in (tmp_path, tmp_path / "model"):
        again = vaeaug.load(folder)
        assert again.sha256 == synthesizer.sha256
        assert (again.flow is None) == (kind == "synthesizer")
        again.attach(digits)
        for way, keys in WAYS.items():
            if kind == "synthesizer" and ("residual" in way or keys["sampler"] == "flow"):
                continue
            np.testing.assert_array_equal(
                again.sample(2, 9, seed=3, **keys).images,
                synthesizer.sample(2, 9, seed=3, **keys).images,
            )


def test_what_is_no_generator_is_refused(synthesizer, tmp_path):
    with pytest.raises(SamplingError, match=r"expected a generator .*config\.json.*missing"):
        vaeaug.load(tmp_path)
    synthesizer.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": 1}))
    with pytest.raises(SamplingError, match="version 4, got 'vaeaug-generator' version 1"):
        Synthesizer.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(SamplingError, match="the generator cannot be read"):
        Synthesizer.load(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "densities.safetensors"])
def test_a_changed_byte_of_a_generator_is_found(synthesizer, tmp_path, name):
    synthesizer.save(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    # A figure, past the head of the file.
    at = data.index(b'"n_real": 3') + 10 if name == "config.json" else len(data) - 2
    data[at] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SamplingError, match="it was changed after it was written"):
        vaeaug.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", 2**40, r"architecture: expected one of at most [\d,]+ bytes, .* got one of"),
        ("latent_dim", 2**40, "architecture: expected one of at most"),
        ("image_shape", [2**20, 2**20, 1], "cannot be read"),
        ("n_classes", 10**9, "n_classes: expected 10, as there are names, got 1000000000"),
    ],
)
def test_an_architecture_larger_than_its_weights_is_not_built(
    synthesizer, tmp_path, name, value, message
):
    synthesizer.save(tmp_path)
    config = unsealed((tmp_path / "config.json").read_bytes())
    config["architecture"][name] = value
    (tmp_path / "config.json").write_bytes(sealed(config))
    with pytest.raises(SamplingError, match=message):
        vaeaug.load(tmp_path)


def test_a_generator_of_the_version_without_hashes_is_read(synthesizer, tmp_path):
    synthesizer.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["files"], config["sha256"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": 2}))
    assert vaeaug.load(tmp_path).sha256 == synthesizer.sha256


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
        rng.random(3)
        np.testing.assert_array_equal(z, (0.5 * rng.standard_normal(32)).astype(np.float32))


def test_gmm_draws_from_the_density_of_the_class(synthesizer):
    batch = synthesizer.sample(0, 5, seed=1, sampler="gmm", temperature=0.7)
    for row, z in enumerate(batch.latents):
        rng = sample_generator(1, 0, row)
        uniform = rng.random(3)[:1]
        normal = rng.standard_normal((1, 32)).astype(np.float32)
        expected = synthesizer.densities[0].sample(uniform, normal, temperature=0.7)
        np.testing.assert_array_equal(z, expected[0].astype(np.float32))


def test_transfer_decodes_the_latent_of_its_source(synthesizer):
    batch = synthesizer.sample(0, 50, seed=0, sampler="transfer", temperature=0.0)
    assert len(np.unique(synthesizer.labels[batch.source_index])) > 3
    style = synthesizer.style_of(synthesizer.means[batch.source_index])
    assert synthesizer.model.style_dim == 16
    assert not style[:, 16:].any()
    np.testing.assert_array_equal(batch.latents, style)
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
    for sampler in ("transfer", "blend"):
        with pytest.raises(SamplingError, match=f"{sampler} needs training images of another"):
            generator.sample(0, 1, seed=0, sampler=sampler)


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
        ({"guidance": -1.0}, "expected a guidance of at least 0, got -1"),
        ({"guidance": math.inf}, "expected a guidance of at least 0, got inf"),
        ({"solver_steps": 0}, "expected solver_steps of at least 1, got 0"),
        ({"sampler": "blend", "source": [0]}, "sampler 'blend' draws around no source"),
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


# -- The flow and blends -------------------------------------------------------------------------


def test_flow_draws_are_those_of_the_flow_by_the_samples_noise(with_flow):
    batch = with_flow.sample(5, 6, seed=4, sampler="flow", temperature=0.5, guidance=1.5)
    noise = np.empty_like(batch.latents)
    for row in range(6):
        rng = sample_generator(4, 5, row)
        rng.random(3)
        noise[row] = rng.standard_normal(noise.shape[1])
    with torch.no_grad():
        expected = with_flow.flow.draw(
            0.5 * torch.from_numpy(noise), torch.full((6,), 5), steps=12, guidance=1.5
        )
    np.testing.assert_allclose(batch.latents, expected.numpy(), rtol=1e-3, atol=1e-3)
    assert np.all(batch.source_index == -1)
    assert batch.soft_labels is None


@pytest.mark.parametrize("kind", ["synthesizer", "with_flow"])
def test_blends_have_soft_labels_of_two_near_classes(kind, request):
    generator = request.getfixturevalue(kind)
    batch = generator.sample(4, 200, seed=0, sampler="blend")
    assert np.all(batch.labels == 4)
    assert np.all(batch.source_index == -1)
    np.testing.assert_allclose(batch.soft_labels.sum(axis=1), 1, atol=1e-6)
    assert np.all((batch.soft_labels > 0).sum(axis=1) <= 2)
    # The label stays the likelier class, and every share up to the bound occurs.
    assert batch.soft_labels[:, 4].min() >= 0.55
    assert batch.soft_labels[:, 4].max() > 0.98
    others = np.delete(batch.soft_labels, 4, axis=1).max(axis=1)
    assert others.max() > 0.43
    # The three classes whose mean latents are nearest.
    means = np.stack([generator.means[rows].mean(axis=0) for rows in generator.rows])
    near = np.argsort(np.linalg.norm(means - means[4], axis=1))[1:4]
    found = np.unique(
        np.delete(np.arange(10), 4)[np.delete(batch.soft_labels, 4, axis=1).argmax(1)]
    )
    assert set(found) == set(near.tolist())
    part = batch.select(np.arange(3))
    np.testing.assert_array_equal(part.soft_labels, batch.soft_labels[:3])


def test_without_a_flow_a_blend_lies_towards_the_nearest_of_the_other_class(synthesizer):
    batch = synthesizer.sample(4, 40, seed=0, sampler="blend", temperature=0.0)
    own = synthesizer.means[synthesizer.rows[4]]
    for z, shares in zip(batch.latents, batch.soft_labels, strict=True):
        (other,) = np.flatnonzero((shares > 0) & (np.arange(10) != 4))
        theirs = synthesizer.means[synthesizer.rows[other]]
        distances = np.linalg.norm(own[:, None] - theirs[None], axis=2)
        nearest = theirs[distances.argmin(axis=1)]
        expected = (1 - shares[other]) * own + shares[other] * nearest
        assert np.abs(expected - z).max(axis=1).min() < 1e-4


# -- Residual edits ------------------------------------------------------------------------------


def test_a_residual_edit_of_nothing_is_the_image_itself(with_flow, digits):
    """Decoding the source's own latent and adding what was lost gives the source back."""
    row = int(with_flow.rows[2][3])
    keys = {"sampler": "posterior", "source": [row], "temperature": 0.0}
    batch = with_flow.sample(2, 2, seed=0, residual=True, **keys)
    expected = np.repeat(digits.images[[row]], 2, axis=0)
    np.testing.assert_array_equal(batch.images, expected)
    plain = with_flow.sample(2, 2, seed=0, **keys)
    assert not np.array_equal(plain.images, expected)
    np.testing.assert_array_equal(plain.latents, batch.latents)


def test_a_residual_is_image_less_reconstruction_of_its_own_class(with_flow, digits):
    keys = {"sampler": "interpolate"}
    plain, edited = (with_flow.sample(1, 9, seed=0, residual=r, **keys) for r in (False, True))
    sources = plain.source_index
    own = with_flow.reconstruct(digits.images[sources], with_flow.labels[sources])
    lost = digits.images[sources].astype(int) - own.astype(int)
    expected = (plain.images.astype(int) + lost).clip(0, 255)
    # Clipping and rounding on the way cost a few gray levels where something was clipped.
    free = (own > 0) & (own < 255) & (plain.images > 0) & (plain.images < 255)
    assert np.abs(edited.images.astype(int) - expected)[free].max() <= 2
    assert free.mean() > 0.3


def test_a_style_of_another_class_takes_no_residual(with_flow):
    message = r"starts from an image of the class \(posterior, interpolate; got 'transfer'\)"
    with pytest.raises(SamplingError, match=message):
        with_flow.sample(1, 9, seed=0, residual=True, sampler="transfer")


# -- Bounds, labels and rates --------------------------------------------------------------------


def test_the_bound_of_one_latent_is_the_elbo(synthesizer, digits):
    x, y = digits.images[:9], digits.labels[:9]
    noise = torch.randn(9, 32, generator=torch.Generator().manual_seed(3))
    scaled = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = synthesizer.model.elbo(scaled, torch.from_numpy(y), noise=noise).elbo
    found = synthesizer.bound(x, y, k=1, seed=3)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)
    many = synthesizer.bound(x, y, k=200, seed=3)
    assert many.dtype == np.float64
    assert many.mean() > found.mean()
    assert synthesizer.bound(x[:0], y[:0], k=3).shape == (0,)


def test_likeliest_labels_are_mostly_right(digits):
    config = vaeaug.load_config(
        None, ["model.width=8", "training.steps=200", "training.adapt_steps=60"]
    )
    even = vaeaug.read("digits").imbalanced([60] * 10, seed=0)
    fit, held_out = even.split_off(0.2, seed=0)
    generator = vaeaug.fit(fit, config, device="cpu")
    found = generator.likeliest_labels(held_out.images)
    assert found.dtype == np.int64
    # Ten classes: guessing is right for a tenth.
    assert (found == held_out.labels).mean() > 0.5


def test_rates_are_kl_and_the_bits_of_gray_levels(with_flow, digits):
    x, y = digits.images[:6], digits.labels[:6]
    kl, bits = with_flow.rates(x, y, seed=2)
    assert kl.shape == (6, with_flow.model.latent_dim)
    model = with_flow.model
    scaled = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    noise = torch.randn(6, model.latent_dim, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        terms = model.elbo(scaled, torch.from_numpy(y), noise=noise)
        mean, logvar = model.posterior(scaled, torch.from_numpy(y))
        decoded = model.generate(mean + (0.5 * logvar).exp() * noise, torch.from_numpy(y))
        mass = model.likelihood.log_mass(decoded.raw, scaled)
    np.testing.assert_allclose(kl, terms.kl.numpy(), rtol=1e-4, atol=1e-5)
    expected = (terms.kl.sum(dim=1) - mass).numpy() / (64 * math.log(2))
    np.testing.assert_allclose(bits, expected, rtol=1e-4)
    # No more than a uniform code needs, for a trained model.
    assert bits.mean() < 8


def test_a_preferred_sampler_survives_the_disk(synthesizer, tmp_path):
    chosen = pickle.loads(pickle.dumps(synthesizer))  # noqa: S301
    chosen.preferred = {0: ("posterior", "it won")}
    chosen.save(tmp_path)
    again = vaeaug.load(tmp_path)
    assert again.default_sampler(0) == "posterior"
    assert again.sampler_reason(0) == "posterior: it won"
    assert again.default_sampler(1) == synthesizer.default_sampler(1)


def test_a_separate_generator_draws_in_every_way_without_a_flow(digits):
    torch.manual_seed(0)
    model = SeparateCVAE.build((8, 8, 1), 10, latent="hierarchical", latent_dim=4, width=8)
    generator = Synthesizer.from_training(model, digits, seed=0).attach(digits)
    for sampler in WITHOUT_FLOW:
        assert generator.sample(3, 5, seed=0, sampler=sampler).images.shape == (5, 8, 8, 1)
    invariant(generator, sampler="prior")
