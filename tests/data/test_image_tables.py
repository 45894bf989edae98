"""CSV files found in practice: usual headers, ids without ending, folders beside the table."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaeaug.data import DataError, read
from vaeaug.data.vocabulary import IDS, IMAGES, LABELS, PATHS, SPLITS, find, find_all, plain

LABEL_TEXTS = ("dog", "cat", "dog", "cat")


@pytest.fixture
def place(tmp_path, noise):
    """place("images"): 0.png ... 3.png in this folder beside the tables; returns their pixels."""

    def write(folder: str = ".", ending: str = ".png", first: int = 0) -> list[np.ndarray]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        images = [noise(first + i, 5, 7, 3) for i in range(4)]
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / folder / f"{i}{ending}")
        return images

    return write


def table(tmp_path: Path, header: str, cell: str = "{}.png", name: str = "list.csv") -> Path:
    rows = [f"{cell.format(i)},{label}" for i, label in enumerate(LABEL_TEXTS)]
    (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
    return tmp_path / name


@pytest.mark.parametrize(
    ("images", "label"),
    [
        ("image_path", "label"),
        ("filename", "class"),
        ("file_name", "labels"),
        ("Image Name", "Category"),
        ("img", "target"),
        ("image", "breed"),
        ("filepath", "class_name"),
        ("FilePaths", "class_id"),
        ("file-name", "y"),
        ("path", "species"),
    ],
)
def test_headers_in_use(tmp_path, place, images, label):
    pixels = place()
    data = read(table(tmp_path, f"{images},{label}"))
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(data.images, pixels)


@pytest.mark.parametrize("folder", [".", "images", "train_images", "HAM_part_1"])
@pytest.mark.parametrize(("header", "label"), [("id_code", "diagnosis"), ("image_id", "dx")])
def test_ids_without_ending_are_looked_up(tmp_path, place, folder, header, label):
    pixels = place(folder, ".jpg" if folder == "images" else ".png")
    data = read(table(tmp_path, f"{header},{label}", "{}", "train.csv"))
    assert data.labels.tolist() == [1, 0, 1, 0]
    if folder != "images":
        np.testing.assert_array_equal(data.images, pixels)
    assert any("images found in" in note for note in data.notes) == (folder != ".")
    assert any(f"images by the column '{header}', labels by '{label}'" in n for n in data.notes)


def test_ids_are_found_in_several_folders(tmp_path, place, noise):
    place("part_1")
    for i in (2, 3):
        (tmp_path / "part_1" / f"{i}.png").unlink()
    (tmp_path / "part_2").mkdir()
    for i in (2, 3):
        Image.fromarray(noise(i, 5, 7, 3)).save(tmp_path / "part_2" / f"{i}.png")
    data = read(table(tmp_path, "image_id,dx", "{}"))
    np.testing.assert_array_equal(data.images, [noise(i, 5, 7, 3) for i in range(4)])
    assert any("images found in part_1, part_2" in note for note in data.notes)


def test_the_same_id_in_train_and_test(tmp_path, place):
    train, test = place("train_images"), place("test_images", first=10)
    data = read(table(tmp_path, "id,label", "{}", "train.csv"))
    np.testing.assert_array_equal(data.images, train)
    with pytest.raises(
        DataError, match=r"line 2: expected one image file, got .*test_images/0.png"
    ):
        read(table(tmp_path, "id,label", "{}", "labels.csv"))
    rows = [f"{i},{name},{split}" for i, name in enumerate("abab") for split in ("train", "test")]
    (tmp_path / "both.csv").write_text("id,label,split\n" + "\n".join(rows) + "\n")
    np.testing.assert_array_equal(read(tmp_path / "both.csv", split="test").images, test)


def test_two_files_of_one_id_are_refused(tmp_path, place):
    place(ending=".png")
    place(ending=".bmp")
    with pytest.raises(DataError, match=r"expected one image file, got .*0\.bmp and .*0\.png"):
        read(table(tmp_path, "id,label", "{}"))
    assert len(read(table(tmp_path, "id,label", "{}.png"))) == 4


def test_a_column_of_paths_is_surer_than_one_of_ids(tmp_path, place):
    pixels = place("photos")
    rows = [f"{3 - i},photos/{i}.png,{t},{i}" for i, t in enumerate(LABEL_TEXTS)]
    (tmp_path / "list.csv").write_text("id,path,label,age\n" + "\n".join(rows) + "\n")
    np.testing.assert_array_equal(read(tmp_path / "list.csv").images, pixels)


def test_columns_by_keys(tmp_path, place):
    pixels = place()
    rows = [f"{i}.png,{t},{i % 2}" for i, t in enumerate(LABEL_TEXTS)]
    path = tmp_path / "list.csv"
    path.write_text("where,what,grade\n" + "\n".join(rows) + "\n")
    data = read(path, keys={"images": "where", "labels": "grade"})
    np.testing.assert_array_equal(data.images, pixels)
    assert data.labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(DataError, match=r"one column 'nose' \(from keys\), got where, what, grade"):
        read(path, keys={"images": "where", "labels": "nose"})


def test_a_header_of_other_names_is_recognised(tmp_path, place):
    place()
    with pytest.raises(DataError) as caught:
        read(table(tmp_path, "where,what"))
    message = str(caught.value)
    assert "got 'where' and 'what', which look like a header of other names" in message
    assert "keys={'images': 'where', 'labels': 'what'}" in message
    assert "'data.keys={images: where, labels: what}'" in message
    rows = [f"{i}.png,{t},{i}" for i, t in enumerate(LABEL_TEXTS)]
    (tmp_path / "wide.csv").write_text("where,what,age\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"or a header with one of path\|.*pass keys="):
        read(tmp_path / "wide.csv")


@pytest.mark.parametrize(
    "text", ["5.1,3.5,1.4,setosa\n4.9,3.0,1.4,setosa\n", "a,b,c,d\n1,2,3,0\n4,5,6,1\n"]
)
def test_a_table_of_numbers_is_no_list_of_images(tmp_path, text):
    (tmp_path / "iris.csv").write_text(text)
    with pytest.raises(DataError, match=r"rows of 4 columns of numbers; .*vaeaug\.VAEOverSampler"):
        read(tmp_path / "iris.csv")


def test_a_table_with_an_id_for_its_rows_is_no_list_of_images(tmp_path):
    (tmp_path / "iris.csv").write_text("Id,a,b,Species\n1,5.1,3.5,setosa\n2,4.9,3.0,other\n")
    with pytest.raises(
        DataError, match=r"rows of numbers, and no image beside it .*VAEOverSampler"
    ):
        read(tmp_path / "iris.csv")


def test_class_names_of_a_table(tmp_path, place):
    place()
    path = tmp_path / "list.csv"
    for labels in ((1, 2, 2, 1), (-1, 1, 1, -1), (0, 1, 1, 0)):
        path.write_text("".join(f"{i}.png,{label}\n" for i, label in enumerate(labels)))
        data = read(path, class_names=["no", "yes"])
        assert data.class_names == ("no", "yes")
        assert data.labels.tolist() == [0, 1, 1, 0]
        assert any("renumbered" in note for note in data.notes) == (labels[0] != 0)


def test_zero_padded_numbers_name_their_classes(tmp_path, place):
    place()
    path = tmp_path / "list.csv"
    path.write_text("0.png,007\n1.png,010\n2.png,-1\n3.png,007\n")
    data = read(path)
    assert data.class_names == ("007", "010")
    assert data.labels.tolist() == [0, 1, 0]
    assert len(data.unlabelled) == 1
    path.write_text("0.png,01\n1.png,00\n2.png,01\n3.png,00\n")
    assert read(path, class_names=["01", "00"]).labels.tolist() == [0, 1, 0, 1]
    path.write_text("path,label,split\n0.png,07,test\n1.png,08,test\n2.png,x,val\n")
    assert read(path, split="test").class_names == ("07", "08")
    path.write_text("0.png,7\n1.png,007\n2.png,cat\n3.png,cat\n")
    assert read(path).class_names == ("007", "7", "cat")


@pytest.mark.parametrize("folder", [".", "images"])
def test_a_table_given_by_its_name_alone(tmp_path, place, monkeypatch, folder):
    pixels = place(folder)
    table(tmp_path, "id,label", "{}")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read("list.csv").images, pixels)
    (tmp_path / "zero.csv").write_text("a\0b.png,x\nc.png,y\n")
    with pytest.raises(DataError, match=r"zero\.csv"):
        read("zero.csv")


def test_paths_of_windows(tmp_path, place):
    pixels = place("photos")
    data = read(table(tmp_path, "path,label", "photos\\{}.png"))
    np.testing.assert_array_equal(data.images, pixels)


def test_several_columns_of_labels_need_keys(tmp_path, place):
    place()
    rows = [f"{i}.png,{i % 2},{t}" for i, t in enumerate(LABEL_TEXTS)]
    path = tmp_path / "list.csv"
    path.write_text("path,label,class_name\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"one column of labels, got label and class_name; pass"):
        read(path)
    data = read(path, keys={"images": "path", "labels": "class_name"})
    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_noted(tmp_path, place, separator):
    pixels = place()
    path = table(tmp_path, "path,label")
    path.write_text(path.read_text().replace(",", separator))
    data = read(path)
    np.testing.assert_array_equal(data.images, pixels)
    assert f"columns taken as separated by {separator!r}" in data.notes


def test_a_column_called_fold_is_a_split_where_it_names_some(tmp_path, place):
    place()
    rows = [f"{i}.png,{t}" for i, t in enumerate(LABEL_TEXTS)]
    path = tmp_path / "list.csv"
    path.write_text("path,label,fold\n" + "\n".join(f"{r},{i}" for i, r in enumerate(rows)))
    assert len(read(path)) == 4
    names = ("train", "train", "test", "test")
    path.write_text(
        "path,label,set\n" + "\n".join(f"{r},{s}" for r, s in zip(rows, names, strict=True))
    )
    assert len(read(path)) == 2


def test_minus_one_and_one_are_two_classes(tmp_path, place):
    place()
    path = tmp_path / "list.csv"
    path.write_text("0.png,-1\n1.png,1\n2.png,1\n3.png,-1\n")
    data = read(path)
    assert data.class_names == ("-1", "1")
    assert data.labels.tolist() == [0, 1, 1, 0]
    path.write_text("0.png,-1\n1.png,1\n2.png,1\n3.png,2\n")
    assert len(read(path).unlabelled) == 1


def test_missing_files_are_all_listed_or_skipped(tmp_path, place):
    place()
    path = tmp_path / "list.csv"
    path.write_text("path,label\n0.png,a\nno.png,b\n1.png,b\nnowhere/x.png,a\n")
    with pytest.raises(DataError) as caught:
        read(path)
    assert "2 of 4 cannot be read" in str(caught.value)
    assert "line 3: expected an image file, got no" in str(caught.value)
    assert "line 5: expected an image file, got no" in str(caught.value)
    data = read(path, on_error="skip")
    assert data.labels.tolist() == [0, 1]
    assert any("skipped 2 of 4" in note and "no.png" in note for note in data.notes)


def test_a_folder_with_a_table_says_how_to_read_it(tmp_path, place):
    place("images")
    path = table(tmp_path, "id,label", "{}")
    for image in (tmp_path / "images").iterdir():
        image.rename(tmp_path / image.name)
    (tmp_path / "images").rmdir()
    with pytest.raises(DataError, match=f"to read the images that a table lists, give it: {path}"):
        read(tmp_path)
    assert len(read(path)) == 4


@pytest.mark.parametrize("name", ["[/b]", "two words", "=SUM(1)"])
def test_labels_of_any_text(tmp_path, place, name):
    place()
    (tmp_path / "list.csv").write_text(f"0.png,{name}\n1.png,b\n")
    assert set(read(tmp_path / "list.csv").class_names) == {"b", name}


# Arrays in files, and the words


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("image", "label"),
        ("img", "target"),
        ("pixels", "classes"),
        ("signals", "labels"),
        ("features", "targets"),
        ("train_set_x", "train_set_y"),
        ("x_training", "y_training"),
        ("training_images", "training_labels"),
        ("X_train", "Y_train"),
        ("train/data", "train/label"),
    ],
)
def test_arrays_of_names_in_use(tmp_path, noise, images, labels):
    import h5py

    pixels = noise(0, 4, 5, 7)
    np.savez(tmp_path / "a.npz", **{images: pixels, labels: np.array([0, 1, 0, 1])})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[images], file[labels] = pixels, np.array([0, 1, 0, 1])
    for path in (tmp_path / "a.npz", tmp_path / "a.h5"):
        np.testing.assert_array_equal(read(path).images[..., 0], pixels)


def test_every_word_is_plain_and_finds_what_is_written_otherwise():
    for words in (IDS, IMAGES, LABELS, PATHS, SPLITS):
        assert all(plain(word) == word for word in words)
        assert len(set(words)) == len(words)
    assert find(LABELS, ["Age", "Class Name", "LABEL"]) == "LABEL"
    assert find_all(LABELS, ["Class-Name", "age", "y"]) == ["y", "Class-Name"]
    assert find(LABELS, ["age"]) is None
