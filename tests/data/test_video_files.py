"""Videos and animations become clips: which frames, which errors."""

import cv2
import numpy as np
import pytest
from PIL import Image

import vaeaug
from vaeaug.data import DataError, read_pool
from vaeaug.data.decode import frame_indices

SIDE = 32


def ramp(n, side=SIDE):
    """Frames of one gray each, 8 levels apart."""
    levels = (8 * np.arange(n) % 256).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (n, side, side, 3)).copy()


def write_video(path, frames, rate=25.0):
    codec = {".avi": "MJPG", ".mp4": "mp4v"}[path.suffix]
    size = frames.shape[2], frames.shape[1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size)
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()


def write_gif(path, frames, durations=80, **options):
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, **options)


@pytest.fixture
def folder(tmp_path):
    """folder({"a": {"1.gif": frames}}): class folders; returns the root."""

    def make(classes):
        root = tmp_path / "clips"
        for name, files in classes.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for file, frames in files.items():
                write = write_gif if file.endswith(("gif", "png", "webp", "tif")) else write_video
                write(root / name / file, frames)
        return root

    return make


def levels(data):
    """The mean gray of each frame, in steps of the ramp."""
    return np.rint(data.images.mean(axis=(2, 3, 4)) / 8).astype(int).tolist()


@pytest.mark.parametrize("ending", ["avi", "mp4"])
def test_videos_by_class(folder, ending):
    files = {"a": {f"1.{ending}": ramp(12)}, "b": {f"2.{ending}": ramp(20)}}
    root = folder(files)
    data = vaeaug.read(root, frames=6, size=16)
    assert data.images.shape == (2, 6, 16, 16, 3)
    assert (data.layout, data.class_names) == ("NDHWC", ("a", "b"))
    assert levels(data) == [[3, 4, 5, 6, 7, 8], [7, 8, 9, 10, 11, 12]]
    assert "clips of 25 (2) frames per second" in data.notes
    assert "cut at both ends to 6 frames (resize='crop') (2 of 2 clips)" in data.notes
    spread = vaeaug.read(root, frames=4, resize="stretch", mode="L")
    assert spread.images.shape == (2, 4, SIDE, SIDE, 1)
    assert levels(spread) == [[0, 4, 7, 11], [0, 6, 13, 19]]
    pool = read_pool(root, like=spread, frames=4, resize="stretch", mode="L")
    assert np.array_equal(pool, spread.images)


def test_a_clip_that_is_too_short_holds_its_last_frame(folder):
    root = folder({"a": {"1.avi": ramp(3)}, "b": {"1.avi": ramp(4)}})
    data = vaeaug.read(root, frames=5)
    assert levels(data) == [[0, 1, 2, 2, 2], [0, 1, 2, 3, 3]]
    assert "last frame held up to 5 frames (2 of 2 clips)" in data.notes


def test_without_frames_videos_are_read_whole_and_have_to_be_alike(folder):
    root = folder({"a": {"1.avi": ramp(5)}, "b": {"1.avi": ramp(5)}})
    assert levels(vaeaug.read(root)) == [[0, 1, 2, 3, 4]] * 2
    write_video(root / "b" / "2.avi", ramp(6))
    with pytest.raises(DataError, match=r"expected clips of one size.*frames= \(--frames\)"):
        vaeaug.read(root)
    write_video(root / "b" / "2.avi", ramp(129))
    with pytest.raises(DataError, match="expected at most 128 frames, got 129; frames="):
        vaeaug.read(root)


def test_different_rates_are_noted(folder):
    root = folder({"a": {"1.avi": ramp(5)}, "b": {"1.avi": ramp(5)}})
    write_video(root / "b" / "1.avi", ramp(5), rate=10.0)
    notes = vaeaug.read(root).notes
    assert any(note.startswith("clips of 10 (1), 25 (1) frames per second") for note in notes)


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_animations_are_clips_where_frames_are_asked_for(folder, ending):
    options = {"lossless": True} if ending == "webp" else {}
    root = folder({"a": {}, "b": {}})
    for name, n in (("a", 4), ("b", 6)):
        write_gif(root / name / f"1.{ending}", ramp(n), **options)
    data = vaeaug.read(root, frames=4, mode="RGB")
    assert levels(data) == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert np.array_equal(data.images[0], ramp(4))
    still = vaeaug.read(root, mode="RGB")
    assert still.images.shape == (2, SIDE, SIDE, 3)
    assert any("only the first frame" in note and "--frames" in note for note in still.notes)


