"""The label decides: polyominoes in colours, of which class and style are known exactly."""

import itertools

import numpy as np
import pytest

import vaeaug
from vaeaug.generator import SamplingError

SIDE, CELL = 12, 3
# Where the three by three cells of a polyomino lie.
GRID = slice(1, 1 + 3 * CELL)


def polyomino(cells, colour, background, shift):
    """A pattern of three by three cells in a colour, on a grey ground, moved by whole pixels."""
    image = np.full((SIDE, SIDE, 3), background, np.float32)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[GRID, GRID] = np.kron(np.asarray(cells).reshape(3, 3), np.ones((CELL, CELL))) > 0
    image[np.roll(mask, shift, axis=(0, 1))] = colour
    return (255 * image).round().astype(np.uint8)


def drawn(cells, n, rng):
    return np.stack(
        [
            polyomino(
                cells,
                0.35 + 0.65 * rng.random(3),
                0.2 * rng.random(),
                tuple(rng.integers(-1, 2, 2)),
            )
            for _ in range(n)
        ]
    )


def patterns():
    """Patterns of four or five cells, in a fixed order that has nothing to do with their shape."""
    found = [c for c in itertools.product((0, 1), repeat=9) if sum(c) in (4, 5)]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[place] for place in order]


def shown(images, candidates):
    """The candidate whose cells, at the best shift, are farthest from the ground: exact factors."""
    values = images.astype(np.float32).mean(axis=3)
    values = values - values.mean(axis=(1, 2), keepdims=True)
    templates = []
    for cells in candidates:
        mask = np.zeros((SIDE, SIDE), np.float32)
        mask[GRID, GRID] = np.kron(np.asarray(cells).reshape(3, 3), np.ones((CELL, CELL)))
        moved = [
            np.roll(mask, shift, axis=(0, 1)) for shift in itertools.product((-1, 0, 1), repeat=2)
        ]
        templates.append([(m - m.mean()) / m.std() for m in moved])
    likeness = np.einsum("nhw,kshw->nks", values, np.asarray(templates))
    return likeness.max(axis=2).argmax(axis=1)


def colours(images):
    """Mean colour of the cells, which are brighter than the ground."""
    return np.stack([image[image.max(axis=2) > 80].mean(axis=0) for image in images])


# Classes; how many of them are frequent; images of a frequent and of a rare one.
N_CLASSES, N_FREQUENT, FREQUENT, RARE = 60, 52, 14, 2
KNOWN = patterns()[:N_CLASSES]
NEW = patterns()[N_CLASSES : N_CLASSES + 4]


@pytest.fixture(scope="module")
def toy():
    """Fifty-two classes of fourteen images, and eight of two."""
    rng = np.random.default_rng(0)
    counts = [FREQUENT] * N_FREQUENT + [RARE] * (N_CLASSES - N_FREQUENT)
    images = np.concatenate([drawn(c, n, rng) for c, n in zip(KNOWN, counts, strict=True)])
    return vaeaug.read((images, np.repeat(np.arange(N_CLASSES), counts)))


@pytest.fixture(scope="module")
def generator(toy):
    config = {
        **{"model.width": 12, "model.grouping": "shared", "restoration.steps": 10},
        **{"training.steps": 450, "training.batch_size": 32},
    }
    return vaeaug.fit(toy, vaeaug.AugmentConfig().changed(**config), device="cpu")


def test_the_patterns_are_told_apart_exactly(toy):
    assert (shown(toy.images, KNOWN) == toy.labels).all()


@pytest.mark.parametrize("sampler", ["transfer", "prior"])
def test_samples_show_their_label(generator, sampler):
    hit = [
        (shown(generator.sample(k, 12, seed=0, sampler=sampler).images, KNOWN) == k).mean()
        for k in range(N_CLASSES)
    ]
    assert np.mean(hit) > 0.95
    assert np.mean(hit[N_FREQUENT:]) > 0.9  # two images each


