"""Samples for other programs: each format is read by its own library and back by `vaeaug.read`."""

import ast
import contextlib
import csv
import dataclasses
import errno
import gc
import json
import os
import resource
import sys
import tarfile
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import numpy as np
import pytest
import torchvision
from click.testing import CliRunner

import vaeaug
from tests.shards.example_run import make_run
from vaeaug.cli import main
from vaeaug.export._as_imagefolder import folder_names
from vaeaug.files import claim_target

datasets = pytest.importorskip("datasets")
webdataset = pytest.importorskip("webdataset")
datasets.disable_progress_bars()

FORMATS = {
    "npz": "out.npz",
    "webdataset": "out.tar",
    "webdataset folder": "shards",
    "imagefolder": "tree",
    "huggingface": "arrow",
}
PICKY = ("T-shirt/top", "..", ".hidden", "CON", "a", "A", "çat\u0327", "train", 'q"u,o', "tail.")
LAYOUTS = {"NHWC": (4, 3, 2), "NLC": (6, 2), "NDHWC": (2, 3, 2, 1)}

pytestmark = pytest.mark.filterwarnings("ignore:no synthetic samples of the classes:UserWarning")


def export(run, folder, name, **options):
    """Write a format under its usual name; returns the path."""
    to = folder / FORMATS[name]
    return vaeaug.export_dataset(run, to, format=name.split()[0], **options).path


def tar_members(path):
    with tarfile.open(path) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]


def in_order(path):
    """The rows of a WebDataset export, which is in a random order."""
    shards = [path] if path.suffix == ".tar" else sorted(path.glob("*.tar"))
    return [int(name[:-4]) for each in shards for name, _ in tar_members(each) if ".cls" in name]


