import dataclasses
import gc
import hashlib
import json
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from example_run import ARCHIVE, CLASS_NAMES, make_run, samples

from vaeaug.files.json_text import seal_of
from vaeaug.shards import (
    FormatVersionError,
    Manifest,
    Shard,
    ShardDataset,
    ShardError,
    verify,
)
from vaeaug.shards._manifest import _dump


def rewrite_manifest(folder, change):
    """Change the manifest's content and seal it again, as someone with an aim would."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    content["manifest_sha256"] = seal_of(content, "manifest_sha256")
    path.write_text(_dump(content, indent=2) + "\n")


def rehash(folder):
    """Let the manifest say what the shards are now, so that only the reader can object."""

    def change(content):
        for entry in content["shards"]:
            data = (folder / entry["path"]).read_bytes()
            entry["bytes"] = len(data)
            entry["sha256"] = hashlib.sha256(data).hexdigest()

    rewrite_manifest(folder, change)


# --- the archive


def test_archived_version_1_still_reads():
    assert verify(ARCHIVE).ok, str(verify(ARCHIVE))
    data = ShardDataset(ARCHIVE)
    assert data.class_names == ("ant", "bee", "çat")
    assert data.labels.tolist() == [0] * 5 + [1] * 3 + [2] * 4
    assert data[0][0].ravel()[:6].tolist() == [146, 135, 71, 178, 233, 171]
    assert data[11][0].ravel()[:6].tolist() == [191, 85, 38, 228, 187, 167]
    assert data.seed[:2].tolist() == [13245999511595088885, 6244991762465868367]
    assert data.weight[-1] == pytest.approx(0.6154245)
    assert data.soft_labels[0] == pytest.approx([0.5322106, 0.38232392, 0.08546548])
    assert [entry.sha256_decoded[:12] for entry in data.manifest.shards] == [
        "940d1c0f8ec9",
        "7992038f3065",
        "7b09cb4cae25",
    ]


# --- the dataset


@pytest.mark.parametrize("compress", [None, "gzip"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_dataset_is_the_samples_in_manifest_order(tmp_path, dtype, compress):
    make_run(tmp_path, dtype=dtype, compress=compress, max_bytes=40_000, soft_labels=True)
    parts = [samples(i, n, dtype=dtype, soft_labels=True) for i, n in enumerate((5, 3, 4))]
    data = ShardDataset(tmp_path)
    images = np.concatenate([part["images"] for part in parts])
    assert len(data) == 12
    np.testing.assert_array_equal(data.images_at(range(12)), images)
    for name in ("latents", "source_index", "seed", "weight", "p_label", "nn_index", "soft_labels"):
        np.testing.assert_array_equal(
            getattr(data, name), np.concatenate([part[name] for part in parts])
        )
    order = [11, 0, 5, 0, -1, 7, -12]
    np.testing.assert_array_equal(data.images_at(order), images[order])
    image, label = data[-4]
    np.testing.assert_array_equal(image, images[8])
    assert (type(label), label) == (int, 2)
    image[:] = 0  # a copy
    np.testing.assert_array_equal(data[8][0], images[8])
    assert [label for _, label in data.__getitems__([0, 11])] == [0, 2]
    assert data.images_at([]).shape == (0, 4, 3, 2)
    for bad in (12, -13):
        with pytest.raises(IndexError, match=r"expected an index in \[-12, 12\), got"):
            data[bad]
    data.close()


def test_dataset_of_some_classes(tmp_path):
    manifest = make_run(tmp_path)
    for classes in (["çat", 0], [2, "ant"]):
        data = ShardDataset(manifest, classes=classes)
        assert data.labels.tolist() == [0] * 5 + [2] * 4
        np.testing.assert_array_equal(data.images_at(range(5, 9)), samples(2, 4)["images"])
    for bad in ("dog", 3):
        with pytest.raises(ShardError, match="classes: expected a name or index of"):
            ShardDataset(tmp_path, classes=[bad])


def test_dataset_leaves_no_open_files(tmp_path):
    make_run(tmp_path, compress="gzip")
    make_run(tmp_path / "plain")
    gc.collect()  # of files that other tests left to it
    before = len(list(Path("/proc/self/fd").iterdir()))
    for folder in (tmp_path, tmp_path / "plain"):
        data = ShardDataset(folder)
        data.images_at(range(12))
        data.close()
        data.images_at([0])  # opens again
        data.close()
        del data
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_dataset_refuses_a_shard_that_the_manifest_does_not_mean(tmp_path):
    make_run(tmp_path)
    first, second = tmp_path / "shards/shard-00000.h5", tmp_path / "shards/shard-00001.h5"
    shutil.copy(first, second)
    with pytest.raises(ShardError, match=r"shard-00001.h5: number of samples: expected 3, got 5"):
        ShardDataset(tmp_path)
    second.write_bytes(b"x")
    with pytest.raises(ShardError, match=r"shard-00001.h5: expected \d+ bytes, got 1"):
        ShardDataset(tmp_path)
    second.unlink()
    with pytest.raises(ShardError, match=r"shard-00001.h5: expected a shard that the manifest"):
        ShardDataset(tmp_path)


# --- verify


@pytest.mark.parametrize(("compress", "positions"), [(None, 25), ("gzip", 10)])
def test_any_flipped_byte_is_found(tmp_path, compress, positions):
    make_run(tmp_path, counts=(3, 2, 0), compress=compress)
    assert verify(tmp_path).ok
    rng = random.Random(0)
    for relative in ("shards/shard-00000.h5", "shards/shard-00001.h5", "manifest.json"):
        path = tmp_path / relative
        good = path.read_bytes()
        ends = [0, 1, 7, 8, len(good) - 1]
        for position in [*ends, *(rng.randrange(len(good)) for _ in range(positions))]:
            bad = bytearray(good)
            bad[position] ^= rng.choice([1, 0x80, 0xFF, rng.randrange(1, 256)])
            path.write_bytes(bad)
            report = verify(tmp_path)
            assert not report.ok, f"{relative}: byte {position}"
            assert {problem.path for problem in report.problems} == {relative}
        path.write_bytes(good)
    assert verify(tmp_path).ok


def test_white_space_in_the_manifest_is_content(tmp_path):
    make_run(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"\n  ", b"\n\t ", 1))
    [problem] = verify(tmp_path).problems
    assert problem.kind == "manifest"
    assert "different bytes" in problem.message


@pytest.mark.parametrize("keep", [0, 1, 100, 5000, -1])
def test_a_truncated_shard_is_named(tmp_path, keep):
    make_run(tmp_path)
    path = tmp_path / "shards/shard-00002.h5"
    path.write_bytes(path.read_bytes()[:keep])
    problems = verify(tmp_path).problems
    assert {problem.path for problem in problems} == {"shards/shard-00002.h5"}
    assert problems[0].kind == "changed"
    if keep >= 0:
        with pytest.raises(ShardError, match=r"shard-00002.h5"):
            Shard(path)


def test_missing_and_foreign_files_are_named(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    manifest = make_run(tmp_path)
    digest = hashlib.sha256(b"{}").hexdigest()
    files = {"run.json": digest, "model/model.safetensors": "0" * 64}
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.safetensors").write_bytes(b"other")
    dataclasses.replace(manifest, files=files).save(tmp_path)
    (tmp_path / "shards/shard-00001.h5").unlink()
    (tmp_path / "shards/shard-00009.h5").touch()
    (tmp_path / "shards/.shard-00003.h5.0123456789abcdef.tmp").touch()
    (tmp_path / ".manifest.json.0123456789abcdef.tmp").touch()
    report = verify(tmp_path)
    assert [(problem.kind, problem.path) for problem in report.problems] == [
        ("missing", "shards/shard-00001.h5"),
        ("changed", "model/model.safetensors"),
        ("foreign", "shards/.shard-00003.h5.0123456789abcdef.tmp"),
        ("foreign", "shards/shard-00009.h5"),
        ("foreign", ".manifest.json.0123456789abcdef.tmp"),
    ]
    assert "left by an interrupted writer" in report.problems[2].message
    assert "5 problems in 3 shards, 12 samples" in str(report)
    assert json.loads(report.to_json())["ok"] is False
    (tmp_path / "run.json").unlink()
    assert ("missing", "run.json") in {(p.kind, p.path) for p in verify(tmp_path).problems}


def test_a_changed_header_with_equal_arrays_says_so(tmp_path):
    make_run(tmp_path)
    with h5py.File(tmp_path / "shards/shard-00000.h5", "r+") as file:
        file.attrs["note"] = "hello"
    [problem] = verify(tmp_path).problems
    assert problem.kind == "changed"
    assert "expected" in problem.message
    assert "its decoded arrays still match the manifest" in problem.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["labels"].__setitem__(1, 2), "labels: expected only 0, got also [2]"),
        (lambda f: f["seed"].__setitem__(0, 5), "decoded arrays: expected sha256"),
        (lambda f: f.attrs.__setitem__("run_seed", 8), "run_seed: expected 7, got 8"),
        (lambda f: f.attrs.__setitem__("model_sha256", np.bytes_("z")), "model_sha256: expected"),
        (lambda f: f.attrs.__setitem__("synthetic", False), "synthetic: expected True, got False"),
        (
            lambda f: f.attrs.__setitem__("class_names", np.array([b"ant", b"bee", b"cat"])),
            "class_names: exp",
        ),
    ],
)
def test_content_is_checked_even_where_hashes_agree(tmp_path, change, message):
    make_run(tmp_path)
    with h5py.File(tmp_path / "shards/shard-00000.h5", "r+") as file:
        change(file)
    rehash(tmp_path)
    problems = verify(tmp_path).problems
    assert any(p.kind == "content" and message in p.message for p in problems), problems


def test_counts_are_checked(tmp_path):
    make_run(tmp_path)

    def change(content):
        content["classes"][0]["accepted"] = 4
        content["classes"][1]["real"] = 11

    rewrite_manifest(tmp_path, change)
    report = verify(tmp_path)
    assert [p.kind for p in report.problems] == ["counts"] * 3
    assert "class 'ant': expected 4 accepted samples in the shards, got 5" in str(report)
    assert "complete: expected False by the counts, got True" in str(report)


def test_verify_reports_a_folder_without_a_manifest(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        [problem] = verify(folder).problems
        assert (problem.kind, problem.path) == ("missing", "manifest.json")
        assert "no manifest: the run has not finished" in problem.message


# --- files that are not to be trusted


def test_another_major_version_is_refused(tmp_path):
    make_run(tmp_path)
    path = tmp_path / "shards/shard-00000.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
        del file["images"]  # whatever a later version moved
    with pytest.raises(
        FormatVersionError, match=r"shard-00000.h5: expected format_version 1, got 2"
    ):
        Shard(path)
    rewrite_manifest(tmp_path, lambda content: content.update(format_version=3, shards="moved"))
    with pytest.raises(
        FormatVersionError, match=r"manifest.json: expected format_version 1 or 2, got 3"
    ):
        Manifest.load(tmp_path)


def test_another_hdf5_file_is_no_shard(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(ShardError, match=r"other.h5: expected the attribute 'format'"):
        Shard(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format"], file.attrs["format_version"] = np.bytes_("other"), 1
    with pytest.raises(ShardError, match="expected format 'vaeaug-shard', got 'other'"):
        Shard(path)
    with pytest.raises(ShardError, match=r"nowhere.h5: expected a shard, got no such file"):
        Shard(tmp_path / "nowhere.h5")


def _external_link(file, other):
    del file["images"]
    file["images"] = h5py.ExternalLink(str(other), "images")


def _soft_link(file, other):
    file.move("images", "elsewhere")
    file["images"] = h5py.SoftLink("/elsewhere")


def _virtual(file, other):
    shape = file["images"].shape
    del file["images"]
    layout = h5py.VirtualLayout(shape, "u1")
    layout[...] = h5py.VirtualSource(str(other), "images", shape)
    file.create_virtual_dataset("images", layout)


def _external_storage(file, other):
    shape = file["images"].shape
    del file["images"]
    file.create_dataset("images", shape, "u1", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def _linked_column(file, other):
    del file["quality/p_label"]
    file["quality/p_label"] = h5py.ExternalLink(str(other), "quality/p_label")


def _linked_group(file, other):
    del file["quality"]
    file["quality"] = h5py.ExternalLink(str(other), "quality")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_external_link, "images: expected data in this file, got ExternalLink"),
        (_soft_link, "images: expected data in this file, got SoftLink"),
        (_virtual, "images: expected data in this file, got a virtual or external"),
        (_external_storage, "images: expected data in this file, got a virtual or external"),
        (_linked_column, "quality/p_label: expected data in this file, got ExternalLink"),
        (_linked_group, "quality/p_label: expected data in this file, got ExternalLink"),
    ],
)
def test_data_outside_the_file_is_not_followed(tmp_path, change, message):
    make_run(tmp_path)
    shards = tmp_path / "shards"
    with h5py.File(shards / "shard-00000.h5", "r+") as file:
        change(file, shards / "shard-00001.h5")
    with pytest.raises(ShardError, match=message):
        Shard(shards / "shard-00000.h5")


def _replace(name, **how):
    def change(file):
        del file[name]
        file.create_dataset(name, **how)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # storage that was never written reads as zeros in HDF5
        (
            _replace("images", shape=(5, 4, 3, 2), dtype="u1"),
            "contiguous or chunked data, got none",
        ),
        (
            _replace("images", shape=(5, 4, 3, 2), dtype="u1", chunks=(1, 4, 3, 2)),
            "expected 5 chunks, got 0",
        ),
        (_replace("images", data=np.zeros((0, 4, 3, 2), "u1")), "expected at least one sample"),
        (_replace("images", data=np.zeros((5, 4, 3), "u1")), "expected 3 positive image dim"),
        (_replace("images", data=np.zeros((5, 4, 3, 2), "i4")), "expected a dtype of"),
        (_replace("labels", data=np.zeros(4, "i8")), r"labels: expected int64 \(5,\), got int64 "),
        (_replace("seed", data=np.zeros(5, "f8")), r"seed: expected uint64 \(5,\), got float64"),
        (_replace("latents", data=np.zeros(5, "f4")), "latents: expected float32"),
        (lambda f: f.__delitem__("weight"), "expected the dataset 'weight', which is missing"),
        (lambda f: f.attrs.__delitem__("layout"), "expected the attribute 'layout'"),
        (lambda f: f.attrs.__setitem__("layout", 3), "attribute layout: expected str, got 3"),
        # strings of variable length lie in a heap without a checksum
        (lambda f: f.attrs.__setitem__("layout", "NHWC"), "layout: expected numbers or strings of"),
    ],
)
def test_malformed_shards_are_refused(tmp_path, change, message):
    make_run(tmp_path)
    path = tmp_path / "shards/shard-00000.h5"
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ShardError, match=message) as caught:
        Shard(path)
    assert "shard-00000.h5" in str(caught.value)


# --- the manifest


def test_manifest_round_trip(tmp_path):
    manifest = make_run(tmp_path)
    loaded = Manifest.load(tmp_path)
    assert loaded == manifest
    assert Manifest.load(tmp_path / "manifest.json") == manifest
    assert loaded.n_images == 12
    assert not loaded.evaluated
    gated = dataclasses.replace(
        loaded, gate={"helps": True}, extra={"acceptance": np.float64(0.5)}, complete=True
    ).save(tmp_path)
    assert Manifest.load(tmp_path) == gated
    assert gated.evaluated
    assert gated.extra == {"acceptance": 0.5}
    assert not list(tmp_path.glob("*.tmp"))
    text = (tmp_path / "manifest.json").read_text()
    assert list(json.loads(text)) == sorted(json.loads(text))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../shards/shard-00000.h5",
        "shards/../../x.h5",
        "shards\\shard-00000.h5",
        "./shards/shard-00000.h5",
        "shards//shard-00000.h5",
        "shards",
        "",
        "elsewhere/shard-00000.h5",
        "shards/a\0b.h5",
    ],
)
def test_paths_that_leave_the_run_folder_are_refused(tmp_path, path):
    make_run(tmp_path)
    rewrite_manifest(tmp_path, lambda content: content["shards"][0].update(path=path))
    with pytest.raises(ShardError, match=r"manifest.json: ") as caught:
        Manifest.load(tmp_path)
    assert repr(path) in str(caught.value) or "path: expected a non-empty" in str(caught.value)
    assert not verify(tmp_path).ok


def test_a_symbolic_link_out_of_the_run_folder_is_refused(tmp_path):
    run = tmp_path / "run"
    make_run(run)
    shard = run / "shards/shard-00000.h5"
    shutil.move(shard, tmp_path / "outside.h5")
    shard.symlink_to(tmp_path / "outside.h5")
    with pytest.raises(ShardError, match="a symbolic link to"):
        ShardDataset(run)
    # The run folder itself may be reached by a link.
    make_run(run / "inner")
    (tmp_path / "link").symlink_to(run / "inner")
    assert len(ShardDataset(tmp_path / "link")) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("classes"), "expected the field 'classes', which is missing"),
        (lambda c: c.update(more=1), r"expected no other fields, got \['more'\]"),
        (lambda c: c.update(format="x"), "expected format 'vaeaug-manifest', got 'x'"),
        (lambda c: c.update(run_seed=True), "run_seed: expected an integer >= 0, got True"),
        (lambda c: c.update(class_names=["a", 1, "b"]), "class names as non-empty strings, got 1"),
        (lambda c: c.update(real_counts=[1]), "real_counts: expected 3 integers"),
        (lambda c: c.update(value_range=[1, 0]), "value_range: expected two finite numbers"),
        (lambda c: c.update(gate="fine"), 'gate: expected "not evaluated" or an object, got'),
        (lambda c: c.update(complete=1), "complete: expected true or false, got 1"),
        (lambda c: c.update(files={"a": "b"}), "files: expected an object of SHA-256 digests"),
        (lambda c: c["shards"][1].update(n=0), r"shards\[1\]: n: expected an integer >= 1, got 0"),
        (
            lambda c: c["shards"][1].update(label=3),
            r"label: expected an integer in \[0, 3\), got 3",
        ),
        (lambda c: c["shards"][1].update(class_name="ant"), "class_name: expected 'bee'"),
        (lambda c: c["shards"].append(c["shards"][0]), "expected each file once"),
        (lambda c: c["classes"].append(c["classes"][0]), "expected each class once"),
        (lambda c: c.update(image_shape=[4, 3]), "expected 3 positive image dimensions"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_malformed_manifests_are_refused(tmp_path, change, message):
    make_run(tmp_path)
    rewrite_manifest(tmp_path, change)
    with pytest.raises(ShardError, match=message) as caught:
        Manifest.load(tmp_path)
    assert "manifest.json" in str(caught.value)
    assert verify(tmp_path).problems[0].kind == "manifest"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": NaN}', '{"a": 1, "a": 1}', "[" * 100_000, "\xff"]
)
def test_a_manifest_that_is_no_json_object(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ShardError, match=r"manifest.json: expected"):
        Manifest.load(tmp_path)


def test_a_manifest_that_could_not_be_loaded_is_not_saved(tmp_path):
    manifest = make_run(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    for change in ({"run_seed": -1}, {"extra": {"x": float("nan")}}, {"extra": {"x": object()}}):
        with pytest.raises(ShardError, match=r"manifest.json: .*expected"):
            dataclasses.replace(manifest, **change).save(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_an_edited_manifest_is_refused(tmp_path):
    make_run(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"run_seed": 7', '"run_seed": 8'))
    with pytest.raises(ShardError, match="changed after it was written: expected manifest_sha256"):
        Manifest.load(tmp_path)


def test_class_names_keep_their_letters(tmp_path):
    make_run(tmp_path)
    assert ShardDataset(tmp_path).class_names == CLASS_NAMES
