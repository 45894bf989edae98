"""The recipes run, on a small size, and what they write is what they say."""

import ast
import re
import runpy
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml

import vaeaug
from vaeaug.config import json_schema

PIPELINES = Path(__file__).parent.parent / "pipelines"
RECIPES = sorted(path for path in PIPELINES.glob("*.py") if path.stem != "classifier")
CONFIGS = sorted(PIPELINES.glob("*.yaml"))
FASHION = Path("/usr/share/datasets/fashion-mnist")
PUBLIC = (
    "vaeaug",
    "vaeaug.integrations",
    "vaeaug.integrations.albumentations",
    "vaeaug.integrations.lightning",
)
TINY = [
    *("model.width=8", "training.steps=10", "training.adapt_steps=4", "training.eval_every=5"),
    "restoration.steps=4",
    *("screening.classifier_steps=4", "screening.folds=2", "recipe.min_label_probability=0"),
    # Of a generator that has learned so little, edits are near-copies; and bounds take their time.
    *("screening.near_copy_factor=0", "screening.duplicate_factor=0", "training.bound_samples=2"),
]
COUNTS = [24, 20, 16, 14, 12, 12, 10, 10, 9, 8]
SMALL = [f"--set={key}" for key in [*TINY, f"data.class_counts={COUNTS}"]]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a recipe as a script would be: its folder comes first on the path."""

    def run(name, *arguments):
        monkeypatch.syspath_prepend(PIPELINES)
        main = runpy.run_path(str(PIPELINES / f"{name}.py"), run_name=name)["main"]
        main([str(each) for each in arguments])
        return capsys.readouterr().out

    return run


def percentages(printed, after="balanced accuracy"):
    return [float(each) for each in re.findall(rf"{after} ([\d.]+)%", printed)]


# --- what all of them are


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_is_valid(path):
    document = yaml.safe_load(path.read_text())
    jsonschema.Draft202012Validator(json_schema()).validate(document)
    config = vaeaug.load_config(path)
    made = config.model_dump(exclude_unset=True)
    assert {part: set(keys) for part, keys in made.items()} == {
        part: set(keys) for part, keys in document.items()
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_short_documented_and_public(path):
    text = path.read_text()
    assert path.with_suffix(".yaml").exists()
    assert len(text.splitlines()) <= 130
    tree = ast.parse(text)
    assert f"python pipelines/{path.name}" in ast.get_docstring(tree)
    bound = {"vaeaug"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            ours = [each.name for each in node.names if each.name.split(".")[0] == "vaeaug"]
            assert set(ours) <= set(PUBLIC)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vaeaug":
            assert node.module in PUBLIC
            assert not [each.name for each in node.names if each.name.startswith("_")]
    for node in ast.walk(tree):
        # vaeaug.name: one that the package lists.
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id not in bound or node.attr in {*vaeaug.__all__, "transforms"}


def test_the_page_names_every_recipe():
    page = (PIPELINES / "README.md").read_text()
    assert set(re.findall(r"`(\w+)\.py`", page)) == {path.stem for path in RECIPES} | {"classifier"}


# --- each of them


def balanced(run, tmp_path, *arguments):
    small = [f"--set={key}" for key in TINY]
    return run("balance_rare_classes", "--out", tmp_path / "run", *small, *arguments)


@pytest.mark.fashion_mnist
def test_balance_rare_classes_on_fashion_mnist(run, tmp_path):
    if not FASHION.exists():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    counts = [60, 40, 30, 30, 20, 20, 16, 12, 10, 8]
    printed = balanced(run, tmp_path, "--steps", 4, "--counts", *counts)
    assert len(percentages(printed)) == 2
    assert vaeaug.verify(tmp_path / "run").ok


def test_balance_rare_classes_on_digits(run, tmp_path):
    printed = balanced(
        run, tmp_path, "--steps", 40, "--data", "digits", "--counts", *COUNTS, "--share", "0.2"
    )
    lines = printed.splitlines()
    assert sorted(int(line.split()[1]) for line in lines[:10]) == sorted(COUNTS)
    made = {line.split(":")[0].strip(): int(line.split()[3]) for line in lines[:10]}
    shards = vaeaug.ShardDataset(tmp_path / "run")
    assert made == dict(zip(shards.class_names, np.bincount(shards.labels), strict=True))
    assert min(made.values()) > 0
    assert [line.split(":")[0].strip() for line in lines[10:12]] == ["real", "merged"]
    assert min(percentages(printed)) > 20  # by chance 10
    gain = np.diff(percentages(printed))[0]
    assert f"by {gain:+.2f}"[:6] in lines[12]


def test_batch_generate(run, tmp_path):
    formats = ["npz", "imagefolder", "webdataset"]
    command = ["--out", tmp_path, *SMALL, "--formats", *formats]
    run("batch_generate", *command, "--seeds", 3, 4)
    shards = {seed: vaeaug.ShardDataset(tmp_path / f"seed-{seed}") for seed in (3, 4)}
    first, second = (each.images_at(range(len(each))) for each in shards.values())
    assert not np.array_equal(first, second)
    for seed, own in shards.items():
        assert vaeaug.verify(tmp_path / f"seed-{seed}").ok
        expected = sorted(image.tobytes() for image in own.images_at(range(len(own))))
        for path in (f"npz-{seed}.npz", f"imagefolder-{seed}", f"webdataset-{seed}.tar"):
            back = vaeaug.read(tmp_path / path)
            assert sorted(image.tobytes() for image in back.images) == expected
            assert np.array_equal(back.counts, np.bincount(own.labels))
    merged = np.load(tmp_path / "merged.npz", allow_pickle=False)
    assert (~merged["is_synthetic"]).sum() == len(COUNTS) * max(COUNTS)
    share = merged["is_synthetic"].sum() / len(merged["is_synthetic"])
    assert abs(share - 0.2) < 0.02
    made = np.bincount(merged["labels"][merged["is_synthetic"]])
    assert np.array_equal(made, np.full(len(COUNTS), round(0.2 * max(COUNTS) / 0.8)))

    # A generator from its folder gives the same dataset of the same seed.
    again = ["--out", tmp_path / "again", *SMALL, "--formats", "npz", "--seeds", 4]
    run("batch_generate", *again, "--generator", tmp_path / "generator")
    other = vaeaug.ShardDataset(tmp_path / "again" / "seed-4")
    assert np.array_equal(other.images_at(range(len(other))), second)


def test_torchvision_loader(run, tmp_path):
    printed = run(
        "torchvision_loader",
        "--out",
        tmp_path,
        *SMALL,
        "--steps",
        20,
        "--share",
        0.1,
        "--workers",
        0,
    )
    found = percentages(printed)
    assert len(found) == 4
    assert min(found) > 15  # by chance 10
    assert f"{sum(COUNTS)} training images, {COUNTS}" in printed
    assert vaeaug.load(tmp_path).image_shape == (8, 8, 1)


def test_albumentations_loader(run, tmp_path):
    import albumentations as A

    printed = run("albumentations_loader", "--out", tmp_path, *SMALL, "--steps", 40, "--workers", 2)
    found = percentages(printed)
    assert len(found) == 2
    assert min(found) > 20
    # The file holds the chain: of class 3 it gives samples of class 3 as often as it says.
    pool = vaeaug.ShardDataset(tmp_path / "run")
    assert f"{sum(COUNTS)} real images, {len(pool)} synthetic" in printed
    first = A.load(tmp_path / "merged.json").transforms[0]
    own = {image.tobytes() for image in pool.images_at(np.flatnonzero(pool.labels == 3))}
    blank = np.zeros((8, 8, 1), np.uint8)
    drawn = [first(image=blank, label=3)["image"] for _ in range(400)]
    made = [each for each in drawn if each.any()]
    assert {each.tobytes() for each in made} <= own
    assert abs(len(made) / 400 - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 400)


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
@pytest.mark.filterwarnings("ignore::FutureWarning:lightning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec")
def test_lightning_training(run, tmp_path):
    pytest.importorskip("lightning.pytorch")
    printed = run("lightning_training", "--out", tmp_path, *SMALL, "--epochs", 12)
    found = percentages(printed)
    assert len(found) == 2
    assert min(found) > 20
    steps = re.findall(r"(\w+): (\d+) steps, (\d+)% synthetic", printed)
    (merged, n, share), (real, n_real, none) = steps
    assert (merged, real, n, none) == ("merged", "real", n_real, "0")
    # Of 12 epochs the last two, a fifth, are real alone.
    assert abs(int(share) - 25) <= 2
    shards = vaeaug.ShardDataset(tmp_path / "run")
    soft = shards.soft_labels_at(np.arange(len(shards)))
    assert ((soft > 0) & (soft < 1)).any()
    assert (soft[np.arange(len(soft)), shards.labels] >= 0.5 - 1e-5).all()


def test_semi_supervised(run, tmp_path):
    digits = vaeaug.read("digits").imbalanced([40] * 10, seed=0)
    np.savez(tmp_path / "digits.npz", images=digits.images, labels=digits.labels)
    small = ["--data", tmp_path / "digits.npz", *[f"--set={key}" for key in TINY]]
    small += ["--set=semi_supervised.threshold=0.3", "--set=semi_supervised.classifier_steps=20"]
    printed = run("semi_supervised", "--out", tmp_path / "a", *small, "--steps", 30, "--labels", 9)
    labelled, pool, held_out = map(int, re.findall(r"\d+", printed.splitlines()[0]))
    assert labelled == 90
    assert labelled + pool + held_out == 400
    found = percentages(printed)
    assert len(found) == 3
    assert min(found) > 20
    generator = vaeaug.load(tmp_path / "a" / "with-pool")
    assert len(generator.labels) == labelled + pool
    assert f"{(generator.labels[labelled:] >= 0).sum()} of {pool} pool images" in printed
    assert len(vaeaug.load(tmp_path / "a" / "without-pool").labels) == labelled


def test_semi_supervised_on_a_pool_of_files(run, tmp_path):
    digits = vaeaug.read("digits").imbalanced([20] * 10, seed=0)
    np.savez(tmp_path / "labelled.npz", images=digits.images, labels=digits.labels)
    np.save(tmp_path / "pool.npy", digits.images[:50])
    small = [f"--set={key}" for key in [*TINY, "semi_supervised.classifier_steps=4"]]
    files = ["--data", tmp_path / "labelled.npz", "--pool", tmp_path / "pool.npy"]
    printed = run("semi_supervised", "--out", tmp_path / "run", *files, *small, "--steps", 4)
    assert printed.startswith("140 labelled images, 50 without, 60 held out")


def test_signals_1d(run, tmp_path):
    printed = run("signals_1d", "--out", tmp_path, *SMALL, "--steps", 40)
    found = percentages(printed)
    assert len(found) == 2
    assert min(found) > 20
    shards = vaeaug.ShardDataset(tmp_path)
    assert shards.images_at([0]).shape == (1, 64, 1)
    made = dict(zip(shards.class_names, np.bincount(shards.labels), strict=True))
    for name, real in zip(shards.class_names, COUNTS, strict=True):
        assert f"{name:>6}: {real:4} real, {made[name]:4} synthetic" in printed


def test_the_scanned_digits_are_the_digits(run, monkeypatch):
    monkeypatch.syspath_prepend(PIPELINES)
    recipe = runpy.run_path(str(PIPELINES / "signals_1d.py"), run_name="signals_1d")
    signals, digits = recipe["scanned_digits"]("test"), vaeaug.read("digits", split="test")
    assert signals.layout == "NLC"
    back = signals.images.reshape(-1, 8, 8).copy()
    back[:, 1::2] = back[:, 1::2, ::-1]
    assert np.array_equal(back, digits.images[..., 0])
    assert np.array_equal(signals.labels, digits.labels)


def test_signals_1d_of_a_file(run, tmp_path):
    """Float signals of any range, the classes told apart by their frequency."""
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, 40)
    labels = np.arange(60) % 2
    phase = rng.uniform(0, 6, (60, 1))
    signals = 3 * np.sin(2 * np.pi * (2 + 4 * labels[:, None]) * t + phase)
    signals = (signals + 0.1 * rng.standard_normal(signals.shape)).astype(np.float32)
    parts = {"x_train": signals[:40], "y_train": labels[:40]}
    np.savez(tmp_path / "waves.npz", **parts, x_test=signals[40:], y_test=labels[40:])
    small = [f"--set={key}" for key in [*TINY, "data.class_counts=null"]]
    out = ["--data", tmp_path / "waves.npz", "--out", tmp_path / "run"]
    printed = run("signals_1d", *out, *small, "--steps", 30)
    assert "40 signals of 40x1 float32, 2 classes" in printed
    assert min(percentages(printed)) > 70
    assert vaeaug.ShardDataset(tmp_path / "run").images_at([0]).dtype == np.float32


def test_embeddings(run, tmp_path):
    small = [f"--set={key}" for key in TINY if not key.startswith("model.")]
    counts = [40, 40, 40, 40, 40, 10, 10, 10, 10, 10]
    command = ["--out", tmp_path, *small, f"--set=data.class_counts={counts}"]
    printed = run("embeddings", *command, "--steps", 60, "--views", 2)
    real, merged = (percentages(printed, after=f"{name}: balanced accuracy")[0] for name in KINDS)
    assert min(real, merged) > 40  # by chance 10
    assert f"{sum(counts)} images of {counts}" in printed
    embedded = vaeaug.read(tmp_path / "train.h5")
    assert embedded.image_shape == (1, 256)
    assert len(embedded) == 2 * sum(counts)
    shards = vaeaug.ShardDataset(tmp_path / "run")
    assert np.array_equal(embedded.labels[shards.source_index], shards.labels)


def test_few_shot_classes(run, tmp_path):
    small = [f"--set={key}" for key in TINY]
    counts = [40, 40, 40, 40, 40, 5, 5, 5, 5, 5]
    command = ["--out", tmp_path, *small, f"--set=data.class_counts={counts}"]
    printed = run("few_shot_classes", *command, "--steps", 40)
    rows = {line.split(":")[0]: line for line in printed.splitlines() if "rare classes" in line}
    assert list(rows) == ["real", "real, a new head", "merged", "merged, a new head"]
    found = {name: percentages(line) for name, line in rows.items()}
    for kind in KINDS:
        assert found[f"{kind}, a new head"][0] > found[kind][0] > 40  # by chance 10
    features = vaeaug.read(tmp_path / "merged" / "features.h5")
    drawn = vaeaug.read(tmp_path / "merged.h5")
    assert len(features) == 5 * len(drawn) > 5 * sum(counts)
    assert vaeaug.verify(tmp_path / "images").ok


KINDS = ("real", "merged")