def contents(path):
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.read_bytes()
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def quietly(load, *args, **options):
    """What a library loads that leaves files open, which it warns of when they are collected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loaded = load(*args, **options)
        gc.collect()
    return loaded


# -- Round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_finished_run_comes_back_exactly(finished, tmp_path, name):
    synthetic = vaeaug.ShardDataset(finished.out_dir)
    path = export(finished.out_dir, tmp_path, name)
    back = vaeaug.read(path, class_names=None)
    rows = in_order(path) if "webdataset" in name else np.arange(len(synthetic))
    assert sorted(rows) == list(range(len(synthetic)))
    np.testing.assert_array_equal(back.images, synthetic.images_at(rows))
    np.testing.assert_array_equal(back.labels, synthetic.labels[rows])
    assert back.class_names == synthetic.class_names
    assert back.value_range == synthetic.value_range
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", FORMATS)
def test_real_and_synthetic_come_back_as_they_are_merged(finished, digits, tmp_path, name):
    merged = vaeaug.merge(digits, finished.out_dir, 0.25, balance="classes", seed=3)
    path = export(
        finished.out_dir, tmp_path, name, real=digits, share=0.25, balance="classes", seed=3
    )
    back = vaeaug.read(path)
    rows = in_order(path) if "webdataset" in name else np.arange(len(merged))
    expected = np.stack([image.numpy() for image in merged.images_at(np.array(rows))])
    np.testing.assert_array_equal(np.moveaxis(back.images, -1, 1), expected)
    np.testing.assert_array_equal(back.labels, merged.labels[rows])
    assert back.class_names == digits.class_names


@pytest.mark.parametrize("name", ["npz", "webdataset", "webdataset folder", "huggingface"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_signals_volumes_floats_and_odd_channels(tmp_path, name, layout, dtype):
    run = tmp_path / "run"
    make_run(run, layout=layout, dtype=dtype, soft_labels=True)
    synthetic = vaeaug.ShardDataset(run)
    path = export(run, tmp_path, name)
    back = vaeaug.read(path)
    rows = in_order(path) if "webdataset" in name else np.arange(len(synthetic))
    np.testing.assert_array_equal(back.images, synthetic.images_at(rows))
    assert back.images.dtype == dtype
    assert back.layout == layout
    np.testing.assert_array_equal(back.labels, synthetic.labels[rows])
    assert back.value_range == synthetic.value_range


@pytest.mark.parametrize("channels", [1, 3])
def test_clips_come_back_from_gifs(tmp_path, channels):
    run = tmp_path / "run"
    make_run(run, layout="NDHWC", shape=(3, 12, 10, channels))
    synthetic = vaeaug.ShardDataset(run)
    path = vaeaug.export_dataset(run, tmp_path / "clips", format="gif").path
    mode = "L" if channels == 1 else "RGB"
    back = vaeaug.read(path, frames=3, mode=mode)
    expected = synthetic.images_at(np.arange(len(synthetic)))
    assert back.images.shape == expected.shape
    np.testing.assert_array_equal(back.labels, synthetic.labels)
    if channels == 1:
        np.testing.assert_array_equal(back.images, expected)
    assert f'frames=3, mode="{mode}"' in (path / "README.md").read_text()


@pytest.mark.parametrize(("layout", "dtype"), [("NHWC", "uint8"), ("NDHWC", "float32")])
def test_what_a_gif_does_not_hold_is_refused(tmp_path, layout, dtype):
    make_run(tmp_path / "run", layout=layout, dtype=dtype)
    with pytest.raises(vaeaug.export.ExportError, match="gif: expected clips or volumes"):
        vaeaug.export_dataset(tmp_path / "run", tmp_path / "clips", format="gif")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", FORMATS)
def test_pictures_of_every_kind_are_kept_exactly(tmp_path, name, channels):
    make_run(tmp_path / "run", shape=(5, 4, channels))
    synthetic = vaeaug.ShardDataset(tmp_path / "run")
    path = export(tmp_path / "run", tmp_path, name)
    back = vaeaug.read(path, alpha="keep")
    rows = in_order(path) if "webdataset" in name else np.arange(len(synthetic))
    np.testing.assert_array_equal(back.images, synthetic.images_at(rows))


@pytest.mark.parametrize("name", FORMATS)
def test_any_class_name_and_empty_classes_survive(tmp_path, name):
    counts = (3, 2, 0, 4, 1, 2, 3, 1, 2, 2)
    make_run(tmp_path / "run", class_names=PICKY, counts=counts, shape=(4, 3, 1))
    home = tmp_path / "home"
    home.mkdir()
    before = sorted(tmp_path.iterdir())
    back = vaeaug.read(export(tmp_path / "run", home, name))
    assert back.class_names == PICKY
    assert back.counts.tolist() == list(counts)
    assert sorted(tmp_path.iterdir()) == before
    assert len(list(home.iterdir())) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_samples_give_the_same_bytes(finished, digits, tmp_path, name):
    options = {"real": digits, "share": 0.2, "seed": 1}
    one = contents(export(finished.out_dir, tmp_path, name, **options))
    again = contents(export(finished.out_dir, tmp_path, name, overwrite=True, **options))
    assert one == again
    assert len(one) > 1


# -- What each sample carries, as the libraries themselves read it -------------------------------


def expected_columns(run):
    data = vaeaug.ShardDataset(run)
    n = np.arange(len(data))
    return {
        "label": data.labels.tolist(),
        "is_synthetic": [True] * len(data),
        "source_index": data.source_index.tolist(),
        "weight": data.weight.tolist(),
        "soft_label": data.soft_labels_at(n).tolist(),
        "class_name": [data.class_names[label] for label in data.labels],
    }


def assert_same_origin(found, run):
    manifest = vaeaug.Manifest.load(run)
    for key in ("data_fingerprint", "model_sha256", "config_sha256", "run_seed"):
        assert found[key] == getattr(manifest, key), key
    assert found["vaeaug_version"] == manifest.versions["vaeaug"]


@pytest.fixture
def soft_run(tmp_path):
    make_run(tmp_path / "run", soft_labels=True, shape=(5, 4, 3))
    return tmp_path / "run"


def test_numpy_reads_the_npz_without_pickle(soft_run, tmp_path):
    data, columns = vaeaug.ShardDataset(soft_run), expected_columns(soft_run)
    with np.load(export(soft_run, tmp_path, "npz"), allow_pickle=False) as found:
        np.testing.assert_array_equal(found["images"], data.images_at(np.arange(len(data))))
        for name in ("is_synthetic", "source_index", "weight"):
            assert found[name].tolist() == columns[name]
        assert found["labels"].tolist() == columns["label"]
        assert found["soft_labels"].tolist() == columns["soft_label"]
        assert tuple(found["class_names"]) == data.class_names
        document = json.loads(str(found["provenance"]))
    assert_same_origin(document, soft_run)
    assert document["n_synthetic"] == document["n"] == len(data)
    assert document["evaluation"] == "not evaluated"


def test_webdataset_reads_the_archives(soft_run, tmp_path):
    data, columns = vaeaug.ShardDataset(soft_run), expected_columns(soft_run)
    path = export(soft_run, tmp_path, "webdataset")
    found = quietly(list, webdataset.WebDataset(str(path), shardshuffle=False).decode("rgb8"))
    assert len(found) == len(data)
    rows = [int(sample["__key__"]) for sample in found]
    assert rows != sorted(rows)
    for row, sample in zip(rows, found, strict=True):
        np.testing.assert_array_equal(sample["png"], data.images_at([row])[0])
        document = sample["json"]
        assert sample["cls"] == document["label"] == columns["label"][row]
        for name in ("is_synthetic", "source_index", "class_name"):
            assert document[name] == columns[name][row]
        assert np.float32(document["weight"]) == np.float32(columns["weight"][row])
        np.testing.assert_array_equal(
            np.float32(document["soft_label"]), np.float32(columns["soft_label"][row])
        )
        assert_same_origin(document["provenance"], soft_run)
    assert {key for sample in found for key in sample if not key.startswith("__")} == {
        "png",
        "cls",
        "json",
    }


def test_archives_of_a_size_hold_every_sample_once(finished, tmp_path):
    whole = export(finished.out_dir, tmp_path, "webdataset")
    parts = export(finished.out_dir, tmp_path, "webdataset folder", shard_bytes=100_000)
    shards = sorted(parts.glob("*.tar"))
    assert len(shards) > 2
    assert [each.name for each in shards[:2]] == ["shard-000000.tar", "shard-000001.tar"]
    assert all(each.stat().st_size < 120_000 for each in shards)
    assert [m for shard in shards for m in tar_members(shard)] == tar_members(whole)
    braces = f"{parts}/shard-{{000000..{len(shards) - 1:06d}}}.tar"
    assert vaeaug.read(braces).fingerprint == vaeaug.read(whole).fingerprint
    # Not sorted by class: the first tenth has most classes.
    assert len(set(vaeaug.read(whole).labels[: len(in_order(whole)) // 10])) > 5


def test_torchvision_reads_the_class_folders(finished, tmp_path):
    data = vaeaug.ShardDataset(finished.out_dir)
    path = export(finished.out_dir, tmp_path, "imagefolder")
    found = torchvision.datasets.ImageFolder(path)
    assert tuple(found.classes) == data.class_names  # digits are sorted and safe as they are
    assert len(found) == len(data)
    for file, label in found.samples:
        assert label == data.labels[int(Path(file).stem)]
    image, label = found[len(found) // 2]
    row = int(Path(found.samples[len(found) // 2][0]).stem)
    np.testing.assert_array_equal(np.asarray(image.convert("L")), data.images_at([row])[0, ..., 0])


def test_numbered_folders_keep_the_order_of_the_labels_for_torchvision(tmp_path):
    make_run(tmp_path / "run", class_names=("zebra", "T-shirt/top", "test_tube"), shape=(4, 3, 3))
    data = vaeaug.ShardDataset(tmp_path / "run")
    path = export(tmp_path / "run", tmp_path, "imagefolder")
    found = torchvision.datasets.ImageFolder(path)
    assert found.classes == ["0_zebra", "1_T-shirt_top", "2_test_tube"]
    assert found.targets == data.labels.tolist()
    classes = json.loads((path / "classes.json").read_text())
    assert classes["class_names"] == list(data.class_names)
    assert classes["folders"] == {name: label for label, name in enumerate(found.classes)}
    # The library of Hugging Face would take "test_tube" for the test split, but for the card.
    cache = str(tmp_path / "cache")
    theirs = quietly(datasets.load_dataset, str(path), cache_dir=cache)
    assert {split: len(part) for split, part in theirs.items()} == {"train": len(data)}
    assert theirs["train"]["label"][:] == data.labels.tolist()


def test_hugging_face_reads_the_image_folder_with_its_columns(soft_run, tmp_path):
    data, columns = vaeaug.ShardDataset(soft_run), expected_columns(soft_run)
    path = export(soft_run, tmp_path, "imagefolder")
    cache = str(tmp_path / "cache")
    found = quietly(
        datasets.load_dataset, "imagefolder", data_dir=str(path), split="train", cache_dir=cache
    )
    for name in ("label", "is_synthetic", "source_index", "class_name"):
        assert found[name][:] == columns[name], name
    assert np.float32(found["weight"][:]).tolist() == columns["weight"]
    soft = [np.float32(ast.literal_eval(text)).tolist() for text in found["soft_label"][:]]
    assert soft == columns["soft_label"]
    images = np.stack([np.asarray(image) for image in found["image"][:]])
    np.testing.assert_array_equal(images, data.images_at(np.arange(len(data))))
    with open(path / "metadata.csv", newline="", encoding="utf-8") as file:
        assert next(csv.reader(file))[:3] == ["file_name", "label", "class_name"]
    assert_same_origin(json.loads((path / "provenance.json").read_text()), soft_run)
    assert "synthetic" in (path / "README.md").read_text()


def test_hugging_face_loads_the_saved_folder(soft_run, tmp_path):
    data, columns = vaeaug.ShardDataset(soft_run), expected_columns(soft_run)
    path = export(soft_run, tmp_path, "huggingface")
    found = datasets.load_from_disk(str(path))
    assert isinstance(found, datasets.Dataset)
    assert found.split == "train"
    assert tuple(found.features["label"].names) == data.class_names
    for name in ("label", "is_synthetic", "source_index", "weight", "soft_label"):
        assert found[name][:] == columns[name], name
    images = np.stack([np.asarray(image) for image in found["image"][:]])
    np.testing.assert_array_equal(images, data.images_at(np.arange(len(data))))
    manifest = vaeaug.Manifest.load(soft_run)
    assert manifest.data_fingerprint in found.info.description
    assert_same_origin(json.loads((path / "provenance.json").read_text()), soft_run)
    # It is as any other: it goes through `map`, and is saved by the library itself.
    found.map(lambda row: {"twice": 2 * row["label"]}).save_to_disk(tmp_path / "more")
    assert vaeaug.read(tmp_path / "more").class_names == data.class_names


def test_arrays_are_arrays_in_a_saved_folder(tmp_path):
    make_run(tmp_path / "run", layout="NLC", dtype="float32")
    data = vaeaug.ShardDataset(tmp_path / "run")
    found = datasets.load_from_disk(str(export(tmp_path / "run", tmp_path, "huggingface")))
    assert found.features["image"] == datasets.Array2D(shape=(6, 2), dtype="float32")
    np.testing.assert_array_equal(
        found.with_format("numpy")["image"][:], data.images_at(np.arange(len(data)))
    )


def test_where_merged_samples_come_from(finished, digits, tmp_path):
    """Real rows are found in the real data, synthetic ones name the image behind them."""
    synthetic = vaeaug.ShardDataset(finished.out_dir)
    path = export(finished.out_dir, tmp_path, "npz", real=digits, share=0.3)
    with np.load(path, allow_pickle=False) as found:
        real = ~found["is_synthetic"]
        index = found["source_index"]
        np.testing.assert_array_equal(found["images"][real], digits.images[index[real]])
        np.testing.assert_array_equal(found["labels"][real], digits.labels[index[real]])
        made = {
            synthetic.images_at([i])[0].tobytes(): int(s)
            for i, s in enumerate(synthetic.source_index)
        }
        for image, source in zip(found["images"][~real], index[~real], strict=True):
            assert made[image.tobytes()] == source
    assert 0.25 < 1 - real.mean() < 0.35


def test_merged_labels_follow_the_real_data(finished, digits, tmp_path):
    """Classes in another order: labels, names and class probabilities are those of the real."""
    order = list(range(10))[::-1]
    turned = vaeaug.LabelledImages(
        images=digits.images,
        labels=np.array([order.index(label) for label in digits.labels]),
        class_names=tuple(digits.class_names[label] for label in order),
        value_range=digits.value_range,
    )
    path = export(finished.out_dir, tmp_path, "npz", real=turned, share="all", on_mismatch="ignore")
    back = vaeaug.read(path)
    assert back.class_names == turned.class_names
    synthetic = vaeaug.ShardDataset(finished.out_dir)
    expected = turned.counts + np.bincount(synthetic.labels, minlength=10)[::-1]
    assert back.counts.tolist() == expected.tolist()


# -- Names of folders -----------------------------------------------------------------------------


def test_class_names_are_folders_where_they_can_be():
    assert folder_names(("ant", "bee", "çat")) == ("ant", "bee", "çat")
    assert folder_names(("0", "1", "2")) == ("0", "1", "2")


@pytest.mark.parametrize(
    "names",
    [
        ("bee", "ant"),
        ("..", "ant"),
        (".ant", "bee"),
        ("a/b", "c"),
        ("a\\b", "c"),
        ("A", "a"),
        ("NUL", "ant"),
        ("com1.txt", "x"),
        ("ant", "bee."),
        ("ant", "bee "),
        ("ant", "be\ne"),
        ("ant", "c\u0327at"),
        ("ant", "x" * 101),
        ("ant", "test"),
        ("", "ant"),
    ],
)
def test_other_class_names_are_numbered(names):
    folders = folder_names(names)
    assert [name[0] for name in folders] == ["0", "1"]
    for name in folders:
        assert name.isascii()
        assert not set(name) & set('<>:"/\\|?*. ')
        assert len(name) < 60
    assert list(folders) == sorted(folders)
    assert len({name.casefold() for name in folders}) == 2


# -- Whole or not at all --------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_there_is_kept_unless_told(finished, tmp_path, name):
    path = export(finished.out_dir, tmp_path, name)
    before = contents(path)
    with pytest.raises(
        vaeaug.ExportError, match=r"expected no such file or folder \(or overwrite\)"
    ):
        export(finished.out_dir, tmp_path, name)
    assert contents(path) == before
    make_run(tmp_path / "other", shape=(3, 3, 1))
    export(tmp_path / "other", tmp_path, name, overwrite=True)
    assert contents(path) != before
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([path.name, "other"])


@pytest.mark.parametrize("name", FORMATS)
def test_the_second_writer_is_refused_and_leftovers_are_cleaned(finished, tmp_path, name):
    path = export(finished.out_dir, tmp_path, name)
    before = contents(path)
    with (
        claim_target(path),
        pytest.raises(vaeaug.ExportError, match="another process is writing it; wait for it"),
    ):
        export(finished.out_dir, tmp_path, name, overwrite=True)
    assert contents(path) == before
    left = path.with_name(f".{path.name}.0123456789abcdef.tmp")
    left.mkdir()
    (left / "half").touch()
    export(finished.out_dir, tmp_path, name, overwrite=True)
    assert contents(path) == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_folder_of_something_else_is_never_replaced(finished, tmp_path):
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.tex").write_text("long work")
    for name in ("webdataset", "imagefolder", "huggingface"):
        with pytest.raises(vaeaug.ExportError, match="which is not replaced; remove it yourself"):
            vaeaug.export_dataset(finished.out_dir, precious, format=name, overwrite=True)
        with pytest.raises(vaeaug.ExportError, match="which is not replaced"):
            vaeaug.export_dataset(finished.out_dir, finished.out_dir, format=name, overwrite=True)
    assert (precious / "chapter.tex").read_text() == "long work"
    assert vaeaug.verify(finished.out_dir).ok


@pytest.mark.parametrize("name", FORMATS)
def test_after_a_failure_nothing_is_there_and_the_old_one_is(finished, digits, tmp_path, name):
    """A real dataset that fails in its last image: the disk is as it was before."""

    class Breaks:
        def __init__(self):
            self.classes = list(digits.class_names)
            self.targets = digits.labels.tolist()

        def __len__(self):
            return len(digits)

        def __getitem__(self, i):
            if i == len(digits) - 1:
                raise OSError(5, "Input/output error")
            return digits.images[i], int(digits.labels[i])

    with pytest.raises(vaeaug.ExportError, match=r"cannot be read: .*Input/output"):
        export(finished.out_dir, tmp_path, name, real=Breaks(), share="all")
    assert list(tmp_path.iterdir()) == []
    path = export(finished.out_dir, tmp_path, name)
    before = contents(path)
    with pytest.raises(vaeaug.ExportError, match=r"cannot be read: .*Input/output"):
        export(finished.out_dir, tmp_path, name, real=Breaks(), share="all", overwrite=True)
    assert contents(path) == before
    assert list(tmp_path.iterdir()) == [path]


@contextlib.contextmanager
def largest_file(n_bytes):
    """The system refuses to make a file larger, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_leaves_nothing_and_says_what_was_needed(finished, tmp_path, name):
    path = tmp_path / FORMATS[name]
    with largest_file(4000), pytest.raises(vaeaug.ShardError) as caught:
        export(finished.out_dir, tmp_path, name)
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be written: File too large. It needs ")
    assert "the run folder is unchanged" in message
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_is_not_exported(tmp_path):
    make_run(tmp_path / "run", shape=(4, 3, 1))
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(vaeaug.ShardError, match="no manifest: the run has not finished"):
        export(tmp_path / "run", tmp_path, "npz")


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("out", {}, r"expected a path that ends in \.npz or \.tar, or format="),
        (
            "out",
            {"format": "zip"},
            "format: expected one of npz, webdataset, imagefolder, gif, hugg",
        ),
        ("out.tar", {"format": "npz"}, r"expected a file \.npz for the format npz, got"),
        ("out", {"format": "npz"}, r"expected a file \.npz for the format npz, got"),
        ("out.npz", {"format": "imagefolder"}, "expected a folder for the format imagefolder"),
        ("out.npz", {"share": 0.3}, "share: expected real= with it"),
        ("out.npz", {"balance": "classes"}, "balance: expected real= with it"),
        ("no/out.npz", {}, "expected a folder .*no to write it in, got none"),
        ("shards", {"format": "webdataset", "shard_bytes": 0}, "shard_bytes: expected at least 1"),
    ],
)
def test_bad_requests_say_what_was_expected(finished, tmp_path, to, options, message):
    with pytest.raises(vaeaug.ExportError, match=message):
        vaeaug.export_dataset(finished.out_dir, tmp_path / to, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_image_folder_refuses_what_png_cannot_keep(tmp_path):
    make_run(tmp_path / "run", layout="NLC")
    with pytest.raises(vaeaug.ExportError, match=r"got uint8 of shape .*; write npz, web"):
        export(tmp_path / "run", tmp_path, "imagefolder")


def test_without_the_library_it_says_what_to_install(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(vaeaug.ExportError, match=r"pip install 'vaeaug\[huggingface\]'"):
        export(finished.out_dir, tmp_path, "huggingface")
    monkeypatch.setitem(sys.modules, "webdataset", None)
    assert export(finished.out_dir, tmp_path, "webdataset").exists()  # writing needs none


def test_it_is_said_that_samples_do_not_help(tmp_path):
    manifest = make_run(tmp_path / "run", shape=(4, 3, 1))
    gate = {"verdict": "does not help", "sentence": "It costs 2 points."}
    dataclasses.replace(manifest, gate=gate).save(tmp_path / "run")
    with pytest.warns(UserWarning, match=r"the evaluation found: It costs 2 points\.") as said:
        path = export(tmp_path / "run", tmp_path, "imagefolder")
    assert len(said) == 1
    assert "does not help" in (path / "README.md").read_text()


# -- Command line ---------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)


def test_the_command_line_writes_samples(finished, tmp_path):
    n = len(vaeaug.ShardDataset(finished.out_dir))
    done = run("export", finished.out_dir, "--to", tmp_path / "a.npz", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    said = {"path": str(tmp_path / "a.npz"), "format": "npz", "n": n, "synthetic": n, "real": 0}
    assert {name: document[name] for name in said} == said
    folder = tmp_path / "tree"
    for _ in range(2):
        done = run("export", finished.out_dir, "--to", folder, "--format", "imagefolder")
    assert done.exit_code == 1
    assert "expected no such file or folder (or overwrite)" in done.stderr
    again = run(
        "export", finished.out_dir, "--to", folder, "--format", "imagefolder", "--overwrite"
    )
    assert again.exit_code == 0
    assert f"{n} samples: 0 real, {n} synthetic, 0 repeated" in again.stdout


def test_the_command_line_merges_and_still_writes_the_decoder(finished, digits, tmp_path):
    np.savez(
        tmp_path / "real.npz", images=digits.images, labels=digits.labels
    )  # names are 0..9, as the digits' own
    done = run(
        "export",
        finished.out_dir,
        "--to",
        tmp_path / "a.tar",
        "--real",
        tmp_path / "real.npz",
        "--share",
        "0.3",
        "--json",
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["real"] == len(digits)
    assert document["n"] == document["real"] + document["synthetic"] + document["repeated"]
    assert len(vaeaug.read(tmp_path / "a.tar")) == document["n"]
    done = run("export", finished.out_dir, "--to", tmp_path / "decoder.pt2")
    assert done.exit_code == 0
    assert (tmp_path / "decoder.pt2").exists()
    done = run("export", finished.out_dir, "--to", tmp_path / "d.pt2", "--format", "npz")
    assert done.exit_code == 2
    assert "writes the decoder: expected no other options" in done.stderr
