"""Hugging Face datasets and imagefolders, written by the library itself, offline."""

import gc
import json
import os
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import numpy as np
import pytest
from PIL import Image

import vaeaug
from vaeaug import DataError

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()

NAMES = ("çat", "a/dog", "..")


def pictures(n, seed=0, shape=(6, 5, 3)):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def table(n=9, *, label=None, names=NAMES, seed=0, split=None, image=None):
    """A dataset of n pictures in three classes."""
    return datasets.Dataset.from_dict(
        {
            "image": [Image.fromarray(pixels) for pixels in pictures(n, seed)],
            "label": [i % 3 for i in range(n)],
        },
        features=datasets.Features(
            {
                "image": image or datasets.Image(),
                "label": label or datasets.ClassLabel(names=list(names)),
            }
        ),
        split=split,
    )


def arrays(values, **more):
    """A dataset of arrays as Arrow keeps them."""
    rank = values.ndim - 1
    kind = {2: datasets.Array2D, 3: datasets.Array3D, 4: datasets.Array4D}[rank]
    features = {
        "x": kind(shape=values.shape[1:], dtype=str(values.dtype)),
        "label": datasets.Value("int64"),
    }
    rows = {"x": list(values), "label": [i % 2 for i in range(len(values))]}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features), **more)


def test_real_digits_come_through_unchanged(tmp_path):
    digits = vaeaug.read("digits")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(digits.class_names))}
    )
    rows = {"image": [x[..., 0] for x in digits.images], "label": digits.labels.tolist()}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    assert vaeaug.read(dataset).fingerprint == digits.fingerprint
    dataset.save_to_disk(tmp_path / "saved")
    assert vaeaug.read(tmp_path / "saved").fingerprint == digits.fingerprint


def test_images_labels_and_names_of_a_dataset():
    data = vaeaug.read(table())
    np.testing.assert_array_equal(data.images, pictures(9))
    assert data.labels.tolist() == [0, 1, 2] * 3
    assert data.class_names == NAMES
    assert data.images.dtype == np.uint8


def test_rows_are_those_selected_and_no_transform_runs():
    dataset = table().select([8, 0, 4])
    dataset.set_transform(lambda batch: {key: [0] * len(batch[key]) for key in batch})
    data = vaeaug.read(dataset)
    np.testing.assert_array_equal(data.images, pictures(9)[[8, 0, 4]])
    assert data.labels.tolist() == [2, 0, 1]


def test_columns_by_keys_and_by_their_types():
    renamed = table().rename_columns({"image": "scan", "label": "grade"})
    both = renamed.add_column("age", list(range(9)))
    data = vaeaug.read(both)
    assert data.class_names == NAMES
    byte_keys = vaeaug.read(both, keys={"images": "scan", "labels": "age"})
    assert byte_keys.n_classes == 9
    with pytest.raises(DataError, match=r"expected a column 'nose' \(from keys\), got scan, grade"):
        vaeaug.read(both, keys={"images": "nose", "labels": "age"})
    two = both.add_column("other", list(range(9))).cast_column(
        "other", datasets.ClassLabel(num_classes=9)
    )
    with pytest.raises(DataError, match=r"grade \(ClassLabel\).*other \(ClassLabel\).*keys="):
        vaeaug.read(two)


def test_text_labels_and_given_names():
    words = ["cat", "dog", "cow"] * 3
    dataset = table().remove_columns("label").add_column("target", words)
    assert vaeaug.read(dataset).class_names == ("cat", "cow", "dog")
    data = vaeaug.read(dataset, class_names=["dog", "cat", "cow", "yak"])
    assert data.class_names[int(data.labels[0])] == "cat"
    assert data.n_classes == 4


def test_minus_one_is_the_pool():
    dataset = table(6)
    unknown = dataset.map(lambda row, i: {"label": -1 if i > 3 else i % 3}, with_indices=True)
    data = vaeaug.read(unknown)
    assert (len(data), len(data.unlabelled)) == (4, 2)


def test_splits_of_a_dict_and_of_a_dataset(tmp_path):
    parts = datasets.DatasetDict(
        {"train": table(9), "validation": table(3, seed=1), "test": table(6, seed=2)}
    )
    parts.save_to_disk(tmp_path / "saved")
    for source in (parts, tmp_path / "saved"):
        for split, n, seed in (("train", 9, 0), ("val", 3, 1), ("test", 6, 2)):
            np.testing.assert_array_equal(
                vaeaug.read(source, split=split).images, pictures(n, seed)
            )
    with pytest.raises(DataError, match="split 'all' is only for data without splits"):
        vaeaug.read(parts, split="all")
    with pytest.raises(DataError, match="expected split 'train', got only the splits: test"):
        vaeaug.read(table(split="test"))
    with pytest.raises(DataError, match=r"expected a split named train.*got 'a'"):
        vaeaug.read(datasets.DatasetDict({"a": table()}))


