"""Images of several sizes and modes, and damaged ones: what is done, with a note."""

import numpy as np
import pytest
import torch
from PIL import Image

from vaeaug.data import DataError, read, read_pool
from vaeaug.data.decode import resize, resize_note


def save(tmp_path, **images):
    """One class for each image: a/x.png, b/x.png, ..."""
    for name, image in images.items():
        (tmp_path / name).mkdir(exist_ok=True)
        image.save(tmp_path / name / "x.png")
    return tmp_path


def stripes(height, width):
    """The left third red, the middle green, the right blue."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    third = width // 3
    pixels[:, :third, 0] = pixels[:, third:-third, 1] = pixels[:, -third:, 2] = 255
    return pixels


# The aspect


def test_crop_keeps_the_middle_and_the_aspect():
    out = resize(stripes(40, 120), (20, 20), "crop")
    assert out.shape == (20, 20, 3)
    # Antialiasing looks a pixel beyond the cut.
    assert (out[:, 2:-2] == [0, 255, 0]).all()
    assert (out[..., 1] >= 220).all()
    tall = resize(stripes(40, 120).transpose(1, 0, 2), (20, 20), "crop")
    assert (tall[2:-2] == [0, 255, 0]).all()


def test_pad_keeps_all_of_it_between_black():
    out = resize(stripes(40, 120), (24, 24), "pad")
    assert (out[:8] == 0).all()
    assert (out[16:] == 0).all()
    row = out[12]
    assert row[3].tolist() == [255, 0, 0]
    assert row[12].tolist() == [0, 255, 0]
    assert row[20].tolist() == [0, 0, 255]
    floats = resize(np.full((4, 8, 1), -5, dtype=np.float32), (8, 8), "pad")
    assert (floats == -5).all()


def test_stretch_distorts():
    out = resize(stripes(40, 120), (24, 24), "stretch")
    assert out[0, 2].tolist() == [255, 0, 0]
    assert out[0, 12].tolist() == [0, 255, 0]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_same_aspect_is_the_same_in_every_way(fit, dtype, noise):
    pixels = noise(0, 12, 18, 3).astype(dtype)
    np.testing.assert_array_equal(resize(pixels, (6, 9), fit), resize(pixels, (6, 9), "stretch"))
    assert resize_note((12, 18), (6, 9), fit) == "resized to 6x9"
    assert resize_note((12, 19), (6, 9), fit).startswith("resized to 6x9, ")


def test_photos_of_several_sizes(tmp_path):
    root = save(tmp_path, a=Image.fromarray(stripes(40, 120)), b=Image.fromarray(stripes(60, 60)))
    with pytest.raises(DataError, match=r"got 2 sizes: .*size=\(48, 88\) \(--size 48x88\)"):
        read(root)
    cut = read(root, size=(24, 24))
    assert (cut.images[0, :, 2:-2] == [0, 255, 0]).all()
    note = "resized to 24x24, edges cut to keep the aspect (resize='crop') (1 of 2 images)"
    assert note in cut.notes
    assert "resized to 24x24 (1 of 2 images)" in cut.notes
    padded = read(root, size=24, resize="pad")
    assert (padded.images[0, :8] == 0).all()
    assert any("padded to keep the aspect (resize='pad') (1 of" in note for note in padded.notes)
    flat = read(root, size=24, resize="stretch")
    assert flat.images[0, 0, 2].tolist() == [255, 0, 0]
    assert any("aspect not kept" in note for note in flat.notes)
    for workers in (0, 2):
        again = read(root, size=24, resize="pad", workers=workers)
        assert again.fingerprint == padded.fingerprint
    with pytest.raises(DataError, match="resize: expected one of crop, pad, stretch, got 'fit'"):
        read(root, size=24, resize="fit")


def test_arrays_tensors_and_what_is_read_already_are_cut_alike(tmp_path):
    wide = np.stack([stripes(40, 120), stripes(40, 120)[:, ::-1]])
    labels = np.array([0, 1])
    whole = read((wide, labels))
    tensors = [(torch.from_numpy(w).permute(2, 0, 1), k) for k, w in enumerate(wide)]
    sources = (
        (wide, labels),
        whole,
        tensors,
        list(zip(map(Image.fromarray, wide), labels, strict=True)),
    )
    for source in sources:
        data = read(source, size=20)
        assert (data.images[:, :, 2:-2] == [0, 255, 0]).all(), type(source)
        assert any("edges cut" in note for note in data.notes)
        padded = read(source, size=(24, 24), resize="pad")
        assert (padded.images[:, :8] == 0).all()


def test_large_photos_are_suggested_small(tmp_path):
    root = save(tmp_path, a=Image.new("L", (3000, 4000)), b=Image.new("L", (3000, 3900)))
    with pytest.raises(DataError, match=r"--size 128x96"):
        read(root)


# Gray and colour


def test_gray_and_colour_mixed(tmp_path, noise):
    colour, gray = noise(0, 5, 7, 3), noise(1, 5, 7)
    root = save(tmp_path, a=Image.fromarray(colour), b=Image.fromarray(gray))
    as_rgb = read(root, mode="RGB")
    np.testing.assert_array_equal(as_rgb.images[0], colour)
    np.testing.assert_array_equal(as_rgb.images[1], np.repeat(gray[..., None], 3, axis=-1))
    assert any("gray images repeated in three channels" in note for note in as_rgb.notes)
    as_gray = read(root, mode="L")
    np.testing.assert_array_equal(
        as_gray.images[0, ..., 0], np.asarray(Image.fromarray(colour).convert("L"))
    )
    np.testing.assert_array_equal(as_gray.images[1, ..., 0], gray)
    assert any("colour images turned to gray (mode='L') (1 of 2" in note for note in as_gray.notes)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_mode_of_arrays_tensors_and_what_is_read_already(mode, noise):
    images = noise(0, 4, 5, 7, 3 if mode == "L" else 1)
    labels = np.array([0, 1, 0, 1])
    kinds = [Image.fromarray(image.squeeze()) for image in images]
    expected = np.stack([np.asarray(kind.convert(mode)) for kind in kinds])
    expected = expected.reshape(4, 5, 7, -1)
    tensors = torch.utils.data.TensorDataset(
        torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)
    )
    for source in ((images, labels), tensors, read((images, labels))):
        np.testing.assert_array_equal(read(source, mode=mode).images, expected)
    np.testing.assert_array_equal(
        read_pool(images[:2], read((images, labels), mode=mode), mode=mode), expected[:2]
    )
    floats = read((images.astype("float32") / 255, labels), mode=mode)
    np.testing.assert_allclose(floats.images * 255, expected, atol=1)


def test_modes_that_do_not_combine(noise):
    with pytest.raises(DataError, match="mode: expected one of RGB, L, got 'CMYK'"):
        read((noise(0, 2, 3, 3), np.array([0, 1])), mode="CMYK")
    with pytest.raises(DataError, match="no 'L' with alpha='keep'"):
        read((noise(0, 2, 3, 3), np.array([0, 1])), mode="L", alpha="keep")


def test_four_bands_are_kept_where_the_layout_is_stated(tmp_path, noise):
    bands = noise(0, 4, 5, 7, 4)
    labels = np.array([0, 1, 0, 1])
    kept = read((bands, labels), layout="NHWC")
    np.testing.assert_array_equal(kept.images, bands)
    assert any("four channels kept as they are" in note for note in kept.notes)
    first = read((bands.transpose(0, 3, 1, 2), labels), layout="NCHW")
    np.testing.assert_array_equal(first.images, bands)
    np.testing.assert_array_equal(
        read((bands, labels), layout="NHWC", alpha="drop").images, bands[..., :3]
    )
    items = [(band, int(label)) for band, label in zip(bands, labels, strict=True)]
    np.testing.assert_array_equal(read(items, layout="NHWC").images, bands)
    guessed = read((bands, labels))
    assert guessed.image_shape == (5, 7, 3)
    assert any(
        "if the fourth is a band like the others, pass layout='NHWC'" in n for n in guessed.notes
    )
    pool = read_pool(bands[:2], kept, layout="NHWC")
    np.testing.assert_array_equal(pool, bands[:2])


def test_four_bands_are_resized_each_by_itself(noise):
    bands = noise(0, 4, 10, 14, 4)
    bands[..., 3] //= 40
    labels = np.array([0, 1, 0, 1])
    items = [(band, int(label)) for band, label in zip(bands, labels, strict=True)]
    by_band = [
        read((bands[..., c], labels), size=(5, 7), value_range=(0, 255)).images[..., 0]
        for c in range(4)
    ]
    expected = np.stack(by_band, axis=-1)
    whole = read((bands, labels), layout="NHWC")
    for data in (
        read((bands, labels), layout="NHWC", size=(5, 7)),
        read(items, layout="NHWC", size=(5, 7)),
        read(whole, size=(5, 7)),
    ):
        np.testing.assert_array_equal(data.images, expected)
    # As RGBA the colours are weighted.
    kept = read((bands, labels), alpha="keep", size=(5, 7))
    assert not np.array_equal(kept.images, expected)


# Damaged files


def test_all_damaged_files_are_named_at_once(tree):
    root = tree({"a": 40, "b": 3})
    for i in range(30):
        (root / "a" / f"{i:03d}.png").write_bytes(b"broken" if i else b"")
    for workers in (0, 2):
        with pytest.raises(DataError) as caught:
            read(root, workers=workers)
        message = str(caught.value)
        assert message.startswith(f"{root}: 30 of 43 cannot be read; on_error='skip' (--on-error")
        assert "a/000.png: expected an image file, got an empty file" in message
        assert "a/019.png: expected a readable" in message
        assert message.endswith("and 10 more")
        assert "a/020.png" not in message
        assert "cannot be decoded: they are none of " in message
        assert "0x" not in message


def test_damaged_files_are_skipped_where_asked_and_named(tree):
    root = tree({"a": 4, "b": 3})
    whole = read(root)
    (root / "a" / "001.png").write_bytes(b"")
    (root / "b" / "002.png").write_bytes(b"broken")
    for workers in (0, 2):
        data = read(root, on_error="skip", workers=workers)
        np.testing.assert_array_equal(data.images, whole.images[[0, 2, 3, 4, 5]])
        assert data.labels.tolist() == [0, 0, 0, 1, 1]
        note = next(note for note in data.notes if "because they cannot be read" in note)
        assert note.startswith("skipped 2 of 7 because they cannot be read (on_error='skip'): ")
        assert "a/001.png" in note
        assert "b/002.png" in note
    with pytest.raises(DataError, match="on_error: expected one of raise, skip, got 'ignore'"):
        read(root, on_error="ignore")


def test_a_class_of_damaged_files_alone_is_refused(tree):
    root = tree({"a": 4, "b": 2})
    for path in (root / "b").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="none in b; none of its files can be read"):
        read(root, on_error="skip")
    for path in (root / "a").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="6 of 6 cannot be read:"):
        read(root, on_error="skip")


def test_items_of_a_dataset_are_skipped_where_asked(noise):
    images = noise(0, 6, 5, 4, 3)

    class Flaky(list):
        def __getitem__(self, i):
            if i in (0, 4):
                raise OSError(f"disk error at {i}")
            return super().__getitem__(i)

    items = Flaky((image, i % 2) for i, image in enumerate(images))
    with pytest.raises(OSError, match="disk error at 0"):
        read(items)
    data = read(items, on_error="skip")
    np.testing.assert_array_equal(data.images, images[[1, 2, 3, 5]])
    assert data.labels.tolist() == [1, 0, 1, 1]
    assert any("Flaky[0]: OSError: disk error at 0; Flaky[4]" in note for note in data.notes)


def test_a_damaged_row_of_a_table_is_skipped_where_asked(tmp_path):
    datasets = pytest.importorskip("datasets")
    import io

    def encoded(value):
        file = io.BytesIO()
        Image.new("L", (4, 4), value).save(file, format="PNG")
        return {"bytes": file.getvalue(), "path": None}

    rows = [encoded(10), {"bytes": b"broken", "path": None}, encoded(30), encoded(40)]
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"])
    )
    table = datasets.Dataset.from_dict({"image": rows, "label": [0, 1, 1, 0]}, features=features)
    with pytest.raises(DataError, match=r"\[image\]\[1\]: expected a readable image file"):
        read(table)
    data = read(table, on_error="skip")
    assert data.images[:, 0, 0, 0].tolist() == [10, 30, 40]
    assert data.labels.tolist() == [0, 1, 0]
