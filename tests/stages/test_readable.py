"""Units of the latents are named by what they change, and attributes have directions."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import vaeaug
from vaeaug.attributes import attributes_of
from vaeaug.cli import main
from vaeaug.job.applications import ApplicationError, attribute_directions, traverse
from vaeaug.stages.readable import unit_effects


@pytest.fixture(scope="module")
def squares():
    """Two classes of bars, lying and standing, of which brightness and size vary."""
    rng = np.random.default_rng(0)
    images = np.zeros((600, 12, 12, 1), np.uint8)
    labels = np.repeat([0, 1], 300)
    for image, label in zip(images, labels, strict=True):
        a, b = rng.integers(2, 6), 1
        height, width = (a, b) if label else (b, a)
        image[6 - height : 6 + height, 6 - width : 6 + width] = rng.integers(90, 256)
    return vaeaug.read((images, labels))


@pytest.fixture(scope="module")
def generator(squares):
    config = vaeaug.AugmentConfig().changed(
        **{
            "model.width": 8,
            "model.latent_dim": 4,
            "model.grouping": "shared",
            "training.steps": 300,
            "density.kind": "normal",
            "restoration.steps": 0,
        }
    )
    return vaeaug.fit(squares, config, device="cpu", progress=False)


def test_units_are_named_by_what_they_change(generator):
    effects = unit_effects(generator)
    assert sorted(effect.unit for effect in effects) == [0, 1, 2, 3]
    assert [effect.unit < 2 for effect in effects] == [True, True, False, False]  # style first
    named = [effect for effect in effects if effect.attribute]
    assert named
    assert not {effect.attribute for effect in named} & {"right", "down"}  # all are centred
    # What is told is what happens: move the unit and measure.
    effect = max(named, key=lambda each: abs(each.effect))
    assert abs(effect.effect) > 0.3
    z = generator.means[generator.labels == 0][:50]
    moved = z.copy()
    moved[:, effect.unit] += generator.means[:, effect.unit].std()
    before, after = (
        attributes_of(generator.decode(part, np.zeros(50, int)), (0.0, 255.0))[effect.attribute]
        for part in (z, moved)
    )
    assert np.sign((after - before).mean()) == np.sign(effect.effect)


def test_the_names_are_in_the_traversal(generator):
    names, images = traverse(generator, 0, n_units=4, effects=unit_effects(generator))
    assert images.shape[:2] == (4, 9)
    assert any(":" in name for name in names)


def test_an_attribute_changes_along_its_direction(generator, squares):
    found = {each.name: each for each in attribute_directions(generator, squares)}
    assert {"brightness", "size", "thickness"} <= found.keys()
    assert found["brightness"].kept > 0.4
    assert found["stretch"].kept > 0.4  # bars of one thickness: their size goes with it


def test_other_data_is_refused(generator, squares):
    with pytest.raises(ApplicationError, match="that the generator was trained on"):
        attribute_directions(generator, squares.subset(np.arange(100)))


def test_the_command_draws_attributes(tmp_path):
    out = tmp_path / "out"
    options = ["--set", "training.steps=20", "--set", "model.width=8"]
    options += ["--set", "restoration.steps=0"]
    run = CliRunner().invoke(main, ["train", "digits", "--out", str(out), *options])
    assert run.exit_code == 0, run.output
    traversal = ["traverse", str(out), "--to", str(tmp_path / "a.png"), "--class", "3"]
    both = ["--attribute", "slant", "--attribute", "thickness", "--data", "digits"]
    result = CliRunner().invoke(main, [*traversal, *both])
    assert result.exit_code == 0, result.output
    assert "slant: of a change by 1 standard deviation" in result.stdout
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 50
    for options, message in (
        (["--attribute", "slant"], "are given together"),
        (["--attribute", "slent", "--data", "digits"], "expected attributes among brightness"),
    ):
        result = CliRunner().invoke(main, [*traversal, *options])
        assert result.exit_code != 0
        assert message in result.output