def test_style_comes_from_the_frequent_classes(generator, toy):
    """Classes of two images appear in as many colours as the classes that lend their styles."""
    likeness = []
    for label in range(N_FREQUENT, N_CLASSES):
        batch = generator.sample(label, 128, seed=0, sampler="transfer", temperature=0.0)
        assert set(toy.labels[batch.source_index]) <= set(range(N_FREQUENT))
        made, lent = colours(batch.images), colours(toy.images[batch.source_index])
        likeness += [np.corrcoef(made[:, band], lent[:, band])[0, 1] for band in range(3)]
    assert np.mean(likeness) > 0.2  # by chance 0 ± 0.04


def test_a_class_that_training_never_saw_is_drawn_from_exemplars(generator):
    rng = np.random.default_rng(1)
    hit = []
    for place, cells in enumerate(NEW):
        batch = generator.sample(exemplars=drawn(cells, 5, rng), n=25)
        assert (batch.labels == -1).all()
        assert (batch.source_index >= 0).all()
        hit.append((shown(batch.images, NEW) == place).mean())
    assert np.mean(hit) > 0.8


def test_samples_from_exemplars_depend_on_their_index_alone(generator):
    exemplars = drawn(NEW[0], 3, np.random.default_rng(1))
    whole = generator.sample(exemplars=exemplars, n=70, seed=3)
    part = generator.sample(exemplars=exemplars, n=6, seed=3, start=64)
    np.testing.assert_array_equal(whole.images[64:], part.images)
    other = generator.sample(exemplars=exemplars, n=6, seed=4, start=64)
    assert (other.images != part.images).any()


def test_a_generator_with_a_style_is_saved_and_loaded(generator, tmp_path):
    generator.save(tmp_path / "g")
    loaded = vaeaug.Synthesizer.load(tmp_path / "g")
    exemplars = drawn(NEW[0], 3, np.random.default_rng(1))
    for keys in ({"label": 2}, {"exemplars": exemplars}):
        expected = generator.sample(n=5, seed=1, sampler="transfer", **keys)
        np.testing.assert_array_equal(
            loaded.sample(n=5, seed=1, sampler="transfer", **keys).images, expected.images
        )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "expected a label, or exemplars"),
        ({"label": 1, "exemplars": np.zeros((1, SIDE, SIDE, 3), np.uint8)}, "expected a label, or"),
        ({"exemplars": np.zeros((0, SIDE, SIDE, 3), np.uint8)}, "n at least 1, got"),
        ({"exemplars": np.zeros((2, 8, 8, 3), np.uint8)}, r"exemplars of shape \(n, 12, 12, 3\)"),
        ({"exemplars": np.zeros((2, SIDE, SIDE, 3), np.float32)}, "type uint8"),
        (
            {"exemplars": np.zeros((2, SIDE, SIDE, 3), np.uint8), "sampler": "gmm"},
            "expected transfer, prior or auto, got 'gmm'",
        ),
    ],
)
def test_exemplars_that_cannot_be_used_are_refused(generator, keys, message):
    with pytest.raises(SamplingError, match=message):
        generator.sample(n=2, **keys)


def test_a_generator_without_a_style_takes_no_exemplars(toy):
    steps = {"training.steps": 2, "restoration.steps": 2}
    config = {"model.width": 8, "model.style_dim": 0, **steps}
    plain = vaeaug.fit(toy, vaeaug.AugmentConfig().changed(**config), device="cpu")
    with pytest.raises(
        SamplingError,
        match=r"need a generator with a style, got one trained with model\.style_dim 0",
    ):
        plain.sample(exemplars=drawn(NEW[0], 1, np.random.default_rng(0)), n=1)


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        ({"model.latent": "spatial"}, "model.latent vector"),
        ({"model.grouping": "separate"}, "model.grouping adapted or shared"),
        ({"model.conditional": False, "model.grouping": "shared"}, "model.conditional true"),
    ],
)
def test_a_style_that_a_job_cannot_have_is_refused(toy, keys, missing):
    config = vaeaug.AugmentConfig().changed(**{"model.style_dim": 4, **keys})
    with pytest.raises(vaeaug.ConfigError, match=rf"model.style_dim: a style .* needs {missing}"):
        vaeaug.fit(toy, config, device="cpu")
