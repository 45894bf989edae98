"""A dataset grows: what is new is added, and what is there keeps its bytes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_job import as_options, contents, digits, tiny_config

import vaeaug
from vaeaug.cli import main
from vaeaug.job.inspection import describe
from vaeaug.merging._joined import JoinedShards
from vaeaug.shards import Manifest, ShardDataset

FEW = {"zero": 30, "one": 24, "two": 16, "three": 5}
MORE = FEW | {"one": 40, "two": 30}
# Near-duplicates are rejected: the later samples depend on the earlier ones.
SCREENED = {"screening.duplicate_factor": 1.0, "screening.near_copy_factor": 0.5}


def job(totals=FEW, **keys):
    return tiny_config(**{"plan.sampling_strategy": totals}, **SCREENED, **keys)


def grow(data, out, config, **options):
    return vaeaug.augment(data, out, config, device="cpu", progress=False, **options)


def samples(out):
    """Every sample of a run, in an order that does not depend on its shards."""
    read = ShardDataset(out)
    rows = np.lexsort([read.seed, read.labels])
    arrays = (read.labels, read.seed, read.source_index, read.latents, read.p_label)
    return [array[rows] for array in (*arrays, read.images_at(np.arange(len(read))))]


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def small(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("small") / "out"
    grow(data, out, job())
    return out


@pytest.fixture
def out(small, tmp_path):
    return Path(shutil.copytree(small, tmp_path / "out"))


@pytest.fixture(scope="module")
def grown(data, small, tmp_path_factory):
    out = Path(shutil.copytree(small, tmp_path_factory.mktemp("grown") / "out"))
    return grow(data, out, job(MORE), add=True)


def test_a_raised_plan_draws_the_samples_of_a_run_that_asked_for_all(data, small, grown, tmp_path):
    grow(data, tmp_path / "at-once", job(MORE))
    for ours, at_once in zip(samples(grown.out_dir), samples(tmp_path / "at-once"), strict=True):
        np.testing.assert_array_equal(ours, at_once)
    before, after = contents(small), contents(grown.out_dir)
    shards = [name for name in before if name.startswith("shards")]
    assert shards
    assert all(before[name] == after[name] for name in shards)
    assert vaeaug.verify(grown.out_dir).ok
    at_once = Manifest.load(tmp_path / "at-once")
    assert grown.manifest.classes == at_once.classes
    assert grown.manifest.extra["plan"] == at_once.extra["plan"]
    first, second = grown.manifest.generations
    assert second.asked == {"plan.sampling_strategy": MORE}
    assert [(e.name, e.n_synthetic) for e in second.classes] == [("one", 16), ("two", 14)]
    assert first.shards == tuple(e.path for e in Manifest.load(small).shards)
    line = "30 samples (one 16, two 14), seed 0, model "
    assert describe(grown.out_dir)["generations"]["2"].startswith(line)
    for name in ("README.md", "report.html"):
        assert line in (grown.out_dir / name).read_text(encoding="utf-8").replace("\\", "")


def test_what_was_thrown_out_stays_out_of_the_grown_dataset(data, out, grown):
    path = Manifest.load(out).shards[0].path
    vaeaug.exclude(out, {path: [1, 3]}, data)
    left = grow(data, out, job(MORE), add=True).manifest
    assert left.excluded == {path: [1, 3]}
    assert left.n_images == grown.manifest.n_images - 2
    assert [generation.classes for generation in left.generations] == [
        generation.classes for generation in grown.manifest.generations
    ]
    assert vaeaug.verify(out).ok
    assert len(ShardDataset(out)) == left.n_images
    # In the other run they were not thrown out: each sample of either is there once.
    assert len(JoinedShards([ShardDataset(out), ShardDataset(grown.out_dir)])) == left.n_images + 2
    back = vaeaug.exclude(out, None, data)
    assert back.classes == grown.manifest.classes


def test_the_same_again_adds_nothing(data, grown):
    before = contents(grown.out_dir)
    again = grow(data, grown.out_dir, job(MORE), add=True)
    assert "Nothing to add" in again.notes[0]
    less = grow(data, grown.out_dir, job(), add=True)
    assert "Class 'one': 24 samples of seed 0 are there, this job asks for 8" in less.notes[1]
    assert contents(grown.out_dir) == before


def test_another_seed_adds_samples_of_the_same_generator(data, out):
    before = Manifest.load(out)
    result = grow(data, out, job(seed=1), add=True)
    assert vaeaug.verify(out).ok
    assert [g.run_seed for g in result.manifest.generations] == [0, 1]
    assert {g.model_sha256 for g in result.manifest.generations} == {before.model_sha256}
    assert result.manifest.n_images == 2 * before.n_images
    with pytest.warns(UserWarning, match="no synthetic samples of the classes"):
        merged = vaeaug.merge(data, out)
    assert len(merged) == sum(FEW.values())
    # With the first seed again nothing is missing.
    assert "Nothing to add" in grow(data, out, job(), add=True).notes[0]


def test_what_is_no_addition_is_refused(data, out, tmp_path):
    before = contents(out)
    with pytest.raises(vaeaug.ConfigError, match=r"other values of: model\.beta: 1\.0 -> 2\.0"):
        grow(data, out, job(**{"model.beta": 2.0}), add=True)
    with pytest.raises(vaeaug.ConfigError, match="--add to make only what is new"):
        grow(data, out, job(MORE))
    with pytest.raises(vaeaug.RunError, match="expected a finished run, got none"):
        grow(data, tmp_path / "nothing", job(), add=True)
    assert contents(out) == before
    (out / "model" / "model.safetensors").write_bytes(b"another")
    with pytest.raises(vaeaug.RunError, match="expected the generator of the dataset"):
        grow(data, out, job(MORE), add=True)


def test_an_interrupted_addition_leaves_the_former_dataset_and_goes_on(
    data, out, grown, monkeypatch
):
    before = contents(out)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("vaeaug.job.growing.publish", stop)
        with pytest.raises(KeyboardInterrupt):
            grow(data, out, job(MORE), add=True)
    assert vaeaug.verify(out).ok
    assert {n: b for n, b in contents(out).items() if not n.startswith("adding")} == before

    def stop_in_the_middle(_):
        if any(f"shards/{path.name}" not in before for path in (out / "shards").iterdir()):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("vaeaug.job.folder.fsync_folder", stop_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            grow(data, out, job(MORE), add=True)
    assert ShardDataset(out).manifest == Manifest.load(out)
    problems = vaeaug.verify(out).problems
    assert (problems[0].kind, problems[0].path) == ("unfinished", "adding/manifest.json")
    assert {problem.kind for problem in problems[1:]} == {"foreign"}
    grow(data, out, job(MORE), add=True)
    assert contents(out) == contents(grown.out_dir)
    assert not (out / "adding").exists()


def test_the_images_that_class_counts_keeps_do_not_follow_the_seed(tmp_path):
    keys = {
        "data.class_counts": [24, 16, 10, 5] + [0] * 6,
        "plan.sampling_strategy": {0: 26, 1: 18},
    }
    source, config = "digits", tiny_config(**keys)
    first = grow(source, tmp_path / "out", config)
    result = grow(source, tmp_path / "out", config.changed(seed=3), add=True)
    assert result.manifest.n_images == 2 * first.manifest.n_images
    assert result.manifest.data_fingerprint == first.manifest.data_fingerprint
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["config"]["seed"], run["config"]["data"]["seed"]) == (3, 0)
    with pytest.warns(UserWarning, match="no synthetic samples of the classes"):
        assert len(vaeaug.merge(source, tmp_path / "out")) == 26 + 18 + 10 + 5


def test_a_class_and_images_are_added_with_the_trunk_frozen(tmp_path):
    out, totals = tmp_path / "out", {"zero": 30, "two": 20, "three": 16}
    whole = digits((24, 16, 14, 10))
    # The class comes between others: labels move. And the first class has fewer images at first.
    missing = np.concatenate(
        [np.flatnonzero(whole.labels == 1), np.flatnonzero(whole.labels == 0)[:4]]
    )
    rows = np.delete(np.arange(len(whole)), missing)
    names = ("zero", "two", "three")
    labels = np.array([0, -1, 1, 2])[whole.labels[rows]]
    few = vaeaug.LabelledImages(whole.images[rows], labels, names, (0, 255))
    grow(few, out, job(totals))
    before, start = contents(out), vaeaug.load(out)

    result = grow(whole, out, job(totals | {"one": 22}), add=True)
    generator = vaeaug.load(out)
    assert vaeaug.verify(out).ok
    assert result.manifest.class_names == whole.class_names
    second = result.manifest.generations[1]
    assert second.asked["images"] == {"zero": 4, "one": 16}
    assert [(e.name, e.accepted) for e in second.classes] == [("one", 6)]
    shards = [name for name in before if name.startswith("shards")]
    assert all(before[name] == (out / name).read_bytes() for name in shards)
    read = ShardDataset(out)
    assert np.bincount(read.labels).tolist() == [10, 6, 6, 6]
    assert len(vaeaug.merge(whole, out)) == 30 + 22 + 20 + 16

    # The trunk, and what the generator makes of its other classes, is what it was.
    ours, theirs = generator.model.trunk_parameters(), start.model.trunk_parameters()
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    moved, z = [0, 2, 3], np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(generator.decode(z, moved), start.decode(z, [0, 1, 2]))
    for label, name in ((1, "two"), (2, "three")):
        density = generator.densities[generator.index_of(name)]
        np.testing.assert_array_equal(density.means, start.densities[label].means)
    assert not np.array_equal(generator.densities[0].means, start.densities[0].means)
    assert len(generator.rows[0]) == 24
    fewer = digits((24, 16, 13, 10))
    with pytest.raises(vaeaug.RunError, match="class 'two': expected at least the 14 images"):
        grow(fewer, out, job(totals), add=True)


def test_several_runs_merge_as_one_and_each_sample_counts_once(data, small, grown, tmp_path):
    generator = vaeaug.load(small)
    other = vaeaug.generate(generator, data, tmp_path / "other", job(seed=5), device="cpu")
    outs = [small, grown.out_dir, other.out_dir]
    with pytest.warns(UserWarning, match="no synthetic samples of the classes"):
        merged = vaeaug.merge(data, outs, share="all")
    n = grown.manifest.n_images + other.manifest.n_images
    assert int(merged.is_synthetic.sum()) == len(merged.synthetic) == n
    assert merged.synthetic.n_repeated == ShardDataset(small).manifest.n_images
    first = ShardDataset(other.out_dir)
    rows = np.array([len(merged.synthetic) - 1, 0])
    np.testing.assert_array_equal(merged.synthetic.images_at(rows)[0], first.images_at([-1])[0])
    assert merged.synthetic.labels[-1] == first.labels[-1]
    less = digits((20, 16, 10, 5))
    vaeaug.augment(less, tmp_path / "less", job({"one": 24}), device="cpu", progress=False)
    with pytest.raises(vaeaug.MergeError, match="samples of the training split"):
        vaeaug.merge(data, [small, tmp_path / "less"])


def test_the_command_merges_several_runs(small, grown, tmp_path):
    data, file = tmp_path / "data.npz", tmp_path / "all.h5"
    real = digits()
    np.savez(data, images=real.images, labels=real.labels)
    keys = {"plan.sampling_strategy": {0: 26, 1: 18}}
    command = [
        "augment",
        str(data),
        *as_options(**keys),
        "--out",
        str(tmp_path / "a"),
        "--device=cpu",
    ]
    assert CliRunner().invoke(main, command).exit_code == 0
    generate = ["generate", str(tmp_path / "a"), *command[1:-2], str(tmp_path / "b"), "--seed=4"]
    assert CliRunner().invoke(main, generate).exit_code == 0
    merge = ["merge", str(data), str(tmp_path / "a"), str(tmp_path / "b"), "--to", str(file)]
    with pytest.warns(UserWarning, match="no synthetic samples of the classes"):
        result = CliRunner().invoke(main, [*merge, "--share=all", "--json"])
    assert result.exit_code == 0, result.output
    assert [row["synthetic"] for row in json.loads(result.stdout)["classes"]] == [4, 4, 0, 0]