def test_gray_gifs(folder):
    gray = ramp(4)[..., 0]
    root = folder({"a": {"1.gif": gray}, "b": {"1.gif": gray[::-1]}})
    data = vaeaug.read(root, frames=4, mode="L")
    assert np.array_equal(data.images[0, ..., 0], gray)
    assert data.image_shape == (4, SIDE, SIDE, 1)
    assert vaeaug.read(root, frames=4).image_shape == (4, SIDE, SIDE, 3)


def test_frames_are_taken_at_equal_times(folder):
    root = folder({"a": {}, "b": {}})
    write_gif(root / "a" / "1.gif", ramp(3), [50, 100, 50])
    # The writer joins frames that are alike, which must not shorten the clip.
    write_gif(root / "b" / "1.gif", ramp(4)[[0, 1, 1, 2]], 50)
    assert levels(vaeaug.read(root, frames=4, mode="RGB")) == [[0, 1, 1, 2]] * 2


def test_several_workers_read_the_same(folder):
    root = folder({"a": {"1.gif": ramp(4), "2.gif": ramp(5)}, "b": {"1.gif": ramp(6)}})
    alone, together = (vaeaug.read(root, frames=4, mode="RGB", workers=n) for n in (0, 2))
    assert np.array_equal(alone.images, together.images)


def test_damaged_videos_are_named_and_can_be_skipped(folder):
    root = folder({"a": {"1.avi": ramp(40)}, "b": {"1.avi": ramp(40), "2.mp4": ramp(40)}})
    whole = (root / "b" / "1.avi").read_bytes()
    (root / "a" / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (root / "a" / "empty.mp4").write_bytes(b"")
    (root / "b" / "list.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")
    (root / "b" / "torn.mp4").write_bytes((root / "b" / "2.mp4").read_bytes()[:600])
    with pytest.raises(DataError, match="4 of 7 cannot be read") as raised:
        vaeaug.read(root, frames=30)
    text = str(raised.value)
    for name in ("cut.avi", "empty.mp4", "list.mp4", "torn.mp4"):
        assert name in text
    assert "cut short or damaged" in text
    assert "expected a video file of MP4, MOV, AVI, Matroska or WebM, got 27 bytes" in text
    data = vaeaug.read(root, frames=30, on_error="skip")
    assert len(data) == 3
    assert levels(data)[0][:20] == list(range(5, 25))


def test_what_is_no_clip_is_refused(folder, tmp_path):
    root = folder({"a": {"1.avi": ramp(4)}, "b": {"1.gif": ramp(4)}})
    with pytest.raises(DataError, match="expected images or videos, got both"):
        vaeaug.read(root, frames=4)
    arrays = np.zeros((6, 8, 8, 1), np.uint8), [0, 1] * 3
    with pytest.raises(DataError, match=r"frames= \(--frames\) is for files of video"):
        vaeaug.read(arrays, frames=4)
    with pytest.raises(DataError, match="frames: expected a whole number, at least 1, got 0"):
        vaeaug.read(arrays, frames=0)
    long = folder({"c": {"1.avi": ramp(9)}, "d": {"1.avi": ramp(9)}})
    (root / "a" / "1.avi").unlink()
    (root / "b" / "1.gif").unlink()
    (root / "a").rmdir()
    (root / "b").rmdir()
    with pytest.raises(DataError, match="expected at most 4 frames, because resize='pad'"):
        vaeaug.read(long, frames=4, resize="pad")


def test_which_frames():
    assert frame_indices(5, 5, "crop", "x") == ([0, 1, 2, 3, 4], "")
    assert frame_indices(9, 3, "crop", "x")[0] == [3, 4, 5]
    assert frame_indices(9, 3, "stretch", "x")[0] == [0, 4, 8]
    assert frame_indices(2, 4, "stretch", "x")[0] == [0, 0, 1, 1]
    assert frame_indices(2, 4, "pad", "x")[0] == [0, 1, 1, 1]


def test_durations_that_differ_too_much_take_no_memory(folder, monkeypatch):
    monkeypatch.setattr("vaeaug.data.decode._MOST_TIMES", 50)
    root = folder({"a": {}, "b": {}})
    for name in "ab":
        write_gif(root / name / "1.gif", ramp(3), [10, 5000, 10])
    data = vaeaug.read(root, frames=3, mode="RGB")
    assert levels(data) == [[0, 1, 2]] * 2
    assert "durations of frames, which differ too much, not used (2 of 2 images)" in data.notes
