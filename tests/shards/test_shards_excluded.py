import json
import pickle

import numpy as np
import pytest
from example_run import make_run

from vaeaug.files.json_text import sealed, unsealed
from vaeaug.shards import (
    Manifest,
    ShardDataset,
    ShardError,
    read_list,
    save_list,
    verify,
    with_excluded,
)

FIRST, LAST = "shards/shard-00000.h5", "shards/shard-00002.h5"


@pytest.mark.parametrize("compress", [None, "gzip"])
def test_excluded_rows_are_in_no_dataset_and_come_back(tmp_path, compress):
    whole = make_run(tmp_path, compress=compress, soft_labels=True)
    before, shards = (tmp_path / "manifest.json").read_bytes(), ShardDataset(whole)
    with_excluded(whole, {FIRST: [3, 0, 3], LAST: np.array([1])}).save(tmp_path)
    data = ShardDataset(tmp_path)
    kept = [1, 2, 4, 5, 6, 7, 8, 10, 11]
    assert len(data) == data.manifest.n_images == 9
    np.testing.assert_array_equal(data.images_at(range(9)), shards.images_at(kept))
    np.testing.assert_array_equal(data.seed, shards.seed[kept])
    np.testing.assert_array_equal(data.soft_labels, shards.soft_labels[kept])
    for i, row in enumerate(kept):
        np.testing.assert_array_equal(data.image_at(i), shards.image_at(row))
        assert data[i][1] == shards[row][1]
    again = pickle.loads(pickle.dumps(data))  # noqa: S301 - our own
    np.testing.assert_array_equal(again.images_at([-1, 0]), shards.images_at([11, 1]))
    assert [entry.accepted for entry in data.manifest.classes] == [3, 3, 3]
    assert not data.manifest.complete
    assert verify(tmp_path).ok, str(verify(tmp_path))
    with_excluded(data.manifest, {}).save(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_class_may_lose_every_sample(tmp_path):
    with_excluded(make_run(tmp_path), {FIRST: range(5)}).save(tmp_path)
    assert ShardDataset(tmp_path).labels.tolist() == [1] * 3 + [2] * 4
    assert len(ShardDataset(tmp_path, classes=["ant"])) == 0
    assert verify(tmp_path).ok


def test_only_a_manifest_with_excluded_samples_has_a_version_that_old_readers_refuse(tmp_path):
    manifest = make_run(tmp_path)
    assert json.loads(manifest.to_bytes())["format_version"] == 1
    assert json.loads(with_excluded(manifest, {LAST: [0]}).to_bytes())["format_version"] == 2


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({FIRST: [5]}, r"shard-00000.h5: expected row numbers in \[0, 5\), got 5"),
        ({FIRST: [-1]}, r"expected row numbers in \[0, 5\), got -1"),
        ({FIRST: [True]}, "got True"),
        ({"shards/other.h5": [0]}, "expected shards of this run, got 'shards/other.h5'"),
    ],
)
def test_rows_that_are_not_there_are_refused(tmp_path, samples, message):
    manifest = make_run(tmp_path)
    with pytest.raises(ShardError, match=message):
        with_excluded(manifest, samples)
    with pytest.raises(ShardError, match=message):
        save_list(tmp_path / "list.json", manifest, samples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format_version=1), "expected format_version 2 for a manifest with"),
        (lambda c: c["extra"].pop("excluded"), "expected format_version 1 for a manifest without"),
        (lambda c: c["extra"]["excluded"].update({FIRST: [4, 3]}), "ascending row numbers"),
        (lambda c: c["extra"]["excluded"].update({FIRST: [5]}), r"rows of a shard .* got 5"),
        (lambda c: c["extra"]["excluded"].update({"shards/x.h5": [0]}), "shards/x.h5: expected"),
    ],
)
def test_a_forged_manifest_is_refused(tmp_path, change, message):
    from test_shards_read import rewrite_manifest

    with_excluded(make_run(tmp_path), {FIRST: [0]}).save(tmp_path)
    rewrite_manifest(tmp_path, change)
    with pytest.raises(ShardError, match=message):
        Manifest.load(tmp_path)


def test_verify_counts_what_is_left(tmp_path):
    from test_shards_read import rewrite_manifest

    with_excluded(make_run(tmp_path), {FIRST: [0]}).save(tmp_path)
    rewrite_manifest(tmp_path, lambda c: c["extra"]["excluded"].update({FIRST: [0, 1]}))
    assert "expected 4 accepted samples in the shards, got 3" in str(verify(tmp_path))


def test_a_list_is_read_as_it_was_saved_and_is_of_one_run(tmp_path):
    manifest = make_run(tmp_path / "a")
    path = tmp_path / "list.json"
    save_list(path, manifest, {LAST: [2, 1], FIRST: []})
    assert read_list(path, manifest) == {LAST: [1, 2]}
    other = make_run(tmp_path / "b", dtype="float32")
    with pytest.raises(ShardError, match="expected the list of this run, got one of other samples"):
        read_list(path, other)
    content = unsealed(path.read_bytes())
    path.write_bytes(path.read_bytes().replace(b"1,", b"0,"))
    with pytest.raises(ShardError, match="it was changed after it was written"):
        read_list(path, manifest)
    path.write_bytes(sealed(content | {"format_version": 2}))
    with pytest.raises(ShardError, match=r"of version 1, got .* of 2"):
        read_list(path, manifest)
    path.write_bytes(sealed(content | {"shards": {LAST: [1]}}))
    with pytest.raises(ShardError, match="expected an object of sha256_decoded and rows"):
        read_list(path, manifest)
