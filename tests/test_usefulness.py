"""The benchmark of usefulness: its sets are split as promised, its opponents do what they say."""

import json

import numpy as np
import pytest
import torch
from PIL import ImageFont

from benchmarks.usefulness import deepsmote, glyphs, pools, signals
from benchmarks.usefulness.compare import Bench, Choices, table
from benchmarks.usefulness.heads import fit_head, smote, tail_calibrated
from benchmarks.usefulness.opponents import OPPONENTS, SAMPLES
from benchmarks.usefulness.regimes import REGIMES, Regime
from benchmarks.usefulness.small_cnn import (
    Pool,
    Training,
    affine,
    as_tensor,
    mixed,
    predict,
    time_warp,
    train,
)
from vaeaug import LabelledImages

N_FAMILIES, K = 420, len(glyphs.CHARACTERS)


@pytest.fixture(scope="module")
def glyph_file(tmp_path_factory):
    """Two fonts a family; a pixel tells family, font and character."""
    path = tmp_path_factory.mktemp("glyphs") / "glyphs.npz"
    n = N_FAMILIES * 2 * K
    images = np.zeros((n, 28, 28), np.uint8)
    images.reshape(n, -1)[:, :4] = np.arange(n, dtype="<u4").view(np.uint8).reshape(n, 4)
    np.savez(
        path,
        images=images,
        labels=np.tile(np.arange(K, dtype=np.uint8), N_FAMILIES * 2),
        family=np.repeat(np.arange(N_FAMILIES, dtype=np.int16), 2 * K),
        class_names=np.array(list(glyphs.CHARACTERS)),
    )
    return path


def families_of(data):
    rows = np.ascontiguousarray(data.images.reshape(len(data), -1)[:, :4]).view("<u4")[:, 0]
    assert (rows % K == data.labels).all()
    return rows // (2 * K)


def test_glyphs_of_training_development_and_test_share_no_family(glyph_file):
    parts = glyphs.parts(glyph_file, [20] * 28 + [3] * 28, 0)
    train, development, test = (set(families_of(part).tolist()) for part in parts)
    assert not train & development
    assert not train & test
    assert not development & test
    assert (len(development), len(test)) == (100, 300)
    assert (parts[2].counts == 300).all()
    assert sorted(parts[0].counts.tolist()) == [3] * 28 + [20] * 28


def test_fewer_glyphs_are_a_part_of_more(glyph_file):
    few, _, test = glyphs.parts(glyph_file, [20] * 28 + [1] * 28, 3)
    more, _, same_test = glyphs.parts(glyph_file, [20] * 28 + [5] * 28, 3)
    as_sets = [{image.tobytes() for image in data.images} for data in (few, more)]
    assert as_sets[0] < as_sets[1]
    np.testing.assert_array_equal(test.images, same_test.images)


def test_too_few_fonts_are_told(glyph_file):
    with pytest.raises(ValueError, match=r"expected 400 training images of '.', found 40"):
        glyphs.parts(glyph_file, [400] * 28 + [1] * 28, 0)


def test_a_picture_fills_the_middle():
    picture = glyphs.picture(ImageFont.load_default(glyphs.DRAWN), "W")
    rows, columns = (np.flatnonzero(picture.any(axis=axis)) for axis in (1, 0))
    extent = max(len(rows), len(columns))
    assert extent == glyphs.SIDE - 2 * glyphs.MARGIN
    assert abs(rows[0] - (27 - rows[-1])) <= 1
    assert glyphs.picture(ImageFont.load_default(glyphs.DRAWN), " ") is None


def test_signals_are_read_and_resampled(tmp_path):
    path = tmp_path / "a.ts"
    path.write_text("@problemName a\n@data\n1,2,3:4,5,6:one\n7,8,9:1,1,1:two\n")
    x, labels = signals.read_ts(path)
    np.testing.assert_array_equal(x[0], [[1, 4], [2, 5], [3, 6]])
    assert labels == ["one", "two"]
    path.write_text("@data\n1,2:a\n1,2,3:b\n")
    with pytest.raises(ValueError, match=r"one length, got \[2, 3\]"):
        signals.read_ts(path)


def test_resampling_keeps_the_mean_and_a_straight_line():
    line = np.arange(427, dtype=np.float32)[None, :, None]
    short = signals.resampled(line, 128)
    assert short.shape == (1, 128, 1)
    assert short.mean() == pytest.approx(line.mean(), rel=1e-5)
    np.testing.assert_allclose(np.diff(short[0, :, 0]), 427 / 128, rtol=0.03)
    assert signals.resampled(line, 500) is line


