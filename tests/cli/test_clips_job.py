"""A job on short animations, from a folder to a folder."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import vaeaug
from tests.small_job import as_options
from vaeaug.cli import main

DIRECTIONS = {"down": (1, 0), "right": (0, 1)}
FRAMES, SIDE = 6, 12


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Squares that move down or to the right, 12 GIFs of each."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    for name, (down, right) in DIRECTIONS.items():
        (root / name).mkdir()
        for number in range(12):
            top, left = rng.integers(0, 4, 2)
            clip = np.zeros((FRAMES, SIDE, SIDE), np.uint8)
            for t, frame in enumerate(clip):
                frame[top + t * down :, left + t * right :][:3, :3] = rng.integers(150, 255)
            first, *others = map(Image.fromarray, clip)
            path = root / name / f"{number:02d}.gif"
            first.save(path, save_all=True, append_images=others, duration=80, loop=0)
    return root


def run(*command):
    done = CliRunner().invoke(main, list(map(str, command)))
    assert done.exit_code == 0, done.output
    return done.output


def test_from_gifs_to_gifs(shapes, tmp_path):
    out = tmp_path / "out"
    options = as_options(**{"plan.share": 0.4, "recipe.sampler": "gmm"})
    strategy = "--sampling-strategy={down: 20, right: 20}"
    run("augment", shapes, "--out", out, "--frames", 6, "--mode", "L", strategy, *options)
    assert vaeaug.verify(out).ok
    for picture in ("samples", "traversals"):
        with Image.open(out / f"{picture}.gif") as file:
            assert file.n_frames == FRAMES
        assert (out / f"{picture}.png").exists()
    page = (out / "report.html").read_text()
    assert page.count("data:image/gif;base64,") >= len(DIRECTIONS)

    # `report` reads the data again as the run did.
    run("report", shapes, out)
    run("export", out, "--to", tmp_path / "gifs", "--format", "gif")
    back = vaeaug.read(tmp_path / "gifs", frames=FRAMES, mode="L")
    synthetic = vaeaug.ShardDataset(out)
    np.testing.assert_array_equal(back.images, synthetic.images_at(np.arange(len(synthetic))))

    run("traverse", out, "--to", tmp_path / "t.gif", "--units", 2)
    with Image.open(tmp_path / "t.gif") as file:
        assert file.n_frames == FRAMES


def test_as_images_they_are_first_frames(shapes):
    output = run("plan", shapes, "--size", "16x16")
    assert "without frames= (--frames) only the first frame of multi-frame images is read" in output


def test_a_missing_setting_is_named(shapes, tmp_path):
    done = CliRunner().invoke(main, ["plan", str(shapes), "--frames", "3"])
    assert done.exit_code != 0
    assert "expected sides of 4 to 128 voxels, got 3x12x12" in done.output
    done = CliRunner().invoke(main, ["plan", "digits", "--frames", "3"])
    assert done.exit_code != 0
    assert "frames= (--frames) is for files of video and animations" in done.output
