"""A sweep trains one generator for each combination of values, once."""

import csv

import pytest
from click.testing import CliRunner
from PIL import Image

import vaeaug
from tests.small_job import as_options, tiny_config
from vaeaug.cli import main
from vaeaug.config import ConfigError

KEYS = {"model.beta": [0.5, 4.0], "model.width": [8, 16]}


@pytest.fixture(scope="module")
def digits():
    return vaeaug.read("digits").imbalanced([60] * 10, seed=0)


@pytest.fixture(scope="module")
def swept(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "out"
    return out, vaeaug.sweep(digits, out, KEYS, tiny_config(), progress=False)


def test_every_combination_is_a_line_of_the_table(swept):
    out, points = swept
    assert [tuple(point.values.values()) for point in points] == [
        (0.5, 8),
        (0.5, 16),
        (4.0, 8),
        (4.0, 16),
    ]
    with open(out / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["distortion"]) for row in rows] == [point.distortion for point in points]
    assert [row["model.width"] for row in rows] == ["8", "16", "8", "16"]
    with Image.open(out / "rate-distortion.png") as picture:
        assert min(picture.size) > 400


def test_the_measures_are_those_of_the_generator(swept, digits):
    out, points = swept
    folders = sorted((out / "points").iterdir())
    assert len(folders) == 4
    folder = next(f for f in folders if f.name.startswith("4.0-16"))
    generator = vaeaug.Synthesizer.load(folder / "model")
    _, held_out = digits.split_off(0.1, seed=0)
    again = generator.decode(generator.encode(held_out.images, held_out.labels), held_out.labels)
    error = ((again.astype(float) - held_out.images) / 255) ** 2
    assert points[-1].distortion == pytest.approx(error.mean(), rel=1e-6)
    kl, _ = generator.rates(held_out.images, held_out.labels, bits=False)
    assert points[-1].rate == pytest.approx(kl.sum(axis=1).mean(), rel=1e-6)


def test_what_is_there_is_not_trained_again_and_more_values_are_added(swept, digits):
    out, points = swept
    models = {path: path.stat().st_mtime_ns for path in out.glob("points/*/model/*")}
    more = {"model.beta": [0.5, 4.0, 2.0], "model.width": [8]}
    again = vaeaug.sweep(digits, out, more, tiny_config(), progress=False)
    assert again[:2] == [points[0], points[2]]
    assert {path: path.stat().st_mtime_ns for path in models} == models
    assert len(list((out / "points").iterdir())) == 5


def test_another_job_in_the_same_folder_is_refused(swept, digits):
    out, _ = swept
    other = tiny_config(**{"training.steps": 13})
    with pytest.raises(ConfigError, match=r"training\.steps"):
        vaeaug.sweep(digits, out, KEYS, other, progress=False)


def test_measures_that_were_damaged_are_named(swept, digits):
    out, _ = swept
    path = next(out.glob("points/*/measures.json"))
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b'"elbo":', b'"elba":'))
    with pytest.raises(vaeaug.RunError, match=r"measures\.json: damaged"):
        vaeaug.sweep(digits, out, KEYS, tiny_config(), progress=False)
    path.write_bytes(kept)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "expected one key or more"),
        ({"model.beta": []}, "expected one key or more"),
        ({"model.betta": [1]}, r"model\.betta"),
        ({"model.beta": [1, -1]}, r"model\.beta"),
    ],
)
def test_bad_keys_are_refused_before_anything_is_trained(digits, tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        vaeaug.sweep(digits, tmp_path / "out", keys, tiny_config(), progress=False)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_table(tmp_path):
    run = ["sweep", "digits", "--vary", "model.beta=1,8", "--seeds", "0,3", "--out"]
    result = CliRunner().invoke(main, [*run, str(tmp_path / "out"), *as_options()])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[:2] for line in lines[1:5]] == [["1", "0"], ["1", "3"], ["8", "0"], ["8", "3"]]
    assert "rate-distortion.png" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vary", "model.beta"], "expected key=value,value"),
        (["--vary", "model.beta="], "expected key=value,value"),
        (["--vary", "model.beta=1,2", "--seeds", "1,1"], "expected different whole numbers"),
    ],
)
def test_bad_options_of_the_command(tmp_path, options, message):
    result = CliRunner().invoke(main, ["sweep", "digits", *options, "--out", str(tmp_path / "o")])
    assert result.exit_code == 2
    assert message in result.output