def test_half_of_the_classes_of_signals_are_rare():
    labels = np.repeat(np.arange(4), 20)
    training, development = signals.rare_and_rest(labels, 4, seed=0)
    assert sorted(np.bincount(labels[training]).tolist()) == [3, 3, 15, 15]
    assert sorted([*training, *development]) == list(range(80))


def test_augmentations_of_no_strength_change_nothing():
    random = torch.Generator().manual_seed(0)
    images, waves = torch.rand(3, 1, 28, 28), torch.rand(3, 2, 50)
    torch.testing.assert_close(affine(images, 0.0, random), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(time_warp(waves, 0.0, random), waves, atol=1e-5, rtol=0)
    assert not torch.allclose(time_warp(waves, 0.2, random), waves, atol=0.05)


@pytest.mark.parametrize("shape", [(8, 1, 20, 20), (8, 2, 50)])
def test_cutmix_mixes_targets_as_it_mixes_pixels(shape):
    x = torch.arange(8.0).view(-1, *[1] * (len(shape) - 1)).expand(shape).clone()
    target = torch.eye(8)
    rng = np.random.default_rng(0)
    for _ in range(20):
        images, targets = mixed(x, target, Training(cutmix=1.0), rng)
        torch.testing.assert_close(images.flatten(1).mean(1), targets @ torch.arange(8.0))
        torch.testing.assert_close(targets.sum(1), torch.ones(8))


def test_smote_lies_between_vectors_of_the_class():
    x = np.array([[0.0, 0.0], [1.0, 2.0]], np.float32)
    made = smote(x, 50, neighbours=5, rng=np.random.default_rng(0))
    np.testing.assert_allclose(made[:, 1], 2 * made[:, 0], atol=1e-6)
    assert ((made >= 0) & (made <= [1, 2])).all()
    assert len(smote(x[:1], 5, neighbours=5, rng=np.random.default_rng(0))) == 0


def test_tail_calibration_has_the_mean_and_spread_of_the_paper():
    rng = np.random.default_rng(0)
    head = rng.normal(size=(4_000, 2)) * [1.0, 3.0] + [4, 0]
    x = np.concatenate([head, [[0.0, 2.0]]]).astype(np.float32)
    y = np.array([0] * len(head) + [1])
    made, labels = tail_calibrated(x, y, np.array([len(head), 1]), neighbours=1, alpha=0.5, rng=rng)
    assert (labels == 1).all()
    assert len(made) == len(head) - 1
    # Five standard errors of a mean and of a variance.
    n = len(made)
    np.testing.assert_allclose(made.mean(0), [2, 1], atol=5 * 3.1 / n**0.5)
    np.testing.assert_allclose(made.var(0), [1.5, 9.5], rtol=5 * (2 / n) ** 0.5 + 0.02)


def test_a_head_finds_what_is_separable_and_names_an_unknown_scheme():
    rng = np.random.default_rng(0)
    y = np.array([0] * 60 + [1] * 6)
    x = (rng.normal(size=(66, 4)) + 6 * y[:, None]).astype(np.float32)
    how = {"weight_decay": 0.1, "seed": 0, "counts": np.array([60, 6])}
    for scheme in ("none", "smote", "tailcalib"):
        head = fit_head(x, y, 2, scheme=scheme, neighbours=2, **how)
        assert (head(torch.from_numpy(x)).argmax(1).numpy() == y).all()
    with pytest.raises(ValueError, match="got 'other'"):
        fit_head(x, y, 2, scheme="other", **how)


def waves(n=24, length=30):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    t = np.linspace(0, 6, length)
    x = np.sin(t * (1 + y[:, None])) + 0.1 * rng.normal(size=(n, length))
    return LabelledImages(x[..., None].astype(np.float32), y, ("a", "b"), (-2, 2))


def test_a_share_of_samples_that_are_the_data_changes_little_and_none_changes_nothing():
    data = waves()
    how = {"seed": 0, "steps": 20, "batch": 16}
    plain = predict(train(data, Training(), None, **how), data)
    empty = Pool(np.zeros((2, 4, 30, 1), np.float32), np.zeros(2, np.int64))
    np.testing.assert_array_equal(
        predict(train(data, Training(share=0.5), empty, **how), data), plain
    )
    noise = Pool(np.ones((2, 4, 30, 1), np.float32), np.array([4, 4]))
    until_none = predict(train(data, Training(share=0.5, until=0.0), noise, **how), data)
    np.testing.assert_array_equal(until_none, plain)
    assert not np.allclose(predict(train(data, Training(share=0.5), noise, **how), data), plain)
    with pytest.raises(ValueError, match="expected a pool"):
        train(data, Training(share=0.5), None, **how)


def test_deepsmote_samples_are_inside_the_range_and_kept_by_the_file(tmp_path):
    data = waves()
    pool = deepsmote.make(data, seed=0, steps=3)
    assert pool.images.shape == (2, deepsmote.MADE, 30, 1)
    assert (np.abs(pool.images) <= 2).all()
    pools.write(tmp_path / "a.npz", pool, {"seed": 0})
    read = pools.read(tmp_path / "a.npz")
    np.testing.assert_array_equal(read.images, pool.images)
    with pytest.raises(pools.MissingPoolError, match="make makes them"):
        pools.digest(tmp_path / "b.npz")


def test_a_head_stands_on_the_network_that_its_arm_kept(tmp_path):
    data = waves()
    regime = Regime("r", lambda seed: (data, data, data), 20, against="signals", batch=16)
    pool = Pool(data.images[np.argsort(data.labels)].reshape(2, -1, 30, 1), data.counts)
    use, head = {"share": 0.5}, {"scheme": "none", "weight_decay": 0.1}

    def bench(out):
        pools.write(tmp_path / out / "r" / "seed-0" / "pool-delta.npz", pool, {})
        return Bench(regime, 0, 20, tmp_path / out, bfloat16=False)

    arm, then = SAMPLES["delta"], SAMPLES["delta, then TailCalib"]
    bench("shared").probabilities(arm, use, {})
    kept = tmp_path / "shared" / "r" / "seed-0" / "kept"
    (network,) = kept.glob("*.pt")
    written = network.stat().st_mtime_ns
    after, _ = bench("shared").probabilities(then, use | {"head": head}, {})
    assert [network] == list(kept.glob("*.pt"))
    assert network.stat().st_mtime_ns == written
    alone, _ = bench("alone").probabilities(then, use | {"head": head}, {})
    np.testing.assert_array_equal(after, alone)


def test_development_images_choose_the_setting():
    lines = [
        {
            "regime": "r",
            "arm": "classic",
            "setting": {"affine": a},
            "base": {},
            "seed": seed,
            "steps": 9,
            "balanced_accuracy": value,
        }
        for a, values in ((1.0, (0.7, 0.8)), (1.5, (0.76, 0.76)), (2.0, (0.9,)))
        for seed, value in enumerate(values)
    ]
    choices = Choices("r", "images", 9, lines, "r")
    assert choices.base == {"affine": 1.5}
    assert choices.beneath(OPPONENTS["images"]["Mixup"]) == {"affine": 1.5}
    with pytest.raises(SystemExit, match="not tuned yet"):
        choices.beneath(SAMPLES["transfer, on the best"])


def test_the_best_opponent_is_of_the_seeds_that_a_table_shows(tmp_path, capsys):
    def line(arm, seed, value):
        metrics = {"balanced_accuracy": value, "recall_rare": value}
        of = {"regime": "glyphs-few-1", "arm": arm, "seed": seed, "steps": 9}
        return of | {"setting": {}, "base": {}, "development": metrics, "test": metrics}

    lines = [line("classic", 0, 0.5), line("classic", 1, 0.5), line("TailCalib", 0, 0.75)]
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table(REGIMES["glyphs-few-1"], results, "test", 9, seeds=[0, 1])
    assert "best opponent is 'classic'" in capsys.readouterr().out
    table(REGIMES["glyphs-few-1"], results, "test", 9, seeds=[0])
    shown = capsys.readouterr().out
    assert "best opponent is 'TailCalib'" in shown
    assert "| classic |  | 1 | 50.0 | 50.0 |" in shown


def test_images_are_scaled_and_signals_are_not():
    images = LabelledImages(np.full((1, 2, 2, 1), 255, np.uint8), np.array([0]), ("a",), (0, 255))
    assert as_tensor(images.images, images).unique().tolist() == [1.0]
    data = waves()
    np.testing.assert_array_equal(as_tensor(data.images, data)[:, 0].numpy(), data.images[..., 0])