def test_text_labels_of_a_split_are_numbered_by_the_training_split():
    def words(n, names):
        dataset = table(n).remove_columns("label")
        return dataset.add_column("label", [names[i % len(names)] for i in range(n)])

    parts = datasets.DatasetDict({"train": words(9, "abc"), "test": words(4, "cb")})
    data = vaeaug.read(parts, split="test")
    assert data.class_names == ("a", "b", "c")
    assert data.labels.tolist() == [2, 1, 2, 1]


@pytest.mark.parametrize("shape", [(16, 2), (5, 4, 3), (3, 4, 5, 2)], ids=["L", "HW", "DHW"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_arrays(shape, dtype, tmp_path):
    rng = np.random.default_rng(0)
    values = (rng.random((8, *shape)) * (1 if dtype == "float32" else 255)).astype(dtype)
    layout = {2: "NLC", 3: None, 4: None}[len(shape)]
    dataset = arrays(values)
    data = vaeaug.read(dataset, layout=layout)
    np.testing.assert_array_equal(data.images, values)
    assert data.images.dtype == values.dtype
    dataset.save_to_disk(tmp_path / "saved")
    np.testing.assert_array_equal(
        vaeaug.read(str(tmp_path / "saved"), layout=layout).images, values
    )


def test_plain_lists_are_arrays_if_they_are_equally_long():
    signals = np.random.default_rng(0).random((6, 12)).tolist()
    data = vaeaug.read(datasets.Dataset.from_dict({"signal": signals, "label": [0, 1] * 3}))
    np.testing.assert_array_equal(data.images[..., 0], np.array(signals, np.float32))
    signals[4] = signals[4][:7]
    ragged = datasets.Dataset.from_dict({"signal": signals, "label": [0, 1] * 3})
    with pytest.raises(DataError, match=r"expected arrays of one shape, got lengths \[7, 12\]"):
        vaeaug.read(ragged)


def test_multi_label_is_refused():
    dataset = table(3).remove_columns("label").add_column("label", [[0, 1], [1], [0]])
    with pytest.raises(DataError, match="multi-label and one-hot labels are not read"):
        vaeaug.read(dataset)


def test_a_missing_label_or_image_names_its_row():
    dataset = table(3).remove_columns("label").add_column("label", [0, None, 1])
    with pytest.raises(DataError, match="expected a label for each image, got none in row 1"):
        vaeaug.read(dataset)
    rows = {"image": [Image.new("L", (2, 2)), None], "label": [0, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    hollow = datasets.Dataset.from_dict(rows, features=features)
    with pytest.raises(DataError, match=r"\[image\]\[1\]: expected an image, got none"):
        vaeaug.read(hollow)


def test_a_stream_is_refused_with_the_way_out():
    with pytest.raises(DataError, match="got a streaming IterableDataset; load it without"):
        vaeaug.read(table().to_iterable_dataset())


def test_alpha_and_size_are_the_readers_own():
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    dataset = datasets.Dataset.from_dict(
        {"image": [clear, clear], "label": [0, 1]},
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=2)}
        ),
    )
    assert (vaeaug.read(dataset).images == 255).all()
    assert vaeaug.read(dataset, alpha="keep").image_shape == (4, 4, 4)
    assert vaeaug.read(dataset, alpha="drop").images[0, 0, 0].tolist() == [10, 20, 30]
    assert vaeaug.read(dataset, size=2).image_shape == (2, 2, 3)


def test_files_that_a_table_only_names(tmp_path):
    paths = []
    for i, pixels in enumerate(pictures(4)):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": paths, "label": [0, 1, 0, 1]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    np.testing.assert_array_equal(vaeaug.read(dataset).images, pictures(4))
    rows["image"] = ["https://example.org/a.png"] * 4
    remote = datasets.Dataset.from_dict(rows, features=features)
    with pytest.raises(DataError, match=r"only its place 'https://example\.org/a\.png', which is"):
        vaeaug.read(remote)


def test_a_saved_folder_names_no_file_outside(tmp_path):
    table().save_to_disk(tmp_path / "other")
    table().save_to_disk(tmp_path / "saved")
    state = json.loads((tmp_path / "saved" / "state.json").read_text())
    stolen = next((tmp_path / "other").glob("*.arrow")).name
    state["_data_files"] = [{"filename": f"../other/{stolen}"}]
    (tmp_path / "saved" / "state.json").write_text(json.dumps(state))
    assert len(datasets.load_from_disk(str(tmp_path / "saved"))) == 9  # the library follows it
    with pytest.raises(DataError, match=r"state\.json: expected the names of Arrow files in this"):
        vaeaug.read(tmp_path / "saved")


def test_a_damaged_saved_folder_is_named(tmp_path):
    table().save_to_disk(tmp_path / "saved")
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(DataError, match="saved: expected a dataset that save_to_disk wrote, got"):
        vaeaug.read(tmp_path / "saved")


def test_class_names_of_a_saved_folder_that_are_no_texts(tmp_path):
    table(names=("x", "y", "z")).save_to_disk(tmp_path / "saved")
    info = tmp_path / "saved" / "dataset_info.json"
    info.write_text(info.read_text().replace('"y"', "1.5"))
    # The library itself may refuse it, or take it for a name.
    with pytest.raises(DataError, match=r"save_to_disk wrote, got|class names as texts, got 1\.5"):
        vaeaug.read(tmp_path / "saved")


def test_without_the_library_it_says_what_to_install(monkeypatch, tmp_path):
    table().save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'vaeaug\[huggingface\]'"):
        vaeaug.read(tmp_path / "saved")


# -- Folders with a table of labels ---------------------------------------------------------------


def imagefolder(root, kind="csv", *, labels=(2, 0, 1, 0), folder="", extra=None):
    """Pictures with a metadata table, as Hugging Face's imagefolder has it."""
    rows = []
    for i, pixels in enumerate(pictures(len(labels))):
        name = f"{folder}{i}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
        rows.append({"file_name": name, "label": labels[i], **(extra[i] if extra else {})})
    write_table(root, rows, kind)
    return root


def write_table(root, rows, kind):
    frame = datasets.Dataset.from_list(rows)
    path = root / f"metadata.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        frame.to_json(path)
    else:
        frame.to_parquet(path)


def load_imagefolder(root, cache):
    # The library leaves the table open (5.2.0), which shows as a warning whenever it is collected.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loaded = datasets.load_dataset("imagefolder", data_dir=str(root), cache_dir=str(cache))
        gc.collect()
    return loaded


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_beside_the_images(tmp_path, kind):
    root = imagefolder(tmp_path / "data", kind)
    (root / "classes.json").write_text(json.dumps({"x": 0, "y": 1, "z": 2}))
    data = vaeaug.read(root)
    np.testing.assert_array_equal(data.images, pictures(4))
    assert data.labels.tolist() == [2, 0, 1, 0]
    assert data.class_names == ("x", "y", "z")
    # What the library itself makes of it.
    theirs = load_imagefolder(root, tmp_path / "cache")
    np.testing.assert_array_equal(vaeaug.read(theirs).images, data.images)
    assert vaeaug.read(theirs).labels.tolist() == data.labels.tolist()


def test_splits_by_folder_by_column_and_by_path(tmp_path):
    imagefolder(tmp_path / "a" / "train", labels=(0, 1, 2, 0))
    imagefolder(tmp_path / "a" / "test", labels=(1, 0))
    assert len(vaeaug.read(tmp_path / "a")) == 4
    assert vaeaug.read(tmp_path / "a", split="test").n_classes == 3
    split = [{"split": name} for name in ("train", "train", "validation", "validation")]
    imagefolder(tmp_path / "b", labels=("u", "v", "v", "u"), extra=split)
    assert vaeaug.read(tmp_path / "b", split="val").labels.tolist() == [1, 0]
    imagefolder(tmp_path / "c", labels=("u", "v"), folder="test/")
    with pytest.raises(DataError, match="expected split 'train', got only the splits: test"):
        vaeaug.read(tmp_path / "c")


def test_a_table_without_labels_leaves_class_folders_as_they_were(tmp_path):
    root = tmp_path / "data"
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        Image.fromarray(pictures(1)[0]).save(root / name / "0.png")
    write_table(root, [{"file_name": "ant/0.png", "text": "an ant"}], "csv")
    assert vaeaug.read(root).class_names == ("ant", "bee")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../x.png", "file://x.png"])
def test_a_table_names_no_file_outside(tmp_path, name):
    root = imagefolder(tmp_path / "data")
    write_table(
        root, [{"file_name": name, "label": 0}, {"file_name": "1.png", "label": 1}], "jsonl"
    )
    (root / "metadata.csv").unlink()
    with pytest.raises(DataError, match="row 1: expected file_name as a path inside"):
        vaeaug.read(root)


def test_bad_rows_are_named(tmp_path):
    root = imagefolder(tmp_path / "data", "jsonl")
    rows = [{"file_name": "0.png", "label": 0}, {"file_name": "9.png", "label": 1}]
    write_table(root, rows, "jsonl")
    with pytest.raises(DataError, match=r"row 2: expected an image file, got no .*9\.png"):
        vaeaug.read(root)
    (root / "metadata.jsonl").write_text('{"file_name": "0.png", "label": [0, 1]}\n')
    with pytest.raises(DataError, match=r"row 1: expected one label, got \[0, 1\]; multi-label"):
        vaeaug.read(root)
    (root / "metadata.jsonl").write_text('{"file_name": "0.png", "label": 0}\nnothing\n')
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 2: expected JSON"):
        vaeaug.read(root)
    (root / "metadata.csv").write_text("file_name,label\n0.png,0\n")
    with pytest.raises(DataError, match=r"expected one of metadata\.csv, .* got metadata\.csv, me"):
        vaeaug.read(root)


def test_a_table_of_no_rows_is_named(tmp_path):
    root = imagefolder(tmp_path / "data")
    (root / "metadata.csv").write_text("file_name,label\n")
    with pytest.raises(DataError, match=r"metadata\.csv: expected at least one row, got none"):
        vaeaug.read(root)
    (root / "metadata.csv").write_text("file_name,label\n0.png,0,1\n")
    with pytest.raises(DataError, match=r"metadata\.csv, line 2: expected 2 columns, got 3"):
        vaeaug.read(root)
