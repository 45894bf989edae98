"""Clips in pictures: frames in their order, bounded bytes, GIFs in the page."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from vaeaug.report import ClassPanel, are_clips, gif_bytes, write_samples, write_strips
from vaeaug.report.clips import shown_frames
from vaeaug.report.embedded import embedded_picture, panel_pictures

SHAPE = (5, 8, 8, 1)


def steps(n=3, shape=SHAPE):
    """Clips whose frame t has the gray 40 t."""
    grays = (40 * np.arange(shape[0])).astype(np.uint8)[:, None, None, None]
    return np.broadcast_to(grays, (n, *shape)).copy()


def frames_of(content):
    with Image.open(io.BytesIO(content)) as file:
        found = []
        for number in range(getattr(file, "n_frames", 1)):
            file.seek(number)
            found.append(np.asarray(file.convert("RGB")))
    return np.stack(found)


def test_gray_is_exact_and_colours_are_near():
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (4, 16, 16), dtype=np.uint8)
    back = frames_of(gif_bytes([Image.fromarray(frame) for frame in gray]))
    assert np.array_equal(back[..., 0], gray)
    ramp = np.stack(np.meshgrid(*2 * [np.linspace(0, 255, 24)]), axis=-1)
    colour = np.stack([np.dstack([ramp, np.full((24, 24), 60 * t)]) for t in range(4)])
    colour = colour.astype(np.uint8)
    back = frames_of(gif_bytes([Image.fromarray(frame) for frame in colour]))
    assert back.shape == colour.shape
    assert np.abs(back.astype(int) - colour).mean() < 10


def test_the_bytes_are_bounded():
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)) for _ in range(6)]
    assert len(gif_bytes(noise)) > 20_000
    bounded = gif_bytes(noise, max_bytes=8000)
    assert len(bounded) <= 8000
    assert len(frames_of(bounded)) == 6
    assert shown_frames(5) == [0, 1, 2, 3, 4]
    chosen = shown_frames(128)
    assert (len(chosen), chosen[0], chosen[-1]) == (32, 0, 127)


def test_samples_and_strips_move(tmp_path):
    panels = [
        ClassPanel("a", "", steps(), steps(2), steps(2)),
        ClassPanel("b", "", *3 * [steps(0)]),
    ]
    for ending in ("gif", "png"):
        write_samples(tmp_path / f"samples.{ending}", panels, value_range=(0, 255))
    back = frames_of((tmp_path / "samples.gif").read_bytes())
    assert back[:, 40, 110, 0].tolist() == [0, 40, 80, 120, 160]
    with Image.open(tmp_path / "samples.png") as still:
        assert still.size == back.shape[2:0:-1]
    write_strips(tmp_path / "t.gif", [("a", ["unit 1"], steps(2)[None])], value_range=(0, 255))
    assert len(frames_of((tmp_path / "t.gif").read_bytes())) == 5
    images = steps(2)[:, 0]
    with pytest.raises(ValueError, match=r"expected a \.png for samples of shape \(8, 8, 1\)"):
        write_strips(tmp_path / "u.gif", [("a", ["unit 1"], images[None])], value_range=(0, 255))
    assert [are_clips(shape) for shape in (SHAPE, SHAPE[1:], (9, 2))] == [True, False, False]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_shows_moving_panels_within_its_bytes(tmp_path, channels):
    clips = steps(8, (5, 32, 32, channels))
    clips += np.random.default_rng(0).integers(0, 40, clips.shape, dtype=np.uint8)
    panels = [ClassPanel("a", "note", clips, clips, clips)]
    (shown,) = panel_pictures(panels, (0, 255), max_bytes=10**6)
    kind, content = re.fullmatch("data:image/(gif);base64,(.*)", shown["source"]).groups()
    frames = frames_of(base64.b64decode(content))
    assert kind == "gif"
    assert frames.shape[:3] == (5, shown["height"], shown["width"])
    assert np.all(np.diff(frames[:, 10, 10, 0].astype(int)) > 0)
    (fewer,) = panel_pictures(panels, (0, 255), max_bytes=len(shown["source"]) // 2)
    assert len(fewer["source"]) <= len(shown["source"]) // 2
    write_strips(tmp_path / "t.gif", [("a", ["unit 1"], clips[None])], value_range=(0, 255))
    traversal = embedded_picture(tmp_path / "t.gif")
    assert traversal["source"].startswith("data:image/gif;base64,")
