"""Soft labels: refused when they are none, stored exactly, one-hot without, checked by verify."""

import hashlib
import json

import h5py
import numpy as np
import pytest
from example_run import make_run, samples, writer

from vaeaug.shards import Manifest, Shard, ShardDataset, ShardError, verify


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.4, 0.2], r"sum 1, got \(0.5, 0.4, 0.2\) with sum 1.1 in row 2 \(1 such rows\)"),
        ([1.5, -0.25, -0.25], r"numbers in \[0, 1\] with sum 1, got \(1.5, -0.25, -0.25\)"),
        ([np.nan, 0.5, 0.5], r"numbers in \[0, 1\] .*nan.* in row 2"),
        ([0.3, 0.5, 0.2], r"none larger than that of the label 0, got \(0.3, 0.5, 0.2\) in row 2"),
    ],
)
def test_what_are_no_probabilities_of_the_label_is_refused(tmp_path, row, message):
    batch = samples(0, 4, soft_labels=True)
    batch["soft_labels"][2] = row
    with (
        pytest.raises(ShardError, match=rf"soft_labels: expected .*{message}"),
        writer(tmp_path, 0) as shard_writer,
    ):
        shard_writer.append(**batch)
    assert list((tmp_path / "shards").iterdir()) == []


def test_ties_with_the_label_and_whole_numbers_are_fine(tmp_path):
    batch = samples(1, 2)
    batch["soft_labels"] = np.array([[0.5, 0.5, 0], [0, 1, 0]])
    with writer(tmp_path, 1) as shard_writer:
        shard_writer.append(**batch)
    with Shard(tmp_path / shard_writer.entries[0].path) as shard:
        np.testing.assert_array_equal(shard.soft_labels_at([1, 0]), batch["soft_labels"][[1, 0]])
        assert shard.soft_labels_at([0]).dtype == np.float32


@pytest.mark.parametrize("soft_labels", [False, True])
def test_they_are_read_by_row_and_one_hot_without(tmp_path, soft_labels):
    make_run(tmp_path, soft_labels=soft_labels)
    parts = [samples(c, n, soft_labels=soft_labels)["soft_labels"] for c, n in enumerate((5, 3, 4))]
    expected = np.concatenate(parts) if soft_labels else np.eye(3)[[0] * 5 + [1] * 3 + [2] * 4]
    data = ShardDataset(tmp_path)
    order = [11, 0, 5, -1, 5]
    got = data.soft_labels_at(order)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected[order])
    assert data.soft_labels_at([]).shape == (0, 3)
    with pytest.raises(IndexError, match=r"expected an index in \[-12, 12\), got 12"):
        data.soft_labels_at([12])
    with Shard(tmp_path / "shards/shard-00002.h5") as shard:
        np.testing.assert_array_equal(shard.soft_labels_at([3, 0]), expected[[11, 8]])
    assert verify(tmp_path).ok


def reseal(folder, name):
    """Make the manifest say that this shard is as it is now."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    data = (folder / "shards" / name).read_bytes()
    with Shard(folder / "shards" / name) as shard:
        decoded = shard.sha256_decoded()
    for entry in content["shards"]:
        if entry["path"].endswith(name):
            entry["sha256"] = hashlib.sha256(data).hexdigest()
            entry["sha256_decoded"] = decoded
            entry["bytes"] = len(data)
    del content["manifest_sha256"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    content["manifest_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n")
    Manifest.load(path).save(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [([0.9, 0.4, 0.2], "with sum 1.5 in row 1"), ([0.2, 0.1, 0.7], "of the label 0, got")],
)
def test_verify_judges_them_even_under_a_fitting_manifest(tmp_path, row, message):
    make_run(tmp_path, soft_labels=True)
    path = tmp_path / "shards/shard-00000.h5"
    with h5py.File(path, "r+") as file:
        file["soft_labels"][1] = row
    report = verify(tmp_path)
    assert [p.kind for p in report.problems] == ["changed", "content", "content"]
    reseal(tmp_path, path.name)
    [problem] = verify(tmp_path).problems
    assert problem.kind == "content"
    assert message in problem.message


def test_the_hash_covers_them(tmp_path):
    hard, soft = make_run(tmp_path / "hard"), make_run(tmp_path / "soft", soft_labels=True)
    for a, b in zip(hard.shards, soft.shards, strict=True):
        assert a.sha256_decoded != b.sha256_decoded
    path = tmp_path / "soft/shards/shard-00001.h5"
    with h5py.File(path) as file:
        offset = file["soft_labels"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    kinds = [(p.kind, p.path) for p in verify(tmp_path / "soft").problems]
    assert kinds == [("changed", f"shards/{path.name}"), ("content", f"shards/{path.name}")]


@pytest.mark.parametrize("layout", ["NLC", "NHWC", "NDHWC"])
@pytest.mark.parametrize("compress", [None, "gzip"])
def test_one_flipped_byte_is_caught_in_each_layout(tmp_path, layout, compress):
    make_run(tmp_path, layout=layout, compress=compress)
    assert verify(tmp_path).ok
    manifest = Manifest.load(tmp_path)
    assert manifest.layout == layout
    path = tmp_path / "shards/shard-00002.h5"
    with h5py.File(path) as file:
        images = file["images"]
        offset = images.id.get_offset() or images.id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 3] ^= 16
    path.write_bytes(data)
    problems = verify(tmp_path).problems
    assert {p.path for p in problems} == {"shards/shard-00002.h5"}
    assert problems[0].kind == "changed"
